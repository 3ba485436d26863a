"""The commands in this process, made once, and sites to which much has happened already."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from chorus_upload.cli import app


@pytest.fixture(scope="session", autouse=True)
def commands_are_made_once() -> Iterator[None]:
    """They are the same each time, and to make them takes a third of a short run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app, "build_command", cache(app.build_command))
        yield


@dataclass(frozen=True, slots=True)
class Prepared:
    """A directory to which much has happened. Each test gets it as if nothing had happened since."""

    root: Path
    copy: Path

    @classmethod
    def from_now_on(cls, root: Path) -> Prepared:
        return cls(root, shutil.copytree(root, root.with_name("copy")))

    def restore(self) -> Path:
        shutil.rmtree(self.root)
        return shutil.copytree(self.copy, self.root)
