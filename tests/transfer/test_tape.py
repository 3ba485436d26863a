"""A tape is read once, however many threads send what is on it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from chorus_upload.model import Delivered, Failed, Transfer
from chorus_upload.storage.local import LocalStore
from chorus_upload.storage.outer import LocalOuter
from chorus_upload.storage.tar_source import TarSource
from chorus_upload.storage.traffic import Traffic
from chorus_upload.transfer.meter import Meter
from chorus_upload.transfer.pool import Outcome, ThreadPool
from chorus_upload.transfer.sender import Sender, Terms
from tests.archives import Content, members_of, put, tar
from tests.storage.test_archives import _Counting
from tests.transfer.stores import ScriptedStore
from tests.trees import Bytes, bytes_of

# Small ones, those that go in blocks, and one that is larger than all the memory that there is for sending.
TREE: dict[str, Content] = {
    f"{number % 5}/{number:03}.dcm": Bytes([10, 3_000, 70_000, 200_000, 0][number % 5] + number)
    for number in range(150)
}


@pytest.fixture(params=["", "gz"])
def tape(tmp_path: Path, request: pytest.FixtureRequest) -> _Counting:
    return _Counting(LocalOuter(put(tmp_path / "a.tar", tar(members_of(TREE), compression=request.param))))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ScriptedStore]:
    central = tmp_path / "central"
    central.mkdir()
    with ScriptedStore(central, one_request_limit=100_000) as store:
        yield store


def transfers(source: TarSource) -> list[Transfer]:
    found = [
        (f"{directory.path}/{name}", size, mtime_us)
        for directory in source.walk()
        for name, size, mtime_us in directory.entries
    ]
    return [
        Transfer(number, "Images", path, f"v/{path}", size=size, mtime_us=mtime_us)
        for number, (path, size, mtime_us) in enumerate(found)
    ]


def announced(sender: Sender, plan: list[Transfer]) -> Iterator[Transfer]:
    for transfer in plan:
        sender.announce(transfer)
        yield transfer


def made(source: TarSource, store: LocalStore, stop: threading.Event | None = None) -> Sender:
    traffic = Traffic(16, most_bytes=300_000)
    return Sender({"Images": source}, store, Terms(), meter=Meter(), traffic=traffic, stop=stop)


def sent(store: LocalStore) -> dict[str, bytes]:
    found = {}
    for each in store.scan():
        with store.open(each.key) as stream:
            found[each.key] = stream.read()
    return found


def all_of(run: AbstractContextManager[Iterator[Outcome | None]]) -> list[Outcome]:
    with run as outcomes:
        return [each for each in outcomes if each is not None]


@pytest.mark.parametrize("workers", [1, 16])
def test_one_pass_for_all(tape: _Counting, store: ScriptedStore, workers: int) -> None:
    with TarSource(tape, "") as source:
        plan = transfers(source)
        sender = made(source, store)
        tape.streams = 0
        outcomes = all_of(ThreadPool(workers).run(sender.send, announced(sender, plan)))
        assert all(isinstance(each, Delivered) for each in outcomes)
        assert tape.streams == 1
    assert sent(store) == {f"v/{path}": bytes_of(path, body) for path, body in TREE.items()}


def test_what_is_there_already_costs_no_pass(tape: _Counting, store: ScriptedStore) -> None:
    """As after a lost journal: everything is taken, by the same content."""
    for path, body in TREE.items():
        store.put(f"v/{path}", bytes_of(path, body), size=len(bytes_of(path, body)))
    with TarSource(tape, "") as source:
        plan = transfers(source)
        sender = made(source, store)
        tape.streams = 0
        outcomes = all_of(ThreadPool(8).run(sender.send, announced(sender, plan)))
        assert all(isinstance(each, Delivered) and not each.sent for each in outcomes)
        assert tape.streams == 1


def test_some_are_gone_some_are_taken_and_the_rest_arrives(tape: _Counting, store: ScriptedStore) -> None:
    """Trouble costs passes, and keeps nobody waiting."""
    with TarSource(tape, "") as source:
        plan = transfers(source)
        for transfer in plan[10:20]:
            store.put(transfer.key, bytes_of(transfer.path, TREE[transfer.path]), size=transfer.size)
        store.put(plan[30].key, b"other", size=5)
        gone = Transfer(1_000, "Images", "0/gone", "v/0/gone", size=5, mtime_us=0)
        disordered = [*plan[:50], gone, *reversed(plan[50:80]), *plan[80:]]
        sender = made(source, store)
        outcomes = all_of(ThreadPool(8).run(sender.send, announced(sender, disordered)))
        assert {each.transfer.path for each in outcomes if isinstance(each, Failed)} == {"0/gone", plan[30].path}
    expected = {f"v/{path}": bytes_of(path, body) for path, body in TREE.items()}
    assert sent(store) == expected | {plan[30].key: b"other"}


def test_a_run_that_is_stopped_ends(tape: _Counting, store: ScriptedStore) -> None:
    stop = threading.Event()
    with TarSource(tape, "") as source:
        sender = made(source, store, stop)
        done = 0
        pool = ThreadPool(16, stop=stop)
        with (
            pytest.raises(KeyboardInterrupt),
            pool.run(sender.send, announced(sender, transfers(source))) as outcomes,
        ):
            for each in outcomes:
                done += each is not None
                if done == 20:
                    raise KeyboardInterrupt
    assert len(sent(store)) < len(TREE)
