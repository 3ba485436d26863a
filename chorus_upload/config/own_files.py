"""What on this machine is the program's own, or holds credentials: it is nobody's data, wherever it lies."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from chorus_upload.config.local_paths import expanded
from chorus_upload.config.settings import Location, Settings

# Where the tools whose log-ins this program uses keep them, below the home directory.
_LOG_INS = (
    ".aws/credentials",
    ".azure/msal_token_cache.bin",
    ".azure/msal_token_cache.json",
    ".config/gcloud/application_default_credentials.json",
    ".netrc",
)
# What may lie beside a journal and belong to it: no more than that, for `journal` must not hide `journal.csv`.
_BESIDE = re.compile(
    r"(-wal|-shm|-journal"
    r"|\.(writer|sessions|sessions\.new|locked|claim|fetched|offered|original|converted)(-wal|-shm|-journal)?"
    r"|\.schema-\w+\.backup|\.\d{14}.*)?"
)
_NAMED_BY = ("AWS_SHARED_CREDENTIALS_FILE", "GOOGLE_APPLICATION_CREDENTIALS")


# What editors and people leave beside a configuration: it holds credentials, perhaps former ones.
_COPY = re.compile(r"[~.,_-].+|~", re.DOTALL)


@dataclass(frozen=True, slots=True)
class OwnFiles:
    """Files that are never sent. None of them needs to be there."""

    secrets: tuple[Path, ...] = ()
    """The configuration, and every file with credentials that it or the environment names."""
    journals: tuple[Path, ...] = ()
    """Journals, with what belongs to them and lies beside them."""
    stores: tuple[Path, ...] = ()
    """Directories that are the central store: sending one to itself would never end."""
    configuration: Path | None = None
    """The configuration, of which copies may lie beside it."""

    def covers(self, path: Path) -> bool:
        """Whether this file, or what it links to, is one of them."""
        real = path.resolve()
        if real in {secret.resolve() for secret in self.secrets}:
            return True
        own = self.configuration.resolve() if self.configuration is not None else None
        if own is not None and real.parent == own.parent and is_copy(real.name, own.name):
            return True
        journals = [journal.resolve() for journal in self.journals]
        return any(real.parent == journal.parent and is_of_journal(real.name, journal.name) for journal in journals)


def is_of_journal(name: str, journal: str) -> bool:
    """Whether a file of this name is that journal, or belongs to it."""
    return name.startswith(journal) and _BESIDE.fullmatch(name, len(journal)) is not None


def is_copy(name: str, configuration: str) -> bool:
    """Return whether a file beside the configuration is named as a copy of it; the template is none."""
    if name.startswith(f".{configuration}."):
        return True
    rest = name.removeprefix(configuration)
    return rest not in (name, ".template") and _COPY.fullmatch(rest) is not None


def own_files(settings: Settings, environ: Mapping[str, str] = os.environ) -> OwnFiles:
    """All of them, for these settings."""
    places = (settings.journal.cloud, settings.central.location, *(site.location for site in settings.sites.values()))
    return OwnFiles(
        secrets=(settings.file, *_environment(settings), *_credentials(places), *_log_ins(environ)),
        journals=(settings.journal.local_path, *_local(settings.journal.cloud)),
        stores=tuple(_local(settings.central.location)),
        configuration=settings.file,
    )


def _environment(settings: Settings) -> Iterator[Path]:
    if settings.environment_file is not None:
        yield settings.environment_file


def _credentials(places: tuple[Location, ...]) -> Iterator[Path]:
    for place in places:
        auth = place.auth
        for name in (auth.google_application_credentials, auth.google_token_file, auth.azure_sas_token_file):
            if name:
                yield expanded(name)


def _log_ins(environ: Mapping[str, str]) -> Iterator[Path]:
    for name in _NAMED_BY:
        if path := environ.get(name):
            yield Path(path)
    for path in _LOG_INS:
        yield expanded(f"~/{path}")


def _local(place: Location) -> Iterator[Path]:
    if place.is_local:
        yield place.local_path
