"""The payloads of the digits example, run by hand: no Dagster, no Slurm."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score
from sklearn.model_selection import LeaveOneOut, cross_val_predict

import dagster_slurm_components

DEFS = Path(__file__).resolve().parents[2] / "examples" / "digits" / "src" / "digits" / "defs"
LIB = Path(dagster_slurm_components.__file__).parent / "jobs" / "lib"


def run(argv: list[str], cwd: Path | None = None, **env: str) -> str:
    completed = subprocess.run(
        argv,
        cwd=cwd,
        env={"PATH": f"{os.environ['PATH']}:{LIB}", "PYTHONWARNINGS": "ignore", **env},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert completed.returncode == 0, completed.stdout
    return completed.stdout


def messages(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def test_the_payloads_run_by_hand_one_after_the_other(tmp_path: Path):
    data, reported = tmp_path / "data folder", tmp_path / "messages.jsonl"
    env = {"DATA_DIR": str(data)}
    assert "1797 images" in run([sys.executable, str(DEFS / "digits" / "load.py")], **env)
    assert "epoch 5" in run([sys.executable, str(DEFS / "digits" / "train.py"), "--epochs", "5"], **env)
    evaluated = run([sys.executable, str(DEFS / "digits" / "evaluate.py")], **env)
    run(["bash", str(DEFS / "digits" / "summary.sh")], DAGSTER_SLURM_MESSAGES=str(reported), **env)
    baseline = run([sys.executable, str(DEFS / "baseline" / "train.py")], EPOCHS="2", **env)

    assert baseline.startswith("after 2 epochs: accuracy 0.")
    errors = int(evaluated.split(" of 450 test images", 1)[0])
    rows = [line.split(",") for line in (data / "evaluation.csv").read_text().splitlines()[1:]]
    assert sum(int(images) - int(correct) for _, images, correct in rows) == errors
    assert len((data / "report.md").read_text().splitlines()) == 4 + 10
    assert [message["method"] for message in messages(reported)] == [
        "opened",
        "log",
        "report_asset_materialization",
        "closed",
    ]
    metadata = messages(reported)[2]["params"]["metadata"]
    assert metadata["errors"]["raw_value"] == errors
    worst = min(rows, key=lambda row: int(row[2]) / int(row[1]))
    assert metadata["hardest_digit"]["raw_value"] == int(worst[0])


def test_the_model_of_diabetes_is_what_scikit_learn_fits(tmp_path: Path):
    folder = DEFS / "diabetes"
    assert "442 patients, 11 columns" in run([sys.executable, str(folder / "table.py")], cwd=tmp_path)
    variables = str(folder / "variables.csv")
    run([sys.executable, str(folder / "fit.py"), "table.csv", variables], cwd=tmp_path)
    model = json.loads((tmp_path / "model.json").read_text())

    patients = load_diabetes(scaled=False, as_frame=False)
    chosen = [patients.feature_names.index(variable["column"]) for variable in model["variables"]]
    measured = patients.data[:, chosen]
    theirs = LinearRegression().fit(measured / measured.std(axis=0), patients.target)
    assert [variable["effect"] for variable in model["variables"]] == pytest.approx(list(theirs.coef_))
    unseen = cross_val_predict(LinearRegression(), measured, patients.target, cv=LeaveOneOut())
    assert model["r2"] == pytest.approx(r2_score(patients.target, unseen))
