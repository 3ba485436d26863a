"""A place to write a `config.toml` and load it."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from chorus_upload.config.loading import load
from chorus_upload.config.settings import Settings

Load = Callable[..., Settings]

MINIMAL = """
[journal]
journaling_mode = "full"
path = "/journal/journal.db"
[central_path]
path = "/central"
[site_path.default]
path = "/data"
"""


@pytest.fixture
def load_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Load a configuration from its text; in the current directory, which is empty otherwise."""
    monkeypatch.chdir(tmp_path)

    def load_it(text: str, environ: Mapping[str, str] | None = None) -> Settings:
        file = Path("config.toml")
        file.write_text(textwrap.dedent(text), encoding="utf-8")
        file.chmod(0o600)
        return load(None, environ=environ or {})

    return load_it
