"""A host's errors as they travel in frames: what an agent could not do on somebody's behalf keeps its meaning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dagster_slurm_components.errors import (
    HostError,
    HostRefusedError,
    HostUnreachableError,
    LoginRequiredError,
    SatelliteError,
)

_KINDS: Mapping[str, type[HostError]] = {
    "agent:login": LoginRequiredError,
    "agent:unreachable": HostUnreachableError,
    "agent:refused": HostRefusedError,
}
"""Kind of error by code, the more special first; every other code is the satellite's own."""


def failure(error: HostError) -> dict[str, Any]:
    """Return an error as the header of a reply."""
    base = {"ok": False, "error": error.message, "where": error.where, "hint": error.hint}
    if isinstance(error, SatelliteError):
        return {**base, "code": error.code}
    for code, kind in _KINDS.items():
        if isinstance(error, kind):
            return {**base, "code": code}
    return {**base, "code": "failed"}


def error_of(header: Mapping[str, Any], name: str) -> HostError:
    """Return the error that a reply's header tells; ``name`` is where it comes from unless it says so itself."""
    where, hint = header.get("where") or name, header.get("hint")
    kind = _KINDS.get(header["code"])
    if kind is not None:
        return kind(header["error"], where=where, hint=hint)
    return SatelliteError(header["error"], code=header["code"], where=where, hint=hint)
