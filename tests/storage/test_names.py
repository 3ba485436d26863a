"""Names that a kind of store cannot give to its objects."""

from __future__ import annotations

import pytest

from chorus_upload.storage.names import refused_by_windows


@pytest.mark.parametrize(
    "name",
    ["con", "CON", "nul.txt", "Com1.dcm", "LPT9", "com¹", "aux .txt", "a:b", "a?", "a\\b", "tab\t", "dot.", "space "],
)
def test_what_windows_would_refuse_or_make_something_else_of(name: str) -> None:
    assert refused_by_windows(name)


@pytest.mark.parametrize("name", ["console", "com10", "null", "a.con", ".hidden", "scan äö.dcm", "lpt", "com"])
def test_what_windows_takes(name: str) -> None:
    assert refused_by_windows(name) is None
