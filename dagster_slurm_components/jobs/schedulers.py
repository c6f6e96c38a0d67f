"""Who runs the job script: a plain process or Slurm. The two answer the same questions.

Whether ended jobs can be looked up, says ``has_accounting``, which Slurm's learns from ``sacct``; when after a change
the queue is first asked, in seconds, ``first_query``; how often it is looked at later, and how old an answer will do
then, ``look`` and ``max_age``; how long silences are waited out, ``patience``; how many jobs there may be, ``limit``.
"""

import re
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from dagster_slurm_components.errors import (
    DagsterSlurmError,
    HostError,
    HostRefusedError,
    HostUnreachableError,
    SatelliteError,
)
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.satellite import calls
from dagster_slurm_components.jobs.model import ELEMENTS, JobHandle, JobSpec
from dagster_slurm_components.jobs.reconcile import Patience
from dagster_slurm_components.jobs.status import STATUS, read_statuses
from dagster_slurm_components.slurm.accounting import (
    MAX_IDS,
    NO_ACCOUNTING,
    AccountingRow,
    parse_sacct,
    sacct,
    sacct_by_name,
)
from dagster_slurm_components.slurm.arrays import array_option, with_whole_arrays
from dagster_slurm_components.slurm.commands import sbatch, scancel, scancel_failure
from dagster_slurm_components.slurm.header import escape_pattern, render_header
from dagster_slurm_components.slurm.queue import LIVE, QueueRow, parse_squeue, squeue
from dagster_slurm_components.slurm.replies import AMBIGUOUS, query_failure
from dagster_slurm_components.slurm.shares import Share, parse_sshare, sshare

_TIMEOUT = 60.0
_ACCOUNTING_TIMEOUT = 30.0
"""Seconds for sacct: whoever waits for the name of an end waits as long for one that hangs, twice at most."""
_VISIBLE = 120.0
"""Seconds within which a job that sbatch made shows in the queue: twice what sbatch itself may take, as one that its
satellite left behind goes on, and slurmctld may work off a late request."""
_STARTS = 30.0
"""Seconds within which a process is started."""
_SHARES_TIMEOUT = 10.0
"""Seconds for sshare: a submission waits for it, and a budget is only nice to know."""
_SHARES_AGE, _SHARES_PAUSE = 900.0, 60.0
"""Seconds for which budgets are believed, and for which nobody is asked again after there was no answer."""
_REMEMBERED = 30 * 86400
"""Seconds for which the accounting is asked back: longer than any submission stays unclear, or job runs, as a rule."""


class QueueRows(NamedTuple):
    """The rows of jobs, by id, as they were ``age`` seconds ago; nothing where that query failed: no observation.

    ``fresh`` says whether it was asked just now, and counted against the budget. ``share`` is this process's part of
    what all may ask of the host together. An older answer was ``asked`` at that epoch of the host's clock.
    """

    rows: Mapping[str, QueueRow] | None
    age: float = 0.0
    fresh: bool = False
    share: float = 1.0
    asked: float = 0.0

    def is_after(self, submitted: float | None) -> bool:
        """Whether a job was there when this was asked, so that its absence says something.

        A ledger's time is the host's too, and in whole seconds. Without one, only an answer that was waited for is.
        """
        return self.age == 0 or (submitted is not None and submitted + 1 <= self.asked)


class AccountingRows(NamedTuple):
    """For each job that the accounting was asked about lately its row, if it has one, as it was ``age`` seconds ago.

    The newest query that failed was made ``failed_age`` seconds ago.
    """

    rows: Mapping[str, tuple[float, AccountingRow | None]]
    failed_age: float


class ProcessScheduler:
    """A plain process on the host: the laptop's way, and a workstation's without Slurm. Nobody accounts for it.

    At most ``max_submit_jobs`` run at once; in ``folder`` the host keeps what all who submit share.
    """

    has_accounting = False
    first_query, look, max_age = 1.0, 2.0, 0.0
    patience = Patience(settle=2.0, explanation=0.0, absence=2.0, trace=2.0)

    def __init__(self, folder: str = "", max_submit_jobs: int | None = None) -> None:
        self.limit = None
        if max_submit_jobs is not None:
            self.limit = calls.JobLimit(max_submit_jobs, f"{folder}/submitted.json", _STARTS)

    def header(self, spec: JobSpec, run_dir: str) -> str:
        """Return what stands above the body of ``job.sh``: the interpreter line alone."""
        return "#!/bin/bash\n"

    def argv(self, spec: JobSpec, run_dir: str) -> Sequence[str]:
        """Return the command that submits ``job.sh``, or is the job: a detached process."""
        most = () if spec.array is None else ("0", str(spec.array.max_parallel or 0))
        return ("/bin/bash", f"{run_dir}/job.sh", run_dir, *most)

    def task_id(self, job_id: str, task: int) -> str:
        """Return the id of an array's task: here one process runs them all."""
        return job_id

    def settlement(self, run_dir: str, workdir: str, token: str, job_name: str) -> calls.SubmitRequest:
        """Return what the satellite is asked, to find out whether an earlier submission made a job."""
        return calls.SubmitRequest(run_dir, workdir, token, "process", (), settle_only=True)

    def queue(self, satellite: Satellite, handles: Sequence[JobHandle], max_age: float = 0.0) -> QueueRows:
        """Return a row for each process that lives, or that only another machine could judge."""
        alive = satellite.alive([calls.Process.parse(handle.job_id) for handle in handles])
        gone = [handle for handle, lives in zip(handles, alive, strict=True) if not lives]
        here = {handle.job_id for handle, lives in zip(handles, alive, strict=True) if lives}
        return QueueRows(
            {job_id: QueueRow(job_id, "RUNNING") for job_id in here | _elsewhere(satellite, gone)}
        )

    def accounting(
        self, satellite: Satellite, wanted: Mapping[str, float], *, spare: bool = False
    ) -> AccountingRows:
        """Return that nobody knows."""
        return AccountingRows({}, 0.0)

    def shares(self, satellite: Satellite) -> Sequence[Share]:
        """Return nothing: nobody has a budget."""
        return ()

    def cancel(self, satellite: Satellite, handle: JobHandle, *, force: bool = False) -> None:
        """Ask for the end of exactly this job; one that has ended already does no harm.

        TERM is passed on by ``job.sh``; by ``force`` KILL reaches every process of the job at once.

        Raises:
            HostRefusedError: It runs on another machine.
        """
        sent = satellite.kill(calls.Process.parse(handle.job_id), "KILL" if force else "TERM")
        if not sent and _elsewhere(satellite, [handle]):
            raise HostRefusedError(
                f"job {handle.job_id} is a process of another machine, and only there it can be ended",
                where=satellite.host.name,
                hint=f"{handle.file(STATUS)} names the machine: run `dg-slurm jobs cancel {handle.job_id}` there.",
            )


def _elsewhere(satellite: Satellite, handles: Sequence[JobHandle]) -> set[str]:
    """Return the jobs that by their own word run on another machine.

    A working folder may be shared, and a process's number means nothing on any machine but its own: there such a job
    would look lost, and its folder be removed under it. Only its status file ends it.
    """
    if not handles:
        return set()
    here = satellite.hello().hostname
    return {
        handle.job_id
        for handle, record in zip(handles, read_statuses(satellite, handles), strict=True)
        if record is not None and record.host not in (None, here) and record.exit_code is None
    }


class SlurmScheduler:
    """Slurm.

    Args:
        folder: Where the host keeps what all share who ask and submit, on any machine: the newest answers of queue and
            accounting, and the places of a limited number of jobs.
        budget: Queries that all who ask may make together.
        max_submit_jobs: The most jobs that may wait or run at once, if that is limited.
    """

    has_accounting = True
    first_query, look, max_age = 3.0, 10.0, 55.0
    patience = Patience()

    def __init__(
        self, folder: str, budget: calls.Budget | None = None, max_submit_jobs: int | None = None
    ) -> None:
        self._snapshot, self._accounts = f"{folder}/squeue.json", f"{folder}/sacct.json"
        self._readers, self._name = f"{folder}/readers.json", uuid.uuid4().hex
        self._parsed: tuple[float, Mapping[str, QueueRow] | None] = (0.0, None)
        self._told: tuple[float, Sequence[Share]] = (0.0, ())
        self._telling = threading.Lock()
        self._shares = f"{folder}/sshare.json"
        self._budget = budget
        self.limit = None
        if max_submit_jobs is not None:
            # An answer is believed for as long as the budget takes to allow the next question.
            age = max(self.first_query, 60.0 / budget.per_minute) if budget else self.first_query
            query = calls.QueueQuery(self._snapshot, tuple(squeue()), age, _TIMEOUT, budget)
            self.limit = calls.JobLimit(max_submit_jobs, f"{folder}/submitted.json", _VISIBLE, query, LIVE)

    def header(self, spec: JobSpec, run_dir: str) -> str:
        """Render the ``#SBATCH`` lines: the user's options, then those that belong to this project."""
        folder, array = escape_pattern(run_dir), {}
        if spec.array is not None:
            if "\\" in run_dir:
                raise DagsterSlurmError(
                    f"a job array can't have its run directory in {run_dir}",
                    hint="Slurm puts no task's number into a path with a backslash: let `workdir` have none.",
                )
            tasks = [task[0] for task in spec.array.tasks]
            array = {"array": array_option(tasks, spec.array.max_parallel)}
            folder = f"{folder}/{ELEMENTS}/%a"
        own = {
            **array,
            "job-name": spec.identity.job_name,
            "comment": f"dagster {spec.identity.token}",
            "chdir": run_dir,
            "output": f"{folder}/stdout.log",
            "error": f"{folder}/stderr.log",
            "open-mode": "append",
        }
        return render_header((*spec.sbatch, *own.items()))

    def argv(self, spec: JobSpec, run_dir: str) -> Sequence[str]:
        """Return the command line of ``sbatch``."""
        requeues = [str(spec.requeues)] if spec.requeues or spec.array is not None else []
        return sbatch(f"{run_dir}/job.sh", [run_dir, *requeues])

    def task_id(self, job_id: str, task: int) -> str:
        """Return the id of an array's task."""
        return f"{job_id}_{task}"

    def settlement(self, run_dir: str, workdir: str, token: str, job_name: str) -> calls.SubmitRequest:
        """Return what the satellite is asked, to find out by queue and accounting whether sbatch made a job."""
        since = int(time.time()) - _REMEMBERED
        return calls.SubmitRequest(
            run_dir=run_dir,
            workdir=workdir,
            token=token,
            mode="command",
            argv=(),
            lookups=(tuple(squeue(job_name)), tuple(sacct_by_name(job_name, since=since))),
            no_lookup=NO_ACCOUNTING,
            ambiguous=tuple(f"(?i){pattern}" for pattern in AMBIGUOUS),
            window=_VISIBLE,
            command_timeout=_TIMEOUT,
            settle_only=True,
        )

    def queue(self, satellite: Satellite, handles: Sequence[JobHandle], max_age: float = 0.0) -> QueueRows:
        """Return the rows of one ``squeue`` for all jobs of the user, shared with everybody who asks.

        Where the budget allows no query, they are older than ``max_age``.
        """
        query = calls.QueueQuery(self._snapshot, squeue(), max_age, _TIMEOUT, self._budget)
        shot = satellite.snapshot(query)
        asked, rows = self._parsed
        if asked != shot.asked:
            failed = query_failure(shot.returncode, shot.stdout, shot.stderr) is not None
            rows = None if failed else with_whole_arrays(parse_squeue(shot.stdout))
            self._parsed = shot.asked, rows
        share = satellite.share(self._readers, self._name, len(handles)) if handles else 1.0
        return QueueRows(rows, shot.age, shot.fresh, share, shot.asked)

    def accounting(
        self, satellite: Satellite, wanted: Mapping[str, float], *, spare: bool = False
    ) -> AccountingRows:
        """Return what ``sacct`` says of jobs, at most ``MAX_IDS``, shared with everybody who asks.

        ``wanted`` is by the job's id the age in seconds up to which an answer will do; ``spare`` says that it is only
        nice to know.
        """
        # Without the ids: the satellite adds those of all who wait for an answer.
        command = sacct(list(wanted), since=int(time.time()) - _REMEMBERED)[:-1]
        ages, timeout = list(wanted.items()), _ACCOUNTING_TIMEOUT
        told = satellite.accounting(
            calls.AccountingQuery(self._accounts, command, ages, MAX_IDS, timeout, self._budget, spare)
        )
        self.has_accounting = not re.search(NO_ACCOUNTING, told.said)
        rows = {
            job_id: (age, with_whole_arrays(parse_sacct(lines)).get(job_id))
            for job_id, (age, lines) in told.answers.items()
        }
        return AccountingRows(rows, told.failed_age)

    def shares(self, satellite: Satellite) -> Sequence[Share]:
        """Return what ``sshare`` says of budgets, at most a quarter of an hour old; nothing where it says nothing.

        One call for all jobs of this process, and one query for all processes, where the budget of queries has it.
        """
        with self._telling:
            until, shares = self._told
            if time.monotonic() >= until:
                shares, age = self._ask_shares(satellite)
                self._told = time.monotonic() + age, shares
            return shares

    def _ask_shares(self, satellite: Satellite) -> tuple[Sequence[Share], float]:
        """Return what sshare says, and for how many seconds that will do."""
        query = calls.QueueQuery(
            self._shares, sshare(), _SHARES_AGE, _SHARES_TIMEOUT, self._budget, spare=True
        )
        try:
            shot = satellite.snapshot(query)
        except HostError as error:
            lacks = isinstance(error, SatelliteError) and error.code == "no_such_program"
            return (), _SHARES_AGE if lacks else _SHARES_PAUSE  # else it is lost, or no query is left
        failed = query_failure(shot.returncode, shot.stdout, shot.stderr) is not None
        return () if failed else parse_sshare(shot.stdout), max(_SHARES_PAUSE, _SHARES_AGE - shot.age)

    def cancel(self, satellite: Satellite, handle: JobHandle, *, force: bool = False) -> None:
        """Ask for the end of exactly this job; Slurm itself follows with KILL after its KillWait.

        Raises:
            HostUnreachableError: Slurm gave no answer, so that it has to be asked again.
        """
        done = satellite.run(scancel([handle.job_id]), timeout=_TIMEOUT)
        words = done.stderr.decode("utf-8", "replace")
        failure = scancel_failure(None if done.timed_out else done.returncode, words)
        if failure is not None:
            raise HostUnreachableError(f"scancel failed: {failure}", where=satellite.host.name)


Scheduler = ProcessScheduler | SlurmScheduler
