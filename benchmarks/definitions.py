"""How long a thousand scripts take to load, over an empty project.

Every run worker, and with Dagster's default executor every step, loads all definitions anew; so this is paid often.
Each project is loaded in fresh processes, from the first import of this package to a repository that Dagster can use.
Loading is one thread's work, so its CPU time is what it takes on an idle machine. What Dagster itself needs for as many
assets made in Python is measured beside it: ``over_python`` means the same on a slow machine.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SCRIPTS = 1_000
ROUNDS = 3
LIMIT_S = 1.0
CHECK_LIMIT_S = 3.0

DEFINITIONS = """
from pathlib import Path
import dagster as dg

@dg.definitions
def defs() -> dg.Definitions:
    return dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
"""
PYPROJECT = '[tool.dg]\ndirectory_type = "project"\n[tool.dg.project]\nroot_module = "bench"\n'
LOAD = """
import json, resource, sys, time
from pathlib import Path
import dagster as dg
sys.path.insert(0, str(Path(sys.argv[1]) / "src"))
start = time.process_time()
defs = dg.load_from_defs_folder(path_within_project=Path(sys.argv[1]) / "src" / "bench")
assets = len(defs.get_repository_def().asset_graph.get_all_asset_keys())
seconds = time.process_time() - start
memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
print(json.dumps({"seconds": seconds, "assets": assets, "memory_mb": memory}))
"""
PYTHON = f"""
import dagster as dg


def made(number: int) -> dg.AssetsDefinition:
    spec = dg.AssetSpec(
        ["models", f"seed_{{number}}"],
        deps=[dg.AssetKey(["datasets", "digits"])],
        group_name="training",
        description="The model of one seed.",
        kinds={{"slurm", "bash"}},
        code_version="1",
    )

    @dg.multi_asset(name=f"seed_{{number}}", specs=[spec])
    def run(context: dg.AssetExecutionContext):
        yield dg.MaterializeResult()

    return run


defs = dg.Definitions(assets=[made(number) for number in range({SCRIPTS})])
"""
COMPONENT = "type: dagster_slurm_components.SlurmScriptComponent\nattributes:\n"
SCRIPT = """payload: {payload}
args: ["--seed", "{number}"]
env: {{BATCH_SIZE: "128"}}
launcher: {{type: bash}}
resources: {{cpus_per_task: 4, mem: 8G, time: "00:30:00"}}
assets:
  - key: models/seed_{number}
    deps: [datasets/digits]
    group_name: training
    description: The model of one seed.
"""


def project(root: Path, name: str) -> Path:
    """Make a project with one empty ``defs`` folder."""
    package = root / name / "src" / "bench"
    (package / "defs").mkdir(parents=True)
    (root / name / "pyproject.toml").write_text(PYPROJECT)
    (package / "__init__.py").touch()
    (package / "defs" / "__init__.py").touch()
    (package / "definitions.py").write_text(DEFINITIONS)
    return package / "defs"


def write_projects(root: Path) -> list[str]:
    """Write the same scripts in three ways, the same assets in Python, and an empty project; return their names."""
    project(root, "empty")
    (project(root, "python") / "made.py").write_text(PYTHON)
    folder = project(root, "include") / "training"
    (folder / "jobs").mkdir(parents=True)
    (folder / "train.py").write_text("print('trained')\n")
    (folder / "defs.yaml").write_text(COMPONENT + '  include: ["jobs/*.yaml"]\n')
    for number in range(SCRIPTS):
        (folder / "jobs" / f"{number}.yaml").write_text(SCRIPT.format(payload="../train.py", number=number))

    folder = project(root, "matrix") / "training"
    folder.mkdir()
    (folder / "train.py").write_text("print('trained')\n")
    script = SCRIPT.format(payload="train.py", number="{{ matrix.seed }}")
    script += f"matrix: {{seed: {list(range(SCRIPTS))}}}\n"
    (folder / "defs.yaml").write_text(COMPONENT + "  scripts:\n" + as_item(script))

    defs = project(root, "separate")
    for number in range(SCRIPTS):
        folder = defs / f"job_{number}"
        folder.mkdir()
        (folder / "train.py").write_text("print('trained')\n")
        script = SCRIPT.format(payload="train.py", number=number)
        (folder / "defs.yaml").write_text(COMPONENT + "  scripts:\n" + as_item(script))
    return ["empty", "python", "include", "matrix", "separate"]


def as_item(script: str) -> str:
    """Return a script as an item of a YAML list."""
    first, *rest = script.splitlines()
    return "".join(f"{line}\n" for line in [f"    - {first}", *(f"      {line}" for line in rest)])


def load(folder: Path) -> dict[str, float]:
    """Load a project in a fresh process."""
    command = [sys.executable, "-W", "ignore", "-c", LOAD, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def check(folder: Path) -> float:
    """Return the seconds that ``dg-slurm check`` takes for a project, its start included."""
    began = time.perf_counter()
    command = [str(Path(sys.executable).with_name("dg-slurm")), "check", str(folder)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="dg-slurm-bench-") as name:
        root = Path(name)
        names = write_projects(root)
        load(root / "empty")  # fills the disk cache
        rounds = [{name: load(root / name) for name in names} for _ in range(ROUNDS)]
        check_s = statistics.median(check(root / "include") for _ in range(ROUNDS))
    for name in names[1:]:
        assert {int(taken[name]["assets"]) for taken in rounds} == {SCRIPTS + 1}, name
    seconds = {name: statistics.median(taken[name]["seconds"] for taken in rounds) for name in names}
    memory = {name: int(max(taken[name]["memory_mb"] for taken in rounds)) for name in names}
    added = {name: round(seconds[name] - seconds["empty"], 2) for name in names[1:]}
    result = {
        "benchmark": "definitions",
        "scripts": SCRIPTS,
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "memory_mb": memory,
        "over_empty_s": added,
        "over_python": {name: round(added[name] / added["python"], 2) for name in names[2:]},
        "check_s": round(check_s, 2),
        "limit_s": {"include": LIMIT_S, "matrix": LIMIT_S, "check": CHECK_LIMIT_S},
        "ok": max(added["include"], added["matrix"]) <= LIMIT_S and check_s <= CHECK_LIMIT_S,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
