"""What the configuration comes to, and what is wrong with it as far as this machine alone can tell."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, SecretStr

from chorus_upload.config.addresses import archive_kind
from chorus_upload.config.bandwidth import BandwidthLimit
from chorus_upload.config.local_paths import expanded, read_regular
from chorus_upload.config.sas import (
    KEEPING_THE_JOURNAL,
    READING,
    UPLOADING,
    errors_of,
    expiry_in_words,
    read_sas,
    warnings_of,
)
from chorus_upload.config.settings import Location, Settings

MASK = "***"


class Level(StrEnum):
    """How much a finding matters."""

    OK = "ok"
    UNTRIED = "not tried"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `subject` is the section of the file."""

    level: Level
    subject: str
    text: str


def masked(settings: Settings) -> dict[str, object]:
    """The settings as plain values for JSON: secrets as `***`, what is not there left out.

    `origins` says where each value that is no default comes from, by its dotted place in the rest.
    """
    fields = ((name, value) for name, value in settings if name not in ("warnings", "origins") and value is not None)
    plain = {name: _plain(value) for name, value in fields}
    return {**plain, "warnings": list(settings.warnings), "origins": dict(settings.origins)}


def check(settings: Settings, *, now: datetime | None = None) -> list[Finding]:
    """What can be found out without a network: directories, patterns, certificates, credentials, SAS tokens."""
    now = now or datetime.now(UTC)
    findings = [*_check_ca_bundle(settings.ca_bundle), *_check_local_journal(settings.journal.local_path)]
    journal = settings.journal.cloud_directory
    findings += _check_place(journal_section(settings), journal, needs=KEEPING_THE_JOURNAL, now=now)
    findings += _check_place("[central_path]", settings.central.location, needs=UPLOADING, now=now)
    for site in settings.sites.values():
        subject = f"[site_path.{site.modality}]"
        findings += _check_place(subject, site.location, needs=READING, now=now)
        if "\\" in site.pattern:
            text = f"the pattern {site.pattern} has a backslash; between directories it takes /, also on Windows"
            findings.append(Finding(Level.WARNING, subject, text))
    return [*findings, *_check_overlaps(settings)]


def journal_section(settings: Settings) -> str:
    """Return the section in which the site has the place of the cloud journal: it has another one in older files."""
    section = settings.origins.get("journal.cloud.path", "").partition(" ")[0]
    return section if section.startswith("[") else "[journal.source]"


def _plain(value: object) -> object:
    match value:
        case SecretStr():
            return MASK
        case BaseModel():
            return {name: _plain(inner) for name, inner in value if inner is not None}
        case Mapping():
            return {str(name): _plain(inner) for name, inner in value.items()}
        case tuple():
            return [_plain(inner) for inner in value]
        case StrEnum() | Path() | BandwidthLimit():
            return str(value)
        case _:
            return value


def _check_ca_bundle(path: Path | None) -> Iterator[Finding]:
    """Certificates are loaded as a connection would; a directory is read only then, so nothing is known of it."""
    if path is None:
        return
    # Imported here: `config show` can do without it.
    import ssl

    try:
        if path.is_file():
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
    except OSError:
        text = f"{path} holds no certificates in PEM form: text that begins with -----BEGIN CERTIFICATE-----"
        yield Finding(Level.ERROR, "[configuration]", text)
    else:
        yield Finding(Level.OK, "[configuration]", f"the certificates in {path} are the ones that are trusted")


def _check_local_journal(path: Path) -> Iterator[Finding]:
    subject, directory = "[journal.local]", path.resolve().parent
    if not directory.is_dir():
        yield Finding(Level.ERROR, subject, f"the directory {directory} does not exist")
    elif not os.access(directory, os.W_OK | os.X_OK) or (path.exists() and not os.access(path, os.R_OK | os.W_OK)):
        yield Finding(Level.ERROR, subject, f"{path.resolve()} cannot be written")
    else:
        yield Finding(Level.OK, subject, f"{path.resolve()} can be written")


def _check_place(subject: str, location: Location, *, needs: str, now: datetime) -> Iterator[Finding]:
    if location.is_local:
        yield _check_directory(subject, location.local_path, needs=needs)
    elif location.is_archive and location.outer.is_local:
        yield _check_archive(subject, location.outer.local_path)
    elif location.auth.azure_sas_token is not None:
        sas = read_sas(location.auth.azure_sas_token)
        # To read an archive nothing has to be listed.
        alone = location.is_archive
        wrong = errors_of(sas, needs="r" if alone else needs, now=now, for_one_blob=alone)
        if errors := [Finding(Level.ERROR, subject, text) for text in wrong]:
            yield from errors
        elif not sas.is_intact:
            text = "the SAS token is damaged: its signature (sig=…) is no base64 of 32 bytes; copy it again"
            yield Finding(Level.ERROR, subject, text)
        elif warnings := [Finding(Level.WARNING, subject, text) for text in warnings_of(sas, now=now)]:
            yield from warnings
        else:
            yield Finding(Level.OK, subject, f"{location}: {expiry_in_words(sas)}")
    elif file := location.auth.google_application_credentials or location.auth.google_token_file:
        yield _check_credentials_file(subject, file)
    else:
        mode = location.auth.mode
        yield Finding(Level.UNTRIED, subject, f"{location}, entered by {mode}" if mode else str(location))


def _check_credentials_file(subject: str, file: str) -> Finding:
    try:
        is_empty = not read_regular(expanded(file)).strip()
    except OSError as error:
        return Finding(Level.ERROR, subject, f"the credentials file {file} cannot be read: {error.strerror}")
    if is_empty:
        return Finding(Level.ERROR, subject, f"the credentials file {file} is empty")
    return Finding(Level.UNTRIED, subject, f"the credentials file {file} can be read")


def _check_directory(subject: str, path: Path, *, needs: str) -> Finding:
    wanted = os.R_OK | os.X_OK | (os.W_OK if "w" in needs else 0)
    if not path.is_dir():
        # Neither is made by this program: a share that is not mounted must not look like an empty one.
        what = "is not a directory" if path.exists() else "does not exist"
        if kind := archive_kind(path.name) if path.is_file() and "w" not in needs else None:
            what += f"; for the files in it write {kind}://::{path}"
        return Finding(Level.ERROR, subject, f"{path} {what}" + ("; create it, or mount it" if "w" in needs else ""))
    if not os.access(path, wanted):
        return Finding(Level.ERROR, subject, f"{path} cannot be {'written' if os.access(path, os.R_OK) else 'read'}")
    return Finding(Level.OK, subject, f"{path} is there and can be {'written' if 'w' in needs else 'read'}")


def _check_archive(subject: str, path: Path) -> Finding:
    if not path.is_file():
        return Finding(Level.ERROR, subject, f"{path} {'is not a file' if path.exists() else 'does not exist'}")
    if not os.access(path, os.R_OK):
        return Finding(Level.ERROR, subject, f"{path} cannot be read")
    return Finding(Level.OK, subject, f"{path} is there and can be read")


def _check_overlaps(settings: Settings) -> Iterator[Finding]:
    """Modalities that find the same files, and a central store inside a source."""
    seen: dict[tuple[str, str | None, str], str] = {}
    for site in settings.sites.values():
        subject = f"[site_path.{site.modality}]"
        place = (str(site.location), site.location.auth.azure_account_name, site.pattern.lower())
        other = seen.setdefault(place, site.modality)
        if other != site.modality:
            text = f"has the same path and pattern as {other}: every file is sent twice"
            yield Finding(Level.WARNING, subject, text)
        central = settings.central.location
        if site.location.is_local and central.is_local:
            inner, outer = central.local_path.resolve(), site.location.local_path.resolve()
            if inner == outer or (inner.exists() and outer.exists() and inner.samefile(outer)):
                text = f"this source is the central store ({inner}): name two different directories"
                yield Finding(Level.ERROR, subject, text)
            elif inner.is_relative_to(outer):
                yield Finding(Level.WARNING, subject, f"the central path {inner} is inside this source")
