"""Helps a payload to report to Dagster, and to stop in time and go on later: one file, standard library, Python 3.6.

In a job it is ``import dagster_slurm_payload``, whatever environment the payload runs in; elsewhere
``from dagster_slurm_components import payload``. By hand, outside of any job, reports go to stdout, nothing asks to
stop and checkpoints go to the folder ``checkpoint``. ``dagster_pipes`` lies beside it; what this file adds is that any
number of processes may report. The helpers of other languages have the same verbs.

Example:
    A loop that may take longer than the job's time limit, with ``signal: USR1@120`` under ``resources`` and
    ``requeue_on_timeout: 3``::

        import dagster_slurm_payload as payload

        payload.listen()
        saved = payload.load("state")
        state = json.loads(saved) if saved else {"step": 0}
        while state["step"] < 1000:
            state = work(state)
            if payload.asked():
                payload.save("state", json.dumps(state).encode())
                payload.leave()
"""

import atexit
import json
import operator
import os
import signal
import sys
import tempfile
from typing import Any, Dict, List, Mapping, Optional, Tuple

EXIT_CODE = 75
"""The exit code of "not done yet" (``EX_TEMPFAIL`` of sysexits.h). Any but 0 would do: 0 means done."""

_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_Metadata = Optional[Mapping[str, Any]]
_number = operator.methodcaller("item")  # of NumPy's, which JSON has no word for
_asked = False
_opened = False
_percent = -1


def log(message: str, level: str = "INFO") -> None:
    """Write a line into the step's log in Dagster, at the level DEBUG, INFO, WARNING, ERROR or CRITICAL."""
    if level not in _LEVELS:
        raise ValueError("a level is one of {}, not {!r}".format(", ".join(_LEVELS), level))
    _send("log", {"message": str(message), "level": level})


def metadata(value: Any, type: str = "__infer__") -> Dict[str, Any]:  # noqa: A002 - the protocol's word
    """Return a value of metadata that has a type of Dagster's: ``md``, ``url``, ``timestamp``, ``table`` and so on."""
    return {"raw_value": value, "type": type}


def materialize(asset: str, metadata: _Metadata = None, data_version: Optional[str] = None) -> None:
    """Report that an asset was made. The types of bare metadata are inferred."""
    made = {"asset_key": asset, "metadata": _typed(metadata), "data_version": data_version}
    _send("report_asset_materialization", made)


def check(asset: str, name: str, passed: bool, severity: str = "ERROR", metadata: _Metadata = None) -> None:
    """Report the result of an asset check; the severity of one that did not pass is ERROR or WARN."""
    if severity not in ("ERROR", "WARN"):
        raise ValueError("a severity is ERROR or WARN, not {!r}".format(severity))
    if passed.__class__.__name__ not in ("bool", "bool_"):  # NumPy's is no bool
        raise TypeError("whether the check {} passed is True or False, not {!r}".format(name, passed))
    result = {"asset_key": asset, "check_name": name, "passed": bool(passed), "severity": severity}
    _send("report_asset_check", dict(result, metadata=_typed(metadata)))


def progress(done: float, total: float, text: str = "") -> None:
    """Log how far the work is: a line for each whole percent at most, so that a loop may tell each step."""
    global _percent  # noqa: PLW0603 - what was told last
    percent = int(100 * done / total)
    if percent != _percent:
        _percent = percent
        log("{} % ({} of {}){}".format(percent, done, total, ": " + text if text else ""))


def extra(name: str, *default: Any) -> Any:
    """Return an extra of the step, or the default. Raises KeyError where there is neither."""
    extras = {}  # type: Mapping[str, Any]
    if "DAGSTER_SLURM_RUN_DIR" in os.environ:
        with open(os.environ["DAGSTER_SLURM_RUN_DIR"] + "/context.json", encoding="utf-8") as stream:
            extras = json.load(stream)["extras"] or {}
    return extras.get(name, default[0]) if default else extras[name]


def partition_key() -> str:
    """Return the key of the run's one partition. Like its siblings it raises KeyError where there is none."""
    return os.environ["DAGSTER_SLURM_PARTITION_KEY"]


def partition_range() -> Tuple[str, str]:
    """Return the first and the last key of a run over a range of partitions."""
    return os.environ["DAGSTER_SLURM_PARTITION_RANGE_START"], os.environ["DAGSTER_SLURM_PARTITION_RANGE_END"]


def partition_window() -> Tuple[str, str]:
    """Return the time that the partition, or the range, spans: start and end in ISO 8601."""
    return os.environ["DAGSTER_SLURM_PARTITION_START"], os.environ["DAGSTER_SLURM_PARTITION_END"]


def partition_keys() -> List[str]:
    """Return all keys of a range, or the one key."""
    file = os.environ.get("DAGSTER_SLURM_PARTITION_KEYS_FILE")
    if not file:
        return [partition_key()]
    with open(file, encoding="utf-8", newline="\n") as stream:
        return stream.read().split("\n")[:-1]


def _typed(metadata: _Metadata) -> Dict[str, Any]:
    typed = {}
    for name, value in (metadata or {}).items():
        whole = isinstance(value, dict) and set(value) == {"raw_value", "type"}
        typed[name] = value if whole else {"raw_value": value, "type": "__infer__"}
    return typed


def _send(method: str, params: Mapping[str, Any]) -> None:
    """Append a message by one write, so that lines of several processes don't mix."""
    global _opened  # noqa: PLW0603 - whether this process has begun to report
    path = os.environ.get("DAGSTER_SLURM_MESSAGES")
    if not path:
        print(method, json.dumps(params, default=_number), flush=True)  # noqa: T201
        return
    if not _opened:
        _opened = True
        _send("opened", {"extras": {}})
        atexit.register(_send, "closed", {})
    message = {"__dagster_pipes_version": "0.1", "method": method, "params": params}
    with open(path, "ab", buffering=0) as file:
        file.write(json.dumps(message, default=_number).encode() + b"\n")


def listen(number: int = signal.SIGUSR1) -> None:
    """Take notice of the signal that asks for a checkpoint; call it early, in the main thread."""
    signal.signal(number, _notice)


def _notice(number: int, frame: Any) -> None:
    global _asked  # noqa: PLW0603 - a signal handler has nothing else to write to
    _asked = True


def asked() -> bool:
    """Return whether the payload was asked to write its checkpoint and leave."""
    return _asked


def restart_count() -> int:
    """Return how often Slurm started this job before."""
    return int(os.environ.get("DAGSTER_SLURM_RESTART_COUNT") or 0)


def folder() -> str:
    """Return the folder for checkpoints: the same for all starts and attempts of a step. It exists."""
    path = os.environ.get("DAGSTER_SLURM_CHECKPOINT") or "checkpoint"
    os.makedirs(path, exist_ok=True)
    return path


def save(name: str, data: bytes) -> None:
    """Write a checkpoint whole: whoever kills the job now leaves the old one or the new one."""
    descriptor, temporary = tempfile.mkstemp(dir=folder(), prefix=".", suffix=".tmp")
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, os.path.join(folder(), name))


def load(name: str) -> Optional[bytes]:
    """Return a checkpoint, or nothing when none was written yet."""
    try:
        with open(os.path.join(folder(), name), "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None


def leave() -> None:
    """End the payload as not done yet: with ``requeue_on_timeout`` the job goes back into the queue."""
    sys.exit(EXIT_CODE)
