"""Whether the budget of a job's account pays for it: told before it is submitted, and where Slurm lets it wait."""

from collections.abc import Mapping, Sequence

from dagster_slurm_components.jobs.target import Target
from dagster_slurm_components.slurm.shares import Budget, budgets, in_hours
from dagster_slurm_components.spec import asked
from dagster_slurm_components.spec.resolve import ResolvedScript
from dagster_slurm_components.spec.resources import Resources
from dagster_slurm_components.spec.slurm_values import time_seconds

_FIGURES = {
    "cpu": "job/budget_left_core_hours",
    "gres/gpu": "job/budget_left_gpu_hours",
    "node": "job/budget_left_node_hours",
    "billing": "job/budget_left_billing_hours",
}


def budgets_of(place: Target, account: str | None) -> tuple[Budget, ...]:
    """Return what is left to a job of an account, where Slurm says so. Fails never, and waits for no lost host."""
    return budgets(place.scheduler.shares(place.direct.satellite), account)


def budget_warning(
    left: Sequence[Budget], resolved: ResolvedScript, *, time: str | None = None, jobs: int = 1
) -> str | None:
    """Say that a script asks for more than is left, and where that is written; nothing where it does not.

    ``time`` is its limit, where that is not the script's own; ``jobs`` is how many elements an array has.
    """
    resources = resolved.script.resources
    hours = hours_of(resources, time or resources.time, jobs)
    short = [budget for budget in left if budget.left <= 0 or hours.get(budget.resource, 0.0) > budget.left]
    if not short:
        return None
    written = {
        option: position
        for option in ("account", "time")
        if getattr(resources, option) is not None and (position := resolved.position("resources", option))
    }
    return " ".join(
        (
            f"The budget may not pay for {f'these {jobs} jobs' if jobs > 1 else 'this job'}:",
            "; ".join(_in_words(budget, hours.get(budget.resource), jobs) for budget in short) + ".",
            "Slurm lets such a job wait, or ends it when nothing is left.",
            *(f"`{name}: {getattr(resources, name)}` is written at {at}." for name, at in written.items()),
        )
    )


def hours_of(resources: Resources, time: str | None, jobs: int = 1) -> dict[str, float]:
    """Return the hours of each resource that jobs may take at most, as far as the options say how much at least.

    >>> hours_of(Resources(ntasks=4, cpus_per_task=2, gpus=1), "00:30:00")
    {'node': 0.5, 'cpu': 4.0, 'gres/gpu': 0.5}
    """
    seconds = time_seconds(time) if time is not None else None
    if seconds is None:
        return {}
    nodes = (asked.nodes(resources) or (1, 1))[0]
    cpus, gpus = asked.cpus_per_node(resources), asked.gpus_per_node(resources)
    tasks = resources.ntasks or nodes
    counts = {
        "node": nodes,
        "cpu": cpus * nodes if cpus is not None else tasks * (resources.cpus_per_task or 1),
        "gres/gpu": asked.total(resources.gpus) if resources.gpus is not None else (gpus or 0) * nodes,
    }
    return {resource: count * seconds * jobs / 3600 for resource, count in counts.items() if count}


def budget_figures(left: Sequence[Budget]) -> Mapping[str, float]:
    """Return what was left, by the names of metadata."""
    return {_FIGURES[budget.resource]: round(budget.left, 4) for budget in left}


def _in_words(budget: Budget, hours: float | None, jobs: int) -> str:
    who = "they ask" if jobs > 1 else "it asks"
    return budget.words + (f", and {who} for {in_hours(hours)}" if hours is not None else "")
