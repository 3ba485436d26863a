"""`config check --online`: each place of the configuration is tried as the commands would use it.

A place that is written to gets a small object of our own, which is read back, replaced and removed again. What is
found is told step by step; the first step that fails is the last one that is tried at that place.
"""

from __future__ import annotations

import secrets
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.client import NOT_FOUND
from urllib.parse import urlsplit

from chorus_upload.config.settings import Location, Settings, SiteSettings
from chorus_upload.config.showing import Finding, Level, journal_section
from chorus_upload.errors import ChorusError, ObjectExists, PreconditionFailed, StorageError, TransientError
from chorus_upload.model import Evidence
from chorus_upload.operations import lock
from chorus_upload.operations.checking import not_mounted, trouble
from chorus_upload.storage.condition_check import ConditionCheck
from chorus_upload.storage.network import Network
from chorus_upload.storage.open import open_source, open_store
from chorus_upload.storage.source import Source
from chorus_upload.storage.store import Store, StoredObject
from chorus_upload.transfer.evidence import judge
from chorus_upload.transfer.reader import md5_of

PATIENCE_SECONDS = 20.0
"""Nobody wants to wait for a service as long as an upload of many days does."""
SKEW_SECONDS = 60.0
"""Clocks that differ by more than that are worth a word: tokens begin and end by the service's clock."""

_BODY = b"chorus-upload has tried whether it can write here. This can be deleted.\n"
_OTHER = b"It can.\n"
_NO_MARK = (
    "Listing works. If nothing removes that mark on the way, the service never gives it, and cannot be used: "
    "chorus-upload could not tell it from a proxy or a log-in page."
)


def probe_places(settings: Settings) -> Iterator[Finding]:
    """Try the cloud journal's place, the central store and every source, and tell what works and what does not."""
    network = replace(Network.of(settings), patience=min(PATIENCE_SECONDS, settings.retry_seconds))
    journal = settings.journal.cloud_directory
    yield from _place(journal_section(settings), journal, network, also=_Journal(settings).look)
    # Nothing is written below a share that is not mounted, which `check_settings` tells.
    if not not_mounted(settings):
        yield from _place("[central_path]", settings.central.location, network)
    # Modalities that live in one place: it is asked once for all of them.
    places: dict[tuple[object, ...], list[SiteSettings]] = {}
    for site in settings.sites.values():
        places.setdefault((site.location.path, site.location.auth), []).append(site)
    for sites in places.values():
        yield from _source(sites[0], ", ".join(f"[site_path.{site.modality}]" for site in sites), network)


def _place(
    subject: str,
    location: Location,
    network: Network,
    *,
    also: Callable[[Store], Iterator[tuple[Level, str]]] | None = None,
) -> Iterator[Finding]:
    try:
        with open_store(location, network, check=ConditionCheck.off()) as store:
            yield from (Finding(level, subject, text) for level, text in _address(store.url, location, network))
            store.probe()
            yield Finding(Level.OK, subject, f"{store.url} can be listed")
            yield from (Finding(level, subject, text) for level, text in _written(store))
            for level, text in also(store) if also else ():
                yield Finding(level, subject, text)
    except ChorusError as error:
        yield trouble(subject, error)


def _source(site: SiteSettings, subject: str, network: Network) -> Iterator[Finding]:
    try:
        with open_source(site, network) as source:
            yield from (Finding(level, subject, text) for level, text in _address(source.url, site.location, network))
            yield Finding(*_read(source, subject))
    except ChorusError as error:
        yield trouble(subject, error)
    except OSError as error:
        yield Finding(Level.ERROR, subject, f"{site.location} cannot be read: {error.strerror or error}")


def _address(url: str, location: Location, network: Network) -> Iterator[tuple[Level, str]]:
    """Where connections go, as far as this machine decides it."""
    parts = urlsplit(url)
    host = parts.hostname
    if location.is_local or not host or parts.scheme not in ("http", "https"):
        return
    if location.auth.endpoint_ip:
        yield Level.OK, f"{host} is looked for at {location.auth.endpoint_ip} (endpoint_ip)"
    elif network.proxy_for(parts.scheme, host):
        yield Level.OK, f"{host} is reached through a proxy"
    else:
        try:
            found = {str(each[4][0]) for each in socket.getaddrinfo(host, parts.port or 443, type=socket.SOCK_STREAM)}
        except (OSError, UnicodeError) as error:
            yield Level.ERROR, f"{host} has no address here: {getattr(error, 'strerror', None) or error}"
        else:
            yield Level.OK, f"{host} is at {', '.join(sorted(found))}"


def _written(store: Store) -> Iterator[tuple[Level, str]]:
    """Write, read back, replace and delete an object, and hold the service to the conditions that custody rests on."""
    key = f"chorus-upload-check-{secrets.token_hex(8)}.txt"
    try:
        store.stat(key)
    except TransientError as error:
        # The store was listed a moment ago, and this is what there is to say of an object that there is not.
        if error.foreign_status != NOT_FOUND:
            raise
        raise StorageError(error.message, hint=_NO_MARK) from None
    stored = store.put(key, _BODY, size=len(_BODY), create_only=True)
    try:
        evidence = judge(stored, size=len(_BODY), md5=md5_of(_BODY))
        proof = evidence if isinstance(evidence, Evidence) else Evidence.READBACK
        yield Level.OK, f"it can be written to; files are proven by: {proof}"
        yield _clock(stored)
        with store.open(key) as stream:
            if stream.read() != _BODY:
                yield Level.ERROR, "what is read there is not what was written"
                return
        yield Level.OK, "what was written can be read back"
        yield from _conditions(store, key, stored)
    finally:
        removed = _removed(store, key)
    yield removed


def _conditions(store: Store, key: str, stored: StoredObject) -> Iterator[tuple[Level, str]]:
    broken = "two managers could hold the journal at once, and files could overwrite each other"
    try:
        store.put(key, _OTHER, size=len(_OTHER), create_only=True)
    except ObjectExists:
        pass
    else:
        yield Level.ERROR, f"the service overwrites what it was told not to overwrite: {broken}"
        return
    replaced = store.put(key, _OTHER, size=len(_OTHER), if_match=stored.etag)
    try:
        store.put(key, _BODY, size=len(_BODY), if_match=stored.etag)
    except PreconditionFailed:
        yield Level.OK, "conditions are honoured: nothing is overwritten by accident"
    else:
        yield Level.ERROR, f"the service replaces another object ({replaced.etag}) than it was told to: {broken}"


def _clock(stored: StoredObject) -> tuple[Level, str]:
    seconds = stored.time_us / 1e6 - time.time()
    if abs(seconds) <= SKEW_SECONDS:
        return Level.OK, "the clocks agree"
    ahead = "behind" if seconds > 0 else "ahead of"
    return Level.WARNING, f"this machine's clock is {abs(seconds):,.0f} s {ahead} the service's"


def _removed(store: Store, key: str) -> tuple[Level, str]:
    try:
        store.delete(key)
    except StorageError as error:
        return Level.ERROR, f"{key} cannot be deleted again, and neither could a lock: {error.message}"
    return Level.OK, "the object of this check is deleted again"


def _read(source: Source, subject: str) -> tuple[Level, str, str]:
    """Find a first file, and read its first byte."""
    for directory in source.walk():
        for entry in directory.entries:
            path = f"{directory.path}/{entry.name}" if directory.path else entry.name
            with source.open(path) as stream:
                stream.read(1)
            return Level.OK, subject, f"{source.url} can be listed and read"
    return Level.WARNING, subject, f"{source.url} can be listed, and has no files"


class _Journal:
    """What there is of the cloud journal."""

    def __init__(self, settings: Settings) -> None:
        self._name = settings.journal.cloud_name

    def look(self, store: Store) -> Iterator[tuple[Level, str]]:
        """Whether there is one, and who holds it."""
        found = store.stat(self._name)
        if found is None:
            yield Level.OK, f"there is no journal {self._name} yet: the first command that needs it makes it"
        else:
            yield Level.OK, f"the journal {self._name} has {found.size:,} bytes"
        held = lock.read(store, self._name)
        if held is not None:
            yield Level.WARNING, held.sentence
