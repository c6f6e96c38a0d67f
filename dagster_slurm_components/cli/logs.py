"""What a job and its ranks wrote, on the terminal as it comes."""

import re
import sys

from dagster_slurm_components.errors import printable
from dagster_slurm_components.hosts.satellite.calls import FileRead
from dagster_slurm_components.jobs.target import Target

_PIECE = 1024 * 1024
_AT_ONCE = 16 * _PIECE


def print_from(place: Target, path: str, offset: int) -> int:
    """Print a file from an offset to its end; return where that is."""
    while True:
        piece = place.satellite.read([FileRead(path, offset, _PIECE)])[0]
        _print(piece.data)
        offset += len(piece.data)
        if not piece.data or offset >= piece.size:
            return offset


class RankLogs:
    """The files of the ranks that the job's own log does not show: ``out`` or ``err``."""

    def __init__(self, place: Target, run_dir: str, kind: str) -> None:
        self._place = place
        self._folder = f"{run_dir}/ranks"
        self._kind = kind
        self._read: dict[int, tuple[int, bytes]] = {}
        """By rank how much of its file was read, and of that the line that is not whole."""

    def print(self, *, last: bool) -> None:
        """Print what is new, by whole lines, each after its rank's number; with what is left if it is the last time."""
        find = ["find", self._folder, "-maxdepth", "1", "-name", f"*.{self._kind}"]
        names = re.findall(
            rf"/(\d+)\.{self._kind}$", self._place.satellite.run(find).stdout.decode(), re.MULTILINE
        )
        ranks = sorted(map(int, names))
        more = bool(ranks)
        while more:
            known = [self._read.get(rank, (0, b"")) for rank in ranks]
            wanted = [
                FileRead(f"{self._folder}/{rank}.{self._kind}", offset, _PIECE)
                for rank, (offset, _) in zip(ranks, known, strict=True)
            ]
            files = self._place.satellite.read(wanted, total=_AT_ONCE)
            more = any(file.data for file in files)
            for rank, (offset, held), file in zip(ranks, known, files, strict=True):
                *lines, rest = (held + file.data).split(b"\n")
                if last and not more and rest:
                    lines.append(rest)
                _print(b"".join(b"%d: %b\n" % (rank, line) for line in lines))
                self._read[rank] = offset + len(file.data), rest


def _print(data: bytes) -> None:
    stream = sys.stdout.buffer  # a job's output may be no text
    if stream.isatty():
        data = printable(data.decode("utf-8", "surrogateescape"), colours=True).encode(
            "utf-8", "surrogateescape"
        )
    stream.write(data)
    stream.flush()
