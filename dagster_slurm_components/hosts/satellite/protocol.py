"""Frames over a stream of bytes, and what all requests and replies are made of.

One frame: header length and blob length (4 bytes each, big-endian), a JSON header, raw bytes.
Request  {"id": 1, "op": "read", "params": {...}}
Reply    {"id": 1, "ok": true, "result": {...}} or {"id": 1, "ok": false, "code": "...", "error": "..."}
"""

import json
import struct
from typing import Any, Callable, Dict, List, Optional, Tuple

Result = Dict[str, Any]


class Failure(Exception):
    """The request can't be done; ``code`` is a short stable word for programs."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


MAX_HEADER = 32 * 1024 * 1024
MAX_BLOB = 512 * 1024 * 1024
_LENGTHS = struct.Struct(">II")
CHUNK = 1024 * 1024
"""Bytes that are handled at a time."""
_READ = 2 * 1024 * 1024
"""Bytes that are read at a time: a large call's come in one piece, which is not copied."""

READY = b"\0dagster-slurm satellite ready\0\n"
"""Said before the first frame. Login shells may print banners before it."""


BUSY = "busy"
"""The code of a failure that waiting heals: the host has no process, thread, file or memory left for us just now."""


class FrameError(Exception):
    """The stream does not carry frames (any more)."""


def encode_frame(header: Result, blob: bytes = b"") -> bytes:
    """Return one frame; raises FrameError when it is larger than the other side accepts."""
    text = json.dumps(header, separators=(",", ":")).encode("ascii")
    _check_lengths(len(text), len(blob))
    return _LENGTHS.pack(len(text), len(blob)) + text + blob


def read_frame(read: Callable[[int], bytes]) -> Optional[Tuple[Result, bytes]]:
    """Return the next frame's header and blob, or None at the stream's end.

    ``read`` returns at most that many bytes, and none only at the end.
    """
    begin = read(_LENGTHS.size)
    if not begin:
        return None
    lengths = begin + _read_exactly(read, _LENGTHS.size - len(begin))
    header_length, blob_length = _LENGTHS.unpack(lengths)
    _check_lengths(header_length, blob_length)
    text = _read_exactly(read, header_length)
    try:
        header = json.loads(text.decode("ascii"))
    except (ValueError, RecursionError) as error:  # of a header that nests too deep
        raise FrameError(f"a frame's header is not JSON: {error}") from error
    if not isinstance(header, dict):
        raise FrameError("a frame's header is not a JSON object")
    return header, _read_exactly(read, blob_length)


def _check_lengths(header: int, blob: int) -> None:
    if header > MAX_HEADER or blob > MAX_BLOB:
        raise FrameError(
            f"a frame of {header} + {blob} bytes is over the limits of {MAX_HEADER} + {MAX_BLOB}: "
            "either too much was asked for, or the stream is corrupt"
        )


def _read_exactly(read: Callable[[int], bytes], size: int) -> bytes:
    # In pieces, so that a corrupt length costs little more memory than the data that really comes.
    pieces: List[bytes] = []
    missing = size
    while missing:
        piece = read(min(missing, _READ))
        if not piece:
            raise FrameError(f"the stream ended inside a frame ({missing} of {size} bytes missing)")
        pieces.append(piece)
        missing -= len(piece)
    return b"".join(pieces)


def native(text: str) -> bytes:
    """Return a path or an argument as the bytes the system takes."""
    if not isinstance(text, str):
        raise Failure("bad_request", f"expected text, got {text!r}")
    if "\0" in text:
        raise Failure("bad_request", f"a NUL byte in {text!r}")
    return text.encode("utf-8", "surrogateescape")


def as_text(data: bytes) -> str:
    """Return bytes as JSON text, so that ``native`` gives the same bytes back."""
    return data.decode("utf-8", "surrogateescape")
