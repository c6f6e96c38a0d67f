"""What a job is told of its inputs, in files of its run directory."""

from collections.abc import Iterator, Mapping
from typing import Any

INPUTS, TREES, PATHS = "inputs.json", "inputs.trees", "inputs.paths"
"""The files that tell of a job's inputs, of the folders among them that the host keeps for several jobs, and where all
are, each ended by NUL: a container has to see them."""


def parse_inputs(written: Mapping[str, Any]) -> Iterator[str]:
    """Yield the paths that ``inputs.json`` tells of: of each input one, or those of partitions by key.

    Example:
        >>> list(parse_inputs({"table": {"path": "/t"}, "days": {"a": {"path": "/a"}}}))
        ['/t', '/a']
    """
    for each in written.values():
        if isinstance(each.get("path"), str):
            yield each["path"]
        else:
            yield from parse_inputs(each)
