"""What steps print in one process is kept apart, with every kind of compute log manager."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from contextvars import copy_context
from pathlib import Path

import pytest
from dagster._core.storage.cloud_storage_compute_log_manager import CloudStorageComputeLogManager
from dagster._core.storage.compute_log_manager import ComputeIOType, ComputeLogManager
from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager
from dagster._core.storage.noop_compute_log_manager import NoOpComputeLogManager
from waiting import PATIENCE

from dagster_slurm_components.executor.output import captured, routed


class Bucket(CloudStorageComputeLogManager):
    """A manager that keeps what it is given in a dictionary, as one of a cloud's keeps it in a bucket."""

    upload_interval = None

    def __init__(self, folder: Path) -> None:
        self._local = LocalComputeLogManager(str(folder))
        self.kept: dict[tuple[str, ComputeIOType], str] = {}

    @property
    def local_manager(self) -> LocalComputeLogManager:
        return self._local

    def upload_to_cloud_storage(
        self, log_key: Sequence[str], io_type: ComputeIOType, partial: bool = False
    ) -> None:
        data = self._local.get_log_data_for_type(log_key, io_type)[0] or b""
        self.kept[log_key[-1], io_type] = data.decode()

    def delete_logs(self, log_key: object = None, prefix: object = None) -> None: ...

    def download_url_for_type(self, log_key: Sequence[str], io_type: ComputeIOType) -> None: ...

    def display_path_for_type(self, log_key: Sequence[str], io_type: ComputeIOType) -> str:
        return ""

    def cloud_storage_has_logs(
        self, log_key: Sequence[str], io_type: ComputeIOType, partial: bool = False
    ) -> bool:
        return (log_key[-1], io_type) in self.kept


@pytest.fixture
def local(tmp_path: Path) -> LocalComputeLogManager:
    return LocalComputeLogManager(str(tmp_path))


def text(manager: ComputeLogManager, key: Sequence[str], kind: ComputeIOType = ComputeIOType.STDOUT) -> str:
    data = manager.get_log_data(key)
    return ((data.stdout if kind is ComputeIOType.STDOUT else data.stderr) or b"").decode()


def test_threads_that_print_at_once_are_told_apart(local: LocalComputeLogManager) -> None:
    keys: dict[int, Sequence[str]] = {}
    ready = threading.Barrier(8)

    def step(number: int) -> None:
        with captured(local, "run") as output:
            ready.wait(PATIENCE)
            for line in range(50):
                print(f"{number} says {line}")
            print(f"{number} fails", file=sys.stderr)
            keys[number] = output.log_key

    threads = [threading.Thread(target=step, args=[number]) for number in range(8)]
    with routed():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for number, key in keys.items():
        assert text(local, key) == "".join(f"{number} says {line}\n" for line in range(50))
        assert text(local, key, ComputeIOType.STDERR) == f"{number} fails\n"
        assert local.is_capture_complete(key)


def test_a_thread_of_the_step_prints_for_it_and_any_other_for_none(local: LocalComputeLogManager) -> None:
    with routed(), captured(local, "run") as output:
        inner = threading.Thread(target=copy_context().run, args=(print, "inner"))
        other = threading.Thread(target=print, args=["other"])
        for thread in (inner, other):
            thread.start()
            thread.join()
        assert text(local, output.log_key) == "inner\n"
    assert text(local, output.log_key) == "inner\n"


def test_half_a_line_is_shown_when_it_is_flushed_and_at_the_end(local: LocalComputeLogManager) -> None:
    with routed(), captured(local, "run") as output:
        print("half", end="")
        assert text(local, output.log_key) == ""
        sys.stdout.flush()
        assert text(local, output.log_key) == "half"
        print(" ähm", end="")
        assert not local.is_capture_complete(output.log_key)
    assert text(local, output.log_key) == "half ähm"


def test_a_bucket_gets_both_streams_at_the_end(tmp_path: Path) -> None:
    bucket = Bucket(tmp_path)
    with routed(), captured(bucket, "run") as output:
        print("out")
        print("err", file=sys.stderr)
        assert not bucket.kept
    name = output.log_key[-1]
    assert bucket.kept == {(name, ComputeIOType.STDOUT): "out\n", (name, ComputeIOType.STDERR): "err\n"}
    assert not bucket.has_local_file(output.log_key, ComputeIOType.STDOUT)


def test_a_manager_that_keeps_nothing_is_no_fault() -> None:
    with routed(), captured(NoOpComputeLogManager(), "run"):
        print("gone")


def test_the_streams_are_given_back() -> None:
    now = sys.stdout
    with routed():
        assert sys.stdout is not now
        assert sys.stdout.encoding == now.encoding
        assert sys.stdout.isatty() == now.isatty()
    assert sys.stdout is now
