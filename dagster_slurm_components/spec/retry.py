"""What a step does by itself about a job that did not come to its own end."""

from typing import Annotated, Literal

from dagster_slurm_components.spec.base import Count, Duration, Format, Word
from dagster_slurm_components.spec.model import Model, option
from dagster_slurm_components.spec.slurm_values import Memory, Time

Factor = Annotated[Word, Format(r"x[1-9]\d{0,2}(?:\.\d{1,3})?", "a factor", "x2")]
"""How much more to ask for: ``x2``, ``x1.5``."""


def factor(text: str) -> float:
    """Return the number of a ``Factor``.

    >>> factor("x1.5")
    1.5
    """
    return float(text[1:])


class Again(Model):
    """Another attempt, with a job of its own."""

    attempts: Count = option("Further attempts after the first.", 2, default=1)
    delay: Duration = option("How long to wait before each.", "30s", default="0s")


class AgainWithMemory(Again):
    """Another attempt with more memory."""

    mem: Factor = option(
        "How much more of `mem`, `mem_per_cpu` or `mem_per_gpu`, whichever is asked for.", "x2", default="x2"
    )
    max_mem: Memory | None = option("The most to ask for; a number alone is mebibytes.", "64G")


class AgainWithTime(Again):
    """Another attempt with more time."""

    time: Factor = option("How much more time.", "x1.5", default="x1.5")
    max_time: Time | None = option("The most to ask for, in quotes.", "24:00:00")


class Retry(Model):
    """What ends of a job another attempt answers.

    An end that the payload itself chose, an exit code or an exception, is never answered by one.
    """

    node_fail: Again = option(
        "A node failed or could not boot; the next attempt leaves it out.",
        {"attempts": 2, "delay": "30s"},
        default=Again(attempts=2, delay="30s"),
    )
    preempted: Again = option(
        "A job of higher priority took the nodes, and Slurm did not requeue this one.",
        {"attempts": 5, "delay": "10m"},
        default=Again(attempts=2, delay="30s"),
    )
    out_of_memory: AgainWithMemory = option(
        "The job used more memory than it asked for.",
        {"attempts": 2, "mem": "x2", "max_mem": "64G"},
        default=AgainWithMemory(attempts=0),
    )
    timeout: AgainWithTime = option(
        "The job reached its time limit.",
        {"attempts": 1, "time": "x1.5", "max_time": "24:00:00"},
        default=AgainWithTime(attempts=0),
    )
    lost: Again = option(
        "The job left no trace. It may have done its work all the same.",
        {"attempts": 1},
        default=Again(attempts=0),
    )


class Idle(Model):
    """When a payload that runs is taken for one that hangs: it is silent, and its nodes have nothing to do.

    Silent: no byte on any stream, no message. Idle, by what the sampler sees: below a hundredth of a core and of each
    GPU, no byte read or written.
    """

    warn: Duration = option("How long it does nothing before that is told.", "30m", default="30m")
    action: Literal["none", "stacks", "cancel"] = option(
        "What is done then: `none`; `stacks`: the log tells where its processes stand; `cancel`: the step fails.",
        "cancel",
        default="none",
    )


class Stuck(Model):
    """How long a job waits that waiting alone won't start; the step then cancels it and fails."""

    never: Duration = option(
        "For one that can't start as it was submitted, such as one with `DependencyNeverSatisfied`.",
        "1m",
        default="1h",
    )
    held: Duration | None = option("For one that a person has to release; unset: without end.", "12h")
