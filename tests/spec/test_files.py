"""Which files a pattern finds: links, circles, what can't travel, what stays behind; none of them is read."""

from __future__ import annotations

import os
import socket
from pathlib import Path, PurePosixPath

import pytest

from dagster_slurm_components.spec.files import NEVER_SENT, find_files, left_out, place
from dagster_slurm_components.spec.merge import Layer
from dagster_slurm_components.spec.problems import SpecError
from dagster_slurm_components.spec.profile import Profile
from dagster_slurm_components.spec.profiles import LoadedProfile
from dagster_slurm_components.spec.resolve import ResolvedScript, ScriptEntry, resolve_script

HOSTILE = [
    "a b.py",
    "it's.py",
    'q"uote.py',
    "ünïcode.py",
    ";$(touch x).py",
    "new\nline.py",
    "-rf.py",
    "d[1].csv",
]
PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "data.md"


def make(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("1")


def places(folder: Path, pattern: str, *exclude: str) -> list[str]:
    return sorted(str(where) for where in find_files(folder, pattern, exclude)[0])


def bytes_read() -> int:
    """Return how many bytes this process has read since it started."""
    return int(Path("/proc/self/io").read_text().split()[1])


def resolved(folder: Path, **fields: object) -> ResolvedScript:
    return resolve_script(
        ScriptEntry(Layer("script", {"payload": "p.sh", **fields}, lambda path: None, folder), None, folder),
        LoadedProfile("local", Profile(), (), folder),
    )


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_file_names(name: str, tmp_path: Path) -> None:
    make(tmp_path, name)
    assert find_files(tmp_path, name) == ({PurePosixPath(name): (tmp_path / name, 1)}, ())


def test_folders_and_patterns(tmp_path: Path) -> None:
    make(tmp_path, "d/x.txt", "d/e/y.txt", "d/__pycache__/z.pyc", ".git/config", "d/.h/w.txt", ".i/v.txt")
    assert places(tmp_path, "d") == ["d/.h/w.txt", "d/e/y.txt", "d/x.txt"]
    assert places(tmp_path, "d/**") == places(tmp_path, "d")
    assert places(tmp_path, "**/*.txt") == ["d/e/y.txt", "d/x.txt"]
    assert places(tmp_path, "**/e/**/*.txt") == ["d/e/y.txt"]
    assert places(tmp_path, "*/**/y.txt") == ["d/e/y.txt"]
    assert places(tmp_path / "d" / "e", "../**/*.txt") == ["x.txt", "y.txt"]
    assert places(tmp_path, f"{tmp_path}/**/x.txt") == ["d/x.txt"]
    assert places(tmp_path, "d/*.nope") == []
    assert str(place("../../a/./b.py")) == "a/b.py"
    assert str(place("/abs/b.py")) == "abs/b.py"


def test_a_link_stands_for_what_it_leads_to_and_no_circle_is_entered(tmp_path: Path) -> None:
    """`data/link` did not travel, and with `data/loop` each file did 40 times."""
    make(tmp_path, "data/x", "other/deep.txt", "other/below/z")
    for link, target in {
        "link": "../other",
        "loop": ".",
        "up": "..",
        "same": "x",
        "gone": "no",
        "self": "self",
    }.items():
        (tmp_path / "data" / link).symlink_to(target)
    (tmp_path / "other" / "back").symlink_to("../data")
    for pattern in ("data", "data/**", "data/**/*", "**/data"):
        files, others = find_files(tmp_path, pattern)
        inside = ["data/link/below/z", "data/link/deep.txt", "data/same", "data/x"]
        assert sorted(map(str, files)) == inside, pattern
        assert others == (
            "data/gone is a link to no, which leads nowhere",
            "data/self is a link to self, which leads nowhere",
        )
    assert places(tmp_path, "data/link/*.txt") == ["data/link/deep.txt"]
    assert find_files(tmp_path, "data/loop")[1] == ("data/loop is a folder with nothing to send",)


def test_two_links_to_a_folder_both_travel(tmp_path: Path) -> None:
    make(tmp_path, "v1/x")
    (tmp_path / "latest").symlink_to("v1")
    assert places(tmp_path, "*") == ["latest/x", "v1/x"]


def test_what_is_no_file_is_said(tmp_path: Path) -> None:
    make(tmp_path, "d/x")
    (tmp_path / "d" / "empty").mkdir()
    os.mkfifo(tmp_path / "d" / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(tmp_path / "d" / "sock"))
    (tmp_path / "d" / "null").symlink_to("/dev/null")
    files, others = find_files(tmp_path, "d")
    assert [str(where) for where in files] == ["d/x"]
    assert others == ("d/null is a device", "d/pipe is a FIFO", "d/sock is a socket")
    assert find_files(tmp_path, "d/pipe") == ({}, ("d/pipe is a FIFO",))
    assert find_files(tmp_path, "d/empty") == ({}, ("d/empty is a folder with nothing to send",))
    assert find_files(tmp_path, "d/none") == ({}, ())


def test_what_stays_behind_unless_it_is_spelled_out(tmp_path: Path) -> None:
    make(tmp_path, *(f"{name.replace('*', 'x')}/a.txt" for name in NEVER_SENT if name != ".env"), ".env", "b")
    assert places(tmp_path, ".") == ["b"]
    assert places(tmp_path, "**") == ["b"]
    assert places(tmp_path, "*") == ["b"]
    assert places(tmp_path, ".env") == [".env"]
    assert places(tmp_path, ".cache/*.txt") == [".cache/a.txt"]
    assert places(tmp_path, "dagster_home") == ["dagster_home/a.txt"]
    assert places(tmp_path / ".venv", "*.txt") == ["a.txt"], "what lies above the YAML does not count"
    for name in NEVER_SENT:
        assert f"`{name}`" in PAGE.read_text(), "the page lists them all"


@pytest.mark.parametrize(
    ("exclude", "stays"),
    [
        ("*.tmp", ["a.tmp", "data/b.tmp", "x/data/raw/d.tmp"]),
        ("raw", ["data/raw/c", "x/data/raw/d.tmp"]),
        ("data/raw", ["data/raw/c", "x/data/raw/d.tmp"]),
        ("./data/raw/", ["data/raw/c", "x/data/raw/d.tmp"]),
        ("../../x", ["x/data/raw/d.tmp"]),
        ("data/*/c", ["data/raw/c"]),
        ("RAW", []),
        (".", []),
        ("b", []),
    ],
)
def test_exclude_means_names_and_ends_of_paths(exclude: str, stays: list[str]) -> None:
    every = ["a.tmp", "data/b.tmp", "data/raw/c", "x/data/raw/d.tmp"]
    assert [each for each in every if left_out(PurePosixPath(each), [exclude])] == stays


def test_no_run_directory_travels(tmp_path: Path) -> None:
    run = tmp_path / "project" / "work" / "runs" / "r1" / "train" / "1"
    (run / "payload").mkdir(parents=True)
    for name in ("job.sh", "ledger", "job.env", "stdout.log", "payload/train.sh"):
        (run / name).touch()
    (tmp_path / "project" / "work" / "data").touch()
    (tmp_path / "project" / "jobs").mkdir()
    for pattern in ("..", "../work", "../**/*", "../work/runs/*/*/*"):
        files, _ = find_files(tmp_path / "project" / "jobs", pattern)
        assert not [where for where in files if "runs" in where.parts], pattern
    files, _ = find_files(tmp_path / "project" / "jobs", "../work/runs/r1/train/1/stdout.log")
    assert len(files) == 1, "what is spelled out does"


def test_exclude_wins_over_files_and_never_takes_the_payload(tmp_path: Path) -> None:
    make(tmp_path, "p.sh", "data/x", "data/y.tmp")
    script = resolved(tmp_path, files=["data"], exclude=["*.tmp", "p.sh"])
    assert sorted(map(str, script.payload_files())) == ["data/x", "p.sh"]
    with pytest.raises(SpecError, match=r"data/y\.tmp stays behind by `exclude` or its name"):
        resolved(tmp_path, files=["data/y.tmp"], exclude=["*.tmp"]).payload_files()


def test_the_size_is_known_before_anything_is_read(tmp_path: Path) -> None:
    """A file of 3 GiB was hashed at each load, and read whole by the step that then refused it."""
    make(tmp_path, "p.sh", "small")
    (tmp_path / "big.bin").touch()
    os.truncate(tmp_path / "big.bin", 3 << 30)
    script, before = resolved(tmp_path, files=["small", "*.bin"]), bytes_read()
    for look in (script.payload_files, script.content_digest):
        with pytest.raises(SpecError) as caught:
            look()
        (problem,) = caught.value.problems
        assert problem.message == (
            "the script's files have 3.0 GiB, and a job carries 256.0 MiB; the largest is big.bin of 3.0 GiB"
        )
        assert (problem.kind, problem.path) == ("too_large", ("files", 1))
    assert bytes_read() - before < 1_000_000
    assert resolved(tmp_path, files=["*"], exclude=["big.bin"]).content_digest()
