"""``python -m dagster_slurm_components.hosts.agent``: serve until idle."""

from __future__ import annotations

import os
import signal
import threading

from dagster_slurm_components.hosts.agent import place
from dagster_slurm_components.hosts.agent.server import IDLE, Agent

_IDLE = "DAGSTER_SLURM_AGENT_IDLE"
"""Seconds without clients after which the agent ends."""


def main() -> None:
    """Run the agent. A terminal that closes, or a Ctrl-C meant for another program, does not end it."""
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
    Agent(place.folder(), idle=float(os.environ.get(_IDLE, IDLE))).serve()
    os._exit(0)  # not waiting for calls that hang


if __name__ == "__main__":
    main()
