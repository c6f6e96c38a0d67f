"""What the builder can be asked to do."""

import errno
import json
import os
import sys
from typing import Callable, Dict

from dagster_slurm_components.environments.host.build import build
from dagster_slurm_components.environments.host.care import prune, show, verify
from dagster_slurm_components.environments.host.probe import probe
from dagster_slurm_components.environments.host.store import fetch
from dagster_slurm_components.environments.host.tools import Json
from dagster_slurm_components.hosts.satellite.protocol import Failure

ACTIONS: Dict[str, Callable[[Json], Json]] = {
    "probe": probe,
    "fetch": fetch,
    "build": build,
    "list": show,
    "verify": verify,
    "prune": prune,
}


def answer(action: str, order: Json) -> Json:
    """Do one action; whatever goes wrong is an answer as well."""
    try:
        return {"ok": True, "result": ACTIONS[action](order)}
    except Failure as error:  # a Problem, or of a lock
        detail = getattr(error, "detail", [])
        return {"ok": False, "code": error.code, "message": error.message, "detail": detail}
    except OSError as error:
        code = "disk_full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "failed"
        message = "%s: %s" % (error.filename, error.strerror)
        return {"ok": False, "code": code, "message": message, "detail": []}


def main() -> None:
    """Read one JSON object, ``action`` and ``order``, from standard input, and print one."""
    os.umask(0o077)
    request = json.loads(sys.stdin.buffer.read().decode("utf-8"))
    print(json.dumps(answer(request["action"], request["order"])))  # noqa: T201
