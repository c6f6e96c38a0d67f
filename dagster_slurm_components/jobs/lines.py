"""Whole lines out of bytes that are cut anywhere, with bounded memory."""

from collections.abc import Iterator
from dataclasses import dataclass

LONGEST = 64 * 1024 * 1024
_BEGIN = 1024


@dataclass(frozen=True)
class TooLong:
    """A line that was not kept: its first bytes, and how many it has without its end."""

    begin: bytes
    size: int


class Lines:
    """Takes bytes and gives lines, of which the ``longest`` are kept.

    A line that comes in a thousand pieces is not copied a thousand times.
    """

    def __init__(self, longest: int = LONGEST) -> None:
        self._longest = longest
        self._open = bytearray()
        self._size = 0
        self.position = 0
        """Bytes of all whole lines that were given."""

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes | TooLong]]:
        """Take bytes; yield each line that they end, without its end, and where it began."""
        *ended, rest = data.split(b"\n")
        for piece in ended:
            self._add(piece)
            begin, size = self.position, self._size
            line = self.rest()
            self.position = begin + size + 1
            yield begin, line if size <= self._longest else TooLong(line, size)
        self._add(rest)

    def rest(self) -> bytes:
        """Return the line that has no end yet, or its beginning if it is too long; it is gone then."""
        line = bytes(self._open)
        self._open, self._size = bytearray(), 0
        return line

    def _add(self, piece: bytes) -> None:
        self._size += len(piece)
        self._open += piece if self._size <= self._longest else piece[:_BEGIN]
        if self._size > self._longest:
            del self._open[_BEGIN:]
