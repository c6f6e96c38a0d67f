"""Train a linear model for a few epochs: the baseline that the network must beat."""

import os
from pathlib import Path

import numpy as np
from dagster_pipes import open_dagster_pipes
from sklearn.linear_model import SGDClassifier


def main() -> None:
    epochs = int(os.environ.get("EPOCHS", "1"))
    with open_dagster_pipes() as pipes:
        split = np.load(Path(os.environ["DATA_DIR"]) / "split.npz")
        model = SGDClassifier(loss="log_loss", random_state=0)
        for _ in range(epochs):
            model.partial_fit(split["train_x"], split["train_y"], classes=np.arange(10))
        accuracy = float(model.score(split["test_x"], split["test_y"]))
        print(f"after {epochs} epochs: accuracy {accuracy:.4f}")
        pipes.report_asset_materialization(metadata={"accuracy": round(accuracy, 4), "epochs": epochs})


if __name__ == "__main__":
    main()
