"""Archives become folders of objects: what is in them, and nothing outside, whoever made them."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import stat
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from files_server import FilesServer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from satellite_fixture import HOSTILE

from dagster_slurm_components.data.host import unpack as module
from dagster_slurm_components.data.host.content import tree_key
from dagster_slurm_components.data.host.fetch import fetch
from dagster_slurm_components.data.host.layout import Layout
from dagster_slurm_components.data.host.program import answer
from dagster_slurm_components.data.host.unpack import unpack
from dagster_slurm_components.environments.host.tools import Problem

FILES = {"top/a.txt": b"A", "top/sub/b": b"B" * 5000, "same": b"A"}


def tar_of(*members: tuple[str, bytes | tarfile.TarInfo], mode: str = "w", **more: Any) -> bytes:
    """Return a tar of files (bytes) and of members as they are given."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode, errors="surrogateescape", **more) as tar:  # type: ignore[call-overload]
        for name, content in members:
            member = tarfile.TarInfo(name) if isinstance(content, bytes) else content
            member.name = name
            member.size = len(content) if isinstance(content, bytes) else member.size
            tar.addfile(member, io.BytesIO(content) if isinstance(content, bytes) else None)
    return buffer.getvalue()


def special(kind: bytes, link: str = "", **more: Any) -> tarfile.TarInfo:
    """Return a member that is no plain file."""
    member = tarfile.TarInfo()
    member.type, member.linkname = kind, link
    for name, value in more.items():
        setattr(member, name, value)
    return member


def zip_of(*members: tuple[str, bytes, int], **more: Any) -> bytes:
    """Return a zip of files with their modes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", **more) as archive:
        for name, content, mode in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            archive.writestr(info, content, compress_type=more.get("compression"))
    return buffer.getvalue()


def unpacked(workdir: Path, archive: bytes, name: str = "a.tar", most: int | None = None) -> Any:
    digest = hashlib.sha256(archive).hexdigest()
    layout = Layout(str(workdir))
    part = Path(os.fsdecode(layout.folder(b"incoming")), "uploaded")
    part.write_bytes(archive)
    layout.admit(os.fsencode(part), "", digest)
    order = {"workdir": str(workdir), "name": name, "sha256": digest, "source": "file:a", "most": most}
    try:
        return unpack(order)
    finally:
        left = [path.name for path in (workdir / "data" / "incoming").iterdir()]
        assert [each for each in left if not each.startswith(".lock-")] == []


def tree(workdir: Path, made: Any) -> Path:
    return workdir / "data" / "trees" / str(made["key"]) / str(made["name"])


def files_in(top: Path) -> dict[str, bytes]:
    return {str(path.relative_to(top)): path.read_bytes() for path in top.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("name", "mode"), [("a.tar", "w"), ("a.tar.gz", "w:gz"), ("a.TBZ2", "w:bz2"), ("a.txz", "w:xz")]
)
def test_a_tar_becomes_a_folder_of_objects(name: str, mode: str, workdir: Path):
    made = unpacked(workdir, tar_of(*FILES.items(), mode=mode), name)
    assert (made["name"], made["state"], made["count"], made["bytes"]) == ("a", "fetched", 3, 5002)
    assert files_in(tree(workdir, made)) == FILES
    assert (tree(workdir, made) / "same").samefile(tree(workdir, made) / "top" / "a.txt")
    rows = [(place, "", hashlib.sha256(content).hexdigest()) for place, content in FILES.items()]
    assert made["key"] == tree_key("a", rows, [], True)
    assert unpacked(workdir, tar_of(*FILES.items(), mode=mode), name)["state"] == "ready"


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
def test_a_zip_becomes_the_same_folder(compression: int, workdir: Path):
    members = [(name, content, 0o644) for name, content in FILES.items()]
    made = unpacked(workdir, zip_of(*members, compression=compression), "a.zip")
    assert files_in(tree(workdir, made)) == FILES
    assert made["key"] == unpacked(workdir, tar_of(*FILES.items()))["key"]


def test_modes_links_and_empty_folders_are_kept(workdir: Path):
    made = unpacked(
        workdir,
        tar_of(
            ("./", special(tarfile.DIRTYPE, mode=0o777)),
            ("./bin/run", special(tarfile.REGTYPE, mode=0o6755)),
            ("empty/", special(tarfile.DIRTYPE)),
            ("empty", special(tarfile.DIRTYPE)),
            ("a//x", b"x"),
            ("a/link", special(tarfile.SYMTYPE, "../bin/run")),
            ("hard", special(tarfile.LNKTYPE, "./a/x")),
        ),
    )
    top = tree(workdir, made)
    assert stat.S_IMODE((top / "bin" / "run").stat().st_mode) == 0o500
    assert ((top / "a" / "link").readlink(), (top / "empty").is_dir()) == (Path("../bin/run"), True)
    assert (top / "hard").samefile(top / "a" / "x")
    kept = unpacked(
        workdir,
        zip_of(
            ("bin/run", b"", stat.S_IFREG | 0o755), ("l", b"bin/run", stat.S_IFLNK | 0o777), ("e/", b"", 0)
        ),
        "b.zip",
    )
    top = tree(workdir, kept)
    assert stat.S_IMODE((top / "bin" / "run").stat().st_mode) == 0o500
    assert ((top / "l").readlink(), (top / "e").is_dir()) == (Path("bin/run"), True)


HOSTILE_TARS = {
    "up": [("../x", b"")],
    "up later": [("a/../../x", b"")],
    "absolute": [("/tmp/x", b"")],
    "link up": [("l", special(tarfile.SYMTYPE, "../x"))],
    "link to a root": [("l", special(tarfile.SYMTYPE, "/etc/passwd"))],
    "through a link": [("l", special(tarfile.SYMTYPE, ".")), ("l/x", b"")],
    "link over a file": [("x", b""), ("x", special(tarfile.SYMTYPE, "y"))],
    "hard link out": [("l", special(tarfile.LNKTYPE, "/etc/passwd"))],
    "hard link to what comes later": [("l", special(tarfile.LNKTYPE, "x")), ("x", b"")],
    "device": [("d", special(tarfile.CHRTYPE))],
    "FIFO": [("d", special(tarfile.FIFOTYPE))],
    "unknown type": [("d", special(b"Z"))],
    "twice": [("x", b"1"), ("./x", b"2")],
    "a file as a folder": [("x", b"1"), ("x/y", b"2")],
    "a folder as a file": [("x", special(tarfile.DIRTYPE)), ("x", b"2")],
}


@pytest.mark.parametrize("members", HOSTILE_TARS.values(), ids=HOSTILE_TARS)
def test_a_hostile_tar_is_refused_and_leaves_nothing(members: list[Any], workdir: Path):
    with pytest.raises(Problem, match="holds") as caught:
        unpacked(workdir, tar_of(("good", b"good"), *members))
    assert caught.value.code == "unsafe"
    assert len(list(workdir.glob("data/objects/*/*"))) == 1  # the archive's own
    assert not list(workdir.glob("data/trees/[!.]*"))


@pytest.mark.parametrize(
    "member",
    [
        ("../x", b"", 0o644),
        ("/x", b"", 0o644),
        ("l", b"../x", stat.S_IFLNK | 0o777),
        ("d", b"", stat.S_IFIFO | 0o644),
        ("good", b"again", 0o644),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_hostile_zip_is_refused(member: tuple[str, bytes, int], workdir: Path):
    with pytest.raises(Problem, match="holds") as caught:
        unpacked(workdir, zip_of(("good", b"", 0o644), member), "a.zip")
    assert caught.value.code == "unsafe"


@pytest.mark.parametrize("name", ["a.tar.gz", "a.zip"])
def test_a_bomb_is_stopped(name: str, workdir: Path):
    zeros = bytes(1_000_000)
    if name == "a.zip":
        archive = zip_of(*((str(n), zeros, 0o644) for n in range(5)), compression=zipfile.ZIP_DEFLATED)
    else:
        archive = tar_of(*((str(n), zeros) for n in range(5)), mode="w:gz")
    with pytest.raises(Problem, match="larger than allowed") as caught:
        unpacked(workdir, archive, name, most=4_999_999)
    assert caught.value.code == "too_large"
    assert unpacked(workdir, archive, name, most=5_000_000)["bytes"] == 5_000_000


def test_very_many_members_are_stopped(workdir: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_MOST_MEMBERS", 2)
    with pytest.raises(Problem, match="more than 2 members"):
        unpacked(workdir, tar_of(*FILES.items()))


def test_a_header_that_would_fill_the_memory_is_refused(workdir: Path):
    member = special(tarfile.XHDTYPE, size=5_000_000)
    archive = tar_of(("ok", b""))[:512] + member.tobuf() + bytes(5_000_448) + tar_of(("x", b""))
    with pytest.raises(Problem, match="a header of 5000000 bytes") as caught:
        unpacked(workdir, gzip.compress(archive))
    assert caught.value.code == "bad_archive"


NO_ARCHIVES = {
    "text": b"no archive at all" * 100,
    "empty": b"",
    "cut gzip": tar_of(*FILES.items(), mode="w:gz")[:-20],
    "wrong checksum": tar_of(*FILES.items(), mode="w:gz")[:-8] + b"12345678",
    "cut tar": tar_of(*FILES.items())[:1000],
    "cut header": tar_of(*FILES.items())[:1224],
    "broken header": tar_of(*FILES.items())[:1024] + b"x" * 512 + tar_of(*FILES.items()),
    "cut zip": zip_of(("a", b"a", 0), ("b", b"b", 0))[:-30],
    "zstd": b"\x28\xb5\x2f\xfd" + bytes(100),
    "gzip of no tar": gzip.compress(b"a,b\n" * 1000),
}


@pytest.mark.parametrize("archive", NO_ARCHIVES.values(), ids=NO_ARCHIVES)
def test_what_is_no_archive_or_a_broken_one_is_said(archive: bytes, workdir: Path):
    with pytest.raises(Problem, match="can't be unpacked") as caught:
        unpacked(workdir, archive, "a.tar.gz")
    assert caught.value.code == "bad_archive"


GOOD_ARCHIVES = [
    tar_of(*FILES.items(), mode="w:gz"),
    tar_of(*FILES.items()),
    tar_of(*FILES.items(), format=tarfile.PAX_FORMAT, mode="w:xz"),
    zip_of(*((name, content, 0o644) for name, content in FILES.items()), compression=zipfile.ZIP_DEFLATED),
]


@given(
    archive=st.sampled_from(GOOD_ARCHIVES),
    places=st.lists(st.floats(0, 0.999), max_size=3),
    byte=st.binary(min_size=1, max_size=1),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=100)
def test_a_damaged_archive_is_unpacked_or_said_to_be_bad(
    archive: bytes, places: list[float], byte: bytes, tmp_path_factory: pytest.TempPathFactory
):
    damaged = bytearray(archive)
    for place in places:
        damaged[int(place * len(archive))] = byte[0]
    try:
        unpacked(tmp_path_factory.mktemp("work"), bytes(damaged), most=1_000_000)
    except Problem as problem:
        assert problem.code in ("bad_archive", "unsafe", "too_large"), problem.message  # noqa: PT017


PLACES = st.lists(st.sampled_from(["a", "b", *HOSTILE]), min_size=1, max_size=3).map("/".join)


@given(members=st.dictionaries(PLACES, st.binary(max_size=20), max_size=8), as_zip=st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
def test_any_names_come_back(
    members: dict[str, bytes], as_zip: bool, tmp_path_factory: pytest.TempPathFactory
):
    places = [name for name in members if not any(other.startswith(name + "/") for other in members)]
    if as_zip:  # whose names are UTF-8
        places = [name for name in places if "\udcff" not in name]
        archive = zip_of(*((name, members[name], 0o644) for name in places))
    else:
        archive = tar_of(*((name, members[name]) for name in places))
    workdir = tmp_path_factory.mktemp("work")
    made = unpacked(workdir, archive, "x.bin")
    assert made["name"] == "x.bin"
    assert files_in(tree(workdir, made)) == {name: members[name] for name in places}


@given(names=st.lists(st.text("./ab\n", min_size=1, max_size=8), max_size=4), links=st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
def test_nothing_ever_lies_outside(names: list[str], links: bool, tmp_path_factory: pytest.TempPathFactory):
    """Whatever members are called and point to, all that appears lies below the working folder."""
    outer = tmp_path_factory.mktemp("outer")
    members: list[Any] = [
        (name, special(tarfile.SYMTYPE, names[-1 - n]) if links and n % 2 else b"x")
        for n, name in enumerate(names)
    ]
    said = None
    try:
        made = unpacked(outer / "a" / "b" / "work", tar_of(*members))
    except Problem as problem:
        said = problem.code
    assert said in (None, "unsafe")
    assert os.listdir(outer) == ["a"]
    assert os.listdir(outer / "a") == ["b"]
    assert os.listdir(outer / "a" / "b") == ["work"]
    if said is None:
        top = tree(outer / "a" / "b" / "work", made).resolve()
        assert all(
            top in [path.resolve(), *path.resolve().parents] for path in top.rglob("*") if path.exists()
        )


def test_an_archive_that_is_fetched_is_not_kept(files: FilesServer, workdir: Path):
    archive = tar_of(*FILES.items(), mode="w:gz")
    order = {
        "workdir": str(workdir),
        "name": "zoo.tar.gz",
        "url": files.serve("/zoo", archive),
        "sha256": None,
    }
    order.update(unpack=True, rate=None, most=None, bound=None, fresh=0, at_once=1)
    made = fetch(order)
    assert (made["state"], made["name"], files_in(tree(workdir, made))) == ("fetched", "zoo", FILES)
    assert len(list(workdir.glob("data/objects/*/*"))) == 2
    assert fetch(order)["state"] == "unchanged"
    count = len(files.requests)
    assert fetch(dict(order, sha256=hashlib.sha256(archive).hexdigest()))["state"] == "ready"
    assert len(files.requests) == count


def test_an_archive_that_is_not_there_is_named(workdir: Path):
    order = {"workdir": str(workdir), "name": "a.tar", "sha256": "a" * 64, "source": "", "most": None}
    said = answer("unpack", order)
    assert (said["code"], said["detail"]) == ("missing", ["a" * 64])
