"""A store that fails, forgets to answer and lies, below every operation: what the journal says stays true."""

from __future__ import annotations

import hashlib
import io
import os
import random
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from unittest.mock import patch

import pytest

from chorus_upload.config.settings import Location
from chorus_upload.errors import AccessDenied, ChorusError, CredentialsExpired, StorageError, TransientError
from chorus_upload.events import UploadFinished, VerifyResult
from chorus_upload.operations.download import DownloadRequest, download
from chorus_upload.operations.verify import VerifyRequest, verify
from chorus_upload.storage.local import LocalStore
from chorus_upload.storage.store import Checksum, ComputedBy, ObjectStream, StoredObject
from chorus_upload.transfer.pool import SerialPool
from tests.e2e.clouds import JOURNAL, LOCK, ask, files_of, tables_of, without_backups
from tests.faults.figures import THOROUGH, Figures
from tests.faults.machine import Machine, ignore
from tests.randomness import SEED
from tests.trees import Bytes, Content, build, contents

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

T = TypeVar("T")
HISTORIES = int(os.environ.get("CHORUS_HISTORIES", "150" if THOROUGH else "2"))
SPRING = {f"{patient}/Images/scan.dcm": Bytes(100) for patient in range(1001, 1005)} | {"OMOP/person.csv": "1001\n"}
AUTUMN = {"1001/Images/scan.dcm": Bytes(100, edition=2), "1009/Images/scan.dcm": Bytes(50)}
MOST_TRIES = 60


@dataclass(slots=True)
class Fate:
    """What happens to calls of a store, drawn from a seed. `share` of them meet something."""

    draw: random.Random
    share: float = 0.0
    met: list[str] = field(default_factory=list)

    def strikes(self, what: str, *, share: float = 1.0) -> bool:
        if self.draw.random() >= self.share * share:
            return False
        self.met.append(what)
        return True

    def call(self, name: str, do: Callable[[], T]) -> T:
        """One call, which may be refused before, or whose answer may be lost."""
        if self.strikes(f"{name}: no answer, nothing done"):
            raise TransientError("the service fails")
        if self.strikes(f"{name}: denied", share=0.2):
            raise AccessDenied("not now")
        if self.strikes(f"{name}: expired", share=0.2):
            raise CredentialsExpired("not any more")
        if self.strikes(f"{name}: refused", share=0.2):
            raise StorageError("not like this")
        done = do()
        if self.strikes(f"{name}: done, no answer"):
            if isinstance(done, ObjectStream):
                done.close()
            raise TransientError("the answer was lost")
        return done


class FickleStore(LocalStore):
    """A directory as a store in trouble."""

    def __init__(self, root: Path, fate: Fate) -> None:
        super().__init__(root)
        self._fate = fate

    def scan(self, prefix: str = "") -> Iterator[StoredObject]:
        for found in super().scan(prefix):
            if self._fate.strikes("listing: an object is missing", share=0.3):
                continue
            if self._fate.strikes("listing: breaks off", share=0.1):
                raise TransientError("the listing broke off")
            yield self._lied_of(found, "listing")

    def stat(self, key: str) -> StoredObject | None:
        found = self._fate.call("stat", lambda: super(FickleStore, self).stat(key))
        return None if found is None else self._lied_of(found, "stat")

    def open(self, key: str, *, offset: int = 0) -> ObjectStream:
        stream = self._fate.call("open", lambda: super(FickleStore, self).open(key, offset=offset))
        # As services do, and directories do not: who reads can tell when something else arrives.
        md5 = hashlib.md5((Path(self.url) / key).read_bytes(), usedforsecurity=False).digest()
        stream.stored = replace(stream.stored, checksum=Checksum(md5, ComputedBy.UNKNOWN))
        if self._fate.strikes("open: another byte", share=0.3):
            body = bytearray(stream.read())
            stream.close()
            if body:
                body[self._fate.draw.randrange(len(body))] ^= 1
            return ObjectStream(_Raw(bytes(body)), stream.stored, buffer_size=1 << 16)
        return stream

    def put(self, key: str, *arguments: Any, **options: Any) -> StoredObject:  # noqa: ANN401 - those of the contract
        stored = self._fate.call("put", lambda: super(FickleStore, self).put(key, *arguments, **options))
        return self._lied_of(stored, "put")

    def delete(self, key: str, *, if_match: str | None = None) -> None:
        self._fate.call("delete", lambda: super(FickleStore, self).delete(key, if_match=if_match))

    def _lied_of(self, found: StoredObject, where: str) -> StoredObject:
        if self._fate.strikes(f"{where}: another etag", share=0.2):
            return replace(found, etag=f"{found.etag}1")
        if self._fate.strikes(f"{where}: another size", share=0.2):
            return replace(found, size=found.size + 1)
        return found


class _Raw(io.RawIOBase):
    """What a stream reads from."""

    def __init__(self, body: bytes) -> None:
        super().__init__()
        self._left = body

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        target = memoryview(buffer).cast("B")
        piece, self._left = self._left[: len(target)], self._left[len(target) :]
        target[: len(piece)] = piece
        return len(piece)


@dataclass(slots=True)
class FickleMachine(Machine):
    """Its stores are fickle, and every command looks at what it was told."""

    fate: Fate
    right: dict[str, bytes] = field(default_factory=dict)
    delivered: dict[str, str] = field(default_factory=dict)

    @contextmanager
    def running(self) -> Iterator[None]:
        def open_store(location: Location, *_: object, **__: object) -> FickleStore:
            return FickleStore(location.local_path, self.fate)

        with ExitStack() as stack:
            for name in ("custody", "upload", "verify", "download"):
                stack.enter_context(patch(f"chorus_upload.operations.{name}.open_store", open_store))
            yield

    def upload(self) -> UploadFinished:
        # Not of this class, which dataclasses make anew for its slots.
        done = Machine.upload(self)
        if done.failed:
            raise StorageError("not all was sent")
        return done

    def verify(self) -> None:
        with self.session("", read_only=True) as session:
            request = VerifyRequest(deep=True)
            done = verify(session.journal, self.settings, request, emit=ignore, pool=SerialPool())
        if done.results.keys() != {VerifyResult.MATCHED}:
            raise StorageError("not all is right")

    def download(self) -> None:
        with self.session("", read_only=True) as session:
            request = DownloadRequest(to=self.root / "back", overwrite=True)
            done = download(session.journal, self.settings, request, emit=ignore, pool=SerialPool())
        wanted = contents(self.root / "source")
        brought = {name: body for name, body in contents(self.root / "back").items() if not _is_hidden(name)}
        known = {(key.partition("/")[2], body) for key, body in self.right.items()}
        assert brought.items() <= known, "something wrong was brought back"
        if done.failures:
            raise StorageError("not all was brought back")
        assert brought == wanted

    def look(self) -> None:
        """What has to hold at every moment."""
        stored = files_of({name: body for name, body in contents(self.cloud).items() if not _is_hidden(name)})
        recorded = {key: md5.hex() for key, md5 in ask(self.local, "SELECT key, md5 FROM delivery")}
        for key, md5 in recorded.items():
            assert key in stored, f"{key} is called delivered, and is not there"
            assert hashlib.md5(stored[key], usedforsecurity=False).hexdigest() == md5, f"{key} is another one"
        assert stored.items() <= self.right.items(), "there is something wrong in the store"
        if self.local.exists() and recorded:
            assert self.delivered.items() <= recorded.items(), "deliveries were forgotten"
        self.delivered |= recorded


@pytest.mark.timeout(900)
def test_a_store_that_cannot_be_relied_on(in_memory: Path, figures: Figures) -> None:
    for number in range(HISTORIES):
        seed = SEED * 1_000 + number
        machine = FickleMachine(in_memory / str(number), Fate(random.Random(seed)))  # noqa: S311
        machine.set_up()
        try:
            with machine.running():
                _live(machine)
        except (ChorusError, AssertionError) as error:
            met = "\n".join(machine.fate.met[-30:])
            raise AssertionError(f"CHORUS_SEED={SEED} (history {number}): {error!r}, after\n{met}") from error
        figures.count("histories")
        figures.count("faults", len(machine.fate.met))
        shutil.rmtree(machine.root)
    assert figures.counted["faults"] > 5 * HISTORIES


def _live(machine: FickleMachine) -> None:
    """Two versions are recorded, sent, verified and brought back; every command meets trouble until it succeeds."""
    _change(machine, SPRING, "spring")
    for do in (partial(machine.update, "spring"), machine.upload, machine.verify, machine.download):
        _in_trouble(machine, do)
    if machine.fate.draw.random() < 0.5:
        # As on another machine.
        for path in machine.root.glob("journal.db*"):
            path.unlink()
    _change(machine, AUTUMN, "autumn")
    for do in (partial(machine.update, "autumn"), machine.upload, machine.verify, machine.download):
        _in_trouble(machine, do)
    objects = without_backups({name: body for name, body in contents(machine.cloud).items() if not _is_hidden(name)})
    assert LOCK not in objects
    assert files_of(objects) == {key: body for key, body in machine.right.items() if key in machine.delivered}
    assert set(machine.delivered) == {f"spring/{path}" for path in SPRING} | {f"autumn/{path}" for path in AUTUMN}
    assert tables_of(machine.local) == tables_of(machine.cloud / JOURNAL)


def _in_trouble(machine: FickleMachine, do: Callable[[], object]) -> None:
    """A command that is typed again until it succeeds; each time less goes wrong."""
    for attempt in range(MOST_TRIES):
        machine.fate.share = max(0.0, 0.1 - 0.02 * attempt)
        last: ChorusError | None = None
        try:
            do()
        except ChorusError as error:
            last = error
        machine.fate.share = 0.0
        machine.look()
        if last is None:
            return
        if attempt > 6:
            raise last


def _change(machine: FickleMachine, tree: Mapping[str, Content], version: str) -> None:
    build(machine.root / "source", tree)
    machine.right |= {f"{version}/{path}": body for path, body in contents(machine.root / "source").items()}


def _is_hidden(name: str) -> bool:
    return name.rpartition("/")[2].startswith(".")
