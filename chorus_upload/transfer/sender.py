"""Sends one file well: checked before and after it is read, never published wrong, judged by its evidence."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import BinaryIO, NamedTuple, cast

import xxhash

from chorus_upload import __version__
from chorus_upload.errors import (
    IntegrityError,
    ObjectExists,
    ObjectNotFound,
    PreconditionFailed,
    StorageError,
    TransientError,
)
from chorus_upload.model import Delivered, Evidence, Failed, FailureKind, Outcome, Problem, Transfer
from chorus_upload.storage.source import FileStat, Source
from chorus_upload.storage.store import Properties, Store, StoredObject
from chorus_upload.transfer.evidence import Verdict, judge, read_back
from chorus_upload.transfer.meter import Meter
from chorus_upload.transfer.reader import CheckedStream, SourceChanged, Stopped, md5_of, read_file

WRONG_ARRIVALS = 3
"""How often a file is sent again after something else arrived than was sent."""


class _Content(NamedTuple):
    """The hashes of what was read from the source."""

    fingerprint: bytes
    md5: bytes


class Sender:
    """Delivers files from their sources (by modality) to one store. Used by many threads at once.

    `accept_size` says that equal sizes count as evidence when there is no better one to be had. When `stop` is
    set, a large file under way is given up.
    """

    def __init__(
        self,
        sources: Mapping[str, Source],
        store: Store,
        *,
        accept_size: bool,
        meter: Meter,
        stop: threading.Event | None = None,
    ) -> None:
        self._sources = sources
        self._store = store
        self._accept_size = accept_size
        self._meter = meter
        self._stop = stop or threading.Event()

    def send(self, transfer: Transfer) -> Outcome:
        """Deliver one file. What is wrong with this file is an outcome.

        Raises StorageError when the trouble is not this file's (no permission, expired credentials, no
        container, no trust in the other end), and Stopped.
        """
        return self._attempt(self._send, transfer)

    def recognise(self, transfer: Transfer) -> Outcome:
        """Prove that a file is in the store already, without sending anything; else as `send`."""
        return self._attempt(self._recognise, transfer)

    def _attempt(self, do: Callable[[Transfer, float], Outcome], transfer: Transfer) -> Outcome:
        begun = time.monotonic()
        self._meter.begin(transfer.path)
        try:
            return do(transfer, begun)
        except SourceChanged as change:
            return _failed(transfer, FailureKind.CHANGED, f"{change}; run `journal update`", begun)
        except FileNotFoundError:
            return _failed(transfer, FailureKind.VANISHED, "it is not there any more; run `journal update`", begun)
        except OSError as error:
            return _failed(transfer, FailureKind.UNREADABLE, error.strerror or str(error), begun)
        except TransientError as error:
            return _failed(transfer, FailureKind.TRANSIENT, error.message, begun)
        except IntegrityError as error:
            return _failed(transfer, FailureKind.NOT_PROVEN, error.message, begun)
        except StorageError as error:
            # The class itself: the service refuses this object. Its other subclasses concern every file.
            if type(error) is not StorageError:
                raise
            return _failed(transfer, FailureKind.REFUSED, error.message, begun)
        finally:
            self._meter.end(transfer.path)

    def _send(self, transfer: Transfer, begun: float) -> Outcome:
        source = self._sources[transfer.modality]
        for _ in range(WRONG_ARRIVALS):
            try:
                stored, content = self._put(source, transfer)
            except (ObjectExists, PreconditionFailed):
                return self._settle(transfer, begun)
            verdict = judge(stored, size=transfer.size, md5=content.md5)
            if verdict is Verdict.UNPROVEN:
                verdict = self._prove(transfer, content)
            if isinstance(verdict, Evidence):
                return _delivered(transfer, content, evidence=verdict, etag=stored.etag, begun=begun)
            # The wrong object must not stay under a right name; somebody may have replaced it already, though.
            with suppress(PreconditionFailed):
                self._store.delete(transfer.key, if_match=stored.etag)
        raise IntegrityError(f"what arrived differed from what was sent, {WRONG_ARRIVALS} times")

    def _put(self, source: Source, transfer: Transfer) -> tuple[StoredObject, _Content]:
        """Read the file once, and send it on the condition that it is what the journal says."""
        if transfer.size <= self._store.capabilities.one_request_limit:
            data, state = source.read_small(transfer.path, size=transfer.size)
            _require_same(state, transfer)
            if len(data) != transfer.size:
                raise SourceChanged("it changed while it was read")
            content = _Content(xxhash.xxh3_128_digest(data), md5_of(data))
            _require_known(transfer, content)
            return self._store_body(transfer, data), content
        with source.open(transfer.path) as stream:
            _require_same(source.open_stat(stream), transfer)

            def verify(body: CheckedStream) -> None:
                _require_same(source.open_stat(stream), transfer)
                _require_same(source.stat(transfer.path), transfer)
                _require_known(transfer, _Content(body.fingerprint, body.md5))

            body = CheckedStream(
                stream,
                size=transfer.size,
                verify=verify,
                on_bytes=lambda count: self._sent(transfer.path, count),
            )
            stored = self._store_body(transfer, cast(BinaryIO, body))
            return stored, _Content(body.fingerprint, body.md5)

    def _sent(self, path: str, count: int) -> None:
        self._meter.add(path, count)
        if self._stop.is_set():
            raise Stopped

    def _store_body(self, transfer: Transfer, body: bytes | BinaryIO) -> StoredObject:
        return self._store.put(
            transfer.key,
            body,
            size=transfer.size,
            create_only=transfer.replaces is None,
            if_match=transfer.replaces,
            properties=lambda: Properties(_metadata(transfer)),
            twin=transfer.twin,
        )

    def _prove(self, transfer: Transfer, content: _Content) -> Evidence | Verdict:
        """Find evidence where the store's answer had none."""
        if self._accept_size:
            return Evidence.SIZE
        try:
            returned = read_back(self._store, transfer.key, size=transfer.size)
        except ObjectNotFound:
            return Verdict.WRONG
        return Evidence.READBACK if returned == content else Verdict.WRONG

    def _settle(self, transfer: Transfer, begun: float) -> Outcome:
        """The key is taken. By this very content, from a run that died before recording it? Read it and see."""
        if transfer.replaces is not None and self._store.stat(transfer.key) is None:
            # What was to be replaced is gone, so the key is free.
            return self._send(dataclasses.replace(transfer, replaces=None), begun)
        return self._recognise(transfer, begun, replace=True)

    def _recognise(self, transfer: Transfer, begun: float, *, replace: bool = False) -> Outcome:
        expected = FileStat(transfer.size, transfer.mtime_us)
        reading = read_file(
            self._sources[transfer.modality], transfer.path, expected=expected, with_md5=True, stop=self._stop
        )
        if isinstance(reading, Problem):
            raise SourceChanged(reading.detail)
        _require_same(FileStat(reading.size, reading.mtime_us), transfer)
        content = _Content(reading.fingerprint or b"", reading.md5 or b"")
        _require_known(transfer, content)
        there = self._store.stat(transfer.key)
        if there is None:
            return _failed(transfer, FailureKind.NOT_PROVEN, f"there is no {transfer.key} in the store", begun)
        found = read_back(self._store, transfer.key, size=there.size)
        now = self._store.stat(transfer.key)
        if found is not None and now is not None and now.etag == there.etag:
            if found == content:
                return _delivered(
                    transfer, content, evidence=Evidence.READBACK, etag=there.etag, begun=begun, sent=False
                )
            if replace and found[0] in transfer.superseded and transfer.replaces != there.etag:
                return self._send(dataclasses.replace(transfer, replaces=there.etag), begun)
        return _failed(
            transfer, FailureKind.KEY_TAKEN, f"{transfer.key} holds other content; it was not touched", begun
        )


def _require_same(found: FileStat | None, transfer: Transfer) -> None:
    if found is None:
        raise FileNotFoundError
    if found.size != transfer.size:
        raise SourceChanged(f"its size is {found.size}, the journal says {transfer.size}")
    if found.mtime_us != transfer.mtime_us:
        raise SourceChanged("its time is not the one in the journal")


def _require_known(transfer: Transfer, content: _Content) -> None:
    """Compare by the fingerprint, or by the MD5 where an older tool left only that."""
    if transfer.fingerprint is not None:
        known = transfer.fingerprint == content.fingerprint
    else:
        known = transfer.md5 is None or transfer.md5 == content.md5
    if not known:
        raise SourceChanged("its content is not the one in the journal")


def _metadata(transfer: Transfer) -> dict[str, str]:
    """What the receiver may want to know of an object; evidence of nothing."""
    return {"source_mtime_us": str(transfer.mtime_us), "tool_version": __version__}


def _delivered(
    transfer: Transfer, content: _Content, *, evidence: Evidence, etag: str, begun: float, sent: bool = True
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
    )


def _failed(transfer: Transfer, kind: FailureKind, detail: str, begun: float) -> Failed:
    return Failed(transfer, kind, detail, time.monotonic() - begun)
