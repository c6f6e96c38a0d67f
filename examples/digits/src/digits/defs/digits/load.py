"""Load scikit-learn's handwritten digits and split them into training and test images.

Runs by hand too: ``DATA_DIR=/tmp/digits python load.py``.
"""

import os
from pathlib import Path

import numpy as np
from dagster_pipes import open_dagster_pipes
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split


def main() -> None:
    data_dir = Path(os.environ["DATA_DIR"])
    data_dir.mkdir(parents=True, exist_ok=True)
    with open_dagster_pipes() as pipes:
        digits = load_digits()
        pixels = digits.data / 16.0  # pixels are 0 to 16 in the data set
        train_x, test_x, train_y, test_y = train_test_split(
            pixels, digits.target, test_size=0.25, stratify=digits.target, random_state=0
        )
        path = data_dir / "split.npz"
        np.savez_compressed(path, train_x=train_x, train_y=train_y, test_x=test_x, test_y=test_y)
        print(f"{len(pixels)} images of 8 x 8 pixels: {len(train_x)} to train, {len(test_x)} to test")
        pipes.report_asset_materialization(
            metadata={
                "images": len(pixels),
                "train_images": len(train_x),
                "test_images": len(test_x),
                "classes": len(digits.target_names),
                "file": {"raw_value": str(path), "type": "path"},
            }
        )


if __name__ == "__main__":
    main()
