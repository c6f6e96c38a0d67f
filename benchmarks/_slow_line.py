"""A line with a delay, between this machine and itself: ``python _slow_line.py TARGET_PORT SECONDS`` prints its port.

A process of its own, so that what it carries is not the measured process's work. All bytes come later by the delay, and
none of them waits for another: bandwidth stays what it is, the round trip grows by twice the delay.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import sys
import threading
import time

_PIECE = 256 * 1024
_Late = queue.SimpleQueue[tuple[float, bytes]]


def _take(source: socket.socket, late: _Late, delay: float) -> None:
    data = b"more"
    while data:
        try:
            data = source.recv(_PIECE)
        except OSError:
            data = b""
        late.put((time.monotonic() + delay, data))


def _give(sink: socket.socket, late: _Late) -> None:
    with contextlib.suppress(OSError):
        while True:
            due, data = late.get()
            time.sleep(max(0.0, due - time.monotonic()))
            if not data:
                sink.shutdown(socket.SHUT_WR)
                return
            sink.sendall(data)


def main(target: int, delay: float) -> None:
    server = socket.create_server(("127.0.0.1", 0))
    print(server.getsockname()[1], flush=True)
    while True:
        near, _ = server.accept()
        far = socket.create_connection(("127.0.0.1", target))
        for source, sink in ((near, far), (far, near)):
            source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            late: _Late = queue.SimpleQueue()
            threading.Thread(target=_take, args=(source, late, delay), daemon=True).start()
            threading.Thread(target=_give, args=(sink, late), daemon=True).start()


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
