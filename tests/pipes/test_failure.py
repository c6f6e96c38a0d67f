"""What is told of a job that failed: each thing once, and the command that shows the rest."""

from __future__ import annotations

from typing import Any

import pytest
from dagster_pipes import PipesException

from dagster_slurm_components.jobs.outcome import JobOutcome
from dagster_slurm_components.pipes.failure import failure_text

STACK = '  File "train.py", line 3, in f\n    raise ValueError("broken data")\n'
TRACEBACK = f"Traceback (most recent call last):\n{STACK}ValueError: broken data\n"
FIGURES = {"job/id": "4711", "job/profile": "production", "job/run_directory": "/scratch/runs/1/train/0"}


def raised(**more: Any) -> PipesException:
    values: dict[str, Any] = {
        "message": "ValueError: broken data\n",
        "stack": [STACK],
        "name": "ValueError",
        "cause": None,
        "context": None,
    }
    return PipesException(**{**values, **more})


def told(stderr: str, exception: PipesException | None) -> str:
    outcome = JobOutcome(success=False, message="The payload ended with exit code 1 on node1.")
    return failure_text(outcome, "", exception=exception, stderr=stderr, figures=FIGURES)


def test_the_exception_is_told_once() -> None:
    text = told(f"a warning\n{TRACEBACK}", raised())
    assert text.count("broken data") == 2, "the message, and the line of code below it"
    assert "The payload raised ValueError: broken data\n" in text
    assert "Last lines of stderr:\na warning" in text
    assert "Traceback" not in text
    assert "Last lines of stderr" not in told(TRACEBACK, raised())


@pytest.mark.parametrize(
    ("stderr", "exception"),
    [
        (TRACEBACK, None),
        (f"{TRACEBACK}srun: error: node1: task 0: Exited with exit code 1\n", raised()),
        (TRACEBACK, raised(cause=raised())),
        (TRACEBACK, raised(context=raised())),
        (TRACEBACK, raised(message="")),
    ],
)
def test_what_says_more_than_the_exception_stays(stderr: str, exception: PipesException | None) -> None:
    assert f"Last lines of stderr:\n{stderr}".strip() in told(stderr, exception)


def test_it_names_the_command_that_shows_all_output() -> None:
    text = told("", None)
    assert "All its output: dg-slurm jobs logs 4711 --profile production\n" in text
    assert text.endswith("Run directory: /scratch/runs/1/train/0")
