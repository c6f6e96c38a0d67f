"""Job arrays: one submission, and for each element a run directory, output, record and end of its own."""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import pytest
from waiting import eventually

import slurm_testcluster as slurm
from dagster_slurm_components.environments.base import Activation
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.local import InProcessHost
from dagster_slurm_components.hosts.program import shipped
from dagster_slurm_components.jobs.bundle import array_of
from dagster_slurm_components.jobs.ending import cancel
from dagster_slurm_components.jobs.lease import Attempt, Lease, LedgerRecord
from dagster_slurm_components.jobs.look import look_at
from dagster_slurm_components.jobs.model import JobHandle, JobIdentity, JobSpec, tasks_of
from dagster_slurm_components.jobs.schedulers import ProcessScheduler, SlurmScheduler
from dagster_slurm_components.jobs.status import StatusRecord, parse_status
from dagster_slurm_components.jobs.submit import submit
from dagster_slurm_components.jobs.target import Target
from dagster_slurm_components.jobs.watch import Watcher
from dagster_slurm_components.launchers.base import LaunchPlan
from dagster_slurm_components.slurm.arrays import (
    array_option,
    numbers_in,
    ranges,
    submit_limit,
    with_whole_arrays,
)
from dagster_slurm_components.slurm.queue import QueueRow

KEYS = ["plain", "it's", "a b", "$(touch hacked)", "ünï", "two\nlines", "a/b|c,d:#", "x" * 300]


@dataclass(frozen=True)
class Arrays:
    """A place that runs arrays; ``options`` are sbatch's."""

    place: Target
    options: tuple[tuple[str, str], ...] = ()

    def submit(
        self, script: str, keys: Sequence[str] = KEYS, *, only: Sequence[int] | None = None, per_task: int = 1
    ) -> JobHandle:
        plan = LaunchPlan(shipped("launchers/shell/launch_bash.sh"), ("bash", "-c", script, "sh"))
        numbers = range(len(keys)) if only is None else only
        specs = {
            number: JobSpec(
                JobIdentity("run", f"step{os.getpid()}{time.monotonic_ns()}"),
                replace(plan, payload=(*plan.payload, keys[number])),
                Activation(),
                sbatch=self.options,
                env={"KEY": keys[number]},
                context=json.dumps({"partition_key": keys[number]}).encode(),
                files={PurePosixPath("code/data.txt"): Path(__file__)},
            )
            for number in numbers
        }
        return submit(self.place, array_of(specs, keys_per_task=per_task, max_parallel=4))

    def status(self, handle: JobHandle, number: int) -> StatusRecord | None:
        file = Path(handle.element(number, "").file("status"))
        return parse_status(file.read_bytes()) if file.exists() else None

    def ended(self, handle: JobHandle, numbers: Sequence[int]) -> dict[int, int]:
        """Return the exit codes of elements, once all have ended."""

        def codes() -> dict[int, int] | None:
            records = {number: self.status(handle, number) for number in numbers}
            ends = {n: r.exit_code for n, r in records.items() if r is not None and r.exit_code is not None}
            return ends if len(ends) == len(numbers) else None

        return eventually(codes, "all elements end")

    def output(self, handle: JobHandle, number: int, name: str = "stdout.log") -> str:
        return Path(handle.element(number, "").file(name)).read_text()


@pytest.fixture(params=["process", pytest.param("slurm", marks=pytest.mark.slurm)])
def arrays(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Arrays]:
    satellite = Satellite(InProcessHost())
    if request.param == "process":
        scheduler = ProcessScheduler()
        yield Arrays(Target(satellite, scheduler, Watcher(satellite, scheduler, 3000.0), str(tmp_path)))
        return
    cluster: slurm.Cluster = request.getfixturevalue("cluster")
    request.getfixturevalue("monkeypatch").setenv("SLURM_CONF", str(cluster.slurm_conf))
    ours = SlurmScheduler(f"{tmp_path}/queue")
    place = Target(satellite, ours, Watcher(satellite, ours, 3000.0), str(tmp_path))
    yield Arrays(place, (("time", "5"), ("mem", "20")))


@pytest.mark.smoke
def test_each_element_has_its_own_place_output_and_end(arrays: Arrays) -> None:
    script = """
    cat >mine <"$DAGSTER_SLURM_RUN_DIR/context.json"; ls code mine
    printf "%s|%s" "$1" "$KEY"; exit "$(printf %s "$1" | wc -c)"
    """
    handle = arrays.submit(script)
    everyone = range(len(KEYS))
    assert arrays.ended(handle, everyone) == {number: len(KEYS[number].encode()) % 256 for number in everyone}
    for number, key in enumerate(KEYS):
        assert arrays.output(handle, number) == f"mine\n\ncode:\ndata.txt\n{key}|{key}"
        assert arrays.output(handle, number, "stderr.log") == ""
        mine = Path(handle.element(number, "").file("payload/mine"))
        assert json.loads(mine.read_text()) == {"partition_key": key}
        assert mine.parents[1].stat().st_mode & 0o777 == 0o700
        assert (mine.parents[1] / "messages.jsonl").stat().st_mode & 0o777 == 0o600
    assert not list(Path(handle.run_dir).rglob("hacked"))


def test_a_sparse_array_runs_only_those(arrays: Arrays) -> None:
    handle = arrays.submit("exit 0", only=[1, 4, 7])
    assert arrays.ended(handle, [1, 4, 7]) == {1: 0, 4: 0, 7: 0}
    assert sorted(os.listdir(handle.file("elements"))) == ["1", "4", "7"]


def test_several_keys_share_a_task_and_are_judged_alone(arrays: Arrays) -> None:
    keys = [str(number) for number in range(7)]
    handle = arrays.submit('echo "$KEY"; [ "$KEY" != 4 ] || exit 255', keys, per_task=3)
    assert arrays.ended(handle, range(7)) == {**dict.fromkeys(range(7), 0), 4: 255}
    assert [arrays.output(handle, number) for number in range(7)] == [f"{key}\n" for key in keys]
    records = [arrays.status(handle, number) for number in range(3)]
    times = [(record.started, record.ended) for record in records if record is not None]
    assert all(ended <= started for (_, ended), (started, _) in itertools.pairwise(times))


@pytest.mark.parametrize("per_task", [1, 3])
def test_cancelling_the_array_ends_all_elements(arrays: Arrays, per_task: int) -> None:
    keys = [str(number) for number in range(6)]
    handle = arrays.submit("exec sleep 300", keys, per_task=per_task)
    eventually(lambda: arrays.status(handle, 0), "the first begins")
    attempt = Attempt(0, handle.run_dir, Lease(), LedgerRecord("", handle.job_id, None))
    (seen,) = look_at(arrays.place, [attempt])
    assert seen is not None
    assert seen.alive, seen
    cancel(arrays.place, handle)

    def over() -> bool:
        rows = arrays.place.scheduler.queue(arrays.place.satellite, [handle])
        (seen,) = look_at(arrays.place, [attempt])
        return rows is not None and seen is not None and not seen.alive

    eventually(over, "the array is over")
    first = arrays.status(handle, 0)
    assert first is not None
    assert first.exit_code not in (None, 0)
    if per_task == 3:
        assert arrays.status(handle, 1) is None


def test_numbers_are_written_as_slurm_writes_them() -> None:
    assert ranges([]) == ""
    assert ranges([5]) == "5"
    assert ranges([3, 1, 2, 9, 11, 10, 4]) == "1-4,9-11"
    assert numbers_in("1-4,9-11") == {1, 2, 3, 4, 9, 10, 11}
    assert numbers_in("") == frozenset()
    assert array_option([17, 204, 205], None) == "17,204-205"
    assert array_option(range(1000), 50) == "0-999%50"
    assert tasks_of(range(5), 2) == ((0, 1), (2, 3), (4,))


@pytest.mark.parametrize(
    ("told", "name", "limit"),
    [
        ("proj1|100|\nproj2||50\n", None, 50),
        ("proj1|100|\nproj2||50\n", "proj1", 100),
        ("proj1|100|\n", "proj3", None),
        ("normal||\n", "normal", None),
        ("", None, None),
        ("sacctmgr: error", None, None),
    ],
)
def test_what_account_and_qos_allow(told: str, name: str | None, limit: int | None) -> None:
    assert submit_limit(told, name) == limit


@pytest.mark.parametrize(
    ("states", "whole"),
    [
        (["COMPLETED", "RUNNING", "PENDING"], "RUNNING"),
        (["COMPLETED", "PENDING"], "PENDING"),
        (["COMPLETED", "COMPLETING", "PENDING"], "COMPLETING"),
        (["COMPLETED", "TIMEOUT", "COMPLETED"], "TIMEOUT"),
        (["COMPLETED", "COMPLETED"], "COMPLETED"),
    ],
)
def test_an_array_as_a_whole_is_as_alive_as_any_of_its_tasks(states: Sequence[str], whole: str) -> None:
    rows = {f"7_{number}": QueueRow(f"7_{number}", state) for number, state in enumerate(states)}
    told = with_whole_arrays({**rows, "8": QueueRow("8", "PENDING")})
    assert told["7"] == QueueRow("7", whole)
    assert told["8"].state == "PENDING"
    assert rows.items() <= told.items()
