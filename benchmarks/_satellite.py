"""The tests' satellite in a process of its own."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from subprocess_dialer import SubprocessDialer

__all__ = ["SubprocessDialer"]
