from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from chorus_upload.cli.arguments import chosen_modalities, chosen_paths, hoist_global_options, parse_file_list
from chorus_upload.errors import ConfigError
from chorus_upload.events import Event, Level, Notice

if TYPE_CHECKING:
    from chorus_upload.config.settings import Settings


class Configured:
    modalities = ("OMOP", "Images", "Metadata")


SETTINGS = cast("Settings", Configured())


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("file list --json", "--json file list"),
        ("file upload -v -c x.toml --quiet", "-v -c x.toml --quiet file upload"),
        ("file list --config=x.toml", "--config=x.toml file list"),
        ("-c x.toml file list --modalities A", "-c x.toml file list --modalities A"),
        ("file list -- --json -c", "file list -- --json -c"),
        ("file list --file=--json", "file list --file=--json"),
        ("file list -c", "-c file list"),
    ],
)
def test_global_options_may_stand_after_the_command(typed: str, read: str) -> None:
    assert hoist_global_options(typed.split()) == read.split()


def test_modalities_are_found_in_any_case_and_once() -> None:
    told: list[Event] = []
    assert chosen_modalities(SETTINGS, None, emit=told.append) is None
    assert chosen_modalities(SETTINGS, "images, OMOP,Images,", emit=told.append) == ("Images", "OMOP")
    assert told == []


def test_an_unknown_modality_is_left_out_with_a_warning() -> None:
    told: list[Event] = []
    assert chosen_modalities(SETTINGS, "Foo,omop, Bar,Foo", emit=told.append) == ("OMOP",)
    text = "unknown modality, left out: Foo, Bar. Configured are: OMOP, Images, Metadata."
    assert told == [Notice(text, Level.WARNING)]


@pytest.mark.parametrize(("typed", "problem"), [("Imgs,Foo", "Imgs, Foo"), (" , ", "names none")])
def test_where_none_is_known_it_is_answered_with_the_known_ones(typed: str, problem: str) -> None:
    told: list[Event] = []
    with pytest.raises(ConfigError, match=problem) as caught:
        chosen_modalities(SETTINGS, typed, emit=told.append)

    assert told == []
    assert caught.value.hint == "Configured are: OMOP, Images, Metadata."


@pytest.mark.parametrize(
    ("data", "paths"),
    [
        (b"a\nb\n", ["a", "b"]),
        (b"\xef\xbb\xbfa\r\n\r\nb", ["a", "b"]),
        ("Größe\r\nb\r\n".encode("utf-16"), ["Größe", "b"]),
        (b"a\nb\0c\0", ["a\nb", "c"]),
        (b"\xff\n", ["\udcff"]),
        ("a\u2028b\n".encode(), ["a\u2028b"]),
        (b" leading and trailing \n", [" leading and trailing "]),
        (b"", []),
    ],
)
def test_a_list_of_files_as_every_system_writes_it(data: bytes, paths: list[str]) -> None:
    assert parse_file_list(data) == paths


def test_paths_of_both_options_each_once(tmp_path: Path) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text("b\nc\n", encoding="utf-8")

    assert chosen_paths(["a", "b"], listed) == ["a", "b", "c"]
    assert chosen_paths([], None) is None


def test_a_list_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a\n")))

    assert chosen_paths(None, Path("-")) == ["a"]


def test_a_list_that_is_not_there_or_is_empty(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read the file list .*none\.txt: No such file"):
        chosen_paths(None, tmp_path / "none.txt")
    empty = tmp_path / "empty.txt"
    empty.touch()
    with pytest.raises(ConfigError, match="names no file"):
        chosen_paths(None, empty)
