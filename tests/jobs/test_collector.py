"""The collector as the program that runs in jobs: what patterns stand for, hashes, targets, and what goes wrong."""

from __future__ import annotations

import errno
import hashlib
import os
import shlex
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from outputs_fixture import RunDirectory, run_directory
from satellite_fixture import OLD_PYTHON
from waiting import eventually

from dagster_slurm_components.jobs.outputs import ALL_FILES, MADE
from dagster_slurm_components.spec.outputs import literal

HOSTILE = ["a b", "two\nlines", "ünï", "; touch hacked $(touch hacked) `x`", "-rf", "'\"\\", "*", "\udcff"]


@pytest.fixture
def there(tmp_path: Path) -> RunDirectory:
    return run_directory(tmp_path / "run")


def names(made: object) -> list[str]:
    return [file.name for file in made.files]  # type: ignore[attr-defined]


def test_a_file_a_folder_and_a_pattern(there: RunDirectory) -> None:
    for name in ("report.html", "out/a.pt", "out/b.pt", "out/.hidden.pt", "out/deep/c.pt", "out/x.txt"):
        there.file(name, name)
    found = there.collect(
        {"one": "./report.html", "all": "out", "some": "out/*.pt", "deep": "out/**/*.pt", "below": "**"}
    )
    assert (found["one"].single, names(found["one"])) == (True, ["report.html"])
    assert names(found["all"]) == [".hidden.pt", "a.pt", "b.pt", "deep/c.pt", "x.txt"]
    assert names(found["some"]) == ["a.pt", "b.pt"]
    assert names(found["deep"]) == ["a.pt", "b.pt", "deep/c.pt"]
    assert names(found["below"]) == ["out/a.pt", "out/b.pt", "out/deep/c.pt", "out/x.txt", "report.html"]
    (file,) = found["one"].files
    assert (file.size, file.sha256) == (11, hashlib.sha256(b"report.html").hexdigest())
    assert found["one"].hash == hashlib.sha256(f"report.html\0{file.sha256}\n".encode()).hexdigest()
    assert found["some"].bytes == 16
    assert stat.S_IMODE((there.path / MADE).stat().st_mode) == 0o600


def test_a_file_that_another_node_made_is_waited_for(there: RunDirectory) -> None:
    there.extra["SLURM_JOB_NUM_NODES"] = "2"
    late = f"sleep 2; echo x >{shlex.quote(str(there.payload))}/late"
    with subprocess.Popen(["sh", "-c", late]):
        found = there.collect({"late": "late"})
    assert found["late"].count == 1


@pytest.mark.skipif(OLD_PYTHON is None, reason="needs a Python 3.6")
def test_the_oldest_python_in_a_locale_without_unicode(there: RunDirectory, tmp_path: Path) -> None:
    there.extra["DAGSTER_SLURM_HOST_PYTHON"] = str(OLD_PYTHON)
    for _ in range(2):
        there.file("out/ünï/x", "ü")
        found = there.collect({"out": {"path": "out/ü*", "to": f"{tmp_path}/ü"}}, umask="022")
        assert names(found["out"]) == ["ünï/x"]
        assert (tmp_path / "ü/ünï/x").read_text() == "ü"


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names(there: RunDirectory, tmp_path: Path, name: str) -> None:
    raw = name.encode("utf-8", "surrogateescape")
    there.file(b"out/" + raw + b"/" + raw, "x")
    found = there.collect(
        {"out": {"path": "out", "to": f"$TO/{name}"}, "glob": "out/**"}, {"TO": str(tmp_path)}
    )
    assert names(found["out"]) == names(found["glob"]) == [f"{name}/{name}"]
    assert (
        Path(os.fsdecode(os.fsencode(str(tmp_path)) + b"/" + raw + b"/" + raw + b"/" + raw))
    ).read_text() == "x"
    assert not list(tmp_path.rglob("hacked"))


def test_links(there: RunDirectory, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("no")
    there.file("out/real", "yes")
    there.file("step-5/w", "w")
    links = {
        "good": "real",
        "bad": secret,
        "loop": "loop",
        "gone": "nowhere",
        "up": "..",
        "other": "../step-5",
    }
    for name, target in links.items():
        (there.payload / "out" / name).symlink_to(target)
    (there.payload / "newest").symlink_to("step-5")
    (there.payload / "outside").symlink_to(tmp_path)
    os.mkfifo(there.payload / "out" / "pipe")
    found = there.collect(
        {"out": "out", "newest": "newest", "outside": {"path": "outside/*", "optional": True}}
    )
    assert names(found["out"]) == ["good", "real"]
    assert names(found["newest"]) == ["w"]
    assert found["outside"].count == 0
    assert list(found["out"].notes) == [
        "out/bad is a link that leads out of the payload's folder, and is not followed",
        "out/gone is a link that leads to no file",
        "out/loop is a link that leads to no file",
        "out/other is a link to a folder, which is not followed",
        "out/pipe is no file",
        "out/up is a link to a folder, which is not followed",
    ]
    target = tmp_path / "published"
    there.collect({"out": {"path": "out", "to": str(target)}})
    assert (target / "good").read_text() == "yes"
    assert not (target / "good").is_symlink()


def test_what_is_missing_is_told_and_nothing_is_published(there: RunDirectory, tmp_path: Path) -> None:
    (there.payload / "empty").mkdir()
    there.file("here")
    found = there.collect(
        {
            "here": {"path": "here", "to": f"{tmp_path}/here"},
            "gone": "gone/*.pt",
            "empty": "empty",
            "maybe": {"path": "maybe", "optional": True},
        },
        code=94,
    )
    errors = {name: each.error for name, each in found.items()}
    assert errors == {"here": None, "gone": "nothing is there", "empty": "nothing is there", "maybe": None}
    assert not (tmp_path / "here").exists()


def test_a_file_that_changes_meanwhile_is_told(there: RunDirectory) -> None:
    there.file("quiet")
    big = there.file("big", b"x" * 2**20)
    os.truncate(big, 200 * 2**20)
    with subprocess.Popen(
        [sys.executable, "-c", f"while True: open({str(big)!r}, 'ab').write(b'x')"]
    ) as writer:
        try:
            eventually(lambda: big.stat().st_size > 200 * 2**20, "it grows")
            found = there.collect({"all": "*"})["all"]
        finally:
            writer.kill()
    assert list(found.notes) == ["big changed while it was hashed"]
    assert found.hash is None
    assert [file.sha256 is None for file in found.files] == [True, False]


def test_a_great_many_files(there: RunDirectory) -> None:
    for number in range(1500):
        there.file(f"out/{number:04}", str(number))
    found = there.collect({"first": "out/000*", "all": "out"})
    assert (len(found["first"].files), len(found["all"].files), found["all"].count) == (10, 990, 1500)
    assert found["all"].hash
    assert len((there.path / ALL_FILES).read_text().splitlines()) == 1510
    assert (there.path / MADE).stat().st_size < 200_000


def test_files_beyond_the_limit_are_not_hashed(there: RunDirectory) -> None:
    with there.file("a").open("wb") as file:
        file.truncate(65 * 2**30)  # no block of it is on disk
    there.file("b")
    found = there.collect({"all": "*"})["all"]
    assert found.notes[0] == "a is not hashed: the outputs have more than 64 GiB"
    assert found.hash is None


# Publishing


def test_the_same_file_system_shares_the_bytes_and_keeps_modes(there: RunDirectory, tmp_path: Path) -> None:
    there.file("out/a", "1").chmod(0o640)
    there.file("out/deep/b", "b")
    (there.payload / "out/deep").chmod(0o555)
    there.file("report", "2")
    target = tmp_path / "x" / "y" / "out"
    found = there.collect(
        {"out": {"path": "out/*", "to": "$D/y/out/"}, "report": {"path": "report", "to": "${D}/r.html"}},
        {"D": str(tmp_path / "x")},
        umask="0027",
    )
    assert (found["out"].published, found["out"].path) == (True, str(target))
    assert (found["report"].path, names(found["report"])) == (f"{tmp_path}/x/r.html", ["r.html"])
    assert (target / "a").stat().st_ino == (there.payload / "out/a").stat().st_ino
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (target.parent, target, target / "a")]
    assert modes == [0o750, 0o750, 0o640]
    assert stat.S_IMODE((target / "deep").stat().st_mode) == 0o555
    there.collect({"out": {"path": "out/*", "to": str(target)}})  # which removes the one that was there
    assert stat.S_IMODE((target / "deep").stat().st_mode) == 0o555
    assert [each.name for each in target.parent.iterdir()] == ["out"]
    assert (there.payload / "out/a").read_text() == "1"


def test_a_target_is_replaced_whole_and_only_one_of_ours(there: RunDirectory, tmp_path: Path) -> None:
    there.file("out/old")
    wanted = {"out": {"path": "out", "to": f"{tmp_path}/t"}}
    there.collect(wanted)
    (there.payload / "out/old").rename(there.payload / "out/new")
    there.collect(wanted)
    assert sorted(each.name for each in (tmp_path / "t").iterdir()) == [".dg-slurm-output", "new"]
    mine = tmp_path / "mine"
    (mine / "thesis").mkdir(parents=True)
    found = there.collect({"out": {"path": "out", "to": str(mine)}}, code=94)
    assert "holds what no output put there" in (found["out"].error or "")
    assert [each.name for each in mine.iterdir()] == ["thesis"]
    (tmp_path / "link").symlink_to(mine)
    found = there.collect({"out": {"path": "out", "to": f"{tmp_path}/link"}}, code=94)
    assert "there is a link of that name" in (found["out"].error or "")


def test_what_a_template_gave_is_no_variable(there: RunDirectory, tmp_path: Path) -> None:
    there.file("a")
    key = r"x$D ${E}\$y\z"
    to = f"$TO/{literal(('outputs', 'a', 'to'), key)}/a"
    found = there.collect({"a": {"path": "a", "to": to}}, {"TO": str(tmp_path), "D": "no", "E": "no"})
    assert found["a"].path == f"{tmp_path}/{key}/a"
    assert (tmp_path / key / "a").read_text() == "x"


@pytest.mark.parametrize(
    ("to", "text"),
    [
        ("$NONE/x", "the payload has no variable NONE"),
        ("$D/../x", "`..` is no part of a target"),
        ("x", "x is no absolute path"),
        ("/", "/ is no absolute path"),
    ],
)
def test_what_is_no_target(there: RunDirectory, to: str, text: str) -> None:
    there.file("a")
    found = there.collect({"a": {"path": "a", "to": to}}, {"D": "/tmp"}, code=94)
    assert found["a"].error == f"it could not be published to {to}: {text}"


def test_what_a_crash_left_is_ended_by_the_next(there: RunDirectory, tmp_path: Path) -> None:
    there.file("out/a", "new")
    old, half = tmp_path / ".t.dg-slurm-old-1-x", tmp_path / ".t.dg-slurm-new-2-x"
    for folder in (old, half):
        folder.mkdir()
        (folder / ".dg-slurm-output").touch()
    (old / "a").write_text("old")
    there.collect({"no": "gone"}, code=94)
    assert old.is_dir()
    there.collect({"out": {"path": "out", "to": f"{tmp_path}/t"}})
    assert (tmp_path / "t" / "a").read_text() == "new"
    assert not old.exists()
    assert not half.exists()


def test_a_reader_never_sees_half_of_it(there: RunDirectory, tmp_path: Path) -> None:
    """Several jobs publish to one place at once: whoever looks finds one version whole, or for a moment none."""
    jobs = [there, run_directory(tmp_path / "other")]
    for number, job in enumerate(jobs):
        for name in range(20):
            job.file(f"out/{name}", str(number))
    target = tmp_path / "t"
    seen = set()
    script = "for _ in 1 2 3 4 5; do bash collector/collect.sh || exit; done"
    for job in jobs:
        job.collect({"out": {"path": "out", "to": str(target)}})
    workers = [subprocess.Popen(["bash", "-c", script], cwd=job.path) for job in jobs]
    while any(worker.poll() is None for worker in workers):
        try:
            folder = os.open(target, os.O_RDONLY)
        except FileNotFoundError:
            continue
        try:
            texts = []
            for name in range(20):
                file = os.open(str(name), os.O_RDONLY, dir_fd=folder)
                texts.append(os.read(file, 9))
                os.close(file)
            seen.add(b"".join(texts))
        except FileNotFoundError:  # this version is being removed, as a whole
            pass
        finally:
            os.close(folder)
    assert [worker.returncode for worker in workers] == [0, 0]
    assert seen <= {b"0" * 20, b"1" * 20}
    assert [each.name for each in tmp_path.iterdir() if "dg-slurm" in each.name] == []


def test_another_file_system(there: RunDirectory, small: Path) -> None:
    there.file("out/a", "1").chmod(0o640)
    wanted = {"out": {"path": "out", "to": f"{small}/t"}, "one": {"path": "out/a", "to": f"{small}/one"}}
    there.collect(wanted)
    there.collect(wanted)
    assert (small / "t/a").read_text() == (small / "one").read_text() == "1"
    assert stat.S_IMODE((small / "t/a").stat().st_mode) == 0o640
    assert sorted(each.name for each in small.iterdir()) == ["one", "t"]


def test_a_full_disk(there: RunDirectory, small: Path) -> None:
    there.file("out/a", "small")
    wanted = {"out": {"path": "out", "to": f"{small}/t"}}
    there.collect(wanted)
    big = there.file("out/b", b"x" * 5 * 2**20)
    found = there.collect(wanted, code=94)["out"]
    assert found.error == f"it could not be published to {small}/t: {os.strerror(errno.ENOSPC)}"
    assert found.path == str(there.payload / "out")
    assert big.stat().st_size == 5 * 2**20
    assert sorted(each.name for each in (small / "t").iterdir()) == [".dg-slurm-output", "a"]
    assert [each.name for each in small.iterdir()] == ["t"]


def test_a_target_that_may_only_be_read(there: RunDirectory, small: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small], check=True)
    there.file("a")
    found = there.collect({"a": {"path": "a", "to": f"{small}/new/a"}}, code=94)["a"]
    assert found.error == f"it could not be published to {small}/new/a: {os.strerror(errno.EROFS)}"
