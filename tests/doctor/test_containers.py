"""What the doctor says of containers."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from dagster_slurm_components.doctor.findings import Finding, Verdict

Look = Callable[..., dict[str, Finding]]


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put programs that end with an exit code on PATH, before all others."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def put(**codes: int) -> None:
        for name, code in codes.items():
            (folder / name).write_text(f"#!/bin/sh\nexit {code}\n")
            (folder / name).chmod(0o755)

    return put


def test_a_runtime_and_what_it_needs(look: Look, programs: Callable[..., None]) -> None:
    programs(singularity=0, unshare=0)
    found = look(environment={"type": "container", "image": "/x.sif"})["container"]
    fuse = os.access("/dev/fuse", os.W_OK)
    assert found.verdict is (Verdict.OK if fuse else Verdict.WARNING)
    assert "singularity" in found.detail if fuse else "FUSE" in found.detail


def test_user_namespaces_that_are_switched_off(look: Look, programs: Callable[..., None]) -> None:
    programs(apptainer=0, unshare=1)
    found = look(environment={"type": "container", "image": "/x.sif"})["container"]
    assert found.verdict is Verdict.WARNING
    assert "user namespaces are switched off" in found.detail
    assert "setuid" in str(found.advice)


def test_plugins_of_srun(look: Look, programs: Callable[..., None], tmp_path: Path) -> None:
    programs(srun=0)
    pyxis = {"type": "container", "image": "/x.sqsh", "runtime": "pyxis"}
    assert "srun has no --container-image here" in look(environment=pyxis)["container"].detail
    (tmp_path / "bin" / "srun").write_text(
        "#!/bin/sh\necho '  --container-image=IMAGE  --environment=FILE'\n"
    )
    assert look(environment=pyxis)["container"].verdict is Verdict.OK
    assert (
        look(environment={"type": "container", "edf": "pytorch"})["container"].detail
        == "srun has --environment"
    )
