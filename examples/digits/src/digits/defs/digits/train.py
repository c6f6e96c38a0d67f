"""Train a small neural network on the training images and keep its weights.

Runs by hand too: ``DATA_DIR=/tmp/digits python train.py --epochs 5`` (after ``load.py``).
"""

import argparse
import os
import time
from pathlib import Path

import numpy as np
from dagster_pipes import open_dagster_pipes
from sklearn.neural_network import MLPClassifier


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--hidden", type=int, default=64, help="units in the hidden layer")
    arguments = parser.parse_args()
    data_dir = Path(os.environ["DATA_DIR"])

    with open_dagster_pipes() as pipes:
        split = np.load(data_dir / "split.npz")
        images, labels = split["train_x"], split["train_y"]
        model = MLPClassifier(hidden_layer_sizes=(arguments.hidden,), batch_size=32, random_state=0)
        started = time.perf_counter()
        for epoch in range(1, arguments.epochs + 1):
            model.partial_fit(images, labels, classes=np.arange(10))
            if epoch % 10 == 0 or epoch == arguments.epochs:
                print(f"epoch {epoch}: loss {model.loss_:.4f}", flush=True)
        seconds = time.perf_counter() - started

        # Plain arrays instead of a pickle: whoever reads the model runs no code by it.
        path = data_dir / "model.npz"
        (hidden_w, output_w), (hidden_b, output_b) = model.coefs_, model.intercepts_
        np.savez_compressed(path, hidden_w=hidden_w, hidden_b=hidden_b, output_w=output_w, output_b=output_b)
        pipes.report_asset_materialization(
            metadata={
                "train_accuracy": round(float(model.score(images, labels)), 4),
                "loss": round(float(model.loss_), 4),
                "epochs": arguments.epochs,
                "seconds": round(seconds, 2),
                "file": {"raw_value": str(path), "type": "path"},
            }
        )


if __name__ == "__main__":
    main()
