"""A site on one disk whose program runs in this process, so that a test can put stores of its own below it."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from chorus_upload.config.loading import load
from chorus_upload.config.settings import Settings
from chorus_upload.events import Event, UploadFinished
from chorus_upload.operations.custody import JournalSession, journal_session
from chorus_upload.operations.update import UpdateRequest, update
from chorus_upload.operations.upload import UploadRequest, upload
from chorus_upload.transfer.pool import SerialPool
from tests.e2e.clouds import CENTRAL, JOURNAL
from tests.trees import Directory, build


@dataclass(slots=True)
class Machine:
    """`root` holds everything: `source`, `cloud`, `journal.db` and the configuration."""

    root: Path

    def set_up(self) -> None:
        """Make the configuration and the empty directories."""
        build(self.root, {"cloud/journal": Directory(), f"cloud/{CENTRAL}": Directory(), "source": Directory()})
        (self.root / "config.toml").write_text(f"""
[journal]
journaling_mode = "full"
[journal.local]
path = "{self.local}"
[journal.source]
path = "{self.cloud}/{JOURNAL}"
[central_path]
path = "{self.cloud}/{CENTRAL}"
[site_path.default]
path = "{self.source}"
""")

    @property
    def source(self) -> Path:
        return self.root / "source"

    @property
    def local(self) -> Path:
        return self.root / "journal.db"

    @property
    def cloud(self) -> Path:
        return self.root / "cloud"

    @property
    def settings(self) -> Settings:
        return load(self.root / "config.toml", environ={})

    def session(self, command: str, *, read_only: bool = False) -> AbstractContextManager[JournalSession]:
        return journal_session(self.settings, command=command, arguments={}, emit=ignore, read_only=read_only)

    def update(self, version: str) -> None:
        request = UpdateRequest(version=version, confirm_deletions=True)
        with self.session("journal update") as session:
            update(session.journal, self.settings, request, emit=ignore, pool=SerialPool())

    def upload(self) -> UploadFinished:
        with self.session("file upload") as session:
            return upload(session.journal, self.settings, UploadRequest(), emit=ignore, pool=SerialPool())


def ignore(event: Event) -> None:
    """Nobody listens."""
    del event
