"""How a program on a host is asked and answers: one JSON object in, one out, whatever goes wrong."""

import errno
import json
import os
import sys
from typing import Callable, Mapping

from dagster_slurm_components.environments.host.tools import Json
from dagster_slurm_components.hosts.satellite.protocol import Failure, as_text

Actions = Mapping[str, Callable[[Json], Json]]


def answer_of(actions: Actions, action: str, order: Json) -> Json:
    """Do one action; whatever goes wrong is an answer as well."""
    try:
        return {"ok": True, "result": actions[action](order)}
    except Failure as error:  # a Problem, or of a lock
        detail = getattr(error, "detail", [])
        return {"ok": False, "code": error.code, "message": error.message, "detail": detail}
    except OSError as error:
        code = "disk_full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "failed"
        name = as_text(error.filename) if isinstance(error.filename, bytes) else error.filename
        message = "%s: %s" % (name, error.strerror)
        return {"ok": False, "code": code, "message": message, "detail": []}


def serve(actions: Actions) -> None:
    """Read one JSON object, ``action`` and ``order``, from standard input, and print one."""
    os.umask(0o077)
    request = json.loads(sys.stdin.buffer.read().decode("utf-8"))
    print(json.dumps(answer_of(actions, request["action"], request["order"])))  # noqa: T201
