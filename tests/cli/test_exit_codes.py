"""The table of exit codes is what scripts rely on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from chorus_upload import errors
from chorus_upload.errors import ChorusError

DOCUMENT = Path(__file__).parents[2] / "docs" / "exit-codes.md"
_ROW = re.compile(r"^\| (\d+) \| (?:`(\w+)`)? *\| (.+) \|$", re.MULTILINE)


def tree(root: type[ChorusError] = ChorusError) -> Iterator[type[ChorusError]]:
    """Yield the errors that have an exit code of their own; a kind of one of them may share its code."""
    if "exit_code" in vars(root):
        yield root
    for child in root.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from tree(child)


def test_the_table_is_the_tree_of_errors() -> None:
    documented = {name: int(code) for code, name, _ in _ROW.findall(DOCUMENT.read_text(encoding="utf-8")) if name}

    assert documented == {error.__name__: error.exit_code for error in tree()}


def test_the_codes_that_are_no_error_are_in_it_too() -> None:
    rows = _ROW.findall(DOCUMENT.read_text(encoding="utf-8"))

    assert {int(code) for code, name, _ in rows if not name} == {
        errors.EXIT_OK,
        errors.EXIT_PARTIAL,
        errors.EXIT_INTERRUPTED,
    }
    assert [int(code) for code, _, _ in rows] == sorted(int(code) for code, _, _ in rows)


def test_each_error_is_described_as_it_describes_itself() -> None:
    described = {name: text for _, name, text in _ROW.findall(DOCUMENT.read_text(encoding="utf-8"))}

    for error in tree():
        if error is not ChorusError:
            summary = (error.__doc__ or "").splitlines()[0]
            assert described[error.__name__] == summary


def test_no_two_errors_share_a_code() -> None:
    codes = [error.exit_code for error in tree()]

    assert len(codes) == len(set(codes))
