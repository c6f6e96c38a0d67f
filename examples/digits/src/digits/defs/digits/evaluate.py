"""Measure the trained network on the test images: accuracy, confusion table, and an asset check.

Runs by hand too: ``DATA_DIR=/tmp/digits python evaluate.py`` (after ``train.py``).
"""

import csv
import os
from pathlib import Path

import numpy as np
from dagster_pipes import open_dagster_pipes

REQUIRED_ACCURACY = 0.95


def predict(model: "np.lib.npyio.NpzFile", images: np.ndarray) -> np.ndarray:
    """Return the most likely digit of each image."""
    hidden = np.maximum(images @ model["hidden_w"] + model["hidden_b"], 0.0)
    return (hidden @ model["output_w"] + model["output_b"]).argmax(axis=1)


def confusion_table(confusion: np.ndarray) -> str:
    """Return the table of true digits (rows) against predicted digits (columns) as Markdown."""
    lines = ["| true \\ predicted | " + " | ".join(map(str, range(10))) + " |", "|---" * 11 + "|"]
    lines += [f"| **{digit}** | " + " | ".join(map(str, row)) + " |" for digit, row in enumerate(confusion)]
    return "\n".join(lines)


def main() -> None:
    data_dir = Path(os.environ["DATA_DIR"])
    with open_dagster_pipes() as pipes:
        split, model = np.load(data_dir / "split.npz"), np.load(data_dir / "model.npz")
        labels, predicted = split["test_y"], predict(model, split["test_x"])
        confusion = np.zeros((10, 10), dtype=int)
        np.add.at(confusion, (labels, predicted), 1)
        accuracy = float((labels == predicted).mean())
        errors = int((labels != predicted).sum())

        with (data_dir / "evaluation.csv").open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["digit", "images", "correct"])
            writer.writerows((digit, row.sum(), row[digit]) for digit, row in enumerate(confusion))

        print(f"{errors} of {len(labels)} test images are wrong: accuracy {accuracy:.4f}")
        pipes.report_asset_materialization(
            metadata={
                "accuracy": round(accuracy, 4),
                "test_images": len(labels),
                "errors": errors,
                "confusion": {"raw_value": confusion_table(confusion), "type": "md"},
            }
        )
        pipes.report_asset_check(
            check_name="accuracy_at_least_95",
            passed=accuracy >= REQUIRED_ACCURACY,
            metadata={"accuracy": round(accuracy, 4), "required": REQUIRED_ACCURACY},
        )


if __name__ == "__main__":
    main()
