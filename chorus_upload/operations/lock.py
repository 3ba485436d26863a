"""The lock of a cloud journal: an object beside it, made by an atomic create, that says who holds it."""

from __future__ import annotations

import json
import os
import uuid
from dataclasses import dataclass
from datetime import datetime

from chorus_upload.errors import ObjectExists
from chorus_upload.journal.journal import now_us
from chorus_upload.journal.who import Who
from chorus_upload.storage.store import Store

SQLITE_MAGIC = b"SQLite format 3\x00"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """What a lock says. `id` is what its holder recognises it by; `journal_etag` is None for a new journal.

    The older tool's lock is a copy of the journal: it has no holder that could be named.
    """

    id: str
    owner: str
    host: str
    process: int
    since_us: int
    tool_version: str
    journal_etag: str | None
    etag: str
    of_older_tool: bool = False

    @property
    def sentence(self) -> str:
        """Who holds the journal since when, for people."""
        if self.of_older_tool:
            return "an older chorus-upload holds it"
        since = datetime.fromtimestamp(self.since_us / 1e6).astimezone().isoformat(sep=" ", timespec="seconds")
        return f"{self.owner} on {self.host} holds it since {since} (process {self.process})"


def lock_key(journal_name: str) -> str:
    """The name that sites and older tools know."""
    return f"{journal_name}.locked"


def acquire(store: Store, journal_name: str, *, journal_etag: str | None, who: Who) -> Lock | None:
    """Take the lock; None when somebody else has it."""
    content: dict[str, object] = {
        "id": uuid.uuid4().hex,
        "owner": who.user,
        "host": who.host,
        "process": os.getpid(),
        "since_us": now_us(),
        "tool_version": who.tool_version,
        "journal_etag": journal_etag,
    }
    body = json.dumps(content, indent=2).encode()
    try:
        stored = store.put(lock_key(journal_name), body, size=len(body), create_only=True)
    except ObjectExists:
        # Ours, if only the answer to our request was lost and it was sent again.
        there = read(store, journal_name)
        return there if there is not None and there.id == content["id"] else None
    return _parse(body, etag=stored.etag, since_us=stored.time_us)


def read(store: Store, journal_name: str) -> Lock | None:
    """The lock that is there now; None when the journal is not locked."""
    key = lock_key(journal_name)
    found = store.stat(key)
    if found is None:
        return None
    with store.open(key) as stream:
        body = stream.read(1 << 16)
    return _parse(body, etag=found.etag, since_us=found.time_us)


def release(store: Store, journal_name: str, *, etag: str | None) -> None:
    """Remove the lock of that etag; None removes whatever is there. Raises PreconditionFailed if it is another."""
    store.delete(lock_key(journal_name), if_match=etag)


def _parse(body: bytes, *, etag: str, since_us: int) -> Lock:
    try:
        content = json.loads(body)
        return Lock(
            id=str(content["id"]),
            owner=str(content["owner"]),
            host=str(content["host"]),
            process=int(content["process"]),
            since_us=int(content["since_us"]),
            tool_version=str(content["tool_version"]),
            journal_etag=content["journal_etag"],
            etag=etag,
        )
    except (ValueError, KeyError, TypeError):
        return Lock(
            id="",
            owner="",
            host="",
            process=0,
            since_us=since_us,
            tool_version="",
            journal_etag=None,
            etag=etag,
            of_older_tool=True,
        )
