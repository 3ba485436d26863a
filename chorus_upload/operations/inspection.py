"""Files that other programs are to send, looked at before a script names them."""

from __future__ import annotations

from collections.abc import Iterable

from chorus_upload.config.own_files import own_files
from chorus_upload.config.own_secrets import SecretSearch
from chorus_upload.config.settings import Settings
from chorus_upload.errors import OutOfResources
from chorus_upload.model import FailureKind
from chorus_upload.scripting.work import ScriptFile
from chorus_upload.storage.network import Network
from chorus_upload.storage.open import open_source
from chorus_upload.storage.source import Source
from chorus_upload.transfer.reader import HELD_SECRET, SCREENED_BYTES, WITHOUT_SECRETS


class Inspection:
    """The files on this machine of some modalities; each is looked at once."""

    def __init__(self, settings: Settings, modalities: Iterable[str]) -> None:
        own, network = own_files(settings), Network.of(settings)
        self._sources: dict[str, Source] = {
            name: open_source(settings.sites[name], network, own=own)
            for name in modalities
            if settings.sites[name].location.is_local
        }
        self._holds_secret = SecretSearch.of(settings)
        self._refused: dict[int, tuple[FailureKind, str]] = {}

    def refusal(self, file: ScriptFile, modality: str, *, again: bool) -> tuple[FailureKind, str] | None:
        """Why a file is not to be sent; None if it may be. `again` repeats what was found the first time.

        What is not there, or has changed, the script finds out by itself.
        """
        source = self._sources.get(modality)
        if source is not None and not again and (reason := self._look(source, file)):
            self._refused[file.id] = reason
        return self._refused.get(file.id)

    def _look(self, source: Source, file: ScriptFile) -> tuple[FailureKind, str] | None:
        try:
            if file.size > SCREENED_BYTES:
                source.open(file.path).close()
            elif self._holds_secret(source.read_small(file.path, size=file.size).data):
                return FailureKind.HOLDS_SECRET, f"{HELD_SECRET}; {WITHOUT_SECRETS}"
        except FileNotFoundError:
            return None
        except OSError as error:
            if exhausted := OutOfResources.of(error):
                raise exhausted from error
            return FailureKind.UNREADABLE, error.strerror or str(error)
        return None
