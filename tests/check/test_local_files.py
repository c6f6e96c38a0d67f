"""What is wrong with files beside the YAML is told with the line that names them; local runs need not ask for GPUs."""

from __future__ import annotations

import os
import subprocess
import textwrap
from pathlib import Path

import pytest

from dagster_slurm_components.spec.project import check_project


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("DAGSTER_SLURM_PROFILE", raising=False)
    monkeypatch.delenv("DAGSTER_SLURM_PROFILES_DIR", raising=False)
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "defs").mkdir()
    (tmp_path / "defs" / "works.sh").write_text("true\n")
    return tmp_path


def told(project: Path, script: str, **files: bytes) -> list[str]:
    """Return level, line and message of what is wrong with a script."""
    for name, content in files.items():
        (project / "defs" / name.replace("__", ".")).write_bytes(content)
    body = textwrap.indent(textwrap.dedent(script).strip(), " " * 6)
    head = "type: dagster_slurm_components.SlurmScriptComponent\nattributes:\n  scripts:\n    -\n"
    (project / "defs" / "defs.yaml").write_text(f"{head}{body}\n      assets: [{{key: a}}]\n")
    found = check_project([project]).problems
    return [
        f"{each.level} {each.position.line}: {each.message.replace(str(project), '')}"
        for each in found
        if each.position
    ]


@pytest.mark.parametrize("payload", ["crlf.sh", "program"])
def test_windows_line_endings_of_a_shell_payload(project: Path, payload: str) -> None:
    content = b"#!/bin/sh\r\nexit 0\r\n"
    file = project / "defs" / payload
    file.touch(mode=0o755)
    assert told(project, f"payload: {payload}", **{payload.replace(".", "__"): content}) == [
        f"error 5: {payload} has Windows line endings, which a shell reads as part of its words"
    ]
    assert (
        told(project, f"payload: {payload}", **{payload.replace(".", "__"): content.replace(b"\r", b"")})
        == []
    )


def test_python_takes_windows_line_endings(project: Path) -> None:
    assert told(project, "payload: crlf.py", crlf__py=b"print(1)\r\n") == []


@pytest.mark.parametrize(
    ("field", "largest"),
    [("args: [{}]", 131_071), ("env: {{NAME: {}}}", 131_066)],
)
def test_words_that_linux_starts_no_program_with(project: Path, field: str, largest: int) -> None:
    assert told(project, f"payload: works.sh\n{field.format('x' * largest)}") == []
    assert told(project, f"payload: works.sh\n{field.format('x' * (largest + 1))}") == [
        "error 6: 131072 bytes, and Linux starts no program with a longer one than 131071"
    ]
    subprocess.run(["true", "x" * 131_071], check=True)
    with pytest.raises(OSError, match="Argument list too long"):
        subprocess.run(["true", "x" * 131_072], check=True)


def test_a_program_that_is_not_executable(project: Path) -> None:
    assert told(project, "payload: program", program=b"#!/bin/sh\n") == [
        "error 5: program is run by itself, and is not executable"
    ]
    assert told(project, "payload: program\nlauncher: {type: bash, interpreter: [sh]}") == []
    (project / "defs" / "program").chmod(0o755)
    assert told(project, "payload: program") == []


def test_a_file_that_no_job_can_carry_is_told_in_no_time(project: Path) -> None:
    (project / "defs" / "model.bin").touch()
    os.truncate(project / "defs" / "model.bin", 3 << 30)
    before = int(Path("/proc/self/io").read_text().split()[1])
    assert told(project, "payload: works.sh\nfiles:\n  - '*.bin'") == [
        "error 7: the script's files have 3.0 GiB, and a job carries 256.0 MiB; the largest is model.bin of 3.0 GiB"
    ]
    assert int(Path("/proc/self/io").read_text().split()[1]) - before < 2_000_000, "nothing of it was read"


def test_what_can_t_travel_is_told_once(project: Path) -> None:
    folder = project / "defs" / "data"
    folder.mkdir()
    (folder / "gone").symlink_to("nowhere")
    os.mkfifo(folder / "pipe")
    what = "data/gone is a link to nowhere, which leads nowhere; data/pipe is a FIFO"
    assert told(project, "payload: works.sh\nfiles: [data]") == [
        f"error 6: no file matches 'data' in /defs: {what}"
    ]
    (folder / "x").touch()
    assert told(project, "payload: works.sh\nfiles: [data]") == [
        f"warning 6: not all of 'data' can travel: {what}"
    ]
    assert told(project, "payload: works.sh\nfiles: [data]\nexclude: [gone, pipe]") == []


def test_the_files_of_an_override_are_looked_for_with_all_that_lies_below_it(project: Path) -> None:
    (project / "defs" / "big.bin").touch()
    os.truncate(project / "defs" / "big.bin", 3 << 30)
    assert told(project, "payload: works.sh\nexclude: ['*.bin']\nprofiles: {local: {files: ['*']}}") == []


@pytest.mark.parametrize(("kind", "lock"), [("uv", "uv.lock"), ("pixi", "pixi.lock")])
def test_a_project_that_is_not_there_and_one_without_its_lock(project: Path, kind: str, lock: str) -> None:
    script = f"payload: works.sh\nenvironment: {{type: {kind}, project: ./nowhere}}"
    assert told(project, script) == ["error 6: the environment's `project` is not there: /defs/nowhere"]
    (project / "defs" / "nowhere").mkdir()
    (found,) = told(project, script)
    assert found == f"warning 6: there is no {lock} in /defs/nowhere to make the environment of"
    (project / "defs" / "nowhere" / lock).touch()
    assert told(project, script) == []


def test_requirements_that_are_not_there(project: Path) -> None:
    script = "payload: works.sh\nenvironment: {type: uv, requirements: no.txt}"
    assert told(project, script) == ["error 6: the environment's `requirements` is not there: /defs/no.txt"]


def test_an_environment_of_a_profile_is_told_where_the_profile_names_it(project: Path) -> None:
    (project / "profiles").mkdir()
    (project / "profiles" / "local.yaml").write_text("environment: {type: uv, project: ./nowhere}\n")
    assert told(project, "payload: works.sh") == [
        "error 1: the environment's `project` is not there: /nowhere"
    ]


def test_ranks_by_gpu_need_no_gpus_to_be_asked_for_without_slurm(project: Path) -> None:
    script = "payload: train.py\nlauncher: {type: torchrun, nproc_per_node: gpu}"
    assert told(project, script, train__py=b"") == []
    (project / "profiles").mkdir()
    (project / "profiles" / "cluster.yaml").write_text("scheduler: slurm\nworkdir: /scratch\n")
    assert told(project, script) == [
        "error 6: one rank for each GPU, but no GPUs are asked for (in profile cluster)"
    ]
    assert told(project, f"{script}\nresources: {{gpus_per_node: 2}}") == []


ONE_GPU = "launcher: {type: srun}\nresources: {nodes: 2, ntasks_per_node: 2, gpus_per_task: 1}"


@pytest.mark.parametrize(
    ("shape", "by"),
    [
        (ONE_GPU, "gpus_per_task"),
        (ONE_GPU.replace("1}", "a100:1}"), "gpus_per_task"),
        ("launcher: {type: srun}\nresources: {ntasks_per_gpu: 1, gpus: 4}", "ntasks_per_gpu"),
        ("launcher: {type: srun}\nresources: {ntasks: 4, gpus: 4, gpu_bind: 'single:1'}", "gpu_bind"),
        (
            "launcher: {type: srun, options: {gpu_bind: 'map_gpu:0,1'}}\n"
            "resources: {ntasks_per_node: 2, gpus_per_node: 2}",
            "gpu_bind",
        ),
        # One task on each node, which LOCAL_RANK 0 is right for; all GPUs for each; another launcher; no ranks.
        (ONE_GPU.replace("ntasks_per_node: 2", "ntasks: 2"), None),
        (ONE_GPU.replace("ntasks_per_node: 2", "ntasks_per_node: 1"), None),
        (ONE_GPU.replace("gpus_per_task: 1", "gpus_per_task: 2"), None),
        (ONE_GPU.replace("gpus_per_task: 1", "gpus_per_node: 2"), None),
        (ONE_GPU.replace("1}", "1, gpu_bind: closest}").replace("gpus_per_task", "gpus_per_node"), None),
        ("resources: {ntasks_per_node: 2, gpus_per_task: 1}", None),
    ],
)
def test_a_payload_that_takes_the_gpu_of_its_local_rank_where_it_sees_one(
    project: Path, shape: str, by: str | None
) -> None:
    (project / "profiles").mkdir()
    (project / "profiles" / "local.yaml").write_text("{}\n")
    (project / "profiles" / "cluster.yaml").write_text("scheduler: slurm\nworkdir: /scratch\n")
    script = f"payload: train.py\n{shape}"

    def expected(name: str) -> list[str]:
        message = f"by `{by}` each rank sees one GPU, as device 0, while {name} counts on"
        return [f"warning 5: {message} (in profile cluster)"] if by else []

    takes = b"torch.cuda.set_device(int(os.environ['LOCAL_RANK']))"
    assert told(project, script, train__py=takes) == expected("LOCAL_RANK")
    right = b"torch.cuda.set_device(int(os.environ['LOCAL_RANK']) % torch.cuda.device_count())"
    assert told(project, script, train__py=right) == []
    assert told(project, script, train__py=b"torch.cuda.set_device(0)") == []
    command = f"command: [bash, -c, 'LOCAL_RANK=$SLURM_LOCALID solve']\n{shape}"
    assert told(project, command) == expected("LOCAL_RANK")
