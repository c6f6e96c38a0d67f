"""What importing this package costs every Dagster process, over importing Dagster itself."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys

ROUNDS = 5


def seconds(code: str) -> float:
    """Return how long a fresh interpreter needs for a line of code, measured inside it."""
    timed = f"import time; t = time.perf_counter(); {code}; print(time.perf_counter() - t)"
    return float(subprocess.run([sys.executable, "-c", timed], capture_output=True, check=True).stdout)


def main() -> None:
    alone, with_us = "import dagster", "import dagster, dagster_slurm_components"
    seconds(with_us)  # fills the disk cache
    pairs = [(seconds(alone), seconds(with_us)) for _ in range(ROUNDS)]
    baseline = statistics.median(pair[0] for pair in pairs)
    measured = statistics.median(pair[1] for pair in pairs)
    result = {
        "benchmark": "import_time",
        "dagster_s": round(baseline, 3),
        "with_package_s": round(measured, 3),
        "added_s": round(measured - baseline, 3),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
