"""What Dagster is told of a job's outputs: where each lies, how large it is, how to get it, and how it looks."""

import base64
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import dagster as dg

from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.satellite.calls import FileRead
from dagster_slurm_components.jobs.events import Ended
from dagster_slurm_components.jobs.figures import Figure
from dagster_slurm_components.jobs.into import ready_command
from dagster_slurm_components.jobs.model import JobHandle
from dagster_slurm_components.jobs.outputs import (
    PICTURES,
    UNCHECKED,
    Made,
    named,
    shown,
    to_preview,
)
from dagster_slurm_components.units import format_size

OUTPUT = "output/"
"""How the metadata begin that tell of outputs."""
PULLED = "/pulled"
"""How those end that tell where an output is on Dagster's machine, or why it is not there."""
PATH, HASH = "/path", "/hash"
"""How those end that tell where an output is on its host, and the hash of it, for whoever reads it there."""
_UNCHECKED = "job/outputs"


def _figures(made: Sequence[Made], handle: JobHandle, profile: str) -> dict[str, Figure]:
    figures: dict[str, Figure] = {}
    for each in made:
        if not each.count:
            continue
        files = "1 file" if each.count == 1 else f"{each.count:,} files"
        facts = [_code(shown(each.path)), f"{files}, {format_size(each.bytes)}"]
        facts += [f"SHA-256 `{each.hash[:12]}`"] if each.hash else []
        facts += [f"`{ready_command('get', named(handle), profile, each.name)}`", *each.notes]
        figures[f"output/{each.name}"] = "\n".join(f"* {fact}" for fact in facts)
        figures[f"output/{each.name}/bytes"] = each.bytes
        if shown(each.path) == each.path:  # else no database takes it
            figures[f"{OUTPUT}{each.name}{PATH}"] = each.path
        if each.hash:
            figures[f"{OUTPUT}{each.name}{HASH}"] = each.hash
    return figures


def output_figures(ended: Ended, handle: JobHandle, profile: str) -> dict[str, Figure]:
    """Return what metadata tell of outputs: Markdown, and the bytes as numbers to plot."""
    status = ended.evidence.status
    if status is not None and status.get("outputs") == UNCHECKED:
        return {_UNCHECKED: f"not checked, and none is published: {status.host} has no python3"}
    return _figures(ended.made, handle, profile)


def previews(made: Sequence[Made], satellite: Satellite) -> dict[str, Figure]:
    """Return small pictures and Markdown files as Markdown: one call, if there are any."""
    chosen = to_preview(made)
    if not chosen:
        return {}
    wanted = [FileRead(each.file(file.name), 0, file.size) for each, file in chosen]
    parts: dict[str, list[str]] = {}
    for (each, file), read in zip(chosen, satellite.read(wanted), strict=True):
        kind = PICTURES.get(PurePosixPath(file.name).suffix.lower())
        if len(read.data) != file.size:
            continue
        text = read.data.decode("utf-8", "replace")
        if kind is not None:
            title = re.sub(r"[\[\]()<>`*_]", " ", shown(file.name))
            text = f"![{title}](data:{kind};base64,{base64.b64encode(read.data).decode()})"
        parts.setdefault(f"{OUTPUT}{each.name}/preview", []).append(text)
    return {name: "\n\n".join(texts) for name, texts in parts.items()}


def of_asset(made: Sequence[Made], key: dg.AssetKey | None, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata without those of outputs that belong to another asset."""
    other = {
        f"{OUTPUT}{each.name}{end}"
        for each in made
        if each.asset is not None and dg.AssetKey.from_escaped_user_string(each.asset) != key
        for end in ("", "/bytes", "/preview", PATH, HASH, PULLED)
    }
    return {name: value for name, value in metadata.items() if name not in other}


def _code(text: str) -> str:
    """Return a text as Markdown's code, whatever is in it."""
    ticks = "`" * (max((len(found) for found in re.findall("`+", text)), default=0) + 1)
    space = " " if "`" in text else ""
    return f"{ticks}{space}{text}{space}{ticks}"
