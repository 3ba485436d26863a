from __future__ import annotations

import os
from pathlib import Path

import pytest

from chorus_upload.cli.render.stream import Stream
from tests.cli.streams import Pretended


@pytest.mark.parametrize("encoding", ["ascii", "cp437", "cp1252", "utf-8"])
def test_any_text_can_be_written_to_any_encoding(encoding: str) -> None:
    pretended = Pretended(encoding=encoding)

    Stream(pretended).line("Größe 患者 \udcff")

    assert pretended.shown.startswith("Gr")
    assert "\\udcff" in pretended.shown


def test_bytes_pass_unchanged_and_in_order() -> None:
    pretended = Pretended(encoding="ascii")
    stream = Stream(pretended)

    stream.write("first ")
    stream.write_bytes("患者\n".encode())

    assert pretended.kept.getvalue() == b"first " + "患者\n".encode()


def test_a_reader_that_leaves_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w", encoding="utf-8") as pipe:
        stream = Stream(pipe)
        stream.line("nobody will see this")

        assert stream.gone
        stream.line("nor this")
        stream.write_bytes(b"nor this")
        stream.flush()


def test_what_does_not_fit_on_a_disk_is_dropped_and_missed() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    with full.open("w", encoding="utf-8", buffering=1) as file:
        stream = Stream(file)
        stream.line("too much")

        assert stream.gone
        stream.line("nor this")
        assert Stream(file).unwritten == "No space left on device"
        assert Stream(Pretended()).unwritten is None
