"""Where packages of other releases of Debian come from."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path


def mirror() -> str | None:
    """Return DAGSTER_SLURM_MIRROR, or where this Debian has its own packages from, or debootstrap's default, if any."""
    if named := os.environ.get("DAGSTER_SLURM_MIRROR"):
        return named
    if shutil.which("apt-get"):
        asked = ["apt-get", "indextargets", "--format", "$(ORIGIN) $(SITE)", "Created-By: Packages"]
        lines = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.splitlines()
        found = [line.removeprefix("Debian ") for line in lines if line.startswith("Debian ")]
        if found:
            return found[0]
    program = shutil.which("debootstrap")
    default = re.search(r'^DEF_MIRROR="(.+)"', Path(program).read_text(), re.MULTILINE) if program else None
    return default[1] if default else None
