"""What is particular to a directory as a store."""

from __future__ import annotations

import errno
import io
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from chorus_upload.errors import AccessDenied, ObjectExists, ObjectNotFound, PreconditionFailed, StorageError
from chorus_upload.storage import guard
from chorus_upload.storage.guard import LocksUnsupported, guarded
from chorus_upload.storage.local import LocalStore

only_posix = pytest.mark.skipif(os.name == "nt", reason="links, modes and signals of POSIX")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    directory = tmp_path / "store"
    directory.mkdir()
    return directory


@pytest.fixture
def store(root: Path) -> LocalStore:
    return LocalStore(root)


def put(store: LocalStore, key: str, content: bytes = b"content") -> str:
    return store.put(key, content, size=len(content)).etag


def everything(root: Path) -> list[str]:
    return sorted(str(each.relative_to(root)) for each in root.rglob("*"))


def test_objects_are_files_and_nothing_else_is_left(root: Path, store: LocalStore) -> None:
    etag = put(store, "a/b/c.csv", b"some bytes")
    store.put("a/b/c.csv", b"others", size=6, if_match=etag)
    store.put("a/d", b"", size=0, create_only=True)
    with pytest.raises(ObjectExists):
        store.put("a/d", b"", size=0, create_only=True)
    assert everything(root) == ["a", "a/b", "a/b/c.csv", "a/d"]
    assert (root / "a/b/c.csv").read_bytes() == b"others"


def test_deleting_leaves_no_empty_directories_but_the_root(root: Path, store: LocalStore) -> None:
    put(store, "a/b/c/d")
    put(store, "a/e")
    store.delete("a/b/c/d")
    assert everything(root) == ["a", "a/e"]
    store.delete("a/e")
    assert everything(root) == []


def test_a_failed_write_leaves_no_empty_directories(root: Path, store: LocalStore) -> None:
    class Broken(io.BytesIO):
        def read(self, _: int | None = -1, /) -> bytes:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.put("a/b/c", Broken(), size=1)
    assert everything(root) == []


def test_others_write_files_too(root: Path, store: LocalStore) -> None:
    (root / "dir").mkdir()
    (root / "dir/by hand.csv").write_bytes(b"12345")
    [found] = store.scan()
    assert (found.key, found.size) == ("dir/by hand.csv", 5)
    store.put("dir/by hand.csv", b"1", size=1, if_match=found.etag)


def test_a_change_by_others_is_noticed(root: Path, store: LocalStore) -> None:
    etag = put(store, "a", b"12345")
    (root / "a").write_bytes(b"54321")
    with pytest.raises(PreconditionFailed):
        store.put("a", b"1", size=1, if_match=etag)
    with pytest.raises(PreconditionFailed):
        store.delete("a", if_match=etag)


def test_etags_differ_where_times_are_coarse(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = os.utime

    def coarse(path: Path, *, ns: tuple[int, int]) -> None:
        two_seconds = 2_000_000_000
        exact(path, ns=(ns[0] // two_seconds * two_seconds, ns[1] // two_seconds * two_seconds))

    monkeypatch.setattr("chorus_upload.storage.publish.os.utime", coarse)
    assert len({put(store, "a", b"same") for _ in range(10)}) == 10


def test_a_missing_root_is_never_made(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "not mounted")
    with pytest.raises(ObjectNotFound, match="not mounted") as caught:
        put(store, "a")
    assert "mount" in (caught.value.hint or "")
    assert everything(tmp_path) == []


@only_posix
class TestLinks:
    def test_a_link_out_of_the_store_is_not_followed(self, root: Path, store: LocalStore, tmp_path: Path) -> None:
        outside = tmp_path / "outside"
        outside.mkdir()
        (outside / "secret").write_text("1")
        (root / "link").symlink_to(outside)
        for act in (
            lambda: put(store, "link/new"),
            lambda: put(store, "link/deep/new"),
            lambda: store.stat("link/secret"),
            lambda: store.open("link/secret"),
            lambda: store.delete("link/secret"),
        ):
            with pytest.raises(StorageError, match="is a link"):
                act()
        assert everything(outside) == ["secret"]
        assert list(store.scan()) == []

    def test_writing_replaces_a_link_to_a_file_and_not_the_file(
        self, root: Path, store: LocalStore, tmp_path: Path
    ) -> None:
        outside = tmp_path / "file"
        outside.write_text("outside")
        (root / "a").symlink_to(outside)
        with store.open("a") as stream:
            assert stream.read() == b"outside"
        put(store, "a", b"inside")
        assert outside.read_text() == "outside"
        assert (root / "a").read_text() == "inside"

    def test_a_link_to_nothing_is_a_taken_name(self, root: Path, store: LocalStore, tmp_path: Path) -> None:
        (root / "a").symlink_to(tmp_path / "nothing")
        with pytest.raises(ObjectExists):
            store.put("a", b"1", size=1, create_only=True)
        assert not (tmp_path / "nothing").exists()

    def test_a_pipe_is_no_object(self, root: Path, store: LocalStore) -> None:
        os.mkfifo(root / "pipe")
        assert list(store.scan()) == []
        assert store.stat("pipe") is None
        with pytest.raises(ObjectNotFound):
            store.open("pipe")


def test_a_directory_is_no_object(root: Path, store: LocalStore) -> None:
    (root / "dir").mkdir()
    for create_only in (True, False):
        with pytest.raises(StorageError, match="is a directory"):
            store.put("dir", b"1", size=1, create_only=create_only)


@only_posix
def test_permissions(root: Path, store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    put(store, "dir/a")

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    # Tests may run as root, to whom nothing is forbidden: the system calls are made to refuse.
    monkeypatch.setattr("chorus_upload.storage.local.os.scandir", denied)
    with pytest.raises(AccessDenied, match="Permission denied"):
        list(store.scan())
    monkeypatch.setattr("chorus_upload.storage.publish.os.link", denied)
    with pytest.raises(AccessDenied, match="writing dir/b") as caught:
        store.put("dir/b", b"1", size=1, create_only=True)
    assert caught.value.hint
    monkeypatch.undo()
    assert [each.key for each in store.scan()] == ["dir/a"]


def test_a_full_disk(root: Path, store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("chorus_upload.storage.publish.os.fsync", full)
    with pytest.raises(StorageError, match="No space left on device") as caught:
        put(store, "dir/a")
    assert "room" in (caught.value.hint or "")
    assert everything(root) == []


class TestLeftovers:
    def test_are_no_objects(self, root: Path, store: LocalStore) -> None:
        (root / ".chorus-upload-0123.part").write_text("half")
        (root / ".chorus-upload-guard").write_text("")
        assert list(store.scan()) == []
        for act in (
            lambda: put(store, "dir/.chorus-upload-guard"),
            lambda: store.stat(".chorus-upload-0123.part"),
            lambda: put(store, ".chorus-upload-dir/a"),
        ):
            with pytest.raises(StorageError, match="used by the store itself"):
                act()

    def test_are_removed_when_they_are_old(self, root: Path, store: LocalStore) -> None:
        old, new = root / ".chorus-upload-old.part", root / ".chorus-upload-new.part"
        old.write_text("half")
        new.write_text("half")
        os.utime(old, (time.time() - 90_000,) * 2)
        put(store, "a")
        assert everything(root) == [".chorus-upload-new.part", "a"]

    @only_posix
    def test_a_killed_writer_leaves_the_object_as_it_was(self, root: Path, store: LocalStore) -> None:
        put(store, "a", b"before")
        program = """
import os, signal, sys, io
from pathlib import Path
from chorus_upload.storage.local import LocalStore
class Dies(io.BytesIO):
    def read(self, n=-1):
        if self.tell() > 3_000_000: os.kill(os.getpid(), signal.SIGKILL)
        return super().read(n)
LocalStore(Path(sys.argv[1])).put("a", Dies(bytes(5_000_000)), size=5_000_000)
"""
        finished = subprocess.run([sys.executable, "-c", program, root], check=False)
        assert finished.returncode == -9
        assert [each.size for each in store.scan()] == [6]
        put(store, "a", b"after")


class TestWithoutLinks:
    """FAT and some shares."""

    @pytest.fixture(autouse=True)
    def no_links(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def unsupported(*_: object) -> None:
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")

        monkeypatch.setattr("chorus_upload.storage.publish.os.link", unsupported)

    def test_create_only(self, root: Path, store: LocalStore) -> None:
        store.put("dir/a", b"first", size=5, create_only=True)
        with pytest.raises(ObjectExists):
            store.put("dir/a", b"other", size=5, create_only=True)
        assert everything(root) == ["dir", "dir/a"]
        assert (root / "dir/a").read_bytes() == b"first"

    def test_without_locks_there_is_no_create_only(
        self, store: LocalStore, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(guard, "lock", no_locks)
        with pytest.raises(LocksUnsupported):
            store.put("a", b"1", size=1, create_only=True)
        assert everything(root) == [".chorus-upload-guard"]


def no_locks(_: int) -> None:
    raise LocksUnsupported("files cannot be locked here")


def test_without_locks_conditions_are_refused_and_the_rest_works(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "lock", no_locks)
    store.put("a", b"1", size=1, create_only=True)
    etag = put(store, "a")
    with pytest.raises(StorageError, match="locked"):
        store.put("a", b"1", size=1, if_match=etag)
    with pytest.raises(StorageError, match="locked"):
        store.delete("a", if_match=etag)
    store.delete("a")
    assert list(store.scan()) == []


def count_up(root: str, times: int) -> int:
    """Add one to a number in the store, `times` times, as anybody does who may not lose an update."""
    store = LocalStore(Path(root))
    attempts = 0
    for _ in range(times):
        while True:
            attempts += 1
            found = store.stat("number")
            assert found is not None
            with store.open("number") as stream:
                number = int(stream.read())
            content = b"%d" % (number + 1)
            try:
                store.put("number", content, size=len(content), if_match=found.etag)
                break
            except PreconditionFailed:
                continue
    return attempts


def create_all(root: str, name: int) -> list[int]:
    """Try to be the creator of 100 objects; which ones it was."""
    store = LocalStore(Path(root))
    won = []
    for number in range(100):
        try:
            store.put(f"dir{number % 3}/{number}", b"%d" % name, size=1, create_only=True)
        except ObjectExists:
            continue
        won.append(number)
    return won


class TestProcesses:
    """The same with processes, which share no lock in memory."""

    def test_no_update_is_lost(self, root: Path, store: LocalStore) -> None:
        put(store, "number", b"0")
        with multiprocessing.get_context("spawn").Pool(4) as pool:
            attempts = pool.starmap(count_up, [(str(root), 50)] * 4)
        assert (root / "number").read_bytes() == b"200"
        assert sum(attempts) >= 200
        assert everything(root) == ["number"]

    def test_each_object_has_one_creator(self, root: Path, store: LocalStore) -> None:
        with multiprocessing.get_context("spawn").Pool(4) as pool:
            won = pool.starmap(create_all, [(str(root), name) for name in range(4)])
        assert sorted(number for each in won for number in each) == list(range(100))
        for name, numbers in enumerate(won):
            assert all((root / f"dir{number % 3}/{number}").read_bytes() == b"%d" % name for number in numbers)

    @only_posix
    def test_a_holder_that_dies_takes_its_guard_along(self, root: Path) -> None:
        program = """
import os, signal, sys
from pathlib import Path
from chorus_upload.storage.guard import guarded
with guarded(Path(sys.argv[1])):
    os.kill(os.getpid(), signal.SIGKILL)
"""
        finished = subprocess.run([sys.executable, "-c", program, root], check=False)
        assert finished.returncode == -9
        assert (root / guard.GUARD_NAME).exists()
        with guarded(root):
            pass
        assert everything(root) == []


def test_what_appears_below_a_mount_point_is_not_the_share(tmp_path: Path) -> None:
    """As if the share was unmounted between two files: what is written then would be missing where it belongs."""
    root = tmp_path / "share"
    root.mkdir()
    with LocalStore(root) as store:
        store.put("first.txt", b"1", size=1)
        root.rename(tmp_path / "unmounted")
        root.mkdir()

        with pytest.raises(ObjectNotFound, match="another directory than before"):
            store.put("second.txt", b"2", size=1)

    assert list(root.iterdir()) == []
