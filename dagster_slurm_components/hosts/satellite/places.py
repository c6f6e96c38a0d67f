"""The places that a limited number of jobs may take."""

import contextlib
import os
import time
from typing import Dict, Iterator, List, Optional, Set

from dagster_slurm_components.hosts.satellite.files import make_folder, read_json, write_json
from dagster_slurm_components.hosts.satellite.locks import locked
from dagster_slurm_components.hosts.satellite.processes import identify
from dagster_slurm_components.hosts.satellite.protocol import Failure, Result, native
from dagster_slurm_components.hosts.satellite.queries import ids_in, snapshot


class Places:
    """The places that a limited number of jobs may take, in a file: all processes on all machines share it.

    A place is taken before a job is submitted and noted with the job's id after it. The notes are believed until a
    younger answer of the queue holds the job, or should hold it. So no submission asks Slurm, and none is too many;
    only where all places seem taken is the queue's shared answer renewed, within the budget.

    Args:
        limit: ``hosts.calls.JobLimit``. Without ``snapshot`` jobs are processes, and looked at themselves. Nothing:
            there are places without end.
        token: The mark of the job in question.
    """

    SLACK = 2.0
    """Seconds by which the clocks of two login nodes may differ."""

    def __init__(self, limit: Optional[Result], token: str) -> None:
        self._limit = limit or {}
        self._token = token
        self._asked = 0.0
        self._seen: List[str] = []
        self._noted: Dict[str, Result] = {}

    def take(self) -> Optional[Result]:
        """Take a place, or return the reply of a submission that has to wait."""
        if not self._limit or self._take(known=False):
            return None
        if self._limit.get("snapshot"):
            with contextlib.suppress(Failure):  # over budget, or nobody answers: what is known has to do
                snapshot(**self._limit["snapshot"])
        if self._take(known=True):
            return None
        most = self._limit["jobs"]
        said = f"{len(self._others())} jobs wait or run, and limits.max_submit_jobs is {most}"
        return {"outcome": "full", "detail": said}

    def settle(self, reply: Result) -> None:
        """Note what became of a submission; one whose end nobody knows keeps its place for a while."""
        outcome = reply["outcome"]
        if not self._limit or outcome in ("full", "lacking", "uncertain"):
            return
        with self._open():
            if outcome == "rejected":
                self._noted.pop(self._token, None)
            elif outcome != "known" or self._token in self._noted:
                self._noted[self._token] = {"at": time.time(), "job_id": reply["job_id"]}

    def _take(self, known: bool) -> bool:
        with self._open():
            # The first of all asks the queue: what was submitted before there was a file counts as well.
            unknown = bool(self._limit.get("snapshot")) and not self._asked and not known
            if unknown or len(self._others()) >= int(self._limit["jobs"]):
                return False
            self._noted[self._token] = {"at": time.time(), "job_id": None}
            return True

    def _others(self) -> Set[str]:
        notes = [(token, note) for token, note in self._noted.items() if token != self._token]
        return set(self._seen) | {note["job_id"] or token for token, note in notes}

    @contextlib.contextmanager
    def _open(self) -> Iterator[None]:
        path = native(self._limit["path"])
        make_folder(os.path.dirname(path))
        with locked(path + b".lock", 60.0):
            kept = read_json(path)
            if kept is not None:
                self._asked, self._seen, self._noted = kept["asked"], kept["seen"], kept["noted"]
            self._learn()
            yield
            write_json(path, {"asked": self._asked, "seen": self._seen, "noted": self._noted})

    def _learn(self) -> None:
        query = self._limit.get("snapshot")
        if query is None:
            self._learn_of_processes()
            return
        told = read_json(native(query["path"]))
        if told is None:
            return
        asked = told.get("asked", 0.0)
        failed = told["returncode"] != 0 or told["timed_out"] or "error" in told["stderr"]
        if failed or asked <= self._asked or told["argv"] != list(query["argv"]):
            return
        self._asked, self._seen = asked, ids_in(self._limit["live"], native(told["stdout"]))
        self._noted = {token: note for token, note in self._noted.items() if not self._outdated(note)}

    def _outdated(self, note: Result) -> bool:
        if note["job_id"] in self._seen:
            return True
        patience = float(self._limit["window"]) if note["job_id"] is None else 0.0
        return bool(note["at"] + patience + self.SLACK < self._asked)

    def _learn_of_processes(self) -> None:
        ids = {token: (note["job_id"] or "").partition(":") for token, note in self._noted.items()}
        starts = identify([int(pid) for pid, _, _ in ids.values() if pid])
        oldest = time.time() - float(self._limit["window"])
        self._noted = {
            token: note
            for token, note in self._noted.items()
            if (starts.get(int(ids[token][0])) == ids[token][2] if note["job_id"] else note["at"] > oldest)
        }
