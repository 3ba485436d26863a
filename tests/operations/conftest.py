"""A small site with a local central store, and operations called as the command line calls them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from chorus_upload.config.settings import CentralSettings, JournalSettings, Location, Settings, SiteSettings
from chorus_upload.events import Event, UpdateFinished, UploadFinished
from chorus_upload.journal.journal import Journal
from chorus_upload.layout import default_pattern
from chorus_upload.model import JournalingMode
from chorus_upload.operations.custody import journal_session
from chorus_upload.operations.update import UpdateRequest, update
from chorus_upload.operations.upload import UploadRequest, upload
from tests.trees import contents

MODALITIES = ("OMOP", "Images", "Metadata")


@dataclass
class Site:
    """A directory with a source, a central store and a configuration; `events` is what operations said."""

    home: Path
    settings: Settings
    events: list[Event] = field(default_factory=list)

    @property
    def source(self) -> Path:
        return self.home / "site"

    @property
    def central(self) -> Path:
        return self.home / "central"

    @property
    def local(self) -> Path:
        return self.settings.journal.local_path

    @property
    def cloud(self) -> Path:
        return self.settings.journal.cloud.local_path

    def write(self, path: str, content: str = "content") -> Path:
        target = self.source / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)
        return target

    def with_settings(self, **changes: object) -> Site:
        """The same site under another configuration."""
        return Site(self.home, self.settings.model_copy(update=changes))

    @contextmanager
    def journal(self, command: str = "test") -> Iterator[Journal]:
        with journal_session(self.settings, command=command, arguments={}, emit=self.events.append) as session:
            yield session.journal

    def update(self, request: UpdateRequest | None = None) -> UpdateFinished:
        with self.journal("journal update") as journal:
            return update(journal, self.settings, request or UpdateRequest(), emit=self.events.append)

    def upload(self, request: UploadRequest | None = None) -> UploadFinished:
        with self.journal("file upload") as journal:
            return upload(journal, self.settings, request or UploadRequest(), emit=self.events.append)

    def local_state(self) -> str:
        """How the local journal stands to the cloud's."""
        with closing(sqlite3.connect(self.local)) as database:
            return str(database.execute("SELECT state FROM custody").fetchone()[0])

    def delivered(self) -> dict[str, str]:
        """Key and content of every file of the central store but journals and manifests."""
        return {
            key: content.decode()
            for key, content in contents(self.central).items()
            if not key.endswith(".db") and "/manifest-" not in key
        }


def new_site(home: Path) -> Site:
    """Make a site in an empty directory, with seven files."""
    (home / "site").mkdir()
    (home / "central").mkdir()
    (home / "cloud").mkdir()
    source = Location(path=str(home / "site"))
    settings = Settings(
        file=home / "config.toml",
        modalities=MODALITIES,
        journal=JournalSettings(
            local_path=home / "journal.db", cloud=Location(path=str(home / "cloud" / "journal.db"))
        ),
        mode=JournalingMode.FULL,
        central=CentralSettings(location=Location(path=str(home / "central"))),
        sites={
            name: SiteSettings(modality=name, location=source, pattern=default_pattern(name, omop_per_patient=False))
            for name in MODALITIES
        },
        num_threads=2,
    )
    site = Site(home, settings)
    for number in range(5):
        site.write(f"100{number}/Images/a.dcm", f"image {number}")
    site.write("OMOP/person.csv", "person_id\n1\n")
    site.write("Metadata/README.md", "about")
    return site


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return new_site(tmp_path)
