"""A file that grows as fast as it is read, and an archive that goes on after its end: nobody reads on and on."""

from __future__ import annotations

import gzip
import io
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chorus_upload.errors import StorageError, TransientError
from chorus_upload.model import Problem, ProblemKind, Retrieval
from chorus_upload.storage import local, local_source, target
from chorus_upload.storage.local import LocalStore
from chorus_upload.storage.local_source import LocalSource
from chorus_upload.storage.outer import LocalOuter
from chorus_upload.storage.source import FileStat
from chorus_upload.storage.tar_source import TarSource
from chorus_upload.storage.target import Target
from chorus_upload.transfer import evidence
from chorus_upload.transfer.reader import BLOCK, read_file
from chorus_upload.transfer.receiver import Receiver
from tests.faults.figures import Figures
from tests.trees import Bytes, build

SIZE = 3 * BLOCK
PATIENCE = 60
"""So many blocks more than there were are read by nobody who stops."""


class Growing(io.FileIO):
    """A file to which somebody appends as much as was read, each time."""

    reads = 0

    def readinto(self, buffer: Any, /) -> int:  # noqa: ANN401 - as it is declared above it
        count = super().readinto(buffer) or 0
        Growing.reads += 1
        assert Growing.reads < SIZE // BLOCK + PATIENCE, "it is read on and on"
        with open(self.name if isinstance(self.name, str) else f"/proc/self/fd/{self.fileno()}", "ab") as file:  # noqa: PTH123
            file.write(bytes(count))
        return count


@pytest.fixture(autouse=True)
def unread() -> None:
    Growing.reads = 0


@pytest.fixture
def growing(tmp_path: Path) -> Path:
    return build(tmp_path / "source", {"1001/Images/log.dat": Bytes(SIZE)}) / "1001/Images/log.dat"


def test_an_update_stops_at_the_size_that_it_saw_first(
    growing: Path, monkeypatch: pytest.MonkeyPatch, figures: Figures
) -> None:
    class GrowingFile(Growing, local_source._File):
        """A file of a source."""

    monkeypatch.setattr(local_source, "_File", GrowingFile)
    source = LocalSource(growing.parents[2], follow_links=None)
    state = growing.stat()

    found = read_file(source, "1001/Images/log.dat", expected=FileStat(SIZE, state.st_mtime_ns // 1000), with_md5=True)

    assert isinstance(found, Problem)
    assert found.kind is ProblemKind.CHANGED_WHILE_READ
    assert Growing.reads <= SIZE // BLOCK + 1
    figures.count("files that grow")


class GrowingObject(Growing):
    """A file of a store."""

    def __init__(self, path: Path, key: str) -> None:
        del key
        super().__init__(path, "rb")


def test_an_object_that_is_read_back(growing: Path, monkeypatch: pytest.MonkeyPatch, figures: Figures) -> None:
    monkeypatch.setattr(local, "_Reader", GrowingObject)
    store = LocalStore(growing.parent)

    with pytest.raises(TransientError, match="does not arrive as it is stored"):
        evidence.with_fingerprint(store, growing.name, bytes(16))
    Growing.reads = 0
    taken: list[int] = []

    def take(blocks: Iterator[bytes]) -> None:
        taken.append(sum(map(len, blocks)))

    evidence.read_surely(store, growing.name, take)
    Growing.reads = 0
    assert evidence.read_back(store, growing.name, size=SIZE) is None
    figures.count("files that grow")


def test_what_lies_where_a_file_is_brought_back_to(
    growing: Path, monkeypatch: pytest.MonkeyPatch, figures: Figures
) -> None:
    state = growing.stat()
    store, there = LocalStore(build(growing.parents[3] / "store", {"key": Bytes(SIZE)})), Target(growing.parent)
    monkeypatch.setattr(target.Target, "open", lambda self, path: Growing(growing.parent / path, "rb"))
    receiver = Receiver(store, there, overwrite=False, reread=True, stop=threading.Event(), on_bytes=lambda *_: None)

    receiver.receive(Retrieval("", growing.name, "key", SIZE, state.st_mtime_ns // 1000, bytes(16), None))

    assert Growing.reads <= SIZE // BLOCK + 1
    figures.count("files that grow")


def test_an_archive_that_goes_on_after_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, figures: Figures
) -> None:
    """As from a server that never ends its answer. What is usual there, a full record of zeros, is no trouble."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        member = tarfile.TarInfo("1001/Images/a.dcm")
        member.size = 3
        tar.addfile(member, io.BytesIO(b"abc"))
    monkeypatch.setattr("chorus_upload.storage.tape._MOST_PADDING", 1 << 20)
    path = tmp_path / "set.tar.gz"
    for padding, is_good in ((1 << 19, True), (4 << 20, False)):
        path.write_bytes(gzip.compress(made.getvalue() + bytes(padding)))
        with TarSource(LocalOuter(path), "") as source:
            if is_good:
                assert [entry.name for found in source.walk() for entry in found.entries] == ["a.dcm"]
            else:
                with pytest.raises(StorageError, match="goes on after its end"):
                    list(source.walk())
    figures.count("archives that go on")
