"""How many bytes may be sent in a second: one rate, or a timetable, as `bandwidth_limit` has it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, time
from typing import Self

SLOWEST = 1024.0
"""Bytes per second. Less is a slip of the pen, and no request would end before its time-out."""

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_TIMETABLE = '"08:00,2M 18:00,off mon-fri"'
_UNITS = {
    prefix + unit: factor
    for power, prefix in enumerate("kmg", start=1)
    for unit, factor in (("", 1024.0**power), ("ib", 1024.0**power), ("b", 1000.0**power), ("bit", 1000.0**power / 8))
}
# What follows the rate must be apart from it, so that of "2M/h" nothing is taken for a rate.
_RATE = re.compile(
    r"(?:off|(?P<number>[0-9]{1,9}(?:\.[0-9]{1,9})?) ?(?P<unit>[a-z]+)(?: ?/ ?s)?)(?=\s|\Z)", re.IGNORECASE
)
_ENTRY = re.compile(r"(?P<hour>[0-9]{1,2}):(?P<minute>[0-9]{2}) ?, ?(?P<rest>.+)")
_BEFORE_AN_ENTRY = re.compile(r" (?=[0-9]+:)")


@dataclass(frozen=True, slots=True)
class Change:
    """From `at` on, `rate` bytes per second may be sent; None is no limit."""

    at: time
    rate: float | None


@dataclass(frozen=True, slots=True)
class BandwidthLimit:
    """What may be sent at each moment of a week. Two that hold the same are equal, however they were written."""

    week: tuple[tuple[Change, ...], ...]
    """The changes of each day, Monday first, in the order of their times; none on a day without a limit."""
    text: str = field(compare=False)
    """As it was written."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """The limit that `text` describes. ValueError, with a sentence for its writer, if it describes none.

        It is a rate (`10 MiB/s`, `2M`, `100 Mbit/s`, `off`) or a timetable: entries `HH:MM,RATE` with spaces
        between, then the days on which they hold (`mon-fri`, `sat,sun`; every day when left out), and `;` before
        the next entries and days.
        """
        text = " ".join(text.split())
        if ":" in text:
            return cls(_week(text), text)
        rate, rest = _split_rate(text)
        if rest:
            raise ValueError(f'"{rest}" cannot follow a rate; a timetable has times of the day, as {_TIMETABLE} has')
        return cls(((Change(time(), rate),),) * len(_DAYS), text)

    @property
    def is_off(self) -> bool:
        """Whether there is no limit at any moment."""
        return all(change.rate is None for changes in self.week for change in changes)

    def rate_at(self, moment: datetime) -> float | None:
        """How many bytes per second may be sent at `moment`, a local time; None is no limit.

        A day begins with what the day before ended with, if that is in the timetable, and else without a limit.
        """
        today, before = self.week[moment.weekday()], self.week[moment.weekday() - 1]
        if not today:
            return None
        begun = [change for change in today if change.at <= moment.time()] or before
        return begun[-1].rate if begun else None

    def __str__(self) -> str:
        return self.text


def _week(text: str) -> tuple[tuple[Change, ...], ...]:
    week: list[tuple[Change, ...]] = [()] * len(_DAYS)
    for group in text.rstrip("; ").split(";"):
        changes, days = _group(group.strip())
        for day in days:
            if week[day]:
                raise ValueError(f"{_DAYS[day]} has two timetables (one without days holds on every day); keep one")
            week[day] = changes
    return tuple(week)


def _group(text: str) -> tuple[tuple[Change, ...], frozenset[int]]:
    """Entries and the days on which they hold, 0 is Monday."""
    *others, last = _BEFORE_AN_ENTRY.split(text)
    changes: dict[time, Change] = {}
    rest = ""
    for entry in (*others, last):
        if rest:
            raise ValueError(
                f'"{rest}" must stand behind the last time, with ; before the next one, as in {_TIMETABLE}'
            )
        change, rest = _split_entry(entry)
        if change.at in changes:
            raise ValueError(f"{change.at:%H:%M} is there twice; keep one of the two")
        changes[change.at] = change
    days = frozenset(_days(rest)) if rest else frozenset(range(len(_DAYS)))
    return tuple(changes[at] for at in sorted(changes)), days


def _split_entry(text: str) -> tuple[Change, str]:
    """An entry and what follows it."""
    entry = _ENTRY.fullmatch(text)
    if entry is None:
        raise ValueError(f'"{text}" is not a time and a rate with a comma between; a timetable is, e.g., {_TIMETABLE}')
    try:
        at = time(int(entry["hour"]), int(entry["minute"]))
    except ValueError:
        raise ValueError(f"{entry['hour']}:{entry['minute']} is no time of a day; it has 00:00 to 23:59") from None
    rate, rest = _split_rate(entry["rest"])
    return Change(at, rate), rest


def _split_rate(text: str) -> tuple[float | None, str]:
    """The rate that `text` begins with, in bytes per second, and what follows it."""
    found = _RATE.match(text)
    unit = (found["unit"] or "") if found else ""
    if found is None or (unit and unit.lower() not in _UNITS):
        raise ValueError(
            f'"{text}" is no rate; it is "off" or a number with k, M, G, MiB/s, MB/s or Mbit/s, such as "10 MiB/s"'
        )
    rest = text[found.end() :].strip()
    if not unit:
        return None, rest
    if len(unit) == 2 and unit[1] == "b":
        raise ValueError(
            f'{unit} may stand for bits or for bytes; write {unit[0]}bit/s or {unit[0]}B/s, as in "10 MB/s"'
        )
    rate = float(found["number"]) * _UNITS[unit.lower()]
    if rate < SLOWEST:
        raise ValueError(f'"{found[0]}" is less than 1 KiB/s, too slow to ever get anywhere; no limit is "off"')
    return rate, rest


def _days(text: str) -> Iterator[int]:
    """The days that a list of days and ranges names; a range may go beyond Sunday."""
    for part in text.split(","):
        first, dash, last = (word.strip().lower() for word in part.partition("-"))
        if first not in _DAYS or (dash and last not in _DAYS):
            raise ValueError(f'"{part.strip()}" is no day; they are {", ".join(_DAYS)}, as in "mon-fri" and "sat,sun"')
        begin, end = _DAYS.index(first), _DAYS.index(last if dash else first)
        yield from (day % len(_DAYS) for day in range(begin, begin + (end - begin) % len(_DAYS) + 1))
