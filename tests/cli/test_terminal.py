"""The live display, without a terminal: what it draws, and how often."""

from __future__ import annotations

import io
import re
import time

import pytest
from rich.console import Console

from chorus_upload.cli.render.choose import choose_sink
from chorus_upload.cli.render.human import HumanSink
from chorus_upload.cli.render.jsonlines import JsonSink
from chorus_upload.cli.render.sink import Progress
from chorus_upload.cli.render.stream import Stream, make_tolerant
from chorus_upload.cli.render.tables import Column, Row, Table
from chorus_upload.cli.render.terminal import LiveProgress, make_console, table_drawer
from chorus_upload.events import ReadProgressed, ScanProgressed, UploadProgressed, VerifyProgressed
from tests.cli.samples import EVENTS, GIB, HOSTILE
from tests.cli.streams import Pretended

_ESCAPE_SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.fixture(autouse=True)
def _an_ordinary_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


def terminal(encoding: str = "utf-8") -> Pretended:
    pretended = Pretended(encoding=encoding, terminal=True)
    make_tolerant(pretended)
    return pretended


def drawn(event: Progress, *, encoding: str = "utf-8", width: int = 80) -> list[str]:
    screen = terminal(encoding)
    console = Console(file=screen, width=width, markup=False, emoji=False, highlight=False, no_color=True)
    progress = LiveProgress(console)
    progress.show(event)
    progress.pause()
    # The display draws, and takes down what it drew: the text between is what was seen.
    return [line for line in _ESCAPE_SEQUENCE.sub("\n", screen.shown).splitlines() if line.strip()]


def test_what_is_seen_of_an_upload() -> None:
    lines = drawn(UploadProgressed(10, 1_237, GIB, 5 * GIB, ("1001/Images/a.dcm", HOSTILE)))

    assert any("10 of 1,237 files  1.00 GiB of 5.00 GiB  18%" in line for line in lines)
    assert {"━" * 7, "─" * 33} <= set(lines)
    assert any("1001/Images/a.dcm" in line for line in lines)
    assert any("[red]Größe-患者\\x1b[2J\\n" in line for line in lines)


def test_a_place_that_keeps_silent_has_one_line_until_it_responds() -> None:
    """Also before there is any progress to show."""
    screen = terminal()
    console = Console(file=screen, width=200, markup=False, emoji=False, highlight=False, no_color=True)
    progress = LiveProgress(console)
    for seconds in (5, 10):
        progress.wait("acct", f"acct has not responded for {seconds} s")
    progress.wait("another", "another has not responded for 5 s")
    progress.pause()
    progress.wait("acct", None)
    progress.show(UploadProgressed(10, 1_237, GIB, 5 * GIB, ()))
    progress.pause()

    before, _, after = _ESCAPE_SEQUENCE.sub("\n", screen.shown).partition("10 of 1,237 files")
    assert "warning: acct has not responded for 10 s" in before
    assert "warning: another has not responded for 5 s" in before
    assert "acct has" not in after
    assert "warning: another has not responded for 5 s" in after


def test_what_is_seen_of_a_scan_and_of_reading() -> None:
    assert any("3 files in 2 directories" in line for line in drawn(ScanProgressed("/data", 2, 3)))
    assert any("0 of 2 files" in line for line in drawn(ReadProgressed(0, 2, 0, 0, "a")))


def test_what_is_seen_of_a_verification() -> None:
    assert any("10,000 objects listed" in line for line in drawn(VerifyProgressed(10_000)))

    lines = drawn(VerifyProgressed(10_000, 10, 1_237, GIB, 5 * GIB, ("spring/1001/Images/a.dcm",)))

    assert any("10 of 1,237 files  1.00 GiB of 5.00 GiB  18%" in line for line in lines)
    assert any("spring/1001/Images/a.dcm" in line for line in lines)


def test_many_files_at_once_take_few_lines() -> None:
    lines = drawn(UploadProgressed(0, 100, 0, 100, tuple(f"{number}.dcm" for number in range(64))))

    assert any("and 60 others" in line for line in lines)
    assert not any("5.dcm" in line for line in lines)


def test_a_long_path_keeps_its_beginning_and_its_end() -> None:
    path = "1001/Images/" + "deep/" * 40 + "scan.dcm"

    lines = drawn(UploadProgressed(0, 1, 0, 1, (path,)), width=60)

    assert any("1001/Images/" in line and "scan.dcm" in line and "…" in line for line in lines)


@pytest.mark.parametrize("encoding", ["ascii", "cp437"])
def test_a_console_that_is_not_unicode_gets_ascii(encoding: str) -> None:
    lines = drawn(UploadProgressed(0, 9, 1, 5, ("1001/" + "x" * 200, *"bcdef")), encoding=encoding)

    assert "".join(lines).isascii()


def test_the_display_is_drawn_a_few_times_a_second_however_many_events_come() -> None:
    screen = terminal()
    console = Console(file=screen, width=80)
    progress = LiveProgress(console)
    began = time.monotonic()
    for number in range(100_000):
        progress.show(UploadProgressed(number, 100_000, number, 100_000, ("a",)))
    progress.pause()
    seconds = time.monotonic() - began

    assert screen.shown.count("100,000 files") <= 10 * seconds + 3


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "cp437"])
def test_every_event_can_be_shown_on_a_terminal(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    out, err = terminal(encoding), terminal(encoding)
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.setattr("sys.stderr", err)
    sink = choose_sink(json=False, quiet=False, verbose=True)

    for event in EVENTS:
        sink.emit(event)
    sink.log("a line of the log")
    sink.close()

    seen = out.shown + err.shown
    assert "\x1b[2J" not in seen
    assert "\u202e" not in seen
    assert "[red]" in seen
    assert "a line of the log" in seen


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    screen = terminal()

    lines = list(table_drawer(make_console(Stream(screen)))(Table((Column("A"),), (Row(("1",), "bad"),))))

    assert "\x1b[31m" not in "".join(lines)


def test_names_fold_and_numbers_do_not_where_the_screen_is_narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setenv("NO_COLOR", "1")
    table = Table((Column("Name"), Column("Files", numeric=True)), (Row(("x" * 60, "1,234,567")),))

    lines = list(table_drawer(make_console(Stream(terminal())))(table))

    assert any("1,234,567" in line for line in lines)
    assert sum(line.count("x") for line in lines) == 60


def test_each_stream_is_judged_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = Pretended(), terminal()
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.setattr("sys.stderr", err)
    sink = choose_sink(json=False, quiet=False, verbose=False)

    for event in EVENTS:
        sink.emit(event)
    sink.close()

    assert "\x1b" not in out.shown
    assert "\x1b" in err.shown


def test_what_the_user_wants_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", terminal())
    monkeypatch.setattr("sys.stderr", terminal())

    assert isinstance(choose_sink(json=True, quiet=False, verbose=False), JsonSink)
    assert isinstance(choose_sink(json=False, quiet=True, verbose=False), HumanSink)


def test_a_dumb_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    err = terminal()
    monkeypatch.setattr("sys.stdout", io.StringIO())
    monkeypatch.setattr("sys.stderr", err)
    sink = choose_sink(json=False, quiet=False, verbose=False)

    for event in EVENTS:
        sink.emit(event)
    sink.close()

    assert "\x1b" not in err.shown
