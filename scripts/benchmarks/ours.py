"""chorus-upload as a competitor: a site with a journal of its own for each measurement."""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

PROGRAM = Path(sys.executable).with_name("chorus-upload")

CONFIGURATION = """\
[configuration]
supported_modalities = "OMOP,Images,Waveforms,Metadata"
[journal]
journaling_mode = "{mode}"
[journal.local]
path = '{home}/journal.db'
[journal.source]
path = '{journal}'
[central_path]
path = '{central}'
[site_path.default]
path = '{source}'
"""


@dataclass(frozen=True, slots=True)
class Site:
    """A configuration in `home`, which is made, for the files in `source`.

    `central` and `journal` are the addresses of the central store and of the journal; by default both are in `home`.
    """

    home: Path
    source: Path
    mode: str
    central: str | None = None
    journal: str | None = None

    def __post_init__(self) -> None:
        (self.home / "central").mkdir(parents=True)
        text = CONFIGURATION.format(
            mode=self.mode,
            home=self.home,
            journal=self.journal or self.home / "central" / "journal.db",
            central=self.central or self.home / "central",
            source=self.source,
        )
        self.config.write_text(text, encoding="utf-8")
        self.config.chmod(0o600)

    @property
    def config(self) -> Path:
        return self.home / "config.toml"

    @property
    def update(self) -> list[str | Path]:
        return [PROGRAM, "-c", self.config, "journal", "update"]

    @property
    def upload(self) -> list[str | Path]:
        return [PROGRAM, "-c", self.config, "file", "upload"]

    def check(self, files: int) -> None:
        """Raises RuntimeError unless the journal holds exactly `files` files and none of them was ever retired."""
        journal = self.home / "central" / "journal.db"
        with closing(sqlite3.connect(f"{journal.as_uri()}?mode=ro", uri=True)) as connection:
            rows, active = connection.execute("SELECT count(*), count(*) - count(retired_by) FROM file").fetchone()
        if not rows == active == files:
            raise RuntimeError(f"{journal}: {active} active files in {rows} rows, but the tree has {files}")
