"""A notebook as a payload, from YAML to what Dagster shows of it, under both schedulers."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest
from launchers.test_notebook import PARAMETERS, PNG, notebook
from project_fixture import Project, failure_text

PROFILES = ["local", pytest.param("staging", marks=[pytest.mark.slurm, pytest.mark.slow])]


@pytest.fixture(params=PROFILES)
def profile(request: pytest.FixtureRequest, project: Project) -> str:
    if request.param == "staging":
        project.staging(request.getfixturevalue("cluster"))
    return str(request.param)


def scripts(project: Project, venv: Path) -> None:
    project.scripts(f"""
defaults: {{environment: {{type: path, path: "{venv}"}}, resources: {{time: "00:10:00", mem: 500M}}}}
scripts:
  - payload: reports/year.ipynb
    args: [--epochs, "3"]
    assets: [{{key: report, partitions_def: {{type: static, partition_keys: ["2024"]}}}}]
""")


def test_copy_page_and_pictures_are_outputs(
    project: Project, instance: dg.DagsterInstance, notebooks_venv: Path, profile: str
) -> None:
    picture = f"import base64; from IPython.display import Image; Image(base64.b64decode({PNG!r}))"
    project.write("reports/year.ipynb", notebook(PARAMETERS, "print(epochs, repr(partition_key))", picture))
    scripts(project, notebooks_venv)
    result = project.run(profile, instance=instance, partition_key="2024")
    assert result.success, failure_text(result)
    (event,) = result.get_asset_materialization_events()
    metadata = {name: str(value.value) for name, value in event.materialization.metadata.items()}
    for name, end in (("notebook", "executed.ipynb"), ("page", "html"), ("pictures", "pictures")):
        assert f"/payload/reports/year.{end}" in metadata[f"output/{name}"], metadata
    assert f"data:image/png;base64,{PNG}" in metadata["output/pictures/preview"]
    assert "3 '2024'" in (Path(metadata["job/run_directory"]) / "stdout.log").read_text()


def test_the_cell_that_failed_stands_in_the_step_s_error(
    project: Project, instance: dg.DagsterInstance, notebooks_venv: Path
) -> None:
    project.write("reports/year.ipynb", notebook(PARAMETERS, "x = 1", "epochs / 0"))
    scripts(project, notebooks_venv)
    result = project.run("local", instance=instance, partition_key="2024")
    assert not result.success
    assert "year.ipynb: cell 3 of 3 failed:" in failure_text(result)
    assert "ZeroDivisionError" in failure_text(result)


MARIMO = """
import marimo

app = marimo.App()


@app.cell
def _():
    import marimo as mo

    print("epochs", mo.cli_args().get("epochs"))
    return (mo,)


@app.cell
def _(mo):
    1 / (int(mo.cli_args().get("epochs")) - 13)
    return
"""


@pytest.mark.parametrize(("epochs", "good"), [(3, True), (13, False)])
def test_marimo_makes_a_page(
    project: Project, instance: dg.DagsterInstance, notebooks_venv: Path, epochs: int, good: bool
) -> None:
    project.write("explore.py", MARIMO)
    marimo = notebooks_venv / "bin" / "marimo"
    project.scripts(f"""
scripts:
  - payload: explore.py
    launcher: {{type: bash, interpreter: ["{marimo}", export, html, --force, -o, explore.html]}}
    args: [--, --epochs, "{epochs}"]
    outputs: {{page: explore.html}}
    assets: [{{key: explored}}]
""")
    result = project.run("local", instance=instance)
    assert result.success == good, failure_text(result)
    if good:
        (event,) = result.get_asset_materialization_events()
        assert "/payload/explore.html" in str(event.materialization.metadata["output/page"].value)
    else:
        assert "division by zero" in failure_text(result)
