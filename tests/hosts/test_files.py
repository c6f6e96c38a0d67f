import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from satellite_fixture import HOSTILE

from dagster_slurm_components.errors import SatelliteError
from dagster_slurm_components.hosts.satellite.calls import FileRead
from dagster_slurm_components.hosts.satellite.transfer import fair_shares


def mode(path):
    return os.stat(path).st_mode & 0o7777


def as_path(folder: Path, name: str) -> str:
    return str(folder / name)


def test_hostile_names_are_written_read_and_removed(satellite, tmp_path):
    paths = [as_path(tmp_path, f"root/{name}/{name}.log") for name in HOSTILE]
    for number, path in enumerate(paths):
        satellite.mkdir(os.path.dirname(path), str(tmp_path))
        satellite.put(path, f"{number}".encode())
        assert os.path.isfile(path)
        assert mode(path) == 0o600
        assert mode(os.path.dirname(path)) == 0o700
    found = satellite.read([FileRead(path) for path in paths])
    assert [data.data for data in found] == [f"{number}".encode() for number in range(len(paths))]
    satellite.remove(as_path(tmp_path, "root"), [os.path.dirname(path) for path in paths])
    assert os.listdir(tmp_path / "root") == []
    assert os.listdir(tmp_path) == ["root"]


def test_reading_goes_on_from_an_offset_and_tells_size_and_inode(satellite, tmp_path):
    log = tmp_path / "log"
    log.write_bytes(b"0123456789")
    path = str(log)
    rest, piece, beyond, end = satellite.read(
        [FileRead(path, 4), FileRead(path, 2, 3), FileRead(path, 50), FileRead(path, 10)]
    )
    assert (rest.data, piece.data, beyond.data, end.data) == (b"456789", b"234", b"", b"")
    assert {data.size for data in (rest, piece, beyond, end)} == {10}
    assert {data.inode for data in (rest, piece, beyond, end)} == {log.stat().st_ino}
    assert rest.mtime == pytest.approx(log.stat().st_mtime)


def test_what_cannot_be_read_is_a_status_of_its_own_file(satellite, tmp_path):
    (tmp_path / "good").write_text("x")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    names = ["missing", "good/below-a-file", "pipe", "loop", "good"]
    missing, below, pipe, loop, good = satellite.read([FileRead(str(tmp_path / name)) for name in names])
    assert not missing.exists
    assert not below.exists
    assert pipe.error == "not a regular file"
    assert loop.exists
    assert "symbolic links" in str(loop.error)
    assert (good.data, good.error) == (b"x", None)


def test_one_long_log_starves_no_other_file(satellite, tmp_path):
    (tmp_path / "endless").write_bytes(b"e" * 1_000_000)
    for number in range(20):
        (tmp_path / f"short{number}").write_bytes(b"s" * 100)
    paths = [tmp_path / "endless", *(tmp_path / f"short{number}" for number in range(20))]
    found = satellite.read([FileRead(str(path)) for path in paths], total=10_000)
    assert [len(data.data) for data in found] == [8_000, *[100] * 20]


@settings(deadline=None)
@given(
    st.lists(st.integers(min_value=0, max_value=1000), max_size=30),
    st.integers(min_value=0, max_value=20_000),
)
def test_shares_are_fair(wishes, total):
    shares = fair_shares(wishes, total)
    assert sum(shares) == min(total, sum(wishes))
    assert all(0 <= share <= wish for share, wish in zip(shares, wishes, strict=True))
    unhappy = [share for share, wish in zip(shares, wishes, strict=True) if share < wish]
    if unhappy:  # nobody got more than those who had to do with less
        assert max(shares) <= min(unhappy) + 1


def test_a_total_below_one_byte_a_file_is_refused(local):
    with pytest.raises(SatelliteError, match="too little") as caught:
        local.host.call("read", {"files": [["/x", 0, 1]] * 3, "total": 2})
    assert caught.value.code == "bad_request"


def test_put_replaces_whole_and_leaves_nothing_beside(satellite, tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    satellite.put(str(path), b"new", 0o700)
    assert path.read_bytes() == b"new"
    assert mode(path) == 0o700
    assert os.listdir(tmp_path) == ["file"]


def test_put_into_a_missing_folder_says_so(satellite, tmp_path):
    with pytest.raises(SatelliteError, match="No such file") as caught:
        satellite.put(str(tmp_path / "no" / "file"), b"")
    assert caught.value.code == "not_found"


def test_mkdir_is_content_with_a_folder_and_not_with_a_file(satellite, tmp_path):
    satellite.mkdir(str(tmp_path / "a" / "b"), str(tmp_path))
    satellite.mkdir(str(tmp_path / "a" / "b"), str(tmp_path))
    (tmp_path / "file").touch()
    with pytest.raises(SatelliteError):
        satellite.mkdir(str(tmp_path / "file"), str(tmp_path))


@pytest.mark.parametrize(
    "path", ["..", "../victim", "inside/../../victim", "/", "", ".", "out/victim", "inside/.."]
)
def test_remove_refuses_what_is_not_strictly_below(satellite, tmp_path, path):
    root = tmp_path / "root"
    (root / "inside").mkdir(parents=True)
    (tmp_path / "victim").mkdir()
    (root / "out").symlink_to(tmp_path)
    with pytest.raises(SatelliteError) as caught:
        satellite.remove(str(root), ["inside", path])
    assert caught.value.code == "outside"
    assert (root / "inside").is_dir(), "a refused call removes nothing"
    assert (tmp_path / "victim").is_dir()


def test_remove_takes_a_link_and_not_its_target(satellite, tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "victim").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path / "victim")
    satellite.remove(str(tmp_path / "root"), ["link", "never-there"])
    assert os.listdir(tmp_path / "root") == []
    assert (tmp_path / "victim").is_dir()


@pytest.mark.skipif(os.getuid() == 0, reason="root may remove anything")
def test_remove_takes_folders_without_write_permission(satellite, tmp_path):
    locked = tmp_path / "root" / "package" / "inner"
    locked.mkdir(parents=True)
    (locked / "file").touch()
    (locked / "link").symlink_to(tmp_path)
    locked.chmod(0o500)
    locked.parent.chmod(0o000)
    satellite.remove(str(tmp_path / "root"), ["package"])
    assert os.listdir(tmp_path / "root") == []


def test_remove_refuses_the_root_of_the_machine(local):
    with pytest.raises(SatelliteError, match="nothing was removed"):
        local.remove("/", ["tmp"])


def test_disk_tells_bytes_and_inodes(satellite, tmp_path):
    disk = satellite.disk(str(tmp_path))
    assert 0 < disk.available <= disk.total
    assert disk.inodes >= disk.inodes_available >= 0


def test_in_process_use_changes_nothing_of_the_process(local, tmp_path):
    umask = os.umask(0o022)
    try:
        before = (os.getcwd(), dict(os.environ))
        local.mkdir(str(tmp_path / "a"), str(tmp_path))
        local.put(str(tmp_path / "a" / "b"), b"x")
        local.run(["true"], env={"X": "1"})
        assert (os.getcwd(), dict(os.environ)) == before
        assert os.umask(0o022) == 0o022
        assert mode(tmp_path / "a") == 0o700
        assert mode(tmp_path / "a" / "b") == 0o600
    finally:
        os.umask(umask)


def test_a_wrong_request_is_told_and_harms_nobody(satellite):
    for op, params in [
        ("nope", {}),
        ("read", {}),
        ("read", {"files": [], "wrong": 1}),
        ("mkdir", {"path": 5}),
    ]:
        with pytest.raises(SatelliteError) as caught:
            satellite.host.call(op, params)
        assert caught.value.code in ("unknown_op", "bad_request")
        assert caught.value.where == satellite.host.name
    with pytest.raises(SatelliteError, match="NUL"):
        satellite.mkdir("/tmp/a\0b", "/tmp")
    assert satellite.hello().user
