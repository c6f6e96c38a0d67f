from small_fixture import small  # noqa: F401
from sshd_fixture import own_home, sshd, sshd_factory  # noqa: F401
from watch_fixture import world  # noqa: F401
