from pam_fixture import pam_sshd  # noqa: F401
from sshd_fixture import own_home, sshd, sshd_factory  # noqa: F401
