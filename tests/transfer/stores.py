"""A store for tests: a real local one whose answers a script bends, and a source that changes under the reader."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Self

from chorus_upload.model import Twin
from chorus_upload.storage.local import LocalStore
from chorus_upload.storage.local_source import LocalSource
from chorus_upload.storage.source import SmallFile
from chorus_upload.storage.store import Capabilities, Checksum, ComputedBy, Properties, StoredObject


class ScriptedStore(LocalStore):
    """A local store that answers like a cloud: with an MD5 of what it stored.

    `script` holds what happens to the next puts, one entry each; every entry must have been used at the end.
    """

    def __init__(self, root: Path, *, one_request_limit: int = 1 << 20, checksums: bool = True) -> None:
        super().__init__(root)
        self._limit = one_request_limit
        self._checksums = checksums
        self.script: list[Callable[[StoredObject], StoredObject]] = []
        self.puts: list[str] = []
        self.properties: list[Properties] = []
        self.twins: list[Twin | None] = []

    @property
    def capabilities(self) -> Capabilities:
        return dataclasses.replace(
            super().capabilities, service_checksum=self._checksums, one_request_limit=self._limit
        )

    def put(
        self,
        key: str,
        body: bytes | BinaryIO,
        *,
        size: int,
        create_only: bool = False,
        if_match: str | None = None,
        properties: Callable[[], Properties] = Properties,
        twin: Twin | None = None,
    ) -> StoredObject:
        self.puts.append(key)
        stored = super().put(key, body, size=size, create_only=create_only, if_match=if_match)
        self.properties.append(properties())
        self.twins.append(twin)
        if self._checksums:
            with self.open(key) as stream:
                md5 = hashlib.md5(stream.read(), usedforsecurity=False).digest()
            stored = dataclasses.replace(stored, checksum=Checksum(md5, ComputedBy.SERVICE))
        return self.script.pop(0)(stored) if self.script else stored

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        super().__exit__(*exc)
        if exc[0] is None:
            assert not self.script, "not every scripted fault was exercised"


class CopyingStore(LocalStore):
    """A local store that behaves like a service that copies what it has: it is spared what its twin holds."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.puts: dict[str, str | None] = {}
        """What was put, in its order, and the key of the twin that was named with it."""

    def put(
        self,
        key: str,
        body: bytes | BinaryIO,
        *,
        size: int,
        create_only: bool = False,
        if_match: str | None = None,
        properties: Callable[[], Properties] = Properties,
        twin: Twin | None = None,
    ) -> StoredObject:
        self.puts[key] = twin.key if twin else None
        stored = super().put(key, body, size=size, create_only=create_only, if_match=if_match)
        there = self.stat(twin.key) if twin else None
        if twin is None or there is None or there.etag != twin.etag:
            return stored
        with self.open(key) as new, self.open(twin.key) as old:
            is_same = new.read() == old.read()
        return dataclasses.replace(stored, spared=size if is_same else 0)


class ChangingSource(LocalSource):
    """A local source of which `meddle` is called between opening a file and the end of reading it."""

    def __init__(self, root: Path, meddle: Callable[[], None]) -> None:
        super().__init__(root, follow_links=False)
        self._meddle = meddle

    def read_small(self, path: str, *, size: int) -> SmallFile:
        small = super().read_small(path, size=size)
        self._meddle()
        state = self.stat(path)
        if state is None:
            raise FileNotFoundError(path)
        return SmallFile(small.data, state)

    def open(self, path: str) -> BinaryIO:
        stream = super().open(path)
        self._meddle()
        return stream


def everything(store: LocalStore) -> Iterator[tuple[str, bytes]]:
    """Key and content of every object."""
    for found in store.scan():
        with store.open(found.key) as stream:
            yield found.key, stream.read()
