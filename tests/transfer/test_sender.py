"""Sending one file: it arrives proven, or it is an outcome with a reason, and nothing wrong stays behind."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import pytest
import xxhash

from chorus_upload import __version__
from chorus_upload.errors import (
    AccessDenied,
    CredentialsExpired,
    IntegrityError,
    ObjectExists,
    ObjectNotFound,
    PreconditionFailed,
    StorageError,
    StoreFull,
    TlsError,
    TransientError,
)
from chorus_upload.model import Delivered, Evidence, Failed, FailureKind, Transfer, Twin
from chorus_upload.storage.local import LocalStore
from chorus_upload.storage.local_source import LocalSource
from chorus_upload.storage.s3_errors import SessionLost
from chorus_upload.storage.source import Source
from chorus_upload.storage.store import Checksum, ComputedBy, ObjectStream, Properties, StoredObject
from chorus_upload.storage.traffic import Traffic
from chorus_upload.transfer.meter import Meter
from chorus_upload.transfer.sender import CONTESTS, WRONG_ARRIVALS, Sender, Terms
from tests.transfer.stores import ChangingSource, CopyingStore, ScriptedStore, everything

CONTENT = b"waveform" * 1000
KEY = "20240101000000/1001/Waveforms/a.dat"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "site"
    root.mkdir()
    (root / "a.dat").write_bytes(CONTENT)
    return root


@pytest.fixture(params=[1 << 20, 0], ids=["one-request", "streamed"])
def store(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[ScriptedStore]:
    central = tmp_path / "central"
    central.mkdir()
    with ScriptedStore(central, one_request_limit=request.param) as store:
        yield store


def journaled(root: Path) -> Transfer:
    status = (root / "a.dat").stat()
    return Transfer(
        file_id=1,
        modality="Waveforms",
        path="a.dat",
        key=KEY,
        size=status.st_size,
        mtime_us=status.st_mtime_ns // 1000,
        fingerprint=xxhash.xxh3_128_digest(CONTENT),
    )


def sender(source: Source | Path, store: LocalStore, terms: Terms | None = None) -> Sender:
    source = LocalSource(source, follow_links=False) if isinstance(source, Path) else source
    return Sender({"Waveforms": source}, store, terms or Terms(), meter=Meter(), traffic=Traffic(4))


def test_a_file_is_sent_once_and_proven_by_the_service(root: Path, store: ScriptedStore) -> None:
    outcome = sender(root, store).send(journaled(root))

    assert isinstance(outcome, Delivered)
    assert (outcome.evidence, outcome.sent) == (Evidence.SERVER, True)
    assert outcome.md5 == hashlib.md5(CONTENT, usedforsecurity=False).digest()
    assert outcome.fingerprint == xxhash.xxh3_128_digest(CONTENT)
    found = store.stat(KEY)
    assert found is not None
    assert outcome.etag == found.etag
    assert store.puts == [KEY]
    assert dict(everything(store)) == {KEY: CONTENT}


def test_a_claimed_checksum_is_no_evidence(root: Path, store: ScriptedStore) -> None:
    right = Checksum(hashlib.md5(CONTENT, usedforsecurity=False).digest(), ComputedBy.UNKNOWN)
    store.script.append(lambda stored: dataclasses.replace(stored, checksum=right))

    outcome = sender(root, store).send(journaled(root))

    assert isinstance(outcome, Delivered)
    assert outcome.evidence is Evidence.READBACK


def test_blocks_that_were_checked_on_the_way_are_evidence(root: Path, store: ScriptedStore) -> None:
    store.script.append(lambda stored: dataclasses.replace(stored, checksum=None, transit_checked=True))

    outcome = sender(root, store).send(journaled(root))

    assert isinstance(outcome, Delivered)
    assert outcome.evidence is Evidence.TRANSIT


@pytest.mark.parametrize(("accept", "evidence"), [(False, Evidence.READBACK), (True, Evidence.SIZE)])
def test_sizes_count_only_where_the_configuration_says_so(
    root: Path, store: ScriptedStore, *, accept: bool, evidence: Evidence
) -> None:
    store.script.append(lambda stored: dataclasses.replace(stored, checksum=None))

    outcome = sender(root, store, Terms(accept_size=accept)).send(journaled(root))

    assert isinstance(outcome, Delivered)
    assert outcome.evidence is evidence


def wrong(stored: StoredObject) -> StoredObject:
    return dataclasses.replace(stored, checksum=Checksum(b"\0" * 16, ComputedBy.SERVICE))


def test_what_arrived_wrong_is_taken_away_and_sent_again(root: Path, store: ScriptedStore) -> None:
    store.script.append(wrong)

    outcome = sender(root, store).send(journaled(root))

    assert isinstance(outcome, Delivered)
    assert store.puts == [KEY, KEY]
    assert dict(everything(store)) == {KEY: CONTENT}


def test_what_always_arrives_wrong_is_not_delivered_and_not_left_there(root: Path, store: ScriptedStore) -> None:
    store.script += [wrong] * WRONG_ARRIVALS

    outcome = sender(root, store).send(journaled(root))

    assert isinstance(outcome, Failed)
    assert outcome.kind is FailureKind.NOT_PROVEN
    assert dict(everything(store)) == {}


def test_a_readback_that_differs_is_a_wrong_arrival(root: Path, store: ScriptedStore, tmp_path: Path) -> None:
    def flip(stored: StoredObject) -> StoredObject:
        path = tmp_path / "central" / KEY
        path.write_bytes(CONTENT[:-1] + b"!")
        found = store.stat(KEY)
        assert found is not None
        return dataclasses.replace(found, checksum=None)

    store.script.append(flip)

    outcome = sender(root, store).send(journaled(root))

    assert isinstance(outcome, Delivered)
    assert store.puts == [KEY, KEY]


def test_the_same_content_under_the_key_is_recognised_and_not_sent(root: Path, store: ScriptedStore) -> None:
    store.put(KEY, CONTENT, size=len(CONTENT))

    outcome = sender(root, store).send(journaled(root))

    assert isinstance(outcome, Delivered)
    assert (outcome.sent, outcome.evidence) == (False, Evidence.READBACK)


@pytest.mark.parametrize("other", [b"other", CONTENT[:-1] + b"!"], ids=["other-size", "same-size"])
def test_other_content_under_the_key_is_reported_and_not_touched(
    root: Path, store: ScriptedStore, other: bytes
) -> None:
    store.put(KEY, other, size=len(other))

    outcome = sender(root, store).send(journaled(root))

    assert isinstance(outcome, Failed)
    assert outcome.kind is FailureKind.KEY_TAKEN
    assert dict(everything(store)) == {KEY: other}


def test_an_object_of_ours_is_superseded_while_it_is_still_that_one(root: Path, store: ScriptedStore) -> None:
    older = store.put(KEY, b"older", size=5)
    transfer = dataclasses.replace(journaled(root), replaces=older.etag)

    assert isinstance(sender(root, store).send(transfer), Delivered)
    assert dict(everything(store)) == {KEY: CONTENT}


def test_an_object_that_somebody_else_wrote_meanwhile_is_not_superseded(root: Path, store: ScriptedStore) -> None:
    older = store.put(KEY, b"older", size=5)
    store.put(KEY, b"theirs", size=6)

    outcome = sender(root, store).send(dataclasses.replace(journaled(root), replaces=older.etag))

    assert isinstance(outcome, Failed)
    assert outcome.kind is FailureKind.KEY_TAKEN
    assert dict(everything(store)) == {KEY: b"theirs"}


def test_an_object_to_supersede_that_is_gone_leaves_a_free_key(root: Path, store: ScriptedStore) -> None:
    older = store.put(KEY, b"older", size=5)
    store.delete(KEY)

    outcome = sender(root, store).send(dataclasses.replace(journaled(root), replaces=older.etag))

    assert isinstance(outcome, Delivered)
    assert dict(everything(store)) == {KEY: CONTENT}


REPLACE = Terms(replace=True)


def test_other_content_is_replaced_where_the_configuration_says_so(root: Path, store: ScriptedStore) -> None:
    store.put(KEY, b"other", size=5)

    outcome = sender(root, store, REPLACE).send(journaled(root))

    assert isinstance(outcome, Delivered)
    assert (outcome.sent, outcome.replaced, outcome.evidence) == (True, True, Evidence.SERVER)
    assert dict(everything(store)) == {KEY: CONTENT}


def test_the_same_content_is_not_replaced(root: Path, store: ScriptedStore) -> None:
    """Nothing is replaced because a key is taken, but only after looking at what it holds."""
    there = store.put(KEY, CONTENT, size=len(CONTENT))

    outcome = sender(root, store, REPLACE).send(journaled(root))

    assert isinstance(outcome, Delivered)
    assert (outcome.sent, outcome.replaced, outcome.etag) == (False, False, there.etag)


@pytest.mark.parametrize("known_by", [xxhash.xxh3_128_digest(b"older"), hashlib.md5(b"older").digest()])  # noqa: S324
def test_what_supersedes_an_object_of_ours_does_not_count_as_replacing(
    root: Path, store: ScriptedStore, known_by: bytes
) -> None:
    """It is known by its fingerprint, or by its MD5 where an older tool had sent it."""
    store.put(KEY, b"older", size=5)
    transfer = dataclasses.replace(journaled(root), superseded=(known_by,))

    outcome = sender(root, store, REPLACE).send(transfer)

    assert isinstance(outcome, Delivered)
    assert (outcome.sent, outcome.replaced) == (True, False)


class ContestedStore(LocalStore):
    """A store in which somebody else writes to a key just before we replace what it holds."""

    def __init__(self, root: Path, *, rivals: list[bytes]) -> None:
        super().__init__(root)
        self.rivals = rivals

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
        if if_match is not None and self.rivals:
            rival = self.rivals.pop(0)
            super().put(key, rival, size=len(rival))
        return super().put(key, body, size=size, create_only=create_only, if_match=if_match)


@pytest.fixture
def central(tmp_path: Path) -> Path:
    central = tmp_path / "central"
    central.mkdir(exist_ok=True)
    return central


def test_replacing_is_tried_again_when_somebody_else_was_quicker(root: Path, central: Path) -> None:
    store = ContestedStore(central, rivals=[b"rival"])
    store.put(KEY, b"other", size=5)

    outcome = sender(root, store, REPLACE).send(journaled(root))

    assert isinstance(outcome, Delivered)
    assert outcome.replaced
    assert dict(everything(store)) == {KEY: CONTENT}


def test_a_key_to_which_others_keep_writing_is_taken(root: Path, central: Path) -> None:
    store = ContestedStore(central, rivals=[b"rival %d" % number for number in range(CONTESTS)])
    store.put(KEY, b"other", size=5)

    outcome = sender(root, store, REPLACE).send(journaled(root))

    assert isinstance(outcome, Failed)
    assert outcome.kind is FailureKind.KEY_TAKEN
    assert dict(everything(store)) == {KEY: b"rival 1"}


def test_what_a_rival_wrote_may_be_the_right_content(root: Path, central: Path) -> None:
    """As when the answer to our own request was lost. What was there before is gone, and that is told."""
    store = ContestedStore(central, rivals=[CONTENT])
    store.put(KEY, b"other", size=5)

    outcome = sender(root, store, REPLACE).send(journaled(root))

    assert isinstance(outcome, Delivered)
    assert (outcome.sent, outcome.replaced) == (False, True)


class ShakyStore(LocalStore):
    """A store in which objects are replaced while they are read."""

    def open(self, key: str, *, offset: int = 0) -> ObjectStream:
        raise PreconditionFailed(f"{key} is another one by now")


@pytest.mark.parametrize("terms", [Terms(), REPLACE], ids=["never", "replace"])
def test_what_could_not_be_looked_at_is_not_replaced(root: Path, central: Path, terms: Terms) -> None:
    """It is the trouble of this file, and the run goes on."""
    LocalStore(central).put(KEY, b"other", size=5)

    outcome = sender(root, ShakyStore(central), terms).send(journaled(root))

    assert isinstance(outcome, Failed)
    assert outcome.kind is FailureKind.KEY_TAKEN
    assert dict(everything(LocalStore(central))) == {KEY: b"other"}


def test_an_object_that_is_replaced_before_it_was_proven_is_not_delivered(root: Path, central: Path) -> None:
    outcome = sender(root, ShakyStore(central)).send(journaled(root))

    assert isinstance(outcome, Failed)
    assert outcome.kind is FailureKind.NOT_PROVEN


def test_a_key_that_becomes_free_meanwhile_is_used(root: Path, store: ScriptedStore) -> None:
    def somebody_deletes(stored: StoredObject) -> StoredObject:
        store.delete(KEY)
        raise ObjectExists("it is there")

    store.script.append(somebody_deletes)

    outcome = sender(root, store).send(journaled(root))

    assert isinstance(outcome, Delivered)
    assert outcome.sent
    assert dict(everything(store)) == {KEY: CONTENT}


def test_what_is_written_beside_an_object(root: Path, store: ScriptedStore) -> None:
    """The fingerprint is there though the journal did not know it: it is that of what was read."""
    transfer = dataclasses.replace(journaled(root), fingerprint=None, version="spring \N{SNOWMAN}")

    sender(root, store, Terms(tier="Cool")).send(transfer)

    (properties,) = store.properties
    assert properties.tier == "Cool"
    assert properties.metadata == {
        "source_mtime_us": str(transfer.mtime_us),
        "fingerprint": xxhash.xxh3_128_hexdigest(CONTENT),
        "journal_version": "spring%20%E2%98%83",
        "tool_version": __version__,
    }


def test_a_service_that_has_a_twin_is_spared(root: Path, central: Path) -> None:
    store = CopyingStore(central)
    twin = store.put("20230101000000/b.dat", CONTENT, size=len(CONTENT))
    transfer = dataclasses.replace(journaled(root), twin=Twin(twin.key, twin.etag))

    outcome = sender(root, store).send(transfer)

    assert isinstance(outcome, Delivered)
    assert (outcome.sent, outcome.spared) == (True, len(CONTENT))


def test_after_a_wrong_arrival_everything_is_sent(root: Path, store: ScriptedStore) -> None:
    """The twin may have been what was wrong."""
    store.script.append(wrong)
    transfer = dataclasses.replace(journaled(root), twin=Twin("20230101000000/b.dat", "etag"))

    outcome = sender(root, store).send(transfer)

    assert isinstance(outcome, Delivered)
    assert store.twins == [transfer.twin, None]


def grow(path: Path) -> None:
    path.write_bytes(CONTENT + b"more")


def truncate(path: Path) -> None:
    path.write_bytes(CONTENT[:100])


def touch(path: Path) -> None:
    os.utime(path, (1, 1))


def rewrite(path: Path) -> None:
    """Other content, and everything that can be seen without reading as it was."""
    times = path.stat()
    path.write_bytes(CONTENT[::-1])
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def remove(path: Path) -> None:
    path.unlink()


def replace_by_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def replace_by_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


CHANGES = {
    grow: FailureKind.CHANGED,
    truncate: FailureKind.CHANGED,
    touch: FailureKind.CHANGED,
    rewrite: FailureKind.CHANGED,
    remove: FailureKind.VANISHED,
}
TYPES = {replace_by_directory: FailureKind.UNREADABLE, replace_by_pipe: FailureKind.UNREADABLE}


@pytest.mark.parametrize("change", [*CHANGES, *TYPES], ids=lambda change: change.__name__)
def test_a_file_that_changed_since_the_journal_is_not_sent(root: Path, store: ScriptedStore, change: object) -> None:
    transfer = journaled(root)
    assert callable(change)
    change(root / "a.dat")

    outcome = sender(root, store).send(transfer)

    assert isinstance(outcome, Failed)
    assert outcome.kind is (CHANGES | TYPES)[change]
    assert dict(everything(store)) == {}


@pytest.mark.parametrize("change", [grow, truncate, touch, remove], ids=lambda change: change.__name__)
def test_a_file_that_changes_while_it_is_read_is_not_sent(root: Path, store: ScriptedStore, change: object) -> None:
    transfer = journaled(root)
    assert callable(change)
    source = ChangingSource(root, lambda: change(root / "a.dat"))

    outcome = sender(source, store).send(transfer)

    assert isinstance(outcome, Failed)
    assert outcome.kind is CHANGES[change]
    assert dict(everything(store)) == {}


def test_a_file_known_only_by_its_md5_is_compared_by_that(root: Path, store: ScriptedStore) -> None:
    known = dataclasses.replace(journaled(root), fingerprint=None, md5=b"\1" * 16)

    outcome = sender(root, store).send(known)

    assert isinstance(outcome, Failed)
    assert outcome.kind is FailureKind.CHANGED


def test_a_file_that_was_never_read_gets_its_hashes_while_it_is_sent(root: Path, store: ScriptedStore) -> None:
    outcome = sender(root, store).send(dataclasses.replace(journaled(root), fingerprint=None))

    assert isinstance(outcome, Delivered)
    assert outcome.fingerprint == xxhash.xxh3_128_digest(CONTENT)


@pytest.mark.parametrize("content", [b"", b"x"])
def test_empty_and_tiny_files_are_files(root: Path, store: ScriptedStore, content: bytes) -> None:
    (root / "a.dat").write_bytes(content)
    transfer = dataclasses.replace(journaled(root), fingerprint=xxhash.xxh3_128_digest(content))

    assert isinstance(sender(root, store).send(transfer), Delivered)
    assert dict(everything(store)) == {KEY: content}


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (TransientError("the network is down"), FailureKind.TRANSIENT),
        (StorageError("that name is not possible here"), FailureKind.REFUSED),
        (SessionLost("another program writes it, too"), FailureKind.REFUSED),
        (AccessDenied("no"), FailureKind.DENIED),
        (ObjectNotFound("the parts of it are gone"), FailureKind.REFUSED),
    ],
)
def test_trouble_with_one_file_is_an_outcome(
    root: Path, store: ScriptedStore, error: StorageError, kind: FailureKind
) -> None:
    def fail(stored: StoredObject) -> StoredObject:
        raise error

    store.script.append(fail)

    outcome = sender(root, store).send(journaled(root))

    assert isinstance(outcome, Failed)
    assert (outcome.kind, outcome.detail) == (kind, error.message)


class RefusingStore(ScriptedStore):
    """A store that finds out itself that a body is not what it should be, so many times."""

    refusals = 0

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
        if self.refusals:
            self.refusals -= 1
            self.twins.append(twin)
            raise IntegrityError("refused by its checksum")
        return super().put(
            key, body, size=size, create_only=create_only, if_match=if_match, properties=properties, twin=twin
        )


def test_what_a_service_finds_to_be_wrong_is_sent_again_and_not_copied(root: Path, tmp_path: Path) -> None:
    with RefusingStore(tmp_path) as store:
        store.refusals = WRONG_ARRIVALS - 1
        transfer = dataclasses.replace(journaled(root), twin=Twin("another", "etag"))

        assert isinstance(sender(root, store).send(transfer), Delivered)
        assert store.twins == [transfer.twin, None, None]

        store.delete(KEY)
        store.refusals = WRONG_ARRIVALS
        outcome = sender(root, store).send(transfer)

        assert isinstance(outcome, Failed)
        assert (outcome.kind, outcome.detail) == (FailureKind.NOT_PROVEN, "refused by its checksum")


@pytest.mark.parametrize("error", [CredentialsExpired("too late"), TlsError("who is it?"), StoreFull("full")])
def test_trouble_with_every_file_is_raised(root: Path, store: ScriptedStore, error: StorageError) -> None:
    def fail(stored: StoredObject) -> StoredObject:
        raise error

    store.script.append(fail)

    with pytest.raises(type(error)):
        sender(root, store).send(journaled(root))


def test_a_store_that_is_gone_is_no_trouble_of_one_file(root: Path, store: ScriptedStore, tmp_path: Path) -> None:
    def fail(stored: StoredObject) -> StoredObject:
        (tmp_path / "central").rename(tmp_path / "elsewhere")
        raise ObjectNotFound("there is no such container")

    store.script.append(fail)

    with pytest.raises(ObjectNotFound, match=str(tmp_path)):
        sender(root, store).send(journaled(root))


class ClosedStore(ScriptedStore):
    """A store that lets nobody write, once it is closed."""

    is_closed = False

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
        if self.is_closed:
            raise AccessDenied("no")
        return super().put(
            key, body, size=size, create_only=create_only, if_match=if_match, properties=properties, twin=twin
        )


def test_what_was_accepted_shows_whether_we_are_let_in(root: Path, tmp_path: Path) -> None:
    (tmp_path / "central").mkdir()
    with ClosedStore(tmp_path / "central") as store:
        sending, transfer = sender(root, store), journaled(root)
        sending.send(transfer)

        def let_in() -> bool | None:
            return sending.is_let_in(transfer.modality, transfer.path, key=transfer.key, size=transfer.size)

        assert let_in() is True
        store.is_closed = True
        assert let_in() is False
        store.is_closed = False
        # Where the receiver has moved it away nothing is told by it, and it is not written again.
        store.delete(transfer.key)
        assert let_in() is None
        assert store.stat(transfer.key) is None
        (root / transfer.path).unlink()
        assert let_in() is None


def test_what_is_there_already_is_recognised_without_sending(root: Path, store: ScriptedStore) -> None:
    absent = sender(root, store).recognise(journaled(root))
    store.put(KEY, CONTENT, size=len(CONTENT))
    there = sender(root, store).recognise(journaled(root))

    assert isinstance(absent, Failed)
    assert absent.kind is FailureKind.NOT_PROVEN
    assert isinstance(there, Delivered)
    assert store.puts == [KEY]
