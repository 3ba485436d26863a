"""The credentials of a configuration as its files say now: a running command takes what was renewed meanwhile."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

from chorus_upload.config.loading import load
from chorus_upload.config.local_paths import expanded
from chorus_upload.config.settings import Auth, AuthMode, Location, Settings
from chorus_upload.errors import ConfigError


class Renewal:
    """Reads a configuration again when one of its files has changed. May be used by many threads.

    The files are the configuration itself, its `environment_file`, and the files with tokens that it names.
    """

    def __init__(self, settings: Settings, *, environ: Mapping[str, str]) -> None:
        self._settings = settings
        self._environ = environ
        self._lock = threading.Lock()
        self._now = settings
        # What has changed since the configuration was loaded shows at the first look.
        self._state: list[tuple[int, int, int] | None] = []

    @property
    def files(self) -> tuple[Path, ...]:
        """What is looked at for new credentials."""
        return tuple(_files(self._settings))

    def has_changed(self) -> bool:
        """Whether a file is another one than at the last look; a configuration that cannot be read yet is none."""
        with self._lock:
            state = self._look()
            if state == self._state:
                return False
            try:
                self._now = load(self._settings.file, environ=self._environ)
            except ConfigError:
                # Somebody is writing it just now.
                return False
            self._state = state
            return True

    def auth(self, known: Auth) -> Auth:
        """The credentials of today of the place that had the `known` ones; the same when it is not there any more."""
        for before, now in zip(_places(self._settings), _places(self._now), strict=False):
            if before.auth == known and before.path == now.path:
                return now.auth
        return known

    def _look(self) -> list[tuple[int, int, int] | None]:
        return [_state_of(file) for file in self.files]


def _places(settings: Settings) -> Iterator[Location]:
    yield settings.journal.cloud
    yield settings.central.location
    for modality in sorted(settings.sites):
        yield settings.sites[modality].location


def _files(settings: Settings) -> Iterator[Path]:
    yield settings.file
    if settings.environment_file is not None:
        yield settings.environment_file
    seen: set[str] = set()
    for place in _places(settings):
        for name in (place.auth.azure_sas_token_file, place.auth.google_token_file, _aws_file(place)):
            if name is not None and name not in seen:
                seen.add(name)
                yield expanded(name)


def _aws_file(place: Location) -> str | None:
    """Where the library looks for the key pair of a profile, or of this user."""
    if place.scheme != "s3" or place.auth.aws_access_key_id is not None or place.auth.mode is AuthMode.ANONYMOUS:
        return None
    return os.environ.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials")


def _state_of(file: Path) -> tuple[int, int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
