"""How far a payload says that it is, and when it would be done: by ``payload.progress``, or by bars of tqdm."""

import re
from dataclasses import dataclass
from itertools import pairwise

from dagster_slurm_components.jobs.events import MESSAGES, STDERR, Output

_PATTERNS = {
    MESSAGES: re.compile(rb'"message": ?"(\d{1,3}) % \('),
    STDERR: re.compile(rb"(?:^|[\r\n ])(\d{1,3})%\|[^|\r\n]*\| [^\s/]+/\S+ \["),
}
"""Of tqdm a new state of a bar begins with a carriage return; so many are read at once, and the last one counts."""
_LEAST = 2
"""Percent that must have been done under our eyes before it is said how long the rest takes."""
_SURE = 1.1
"""How much more time than there is the rest must take to be warned of."""


@dataclass(slots=True)
class Progress:
    """What is known of how far one start of a job is; times are those of one clock, in seconds.

    Bars of tqdm that begin anew are of parts of the work, as of an epoch: they tell nothing of the whole.
    """

    _source: str = ""
    _first: tuple[float, int] | None = None
    _last: tuple[float, int] = (0.0, 0)
    _parts: bool = False
    _warned: bool = False

    def feed(self, event: Output, now: float) -> None:
        """Take what was read of a stream, or of the messages, now."""
        pattern = _PATTERNS.get(event.name)
        if event.rewound and event.name == MESSAGES:  # the job began anew, and its messages with it
            self._source, self._first, self._parts, self._warned = "", None, False, False
        if pattern is None or b"%" not in event.data or (event.name == STDERR and self._source == MESSAGES):
            return
        found = [int(each) for each in pattern.findall(event.data)]
        if not found:
            return
        if event.name != self._source:
            self._source, self._first, self._parts = event.name, None, False
        series = [self._last[1] if self._first else 0, *found]
        fell = any(after < before for before, after in pairwise(series))
        self._parts |= fell and event.name == STDERR
        self._first = (now, found[-1]) if self._first is None or fell else self._first
        self._last = (now, min(100, found[-1]))

    @property
    def _rest(self) -> float | None:
        """Seconds that the rest takes at the speed so far."""
        if self._first is None or self._parts or self._last[1] - self._first[1] < _LEAST:
            return None
        seconds, done = self._last[0] - self._first[0], self._last[1] - self._first[1]
        return seconds / done * (100 - self._last[1])

    def in_words(self, now: float, left: float | None) -> str:
        """Return how far it is, how long the rest takes, and that the time limit ends it in ``left`` seconds."""
        if self._first is None or self._parts:
            return ""
        words = f"{self._last[1]} % done"
        rest = None if self._rest is None else max(0.0, self._rest - (now - self._last[0]))
        words += "" if rest is None else f", about {span(rest)} more"
        return words if left is None else f"{words}; the time limit ends it in {span(left)}"

    def warning(self, now: float, left: float | None) -> str:
        """Return, once, that it won't be done in the time that is left."""
        rest = self._rest
        if self._warned or rest is None or left is None or rest - (now - self._last[0]) <= _SURE * left:
            return ""
        self._warned = True
        return self.in_words(now, left)


def span(seconds: float) -> str:
    """Return a time as people say it.

    >>> span(7810), span(2700), span(40)
    ('2 h 10 min', '45 min', '40 s')
    """
    minutes = round(max(0.0, seconds) / 60)
    if seconds < 90:
        return f"{max(0, round(seconds))} s"
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
