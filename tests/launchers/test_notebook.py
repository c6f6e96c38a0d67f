"""The program that runs a notebook, in a run directory as a job has it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from launchers.harness import Run, prepare, processes_of, run_here, start_here, wait_until

from dagster_slurm_components.launchers.base import INTERPRETERS
from dagster_slurm_components.launchers.job.run_notebook import UsageError, declared, read_arguments
from dagster_slurm_components.spec.launchers import BashLauncher

STEM = "a 'b' [$(c)] ü"
PARAMETERS = "epochs = 1\nname: str = 'nobody'\npartition_key = 'none'"
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
SVG = '<svg xmlns="http://www.w3.org/2000/svg"><circle r="4"/></svg>'


def notebook(*cells: str, kernel: str = "python3", language: str = "python", parameters: bool = True) -> str:
    """Return a notebook whose first cell declares its parameters."""
    return json.dumps(
        {
            "nbformat": 4,
            "nbformat_minor": 5,
            "metadata": {"kernelspec": {"name": kernel, "language": language, "display_name": kernel}},
            "cells": [
                {
                    "id": f"c{number}",
                    "cell_type": "code",
                    "execution_count": None,
                    "metadata": {"tags": ["parameters"]} if parameters and number == 0 else {},
                    "outputs": [],
                    "source": source,
                }
                for number, source in enumerate(cells)
            ],
        }
    )


def job(
    folder: Path,
    venv: Path | None,
    text: str,
    args: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
) -> Run:
    """Make the run directory of a notebook."""
    run = prepare(
        folder, BashLauncher(), [*INTERPRETERS[".ipynb"], f"{STEM}.ipynb", *args], prefix=venv, env=env
    )
    (folder / "payload" / f"{STEM}.ipynb").write_text(text)
    return run


def executed(run: Run) -> Any:
    return json.loads((run.folder / "payload" / f"{STEM}.executed.ipynb").read_text())


def test_a_notebook_runs_with_its_parameters_and_leaves_copy_page_and_pictures(
    tmp_path: Path, notebooks_venv: Path
) -> None:
    cells = [
        PARAMETERS,
        "import sys; print([epochs, name, partition_key]); print('to stderr', file=sys.stderr)",
        f"from IPython.display import SVG, display; display(SVG({SVG!r}))",
        f"import base64; from IPython.display import Image; Image(base64.b64decode({PNG!r}))",
    ]
    args = ["--epochs", "3", """--name=o'hara; "$(x)"\nü"""]
    env = {"DAGSTER_SLURM_PARTITION_KEY": "2024-01-01"}
    run = run_here(job(tmp_path / "run 'a' $(b) ü", notebooks_venv, notebook(*cells), args, env))
    assert run.exit_code == 0, run.report()
    assert run.stdout == str([3, """o'hara; "$(x)"\nü""", "2024-01-01"]) + "\n"
    assert "to stderr" in run.stderr
    assert re.findall(r"(\d+)%\|[# ]{10}\| (\d)/(\d) \[", run.stderr)[-1] == ("100", "4", "4")
    tags = [cell["metadata"].get("tags") for cell in executed(run)["cells"]]
    assert tags == [["parameters"], ["injected-parameters"], None, None, None]
    payload = run.folder / "payload"
    assert sorted(file.name for file in payload.glob("*/*")) == ["cell-03.svg", "cell-04.png"]
    assert (payload / f"{STEM}.pictures" / "cell-04.png").read_bytes().startswith(b"\x89PNG")
    assert PNG in (payload / f"{STEM}.html").read_text()
    assert {file.name for file in payload.iterdir()} == {
        f"{STEM}{end}" for end in (".ipynb", ".executed.ipynb", ".html", ".pictures")
    }


def test_the_cell_that_failed_is_named_and_the_copy_goes_as_far(tmp_path: Path, notebooks_venv: Path) -> None:
    run = run_here(
        job(tmp_path / "run", notebooks_venv, notebook("x = 1", "", "print('before')\n1 / 0", "x"))
    )
    assert run.exit_code == 1, run.report()
    told = run.stderr[run.stderr.index(f"{STEM}.ipynb: cell 2 of 3 failed:") :]
    assert "----> 2 1 / 0" in told
    assert "ZeroDivisionError: division by zero" in told
    assert f"as far as it came: {run.folder}/payload/{STEM}.executed.ipynb" in told
    assert "\x1b" not in told
    outputs = [output["output_type"] for cell in executed(run)["cells"] for output in cell["outputs"]]
    assert outputs == ["stream", "error"]


def test_an_executed_copy_can_be_executed_again(tmp_path: Path, notebooks_venv: Path) -> None:
    first = run_here(
        job(tmp_path / "1", notebooks_venv, notebook(PARAMETERS, "print(epochs)"), ["--epochs=3"])
    )
    text = (first.folder / "payload" / f"{STEM}.executed.ipynb").read_text()
    second = run_here(job(tmp_path / "2", notebooks_venv, text))
    assert (first.stdout, second.stdout) == ("3\n", "1\n"), first.report() + second.report()


def test_a_kernel_that_dies_is_told(tmp_path: Path, notebooks_venv: Path) -> None:
    run = run_here(job(tmp_path / "run", notebooks_venv, notebook("import os; os.kill(os.getpid(), 9)")))
    assert run.exit_code == 1, run.report()
    assert "cell 1 of 1 failed:\n    import os; os.kill(os.getpid(), 9)\nKernel died" in run.stderr


SLOW = """import os, signal, time
signal.signal(signal.SIGUSR1, lambda *_: print("asked", flush=True))
print("ready", flush=True)
while True:
    time.sleep(0.1)"""


def test_a_signal_reaches_the_kernel_and_an_end_keeps_the_copy(tmp_path: Path, notebooks_venv: Path) -> None:
    run = job(tmp_path / "run", notebooks_venv, notebook(SLOW))
    process = start_here(run)
    run.wait_for("ready")
    process.send_signal(signal.SIGUSR1)
    run.wait_for("asked")
    process.send_signal(signal.SIGTERM)
    process.wait(300)
    assert run.status["exit"] != "0", run.report()
    assert "cell 1 of 1 failed:" in run.stderr
    assert "KeyboardInterrupt" in run.stderr
    assert executed(run)["cells"][0]["outputs"][-1]["ename"] == "KeyboardInterrupt"
    wait_until(lambda: not processes_of(run.folder), "the end of the kernel")


def test_parameters_in_another_language_are_set_by_papermill(tmp_path: Path, notebooks_venv: Path) -> None:
    python = str(notebooks_venv / "bin" / "python")
    subprocess.run(
        [python, "-m", "bash_kernel.install", "--prefix", str(tmp_path)], check=True, capture_output=True
    )
    text = notebook(
        "epochs=1\npartition_key=none", "echo $epochs-$partition_key", kernel="bash", language="bash"
    )
    env = {"JUPYTER_PATH": f"{tmp_path}/share/jupyter", "DAGSTER_SLURM_PARTITION_KEY": "a b"}
    run = run_here(job(tmp_path / "run", notebooks_venv, text, ["--epochs", "3"], env))
    assert (run.exit_code, run.stdout) == (0, "3-a b\n"), run.report()


@pytest.mark.parametrize(
    ("text", "args", "told"),
    [
        (notebook(PARAMETERS), ["--epoch", "3"], "sets no epoch; it sets epochs, name, partition_key"),
        (notebook("x", parameters=False), ["--epochs", "3"], "no cell has the tag `parameters`"),
        (notebook(PARAMETERS), ["3"], "'3' names no parameter: write --NAME VALUE"),
        (notebook(PARAMETERS), ["--epochs"], "--epochs has no value"),
        (notebook("x = ("), ["--x", "3"], "its cell with the tag `parameters`: '(' was never closed"),
        ("{", [], "is no notebook"),
        (notebook("x", kernel="nokernel"), [], "the notebook's kernel is not in this environment: nokernel"),
    ],
)
def test_what_can_not_run_is_said_in_a_sentence(
    tmp_path: Path, notebooks_venv: Path, text: str, args: list[str], told: str
) -> None:
    run = run_here(job(tmp_path / "run", notebooks_venv, text, args))
    assert run.exit_code == 1, run.report()
    assert told in run.stderr
    assert "Traceback" not in run.stderr


def test_an_environment_without_nbclient_is_told_what_it_lacks(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "bare")], check=True)
    python = str(tmp_path / "bare" / "bin" / "python")
    run = job(tmp_path / "run", None, notebook("x"), env={"DAGSTER_SLURM_PYTHON": python})
    assert run_here(run).exit_code == 1, run.report()
    assert "this environment lacks nbclient: add nbclient and ipykernel to it" in run.stderr


def test_values_are_json_or_else_text() -> None:
    words = [
        "--a",
        "1",
        "--b=0.5",
        "--c",
        "true",
        "--d",
        "True",
        "--e=",
        "--f",
        "--g",
        "--h",
        '[1, "x"]',
        "--i",
        "null",
    ]
    assert read_arguments(words) == {
        "a": 1, "b": 0.5, "c": True, "d": "True", "e": "", "f": "--g", "h": [1, "x"], "i": None,
    }  # fmt: skip
    with pytest.raises(UsageError, match="names no parameter"):
        read_arguments(["--a-b", "1"])


def test_what_a_cell_declares() -> None:
    assert declared("%matplotlib inline\n!ls\na = b = 1\nc: int = 2\nd: int\nprint(a)\ne.f = 1\n# g = 1") == [
        "a",
        "b",
        "c",
        "d",
    ]
