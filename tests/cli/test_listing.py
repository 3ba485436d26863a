from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from chorus_upload.cli import listing
from chorus_upload.cli.arguments import parse_file_list
from chorus_upload.cli.render.stream import Stream
from chorus_upload.errors import ConfigError
from chorus_upload.model import Change, ListedFile
from chorus_upload.storage.parts import new_part
from tests.cli.streams import Pretended


def listed(path: str, size: int = 1) -> ListedFile:
    return ListedFile(path, "Images", "1001", "1", Change.ADDED, size, 0, f"1/{path}")


NAMES = ["plain.dcm", "Größe 患者.dcm", "-rf", "a\nb", "bytes-\udcff", "\x1b[2J", '"quoted"']


def written(encode: listing.Encode, names: list[str] = NAMES) -> bytes:
    out = Pretended(encoding="ascii")
    listing.write_listing((listed(name) for name in names), encode, listing.to_stream(Stream(out)))
    return out.kept.getvalue()


def test_lines_hold_the_exact_bytes_but_never_a_line_break() -> None:
    lines = written(listing.as_line).split(b"\n")

    assert lines == [os.fsencode(name.replace("\n", "\\n")) for name in NAMES] + [b""]


def test_null_terminated_names_come_back_as_they_were() -> None:
    assert parse_file_list(written(listing.as_null_terminated)) == NAMES


def test_lines_come_back_as_they_were() -> None:
    ordinary = [name for name in NAMES if "\n" not in name]

    assert parse_file_list(written(listing.as_line, ordinary)) == ordinary


def test_json_lines_come_back_as_they_were() -> None:
    lines = written(listing.as_json_line).splitlines()

    assert [json.loads(line)["path"] for line in lines] == NAMES


@pytest.mark.parametrize("encoding", ["ascii", "cp437", "utf-8"])
def test_a_screen_gets_nothing_that_it_would_act_upon(encoding: str) -> None:
    screen = Pretended(encoding=encoding, terminal=True)

    listing.write_listing(map(listed, NAMES), listing.as_screen_line, listing.to_stream(Stream(screen)))

    assert "\x1b" not in screen.shown
    assert len(screen.shown.splitlines()) == len(NAMES)


def test_totals() -> None:
    files = [listed("a", 5), listed("b\n", 7)]

    assert listing.write_listing(files, listing.as_line, lambda _: True) == listing.Listed(2, 12, 1)


def test_nothing_more_is_asked_for_when_nobody_reads() -> None:
    asked = 0

    def files() -> Iterator[ListedFile]:
        nonlocal asked
        for number in range(100_000):
            asked += 1
            yield listed(str(number))

    assert listing.write_listing(files(), listing.as_line, lambda _: False) is None
    assert asked < 10_000


def test_a_file_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "list.txt"

    with pytest.raises(ZeroDivisionError), listing.to_file(target) as write:
        write(b"half")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []

    with listing.to_file(target) as write:
        write(b"whole\n")
    assert target.read_bytes() == b"whole\n"
    assert list(tmp_path.iterdir()) == [target]


def test_what_a_killed_command_has_left_is_removed(tmp_path: Path) -> None:
    killed, file = new_part(tmp_path)
    with listing.to_file(tmp_path / "list.txt"):
        assert killed.exists(), "somebody writes to it"
    file.close()

    with listing.to_file(tmp_path / "list.txt"):
        pass

    assert list(tmp_path.iterdir()) == [tmp_path / "list.txt"]


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot write"), listing.to_file(tmp_path / "none" / "list.txt"):
        pass
