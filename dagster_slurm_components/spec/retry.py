"""What a step does by itself about a job that did not come to its own end."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from dagster_slurm_components.spec.base import Count, Duration, Format, Model, Word
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

    attempts: Count = Field(default=1, description="Further attempts after the first.", examples=[2])
    delay: Duration = Field(default="0s", description="How long to wait before each.", examples=["30s"])


class AgainWithMemory(Again):
    """Another attempt with more memory."""

    mem: Factor = Field(
        default="x2",
        description="How much more of `mem`, `mem_per_cpu` or `mem_per_gpu`, whichever is asked for.",
        examples=["x2"],
    )
    max_mem: Memory | None = Field(
        default=None, description="The most to ask for; a number alone is mebibytes.", examples=["64G"]
    )


class AgainWithTime(Again):
    """Another attempt with more time."""

    time: Factor = Field(default="x1.5", description="How much more time.", examples=["x1.5"])
    max_time: Time | None = Field(
        default=None, description="The most to ask for, in quotes.", examples=["24:00:00"]
    )


class Retry(Model):
    """What ends of a job another attempt answers.

    An end that the payload itself chose, an exit code or an exception, is never answered by one.
    """

    node_fail: Again = Field(
        default=Again(attempts=2, delay="30s"),
        description="A node failed or could not boot; the next attempt leaves it out.",
        examples=[{"attempts": 2, "delay": "30s"}],
    )
    preempted: Again = Field(
        default=Again(attempts=2, delay="30s"),
        description="A job of higher priority took the nodes, and Slurm did not requeue this one.",
        examples=[{"attempts": 5, "delay": "10m"}],
    )
    out_of_memory: AgainWithMemory = Field(
        default=AgainWithMemory(attempts=0),
        description="The job used more memory than it asked for.",
        examples=[{"attempts": 2, "mem": "x2", "max_mem": "64G"}],
    )
    timeout: AgainWithTime = Field(
        default=AgainWithTime(attempts=0),
        description="The job reached its time limit.",
        examples=[{"attempts": 1, "time": "x1.5", "max_time": "24:00:00"}],
    )
    lost: Again = Field(
        default=Again(attempts=0),
        description="The job left no trace. It may have done its work all the same.",
        examples=[{"attempts": 1}],
    )


class Stuck(Model):
    """How long a job waits that waiting alone won't start; the step then cancels it and fails."""

    never: Duration = Field(
        default="1m",
        description="For one that can never start, such as one with `DependencyNeverSatisfied`.",
        examples=["1m"],
    )
    held: Duration | None = Field(
        default=None,
        description="For one that a person has to release; unset: without end.",
        examples=["12h"],
    )
