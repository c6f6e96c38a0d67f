r"""A test kit for launchers: run a launcher's plan for real, without Dagster and without Slurm.

Example, for a launcher of another package:
    >>> def test_the_payload_runs(tmp_path):
    ...     outcome = run_launcher(MyLauncher(), "print('hello')", folder=tmp_path / "run")
    ...     assert (outcome.exit_code, outcome.stdout) == (0, "hello\n")
"""

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dagster_slurm_components.hosts.program import shipped
from dagster_slurm_components.launchers.base import LaunchContext, LaunchPlan, payload_argv
from dagster_slurm_components.launchers.plans import plan
from dagster_slurm_components.spec.launchers import LauncherSpec
from dagster_slurm_components.spec.resources import Resources

PAYLOAD = "payload.py"


@dataclass(frozen=True)
class Outcome:
    """What became of a run: the job's, with the last value of each key of its status file."""

    exit_code: int
    stdout: str
    stderr: str
    status: Mapping[str, str]
    folder: Path


def make_run_directory(folder: Path, made: LaunchPlan, payload: str | None, env: Mapping[str, str]) -> None:
    """Make a run directory as a submitted job has it, save for the parts that only Dagster needs.

    ``payload`` is the text of ``payload.py``; no environment is activated.
    """
    variables = {**made.env, **env}
    texts = {
        "job.sh": shipped("jobs/shell/job.sh"),
        "launch.sh": made.script,
        "launch.args": made.arguments().decode("utf-8", "surrogateescape"),
        "activate.args": "",
        "activate.sh": shipped("environments/shell/activate.sh"),
        "job.env": "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items()),
        **({f"payload/{PAYLOAD}": payload} if payload is not None else {}),
        **made.files,
    }
    (folder / "payload").mkdir(parents=True)
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8", errors="surrogateescape")


def run_launcher(
    launcher: LauncherSpec,
    payload: str | Sequence[str],
    *,
    folder: Path,
    args: Sequence[str] = (),
    resources: Resources | None = None,
    env: Mapping[str, str] | None = None,
    python: str = sys.executable,
    timeout: float = 60,
) -> Outcome:
    """Run a payload by a launcher, as the local profile does.

    Args:
        launcher: The launcher under test.
        payload: The text of a Python payload, or a command.
        folder: The run directory to make.
        args: The payload's arguments.
        resources: What the script asks for.
        env: Environment variables.
        python: The payload's interpreter.
        timeout: Seconds after which ``subprocess.TimeoutExpired`` is raised.
    """
    text, command = (payload, None) if isinstance(payload, str) else (None, payload)
    argv = payload_argv(PAYLOAD if text is not None else None, command, args)
    made = plan(launcher, argv, LaunchContext(resources or Resources(), "process"))
    make_run_directory(folder, made, text, {"DAGSTER_SLURM_PYTHON": python, **(env or {})})
    job = ["bash", str(folder / "job.sh"), str(folder)]
    done = subprocess.run(
        job, env=outside_slurm(), capture_output=True, text=True, timeout=timeout, check=False
    )
    return Outcome(done.returncode, done.stdout, done.stderr, read_status(folder), folder)


def outside_slurm() -> dict[str, str]:
    """Return this process's environment without what a job would not inherit."""
    foreign = ("SLURM", "SBATCH", "DAGSTER")
    return {name: value for name, value in os.environ.items() if not name.startswith(foreign)}


def read_status(folder: Path) -> dict[str, str]:
    """Return the last value of each key of a run directory's status file."""
    path = folder / "status"
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    return dict(line.split("=", 1) for line in lines if "=" in line)
