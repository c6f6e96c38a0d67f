from lease_fixture import here, step  # noqa: F401
from satellite_fixture import local, satellite, slurm, workdir  # noqa: F401
from sshd_fixture import own_home, sshd, sshd_factory  # noqa: F401
