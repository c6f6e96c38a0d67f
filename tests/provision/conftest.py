"""Fixtures of all tests of environments."""

from package_fixture import index, own_cache  # noqa: F401 - fixtures
from web_fixture import server  # noqa: F401 - a fixture
