"""A run directory with what its payload has made, and the collector that looks at it as a program."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from waiting import PATIENCE

from dagster_slurm_components.jobs.outputs import Made, collector, parse_made
from dagster_slurm_components.spec.outputs import Output, wanted


@dataclass(frozen=True)
class RunDirectory:
    """A run directory after its payload has ended."""

    path: Path
    extra: dict[str, str] = field(default_factory=dict)
    """Variables of the collector."""

    @property
    def payload(self) -> Path:
        """The payload's working folder."""
        return self.path / "payload"

    def file(self, name: str | bytes, data: str | bytes = "x") -> Path:
        """Write a file of the payload."""
        path = self.payload / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return path

    def collect(
        self,
        outputs: Mapping[str, Any],
        env: Mapping[str, str] | None = None,
        *,
        code: int = 0,
        umask: str = "0022",
        before: tuple[str, ...] = (),
    ) -> dict[str, Made]:
        """Run the collector; return what it has written down, by name."""
        given = {name: {"path": each} if isinstance(each, str) else each for name, each in outputs.items()}
        models = {
            name: Output.model_construct(**{"optional": False, "to": None, "asset": None, **each})
            for name, each in given.items()
        }
        self.declare(models)
        values = "".join(f"{name}={value}\0" for name, value in (env or {}).items())
        (self.path / "outputs.env").write_text(f"{umask}\0{values}")
        done = subprocess.run(
            [*before, "bash", "collector/collect.sh"],
            cwd=self.path,
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", **self.extra},
            capture_output=True,
            text=True,
            umask=0o077,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == code, done.stderr
        return {each.name: each for each in self.made()}

    def declare(self, models: Mapping[str, Output]) -> None:
        """Write the files that make a job look for outputs."""
        for name, text in collector([*wanted(models, lambda name: None)]).items():
            (self.path / name).parent.mkdir(exist_ok=True)
            (self.path / name).write_text(str(text))

    def made(self) -> tuple[Made, ...]:
        """Return what is written down."""
        return parse_made((self.path / "made.json").read_bytes(), str(self.path))

    @property
    def answer(self) -> Any:
        """What is written down, as JSON has it."""
        return json.loads((self.path / "made.json").read_bytes())


def run_directory(folder: Path) -> RunDirectory:
    """Return an empty run directory."""
    (folder / "payload").mkdir(parents=True)
    (folder / "job.env").write_text("")
    return RunDirectory(folder)
