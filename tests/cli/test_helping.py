from __future__ import annotations

import pytest

from chorus_upload.cli.app import build_command
from chorus_upload.cli.helping import help_page


@pytest.mark.parametrize(
    ("typed", "usage"),
    [
        ("-h", "chorus-upload [OPTIONS] COMMAND"),
        ("-c file file -h", "chorus-upload file [OPTIONS] COMMAND"),
        ("file upload --help --no-such-option", "chorus-upload file upload [OPTIONS]"),
        ("file list --modalities Images -h", "chorus-upload file list [OPTIONS]"),
        ("file mark_as_deleted -h", "chorus-upload file mark-as-deleted [OPTIONS]"),
    ],
)
def test_the_page_that_is_asked_for(typed: str, usage: str) -> None:
    page = help_page(build_command(), typed.split())

    assert page is not None
    assert page.startswith(f"Usage: {usage}")


@pytest.mark.parametrize("typed", ["", "file upload", "file uplaod -h", "file list -- -h"])
def test_no_page_is_asked_for(typed: str) -> None:
    assert help_page(build_command(), typed.split()) is None
