"""Load the settings: the file, its environment and the defaults become one `Settings`, or one ConfigError."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from chorus_upload.config.addresses import Address, in_container, parse_address
from chorus_upload.config.credentials import auth_of, overlay, resolve
from chorus_upload.config.environment import read_environment
from chorus_upload.config.generations import (
    CENTRAL_UPLOAD_METHOD,
    DEFAULT_PLACE,
    FOLLOW_LINKS,
    JOURNAL_UPLOAD_METHOD,
    find_section,
)
from chorus_upload.config.keys import CONTAINER_KEYS, IDLE, IDLE_TEXTS
from chorus_upload.config.local_paths import check_length, expanded
from chorus_upload.config.modalities import choose_modalities
from chorus_upload.config.overrides import overrides_for, warn_of_unknown
from chorus_upload.config.reading import Complaints, Entry, Given, read_document, read_entries
from chorus_upload.config.settings import (
    CentralSettings,
    JournalSettings,
    Location,
    Settings,
    SiteSettings,
    UploadMethod,
)
from chorus_upload.errors import LayoutError
from chorus_upload.layout import Pattern, default_pattern

DEFAULT_FILE = Path("config.toml")
_PLAIN_SLOTS = (
    "mode",
    "num_threads",
    "page_size",
    "fingerprint",
    "deletion_limit",
    "outside_limit",
    "accept_size_evidence",
    "retry_seconds",
    "bandwidth_limit",
    "proxy",
)
_CENTRAL_SLOTS = ("patient_first", "tier", "overwrite")

_CREDENTIAL_FILES = (
    *("google_application_credentials", "google_token_file"),
    *("azure_sas_token_file", "environment_file"),
)
_STAND_IN = Location(path="not understood")


def load(path: Path | None, *, environ: Mapping[str, str]) -> Settings:
    """The settings of the file `path` (`config.toml` in the current directory) in this environment.

    Raises ConfigError whose message lists everything that is wrong, one a line, and never a secret.
    """
    file = path or DEFAULT_FILE
    document = read_document(file)
    complaints = Complaints(file)
    entries = read_entries(document, complaints)
    environ = {**_environment_in(entries, complaints), **environ}
    settings = _Loader(entries, document, environ, complaints).settings()
    complaints.raise_if_any()
    return settings


def _environment_in(entries: Mapping[str, Entry], complaints: Complaints) -> dict[str, str]:
    """The variables of the configuration's own file of them."""
    entry = entries.get("environment_file")
    if entry is None:
        return {}
    try:
        return read_environment(expanded(entry.value))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        complaints.error(entry.origin, f"{entry.value}: {reason}")
        return {}


@dataclass(slots=True)
class _Loader:
    """One run of `load`: what was read, what is wrong so far, and where each value came from.

    Nothing raises before the end: whatever cannot be understood is complained of and gets a stand-in.
    """

    entries: dict[str, Entry]
    document: Mapping[str, Any]
    environ: Mapping[str, str]
    complaints: Complaints
    origins: dict[str, str] = field(default_factory=dict)

    def settings(self) -> Settings:
        """The settings; after complaints, with stand-ins for what could not be understood."""
        modalities = self._modalities()
        journal = self._journal()
        self._warn_of_missing_mode()
        central = self._central()
        sites = {modality: self._site(modality) for modality in modalities}
        method = self._take(CENTRAL_UPLOAD_METHOD, "upload_method") or self._take("upload_method")
        self._warn_of_script_method(method)
        self._warn_of_methods()
        self._warn_of_idle_keys()
        self._warn_of_open_permissions()
        warn_of_unknown(self.environ, modalities, self.complaints)
        values = {slot: self._take(slot) for slot in _PLAIN_SLOTS if slot in self.entries}
        return Settings(
            file=self.complaints.file,
            modalities=modalities,
            journal=journal,
            central=central,
            sites=sites,
            upload_method=method or UploadMethod.BUILTIN,
            ca_bundle=self._ca_bundle(),
            environment_file=self._environment_file(),
            warnings=tuple(self.complaints.warnings),
            origins=self.origins,
            **values,
        )

    def _take(self, slot: str, final: str | None = None) -> Any:  # noqa: ANN401 - of the key's own type
        """The value of a slot, None if there is none; notes its origin."""
        entry = self.entries.get(slot)
        if entry is None:
            return None
        self.origins.setdefault(final or slot, entry.origin)
        return entry.value

    def _modalities(self) -> tuple[str, ...]:
        written = self._take("modalities")
        sites = self.document.get("site_path")
        tables = sites if isinstance(sites, dict) else {}
        return choose_modalities(
            written,
            origin=self.origins.get("modalities", "[configuration] supported_modalities"),
            sections=[name for name, table in tables.items() if name != "default" and isinstance(table, dict)],
            has_default_path=self._has_place(DEFAULT_PLACE),
            complaints=self.complaints,
        )

    def _journal(self) -> JournalSettings:
        table = self.document.get("journal")
        is_old = isinstance(table, dict) and any(str(table.get(key, "")).strip() for key in ("path", "local_path"))
        where = "[journal]" if is_old else "[journal.source]"
        cloud = self._location("journal.cloud", where=where)
        written = self._take("journal.local_path") or "journal.db"
        if "://" in written:
            self.complaints.error(self.origins["journal.local_path"], "must be a file on this machine")
        local = expanded(written)
        try:
            check_length(local, is_journal=True)
        except ValueError as error:
            self.complaints.error(self.origins["journal.local_path"], str(error))
        self._complain_of_directory(local, "[journal.local] path")
        if cloud.is_local and cloud is not _STAND_IN:
            self._complain_of_directory(cloud.local_path, f"{where} path")
            if cloud.local_path.is_symlink():
                # A link would be replaced, and what it leads to go on as another journal, with another lock.
                cloud = cloud.model_copy(update={"path": str(cloud.local_path.resolve())})
        try:
            cloud.split()
        except ValueError:
            self.complaints.error(f"{where} path", f"{cloud} must name the journal file, as {cloud}/journal.db does")
        if cloud.is_local and cloud.local_path.resolve() == local.resolve():
            local = local.with_name(f"{local.name}.local")
            self.complaints.warning(
                f"{where} path",
                f"is the local journal, too, so the journal is on this machine only. Commands work on {local}. Keep a"
                " copy of the journal elsewhere",
            )
        values = {"backups": self._take("journal.backups")} if "journal.backups" in self.entries else {}
        return JournalSettings(local_path=local, cloud=cloud, **values)

    def _complain_of_directory(self, path: Path, where: str) -> None:
        if path.is_dir():
            self.complaints.error(where, f"{path} is a directory; name the journal file in it: {path / 'journal.db'}")

    def _central(self) -> CentralSettings:
        location = self._location("central.location", where="[central_path]")
        values = {name: self._take(f"central.{name}") for name in _CENTRAL_SLOTS if f"central.{name}" in self.entries}
        if "tier" in values and location.scheme != "az" and location is not _STAND_IN:
            self.complaints.warning(self.origins["central.tier"], "not used: only an az:// path has tiers")
        return CentralSettings(location=location, **values)

    def _environment_file(self) -> Path | None:
        written = self._take("environment_file")
        return None if written is None else expanded(written)

    def _ca_bundle(self) -> Path | None:
        written = self._take("ca_bundle")
        if written is None:
            return None
        path = expanded(written)
        if not os.access(path, os.R_OK):
            self.complaints.error(self.origins["ca_bundle"], f"{path} does not exist, or cannot be read")
        return path

    def _site(self, modality: str) -> SiteSettings:
        slot, where = f"sites.{modality}", f"[site_path.{modality}]"
        location = self._location(f"{slot}.location", where=where, modality=modality)
        omop_per_patient = self._take(f"{slot}.omop_per_patient") is True
        versioned = self._take(f"{slot}.versioned") is True
        text = self._take(f"{slot}.pattern")
        if text is None:
            text = default_pattern(modality, omop_per_patient=omop_per_patient, versioned=versioned)
        try:
            has_version = "version" in Pattern.parse(text).fields
        except LayoutError as error:
            self.complaints.error(f"{where} pattern", error.message)
            has_version = versioned
        if versioned and not has_version:
            self.complaints.warning(f"{where} versioned", "without effect: the pattern has no {version:w}")
        follow_links = self._take(f"{slot}.follow_links")
        if follow_links is None:
            follow_links = self._take(FOLLOW_LINKS, f"{slot}.follow_links")
        return SiteSettings(
            modality=modality,
            location=location,
            pattern=text,
            versioned=has_version,
            omop_per_patient=omop_per_patient,
            follow_links=follow_links,
        )

    def _location(self, slot: str, *, where: str, modality: str = "") -> Location:
        """The place of a slot with its credentials; a stand-in after a complaint."""
        given, overrides = self._given(slot), self._overrides(slot, modality)
        place, place_label = slot, where
        if modality and not self._has_place(slot):
            # The path of the default section, and so its credentials; for another path they are never used.
            place, place_label = DEFAULT_PLACE, "[site_path.default]"
        if not self._has_place(place):
            self._complain_of_missing_path(where, modality)
            return _STAND_IN
        if place != slot:
            inherited = overlay(self._given(DEFAULT_PLACE), self._overrides(DEFAULT_PLACE, ""))
            where = where if given or overrides else place_label
            given = overlay(inherited, given)
        address = self._address(place, where=place_label)
        if address is None:
            return _STAND_IN
        fields = resolve(
            given,
            overrides=overrides,
            address=address,
            where=where,
            environ=self.environ,
            complaints=self.complaints,
        )
        self.origins[f"{slot}.path"] = self.entries.get(f"{place}.path", Entry("", place_label)).origin
        self.origins |= {f"{slot}.auth.{name}": entry.origin for name, entry in fields.items() if entry.origin}
        return Location(path=address.path, auth=auth_of(fields))

    def _complain_of_missing_path(self, where: str, modality: str) -> None:
        if modality:
            problem = "is missing, and there is no [site_path.default] path that it could take"
        else:
            section = find_section(tuple(where.strip("[]").split(".")))
            key = section.find("path") if section else None
            problem = f"is missing; it is, for example, {key.example}" if key else "is missing"
        self.complaints.error(f"{where} path", problem)

    def _address(self, slot: str, *, where: str) -> Address | None:
        entry = self.entries.get(f"{slot}.path")
        try:
            address = parse_address(entry.value) if entry else Address("file", "")
            if address.service == "file":
                check_length(expanded(address.path.rpartition("::")[2]))
        except ValueError as error:
            self.complaints.error(f"{where} path", str(error))
            return None
        for scheme, key in CONTAINER_KEYS.items():
            if container := self.entries.get(f"{slot}.container.{scheme}"):
                try:
                    address = in_container(address, scheme=scheme, container=container.value)
                except ValueError as error:
                    self.complaints.error(container.origin, str(error))
                if address.scheme != scheme:
                    self.complaints.warning(container.origin, f"not used: the path is not one for {key}")
        if address.has_no_container:
            self.complaints.error(f"{where} path", f"{address.path} names no container")
            return None
        return address

    def _overrides(self, slot: str, modality: str) -> Given:
        place = slot.replace(f"sites.{modality}.", "sites.*.")
        return overrides_for(place, modality, environ=self.environ, complaints=self.complaints)

    def _given(self, slot: str) -> Given:
        start = f"{slot}.auth."
        return {name.removeprefix(start): entry for name, entry in self.entries.items() if name.startswith(start)}

    def _has_place(self, slot: str) -> bool:
        return f"{slot}.path" in self.entries or any(name.startswith(f"{slot}.container.") for name in self.entries)

    def _warn_of_missing_mode(self) -> None:
        # What sites rely on: the older tool takes it for "append", and "full" would retire what a delivery lacks.
        if "mode" not in self.entries:
            self.complaints.warning(
                "[journal] journaling_mode",
                'is missing, and taken for "append": a file that is missing in the source stays in the journal. Write'
                ' "append" to keep it so, or "full" if the source always holds everything: then a missing file counts'
                " as deleted, and is retired",
            )

    def _warn_of_idle_keys(self) -> None:
        for slot, entry in self.entries.items():
            if IDLE in slot:
                text = IDLE_TEXTS[slot.rpartition(".")[2]]
                self.complaints.warning(entry.origin, text[0].lower() + text[1:].rstrip("."))

    def _warn_of_script_method(self, method: UploadMethod | None) -> None:
        if method not in (None, UploadMethod.BUILTIN):
            self.complaints.warning(
                self.origins["upload_method"],
                f'"{method}" is not followed: `file upload` sends the files itself. A script that sends them with that'
                f" tool is written by: chorus-upload file list --output-type {method} --output-file upload.sh, or .bat",
            )

    def _warn_of_methods(self) -> None:
        entry = self.entries.get(JOURNAL_UPLOAD_METHOD)
        if entry is not None and entry.value is not UploadMethod.BUILTIN:
            self.complaints.warning(entry.origin, "without effect: the program always moves the journal itself")

    def _warn_of_open_permissions(self) -> None:
        if os.name != "posix":
            return
        file = self.complaints.file
        if self._has_secret() and _is_open(file):
            self.complaints.warning("it holds credentials, and others can read it", f"chmod 600 '{file}'")
        for slot, entry in self.entries.items():
            if slot.rpartition(".")[2] in _CREDENTIAL_FILES and _is_open(expanded(entry.value)):
                self.complaints.warning(f"{entry.origin}: others can read that file", f"chmod 600 '{entry.value}'")

    def _has_secret(self) -> bool:
        for slot, entry in self.entries.items():
            # A proxy is never shown, but it is a secret to other users only if it has a password.
            if isinstance(entry.value, SecretStr) and (slot != "proxy" or "@" in entry.value.get_secret_value()):
                return True
            if slot.endswith(".path") and isinstance(entry.value, str):
                try:
                    address = parse_address(entry.value)
                except ValueError:
                    continue
                if address.sas_token or address.password or address.query:
                    return True
        return False


def _is_open(file: Path) -> bool:
    """Whether others than its owner can read a file, as far as it is there."""
    try:
        return bool(stat.S_IMODE(file.stat().st_mode) & 0o077)
    except OSError:
        return False
