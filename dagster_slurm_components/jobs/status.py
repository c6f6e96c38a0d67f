"""The job's own record: the ``status`` file that ``job.sh`` appends to."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.satellite.calls import FileRead
from dagster_slurm_components.jobs.model import JobHandle

STATUS = "status"
"""Its name in a run directory."""
_MINUTES = re.compile(r"(\d+)m([\d.]+)s")


@dataclass(frozen=True)
class StatusRecord:
    """The newest start of a job, as the job itself wrote it down.

    Times are seconds since the epoch by the clock of the compute node.

    Attributes:
        restart: How often Slurm had started the job before.
        host: The node that ran ``job.sh``.
        phase: ``environment`` until the payload boots, then ``payload``.
        launched: When the launcher was started.
        exit_code: The launcher's exit code; above 128, 128 plus the signal that ended it.
        signals: Signals that reached the job, in order.
        cpu_seconds: CPU time of the job's own processes on its first node.
        memory_peak: Largest memory use in bytes, where the node keeps such a number.
        fields: The last value of each key, for what launchers add (``failed_rank``); none where it is empty.
    """

    restart: int = 0
    started: float | None = None
    host: str | None = None
    phase: str | None = None
    launched: float | None = None
    ended: float | None = None
    exit_code: int | None = None
    signals: tuple[str, ...] = ()
    cpu_seconds: float | None = None
    memory_peak: int | None = None
    fields: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def nodes(self) -> int:
        """How many nodes it runs on."""
        return _integer(self.get("num_nodes")) or 1

    def get(self, key: str) -> str | None:
        """Return the last value of a key, or nothing where it is absent or empty."""
        return self.fields.get(key)


def read_statuses(satellite: Satellite, handles: Sequence[JobHandle]) -> list[StatusRecord | None]:
    """Return what jobs have written by now: one call for all of them."""
    files = satellite.read([FileRead(handle.file(STATUS)) for handle in handles])
    return [parse_status(file.data) for file in files]


def parse_status(data: bytes) -> StatusRecord | None:
    r"""Return the newest block of a status file, or nothing when the job has not written yet.

    Whole lines only: what follows the last newline may still be in flight.

    Example:
        >>> parse_status(b"restart=0\nstarted=1.5\nexit=3\n").exit_code
        3
    """
    starts = parse_starts(data)
    return starts[-1] if starts else None


def parse_starts(data: bytes) -> list[StatusRecord]:
    """Return every block of a status file: one for each start of the job, the first one first."""
    text = data[: data.rfind(b"\n") + 1].decode("utf-8", "replace")
    return [_record(block) for block in re.split(r"(?m)^(?=restart=)", text) if block.startswith("restart=")]


def _record(block: str) -> StatusRecord:
    fields: dict[str, list[str]] = {}
    for line in block.split("\n"):
        key, equals, value = line.partition("=")
        if equals:
            fields.setdefault(key, []).append(value)
    last = {key: values[-1] or None for key, values in fields.items()}
    return StatusRecord(
        restart=_integer(last.get("restart")) or 0,
        started=_number(last.get("started")),
        host=last.get("host"),
        phase=last.get("phase"),
        launched=_number(last.get("launched")),
        ended=_number(last.get("ended")),
        exit_code=_integer(last.get("exit")),
        signals=tuple(fields.get("signal", ())),
        cpu_seconds=_cpu(last.get("cpu")),
        memory_peak=_integer(last.get("memory_peak")),
        fields=last,
    )


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None


def _integer(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() else None


def _cpu(text: str | None) -> float | None:
    """Return the seconds in bash's ``times`` format, ``0m0.229s 0m0.044s``: user and system together."""
    times = _MINUTES.findall(text or "")
    return sum(60 * int(minutes) + (_number(seconds) or 0.0) for minutes, seconds in times) if times else None
