"""Goes on with a run that stopped: finds it, and re-executes it in this process, without webserver and daemon.

A job is taken up only if the content is the same, so all that counts for that is made as it was: the folder, its
`.env`, and the profile.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import dagster as dg

from dagster_slurm_components.errors import DagsterSlurmError
from dagster_slurm_components.pipes.private import private_parts
from dagster_slurm_components.pipes.records import PROFILE
from dagster_slurm_components.pipes.runs import call_off_retry, children, end_if_dead
from dagster_slurm_components.spec.profiles import PROFILE_VARIABLE

with private_parts("finds the code of a run in another way"):
    # How `dg launch` opens its instance, with the variables of `.env`, and how each of Dagster's processes finds a
    # run's code again. The public `dg.reconstructable` knows only functions that return one job (1.13).
    from dagster._cli.utils import get_instance_for_cli
    from dagster._utils.hosted_user_process import recon_job_from_origin

FORGOTTEN = (
    "Without DAGSTER_HOME `dg launch` keeps its run in a temporary folder, which it removes at its end: such a run "
    "can't be taken up. `dg-slurm jobs list --all` shows its jobs, `dg-slurm jobs cancel` ends one."
)
"""Where a run may be that isn't found."""
_SHORTEST = 4
"""Characters of a run's id that name it, here as in `dg-slurm jobs`."""
_MOST_NAMED = 10

_FROM_FAILURE = "dagster/is_resume_retry"
"""Dagster's own tag of a run that went on where another failed, also of the daemon's retries (1.13)."""
_BACKFILL = "dagster/backfill"
_OF_BACKFILLS = {_BACKFILL, "dagster/parent_backfill_id", "dagster/root_backfill_id"}
_OF_ONE_RUN = {
    "dagster/run_metrics",
    "dagster/failure_reason",
    "dagster/retry_number",
    "dagster/will_retry",
    "dagster/auto_retry_run_id",
}
"""What Dagster, too, leaves out of the tags of a retry (1.13)."""
_OURS, _HIDDEN = "slurm/", ".dagster/"


@contextmanager
def opened_instance(like: dg.DagsterInstance | None = None) -> Iterator[dg.DagsterInstance]:
    """Open Dagster's instance as `dg launch` does, with the variables of the `.env` of this folder.

    With an instance that is open already the same is opened, whatever DAGSTER_HOME says here.

    Raises:
        DagsterSlurmError: DAGSTER_HOME is not set, or is no folder.
    """
    with ExitStack() as stack:
        try:
            ref = like.get_ref() if like is not None else None
            instance = stack.enter_context(get_instance_for_cli(ref))
        except dg.DagsterError as error:
            why = str(error).strip() or "The environment variable DAGSTER_HOME is not set."
            raise DagsterSlurmError(
                f"Dagster's records can't be opened. {why.splitlines()[0]}",
                hint=f"Set DAGSTER_HOME to the folder with which the run was launched. {FORGOTTEN}",
            ) from error
        yield instance


def find_run(instance: dg.DagsterInstance, name: str) -> dg.DagsterRun:
    """Return the run that a person names, by its id or the beginning of that.

    Raises:
        DagsterSlurmError: There is none, or there are several.
    """
    run = instance.get_run_by_id(name)
    if run is not None:
        return run
    # Dagster's storage knows no search by a beginning (1.13); ids alone are one quick query.
    run_ids = instance.get_run_ids() if len(name) >= _SHORTEST else []
    matches = sorted(run_id for run_id in run_ids if run_id.startswith(name))
    if len(matches) > 1:
        first = ", ".join(matches[:_MOST_NAMED]) + ("..." if len(matches) > _MOST_NAMED else "")
        raise DagsterSlurmError(f"{name!r} names {len(matches)} runs: {first}", hint="Write more of the id.")
    run = instance.get_run_by_id(matches[0]) if matches else None
    if run is None:
        raise DagsterSlurmError(
            f"there is no run {name!r} in {instance.root_directory}",
            hint=f"Is DAGSTER_HOME the folder with which it was launched? {FORGOTTEN} "
            f"Of an id, {_SHORTEST} characters are enough.",
        )
    return run


def run_to_take_up(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dg.DagsterRun:
    """Make sure that a run is over and left something behind; return it as it is then.

    A run whose worker is proven dead is ended here.

    Raises:
        DagsterSlurmError: It is not over, it succeeded, or another run went on for it.
    """
    if run.is_success:
        raise DagsterSlurmError(f"run {run.run_id} has succeeded: there is nothing to take up")
    if not run.is_finished:
        end_if_dead(instance, run)
        run = instance.get_run_by_id(run.run_id) or run  # somebody else may have found it dead meanwhile
    if not run.is_finished:
        raise DagsterSlurmError(
            f"run {run.run_id} is {run.status.value}, and its process is not known to be dead",
            hint="End it first: Ctrl-C where `dg launch` runs, or terminate it in Dagster. Of a process on another "
            "machine nothing is known here: mark its run as failed or cancelled in Dagster's UI.",
        )
    heir = _heir(instance, run)
    if heir is not None:
        stopped = heir.is_finished and not heir.is_success
        raise DagsterSlurmError(
            f"run {heir.run_id} went on for run {run.run_id}, and is {heir.status.value}",
            hint=f"To go on from there: dg-slurm attach {heir.run_id}" if stopped else None,
        )
    if _all_succeeded(instance, run):
        raise DagsterSlurmError(f"each step of run {run.run_id} has succeeded: there is nothing to take up")
    return run


def _heir(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dg.DagsterRun | None:
    """Return the last of the runs that went on from a run's failure, one for another."""
    heir = None
    while after := [
        each for each in children(instance, heir or run) if each.tags.get(_FROM_FAILURE) == "true"
    ]:
        heir = after[0]
    return heir


def _all_succeeded(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Whether nothing is left to do, as after a process that died between its last step and its run's end."""
    steps = run.step_keys_to_execute
    if not steps:
        return False
    success = dg.DagsterEventType.STEP_SUCCESS
    done = {entry.step_key for entry in instance.all_logs(run.run_id, of_type=success)}
    return set(steps) <= done


def reexecute_here(
    instance: dg.DagsterInstance, run: dg.DagsterRun, *, tell: Callable[[str], None]
) -> dg.DagsterRun:
    """Re-execute a run that failed or was cancelled from its failure, and wait for its end; return the new run.

    Its log goes to the terminal, as that of `dg launch` does. A run that fails is no error here.

    Raises:
        DagsterSlurmError: The run's code can't be found or loaded.
    """
    origin = run.job_code_origin
    if origin is None:
        raise DagsterSlurmError(
            f"run {run.run_id} does not say where its code is: it was started inside a Python program or a test",
            hint="Only `dg launch`, the webserver and the daemon make runs that others can re-execute.",
        )
    with _as_it_was(instance, run, tell) as same:
        try:
            job = recon_job_from_origin(origin)
            # Without its selection the job is planned as a whole, and asks for the config of assets that it won't run.
            if run.asset_selection or run.asset_check_selection:
                job = job.get_subset(
                    asset_selection=run.asset_selection, asset_check_selection=run.asset_check_selection
                )
            elif run.resolved_op_selection:
                job = job.get_subset(op_selection=run.resolved_op_selection)
            job.get_definition()  # before anything is changed
            call_off_retry(same, run)
            options = dg.ReexecutionOptions.from_failure(run.run_id, same)
            done = dg.execute_job(job, same, reexecution_options=options, tags=tags_of_retry(same, run))
        except (ImportError, dg.DagsterError) as error:
            raise _refused(run, error, origin.executable_path) from error
        made = same.get_run_by_id(done.run_id)
    if made is None:
        raise DagsterSlurmError(f"run {done.run_id} was removed from Dagster meanwhile")
    return made


@contextmanager
def _as_it_was(
    instance: dg.DagsterInstance, run: dg.DagsterRun, tell: Callable[[str], None]
) -> Iterator[dg.DagsterInstance]:
    """Go where a run was launched, with the `.env` of that folder and in its profile."""
    here, profile = Path.cwd(), os.environ.get(PROFILE_VARIABLE)
    folder = _folder(run) or here
    try:
        os.chdir(folder)
        with opened_instance(instance) as same:
            chosen = run.tags.get(PROFILE)
            if chosen is not None:
                os.environ[PROFILE_VARIABLE] = chosen
            where = f"in {folder}" + (f", profile {chosen}" if chosen else "")
            tell(f"run {run.run_id} is re-executed from its failure {where}")
            yield same
    finally:
        os.chdir(here)
        os.environ.pop(PROFILE_VARIABLE, None)
        if profile is not None:
            os.environ[PROFILE_VARIABLE] = profile


def _folder(run: dg.DagsterRun) -> Path | None:
    """Return the folder in which a run was launched, if it is known and still there."""
    origin = run.job_code_origin
    pointer = origin.repository_origin.code_pointer if origin is not None else None
    folder = getattr(pointer, "working_directory", None)  # not all of Dagster's pointers have one (1.13)
    return Path(folder) if folder and Path(folder).is_dir() else None


def tags_of_retry(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dict[str, str]:
    """Return the tags with which Dagster's daemon would retry a run, its partition among them.

    ``dg.execute_job`` takes over none of them by itself, not even those that say whose retry it is (dagster 1.13).
    """
    backfill_id = run.tags.get(_BACKFILL)
    backfill = instance.get_backfill(backfill_id) if backfill_id is not None else None
    left_out = _OF_ONE_RUN
    if backfill is None or backfill.status.value != "REQUESTED":
        left_out = left_out | _OF_BACKFILLS
    kept = {
        key: value
        for key, value in run.tags.items()
        if key not in left_out and not key.startswith((_OURS, _HIDDEN))
    }
    return {
        **kept,
        "dagster/parent_run_id": run.run_id,
        "dagster/root_run_id": run.root_run_id or run.run_id,
        _FROM_FAILURE: "true",
    }


def _refused(run: dg.DagsterRun, error: Exception, executable: str) -> DagsterSlurmError:
    hint = "Its definitions must load here as they did when it was launched: `dg check defs` tells."
    if executable != sys.executable:
        hint += f" It ran in {executable}; this is {sys.executable}."
    why = str(error).strip().splitlines() or [type(error).__name__]
    return DagsterSlurmError(f"run {run.run_id} ({run.job_name}) can't be re-executed: {why[0]}", hint=hint)
