"""What a template stands for is not held against a site."""

from __future__ import annotations

from pathlib import Path

from dagster_slurm_components.spec.project import check_project


def project(folder: Path, account: str) -> Path:
    (folder / "pyproject.toml").touch()
    for name in ("sites", "profiles"):
        (folder / name).mkdir()
    (folder / "sites" / "lab.yaml").write_text("account_required: true\n")
    (folder / "profiles" / "production.yaml").write_text(f"site: lab\nresources: {{{account}}}\n")
    (folder / "defs.yaml").write_text(
        "type: dagster_slurm_components.SlurmScriptComponent\n"
        "attributes: {scripts: [{command: [ls], assets: [{key: a}]}]}\n"
    )
    return folder


def test_an_account_from_the_environment_is_one(tmp_path: Path) -> None:
    found = check_project([project(tmp_path, "account: \"{{ env('HPC_ACCOUNT') }}\"")])
    assert found.problems == ()


def test_no_account_is_told(tmp_path: Path) -> None:
    (problem,) = check_project([project(tmp_path, "")]).problems
    assert "asks for an account" in problem.message
