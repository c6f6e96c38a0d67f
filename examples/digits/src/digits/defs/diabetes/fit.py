"""Fit a linear model of how diabetes goes on, and measure it on patients that it has not seen.

Runs by hand too: ``python fit.py table.csv variables.csv`` (after ``table.py``) writes ``model.json``.
"""

import csv
import json
import sys
from pathlib import Path

import numpy as np
from dagster_pipes import open_dagster_pipes

REQUIRED_R2 = 0.4


def fit(measured: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Return weights and their standard errors, the constant's first, and R² with each patient left out once."""
    design = np.column_stack([np.ones(len(measured)), measured])
    inverse = np.linalg.inv(design.T @ design)
    weights = inverse @ design.T @ target
    residuals = target - design @ weights
    errors = np.sqrt(np.diag(inverse) * (residuals @ residuals) / (len(target) - len(weights)))
    leverage = np.einsum("ij,jk,ik->i", design, inverse, design)
    unseen = residuals / (1 - leverage)  # the same as to fit anew without each patient
    spread = target - target.mean()
    return weights, errors, float(1 - unseen @ unseen / (spread @ spread))


def main() -> None:
    table_file, variables_file = sys.argv[1:]
    with open_dagster_pipes() as pipes:
        patients = np.genfromtxt(table_file, delimiter=",", names=True)
        with Path(variables_file).open(newline="") as file:
            variables = list(csv.DictReader(file))
        measured = np.column_stack([patients[variable["column"]] for variable in variables])
        means, deviations = measured.mean(axis=0), measured.std(axis=0)
        weights, errors, r2 = fit((measured - means) / deviations, patients["progression"])
        numbers = (each.tolist() for each in (means, deviations, weights[1:], errors[1:]))
        fitted = [
            variable | {"mean": mean, "deviation": deviation, "effect": effect, "error": error}
            for variable, mean, deviation, effect, error in zip(variables, *numbers, strict=True)
        ]
        model = {"constant": float(weights[0]), "variables": fitted, "r2": r2}
        Path("model.json").write_text(json.dumps(model, indent=1) + "\n")

        print(f"{len(variables)} variables, {len(patients)} patients: R² {r2:.3f}")
        pipes.report_asset_materialization(
            metadata={"r2": round(r2, 4), "variables": len(variables), "patients": len(patients)}
        )
        pipes.report_asset_check(
            check_name="explains_40_percent",
            passed=r2 >= REQUIRED_R2,
            metadata={"r2": round(r2, 4), "required": REQUIRED_R2},
        )


if __name__ == "__main__":
    main()
