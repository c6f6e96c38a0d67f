"""Slurm's ways to write times, sizes and exit codes. None of these functions raises on any text."""

import re

_DURATION = re.compile(
    r"(?:(?P<days>[0-9]{1,7})-)?"
    r"(?:(?:(?P<hours>[0-9]{1,9}):)?(?P<minutes>[0-9]{1,9}):)?"
    r"(?P<seconds>[0-9]{1,12}(?:\.[0-9]{1,9})?)"
)
TIME_LIMIT = re.compile(
    r"(?:(?P<days>\d{1,4})-(?P<d_hours>\d{1,3})(?::(?P<d_minutes>\d{1,3}))?(?::(?P<d_seconds>\d{1,3}))?"
    r"|(?P<hours>\d{1,6}):(?P<minutes>\d{1,3}):(?P<seconds>\d{1,3})"
    r"|(?P<only_minutes>\d{1,8})(?::(?P<m_seconds>\d{1,3}))?)",
    re.ASCII,
)
"""What sbatch takes for ``--time``, without ``UNLIMITED``."""
_SIZE = re.compile(r"(?P<number>[0-9]{1,20}(?:\.[0-9]{1,9})?)(?P<unit>[KMGTPE]?)(?:i?B)?", re.IGNORECASE)
_EPOCH = re.compile(r"[0-9]{1,12}")
_EXIT = re.compile(r"(?P<code>[0-9]{1,5}):(?P<signal>[0-9]{1,5})")

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40, "P": 2**50, "E": 2**60}


def parse_duration(text: str) -> float | None:
    """Read a duration as sacct prints it, in seconds: ``[[days-]hours:]minutes:seconds[.fraction]``.

    Example:
        >>> parse_duration("1-02:03:04.567")
        93784.567
        >>> parse_duration("02:03.5")
        123.5
        >>> parse_duration("Partition_Limit") is None
        True
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        return None
    days, hours, minutes = (int(match[part] or 0) for part in ("days", "hours", "minutes"))
    return ((days * 24 + hours) * 60 + minutes) * 60 + float(match["seconds"])


def parse_time_limit(text: str) -> int | None:
    """Read a value of ``--time``, in seconds; ``None`` for ``UNLIMITED`` and everything unreadable.

    ``--time`` counts otherwise than sacct prints: a lone number is minutes, and after ``days-`` hours come
    first.

    Example:
        >>> [parse_time_limit(text) for text in ("30", "1:30", "1-12", "00:30:00")]
        [1800, 90, 129600, 1800]
    """
    match = TIME_LIMIT.fullmatch(text)
    if match is None:
        return None
    part = {name: int(digits or 0) for name, digits in match.groupdict().items()}
    hours = part["days"] * 24 + part["d_hours"] + part["hours"]
    minutes = part["d_minutes"] + part["minutes"] + part["only_minutes"]
    return hours * 3600 + minutes * 60 + part["d_seconds"] + part["seconds"] + part["m_seconds"]


def parse_size(text: str, *, default_unit: str = "") -> int | None:
    """Read a size in bytes; the unit letters are powers of 1024, as everywhere in Slurm.

    Args:
        text: Such as ``1536K``, ``3.50G`` or ``0``.
        default_unit: The unit of a number without a letter: ``M`` for the values of ``--mem``.

    Example:
        >>> parse_size("1.5K"), parse_size("4", default_unit="M"), parse_size("") is None
        (1536, 4194304, True)
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        return None
    unit = match["unit"].upper() or default_unit
    return round(float(match["number"]) * _UNITS[unit])


def parse_epoch(text: str) -> int | None:
    """Read a time printed under ``SLURM_TIME_FORMAT=%s``; ``None`` for ``Unknown``, ``N/A`` and 0."""
    word = text.strip()
    return (int(word) or None) if _EPOCH.fullmatch(word) else None


def parse_count(text: str) -> int | None:
    """Read a count, of which squeue may print a range for a waiting job (``2-4``): the lower end is taken."""
    match = re.match(r"[0-9]{1,12}", text.strip())
    return int(match[0]) if match else None


def parse_exit_code(text: str) -> tuple[int | None, int | None]:
    """Read ``code:signal``; a signal of 0 is none.

    Example:
        >>> parse_exit_code("3:0"), parse_exit_code("0:9"), parse_exit_code("")
        ((3, None), (0, 9), (None, None))
    """
    match = _EXIT.fullmatch(text.strip())
    if match is None:
        return None, None
    return int(match["code"]), int(match["signal"]) or None


def scale_of(size: float) -> tuple[float, str]:
    """Return by what bytes are divided for a person to read, and the unit that they have then."""
    units = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
    power = min(len(units) - 1, max(0, int(size).bit_length() - 1) // 10)
    return 1024.0**power, units[power]


def format_size(size: int) -> str:
    """Write a size for a person: ``1.5 GiB``."""
    scale, unit = scale_of(size)
    return f"{size:.0f} B" if unit == "B" else f"{size / scale:.1f} {unit}"


def format_duration(seconds: float) -> str:
    """Write a duration for a person, as Slurm would: ``1-02:03:04``."""
    whole = max(0, round(seconds))
    days, rest = divmod(whole, 86400)
    clock = f"{rest // 3600:02}:{rest % 3600 // 60:02}:{rest % 60:02}"
    return f"{days}-{clock}" if days else clock


def rough_duration(seconds: float) -> str:
    """Write a duration for a person who wants no details.

    Example:
        >>> [rough_duration(seconds) for seconds in (50, 240, 10800, 86400, 400000)]
        ['50 s', '4 min', '3 h', '24 h', '4.6 d']
    """
    for unit, size, most in (("s", 1, 60), ("min", 60, 120 * 60), ("h", 3600, 48 * 3600)):
        if seconds < most:
            return (
                f"{seconds / size:.2g} {unit}"
                if size == 3600 and seconds < 36000
                else f"{seconds / size:.0f} {unit}"
            )
    return f"{seconds / 86400:.1f} d"
