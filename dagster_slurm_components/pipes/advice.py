"""What is shown of a job's usage beside its figures: pictures, and notes that name the line of YAML to change."""

import os
from collections.abc import Callable, Mapping, Sequence

from dagster_slurm_components.jobs.chart import chart
from dagster_slurm_components.jobs.events import Ended
from dagster_slurm_components.jobs.figures import Figure
from dagster_slurm_components.jobs.notes import Note, notes
from dagster_slurm_components.jobs.sparkline import sparkline
from dagster_slurm_components.pipes.context import Partition
from dagster_slurm_components.spec.resolve import ResolvedScript


def pictures(ended: Ended, figures: Mapping[str, Figure]) -> dict[str, Figure]:
    """Return what a job used as pictures, in Markdown; none where that is hardly known."""
    waited = figures.get("job/queue_wait_s")
    drawn = {
        "job/usage": sparkline(ended.usage),
        "job/chart": chart(ended.usage, waited=float(waited) if waited is not None else None),
    }
    return {name: markdown for name, markdown in drawn.items() if markdown is not None}


def advice(
    figures: Mapping[str, Figure],
    resolved: ResolvedScript,
    partition: Partition,
    *,
    tell: Callable[[str], None],
) -> dict[str, Figure]:
    """Return the notes on a job as a list in Markdown, and tell each of them."""
    found = [sentence(note, resolved) for note in notes_on(figures, resolved, keys=partition.key is not None)]
    for text in found:
        tell(f"Job {figures['job/id']}: {text}")
    return {"job/notes": "\n".join(f"* {text}" for text in found)} if found else {}


def notes_on(figures: Mapping[str, object], resolved: ResolvedScript, *, keys: bool) -> Sequence[Note]:
    """Return the notes on a job; a process on a machine of one's own asked for nothing."""
    if resolved.profile.profile.scheduler != "slurm":
        return ()
    return notes(figures, resolved.script.resources, keys=keys)


def sentence(note: Note, resolved: ResolvedScript) -> str:
    """Return a note with the place where the value to change is written, as seen from the project's folder."""
    where = resolved.position("resources", note.option) if note.option else None
    if where is None or not where.line:
        return note.told(where.file if where else None)
    file = os.path.relpath(where.file, resolved.profile.folder)
    return note.told(f"{where.file if file.startswith('..') else file}:{where.line}")
