"""How a payload is run: by extension, by interpreter, or as the user's own command."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagster_slurm_components.launchers.base import PYTHON, LaunchPlan, payload_argv

HOSTILE = ["a b", "a'b\"c", "a\nb", "$(touch x)", "; rm -rf .", "ünïcode", "--", "", "-rf"]


@pytest.mark.parametrize(
    ("payload", "argv"),
    [
        ("train.py", (PYTHON, "train.py")),
        ("prepare.sh", ("bash", "prepare.sh")),
        ("fit.R", ("Rscript", "fit.R")),
        ("fit.jl", ("julia", "fit.jl")),
        ("solve", ("./solve",)),
        ("bin/solve.x", ("./bin/solve.x",)),
        ("/opt/site/solve", ("/opt/site/solve",)),
        ("-train.py", (PYTHON, "./-train.py")),
    ],
)
def test_the_extension_chooses_what_runs_a_payload(payload: str, argv: tuple[str, ...]):
    assert payload_argv(payload, None, ["--epochs", "3"]) == (*argv, "--epochs", "3")


def test_an_interpreter_wins_over_the_extension():
    assert payload_argv("fit.R", None, ["x"], ["Rscript", "--vanilla"]) == (
        "Rscript",
        "--vanilla",
        "fit.R",
        "x",
    )


def test_a_command_is_run_as_it_is():
    assert payload_argv(None, ["echo", *HOSTILE], ["x"]) == ("echo", *HOSTILE, "x")


@pytest.mark.parametrize(("payload", "command"), [(None, None), ("train.py", ["echo"])])
def test_exactly_one_of_payload_and_command_is_needed(payload: str | None, command: list[str] | None):
    with pytest.raises(ValueError, match="exactly one"):
        payload_argv(payload, command, [])


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))))
def test_arguments_survive_the_way_into_the_job(args: list[str]):
    plan = LaunchPlan(script="", payload=payload_argv("train.py", None, args))
    words = plan.arguments().split(b"\0")
    assert [word.decode() for word in words[3:-1]] == args
