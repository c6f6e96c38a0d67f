"""NCCL over the GPUs of this machine: torchrun by the local profile, one rank for each, an all_reduce of 1 GiB.

The sampler's numbers of them are compared with those of nvidia-smi. Needs an NVIDIA GPU, and a Python with PyTorch: the
one that runs this, or that of the environment in GPU_PREFIX.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import dagster as dg

import dagster_slurm_components
from dagster_slurm_components.resource import ComputeResource
from dagster_slurm_components.spec.launchers import TorchrunLauncher

PREFIX = os.environ.get("GPU_PREFIX")
FIGURES = (
    *("world_size", "sum_is_right", "gpu", "torch", "nccl"),
    *("all_reduce_ms", "algorithm_gb_s", "bus_gb_s"),
)
PAYLOAD = """
import os
import time
import torch
import torch.distributed as dist
from dagster_pipes import open_dagster_pipes

ROUNDS, ELEMENTS = 20, 2**28
torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
dist.init_process_group("nccl")
world = dist.get_world_size()
tensor = torch.ones(ELEMENTS, dtype=torch.float32, device="cuda")
dist.all_reduce(tensor)  # makes the communicator; each element is the number of ranks now
right = bool((tensor == world).all())
tensor.zero_()
torch.cuda.synchronize()
began = time.perf_counter()
for _ in range(ROUNDS):
    dist.all_reduce(tensor)
torch.cuda.synchronize()
seconds = (time.perf_counter() - began) / ROUNDS
gigabytes_per_second = tensor.numel() * tensor.element_size() / seconds / 1e9
figures = {
    "world_size": world,
    "sum_is_right": right,
    "gpu": torch.cuda.get_device_name(),
    "torch": torch.__version__,
    "nccl": ".".join(map(str, torch.cuda.nccl.version())),
    "all_reduce_ms": round(seconds * 1000, 3),
    "algorithm_gb_s": round(gigabytes_per_second, 1),
    "bus_gb_s": round(gigabytes_per_second * 2 * (world - 1) / world, 1),
}
with open_dagster_pipes() as pipes:  # of rank 0; elsewhere it does nothing
    pipes.report_asset_materialization(metadata=figures)
dist.destroy_process_group()
"""


def why_not() -> str | None:
    """Return what this machine lacks, None if nothing."""
    if shutil.which("nvidia-smi") is None:
        return "no NVIDIA GPU on this machine: there is no nvidia-smi"
    if (gpus := subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)).returncode:
        return f"no NVIDIA GPU on this machine: {gpus.stdout.strip() or gpus.stderr.strip()}"
    python = Path(PREFIX, "bin", "python") if PREFIX else Path(sys.executable)
    sees = "import sys, torch; sys.exit(not torch.cuda.is_available())"
    if subprocess.run([python, "-c", sees], capture_output=True, check=False).returncode:
        return f"{python} has no PyTorch that sees a GPU: set GPU_PREFIX to an environment that has"
    return None


def sampler_agrees() -> bool:
    """Compare by UUID: GiB of memory, GiB in use (NVML counts the driver's own 0.5), watts and degrees of a moment."""
    file = Path(dagster_slurm_components.__file__).parent / "jobs" / "sampler" / "gpus.py"
    spec = importlib.util.spec_from_file_location("gpus", file)
    assert spec is not None
    assert spec.loader is not None
    gpus = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(gpus)
    seen = {gpu.uuid: gpu for gpu in gpus.nvidia(None)}
    fields = "--query-gpu=uuid,memory.total,memory.used,power.draw,temperature.gpu"
    words = ["nvidia-smi", fields, "--format=csv,noheader,nounits"]
    rows = [line.split(", ") for line in subprocess.check_output(words, text=True).splitlines()]
    if {row[0] for row in rows} != set(seen):
        return False
    near = []
    for uuid, *texts in rows:
        total, used, watts, celsius = map(float, texts)
        _, memory, power, degrees, joules = seen[uuid].look()
        near += [abs(seen[uuid].memory / 2**20 - total) < 1024, abs(memory / 2**20 - used) < 1024]
        near += [abs(power - watts) < max(10, watts / 5), abs(degrees - celsius) <= 3, joules is not None]
    return all(near)


@dg.asset
def all_reduce(context, compute: ComputeResource):  # type: ignore[no-untyped-def]
    completed = compute.run(
        context=context,
        payload_path=Path(str(compute.project), "payload.py"),
        launcher=TorchrunLauncher(nproc_per_node="gpu"),
        environment={"type": "path", "path": PREFIX} if PREFIX else None,
    )
    yield from completed.get_results()


def main() -> None:
    if reason := why_not():
        print(json.dumps({"benchmark": "gpu", "skipped": reason}))
        return
    with tempfile.TemporaryDirectory() as folder, dg.instance_for_test() as instance:
        project = Path(folder)
        (project / "profiles").mkdir()
        workdir = json.dumps(str(project / "work"))  # a JSON string is a YAML string
        (project / "profiles" / "local.yaml").write_text(f"workdir: {workdir}\n")
        (project / "payload.py").write_text(PAYLOAD)
        compute = ComputeResource(profile="local", project=folder)
        result = dg.materialize([all_reduce], resources={"compute": compute}, instance=instance)
        metadata = result.asset_materializations_for_node("all_reduce")[0].metadata
    figures = {name: value.value for name, value in metadata.items() if name in FIGURES}
    figures["sampler_agrees"] = sampler_agrees()
    met = bool(figures["sum_is_right"] and figures["sampler_agrees"])
    print(json.dumps({"benchmark": "gpu", **figures, "met": met}))


if __name__ == "__main__":
    main()
