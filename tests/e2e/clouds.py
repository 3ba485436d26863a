"""Places that keep journals and files, as tests arrange them and look behind the scenes."""

from __future__ import annotations

import csv
import hashlib
import io
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from azure.storage.blob import ContentSettings

from tests.emulators import Azurite
from tests.trees import build, contents
from tests.wire import Wire

JOURNAL = "journal/journal.db"
LOCK = f"{JOURNAL}.locked"
CENTRAL = "data"


class Cloud(Protocol):
    """Where a site keeps its journal (`journal/journal.db`) and sends its files (`data/…`)."""

    @property
    def config(self) -> str:
        """What a `config.toml` says of it."""
        ...

    @property
    def secrets(self) -> tuple[str, ...]:
        """What the program must never show."""
        ...

    def objects(self) -> dict[str, bytes]:
        """Everything in it but the backups of the journal."""
        ...

    def backups(self) -> dict[str, bytes]:
        """The backups of the journal."""
        ...

    def put(self, key: str, content: bytes) -> None:
        """Put an object there by other means than the program, as another tool would."""
        ...

    def delete(self, key: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Disk:
    """Two directories on a disk. Quick: no service, no network."""

    root: Path

    @property
    def config(self) -> str:
        return f"""
[journal.source]
path = "{self.root / JOURNAL}"

[central_path]
path = "{self.root / CENTRAL}"
"""

    @property
    def secrets(self) -> tuple[str, ...]:
        return ()

    def objects(self) -> dict[str, bytes]:
        return without_backups(contents(self.root))

    def backups(self) -> dict[str, bytes]:
        return {key: body for key, body in contents(self.root).items() if is_backup(key)}

    def put(self, key: str, content: bytes) -> None:
        build(self.root, {key: content})

    def delete(self, key: str) -> None:
        (self.root / key).unlink()


@dataclass(frozen=True, slots=True)
class Container:
    """A container on Azurite, reached through `port` when there is a wire in between."""

    azurite: Azurite
    name: str
    token: str
    port: int | None = None
    journal_token: str | None = None
    central_token: str | None = None

    @property
    def url(self) -> str:
        return self.azurite.url_at(self.port or self.azurite.port)

    @property
    def config(self) -> str:
        return f"""
[journal.source]
path = "az://{self.name}/{JOURNAL}"

[journal.source.auth]
auth_mode = "sas_token"
azure_account_url = "{self.url}"
azure_sas_token = "{self.journal_token or self.token}"

[central_path]
path = "az://{self.name}/{CENTRAL}"

[central_path.auth]
auth_mode = "sas_token"
azure_account_url = "{self.url}"
azure_sas_token = "{self.central_token or self.token}"
"""

    @property
    def secrets(self) -> tuple[str, ...]:
        tokens = {self.token, self.journal_token or self.token, self.central_token or self.token}
        signatures = {token.partition("sig=")[2].partition("&")[0] for token in tokens}
        return (self.azurite.key, *signatures, *map(unquote, signatures))

    def objects(self) -> dict[str, bytes]:
        return without_backups(self._everything())

    def backups(self) -> dict[str, bytes]:
        return {key: body for key, body in self._everything().items() if is_backup(key)}

    def _everything(self) -> dict[str, bytes]:
        with self.azurite.service() as service, service.get_container_client(self.name) as container:
            return {name: container.download_blob(name).readall() for name in container.list_blob_names()}

    def put(self, key: str, content: bytes) -> None:
        with self.azurite.service() as service, service.get_blob_client(self.name, key) as blob:
            blob.upload_blob(content, overwrite=True)

    def claim(self, key: str, *, md5: bytes) -> None:
        """Write a checksum onto an object, as anybody can, whatever the object holds."""
        with self.azurite.service() as service, service.get_blob_client(self.name, key) as blob:
            blob.set_http_headers(ContentSettings(content_md5=bytearray(md5)))

    def delete(self, key: str) -> None:
        with self.azurite.service() as service, service.get_blob_client(self.name, key) as blob:
            blob.delete_blob()


def is_backup(key: str) -> bool:
    """Whether this is one of the dated backups beside the cloud journal."""
    return key.startswith(f"{JOURNAL}.") and key.endswith(".backup")


def without_backups(objects: dict[str, bytes]) -> dict[str, bytes]:
    return {key: body for key, body in objects.items() if not is_backup(key)}


def files_of(objects: dict[str, bytes]) -> dict[str, bytes]:
    """The uploaded files: what is in the central store and is neither a copy of the journal nor a manifest."""
    central = {key.removeprefix(f"{CENTRAL}/"): body for key, body in objects.items() if key.startswith(f"{CENTRAL}/")}
    return {key: body for key, body in central.items() if not _is_of_the_program(key)}


def _is_of_the_program(key: str) -> bool:
    version, _, name = key.partition("/")
    return bool(version) and (name == "journal.db" or (name.startswith("manifest-") and name.endswith(".csv")))


def others_of(objects: dict[str, bytes]) -> set[str]:
    """The names of all the rest, the manifests' without the time in them."""
    files = files_of(objects)
    rest = {key for key in objects if key.removeprefix(f"{CENTRAL}/") not in files}
    return {key.partition("/manifest-")[0] + "/manifest" if "/manifest-" in key else key for key in rest}


def manifest_of(objects: dict[str, bytes], version: str) -> dict[str, tuple[int, str, str]]:
    """What the manifests of a version folder say, a later one over an earlier: key to size, MD5 and evidence."""
    said: dict[str, tuple[int, str, str]] = {}
    for key in sorted(objects):
        if key.startswith(f"{CENTRAL}/{version}/manifest-"):
            for line in csv.DictReader(io.StringIO(objects[key].decode(), newline="")):
                said[line["key"]] = (int(line["size"]), line["md5"], line["evidence"])
    return said


def manifest_for(files: dict[str, bytes], version: str, *, evidence: str) -> dict[str, tuple[int, str, str]]:
    """What the manifests of a version folder ought to say of these files."""
    return {
        key: (len(body), hashlib.md5(body, usedforsecurity=False).hexdigest(), evidence)
        for key, body in files.items()
        if key.startswith(f"{version}/")
    }


def sent(wire: Wire, container: str) -> Counter[str]:
    """How often each uploaded file was put over the wire, whatever the answer was."""
    start = f"/{container}/{CENTRAL}/"
    keys = (urlsplit(request.target).path.partition(start)[2] for request in wire.requests if request.method == "PUT")
    return Counter(key for key in map(unquote, keys) if key and not _is_of_the_program(key))


def tables_of(journal: Path, *, without: tuple[str, ...] = ()) -> dict[str, list[tuple[object, ...]]]:
    """All rows of a journal, table by table, except for whose copy it is."""
    with closing(_open(journal)) as connection:
        names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {
            name: sorted(connection.execute(f"SELECT * FROM {name}").fetchall(), key=repr)  # noqa: S608
            for name in names
            if name not in ("custody", *without)
        }


def fetched(cloud: Cloud, directory: Path) -> Path:
    """The cloud's journal as a file of its own."""
    return build(directory, {"fetched.db": cloud.objects()[JOURNAL]}) / "fetched.db"


def ask(journal: Path, question: str) -> list[tuple[Any, ...]]:
    """The answer to a query; [] while there is no such journal, or nothing in it yet."""
    if not journal.exists():
        return []
    try:
        with closing(_open(journal)) as connection:
            return connection.execute(question).fetchall()
    except sqlite3.OperationalError:
        return []


def _open(journal: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{journal.as_uri()}?mode=ro", uri=True)
