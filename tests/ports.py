"""Ports of this machine for servers that a test starts."""

from __future__ import annotations

import contextlib
import random
import socket

from slurm_testcluster.layout import Ports

LOWEST = 12000


def free_port() -> int:
    """Return a port on which nobody listens.

    As those of the clusters it is below the kernel's range for outgoing connections, one of which would now and then
    have it before the server does, or while that is stopped. Other workers choose at random, too.
    """
    while True:
        port = random.SystemRandom().randrange(LOWEST, Ports.LOWEST)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
