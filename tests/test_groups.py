"""Tests that share what is dear to start stay on one worker, where `make test` runs several."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module")
def dev() -> None:
    """Stands for one that is dear."""


def test_who_asks_for_what_is_shared_is_in_a_group(dev: None, request: pytest.FixtureRequest) -> None:
    """xdist looks at the groups once, and writes them behind the tests' names: a mark that comes later says nothing."""
    if not request.config.getoption("loadgroup", default=False):
        pytest.skip("all tests run in one process, or are not told apart by groups")
    assert request.node.nodeid.endswith("@dev of test_groups.py")
