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
