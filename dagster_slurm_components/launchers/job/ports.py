"""A block of TCP ports that is this job's alone on this node."""

import errno
import socket
from typing import Tuple

SIZE = 16
# Below the ports that Linux gives to outgoing connections (from 32768), above what daemons like to use.
LOWEST, HIGHEST = 20000, 32000


class NoFreePortsError(OSError):
    """All blocks of ports are in use."""


def is_free(port: int) -> bool:
    """Whether nothing listens on a port, on any address."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind(("", port))
        except OSError as exc:
            if exc.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
    return True


def claim(seed: int) -> Tuple[socket.socket, int]:
    """Claim a block of ``SIZE`` ports, and return the socket to keep and the first port after it.

    The block's first port is its lock: we listen on it for as long as the block is ours. So the claim holds
    between all users of the node, needs neither a lock file nor the `flock` program, and ends with the process.
    Jobs with different seeds look at different blocks first.
    """
    blocks = (HIGHEST - LOWEST) // SIZE
    for step in range(blocks):
        first = LOWEST + (seed + step) % blocks * SIZE
        lock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            lock.bind(("127.0.0.1", first))
            lock.listen(1)
        except OSError as exc:
            lock.close()
            if exc.errno in (errno.EADDRINUSE, errno.EACCES):
                continue
            raise
        if all(is_free(port) for port in range(first + 1, first + SIZE)):
            return lock, first + 1
        lock.close()
    raise NoFreePortsError(f"no block of {SIZE} free TCP ports between {LOWEST} and {HIGHEST}")
