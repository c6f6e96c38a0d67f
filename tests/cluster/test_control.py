"""What up, down, status and their locks do where there is no cluster: nothing here starts Slurm."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

import slurm_testcluster as slurm
from dagster_slurm_components.cli.cluster import cluster as command
from slurm_testcluster import prepare
from slurm_testcluster.isolation import Isolation
from slurm_testcluster.layout import Ports, load_layout, new_layout, save_layout
from slurm_testcluster.lock import folder_lock


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A shorter folder than pytest's own: a cluster's path may have 69 characters."""
    with tempfile.TemporaryDirectory(prefix="dg-slurm-") as folder:
        yield Path(folder).resolve()


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    for call in (slurm.up, slurm.down):
        with pytest.raises(slurm.ClusterError, match="holds no cluster"):
            call(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]


def test_down_without_a_cluster_does_nothing(tmp_path: Path) -> None:
    slurm.down(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_down_removes_a_cluster_that_never_started(tmp_path: Path) -> None:
    folder = tmp_path / "lab"
    folder.mkdir()
    save_layout(new_layout(folder, Ports(17000), Isolation.ROOT))
    (folder / "log").mkdir()
    (folder / "dev").symlink_to("/dev")
    slurm.down(folder)
    assert not folder.exists()
    assert Path("/dev/null").exists()


def test_status_of_no_cluster_is_down_and_exits_with_3(tmp_path: Path) -> None:
    assert slurm.status(tmp_path / "none").state == "down"
    result = CliRunner().invoke(command, ["status", "--folder", str(tmp_path / "none"), "--json"])
    assert result.exit_code == 3
    assert json.loads(result.output)["state"] == "down"


def test_status_names_each_daemon_of_a_cluster_that_is_down(tmp_path: Path) -> None:
    save_layout(new_layout(tmp_path, Ports(17000), Isolation.ROOT))
    result = CliRunner().invoke(command, ["status"], env={"DAGSTER_SLURM_CLUSTER": str(tmp_path)})
    assert result.exit_code == 3
    assert "slurmd-node4\tdown\t-\n" in result.output


def test_errors_are_told_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = CliRunner().invoke(command, ["up", "--folder", str(tmp_path)])
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: {tmp_path}: the folder is not empty and holds no cluster")


def test_module_runs_as_a_program() -> None:
    completed = subprocess.run(
        [sys.executable, "-m", "dagster_slurm_components.cli.main", "cluster", "--help"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        check=True,
    )
    assert all(word in completed.stdout for word in ("up", "down", "status"))


@pytest.mark.parametrize("isolation", [Isolation.ROOT, Isolation.USER, Isolation.SUDO])
def test_state_reads_back_as_written(tmp_path: Path, isolation: Isolation) -> None:
    layout = new_layout(tmp_path, Ports(17016), isolation, accounting=isolation is Isolation.ROOT)
    save_layout(layout)
    assert load_layout(tmp_path) == layout


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "can't be read"),
        ('{"format": 0}', "another version"),
        ('{"format": 1, "user": "ada"}', "belongs to ada"),
    ],
)
def test_foreign_state_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "cluster.json").write_text(content)
    with pytest.raises(slurm.ClusterError, match=message):
        slurm.status(tmp_path)


def test_state_of_a_machine_without_namespaces_needs_a_loopback_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "laptop")
    monkeypatch.setattr("socket.gethostbyname", lambda name: "192.0.2.7")
    with pytest.raises(slurm.ClusterUnavailableError, match=r"laptop resolves to 192\.0\.2\.7"):
        new_layout(tmp_path, Ports(17000), Isolation.NONE)
    monkeypatch.setattr("socket.gethostbyname", lambda name: "127.0.1.1")
    assert new_layout(tmp_path, Ports(17000), Isolation.NONE).address == "127.0.1.1"


def test_default_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_SLURM_CLUSTER", "/x")
    assert slurm.default_folder() == Path("/x")
    monkeypatch.delenv("DAGSTER_SLURM_CLUSTER")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert slurm.default_folder() == Path("/cache/dagster-slurm/cluster")


def test_locked_accounts_are_seen(tmp_path: Path) -> None:
    shadow = tmp_path / "shadow"
    shadow.write_text("root:*:1::::::\nada:!:1::::::\nadam:$6$x:1::::::\n")
    seen = {user: prepare.account_is_locked(user, shadow) for user in ("root", "ada", "adam", "nobody")}
    assert seen == {"root": False, "ada": True, "adam": False, "nobody": False}
    assert not prepare.account_is_locked("ada", tmp_path / "none")


def test_who_waited_for_a_removed_folder_gets_a_lock_on_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "lab"
    waits = threading.Event()
    got = []
    flock = fcntl.flock

    def wait(descriptor: int, operation: int) -> None:
        waits.set()
        flock(descriptor, operation)

    def wait_for_it() -> None:
        with folder_lock(folder):
            got.append((folder / "lock").exists())

    with folder_lock(folder):
        # The waiting one has opened the file that is removed now.
        monkeypatch.setattr(fcntl, "flock", wait)
        thread = threading.Thread(target=wait_for_it)
        thread.start()
        waits.wait()
        os.unlink(folder / "lock")
        folder.rmdir()
        assert got == []
    thread.join()
    assert got == [True]


def test_a_folder_that_is_removed_while_it_is_made_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``Path.mkdir`` looks whether the folder is there, and then says that it exists although it does not."""
    mkdir, calls = Path.mkdir, []

    def removed_meanwhile(self: Path, *args: object, **options: object) -> None:
        calls.append(self)
        if len(calls) == 1:
            raise FileExistsError(str(self))
        mkdir(self, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "mkdir", removed_meanwhile)
    with folder_lock(tmp_path / "lab"):
        assert (tmp_path / "lab" / "lock").exists()
    (tmp_path / "file").touch()
    monkeypatch.undo()
    with pytest.raises(FileExistsError), folder_lock(tmp_path / "file"):
        pass
