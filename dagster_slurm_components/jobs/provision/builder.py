"""Runs the builder on a host: a few modules, sent along with each order, that make, list and remove there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files as resource_files
from typing import Any

from dagster_slurm_components.environments.base import Activation
from dagster_slurm_components.environments.plan import verify_program
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.program import BOOTSTRAP, program
from dagster_slurm_components.jobs.provision.errors import EnvironmentFailedError

_SHORT = 120.0
LONGEST_BUILD = 4 * 3600.0
"""Seconds that a build, and the wait for somebody else's build, may take."""

PROGRAM = "dagster_slurm_components.environments.host.program"
"""What takes the order."""

_HINTS = {
    "tampered": "Run it again: the file is sent anew. If it happens again, who else writes there?",
    "missing": "Run it again: what is missing is sent anew.",
    "no_squashfs": "Load a module that brings squashfs-tools (`modules`), or set the environment's `form` to `folder`.",
    "locked": "Another process builds this environment; look for what works below `envs/` in the host's process list.",
    "activation_failed": "Load the same `modules` and run the same `setup` on the host by hand.",
    "differs": "Nothing was published. Report this together with the lock file.",
}


@cache
def _text(*names: str) -> str:
    root = resource_files(__package__.rpartition(".")[0].rpartition(".")[0])
    return root.joinpath("environments", *names).read_text("utf-8")


def check_order(mode: str) -> dict[str, Any]:
    """Return what the builder needs to let an environment check itself."""
    return {"program": verify_program(), "mode": mode}


def activation_order(activation: Activation) -> dict[str, Any] | None:
    """Return the modules and setup files that the builder works under, or None."""
    if not activation.steps:
        return None
    return {
        "script": _text("shell", "activate.sh"),
        "args": activation.arguments().decode("utf-8", "surrogateescape"),
        "files": dict(activation.files),
    }


@dataclass(frozen=True)
class Builder:
    """The builder of one host and working folder."""

    satellite: Satellite
    workdir: str

    def call(self, action: str, order: Mapping[str, Any], *, timeout: float = _SHORT) -> Any:
        """Do one action there and return its result.

        A build goes on when the connection is lost; the next one with the same key waits for it and adopts it.

        Raises:
            EnvironmentFailedError: What the builder says.
            HostError: The host is lost or refuses.
        """
        builder = program(PROGRAM)
        told = {"action": action, "order": {"workdir": self.workdir, **order}}
        python = self.satellite.hello().executable
        argv = [python, "-I", "-c", BOOTSTRAP, str(len(builder))]
        done = self.satellite.run(argv, input=builder + json.dumps(told).encode(), timeout=timeout)
        where = self.satellite.host.name
        try:
            answer = json.loads(done.stdout.decode("utf-8").strip().splitlines()[-1])
        except (ValueError, IndexError):
            said = done.stderr.decode("utf-8", "replace").strip()[-2000:]
            cause = f"it did not end within {timeout:.0f} s" if done.timed_out else said or "it said nothing"
            raise EnvironmentFailedError(f"the builder's `{action}` failed: {cause}", where=where) from None
        if not answer["ok"]:
            code = answer["code"]
            raise EnvironmentFailedError(
                answer["message"], code=code, detail=answer["detail"], where=where, hint=_HINTS.get(code)
            )
        return answer["result"]
