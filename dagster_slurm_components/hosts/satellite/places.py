"""The places that a limited number of jobs may take."""

import contextlib
import os
import time
from typing import Dict, Iterator, List, Optional

from dagster_slurm_components.hosts.satellite.calls import JobLimit, Process, QueueQuery
from dagster_slurm_components.hosts.satellite.files import make_folder, read_json, write_json
from dagster_slurm_components.hosts.satellite.locks import locked
from dagster_slurm_components.hosts.satellite.processes import living
from dagster_slurm_components.hosts.satellite.protocol import Failure, Result, native
from dagster_slurm_components.hosts.satellite.queries import ids_in, snapshot

SLACK = 2.0
"""Seconds by which the clocks of two login nodes may differ."""


class Places:
    """The places that a limited number of jobs may take, in a file: all processes on all machines share it.

    A place is taken before a job is submitted and noted with the job's id after it. The notes are believed until a
    younger answer of the queue holds the job, or should hold it. So no submission asks Slurm, and none is too many;
    only where all places seem taken is the queue's shared answer renewed, within the budget.
    """

    def __init__(self, limit: JobLimit, token: str, wanted: int = 1) -> None:
        self._limit = limit
        self._wanted = wanted
        self._query = None if limit.snapshot is None else QueueQuery(*limit.snapshot)
        self._token = token
        self._asked = 0.0
        self._seen: List[str] = []
        self._noted: Dict[str, Result] = {}

    def take(self) -> Optional[Result]:
        """Take a place, or return the reply of a submission that has to wait."""
        if self._take(known=False):
            return None
        if self._query is not None:
            with contextlib.suppress(Failure):  # over budget, or nobody answers: what is known has to do
                snapshot(**self._query._asdict())
        if self._take(known=True):
            return None
        said = f"{self._taken()} jobs wait or run, and limits.max_submit_jobs is {self._limit.jobs}"
        return {"outcome": "full", "detail": said}

    def settle(self, reply: Result) -> None:
        """Note what became of a submission; one whose end nobody knows keeps its place for a while."""
        outcome = reply["outcome"]
        if outcome in ("full", "lacking", "uncertain"):
            return
        with self._open():
            if outcome == "rejected":
                self._noted.pop(self._token, None)
            elif outcome != "known" or self._token in self._noted:
                note = {"at": time.time(), "job_id": reply["job_id"], "places": self._wanted}
                self._noted[self._token] = note

    def _take(self, known: bool) -> bool:
        with self._open():
            # The first of all asks the queue: what was submitted before there was a file counts as well.
            unknown = self._query is not None and not self._asked and not known
            if unknown or self._taken() + self._wanted > self._limit.jobs:
                return False
            self._noted[self._token] = {"at": time.time(), "job_id": None, "places": self._wanted}
            return True

    def _taken(self) -> int:
        """Return how many places others have: what the queue showed, and what it does not show yet."""
        noted = {note["job_id"] or token: note for token, note in self._noted.items() if token != self._token}
        shown = set(self._seen)
        unseen = [int(note.get("places", 1)) for name, note in noted.items() if name not in shown]
        return len(shown) + sum(unseen)

    @contextlib.contextmanager
    def _open(self) -> Iterator[None]:
        path = native(self._limit.path)
        make_folder(os.path.dirname(path))
        with locked(path + b".lock", 60.0):
            kept = read_json(path)
            if kept is not None:
                self._asked, self._seen, self._noted = kept["asked"], kept["seen"], kept["noted"]
            if self._query is not None:
                self._learn(self._query)
            over = self._gone if self._query is None else self._outdated
            self._noted = {token: note for token, note in self._noted.items() if not over(note)}
            yield
            write_json(path, {"asked": self._asked, "seen": self._seen, "noted": self._noted})

    def _learn(self, query: QueueQuery) -> None:
        told = read_json(native(query.path))
        if told is None:
            return
        asked = told.get("asked", 0.0)
        failed = told["returncode"] != 0 or told["timed_out"] or "error" in told["stderr"]
        if failed or asked <= self._asked or told["argv"] != list(query.argv):
            return
        self._asked, self._seen = asked, ids_in(self._limit.live, native(told["stdout"]))

    def _outdated(self, note: Result) -> bool:
        if any(task.partition("_")[0] == note["job_id"] for task in self._seen):
            return True
        patience = self._limit.window if note["job_id"] is None else 0.0
        return bool(note["at"] + patience + SLACK < self._asked)

    def _gone(self, note: Result) -> bool:
        if note["job_id"]:
            return not living([Process.parse(note["job_id"])])[0]
        return bool(note["at"] + self._limit.window <= time.time())
