from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chorus_upload.cli.render.text import printable, printable_lines


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("1001/OMOP/person.csv", "1001/OMOP/person.csv"),
        ("Größe 患者 [red].dcm", "Größe 患者 [red].dcm"),
        ("a\nb\tc\r", r"a\nb\tc\r"),
        ("\x1b[2J\x07\x9b", r"\x1b[2J\x07\x9b"),
        ("\u202egpj.exe", r"\u202egpj.exe"),
        ("bytes \udcff", r"bytes \xff"),
        ("half \ud800", r"half \ud800"),
    ],
)
def test_nothing_that_a_terminal_acts_upon_is_shown_raw(name: str, shown: str) -> None:
    assert printable(name) == shown


@given(st.text(st.characters()))
def test_any_text_becomes_one_printable_line(text: str) -> None:
    shown = printable(text)

    assert shown.splitlines() in ([], [shown])
    assert "\x1b" not in shown
    shown.encode("utf-8")


def test_messages_keep_their_lines() -> None:
    assert printable_lines("first\n  second \x1b") == ["first", "  second \\x1b"]
    assert printable_lines("") == [""]
