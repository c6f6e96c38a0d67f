"""Cron schedules as Dagster reads them (1.13, by its croniter): what is none, and when they tick."""

import re
from calendar import monthrange
from collections.abc import Iterator
from datetime import datetime, time, timedelta

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


def ticks(text: str, start: datetime) -> Iterator[datetime]:
    """Yield when a schedule ticks from a time on, for 16 years; without what only a calendar knows."""
    minutes, hours, days, months, weekdays = cron_fields(text)
    either = len(days) < 31 and len(weekdays) < 7  # cron's rule: where both are limited, one is enough
    for number in range(16 * 366):
        day = start.date() + timedelta(number)
        fits = day.day in days, day.isoweekday() % 7 in weekdays
        if day.month in months and (any(fits) if either else all(fits)):
            times = (
                datetime.combine(day, time(hour, minute))
                for hour in sorted(hours)
                for minute in sorted(minutes)
            )
            yield from (tick for tick in times if tick >= start)


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
