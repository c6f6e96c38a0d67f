"""Fixtures of the tests of inputs."""

from satellite_fixture import workdir  # noqa: F401
