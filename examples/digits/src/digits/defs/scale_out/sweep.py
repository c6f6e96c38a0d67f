"""Try layer sizes and learning rates side by side, in a Ray cluster; keep what does best on held-out images.

Runs by hand too (after ``load.py``): ``DATA_DIR=/tmp/digits python sweep.py``; Ray starts on this machine then.
"""

import itertools
import os
from pathlib import Path

import numpy as np
import ray
from dagster_pipes import open_dagster_pipes
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

HIDDEN = (16, 32, 64)
RATES = (0.0005, 0.002, 0.01)
EPOCHS = 30


def trained(images: np.ndarray, labels: np.ndarray, hidden: int, rate: float) -> MLPClassifier:
    """Return a network that has seen the images EPOCHS times."""
    model = MLPClassifier((hidden,), learning_rate_init=rate, batch_size=32, random_state=0)
    for _ in range(EPOCHS):
        model.partial_fit(images, labels, classes=np.arange(10))
    return model


# SPREAD: without it Ray would fill one node before it uses the next.
@ray.remote(num_cpus=1, scheduling_strategy="SPREAD")
def trial(images: np.ndarray, labels: np.ndarray, hidden: int, rate: float) -> tuple[int, float, float, str]:
    """Train one network; return its parameters, its accuracy on held-out images, and the node's name."""
    train_x, held_x, train_y, held_y = train_test_split(
        images, labels, test_size=0.25, stratify=labels, random_state=0
    )
    model = trained(train_x, train_y, hidden, rate)
    node = os.environ.get("SLURMD_NODENAME", "this machine")
    return hidden, rate, float(model.score(held_x, held_y)), node


def main() -> None:
    data_dir = Path(os.environ["DATA_DIR"])
    with open_dagster_pipes() as pipes:
        ray.init(log_to_driver=False)
        split = np.load(data_dir / "split.npz")
        images, labels = ray.put(split["train_x"]), ray.put(split["train_y"])
        waiting = [trial.remote(images, labels, *choice) for choice in itertools.product(HIDDEN, RATES)]
        results = []
        while waiting:
            done, waiting = ray.wait(waiting)
            hidden, rate, accuracy, node = ray.get(done[0])
            results.append((accuracy, hidden, rate, node))
            pipes.log.info(
                f"trial {len(results)}: {hidden} units, rate {rate:g}: accuracy {accuracy:.4f}, on {node}"
            )

        results.sort(key=lambda result: (-result[0], result[1:3]))
        held_out, hidden, rate, _ = results[0]
        best = trained(split["train_x"], split["train_y"], hidden, rate)
        test_accuracy = float(best.score(split["test_x"], split["test_y"]))
        print(
            f"best of {len(results)} trials: {hidden} units, rate {rate:g}: test accuracy {test_accuracy:.4f}"
        )
        rows = ["| units | rate | accuracy | node |", "|---|---|---|---|"]
        rows += [f"| {units} | {speed:g} | {right:.4f} | {node} |" for right, units, speed, node in results]
        pipes.report_asset_materialization(
            metadata={
                "hidden": hidden,
                "rate": rate,
                "held_out_accuracy": round(held_out, 4),
                "test_accuracy": round(test_accuracy, 4),
                "cpus": int(ray.cluster_resources()["CPU"]),
                "nodes": len({node for *_, node in results}),
                "trials": {"raw_value": "\n".join(rows), "type": "md"},
            }
        )


if __name__ == "__main__":
    main()
