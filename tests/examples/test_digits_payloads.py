"""The payloads of the digits example, run by hand: no Dagster, no Slurm."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

DEFS = Path(__file__).resolve().parents[2] / "examples" / "digits" / "src" / "digits" / "defs"
PIPES_SH = DEFS / "digits" / "pipes.sh"


def run(argv: list[str], cwd: Path | None = None, **env: str) -> str:
    completed = subprocess.run(
        argv,
        cwd=cwd,
        env={"PATH": os.environ["PATH"], "PYTHONWARNINGS": "ignore", **env},
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


@pytest.mark.parametrize(
    "value",
    [
        'quotes " and \\ backslashes \\n',
        "two\nlines\tand a tab",
        "$(touch hacked) `touch hacked`; touch hacked",
        "naïve ✓ 数字",
        "% %s %d",
        "a=b",
        "",
        "-",
        "1e3",
        "007",
    ],
)
def test_shell_reports_carry_any_text_unchanged(value: str, tmp_path: Path):
    reported = tmp_path / "messages.jsonl"
    script = 'source "$0"; pipes_log "$1"; pipes_materialize "key/with space" "name=$1"'
    run(["bash", "-c", script, str(PIPES_SH), value], tmp_path, DAGSTER_SLURM_MESSAGES=str(reported))
    _, log, materialization, _ = messages(reported)
    assert log["params"]["message"] == value
    assert materialization["params"]["asset_key"] == "key/with space"
    assert materialization["params"]["metadata"]["name"]["raw_value"] == value
    assert list(tmp_path.iterdir()) == [reported]


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("-17", -17), ("3.25", 3.25)])
def test_shell_reports_carry_numbers_as_numbers(text: str, number: float, tmp_path: Path):
    reported = tmp_path / "messages.jsonl"
    script = 'source "$0"; pipes_materialize a "n=$1"'
    run(["bash", "-c", script, str(PIPES_SH), text], tmp_path, DAGSTER_SLURM_MESSAGES=str(reported))
    assert messages(reported)[1]["params"]["metadata"]["n"]["raw_value"] == number


def test_a_shell_payload_runs_outside_of_a_job(tmp_path: Path):
    run(["bash", "-c", 'source "$0"; pipes_materialize a n=1', str(PIPES_SH)], tmp_path)
    assert list(tmp_path.iterdir()) == []
