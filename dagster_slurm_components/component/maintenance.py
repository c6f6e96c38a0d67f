"""A schedule that removes what nobody needs any more: what ``dg-slurm clean`` and ``dg-slurm env prune`` remove."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from dagster_slurm_components.component.needs import prune
from dagster_slurm_components.environments.store import Store
from dagster_slurm_components.errors import DagsterSlurmError, LoginRequiredError
from dagster_slurm_components.jobs.retention import clean
from dagster_slurm_components.jobs.target import target
from dagster_slurm_components.spec.problems import SpecError
from dagster_slurm_components.spec.profiles import chosen_profile, load_profile

_RUNS, _ENVIRONMENTS = "run directories", "environments"


def slurm_maintenance(
    *,
    project: str | Path,
    profiles: Sequence[str] = (),
    name: str = "slurm_maintenance",
    cron_schedule: str = "0 3 * * *",
    default_status: dg.DefaultScheduleStatus = dg.DefaultScheduleStatus.STOPPED,
) -> dg.ScheduleDefinition:
    """Return a schedule that removes what ``dg-slurm clean`` and ``dg-slurm env prune`` remove, by their rules.

    The run's log names all that went, and its step's metadata ``maintenance`` count it for each host. A host that asks
    for a login which only a person can make is left alone until ``dg-slurm login`` was typed. Where something fails,
    the other profiles are looked after all the same, and then the run fails.

    Args:
        project: A folder of the project, from which ``profiles/`` is looked for.
        profiles: Names of the profiles to look after; by default the one that is chosen when the run starts.
        name: The job's name; the schedule's is the same with ``_schedule``.
        cron_schedule: When it runs, in UTC.
        default_status: Whether it runs without being switched on.

    Example:
        .. code-block:: python

            defs = dg.Definitions(schedules=[slurm_maintenance(project=Path(__file__).parent)])
    """

    @dg.op
    def remove_what_is_over(context: dg.OpExecutionContext) -> None:
        rows = [_look_after(each, Path(project), context.log) for each in profiles or (chosen_profile(),)]
        metadata = {"maintenance": dg.MetadataValue.table([dg.TableRecord(row) for row in rows])}
        failed = [f"{row['profile']}: {row['note']}" for row in rows if row["failed"]]
        if failed:
            text = f"{len(failed)} of {len(rows)} profiles could not be looked after:\n" + "\n".join(failed)
            raise dg.Failure(text, metadata)
        context.add_output_metadata(metadata)

    # Not by the project's own executor: nothing here is a job.
    @dg.job(name=name, executor_def=dg.in_process_executor, description="Removes what nobody needs any more.")
    def maintenance() -> None:
        remove_what_is_over()

    return dg.ScheduleDefinition(job=maintenance, cron_schedule=cron_schedule, default_status=default_status)


def _look_after(profile: str, project: Path, log: dg.DagsterLogManager) -> dict[str, Any]:
    """Remove what is over in one profile, and return the row that tells of it."""
    row = {"profile": profile, "host": "", "MB freed": 0.0, "note": "", "failed": False}
    row |= {f"{what} {done}": 0 for what in (_RUNS, _ENVIRONMENTS) for done in ("removed", "kept")}
    try:
        loaded = load_profile(profile, start=project)
        place = target(loaded)
        row["host"] = place.satellite.host.name
        verdicts = clean(place, loaded.profile.retention)
        gone = [f"{each.folder.path}: {each.why}" for each in verdicts if each.remove]
        _tell(log, row, _RUNS, gone, [each.why for each in verdicts if not each.remove])
        found = prune(loaded, Store(place.satellite, place.workdir, loaded.name), project)
        gone = [f"{name} ({key[:12]}), {size / 1e6:.1f} MB" for key, name, size in found["removed"]]
        _tell(log, row, _ENVIRONMENTS, gone, list(found["kept"].values()))
        sizes = [found["freed"], found["cache_freed"], *(size for _, _, size in found["removed"])]
        row["MB freed"] = round(sum(sizes) / 1e6, 3)
    except LoginRequiredError as error:
        row["note"] = f"left alone, for its host asks for a person: {error}"
        log.warning(f"{profile}: {row['note']}")
    except (DagsterSlurmError, SpecError) as error:
        row |= {"note": str(error), "failed": True}
    return row


def _tell(
    log: dg.DagsterLogManager, row: dict[str, Any], what: str, gone: list[str], kept: list[str]
) -> None:
    row |= {f"{what} removed": len(gone), f"{what} kept": len(kept)}
    head = f"{row['profile']} on {row['host']}: {what} removed: {len(gone)}"
    stay = [f"kept {number}: {why}" for why, number in Counter(kept).most_common()]
    log.info("\n  ".join([head, *gone, *stay]))
