"""Write scikit-learn's diabetes data as a table: a line for each patient.

Runs by hand too: ``python table.py`` writes ``table.csv``.
"""

import csv
from pathlib import Path

import numpy as np
from dagster_pipes import open_dagster_pipes
from sklearn.datasets import load_diabetes


def main() -> None:
    with open_dagster_pipes() as pipes:
        patients = load_diabetes(scaled=False)  # in the units that were measured
        columns = [*patients.feature_names, "progression"]
        with Path("table.csv").open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(columns)
            writer.writerows(np.column_stack([patients.data, patients.target]).tolist())
        print(f"{len(patients.data)} patients, {len(columns)} columns")
        pipes.report_asset_materialization(metadata={"patients": len(patients.data), "columns": len(columns)})


if __name__ == "__main__":
    main()
