"""Sends one file well: checked before and after it is read, never published wrong, judged by its evidence."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple, cast

import xxhash

from chorus_upload.errors import (
    AccessDenied,
    ConditionsIgnored,
    CredentialsExpired,
    IntegrityError,
    NotAsStored,
    ObjectExists,
    ObjectNotFound,
    OutOfResources,
    PreconditionFailed,
    StorageError,
    StoreFull,
    TlsError,
    TransientError,
)
from chorus_upload.model import Delivered, Evidence, Failed, FailureKind, Outcome, Problem, Transfer
from chorus_upload.storage.source import FileReplaced, FileStat, Source
from chorus_upload.storage.store import Properties, Store, StoredObject
from chorus_upload.storage.traffic import Traffic
from chorus_upload.transfer.content import Content, metadata_of, require_known, require_no_secret, require_same
from chorus_upload.transfer.evidence import Verdict, judge, read_back
from chorus_upload.transfer.meter import Meter
from chorus_upload.transfer.reader import BLOCK, CheckedStream, SourceChanged, Stopped, md5_of, read_file
from chorus_upload.transfer.turns import Turns

WRONG_ARRIVALS = 3
"""How often a file is sent again after something else arrived than was sent."""
COPIED_BYTES = 64 << 10
"""Below this, having a service copy a file costs more than reading and sending it: two requests more."""
CONTESTS = 3
"""How often a file is sent to a key that turns out to hold something else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """On what terms files are delivered.

    `accept_size` says that equal sizes count as evidence when there is no better one to be had; `replace`, that
    other content under a file's key is replaced once it was looked at. `tier` is the storage class of the objects.
    """

    accept_size: bool = False
    replace: bool = False
    tier: str | None = None
    holds_secret: Callable[[bytes], bool] | None = None
    """Whether what a small file holds must not be sent."""


class _Held(NamedTuple):
    """What a key holds; without content when that was another one before it was read to its end."""

    etag: str
    content: tuple[bytes, bytes] | None


class Sender:
    """Delivers files from their sources (by modality) to one store. Used by many threads at once.

    What small files take of memory is held against the budget of `traffic`, which the store shares. When `stop` is
    set, a large file under way is given up.
    """

    def __init__(
        self,
        sources: Mapping[str, Source],
        store: Store,
        terms: Terms,
        *,
        meter: Meter,
        traffic: Traffic,
        stop: threading.Event | None = None,
    ) -> None:
        self._sources = sources
        self._store = store
        self._terms = terms
        self._meter = meter
        self._traffic = traffic
        self._stop = stop or threading.Event()
        self._read_at_once = store.capabilities.one_request_limit
        # Modalities may share a source, and then they share its turns.
        turns = {id(source): Turns(self._stop) for source in sources.values() if source.is_sequential}
        self._turns = {name: turns[id(source)] for name, source in sources.items() if source.is_sequential}

    def announce(self, transfer: Transfer) -> None:
        """This is sent next: where the order matters in which files are read, it is the one in which they come here.

        Whatever is announced has to be begun in that order.
        """
        if turns := self._turns.get(transfer.modality):
            turns.announce(transfer.file_id)

    def postpone(self, transfer: Transfer) -> None:
        """It was announced, and is not sent now: nobody has to wait for it to be read."""
        if turns := self._turns.get(transfer.modality):
            turns.leave(transfer.file_id)

    def send(self, transfer: Transfer) -> Outcome:
        """Deliver one file. What is wrong with this file is an outcome.

        Raises StorageError when the trouble is certainly not this file's (expired credentials, no trust in the other
        end, a full disk), OutOfResources, and Stopped.
        """
        return self._attempt(self._send, transfer)

    @property
    def modalities(self) -> Iterable[str]:
        """Those whose files it can send."""
        return self._sources

    def is_let_in(self, modality: str, path: str, *, key: str, size: int) -> bool | None:
        """Whether the store would still take a file that it has taken before; None when that cannot be told.

        The file is sent on condition that its key is free, which it is not. What the receiver has moved away tells
        nothing: it would be written again, unseen.
        """
        if size > max(self._read_at_once, BLOCK):
            return None
        try:
            if self._store.stat(key) is None:
                return None
        except (ConditionsIgnored, CredentialsExpired, TlsError, StoreFull):
            raise
        except StorageError:
            return None
        try:
            data, _ = self._sources[modality].read_small(path, size=size)
            if len(data) != size:
                return None
            self._store.put(key, data, size=size, create_only=True)
        except (ConditionsIgnored, CredentialsExpired, TlsError, StoreFull):
            raise
        except AccessDenied as error:
            return None if error.is_of_source else False
        except (TransientError, OSError):
            return None
        except StorageError:
            return True
        return True

    def recognise(self, transfer: Transfer) -> Outcome:
        """Prove that a file is in the store already, without sending anything; else as `send`."""
        return self._attempt(self._recognise, transfer)

    def _attempt(self, do: Callable[[Transfer, float], Outcome], transfer: Transfer) -> Outcome:
        begun = time.monotonic()
        self._meter.begin(transfer)
        try:
            return do(transfer, begun)
        except SourceChanged as change:
            return _failed(transfer, change.kind, f"{change}; {change.advice}", begun)
        except FileReplaced:
            return _failed(transfer, FailureKind.CHANGED, "it was replaced while it was read", begun)
        except FileNotFoundError:
            return _failed(transfer, FailureKind.VANISHED, "it is not there any more; run `journal update`", begun)
        except OSError as error:
            if exhausted := OutOfResources.of(error):
                raise exhausted from error
            return _failed(transfer, FailureKind.UNREADABLE, error.strerror or str(error), begun)
        except StorageError as error:
            return self._refused(transfer, error, begun)
        finally:
            self._meter.end(transfer)
            self.postpone(transfer)

    def _refused(self, transfer: Transfer, error: StorageError, begun: float) -> Failed:
        """Return the outcome of what a store raised; raise what certainly concerns every file."""
        match error:
            case NotAsStored():
                kind = FailureKind.UNREADABLE
            case TransientError():
                if self._stop.is_set():
                    # What is given up because the run is to end says nothing about the file.
                    raise Stopped from None
                kind = FailureKind.TRANSIENT
            case IntegrityError():
                kind = FailureKind.NOT_PROVEN
            case ConditionsIgnored() | CredentialsExpired() | TlsError() | StoreFull():
                raise error
            case AccessDenied():
                kind = FailureKind.UNREADABLE if error.is_of_source else FailureKind.DENIED
            case ObjectNotFound():
                # Of the whole container or directory, which is raised then, or of something of this object.
                self._store.probe()
                kind = FailureKind.REFUSED
            case _:
                kind = FailureKind.REFUSED
        is_said = kind not in (FailureKind.TRANSIENT, FailureKind.NOT_PROVEN) and error.hint is not None
        return _failed(transfer, kind, f"{error.message}. {error.hint}" if is_said else error.message, begun)

    def _turn(self, transfer: Transfer) -> AbstractContextManager[None]:
        turns = self._turns.get(transfer.modality)
        return nullcontext() if turns is None else turns.turn(transfer.file_id)

    def _send(self, transfer: Transfer, begun: float) -> Outcome:
        """Deliver the file to a key that is free, holds what it supersedes, or may be replaced."""
        content: Content | None = None
        read: list[Content] = []
        replaced = False
        is_taken = transfer.may_be_there and self._is_taken(transfer)
        for _ in range(CONTESTS):
            if not is_taken:
                with suppress(ObjectExists, PreconditionFailed):
                    return self._deliver(transfer, begun, replaced=replaced, read=read)
            is_taken = False
            # The key is taken. By this very content, from a run that died before recording it? Look and see.
            # What was read to be sent need not be read again; of a tape that would cost a pass.
            content = content or (read[-1] if read else self._read(transfer))
            held = self._look(transfer.key)
            if held is None:
                transfer = dataclasses.replace(transfer, replaces=None)
            elif _is_same(held, content):
                return _delivered(transfer, content, Evidence.READBACK, held.etag, begun, sent=False, replaced=replaced)
            elif held.content is not None and not set(transfer.superseded).isdisjoint(held.content):
                transfer = dataclasses.replace(transfer, replaces=held.etag)
            elif held.content is not None and self._terms.replace:
                transfer = dataclasses.replace(transfer, replaces=held.etag)
                replaced = True
            else:
                break
        return _key_taken(transfer, begun)

    def _recognise(self, transfer: Transfer, begun: float) -> Outcome:
        content = self._read(transfer)
        held = self._look(transfer.key)
        if held is None:
            return _failed(transfer, FailureKind.NOT_PROVEN, f"there is no {transfer.key} in the store", begun)
        if not _is_same(held, content):
            return _key_taken(transfer, begun)
        return _delivered(transfer, content, Evidence.READBACK, held.etag, begun, sent=False)

    def _deliver(self, transfer: Transfer, begun: float, *, replaced: bool, read: list[Content]) -> Delivered:
        """Raises ObjectExists or PreconditionFailed when the key is not as the transfer says.

        `read` gets the content when all of it was read, and is what the transfer says.
        """
        source = self._sources[transfer.modality]
        if copied := self._copied(source, transfer):
            stored, content = copied
            evidence = judge(stored, size=transfer.size, md5=content.md5)
            if isinstance(evidence, Evidence):
                spared = transfer.size
                return _delivered(transfer, content, evidence, stored.etag, begun, spared=spared, replaced=replaced)
        failure: StorageError = IntegrityError(f"what arrived differed from what was sent, {WRONG_ARRIVALS} times")
        for _ in range(WRONG_ARRIVALS):
            try:
                stored, content = self._put(source, transfer, read)
            except NotAsStored as error:
                if transfer.size <= self._read_at_once:
                    raise
                # One bit may have become another one on its way to here; a small file was read again by its source.
                failure = error
                continue
            except IntegrityError as error:
                # The service noticed itself, at the end of a body that cannot be read twice; it keeps nothing of it.
                failure = error
                transfer = dataclasses.replace(transfer, twin=None)
                continue
            verdict = judge(stored, size=transfer.size, md5=content.md5)
            if verdict is Verdict.UNPROVEN:
                verdict = self._prove(transfer, content)
            if isinstance(verdict, Evidence):
                return _delivered(
                    transfer, content, verdict, stored.etag, begun, spared=stored.spared, replaced=replaced
                )
            # The wrong object must not stay under a right name; somebody may have replaced it already, though.
            with suppress(PreconditionFailed):
                self._store.delete(transfer.key, if_match=stored.etag)
            # Next time all of it is sent, whatever else might do.
            transfer = dataclasses.replace(transfer, twin=None)
        raise failure

    def _copied(self, source: Source, transfer: Transfer) -> tuple[StoredObject, Content] | None:
        """What the service says after it copied the file by itself; None when the file has to come by here.

        Of a file that is known by its fingerprint alone, the service cannot say whether it still is that.
        """
        if source.service is None or source.service != self._store.service or transfer.size < COPIED_BYTES:
            return None
        if transfer.fingerprint is not None and transfer.md5 is None:
            return None
        origin = source.origin(transfer.path)
        if origin is None or transfer.md5 not in (None, origin.md5):
            return None
        require_same(FileStat(origin.size, origin.time_us), transfer)
        content = Content(transfer.fingerprint, origin.md5)
        stored = self._store.copy(
            transfer.key,
            origin,
            create_only=transfer.replaces is None,
            if_match=transfer.replaces,
            properties=lambda: Properties(metadata_of(transfer, content.fingerprint), self._terms.tier, content.md5),
        )
        return None if stored is None else (stored, content)

    def _put(self, source: Source, transfer: Transfer, read: list[Content]) -> tuple[StoredObject, Content]:
        """Read the file once, and send it on the condition that it is what the journal says."""
        if transfer.size <= self._read_at_once:
            return self._put_small(source, transfer, read)
        self._meter.begin(transfer)
        with self._turn(transfer), source.open(transfer.path) as stream:
            require_same(source.open_stat(stream), transfer)

            def verify(body: CheckedStream) -> None:
                require_same(source.open_stat(stream), transfer)
                require_same(source.stat(transfer.path), transfer)
                content = Content(body.fingerprint, body.md5)
                require_known(transfer, content)
                require_no_secret(body.kept, self._terms.holds_secret)
                said = source.open_md5(stream)
                is_known = transfer.fingerprint is not None or transfer.md5 is not None
                if said not in (None, content.md5) and not is_known:
                    raise NotAsStored.of(transfer.path, found=content.md5, said=said)
                read.append(content)

            body = CheckedStream(
                stream, size=transfer.size, verify=verify, on_bytes=lambda count: self._sent(transfer, count)
            )
            stored = self._store_body(transfer, cast(BinaryIO, body), lambda: Content(body.fingerprint, body.md5))
            return stored, Content(body.fingerprint, body.md5)

    def _put_small(self, source: Source, transfer: Transfer, read: list[Content]) -> tuple[StoredObject, Content]:
        with ExitStack() as held:
            with self._turn(transfer):
                # What may be copied goes in blocks, for which the store takes the room: never twice for one file.
                held.enter_context(self._traffic.room(transfer.size if transfer.twin is None else 0))
                data, state = source.read_small(transfer.path, size=transfer.size)
            require_same(state, transfer)
            if len(data) != transfer.size:
                raise SourceChanged("it changed while it was read")
            require_no_secret(data, self._terms.holds_secret)
            content = Content(xxhash.xxh3_128_digest(data), md5_of(data))
            require_known(transfer, content)
            read.append(content)
            return self._store_body(transfer, data, lambda: content), content

    def _sent(self, transfer: Transfer, count: int) -> None:
        self._meter.add(transfer, count)
        if self._stop.is_set():
            raise Stopped

    def _store_body(self, transfer: Transfer, body: bytes | BinaryIO, content: Callable[[], Content]) -> StoredObject:
        def properties() -> Properties:
            fingerprint, md5 = content()
            return Properties(metadata_of(transfer, fingerprint), self._terms.tier, md5)

        return self._store.put(
            transfer.key,
            body,
            size=transfer.size,
            create_only=transfer.replaces is None,
            if_match=transfer.replaces,
            properties=properties,
            twin=transfer.twin,
        )

    def _prove(self, transfer: Transfer, content: Content) -> Evidence | Verdict:
        """Find evidence where the store's answer had none."""
        if self._terms.accept_size:
            return Evidence.SIZE
        try:
            returned = self._read_back(transfer.key, transfer.size)
        except (ObjectNotFound, PreconditionFailed):
            return Verdict.WRONG
        return Evidence.READBACK if returned == content else Verdict.WRONG

    def _read(self, transfer: Transfer) -> Content:
        """The content of the file, which has to be what the journal says."""
        expected = FileStat(transfer.size, transfer.mtime_us)
        with self._turn(transfer):
            reading = read_file(
                self._sources[transfer.modality], transfer.path, expected=expected, with_md5=True, stop=self._stop
            )
        if isinstance(reading, Problem):
            raise SourceChanged(reading.detail)
        require_same(FileStat(reading.size, reading.mtime_us), transfer)
        content = Content(reading.fingerprint or b"", reading.md5 or b"")
        require_known(transfer, content)
        return content

    def _is_taken(self, transfer: Transfer) -> bool:
        """Whether it would be sent in vain: to refuse it, a service has to be sent all of it."""
        there = self._store.stat(transfer.key)
        return there is not None and there.etag != transfer.replaces

    def _look(self, key: str) -> _Held | None:
        """Read what a key holds; None when it is free."""
        there = self._store.stat(key)
        if there is None:
            return None
        content = None
        with suppress(ObjectNotFound, PreconditionFailed):
            found = self._read_back(key, there.size)
            now = self._store.stat(key)
            if now is not None and now.etag == there.etag:
                content = found
        return _Held(there.etag, content)

    def _read_back(self, key: str, size: int) -> tuple[bytes, bytes] | None:
        # A small file is finished when the run is to end; to read a large one takes as long as to send it.
        return read_back(self._store, key, size=size, stop=self._stop if size > BLOCK else None)


def _is_same(held: _Held, content: Content) -> bool:
    return held.content == content


def _delivered(
    transfer: Transfer,
    content: Content,
    evidence: Evidence,
    etag: str,
    begun: float,
    *,
    sent: bool = True,
    spared: int = 0,
    replaced: bool = False,
) -> Delivered:
    return Delivered(
        transfer=transfer,
        fingerprint=content.fingerprint,
        md5=content.md5,
        evidence=evidence,
        etag=etag,
        at_us=time.time_ns() // 1000,
        seconds=time.monotonic() - begun,
        sent=sent,
        spared=spared,
        replaced=replaced,
    )


def _key_taken(transfer: Transfer, begun: float) -> Failed:
    return _failed(transfer, FailureKind.KEY_TAKEN, f"{transfer.key} holds other content; it was not touched", begun)


def _failed(transfer: Transfer, kind: FailureKind, detail: str, begun: float) -> Failed:
    return Failed(transfer, kind, detail, time.monotonic() - begun)
