"""The program as it runs on hosts: on old Pythons, killed anywhere, several at once, on a disk that gets full."""

from __future__ import annotations

import ast
import concurrent.futures
import hashlib
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from files_server import FilesServer
from satellite_fixture import HOSTILE, OLD_PYTHON, bundle
from waiting import PATIENCE

from dagster_slurm_components.data.host.layout import Layout
from dagster_slurm_components.data.host.program import answer
from dagster_slurm_components.hosts.program import BOOTSTRAP, modules, program

PACKAGE = Path(__file__).parents[2] / "dagster_slurm_components"
NAME = "dagster_slurm_components.data.host.program"
CONTENT = os.urandom(3_000_000)
MEMBERS: dict[str, bytes | str] = {f"sub/{name}": name.encode("utf-8", "surrogateescape") for name in HOSTILE}
MEMBERS["large"] = CONTENT[:1_000_000]

PYTHONS = [
    pytest.param(sys.executable, id="this"),
    pytest.param(
        OLD_PYTHON,
        id="3.6",
        marks=pytest.mark.skipif(OLD_PYTHON is None, reason="no Python 3.6 (DAGSTER_SLURM_OLD_PYTHON)"),
    ),
]


def start(request: Any, python: str = sys.executable, **how: Any) -> subprocess.Popen[bytes]:
    """Start the program as the satellite does, in the C locale, and ask it."""
    text = program(NAME)
    process = subprocess.Popen(
        [python, "-I", "-c", BOOTSTRAP, str(len(text))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C", "HOME": "/nowhere"},
        **how,
    )
    assert process.stdin is not None
    process.stdin.write(text + json.dumps(request).encode())
    process.stdin.close()
    process.stdin = None
    return process


def finish(process: subprocess.Popen[bytes]) -> Any:
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err.decode()
    return json.loads(out)


def ask(action: str, order: Any, python: str = sys.executable, **how: Any) -> Any:
    return finish(start({"action": action, "order": order}, python, **how))


def fetching(workdir: Path, url: str, **more: Any) -> Any:
    order = {"workdir": str(workdir), "url": url, "name": "zoo.tar.gz", "sha256": None, "unpack": True}
    return {**order, "rate": None, "most": None, "bound": None, "fresh": 0, "at_once": 2, **more}


def put(workdir: Path, content: bytes) -> str:
    layout, digest = Layout(str(workdir)), hashlib.sha256(content).hexdigest()
    part = Path(os.fsdecode(layout.folder(b"incoming")), digest)
    part.write_bytes(content)
    layout.admit(os.fsencode(part), "", digest)
    return digest


def assert_whole(workdir: Path, result: Any) -> None:
    """All members are there with their content, and nothing else: no part, no folder aside."""
    top = os.fsencode(workdir / "data" / "trees" / result["key"] / "zoo")
    found = {}
    for folder, _, names in os.walk(top):
        for name in names:
            path = os.path.join(folder, name)
            found[os.path.relpath(path, top).decode("utf-8", "surrogateescape")] = Path(
                os.fsdecode(path)
            ).read_bytes()
    assert found == {name: c if isinstance(c, bytes) else c.encode() for name, c in MEMBERS.items()}
    assert left(workdir) == []


def left(workdir: Path) -> list[str]:
    aside = [*workdir.glob("data/incoming/*"), *workdir.glob("data/trees/.[!l]*")]
    aside += [*workdir.glob("data/objects/*/new-*"), *workdir.glob("data/urls/*.tmp-*")]
    return [path.name for path in aside if not path.name.startswith(".lock-")]


@pytest.mark.parametrize("path", sorted((PACKAGE / "data" / "host").glob("*.py")), ids=lambda path: path.stem)
def test_it_needs_no_more_than_python_3_6(path: Path):
    vermin = Path(sys.executable).with_name("vermin")
    argv = [str(vermin), "--target=3.6-", "--violations", "--eval-annotations", str(path)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_all_of_it_is_sent_and_nothing_of_the_builder_of_environments():
    folder = NAME.rpartition(".")[0]
    sent = modules(NAME)
    ours = {f"{folder}.{path.stem}" for path in (PACKAGE / "data" / "host").glob("[a-z]*.py")}
    assert set(sent) >= ours
    assert "dagster_slurm_components.environments.host.build" not in sent
    for name, text in sent.items():
        wanted = {node.module for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)}
        assert {each for each in wanted if each and each.startswith("dagster")} <= set(sent), name


@pytest.mark.parametrize("python", PYTHONS)
def test_it_fetches_unpacks_links_lists_and_prunes(python: str, files: FilesServer, tmp_path: Path):
    workdir = tmp_path / "work grün"
    url = files.serve("/zoo", bundle(MEMBERS, mode="w:gz"))
    made = ask("fetch", fetching(workdir, url), python)
    assert made["ok"], made
    assert (made["result"]["state"], made["result"]["count"]) == ("fetched", len(MEMBERS))
    assert_whole(workdir, made["result"])
    assert ask("fetch", fetching(workdir, url), python)["result"]["state"] == "unchanged"
    digest = hashlib.sha256(CONTENT[:1_000_000]).hexdigest()
    rows = [[name, "", digest] for name in HOSTILE]
    order = {"workdir": str(workdir), "name": HOSTILE[-1], "source": "", "is_folder": True, "rows": rows}
    linked = ask("link", {**order, "folders": ["e"], "bound": None}, python)
    assert linked == answer("link", {**order, "folders": ["e"], "bound": None}) | {"result": linked["result"]}
    keys = {row["key"] for row in ask("list", {"workdir": str(workdir)}, python)["result"]["trees"]}
    assert keys == {made["result"]["key"], linked["result"]["key"]}
    pruned = ask(
        "prune",
        {"workdir": str(workdir), "keep": [], "unused_for": 0, "most": None, "dry_run": False},
        python,
    )
    assert {row[0] for row in pruned["result"]["removed"]} == keys
    assert list(workdir.glob("data/objects/*/*")) == []


KILLED_ANYWHERE = """
import json, os, sys
from dagster_slurm_components.data.host import program

def strike(number):
    '''Let this process end, as by kill -9, instead of its `number`th change on the disk.'''
    left = [number]
    for name in ("mkdir", "rename", "link", "unlink", "rmdir", "chmod", "utime"):
        def struck(*args, _real=getattr(os, name), **more):
            if not left[0]:
                os._exit(9)
            left[0] -= 1
            return _real(*args, **more)
        setattr(os, name, struck)

request = json.load(sys.stdin)
for number in range(10000):
    if request["before"]:
        assert program.answer("unpack", request["before"])["ok"]
    pid = os.fork()
    if pid == 0:
        strike(number)
        said = program.answer(request["action"], request["order"])
        os._exit(0 if said["ok"] else 1)
    code = os.WEXITSTATUS(os.waitpid(pid, 0)[1])
    if code != 9:
        print(json.dumps([number, code]))
        break
    # Whatever is to be seen under its own name is whole.
    trees = os.path.join(request["order"]["workdir"], "data", "trees")
    for key in os.listdir(trees) if os.path.isdir(trees) else []:
        if not key.startswith("."):
            assert os.path.getsize(os.path.join(trees, key, ".ready")) > 0, (number, key)
"""


@pytest.mark.parametrize("action", ["unpack", "prune"])
def test_killed_at_every_single_change_it_is_whole_in_the_end(action: str, workdir: Path):
    digest = put(workdir, bundle(MEMBERS, mode="w:gz"))
    order = {"workdir": str(workdir), "name": "zoo.tar.gz", "sha256": digest, "source": "", "most": None}
    before = None
    if action == "prune":
        before = order
        order = {"workdir": str(workdir), "keep": [], "unused_for": 0, "most": None, "dry_run": False}
    request = json.dumps({"action": action, "order": order, "before": before})
    done = subprocess.run(
        [sys.executable, "-c", KILLED_ANYWHERE],
        input=request,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
    )
    assert done.returncode == 0, done.stderr
    kills, code = json.loads(done.stdout)
    assert (code, kills > 20) == (0, True)
    if action == "unpack":
        assert_whole(workdir, answer("unpack", {**order, "sha256": digest})["result"])
        return
    for path in [*workdir.glob("data/trees/.removing-*"), *workdir.glob("data/objects/*/*")]:
        os.utime(path, (time.time() - 2 * 86400,) * 2)  # what a killed one has left goes when it is old
    assert answer("prune", order)["ok"]
    assert [path for path in workdir.glob("data/*/*") if path.is_file() and ".lock-" not in path.name] == []


def test_killed_at_any_time_of_a_download_it_goes_on(files: FilesServer, workdir: Path):
    url = files.serve("/zoo", bundle(MEMBERS, mode="w:gz"))
    began = time.monotonic()
    assert ask("fetch", fetching(workdir / "first", url))["ok"]
    whole = time.monotonic() - began
    for number in range(8):
        process = start({"action": "fetch", "order": fetching(workdir, url, rate=4_000_000)})
        time.sleep(whole * (number + 1) / 8)
        process.kill()
        process.communicate()
    done = ask("fetch", fetching(workdir, url))
    assert done["ok"], done
    assert_whole(workdir, done["result"])


@pytest.mark.parametrize("python", PYTHONS)
def test_several_at_once_make_one(python: str, files: FilesServer, workdir: Path):
    url = files.serve("/zoo", bundle(MEMBERS, mode="w:gz"))
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        orders = [fetching(workdir, url, fresh=3600)] * 3
        done = list(pool.map(lambda order: ask("fetch", order, python), orders))
    assert sorted(each["result"]["state"] for each in done) == ["fetched", "ready", "ready"]
    assert len(files.requests) == 1
    assert_whole(workdir, done[0]["result"])


def limited() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))


def test_a_file_that_may_not_get_so_large_is_not_kept(files: FilesServer, workdir: Path):
    url = files.serve("/zoo", CONTENT)
    said = ask("fetch", fetching(workdir, url, unpack=False), preexec_fn=limited)
    assert (said["ok"], said["code"]) == (False, "disk_full")
    assert str(workdir) in said["message"]
    assert left(workdir) == []


def test_a_full_disk_is_said_and_nothing_half_there_is_left(files: FilesServer, small: Path):
    workdir = small / "work"
    large = bundle({"a": CONTENT, "b": CONTENT[::-1]}, mode="w:gz")
    for served, unpack in ((large, False), (bundle({"a": bytes(6_000_000)}, mode="w:gz"), True)):
        said = ask("fetch", fetching(workdir, files.serve("/zoo", served), unpack=unpack))
        assert (said["ok"], said["code"]) == (False, "disk_full"), said
        assert left(workdir) == []
        assert list(workdir.glob("data/objects/*/*")) == []
    assert ask("fetch", fetching(workdir, files.serve("/zoo", b"x"), unpack=False))["ok"]


def test_full_while_an_input_is_laid_out(small: Path):
    workdir = small / "work"
    digest = put(workdir, CONTENT[:100])
    (small / "ballast").write_bytes(bytes(4_000_000))
    with (small / "ballast").open("ab", buffering=0) as ballast:
        while True:
            try:
                ballast.write(bytes(1024))
            except OSError:
                break
    rows = [[f"{number}/file", "", digest] for number in range(20_000)]
    order = {"workdir": str(workdir), "name": "many", "source": "", "is_folder": True, "rows": rows}
    said = answer("link", {**order, "folders": [], "bound": None})
    assert (said["ok"], said["code"]) == (False, "disk_full"), said
    assert left(workdir) == []
    (small / "ballast").unlink()
