"""The #SBATCH header: what is rendered, what is refused, and that sbatch's own reading gives it back."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagster_slurm_components.errors import DagsterSlurmError
from dagster_slurm_components.slurm.header import check_option, command_line, escape_pattern, render_header

OPTIONS = [
    ("job-name", 'digits "v2" #1'),
    ("comment", "C:\\temp 50% done; $(touch /tmp/x) `id`"),
    ("partition", "gpu,debug"),
    ("nodes", "2-4"),
    ("time", "1-00:30:00"),
    ("gres", "gpu:a100:2"),
    ("constraint", "a100&ib|(v100*2)"),
    ("output", escape_pattern("/scratch/ünï/%j/out.log")),
    ("dependency", "afterok:12:13?afterany:14"),
    ("wckey", "my-HetJob"),
    ("signal", "B:USR1@60"),
    ("no-requeue", ""),
    ("exclusive", ""),
]


def read_as_sbatch(line: str) -> list[str]:
    """Read one #SBATCH line as sbatch does: a model of its rules, checked against a real one in test_on_slurm."""
    text, arguments, position = line.removeprefix("#SBATCH"), [], 0
    while True:
        while position < len(text) and text[position] in " \t\v\f\r\n":
            position += 1
        if position == len(text) or text[position] == "#":
            return arguments
        argument, quote = "", ""
        while position < len(text) and (quote or text[position] not in " \t\v\f\r\n"):
            character = text[position]
            if character == "\\":
                position += 1
                argument += text[position : position + 1]
            elif quote and character == quote:
                quote = ""
            elif not quote and character in "\"'":
                quote = character
            elif not quote and character == "#":
                break
            else:
                argument += character
            position += 1
        assert not quote, f"unmatched quote in {line!r}"
        arguments.append(argument)


def test_golden() -> None:
    assert render_header(OPTIONS) == (Path(__file__).parent / "golden/header.sh").read_text("utf-8")


def test_plain_values_stay_plain() -> None:
    assert render_header([("mem", "8G"), ("gpus-per-node", "a100:4")]) == (
        "#!/bin/bash\n#SBATCH --mem=8G\n#SBATCH --gpus-per-node=a100:4\n"
    )


@given(st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), min_size=1))
def test_sbatch_reads_every_value_back(value: str) -> None:
    _, line, end = render_header([("comment", value)]).split("\n")
    assert read_as_sbatch(line) == [f"--comment={value}"]
    assert end == ""


@given(st.text("hetjobpackHETJOB\\\"' ", min_size=1))
def test_no_line_holds_the_separator_of_heterogeneous_jobs(value: str) -> None:
    line = render_header([("comment", value)]).split("\n")[1]
    assert "hetjob" not in line.lower()
    assert "packjob" not in line.lower()
    assert read_as_sbatch(line) == [f"--comment={value}"]


@pytest.mark.parametrize("bad", ["\n", "\r", "\0", "\t", "\x1b", "\x7f", "\x85", "\u2028", "\ud800"])
def test_control_characters_are_refused_by_name(bad: str) -> None:
    with pytest.raises(DagsterSlurmError, match=r"value of --job-name holds .* at position 2"):
        render_header([("job-name", f"a{bad}b")])


@pytest.mark.parametrize("name", ["", "job_name", "Job-name", "job name", "-x", "a=b", "nodes\n#SBATCH --x"])
def test_only_long_options_are_names(name: str) -> None:
    with pytest.raises(DagsterSlurmError, match="no long option"):
        check_option(name, "1")


def test_an_option_without_its_value_would_swallow_the_next_line() -> None:
    with pytest.raises(DagsterSlurmError, match="--comment needs a value"):
        render_header([("comment", ""), ("nodes", "2")])


def test_command_line_needs_no_quotes() -> None:
    assert command_line([("comment", 'a "b" #c'), ("hold", "")]) == ['--comment=a "b" #c', "--hold"]


@pytest.mark.parametrize(
    ("path", "pattern"),
    [
        ("/a/50%done/%j.out", "/a/50%%done/%%j.out"),
        ("/a/b c/out", "/a/b c/out"),
        ("/a\\b/%j", "/a\\\\b/%j"),
    ],
)
def test_escape_pattern(path: str, pattern: str) -> None:
    assert escape_pattern(path) == pattern
