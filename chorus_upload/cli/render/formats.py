"""Numbers, sizes and times as people read them."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def count(number: int) -> str:
    """Return e.g. `1,234,567`."""
    return f"{number:,}"


def files(number: int) -> str:
    """Return e.g. `1 file`, `1,234 files`."""
    return counted(number, "file")


def counted(number: int, noun: str) -> str:
    """Return a number with its regular noun, e.g. `1 problem`, `20 problems`."""
    return f"{count(number)} {noun}" if number == 1 else f"{count(number)} {noun}s"


def size(number: float) -> str:
    """Return bytes in binary units with three significant digits, e.g. `0 B`, `1.50 KiB`, `930 GiB`."""
    value = float(number)
    unit = _UNITS[0]
    for unit in _UNITS:
        # 1023.5 would be shown as 1024: it belongs to the next unit.
        if value < 1023.5 or unit == _UNITS[-1]:
            break
        value /= 1024
    if unit == "B" or value >= 99.95:
        return f"{value:.0f} {unit}"
    return f"{value:.1f} {unit}" if value >= 9.995 else f"{value:.2f} {unit}"


def rate(bytes_per_second: float) -> str:
    """Return e.g. `12.3 MiB/s`."""
    return f"{size(bytes_per_second)}/s"


def percent(part: int, whole: int) -> str:
    """Return e.g. `35%`; never `100%` before the whole is reached."""
    if whole <= 0:
        return "100%"
    return f"{min(100, part * 100 // whole)}%"


def duration(seconds: float) -> str:
    """Return a time span in its two largest units, e.g. `0.4 s`, `3 min 20 s`, `2 d 5 h`."""
    if seconds < 9.95:
        return f"{max(seconds, 0.0):.1f} s"
    if not math.isfinite(seconds):
        return "?"
    whole = round(seconds)
    days, rest = divmod(whole, 86_400)
    hours, rest = divmod(rest, 3_600)
    minutes, secs = divmod(rest, 60)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    if minutes:
        return f"{minutes} min {secs} s"
    return f"{secs} s"


def local_time(at_us: int) -> str:
    """Return microseconds since the epoch as local time with its offset, e.g. `2026-03-01 14:00:05 +01:00`."""
    moment = _local(at_us)
    if moment is None:
        return f"{at_us} us"
    offset = moment.strftime("%z")
    return f"{moment:%Y-%m-%d %H:%M:%S} {offset[:3]}:{offset[3:5]}"


def iso_time(at_us: int) -> str | None:
    """Return ISO 8601 with microseconds and the local offset; None for what no calendar of ours can hold."""
    moment = _local(at_us)
    return None if moment is None else moment.isoformat(timespec="microseconds")


def _local(at_us: int) -> datetime | None:
    """A file can carry any time, the year 30000 included."""
    try:
        moment = _EPOCH + timedelta(microseconds=at_us)
    except OverflowError:
        return None
    try:
        return moment.astimezone()
    except (OverflowError, OSError, ValueError):
        # Windows knows no local time before 1970.
        return moment
