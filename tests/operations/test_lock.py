"""The lock: who holds the journal, since when, whether there is life in it; and who may remove it."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from chorus_upload.errors import PreconditionFailed, TransientError
from chorus_upload.events import Event, Level, Notice
from chorus_upload.journal.journal import now_us
from chorus_upload.journal.who import Who
from chorus_upload.operations import lock
from chorus_upload.operations.keeping import Keeper
from chorus_upload.operations.lock import Lock
from chorus_upload.storage.local import LocalStore
from chorus_upload.storage.store import Store

ANNA = Who(host="upload-vm", user="anna")
BEN = Who(host="laptop", user="ben")
NAME = "journal.db"
HOUR = 3_600 * 1_000_000


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path)


def take(store: Store, lock_id: str, who: Who, *, by_hand: bool = False) -> Lock | None:
    return lock.acquire(store, NAME, lock_id=lock_id, journal_etag="0x1", who=who, by_hand=by_hand)


def renew(store: Store, lock_id: str, who: Who = ANNA) -> Lock | None:
    return lock.renew(store, NAME, lock_id=lock_id, who=who, by_hand=False)


def last_renewed(store: LocalStore, *, hours_ago: float, by_hand: bool = False) -> Lock:
    """A lock as it looks when nobody has renewed it for so long."""
    path = Path(store.url) / "journal.db.locked"
    content = json.loads(path.read_text())
    then_us = now_us() - int(hours_ago * HOUR)
    path.write_text(json.dumps(content | {"renewed_us": then_us, "by_hand": by_hand}))
    os.utime(path, ns=(then_us * 1000, then_us * 1000))
    found = lock.read(store, NAME)
    assert found
    return found


def test_a_lock_says_who_holds_what_since_when_from_where(store: LocalStore) -> None:
    take(store, "one", ANNA)

    content = json.loads((Path(store.url) / "journal.db.locked").read_text())

    assert {name: content[name] for name in ("owner", "host", "journal_etag", "tool_version")} == {
        "owner": "anna",
        "host": "upload-vm",
        "journal_etag": "0x1",
        "tool_version": ANNA.tool_version,
    }
    assert content["process"] > 0
    assert content["since_us"] == content["renewed_us"] > 0
    found = lock.read(store, NAME)
    assert found
    assert found.sentence.startswith("anna on upload-vm holds it since 2")
    assert "last sign of life 2" in found.sentence


def test_only_one_has_it_and_only_that_one_gives_it_back(store: LocalStore) -> None:
    assert take(store, "one", ANNA)
    assert take(store, "two", BEN) is None

    assert not lock.release(store, NAME, lock_id="two")
    assert lock.read(store, NAME)
    assert lock.release(store, NAME, lock_id="one")
    assert not lock.release(store, NAME, lock_id="one")
    assert take(store, "two", BEN)


def test_a_renewed_lock_is_still_the_same_lock(store: LocalStore) -> None:
    before = take(store, "one", ANNA)
    assert before
    first = last_renewed(store, hours_ago=2)

    after = renew(store, "one")

    assert first.is_stale
    assert after
    assert not after.is_stale
    assert (after.id, after.since_us) == (before.id, before.since_us)
    assert after.etag != before.etag
    with pytest.raises(PreconditionFailed):
        lock.break_open(store, NAME, before)
    assert lock.release(store, NAME, lock_id="one")


def test_a_lock_that_is_gone_or_anothers_is_not_renewed(store: LocalStore) -> None:
    take(store, "one", ANNA)
    lock.release(store, NAME, lock_id="one")
    assert renew(store, "one") is None
    assert lock.read(store, NAME) is None

    theirs = take(store, "two", BEN)
    assert renew(store, "one") == theirs


def test_a_lock_is_stale_when_a_command_ought_to_have_renewed_it(store: LocalStore) -> None:
    take(store, "one", ANNA)

    fresh, old = last_renewed(store, hours_ago=0.9), last_renewed(store, hours_ago=1.1)
    by_hand = last_renewed(store, hours_ago=100, by_hand=True)

    assert not fresh.is_stale
    assert old.is_stale
    assert old.sentence.endswith(", stale)")
    assert "journal checkin" in old.advice
    # Between the commands that follow a check-out nobody renews it.
    assert not by_hand.is_stale
    assert "journal checkout" in by_hand.sentence
    assert all("journal unlock" in each.advice for each in (fresh, old, by_hand))


def test_a_lock_that_was_written_just_now_is_not_stale(store: LocalStore) -> None:
    """Its holder, whose clock is two hours behind, says otherwise."""
    take(store, "one", ANNA)
    last_renewed(store, hours_ago=2)
    (Path(store.url) / "journal.db.locked").touch()

    found = lock.read(store, NAME)

    assert found
    assert not found.is_stale


class Unreliable(LocalStore):
    """A store to which there is no way while it is `away`."""

    away = True

    def stat(self, key: str):  # type: ignore[no-untyped-def]  # noqa: ANN201
        if self.away:
            raise TransientError("no route to host")
        return super().stat(key)


def kept(store: LocalStore, events: list[Event], *, patience: float = 60.0) -> Keeper:
    """A keeper of the lock `one`, in a hurry."""
    return Keeper(
        lambda stop: store, NAME, lock_id="one", by_hand=False, emit=events.append, every=0.01, patience=patience
    )


def eventually(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_a_lock_is_renewed_while_somebody_works(store: LocalStore) -> None:
    take(store, "one", ANNA)
    events: list[Event] = []
    before = last_renewed(store, hours_ago=2)

    with kept(store, events):
        eventually(lambda: (now := lock.read(store, NAME)) and now.renewed_us > before.renewed_us + HOUR)
    after = lock.read(store, NAME)
    time.sleep(0.05)

    assert lock.read(store, NAME) == after
    assert events == []
    assert not [thread for thread in threading.enumerate() if thread.name == "chorus-lock"]


@pytest.mark.parametrize("by_another", [False, True])
def test_whoever_loses_the_lock_is_told_once(store: LocalStore, *, by_another: bool) -> None:
    take(store, "one", ANNA)
    events: list[Event] = []

    with kept(store, events):
        lock.release(store, NAME, lock_id="one")
        if by_another:
            take(store, "two", BEN)
        eventually(lambda: events)
        time.sleep(0.05)

    (told,) = events
    assert isinstance(told, Notice)
    assert told.level is Level.WARNING
    assert ("ben on laptop" if by_another else "it is gone") in told.text or by_another
    assert (lock.read(store, NAME) is not None) == by_another


def test_trouble_with_renewing_is_told_only_when_it_lasts(tmp_path: Path) -> None:
    store, events = Unreliable(tmp_path), list[Event]()
    store.away = False
    take(store, "one", ANNA)
    before = last_renewed(store, hours_ago=2)
    store.away = True

    with kept(store, events):
        time.sleep(0.1)
        assert events == []
        store.away = False
        eventually(lambda: (now := lock.read(store, NAME)) and now.renewed_us > before.renewed_us + HOUR)
    store.away = True
    with kept(store, events, patience=0.05):
        eventually(lambda: events)
        time.sleep(0.1)

    (told,) = events
    assert isinstance(told, Notice)
    assert "could not be renewed for long (no route to host)" in told.text
