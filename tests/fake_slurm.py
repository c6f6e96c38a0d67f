"""A fake Slurm: executables that answer as scripted, late or never, and write down how they were called."""

from __future__ import annotations

from pathlib import Path

PROGRAMS = ("sbatch", "squeue", "sacct", "scontrol", "scancel", "sshare")

_PROGRAM = """#!/bin/sh
here='{folder}'; name=${{0##*/}}
echo "$*" >>"$here/calls/$name"
env >"$here/env/$name"
count=$(wc -l <"$here/calls/$name"); count=$((count))
reply="$here/replies/$name/$count"
[ -d "$reply" ] || reply="$here/replies/$name/always"
[ -d "$reply" ] || {{ echo "no reply is scripted for $name" >&2; exit 99; }}
[ ! -e "$reply/delay" ] || sleep "$(cat "$reply/delay")"
cat "$reply/out"
cat "$reply/err" >&2
exit "$(cat "$reply/code")"
"""


class FakeSlurm:
    """Its programs lie in ``bin``; put that first on PATH."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("bin", "calls", "env", "replies"):
            (folder / name).mkdir(parents=True)
        for program in PROGRAMS:
            path = folder / "bin" / program
            path.write_text(_PROGRAM.format(folder=folder))
            path.chmod(0o755)

    def answer(
        self,
        program: str,
        out: str = "",
        *,
        err: str = "",
        code: int = 0,
        delay: float = 0.0,
        call: int | None = None,
    ) -> None:
        """Script an answer: to the ``call``-th call (from 1), or to all that have none of their own."""
        reply = self.folder / "replies" / program / (str(call) if call else "always")
        reply.mkdir(parents=True, exist_ok=True)
        (reply / "out").write_text(out)
        (reply / "err").write_text(err)
        (reply / "code").write_text(str(code))
        if delay:
            (reply / "delay").write_text(str(delay))

    def calls(self, program: str) -> list[str]:
        """Return the arguments of each call."""
        path = self.folder / "calls" / program
        return path.read_text().splitlines() if path.exists() else []

    def environment(self, program: str) -> str:
        """Return the environment of the last call."""
        return (self.folder / "env" / program).read_text()
