"""What was already shown of a job: a small file in its run directory, kept while somebody follows.

Whoever takes a job over goes on where the last one stopped, on any machine, also after a kill -9. The file's age
tells how long nobody has been following.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field

from dagster_slurm_components.errors import HostError
from dagster_slurm_components.hosts.calls import FileRead
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.jobs.events import MESSAGES, STDERR, STDOUT, Watch

FILE = "follower.json"
"""Its name in the run directory."""

_MOST = 64 * 1024
_QUICK = 2.0
_SLOW = 30.0


@dataclass(frozen=True)
class Shown:
    """What was shown.

    Attributes:
        offsets: Bytes of each streamed file.
        inodes: Which file that was: a requeued job begins a new messages file.
        run_id: Dagster's run that followed last.
        delivered: Whether the results have been handed to Dagster.
    """

    offsets: Mapping[str, int] = field(default_factory=dict)
    inodes: Mapping[str, int] = field(default_factory=dict)
    run_id: str = ""
    delivered: bool = False


def parse_shown(data: bytes) -> Shown:
    """Read the file; one that can't be read counts as nothing shown."""
    try:
        raw = json.loads(data)
        return Shown(dict(raw["offsets"]), dict(raw["inodes"]), str(raw["run_id"]), bool(raw["delivered"]))
    except (ValueError, KeyError, TypeError):
        return Shown()


def read_shown(satellite: Satellite, run_dir: str) -> Shown:
    """Return what was shown of a job."""
    return parse_shown(satellite.read([FileRead(f"{run_dir}/{FILE}", 0, _MOST)])[0].data)


class Notebook:
    """Keeps the file up to date: soon after output was shown, and now and then as a sign of life.

    Args:
        satellite: The host.
        watch: The job.
        run_id: Dagster's run.
        clock: A monotonic clock, in seconds.
    """

    def __init__(
        self, satellite: Satellite, watch: Watch, run_id: str, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._satellite = satellite
        self._watch = watch
        self._run_id = run_id
        self._clock = clock
        self._written: Mapping[str, int] = {}
        self._written_at = clock() - _SLOW

    def keep(self, shown: Mapping[str, int], *, now: bool = False, delivered: bool = False) -> None:
        """Write down what is shown by now, if it is time.

        Args:
            shown: Bytes of each streamed file.
            now: Don't wait for the time.
            delivered: The results have been handed to Dagster.
        """
        age = self._clock() - self._written_at
        if not now and age < (_QUICK if shown != self._written else _SLOW):
            return
        inodes = {
            name: self._watch.inodes[name]
            for name in (MESSAGES, STDOUT, STDERR)
            if name in self._watch.inodes
        }
        content = Shown(dict(shown), inodes, self._run_id, delivered)
        self._written, self._written_at = dict(shown), self._clock()
        try:
            self._satellite.put(f"{self._watch.handle.run_dir}/{FILE}", json.dumps(asdict(content)).encode())
        except HostError:
            return  # a note only: the watcher tells of the host
