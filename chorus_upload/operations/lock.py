"""The lock of a cloud journal: an object beside it, made by an atomic create, that says who holds it.

Its holder knows it by its id, for whoever works under it renews it every few minutes, and each time it gets
another etag. A lock is never broken here because of its age: that is for a person to decide (`journal unlock`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import datetime

from chorus_upload.errors import ObjectExists, ObjectNotFound, PreconditionFailed, TransientError
from chorus_upload.journal.journal import now_us
from chorus_upload.journal.who import Who
from chorus_upload.storage.store import Store
from chorus_upload.storage.tries import tries
from chorus_upload.transfer.evidence import read_surely

SQLITE_MAGIC = b"SQLite format 3\x00"

RENEW_SECONDS = 300.0
"""How often a command that works under a lock renews it."""

STALE_SECONDS = 3_600.0
"""A lock that a command holds, and has not renewed for so long, is called stale."""

_TRIES = 5
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 1.0
_END_OF_CLOCKS_US = 253_402_000_000_000_000
"""In the year 9999, after which Python has no dates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """What a lock says. `journal_etag` is the journal's that was taken under it, None for a new one.

    `by_hand`: it was taken by `journal checkout`, and between the commands that follow nobody renews it.
    `etag` is that of the lock itself, as it is now, and `written_us` when that was stored, by the clock of the store.
    The older tool's lock is a copy of the journal: it has no holder that could be named.
    """

    id: str
    owner: str
    host: str
    process: int
    since_us: int
    renewed_us: int
    tool_version: str
    journal_etag: str | None
    by_hand: bool
    etag: str
    written_us: int = 0
    of_older_tool: bool = False

    @property
    def alive_us(self) -> int:
        """The last sign of life. The clock of the holder may be wrong, and that of the store seldom is."""
        return max(self.renewed_us, self.written_us)

    @property
    def is_stale(self) -> bool:
        """Whether a command ought to have renewed it long ago."""
        return not (self.of_older_tool or self.by_hand) and now_us() - self.alive_us > STALE_SECONDS * 1e6

    @property
    def sentence(self) -> str:
        """Who holds the journal since when, for people."""
        if self.of_older_tool:
            return "an older chorus-upload holds it"
        how = f"process {self.process}, last sign of life {_moment(self.alive_us)}"
        if self.by_hand:
            how += ", taken by `journal checkout`"
        if self.is_stale:
            how += ", stale"
        return f"{self.owner} on {self.host} holds it since {_moment(self.since_us)} ({how})"

    @property
    def advice(self) -> str:
        """What somebody can do who is refused because of it."""
        if self.is_stale:
            return (
                "No command has renewed this lock for long. On that machine, repeat the command or run"
                " `journal checkin`: nothing is lost. If the machine is gone for good: `journal unlock`."
            )
        if self.by_hand:
            return "Wait for `journal checkin`, or ask that person. If the machine is gone for good: `journal unlock`."
        return "Wait, or ask that person. If the process is dead for good: `journal unlock`."


def lock_key(journal_name: str) -> str:
    """The name that sites and older tools know."""
    return f"{journal_name}.locked"


def acquire(
    store: Store, journal_name: str, *, lock_id: str, journal_etag: str | None, who: Who, by_hand: bool
) -> Lock | None:
    """Take the lock under an id that nobody else has; None when somebody else holds it."""
    now = now_us()
    wanted = Lock(
        id=lock_id,
        owner=who.user,
        host=who.host,
        process=os.getpid(),
        since_us=now,
        renewed_us=now,
        tool_version=who.tool_version,
        journal_etag=journal_etag,
        by_hand=by_hand,
        etag="",
    )
    body = _written(wanted)
    try:
        stored = store.put(lock_key(journal_name), body, size=len(body), create_only=True)
    except ObjectExists:
        # Ours, if only the answer to our request was lost and it was sent again.
        there = read(store, journal_name)
        return there if there is not None and there.id == lock_id else None
    return replace(wanted, etag=stored.etag, written_us=stored.time_us)


def read(store: Store, journal_name: str) -> Lock | None:
    """The lock that is there now; None when the journal is not locked.

    TransientError when the store says again and again that there is one, and then that there is none.
    """
    key = lock_key(journal_name)
    for _ in _tries():
        if (found := store.stat(key)) is None:
            return None
        body = bytearray()

        def take(blocks: Iterator[bytes], body: bytearray = body) -> None:
            # A lock of the older tool is a whole journal.
            body[:] = next(blocks, b"")

        try:
            read_surely(store, key, take)
        except ObjectNotFound:
            # Given back between the two requests: look again, for somebody may have taken it since.
            continue
        return _parse(bytes(body), etag=found.etag, written_us=found.time_us)
    raise TransientError(
        f"{key} in {store.url} is said to be there, and cannot be read: there is no such object",
        hint="Does something between here and the service keep old responses? Repeat the command.",
    )


def renew(store: Store, journal_name: str, *, lock_id: str, who: Who, by_hand: bool) -> Lock | None:
    """Give a sign of life under the lock of that id; gives the lock that is there then, which may be another's.

    This process is named as the one that works under it. A lock that is gone is not made again.
    """
    for _ in _tries():
        there = read(store, journal_name)
        if there is None or there.id != lock_id:
            return there
        renewed = replace(
            there,
            owner=who.user,
            host=who.host,
            process=os.getpid(),
            tool_version=who.tool_version,
            renewed_us=now_us(),
            by_hand=by_hand,
        )
        try:
            return _rewrite(store, journal_name, renewed)
        except PreconditionFailed:
            # Renewed by a request whose answer was lost, or broken in this moment: look again.
            continue
    return there


def note_journal(store: Store, journal_name: str, held: Lock, *, journal_etag: str | None) -> None:
    """Have a lock that was just taken name the journal that is taken under it."""
    if held.journal_etag != journal_etag:
        try:
            _rewrite(store, journal_name, replace(held, journal_etag=journal_etag))
        except PreconditionFailed:
            # It is there for people; whether the lock is still ours shows at the check-in.
            return


def release(store: Store, journal_name: str, *, lock_id: str) -> bool:
    """Remove the lock of that id, and no other; gives whether it was there."""
    for _ in _tries():
        there = read(store, journal_name)
        if there is None or there.id != lock_id:
            return False
        try:
            store.delete(lock_key(journal_name), if_match=there.etag)
        except PreconditionFailed:
            continue
        return True
    return False


def break_open(store: Store, journal_name: str, held: Lock) -> None:
    """Remove a lock as it was read, whoever holds it. Raises PreconditionFailed if it is another by now."""
    store.delete(lock_key(journal_name), if_match=held.etag)


def _tries() -> Iterator[int]:
    return tries(_TRIES, first=_FIRST_PAUSE_SECONDS, longest=_LONGEST_PAUSE_SECONDS)


def _rewrite(store: Store, journal_name: str, lock: Lock) -> Lock:
    body = _written(lock)
    stored = store.put(lock_key(journal_name), body, size=len(body), if_match=lock.etag)
    return replace(lock, etag=stored.etag, written_us=stored.time_us)


def _written(lock: Lock) -> bytes:
    content = asdict(lock)
    del content["etag"], content["written_us"], content["of_older_tool"]
    return json.dumps(content, indent=2).encode()


def _parse(body: bytes, *, etag: str, written_us: int) -> Lock:
    try:
        content = json.loads(body)
        return Lock(
            id=str(content["id"]),
            owner=str(content["owner"]),
            host=str(content["host"]),
            process=int(content["process"]),
            since_us=_time_in(content["since_us"]),
            renewed_us=_time_in(content["renewed_us"]),
            written_us=written_us,
            tool_version=str(content["tool_version"]),
            journal_etag=content["journal_etag"],
            by_hand=bool(content["by_hand"]),
            etag=etag,
        )
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return Lock(
            id="",
            owner="",
            host="",
            process=0,
            since_us=written_us,
            renewed_us=written_us,
            written_us=written_us,
            tool_version="",
            journal_etag=None,
            by_hand=False,
            etag=etag,
            of_older_tool=True,
        )


def _time_in(value: object) -> int:
    """A time of a lock; ValueError for one that no clock shows."""
    time_us = int(str(value))
    if not 0 <= time_us < _END_OF_CLOCKS_US:
        raise ValueError("not a time")
    return time_us


def _moment(time_us: int) -> str:
    return datetime.fromtimestamp(time_us / 1e6).astimezone().isoformat(sep=" ", timespec="seconds")
