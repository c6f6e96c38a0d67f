"""GPUs as the sampler sees them: NVIDIA's by a library with NVML's signatures, AMD's by a tree as the kernel has it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import pytest
from sampler_fixture import HERE, module
from waiting import PATIENCE

from dagster_slurm_components.jobs.usage import Gpu, NodeUsage, parse_usage
from dagster_slurm_components.launchers.testing import outside_slurm

COMPILER = shutil.which("cc") or shutil.which("gcc")
GIB = 2**30


@pytest.fixture(scope="module")
def gpus() -> ModuleType:
    return module("gpus")


@pytest.fixture(scope="module")
def nvml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a libnvidia-ml, with an older one in `old` below it."""
    if COMPILER is None:
        pytest.skip("no C compiler, which a fake libnvidia-ml is made with")
    folder = tmp_path_factory.mktemp("nvml")
    for where, options in ((folder, ()), (folder / "old", ("-DOLD",))):
        where.mkdir(exist_ok=True)
        source, library = str(Path(__file__).with_name("fake_nvml.c")), str(where / "libnvidia-ml.so.1")
        subprocess.run([COMPILER, "-shared", "-fPIC", *options, "-o", library, source], check=True)
    return folder


def sample(folder: Path, **variables: str) -> NodeUsage:
    """Return what the sampler writes whose input has ended already."""
    file = folder / "usage" / "0.jsonl"
    file.parent.mkdir(exist_ok=True)
    file.unlink(missing_ok=True)
    program = [sys.executable, "-E", "-s", "-S", "-B", str(HERE / "sample.py"), str(file), str(os.getpid())]
    env = {**outside_slurm(), **variables}
    subprocess.run(program, env=env, stdin=subprocess.DEVNULL, check=True, timeout=PATIENCE)
    found = parse_usage(file.read_bytes())
    assert found is not None, file.read_text()
    return found


def uuids(usage: NodeUsage) -> list[str]:
    return [gpu.uuid for gpu in usage.gpus]


def test_a_gpu_of_nvidias(nvml: Path, tmp_path: Path) -> None:
    found = sample(tmp_path, LD_LIBRARY_PATH=str(nvml), CUDA_VISIBLE_DEVICES="1,0")
    assert found.gpus == (Gpu("GPU-bbbb", "Fake 1", 80 * GIB), Gpu("GPU-aaaa", "Fake 0", 80 * GIB))
    first, second = found.samples[-1].gpus
    assert (first.busy, first.memory, first.watts, first.celsius) == (0.75, 2 * GIB, 300.5, 61)
    assert second.memory == GIB
    assert first.joules is not None
    assert first.joules < 100  # since the job began, not since the driver was loaded


@pytest.mark.parametrize(
    ("visible", "seen"),
    [
        ("GPU-bbbb", ["GPU-bbbb"]),
        ("MIG-cccc", ["MIG-cccc"]),
        (" 0 , GPU-bbbb", ["GPU-aaaa", "GPU-bbbb"]),
        ("0,-1,1", ["GPU-aaaa"]),  # CUDA stops there, too
        ("7", []),
        ("NoDevFiles", []),
    ],
)
def test_the_gpus_that_cuda_shows(nvml: Path, tmp_path: Path, visible: str, seen: list[str]) -> None:
    found = sample(tmp_path, LD_LIBRARY_PATH=str(nvml), CUDA_VISIBLE_DEVICES=visible)
    assert uuids(found) == seen


def test_of_an_instance_less_is_known(nvml: Path, tmp_path: Path) -> None:
    found = sample(tmp_path, LD_LIBRARY_PATH=str(nvml), CUDA_VISIBLE_DEVICES="MIG-cccc")
    (gpu,) = found.samples[-1].gpus
    assert (gpu.busy, gpu.memory, gpu.watts, gpu.celsius, gpu.joules) == (None, 3 * GIB, None, None, None)


def test_a_driver_without_a_function_and_one_that_fails(nvml: Path, tmp_path: Path) -> None:
    found = sample(tmp_path, LD_LIBRARY_PATH=str(nvml / "old"), CUDA_VISIBLE_DEVICES="0")
    (gpu,) = found.samples[-1].gpus
    assert (gpu.busy, gpu.watts) == (0.75, 300.5)
    broken = sample(tmp_path, LD_LIBRARY_PATH=str(nvml), CUDA_VISIBLE_DEVICES="0", FAKE_NVML="broken")
    assert broken.gpus == ()


def test_under_slurm_none_is_shown_that_was_not_given(nvml: Path, tmp_path: Path) -> None:
    job = {"LD_LIBRARY_PATH": str(nvml), "SLURM_JOB_ID": "1"}
    assert sample(tmp_path, **job).gpus == ()
    assert uuids(sample(tmp_path, **job, SLURM_GPUS_ON_NODE="2")) == ["GPU-aaaa", "GPU-bbbb"]


def card(root: Path, name: str, files: Mapping[str, str], *, opens: bool = True) -> None:
    real = root / "sys/devices" / name
    node = f"renderD{128 + int(name[-1])}"
    for path, text in {"gpu_busy_percent": "0\n", **files, f"drm/{node}/dev": ""}.items():
        (real / path).parent.mkdir(parents=True, exist_ok=True)
        (real / path).write_text(text)
    (root / "sys/class/drm" / f"card{name[-1]}").mkdir(parents=True)
    (root / "sys/class/drm" / f"card{name[-1]}" / "device").symlink_to(real)
    if opens:
        (root / "dev/dri").mkdir(parents=True, exist_ok=True)
        (root / "dev/dri" / node).touch()


def test_gpus_of_amds(gpus: ModuleType, tmp_path: Path) -> None:
    full = {"gpu_busy_percent": "92\n", "mem_info_vram_used": "1000\n", "mem_info_vram_total": "64000\n"}
    full |= {"unique_id": "0xabc\n", "product_name": "AMD Instinct MI250X\n"}
    full |= {"hwmon/hwmon3/power1_average": "310000000\n", "hwmon/hwmon3/temp1_input": "55000\n"}
    card(tmp_path, "pci2", full)
    card(tmp_path, "pci1", {"hwmon/hwmon1/power1_input": "5000000\n", "unique_id": "def\n"})
    card(tmp_path, "pci3", {"unique_id": "other"}, opens=False)  # another job's
    root = f"{tmp_path}/"
    one, two = gpus.amd(None, root)
    assert (one.uuid, one.name, one.memory, one.look()) == (
        "GPU-def",
        "AMD GPU",
        None,
        [0, None, 5, None, None],
    )
    assert (two.uuid, two.name, two.memory) == ("GPU-abc", "AMD Instinct MI250X", 64000)
    assert two.look() == [0.92, 1000, 310, 55, None]
    assert [gpu.uuid for gpu in gpus.amd("1", root)] == ["GPU-abc"]
    assert [gpu.uuid for gpu in gpus.amd("GPU-abc,0", root)] == ["GPU-abc", "GPU-def"]
    assert gpus.amd("", root) == []


def test_what_is_written_is_whole(nvml: Path, tmp_path: Path) -> None:
    sample(tmp_path, LD_LIBRARY_PATH=str(nvml), CUDA_VISIBLE_DEVICES="0,MIG-cccc")
    head, last = (
        json.loads(line) for line in (tmp_path / "usage" / "0.jsonl").read_text().splitlines()[::2][:2]
    )
    assert [len(row) for row in head["gpus"]] == [3, 3]
    assert [len(row) for row in last["gpu"]] == [5, 5]
