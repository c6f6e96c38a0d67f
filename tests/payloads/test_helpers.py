"""What payloads in each language report, by its real interpreter: bash, Python, R and Julia."""

# ruff: noqa: E501 - programs in other languages

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from waiting import PATIENCE

import dagster_slurm_components
from dagster_slurm_components.pipes.messages import Message, parse

PACKAGE = Path(dagster_slurm_components.__file__).parent
LIB = PACKAGE / "jobs" / "lib"


@dataclass(frozen=True)
class Language:
    """How a payload in a language starts, and what it begins with."""

    name: str
    argv: tuple[str, ...]
    prelude: str

    def start(self, code: str, folder: Path, **env: str) -> subprocess.Popen[str]:
        """Start a payload in a folder; without DAGSTER_SLURM_MESSAGES it runs outside of any job."""
        file = folder / f"script.{self.name}"
        if not file.exists():  # other processes may be reading it
            shutil.copy(PACKAGE / "payload.py", folder / "dagster_slurm_payload.py")
            file.write_text(f"{self.prelude}\n{code}\n", "utf-8")
        path = f"{os.environ['PATH']}:{LIB}"
        own = {
            "DAGSTER_SLURM_LIB": str(LIB),
            "PATH": path,
            "LC_ALL": "C.UTF-8",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        return subprocess.Popen(
            [*self.argv, str(file)],
            cwd=folder,
            env={**own, **env},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(self, code: str, folder: Path, *, fails: bool = False, **env: str) -> str:
        """Run it to its end; return what it printed, to stdout or else to stderr."""
        process = self.start(code, folder, **env)
        out, err = process.communicate(timeout=PATIENCE)
        assert (process.returncode != 0) == fails, out + err
        return err if fails else out


BASH = Language("sh", ("bash",), "set -euo pipefail\n. pipes.sh")
R = Language("R", ("Rscript",), 'source(file.path(Sys.getenv("DAGSTER_SLURM_LIB"), "pipes.R"))')
JULIA = Language(
    "jl",
    ("julia", "--startup-file=no"),
    'include(joinpath(ENV["DAGSTER_SLURM_LIB"], "pipes.jl"))\nusing .DagsterSlurmPipes',
)
PYTHON = Language("py", (sys.executable, "-S"), "import os\nfrom dagster_slurm_payload import *")
ALL = [BASH, R, JULIA, PYTHON]


@pytest.fixture(params=ALL, ids=lambda language: language.name)
def language(request: pytest.FixtureRequest) -> Language:
    """Each language whose interpreter is there; R must be where Slurm must."""
    chosen: Language = request.param
    present(chosen)
    return chosen


def present(language: Language) -> None:
    if shutil.which(language.argv[0]) is None:
        required = os.environ.get("DAGSTER_SLURM_REQUIRE_SLURM") == "1" and language is not JULIA
        assert not required, f"{language.argv[0]} is missing: `make test` installs it"
        pytest.skip(f"there is no {language.argv[0]} on this machine")


def messages(file: Path) -> list[dict[str, Any]]:
    """Return the messages but those that open and close; each is one the reader takes as it is."""
    lines = file.read_bytes().splitlines()
    for line in lines:
        parsed = parse(line)
        assert isinstance(parsed, Message), parsed
        assert parsed.notes == ()
    read = [json.loads(line) for line in lines]
    assert (read[0]["method"], read[-1]["method"]) == ("opened", "closed")
    return read[1:-1]


HOSTILE = [
    "quotes \" ' and \\ backslashes \\n",
    "two\nlines\r\nand a tab\t",
    "$(touch hacked) `touch hacked`; touch hacked & *",
    "naïve ✓ 数字 \U0001f600 \u2028",
    "".join(map(chr, range(1, 32))) + "\x7f\x80\x9f",
    "% %s %d",
    "a=b:c",
    "",
    "-n",
    "1e3",
    "007",
    "long " * 2000,
]

SAY_ALL = {
    "sh": """
for number in $(seq 0 $((COUNT - 1))); do
    value=VALUE_$number
    pipes_log "${!value}" WARNING
    pipes_materialize "${!value}." --data-version "${!value}" "${!value//[:=]/_}.:text=${!value}"
    pipes_check "${!value}." "${!value}." false --severity WARN "t:text=${!value}"
done""",
    "R": """
for (number in seq_len(as.integer(Sys.getenv("COUNT"))) - 1) {
  value <- Sys.getenv(paste0("VALUE_", number))
  pipes_log(value, "WARNING")
  metadata <- list(value)
  names(metadata) <- paste0(gsub("[:=]", "_", value, useBytes = TRUE), ".")
  pipes_materialize(paste0(value, "."), metadata, data_version = value)
  pipes_check(paste0(value, "."), paste0(value, "."), FALSE, "WARN", list(t = value))
}""",
    "jl": """
for number in 0:parse(Int, ENV["COUNT"])-1
    value = ENV["VALUE_$number"]
    pipes_log(value, "WARNING")
    name = replace(value, r"[:=]" => "_") * "."
    pipes_materialize(value * "."; metadata=Dict(name => value), data_version=value)
    pipes_check(value * ".", value * ".", false; severity="WARN", metadata=Dict("t" => value))
end""",
    "py": """
for number in range(int(os.environ["COUNT"])):
    value = os.environ[f"VALUE_{number}"]
    log(value, "WARNING")
    name = value.replace(":", "_").replace("=", "_") + "."
    materialize(value + ".", {name: value}, data_version=value)
    check(value + ".", value + ".", False, "WARN", {"t": value})""",
}


def assert_said(language: Language, values: Sequence[str], folder: Path, locale: str) -> None:
    file = folder / "messages.jsonl"
    file.unlink(missing_ok=True)
    env = {f"VALUE_{number}": value for number, value in enumerate(values)}
    language.run(
        SAY_ALL[language.name],
        folder,
        DAGSTER_SLURM_MESSAGES=str(file),
        COUNT=str(len(values)),
        LC_ALL=locale,
        **env,
    )
    said = iter(messages(file))
    for value in values:
        assert next(said)["params"] == {"message": value, "level": "WARNING"}
        made = next(said)["params"]
        assert (made["asset_key"], made["data_version"]) == (f"{value}.", value)
        name = f"{re.sub('[:=]', '_', value)}."
        assert made["metadata"][name]["raw_value"] == value
        result = next(said)["params"]
        assert result["metadata"]["t"]["raw_value"] == value
        del result["metadata"]
        named = {"asset_key": f"{value}.", "check_name": f"{value}."}
        assert result == {**named, "passed": False, "severity": "WARN"}
    assert list(said) == []
    assert not list(folder.rglob("hacked"))


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_any_text_arrives_unchanged(language: Language, locale: str, tmp_path: Path) -> None:
    assert_said(language, HOSTILE, tmp_path, locale)


WORDS = st.lists(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), min_size=1, max_size=20
)


@settings(
    max_examples=6,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)
@given(values=WORDS)
def test_any_text_at_all_arrives_unchanged(language: Language, values: list[str], tmp_path: Path) -> None:
    assert_said(language, values, tmp_path, "C.UTF-8")


NUMBERS = {
    "sh": "pipes_materialize a whole=3 below=-17 part=0.5 typed:float=1e300 f:float=2 nan:float=NaN inf:float=-inf "
    "none:null= b:bool=true 'list:json=[1, 2.5,\n null]' t:int=4",
    "R": "pipes_materialize('a', list(whole = 3L, below = -17L, part = 0.5, typed = 1e300, f = 2, nan = NaN, inf = -Inf, "
    "none = NA, b = TRUE, list = c(1, 2.5, NA), t = pipes_metadata(4L, 'int')))",
    "jl": 'pipes_materialize("a"; metadata=Dict("whole" => 3, "below" => -17, "part" => 0.5, "typed" => 1e300, "f" => 2.0, '
    '"nan" => NaN, "inf" => -Inf, "none" => missing, "b" => true, "list" => [1, 2.5, nothing], '
    '"t" => pipes_metadata(4, "int")))',
    "py": 'materialize("a", {"whole": 3, "below": -17, "part": 0.5, "typed": 1e300, "f": 2.0, "nan": "nan", '
    '"inf": "-inf", "none": None, "b": True, "list": [1, 2.5, None], "t": metadata(4, "int")})',
}


def test_numbers_are_numbers_and_those_that_json_lacks_are_text(language: Language, tmp_path: Path) -> None:
    file = tmp_path / "messages.jsonl"
    language.run(NUMBERS[language.name], tmp_path, DAGSTER_SLURM_MESSAGES=str(file))
    (made,) = messages(file)
    values = {name: value["raw_value"] for name, value in made["params"]["metadata"].items()}
    assert values == {
        "whole": 3,
        "below": -17,
        "part": 0.5,
        "typed": 1e300,
        "f": 2,
        "nan": "nan",
        "inf": "-inf",
        "none": None,
        "b": True,
        "list": [1, 2.5, None],
        "t": 4,
    }
    assert not any(isinstance(values[name], float) for name in ("whole", "below", "t"))


MISTAKES = {
    "sh": [
        "pipes_log x LOUD",
        "pipes_materialize a n:flaot=3",
        "pipes_materialize a n:int=3.5",
        "pipes_materialize a n:bool=yes",
        "pipes_materialize a nothing",
        "pipes_check a c 1",
        "pipes_check a c true --severity BAD",
        "pipes_progress 1 0",
        "pipes_extra missing",
        "pipes_partition_key",
    ],
    "R": [
        'pipes_log("x", "LOUD")',
        'pipes_metadata(3, "flaot")',
        'pipes_materialize("a", list(3))',
        'pipes_check("a", "c", NA)',
        'pipes_check("a", "c", TRUE, "BAD")',
        'pipes_extra("missing")',
        "pipes_partition_key()",
    ],
    "jl": [
        'pipes_log("x", "LOUD")',
        'pipes_metadata(3, "flaot")',
        'pipes_check("a", "c", 1)',
        'pipes_check("a", "c", true; severity="BAD")',
        'pipes_extra("missing")',
        "pipes_partition_key()",
    ],
    "py": [
        'log("x", "LOUD")',
        'check("a", "c", 1)',
        'check("a", "c", True, "BAD")',
        'extra("missing")',
        "partition_key()",
    ],
}


@pytest.mark.parametrize(
    ("language", "mistake"),
    [pytest.param(each, text, id=text) for each in ALL for text in MISTAKES[each.name]],
)
def test_a_mistake_is_told_and_sends_nothing(language: Language, mistake: str, tmp_path: Path) -> None:
    present(language)
    file = tmp_path / "messages.jsonl"
    assert language.run(mistake, tmp_path, fails=True, DAGSTER_SLURM_MESSAGES=str(file))
    assert not file.exists() or messages(file) == []


PROGRESS = {
    "sh": "for i in $(seq 0 400); do pipes_progress $i 400; done; pipes_progress 400 400 again",
    "R": "for (i in 0:400) pipes_progress(i, 400)",
    "jl": "for i in 0:400; pipes_progress(i, 400); end",
    "py": "for i in range(401): progress(i, 400)",
}


def test_progress_is_a_line_for_each_percent(language: Language, tmp_path: Path) -> None:
    file = tmp_path / "messages.jsonl"
    language.run(PROGRESS[language.name], tmp_path, DAGSTER_SLURM_MESSAGES=str(file))
    said = [message["params"]["message"] for message in messages(file)]
    assert len(said) == 101
    assert said[:2] == ["0 % (0 of 400)", "1 % (4 of 400)"]
    assert said[-1] == "100 % (400 of 400)"


MANY = {
    "sh": 'text=$(printf "%*s" "$SIZE" ""); for i in $(seq 40); do pipes_log "$i$text"; done',
    "R": 'text <- strrep(" ", as.integer(Sys.getenv("SIZE"))); for (i in 1:40) pipes_log(paste0(i, text))',
    "jl": 'text = " "^parse(Int, ENV["SIZE"]); for i in 1:40; pipes_log("$i$text"); end',
    "py": 'text = " " * int(os.environ["SIZE"])\nfor i in range(1, 41): log(f"{i}{text}")',
}


@pytest.mark.parametrize("size", [100, 30_000])
def test_lines_of_several_processes_do_not_mix(language: Language, size: int, tmp_path: Path) -> None:
    file = tmp_path / "messages.jsonl"
    processes = [
        language.start(MANY[language.name], tmp_path, DAGSTER_SLURM_MESSAGES=str(file), SIZE=str(size))
        for _ in range(4)
    ]
    for process in processes:
        _, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, err
    read = [json.loads(line) for line in file.read_bytes().splitlines()]
    told = sorted(int(each["params"]["message"]) for each in read if each["method"] == "log")
    assert told == sorted([*range(1, 41)] * 4)


OUTSIDE = {
    "sh": "pipes_log hello; pipes_materialize a n=1; pipes_listen; pipes_asked || echo unasked; pipes_extra x 7\n"
    "pipes_load s || echo nothing; echo saved | pipes_save s; pipes_load s; pipes_restart_count; pipes_leave",
    "R": 'pipes_log("hello"); pipes_materialize("a", list(n = 1L)); pipes_listen(); if (!pipes_asked()) cat("unasked\\n")\n'
    'cat(pipes_extra("x", 7), "\\n", sep = ""); if (is.null(pipes_load("s"))) cat("nothing\\n"); pipes_save("s", "saved")\n'
    'cat(paste0(c(pipes_load("s"), pipes_restart_count()), "\\n"), sep = ""); pipes_leave()',
    "jl": 'pipes_log("hello"); pipes_materialize("a"; metadata=Dict("n" => 1)); pipes_listen()\n'
    'pipes_asked() || println("unasked"); println(pipes_extra("x", 7)); pipes_load("s") === nothing && println("nothing")\n'
    'pipes_save("s", "saved"); println(pipes_load("s")); println(pipes_restart_count()); pipes_leave()',
    "py": 'log("hello"); materialize("a", {"n": 1}); listen()\n'
    'asked() or print("unasked"); print(extra("x", 7)); load("s") is None and print("nothing")\n'
    'save("s", b"saved"); print(load("s").decode()); print(restart_count()); leave()',
}


def test_a_payload_runs_outside_of_a_job(language: Language, tmp_path: Path) -> None:
    process = language.start(OUTSIDE[language.name], tmp_path)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (75, "")
    log, made, *rest = out.splitlines()
    assert json.loads(log.removeprefix("log ")) == {"message": "hello", "level": "INFO"}
    assert json.loads(made.removeprefix("report_asset_materialization "))["asset_key"] == "a"
    assert rest == ["unasked", "7", "nothing", "saved", "0"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["checkpoint", "dagster_slurm_payload.py", f"script.{language.name}"]
    )


ASKED = {
    "sh": "pipes_listen; pipes_log ready; until pipes_asked; do sleep 0.05; done; echo 7 | pipes_save s; pipes_leave",
    "R": 'pipes_listen(); pipes_log("ready"); while (!pipes_asked()) Sys.sleep(0.05); pipes_save("s", 7); pipes_leave()',
    "jl": 'pipes_listen(); pipes_log("ready"); while !pipes_asked(); sleep(0.05); end; pipes_save("s", 7); pipes_leave()',
    "py": 'import time\nlisten(); log("ready")\nwhile not asked(): time.sleep(0.05)\nsave("s", b"7"); leave()',
}


def test_the_signal_for_a_checkpoint_is_heeded(language: Language, tmp_path: Path) -> None:
    file, status = tmp_path / "messages.jsonl", tmp_path / "status"
    status.write_text("restart=0\nsignal=USR1\nrestart=1\n")  # asked before the last start: that is over
    env = {"DAGSTER_SLURM_MESSAGES": str(file), "DAGSTER_SLURM_RUN_DIR": str(tmp_path)}
    process = language.start(ASKED[language.name], tmp_path, **env)
    for _ in until(lambda: file.exists() and b"ready" in file.read_bytes()):
        assert process.poll() is None
    with status.open("a") as stream:  # as job.sh does before it passes the signal on, if it does
        stream.write("signal=USR1\n")
    if not (tmp_path / ".reads_status").exists():
        process.send_signal(signal.SIGUSR1)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 75
    assert [each.name for each in (tmp_path / "checkpoint").iterdir()] == ["s"]


def until(condition: Any) -> Iterator[None]:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        yield
        time.sleep(0.02)


def verbs(language: Language) -> set[str]:
    if language is PYTHON:
        found = re.findall(r"^def ([a-z]\w*)\(", (PACKAGE / "payload.py").read_text(), re.MULTILINE)
    elif language is JULIA:
        exports = re.findall(r"^export (.*)", (LIB / "pipes.jl").read_text(), re.MULTILINE)
        found = re.findall(r"\bpipes_(\w+)", " ".join(exports))
    else:
        text = (LIB / f"pipes.{language.name}").read_text()
        found = re.findall(r"^pipes_(\w+)(?:\(\)| <-)", text, re.MULTILINE)
    # A shell has no values that know their type: NAME:TYPE=VALUE says it.
    return set(found) - {"metadata"}


def test_the_verbs_are_the_same_in_all_languages() -> None:
    assert len(verbs(BASH)) == 16
    assert {each.name: verbs(each) ^ verbs(BASH) for each in ALL} == {each.name: set() for each in ALL}


def test_the_python_helper_runs_on_python_3_6() -> None:
    vermin = Path(sys.executable).parent / "vermin"
    argv = [vermin, "--target=3.6-", "--violations", "--eval-annotations", PACKAGE / "payload.py"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
