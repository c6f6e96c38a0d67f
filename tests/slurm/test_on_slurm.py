"""The same against a real Slurm: what it reads back, says and refuses."""

from __future__ import annotations

import os
import random
import shlex
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from satellite_fixture import bundle
from waiting import PATIENCE

from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.local import InProcessHost
from dagster_slurm_components.hosts.satellite.calls import SubmitReply, SubmitRequest
from dagster_slurm_components.jobs.schedulers import SlurmScheduler
from dagster_slurm_components.slurm.accounting import AccountingRow, parse_sacct, sacct, sacct_by_name
from dagster_slurm_components.slurm.commands import sbatch, scancel, scancel_failure
from dagster_slurm_components.slurm.header import escape_pattern, render_header
from dagster_slurm_components.slurm.outcome import last_words, outcome
from dagster_slurm_components.slurm.queue import QueueRow, parse_squeue, squeue
from dagster_slurm_components.slurm.reasons import Reason, explain
from dagster_slurm_components.slurm.rejections import classify_rejection
from dagster_slurm_components.slurm.replies import query_failure
from dagster_slurm_components.slurm.states import Phase, state
from slurm_testcluster.packages import slurm_version

pytestmark = pytest.mark.slurm

Option = tuple[str, str]


HOSTILE_VARIABLES = {
    "SLURM_TIME_FORMAT": "%H:%M",
    "SQUEUE_FORMAT": "%i",
    "SQUEUE_STATES": "SUSPENDED",
    "SQUEUE_PARTITION": "down",
    "SACCT_FORMAT": "user",
    "SCANCEL_PARTITION": "down",
    "SCANCEL_INTERACTIVE": "1",
    "SBATCH_PARTITION": "down",
    "SBATCH_TIMELIMIT": "7",
}
"""Variables of somebody's shell, none of which may change any answer below."""


@dataclass(frozen=True)
class Done:
    """A command's answer, as text."""

    returncode: int
    stdout: str
    stderr: str


class Slurm:
    """Runs the commands through the satellite, and remembers the jobs to cancel them."""

    def __init__(self, folder: Path) -> None:
        self.satellite = Satellite(InProcessHost())
        self.folder = folder
        self.jobs: list[str] = []
        self.tries = 0
        self.since = int(time.time()) - 60

    def run(self, argv: Sequence[str]) -> Done:
        done = self.satellite.run(argv, timeout=PATIENCE)
        return Done(done.returncode, done.stdout.decode(), done.stderr.decode())

    def try_submit(self, body: str, *options: Option) -> SubmitReply:
        return self.satellite.submit(*self.submission(body, *options))

    def submission(self, body: str, *options: Option) -> tuple[SubmitRequest, bytes]:
        self.tries += 1
        folder = f"{self.folder}/runs/{self.tries}/0"
        name = f"dg-{random.getrandbits(64):x}"
        defaults = {"output": "/dev/null", "job-name": name, **dict(options)}
        script = render_header(list(defaults.items())) + body + "\n"
        wish = SlurmScheduler(f"{self.folder}/queue").settlement(folder, str(self.folder), name, name)
        request = wish._replace(argv=tuple(sbatch(f"{folder}/job.sh")), settle_only=False)
        return request, bundle({"job.sh": script})

    def submit(self, body: str, *options: Option) -> str:
        reply = self.try_submit(body, *options)
        assert reply.job_id is not None, reply
        self.jobs.append(reply.job_id)
        return reply.job_id

    def queue(self) -> dict[str, QueueRow]:
        done = self.run(squeue())
        assert query_failure(done.returncode, done.stdout, done.stderr) is None
        return parse_squeue(done.stdout)

    def accounting(self, job_id: str) -> AccountingRow | None:
        done = self.run(sacct([job_id], since=self.since))
        assert query_failure(done.returncode, done.stdout, done.stderr) is None
        return parse_sacct(done.stdout).get(job_id)

    def cancel(self, *job_ids: str) -> str | None:
        done = self.run(scancel(job_ids))
        return scancel_failure(done.returncode, done.stderr)

    def ended(self, job_id: str) -> AccountingRow:
        def look() -> AccountingRow | None:
            row = self.accounting(job_id)
            return row if row is not None and state(row.state).phase is Phase.TERMINAL else None

        found: AccountingRow = wait_for(look)
        return found


def wait_for(look: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(0.2)
    raise AssertionError(f"nothing within {seconds} s")


@pytest.fixture
def slurm(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Slurm]:
    for name, value in HOSTILE_VARIABLES.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SLURM_CONF", str(cluster.slurm_conf))
    slurm = Slurm(tmp_path)
    yield slurm
    if slurm.jobs:
        slurm.cancel(*slurm.jobs)


HOSTILE = [
    "a b",
    'a"b',
    "it's",
    "#no comment",
    "a #b",
    "50%j",
    "back\\slash",
    "trail\\",
    "\\ x",
    "mix '\"\\ #",
    "ünïcödé 😀",
    "$HOME `id` $(id) ;|&<>",
    "HetJob packjob",
    "  lead",
    "trail  ",
    ":colon",
    '{"a": [1, 2]}',
    "--nodes=3",
    "\\\\",
    "het\\job",
]
SEEDED = random.Random(7)
RANDOM = ["".join(SEEDED.choices("ab \\\"'#%$`:;é=-hetjob", k=SEEDED.randint(1, 25))) for _ in range(12)]


@pytest.mark.smoke
def test_sbatch_reads_values_back(slurm: Slurm) -> None:
    jobs = {slurm.submit("true", ("comment", value), ("hold", "")): value for value in HOSTILE + RANDOM}
    done = slurm.run(["squeue", "-ho", "%i %k"])
    comments = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert {job_id: comments[job_id] for job_id in jobs} == jobs


@pytest.mark.parametrize(
    "name", ["50%done %j", "%%x", "a\\b %j", "a\\\\b", 'sp "q" #h', "ünï 😀", "trail%", "tr\\"]
)
def test_output_files_have_exactly_their_names(slurm: Slurm, tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    slurm.submit("echo hi", ("output", escape_pattern(str(folder / "out %u.log"))))
    written = folder / "out %u.log"
    if slurm_version() >= (26, 5):
        # It removes every backslash, doubled ones too, so that there is no way to name such a file.
        written = Path(str(written).replace("\\", ""))
    wait_for(written.exists)


@pytest.mark.smoke
def test_life_of_a_job(slurm: Slurm) -> None:
    name = f"dg-{random.getrandbits(64):x}"
    before = time.time()
    job_id = slurm.submit(
        "srun sleep 600", ("job-name", name), ("nodes", "2"), ("time", "30"), ("begin", "now")
    )
    running = wait_for(lambda: (row := slurm.queue()[job_id]).state == "RUNNING" and row)
    assert running.restarts == 0
    assert before - 1 <= running.start <= time.time() + 1
    for argv, parse in (
        (squeue(name), parse_squeue),
        (sacct_by_name(name, since=slurm.since), parse_sacct),
    ):
        wait_for(lambda argv=argv, parse=parse: set(parse(slurm.run(argv).stdout)) == {job_id})
    assert slurm.cancel(job_id) is None
    row = slurm.ended(job_id)
    assert (row.state, row.cancelled_by) == ("CANCELLED", os.getuid())
    assert (row.partition, row.num_nodes, row.time_limit_s) == ("debug", 2, 1800)
    assert row.nodes.startswith("node[")
    assert outcome(row).name == "CANCELLED"
    assert slurm.queue()[job_id].state in ("CANCELLED", "COMPLETING")
    assert slurm.cancel(job_id) is None


@pytest.mark.smoke
def test_exit_codes_signals_and_figures(slurm: Slurm) -> None:
    busy = "x = bytearray(150 * 2**20); import time\nwhile time.process_time() < 3: pass"
    jobs = {
        "code": slurm.submit("exit 3"),
        "signal": slurm.submit("ulimit -c 0; kill -SEGV $$"),
        # Below what is no folder: Slurm 24.11 makes folders that are missing.
        "output": slurm.submit("true", ("output", "/dev/null/out")),
        "figures": slurm.submit(f"srun python3 -c '{busy}'", ("mem", "300M"), ("cpus-per-task", "2")),
    }
    rows = {name: slurm.ended(job_id) for name, job_id in jobs.items()}
    assert (rows["code"].exit_code, rows["code"].signal) == (3, None)
    assert (rows["signal"].exit_code, rows["signal"].signal) == (0, 11)
    assert "output file" in outcome(rows["output"]).explanation
    figures = rows["figures"]
    assert figures.cpu_efficiency is not None
    # One of two CPUs is busy, for three seconds: for most of the time, or for less of it on a crowded machine.
    assert 0.02 < figures.cpu_efficiency < 0.7
    assert figures.req_mem_bytes == 300 * 2**20
    assert figures.used_memory_bytes is not None
    assert 0.45 < figures.used_memory_bytes / figures.req_mem_bytes < 1


@pytest.mark.smoke
def test_memory_over_the_limit(slurm: Slurm, tmp_path: Path) -> None:
    errors = tmp_path / "err"
    hungry = "python3 -c 'x = bytearray(10**9); import time; time.sleep(30)'"
    job_id = slurm.submit(hungry, ("mem", "200M"), ("error", escape_pattern(str(errors))))
    ending = outcome(slurm.ended(job_id), last_words(errors.read_text()))
    assert ending.name == "OUT_OF_MEMORY"
    assert "200.0 MiB" in ending.explanation


@pytest.mark.smoke
def test_requeued_jobs_are_one_job(slurm: Slurm) -> None:
    job_id = slurm.submit("sleep 600", ("requeue", ""))
    wait_for(lambda: slurm.queue()[job_id].state == "RUNNING")
    wait_for(lambda: slurm.accounting(job_id))
    slurm.run(["scontrol", "requeue", job_id])
    row = wait_for(lambda: (row := slurm.queue()[job_id]).state == "PENDING" and row)
    assert row.restarts == 1
    wait_for(lambda: slurm.queue()[job_id].reason == "BeginTime")
    accounting = wait_for(lambda: (row := slurm.accounting(job_id)) and row.restarts and row)
    assert accounting.state == "PENDING"


@pytest.mark.smoke
def test_waiting_for_ever_has_a_reason(slurm: Slurm) -> None:
    closed = ("AccountNotAllowed", "never", "account")
    if slurm_version() >= (23, 11):  # which says no more than this
        closed = ("PartitionConfig", "held", "partition")
    jobs = {
        slurm.submit("true", ("time", "5-00:00:00")): ("PartitionTimeLimit", "never", "time"),
        slurm.submit("true", ("partition", "closed")): closed,
        slurm.submit("true", ("partition", "down")): ("PartitionDown", "held", "partition"),
        slurm.submit("true", ("hold", "")): ("JobHeldUser", "held", None),
        slurm.submit("true", ("begin", "now+1hour")): ("BeginTime", "wait", "begin"),
    }
    for job_id, (name, permanence, option) in jobs.items():
        # The two schedulers of slurmctld take turns; for one of them the first job is PartitionConfig too.
        def look(job_id: str = job_id, name: str = name) -> Reason | None:
            reason = explain(slurm.queue()[job_id].reason or "")
            return reason if reason.name == name else None

        reason = wait_for(look)
        assert (reason.permanence, reason.option) == (permanence, option)


def test_more_nodes_than_the_partition_has(slurm: Slurm) -> None:
    """Slurm 24.11 refuses such a job; 22.05 and 26.05 let it wait."""
    reply = slurm.try_submit("true", ("nodes", "99"))
    if reply.outcome == "rejected":
        rejection = classify_rejection(reply.stderr)
        assert (rejection.kind, "fewer nodes" in rejection.hint) == ("permanent", True), reply
        return
    assert reply.job_id is not None, reply
    slurm.jobs.append(reply.job_id)
    reason = wait_for(lambda: (row := slurm.queue()[reply.job_id]).reason and explain(row.reason))
    assert (reason.name, reason.permanence, reason.option) == ("PartitionConfig", "held", "partition")


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("options", "kind", "option"),
    [
        ([("partition", "nope")], "permanent", "partition"),
        ([("account", "nope")], "permanent", "account"),
        ([("qos", "nope")], "permanent", "qos"),
        ([("mem", "1T")], "permanent", "mem"),
        ([("constraint", "nope")], "permanent", "constraint"),
        ([("gres", "foo:1")], "permanent", "gres"),
        ([("reservation", "nope")], "permanent", "reservation"),
        ([("time", "soon")], "permanent", "time"),
        ([("nodes", "x")], "permanent", "nodes"),
        ([("nodelist", "nope")], "permanent", "nodelist"),
        ([("dependency", "foo")], "permanent", "dependency"),
        ([("mem", "1G"), ("mem-per-cpu", "1G")], "permanent", "mem"),
        ([("licenses", "nope")], "permanent", "licenses"),
        ([("nonsense", "1")], "permanent", "nonsense"),
    ],
)
def test_rejections(slurm: Slurm, options: list[Option], kind: str, option: str | None) -> None:
    reply = slurm.try_submit("true", *options)
    assert reply.outcome == "rejected", reply
    rejection = classify_rejection(reply.stderr)
    assert (rejection.kind, rejection.option) == (kind, option), reply


@pytest.mark.smoke
def test_a_limit_is_not_the_jobs_fault(slurm: Slurm) -> None:
    options = (("account", "tiny"), ("qos", "limited"), ("hold", ""))
    replies = [slurm.try_submit("true", *options) for _ in range(4)]
    slurm.jobs += [reply.job_id for reply in replies if reply.job_id]
    assert replies[-1].outcome == "rejected"
    last = classify_rejection(replies[-1].stderr)
    assert (last.kind, last.option) == ("limit", "qos")


@pytest.mark.parametrize(
    "wrapper",
    [
        'id=$("$sbatch" "$@"); echo "$id"; exit 1',
        'id=$("$sbatch" "$@"); echo "Submitted batch job $id"; exit 3',
        'id=$("$sbatch" "$@"); echo "submitted: see the portal"',
    ],
)
def test_a_wrapper_s_word_is_not_the_last(
    slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrapper: str
) -> None:
    """A site's own sbatch, which fails after the real one has made the job: that is found by its name."""
    program = tmp_path / "bin" / "sbatch"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\nsbatch={shlex.quote(str(shutil.which('sbatch')))}\n{wrapper}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    request, packed = slurm.submission("true", ("hold", ""))
    assert slurm.satellite.submit(request, packed).outcome == "uncertain"
    again = wait_for(lambda: found if (found := slurm.satellite.submit(request, packed)).job_id else None)
    slurm.jobs.append(again.job_id)
    assert (again.outcome, list(again.others)) == ("adopted", [])
    assert again.job_id in slurm.queue()


def test_unknown_jobs_and_unknown_names_are_answers(slurm: Slurm) -> None:
    for argv in (squeue("dg-none"), sacct(["99999999"], since=0)):
        done = slurm.run(argv)
        assert (done.returncode, done.stdout) == (0, "")


def test_without_a_controller_nothing_is_observed(
    slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf = Path(os.environ["SLURM_CONF"]).read_text()
    lines = [
        "SlurmctldPort=1" if line.startswith("SlurmctldPort=") else line
        for line in conf.splitlines()
        if not line.startswith("MessageTimeout")
    ]
    broken = tmp_path / "slurm.conf"
    broken.write_text("\n".join([*lines, "MessageTimeout=1"]) + "\n")
    monkeypatch.setenv("SLURM_CONF", str(broken))
    done = slurm.run(squeue())
    assert query_failure(done.returncode, done.stdout, done.stderr) is not None
    assert slurm.try_submit("true").outcome == "uncertain"
