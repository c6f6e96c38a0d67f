"""Folders and ports a cluster may have."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm_testcluster.errors import ClusterError
from slurm_testcluster.layout import (
    LONGEST_FOLDER,
    Ports,
    check_folder,
    choose_ports,
)

BLOCKS = (Ports.HIGHEST - Ports.LOWEST) // Ports.BLOCK


@given(st.text(min_size=1))
def test_ports_are_a_whole_free_block_in_range(name: str) -> None:
    ports = choose_ports(Path("/") / name.replace("\0", ""), lambda port: True)
    assert Ports.LOWEST <= min(ports.used) <= max(ports.used) < Ports.HIGHEST
    assert (ports.first - Ports.LOWEST) % Ports.BLOCK == 0
    assert len(set(ports.used)) == len(ports.used) == 7


def test_stored_ports_are_kept_while_free() -> None:
    assert choose_ports(Path("/a"), lambda port: True, Ports(20008)) == Ports(20008)


def test_ports_move_when_one_is_taken() -> None:
    first = choose_ports(Path("/a"), lambda port: True)
    taken = first.of("slurmdbd")
    second = choose_ports(Path("/a"), lambda port: port != taken, first)
    assert taken not in second.used


def test_two_folders_begin_their_search_at_different_places() -> None:
    found = {choose_ports(Path(f"/cluster{number}"), lambda port: True) for number in range(10)}
    assert len(found) == 10


def test_no_free_ports_is_an_error_after_each_block_was_tried() -> None:
    asked: set[int] = set()

    def is_free(port: int) -> bool:
        asked.add(port)
        return False

    with pytest.raises(ClusterError, match="no free block"):
        choose_ports(Path("/a"), is_free)
    assert len(asked) == BLOCKS


@pytest.mark.parametrize(
    "name", ["with space", "semi;colon", "new\nline", "quo'te", "hash#", "com,ma", "per%cent", "žluť"]
)
def test_folder_that_slurm_can_not_write_down_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ClusterError, match="can't carry this path"):
        check_folder(Path("/tmp") / name)


def test_folder_too_long_for_sockets_is_refused() -> None:
    assert check_folder(Path("/" + "a" * (LONGEST_FOLDER - 1)))
    with pytest.raises(ClusterError, match="too many"):
        check_folder(Path("/" + "a" * LONGEST_FOLDER))


def test_folder_is_made_absolute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/usr")
    assert check_folder(Path("lab")) == Path("/usr/lab")
