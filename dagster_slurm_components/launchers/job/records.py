"""Who failed first: each rank leaves a record, and the first node of the job makes them known.

A rank that fails writes ``ranks/WHO.failed``: KEY=VALUE lines. Only the job's first node writes to ``status``,
for appending from several nodes at once loses lines on NFS. It adds

    failed_rank=WHO NODE CODE

where WHO is the rank's number, or `agent` (torchrun's own process), `head` or `worker` (Ray's).

Runs inside the job on Python 3.6 or newer, with the standard library only.
"""

import os
import re
import signal
import socket
import sys
import time


def run_directory():
    """Return the run directory."""
    return os.environ["DAGSTER_SLURM_RUN_DIR"]


def folder():
    """Return the folder of the ranks' records and logs."""
    return os.path.join(run_directory(), "ranks")


def prepare():
    """Make the folder; what an earlier start of a requeued job left in it is set aside."""
    restart = int(os.environ.get("DAGSTER_SLURM_RESTART_COUNT") or 0)
    if restart and os.path.isdir(folder()):
        os.rename(folder(), "%s.%d" % (folder(), restart - 1))
    os.makedirs(folder(), mode=0o700, exist_ok=True)


def own_node():
    """Return this node's name as Slurm knows it."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def say(text):
    """Tell the user: one write, so that the lines of several ranks don't mix."""
    sys.stderr.write("dagster-slurm: %s\n" % text)
    sys.stderr.flush()


def in_words(code):
    """Describe an exit code.

    >>> in_words(137)
    'was killed by signal 9 (SIGKILL)'
    """
    if code > 128:
        try:
            return "was killed by signal %d (%s)" % (code - 128, signal.Signals(code - 128).name)
        except ValueError:
            pass
    return "ended with exit code %d" % code


def tail(path, lines=20):
    """Return the last lines of a log, without terminal colours."""
    try:
        with open(path, "rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 65536))
            text = file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return ""
    return "\n".join(re.sub("\x1b\\[[0-9;]*m", "", text).splitlines()[-lines:])


def record(who, code, start=0):
    """Leave a record of a failure; ``start`` counts torchrun's restarts."""
    values = {"who": who, "node": own_node(), "code": code, "start": start, "time": repr(time.time())}
    name = who if str(who).isdigit() or who == "head" else "%s-%s" % (who, own_node())
    path = os.path.join(folder(), "%s.failed" % name)
    with open(path + ".new", "w") as file:
        file.write("".join("%s=%s\n" % item for item in values.items()))
    os.rename(path + ".new", path)


def succeed():
    """Leave a record of this node's good end."""
    with open(os.path.join(folder(), "%s.ok" % own_node()), "w"):
        pass


def succeeded():
    """Return how many nodes came to a good end."""
    return sum(name.endswith(".ok") for name in os.listdir(folder()))


def first_failure():
    """Return (who, node, code) of the rank that failed first in the last start; None without any record.

    An agent that ends with exit code 1 only reports the failure of one of its ranks.
    """
    found = []
    for name in os.listdir(folder()):
        if name.endswith(".failed"):
            with open(os.path.join(folder(), name)) as file:
                values = dict(line.rstrip("\n").split("=", 1) for line in file)
            reports = values["who"] == "agent" and values["code"] == "1"
            order = (reports, -int(values["start"]), float(values["time"]))
            found.append((order, values))
    if not found:
        return None
    values = min(found, key=lambda item: item[0])[1]
    return values["who"], values["node"], int(values["code"])


def note(**values):
    """Append KEY=VALUE lines to the job's status in one write; for the job's first node only."""
    text = "".join("%s=%s\n" % (key, str(value).replace("\n", " ")) for key, value in values.items())
    with open(os.path.join(run_directory(), "status"), "a") as file:
        file.write(text)


def conclude(code):
    """Return the job's exit code: that of the rank that failed first, which is also made known."""
    failure = first_failure() if code else None
    if failure is None:
        return code
    who, node, own_code = failure
    note(failed_rank="%s %s %d" % failure)
    what = (
        "rank %s" % who
        if who.isdigit()
        else "Ray's %s" % who
        if who in ("head", "worker")
        else "the %s" % who
    )
    say("the job failed because %s on %s %s" % (what, node, in_words(own_code)))
    return own_code
