"""What a step says when it leaves its job."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from dagster_slurm_components.pipes.records import keeps_runs, left_job


def test_it_names_the_two_commands() -> None:
    assert left_job("105", "8d1f", "production").splitlines() == [
        "This step ends; job 105 goes on.",
        "To collect its results: dg-slurm attach 8d1f",
        "To cancel it: dg-slurm jobs cancel 105 --profile production",
    ]


def test_where_the_run_is_forgotten_it_names_no_command_that_fails() -> None:
    said = left_job("105", "8d1f", "production", kept=False)
    assert "attach" not in said
    assert "so no run can collect its results" in said
    assert said.endswith("To cancel it: dg-slurm jobs cancel 105 --profile production")


def test_what_a_shell_would_take_apart_is_quoted() -> None:
    assert "jobs cancel '4 711:a;b' --profile p" in left_job("4 711:a;b", "8d1f", "p")


@pytest.mark.parametrize(("name", "kept"), [("dagster home", True), (".tmp_dagster_home_x1", False)])
def test_a_folder_of_dg_itself_is_not_kept(tmp_path: Path, name: str, kept: bool) -> None:
    (tmp_path / name).mkdir()
    with dg.DagsterInstance.local_temp(str(tmp_path / name)) as instance:
        assert keeps_runs(instance) is kept


def test_nor_is_what_lies_in_memory() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        assert not keeps_runs(instance)
