"""What Slurm's words mean, as CSV files beside the parsers: a word a row."""

import csv
from importlib.resources import files


def read_table(name: str) -> list[dict[str, str]]:
    """Return the rows of a table of this package; its lines that begin with ``#`` are comments."""
    text = (files(__package__) / f"{name}.csv").read_text("utf-8")
    return list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))
