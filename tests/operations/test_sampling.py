"""A random part can be chosen again by anybody who knows its seed."""

from __future__ import annotations

import hashlib

import pytest

from chorus_upload.errors import ConfigError
from chorus_upload.operations.sampling import Sample

KEYS = [f"spring/{patient}/Images/{number}.dcm" for patient in range(1001, 1101) for number in range(100)]


def chosen(text: str, keys: list[str], *, seed: int | None = 7) -> set[str]:
    sample = Sample.parse(text, seed=seed)
    last = sample.last(sample.draw(key) for key in keys)
    return {key for key in keys if sample.draw(key) <= last}


def test_it_is_chosen_as_the_documentation_says() -> None:
    def draw(key: str) -> int:
        return int(hashlib.sha256(b"7 " + key.encode()).hexdigest()[:16], 16)

    assert chosen("1%", KEYS) == {key for key in KEYS if draw(key) < 2**64 // 100}
    assert chosen("25", KEYS) == set(sorted(KEYS, key=draw)[:25])


@pytest.mark.parametrize(
    ("text", "least", "most"), [("1%", 70, 130), ("0.5 %", 30, 70), (".5%", 30, 70), ("50%", 4_800, 5_200)]
)
def test_a_share_is_about_as_large_as_asked_for(text: str, least: int, most: int) -> None:
    assert least <= len(chosen(text, KEYS)) <= most


@pytest.mark.parametrize(
    ("text", "number"), [("1", 1), ("100", 100), (" 10000 ", 10_000), ("20000", 10_000), ("100%", 10_000)]
)
def test_a_number_is_exact_as_far_as_there_are_so_many(text: str, number: int) -> None:
    assert len(chosen(text, KEYS)) == number


def test_the_same_seed_chooses_the_same_part_in_any_order() -> None:
    assert chosen("2%", KEYS) == chosen("2%", KEYS[::-1])
    assert chosen("200", KEYS) == chosen("200", KEYS[::-1])
    assert chosen("2%", KEYS) != chosen("2%", KEYS, seed=8)


def test_files_that_come_later_do_not_upset_a_share() -> None:
    assert chosen("2%", KEYS[:5_000]) == chosen("2%", KEYS) & set(KEYS[:5_000])


def test_without_a_seed_chance_decides_anew() -> None:
    assert Sample.parse("1%").seed != Sample.parse("1%").seed


@pytest.mark.parametrize("text", ["1%", "0.000000000000000000001%", "1"])
def test_of_few_files_one_is_chosen(text: str) -> None:
    assert len(chosen(text, KEYS[:3])) >= 1
    assert chosen(text, []) == set()


@pytest.mark.parametrize(
    "text", ["", "0", "0%", "0.0%", "100.1%", "-1", "-1%", "1.5", "1,5%", "ten", "%", "1e2", "nan%", "٣%", "1%%"]
)
def test_what_is_no_part_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="makes no sense") as refused:
        Sample.parse(text)

    assert "like 1% or 0.5%" in (refused.value.hint or "")
