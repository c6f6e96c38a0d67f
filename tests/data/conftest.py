"""Fixtures of the tests of inputs."""

from files_server import files  # noqa: F401
from satellite_fixture import workdir  # noqa: F401
from small_fixture import small  # noqa: F401
