"""Cron schedules as Dagster reads them (1.13, by its croniter): what is none, and how fine one is."""

import re
from calendar import monthrange
from collections.abc import Sequence
from datetime import datetime

_NICKNAMES = {"@hourly": "0 * * * *", "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@weekly": "0 0 * * 0"}
_NICKNAMES |= {"@monthly": "0 0 1 * *", "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *"}
_MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec"
_FIELDS = (
    ("minute", 0, 59, "", ""),
    ("hour", 0, 23, "", ""),
    ("day of a month", 1, 31, "", "l"),
    ("month", 1, 12, _MONTHS, ""),
    ("day of the week", 0, 7, "sun mon tue wed thu fri sat", r"l[0-7]|\w+#[1-5]"),
)
"""What is counted, its bounds and names, and a pattern of what only a calendar knows, as the last day of a month."""
_ITEM = re.compile(r"(?:\*|(\w+)(?:-(\w+))?)(?:/(\d+))?", re.ASCII)


def cron_fields(text: str) -> tuple[frozenset[int], ...]:
    """Return the minutes, hours, days, months and days of the week that a schedule names.

    A ValueError says what is wrong. What only a calendar knows (``L``, ``5#2``) is not among the days.
    """
    written = _NICKNAMES.get(text, text).lower().split()
    fields = tuple(_numbers(part, about) for part, about in zip(written, _FIELDS, strict=True))
    days, months = fields[2:4]
    if days and min(days) > max(monthrange(2024, month)[1] for month in months):
        raise ValueError(f"no month of {text!r} has a day {min(days)}")
    return fields


def share_a_key(fields: Sequence[frozenset[int]], fmt: str) -> bool:
    """Whether two ticks of a schedule, of which these are the fields, look alike in a format of ``strftime``."""
    minutes, hours, days, months, weekdays = map(sorted, fields)
    if len(weekdays) < 7:
        days = [1, 8] if weekdays else []
    two = [[2024, 1, 1, 0, 0], [2024, 1, 1, 0, 0]]
    units = ((4, minutes), (3, hours), (2, days), (1, months))
    unit, values = next((each for each in units if len(each[1]) > 1), (0, [2024, 2025]))
    two[0][unit], two[1][unit] = values[:2]
    keys = {datetime(y, m, d, hour, minute).strftime(fmt) for y, m, d, hour, minute in two}
    return len(keys) == 1


def _numbers(text: str, about: tuple[str, int, int, str, str]) -> frozenset[int]:
    what, low, high, names, special = about
    known = {name: number for number, name in enumerate(names.split(), low)}
    size = len(known) or high - low + 1  # a week's day 7 is its day 0
    found: set[int] = set()
    for item in text.split(","):
        if re.fullmatch(special, item) and item:
            continue
        match = _ITEM.fullmatch("*" if text == "?" and special else item)
        try:
            begin, end, step = match.groups() if match else ("", "", "0")
            first = int(known.get(begin, begin)) if begin else low
            last = int(known.get(end, end)) if end else first if begin and not step else high
            if not (low <= first <= high and low <= last <= high):
                raise ValueError
            beyond = last + 1 if first <= last else last + size + 1
            found.update(low + (number - low) % size for number in range(first, beyond, int(step or 1)))
        except ValueError:
            raise ValueError(f"{item!r} is not a {what}, {low} to {high}") from None
    return frozenset(found)
