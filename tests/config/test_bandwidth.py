"""A site says how much of its line uploads may take, and when."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chorus_upload.config.bandwidth import BandwidthLimit
from chorus_upload.errors import ConfigError
from tests.config.conftest import MINIMAL, Load
from tests.randomness import examples

MONDAY = datetime(2026, 6, 15)  # noqa: DTZ001 - local time, wherever that is
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def _at(day: str, clock: str) -> datetime:
    hour, _, minute = clock.partition(":")
    return MONDAY + timedelta(days=DAYS.index(day), hours=int(hour), minutes=int(minute))


# --- One rate


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("10 MiB/s", 10 * 1024**2),
        ("10MiB", 10 * 1024**2),
        ("2M", 2 * 1024**2),
        ("2m/s", 2 * 1024**2),
        ("512k", 512 * 1024),
        ("512 KIB / s", 512 * 1024),
        ("1.5G", 1.5 * 1024**3),
        ("1gib/s", 1024**3),
        ("10MB/s", 10_000_000),
        ("500 kB/s", 500_000),
        ("1GB", 1_000_000_000),
        ("100 Mbit/s", 12_500_000),
        ("100mbit", 12_500_000),
        ("800 kbit/s", 100_000),
        ("1 Gbit/s", 125_000_000),
        ("1k", 1024),
        ("off", None),
        ("OFF", None),
    ],
)
def test_a_rate(text: str, rate: float | None) -> None:
    limit = BandwidthLimit.parse(f"  {text} ")
    assert [limit.rate_at(_at(day, clock)) for day in DAYS for clock in ("00:00", "23:59")] == [rate] * 14
    assert limit.is_off == (rate is None)
    assert str(limit) == text


def test_the_same_limit_in_other_words() -> None:
    assert BandwidthLimit.parse("2M") == BandwidthLimit.parse("2048 KiB/s") == BandwidthLimit.parse("00:00,2M mon-sun")
    assert BandwidthLimit.parse("2M") != BandwidthLimit.parse("2 MB/s")
    assert BandwidthLimit.parse("18:00,off 08:00,2M") == BandwidthLimit.parse("8:00,2M  18:00, OFF")


# --- A timetable


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "08:00,2M 18:00,off mon-fri",
            {"mon 07:59": None, "mon 08:00": 2, "mon 17:59": 2, "mon 18:00": None, "fri 12:00": 2, "sat 12:00": None},
        ),
        (
            "08:00,2M 18:00,10 MiB/s",
            {"mon 00:00": 10, "mon 07:59": 10, "mon 12:00": 2, "sun 12:00": 2, "sun 23:59": 10},
        ),
        (
            "06:00,off 22:00,2M mon-fri",
            {"mon 00:00": None, "mon 23:00": 2, "tue 05:59": 2, "fri 23:59": 2, "sat 00:00": None},
        ),
        (
            "08:00,2M 18:00,4M mon-fri; 00:00,8M sat,sun",
            {"mon 07:00": 8, "tue 07:00": 4, "fri 12:00": 2, "sat 00:00": 8, "sun 23:59": 8},
        ),
        ("12:00,3M Fri - Mon", {"fri 12:00": 3, "sat 00:00": 3, "mon 12:00": 3, "tue 00:00": None, "fri 11:00": None}),
        ("12:00,3M mon, wed-thu", {"mon 13:00": 3, "tue 13:00": None, "wed 11:00": None, "thu 11:00": 3}),
        ("12:00,3M sun;", {"sun 11:59": None, "sun 12:00": 3, "mon 00:00": None}),
    ],
)
def test_a_timetable(text: str, expected: dict[str, float | None]) -> None:
    limit = BandwidthLimit.parse(text)
    found = {moment: limit.rate_at(_at(*moment.split())) for moment in expected}
    assert found == {moment: rate and rate * 1024**2 for moment, rate in expected.items()}
    assert not limit.is_off


def test_what_counts_is_the_local_time_that_is_given() -> None:
    limit = BandwidthLimit.parse("08:00,2M 18:00,off mon")
    assert limit.rate_at(_at("mon", "09:00").replace(tzinfo=UTC)) == 2 * 1024**2


@dataclass(frozen=True)
class Group:
    """Entries (minute of the day: rate in KiB/s) and the days they are for."""

    entries: dict[int, int | None]
    days: tuple[str, ...]

    def __str__(self) -> str:
        times = (f"{minute // 60:02}:{minute % 60:02}" for minute in self.entries)
        rates = (f"{rate}k" if rate else "off" for rate in self.entries.values())
        entries = " ".join(f"{time},{rate}" for time, rate in zip(times, rates, strict=True))
        return f"{entries} {','.join(self.days)}"


_entries = st.dictionaries(st.integers(0, 24 * 60 - 1), st.none() | st.integers(1, 10**6), min_size=1, max_size=5)


@st.composite
def _groups(draw: st.DrawFn) -> list[Group]:
    """Groups that share no day."""
    owners = draw(st.lists(st.integers(0, 3), min_size=7, max_size=7))
    return [
        Group(draw(_entries), tuple(day for day, its in zip(DAYS, owners, strict=True) if its == owner))
        for owner in sorted(set(owners) - {0})
    ]


def _minute_by_minute(groups: list[Group]) -> list[float | None]:
    """The rates of all minutes of a week, by walking through it twice: the second time, Sunday was before Monday."""
    of_day = {day: group.entries for group in groups for day in group.days}
    rates: list[float | None] = []
    rate: int | None = None
    for day in DAYS * 2:
        if day not in of_day:
            rate = None
        for minute in range(24 * 60):
            rate = of_day.get(day, {}).get(minute, rate)
            rates.append(rate and rate * 1024.0)
    return rates[len(rates) // 2 :]


@settings(max_examples=examples(40), deadline=None)
@given(_groups().filter(bool))
def test_every_minute_of_a_week(groups: list[Group]) -> None:
    limit = BandwidthLimit.parse("; ".join(map(str, groups)))
    minutes = [MONDAY + timedelta(minutes=minute) for minute in range(7 * 24 * 60)]
    assert [limit.rate_at(minute) for minute in minutes] == _minute_by_minute(groups)
    assert BandwidthLimit.parse(str(limit)) == limit


@given(st.sampled_from(DAYS), st.sampled_from(DAYS))
def test_a_range_of_days_goes_on_after_sunday(first: str, last: str) -> None:
    limit = BandwidthLimit.parse(f"00:00,1M {first}-{last}")
    walk = (DAYS * 2)[DAYS.index(first) :]
    named = walk[: walk.index(last) + 1]
    assert {day for day in DAYS if limit.rate_at(_at(day, "12:00"))} == set(named)


@given(st.text(alphabet="0123456789:,;.-/ kMGiBbst offmon" + "x", max_size=30) | st.text(max_size=20))
def test_any_text_is_a_limit_or_a_mistake_with_a_sentence_about_it(text: str) -> None:
    try:
        limit = BandwidthLimit.parse(text)
    except ValueError as error:
        assert len(str(error)) > 20
    else:
        assert all(change.rate is None or change.rate >= 1024 for day in limit.week for change in day)


# --- Mistakes


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("fast", '"fast" is no rate; it is "off" or a number with k, M, G, MiB/s, MB/s or Mbit/s, such as "10 MiB/s"'),
        ("10", '"10" is no rate'),
        ("-5M", '"-5M" is no rate'),
        ("2M/h", '"2M/h" is no rate'),
        ("1,5M", '"1,5M" is no rate'),
        ("10 mon-fri", "is no rate"),
        ("10 parsecs", '"10 parsecs" is no rate'),
        ("100 Mb/s", "Mb may stand for bits or for bytes; write Mbit/s or MB/s"),
        ("100 kb", "write kbit/s or kB/s"),
        ("0M", '"0M" is less than 1 KiB/s'),
        ("1 kbit/s", '"1 kbit/s" is less than 1 KiB/s'),
        ("2M mon-fri", '"mon-fri" cannot follow a rate; a timetable has times of the day'),
        ("25:00,2M", "25:00 is no time of a day"),
        ("08:60,2M", "08:60 is no time of a day"),
        ("08:00", '"08:00" is not a time and a rate with a comma between; a timetable is, e.g., "08:00,2M 18:00,off'),
        ("08:00 2M", '"08:00 2M" is not a time and a rate'),
        ("mon-fri 08:00,2M", '"mon-fri" is not a time and a rate'),
        ("08:00,2M 08:00,3M", "08:00 is there twice"),
        ("08:00,2M mon-fri 18:00,off", '"mon-fri" must stand behind the last time'),
        ("08:00,2M mo-fr", '"mo-fr" is no day; they are mon, tue, wed'),
        ("08:00,2M mon-", '"mon-" is no day'),
        ("08:00,2M mon tue", '"mon tue" is no day'),
        ("08:00,2M mon-fri; 00:00,off fri-sun", "fri has two timetables"),
        ("08:00,2M; 00:00,off sat,sun", "sat has two timetables (one without days holds on every day)"),
    ],
)
def test_what_is_no_limit(load_text: Load, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load_text(f'[configuration]\nbandwidth_limit = "{text}"\n{MINIMAL}')
    (line,) = raised.value.message.splitlines()
    assert line.startswith("config.toml: [configuration] bandwidth_limit: ")
    assert said in line


@pytest.mark.parametrize(("value", "shown"), [("5", "5"), ("true", "true"), ("08:00:00", "this")])
def test_a_limit_without_quotes(load_text: Load, value: str, shown: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load_text(f"[configuration]\nbandwidth_limit = {value}\n{MINIMAL}")
    assert f'must be a rate, "10 MiB/s", or a timetable of rates, not {shown}' in raised.value.message


# --- In the file


def test_the_limit_of_a_file(load_text: Load) -> None:
    limit = load_text(f'[configuration]\nbandwidth_limit = "08:00,2M 18:00,off mon-fri"\n{MINIMAL}').bandwidth_limit
    assert limit == BandwidthLimit.parse("08:00,2M 18:00,off mon-fri")
    assert load_text(MINIMAL).bandwidth_limit is None
    assert load_text(f'[configuration]\nbandwidth_limit = ""\n{MINIMAL}').bandwidth_limit is None
