from satellite_fixture import local, slurm, workdir  # noqa: F401
from sshd_fixture import own_home, sshd, sshd_factory  # noqa: F401
