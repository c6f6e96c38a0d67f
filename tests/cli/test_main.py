"""What the rest of the package says of `dg-slurm` is true."""

from __future__ import annotations

import re
from pathlib import Path

import dagster_slurm_components
from dagster_slurm_components.cli.main import COMMANDS

PACKAGE = Path(dagster_slurm_components.__file__).parent


def test_each_command_that_a_message_advises_exists():
    advised = {
        command: file.name
        for file in PACKAGE.rglob("*.py")
        for command in re.findall(r"`dg-slurm ([a-z-]+)", file.read_text("utf-8"))
    }
    assert {command: file for command, file in advised.items() if command not in COMMANDS} == {}
    assert len(advised) > 5
