"""Commands on the host: without a shell, in an environment that nothing of the user bends."""

import os
import subprocess
import tempfile
from typing import Dict, List, Optional

from dagster_slurm_components.environments.host.files import Json, Problem, write

Env = Dict[str, str]
_TAIL = 4000


def plain_environment() -> Env:
    """Return our own variables, without those that would bend what a packer does."""
    bending = ("UV_", "PIP_", "PYTHON", "VIRTUAL_ENV", "CONDA", "PIXI", "MAMBA", "DAGSTER_")
    return {name: value for name, value in os.environ.items() if not name.startswith(bending)}


def activated(activation: Optional[Json]) -> Env:
    """Return the variables after the modules and shell files that the environment is made under."""
    env = plain_environment()
    if not activation:
        return env
    with tempfile.TemporaryDirectory() as folder:
        write(os.path.join(folder, "activate.sh"), activation["script"])
        write(os.path.join(folder, "activate.args"), activation["args"])
        for name, text in activation["files"].items():
            os.makedirs(os.path.dirname(os.path.join(folder, name)), exist_ok=True)
            write(os.path.join(folder, name), text)
        env["DAGSTER_SLURM_RUN_DIR"] = folder
        show = '. "$DAGSTER_SLURM_RUN_DIR/activate.sh" >&2 </dev/null; exec env -0'
        done = subprocess.run(
            ["bash", "-c", show],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
    if done.returncode != 0:
        raise Problem("activation_failed", tail(done.stderr) or "the modules or setup files failed")
    found = {}
    for entry in done.stdout.split(b"\0"):
        name, _, value = os.fsdecode(entry).partition("=")
        if name and name != "DAGSTER_SLURM_RUN_DIR":
            found[name] = value
    return found


def execute(argv: List[str], env: Env, cwd: Optional[str] = None) -> bytes:
    """Run a command and return what it printed; what it printed as errors is the message of its failure."""
    try:
        done = subprocess.run(
            argv, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
    except OSError as error:
        raise Problem("build_failed", "%s can't be run: %s" % (argv[0], error.strerror))
    if done.returncode != 0:
        said = tail(done.stderr) or tail(done.stdout) or "it said nothing"
        full = "No space left on device" in said or "quota exceeded" in said.lower()
        text = "%s ended with %d: %s" % (os.path.basename(argv[0]), done.returncode, said)
        raise Problem("disk_full" if full else "build_failed", text)
    return done.stdout


def tail(output: bytes) -> str:
    """Return the end of what a command printed."""
    return output.decode("utf-8", "replace").strip()[-_TAIL:]
