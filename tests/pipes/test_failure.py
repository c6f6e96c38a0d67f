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
        (TRACEBACK, raised(message="")),
        (TRACEBACK, raised(message="another")),
    ],
)
def test_what_says_more_than_the_exception_stays(stderr: str, exception: PipesException | None) -> None:
    assert f"Last lines of stderr:\n{stderr}".strip() in told(stderr, exception)


OTHER = TRACEBACK.replace('raise ValueError("broken data")', '{}["k"]').replace(
    "ValueError: broken data", "KeyError"
)
CAUSE = "\nThe above exception was the direct cause of the following exception:\n\n"


@pytest.mark.parametrize(
    ("stderr", "left"),
    [
        (f"{TRACEBACK}srun: error: node1: task 0: Exited", "srun: error: node1: task 0: Exited"),
        (f"before\n{TRACEBACK}after", "before\nafter"),
        (f"{OTHER}{CAUSE}{TRACEBACK}", f"{OTHER}{CAUSE}"),
        (f"{OTHER}logged, and gone on\n{TRACEBACK}", f"{OTHER}logged, and gone on"),
        (TRACEBACK.partition("\n")[2], ""),  # a long one, whose beginning nobody has kept
        (TRACEBACK.replace("ValueError:", "    ~~~^^^\nValueError:"), ""),
    ],
)
def test_no_traceback_is_told_twice(stderr: str, left: str) -> None:
    text = told(stderr.rstrip("\n"), raised(cause=raised()))
    assert text.count("broken data") == 2
    assert text.partition("Last lines of stderr:\n")[2].partition("\n\nAll its output")[0] == left.strip()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("JSONDecodeError", "json.decoder.JSONDecodeError: Expecting value"),
        ("SyntaxError", '  File "<string>", line 1\n    a b\n      ^\nSyntaxError: invalid syntax\n'),
        ("ValueError", "ValueError\n"),
        ("Error", "my.module.Error\n"),
    ],
)
def test_the_name_of_an_exception_is_told_once(name: str, message: str) -> None:
    text = told("", raised(name=name, message=message, stack=[]))
    assert f"The payload raised {message.strip()}\n" in text
    assert "raised Error: ValueError: x" in told("", raised(name="Error", message="ValueError: x"))


def test_it_names_the_command_that_shows_all_output() -> None:
    text = told("", None)
    assert "All its output: dg-slurm jobs logs 4711 --profile production\n" in text
    assert text.endswith("Run directory: /scratch/runs/1/train/0")
