"""Lines of the messages file: each becomes a message that Dagster takes, or a sentence that says why not. Pure.

Payloads write this file with any library, or with ``printf``, and a full disk cuts it anywhere. Dagster's handler
(dagster 1.13) trusts its shape: one odd line would end a step whose job went well, and the retry would read it again.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dagster_pipes import PipesException

from dagster_slurm_components.pipes.message_metadata import metadata_from, shortened, well_formed

MATERIALIZATION = "report_asset_materialization"
CHECK = "report_asset_check"
CLOSED = "closed"

_LEVELS = frozenset({"CRITICAL", "FATAL", "ERROR", "WARNING", "WARN", "INFO", "DEBUG"})
_SEVERITIES = ("ERROR", "WARN")
_MOST_CAUSES = 20
"""Exceptions of a chain that are kept; Dagster reads and stores the chain with a recursion of its own."""


@dataclass(frozen=True)
class Message:
    """A message that Dagster takes.

    Attributes:
        method: One of the protocol's methods.
        params: All of its parameters, each of the type that Dagster wants.
        notes: What was changed for that, in sentences.
    """

    method: str
    params: Mapping[str, Any]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Complaint:
    """A line that is no message, and why."""

    text: str


class _ShapeError(Exception):
    """A message lacks what it is about."""


def parse(line: bytes) -> Message | Complaint:
    """Return the message that a line holds.

    >>> parse(b'{"method": "log", "params": {"message": "hello"}}')
    Message(method='log', params={'message': 'hello', 'level': 'INFO'}, notes=())
    >>> parse(b'{"method": []}')
    Complaint(text='not a Pipes message: {"method": []}')
    """
    try:
        # A name in Latin-1 is no reason to lose a result.
        data = json.loads(line.decode("utf-8-sig", "replace"))
    except (ValueError, RecursionError) as error:
        why = "nested too deep" if isinstance(error, RecursionError) else "not JSON"
        return Complaint(f"{why}: {excerpt(line)}")
    method = data.get("method") if isinstance(data, Mapping) else None
    shape = _SHAPES.get(method) if isinstance(method, str) else None
    if shape is None:
        return Complaint(f"not a Pipes message: {excerpt(line)}")
    params = data.get("params")
    if params is not None and not isinstance(params, Mapping):
        return Complaint(f"its `params` are no object: {excerpt(line)}")
    try:
        return shape(params or {})
    except _ShapeError as error:
        return Complaint(f"{error}: {excerpt(line)}")


def excerpt(line: bytes) -> str:
    """Return the beginning of a line, as text that can be shown."""
    return line[:200].decode("utf-8", "replace")


def subject(message: Message) -> str:
    """Return what a result is about, in words.

    >>> subject(Message(CHECK, {"asset_key": "a/b", "check_name": "ok"}))
    'check `ok` of asset `a/b`'
    """
    asset = f"asset `{message.params['asset_key']}`"
    return f"check `{message.params['check_name']}` of {asset}" if message.method == CHECK else asset


def _opened(params: Mapping[str, Any]) -> Message:
    return Message("opened", {"extras": params.get("extras") or {}})


def _closed(params: Mapping[str, Any]) -> Message:
    raw = params.get("exception")
    return Message(CLOSED, {} if raw is None else {"exception": _exception(raw)})


def _log(params: Mapping[str, Any]) -> Message:
    # Python's own levels may have any name ("Level 25"), and Dagster refuses those that it does not know.
    level = _upper(params.get("level"))
    level = level if level in _LEVELS else "INFO"
    return Message("log", {"message": _text(params, "message"), "level": level})


def _log_external_stream(params: Mapping[str, Any]) -> Message:
    stream = params.get("stream")
    if stream not in ("stdout", "stderr"):
        raise _ShapeError("its `stream` is neither stdout nor stderr")
    return Message("log_external_stream", {"stream": stream, "text": _text(params, "text")})


def _custom(params: Mapping[str, Any]) -> Message:
    if "payload" not in params:
        raise _ShapeError("it has no `payload`")
    return Message("report_custom_message", {"payload": params["payload"]})


def _materialization(params: Mapping[str, Any]) -> Message:
    key = _name(params, "asset_key")
    metadata, notes = metadata_from(params.get("metadata"), f"asset `{key}`")
    version = params.get("data_version")
    if version is not None and not isinstance(version, str):
        version = shortened(version)
        notes = (*notes, f"The data version of asset `{key}` is no text; it was written {version}.")
    version = version and well_formed(version).replace("\0", "?")  # a tag, and PostgreSQL has none with a NUL
    return Message(MATERIALIZATION, {"asset_key": key, "metadata": metadata, "data_version": version}, notes)


def _check(params: Mapping[str, Any]) -> Message:
    key, name, passed = _name(params, "asset_key"), _name(params, "check_name"), params.get("passed")
    if not isinstance(passed, bool):
        # 1, "yes" or "false" may mean anything; a guess could let bad data pass.
        raise _ShapeError(f"its `passed` is {shortened(passed)}, neither true nor false")
    metadata, notes = metadata_from(params.get("metadata"), f"check `{name}` of asset `{key}`")
    severity = _upper(params.get("severity") or "ERROR")
    if severity not in _SEVERITIES:
        notes = (*notes, f"The severity of check `{name}` is neither ERROR nor WARN; it counts as ERROR.")
        severity = "ERROR"
    result = {"asset_key": key, "check_name": name, "passed": passed, "severity": severity}
    return Message(CHECK, {**result, "metadata": metadata}, notes)


_SHAPES: Mapping[str, Callable[[Mapping[str, Any]], Message]] = {
    "opened": _opened,
    CLOSED: _closed,
    "log": _log,
    "log_external_stream": _log_external_stream,
    "report_custom_message": _custom,
    MATERIALIZATION: _materialization,
    CHECK: _check,
}


def _text(params: Mapping[str, Any], name: str) -> str:
    value = params.get(name)
    if not isinstance(value, str):
        raise _ShapeError(f"its `{name}` is no text")
    return well_formed(value)


def _upper(value: object) -> str:
    return value.upper() if isinstance(value, str) else ""


def _name(params: Mapping[str, Any], name: str) -> str:
    value = _text(params, name)
    if not value.strip("/"):
        raise _ShapeError(f"its `{name}` is empty")
    return value


def _exception(raw: object, depth: int = _MOST_CAUSES) -> PipesException:
    """Return an exception in the protocol's shape, whatever a payload wrote for one."""
    if not isinstance(raw, Mapping):
        raw = {"message": raw}
    message, stack, name = raw.get("message") or "", raw.get("stack"), raw.get("name")
    lines: list[Any] = [stack] if isinstance(stack, str) else stack if isinstance(stack, list) else []
    cause, context = (raw.get(each) if depth > 0 else None for each in ("cause", "context"))
    return PipesException(
        message=well_formed(message) if isinstance(message, str) else shortened(message),
        stack=[well_formed(each) for each in lines if isinstance(each, str)],
        name=well_formed(name) if isinstance(name, str) else None,
        cause=_exception(cause, depth - 1) if cause else None,
        context=_exception(context, depth - 1) if context else None,
    )
