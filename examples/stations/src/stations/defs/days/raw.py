"""What three weather stations sent on a day: made up, and the same whenever the day is made again."""

import math
import os
import random
import sys
from pathlib import Path

import dagster_slurm_payload as payload

if __name__ == "__main__":
    day = sys.argv[1]
    chance = random.Random(day)
    rows = []
    for station, mean in (("airport", 18.0), ("city", 20.5), ("hill", 14.0)):
        for hour in range(24):
            celsius = mean + 6 * math.cos((hour - 15) / 12 * math.pi) + chance.gauss(0, 0.5)
            broken = chance.random() < 0.05
            rows.append(f"{station},{hour},{-999 if broken else round(celsius, 1)}")
    file = Path(os.environ["DATA_DIR"], "raw", f"{day}.csv")
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    part.write_text("\n".join(["station,hour,celsius", *rows, ""]))
    part.rename(file)
    payload.check("stations/raw", "all_hours", len(rows) == 3 * 24)
    payload.materialize(
        "stations/raw", metadata={"rows": len(rows), "file": payload.metadata(str(file), "path")}
    )
