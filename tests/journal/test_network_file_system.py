"""Where several machines share a file system, the write-ahead log would not work: the journal does without."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from chorus_upload.journal import database
from chorus_upload.journal.database import on_network_file_system
from chorus_upload.journal.journal import Journal


@pytest.fixture
def mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory for mounts, of which Linux would tell this."""
    (tmp_path / "a share").mkdir()
    mounts = tmp_path / "mounts"
    mounts.write_text(
        "overlay / overlay rw 0 0\n"
        f"server:/export {tmp_path}/nfs nfs4 rw 0 0\n"
        f"server:/export {tmp_path}/a\\040share cifs rw 0 0\n"
        f"tmpfs {tmp_path}/nfs/memory tmpfs rw 0 0\n"
        f"host:/data {tmp_path}/sshfs fuse.sshfs rw 0 0\n"
    )
    monkeypatch.setattr(database, "MOUNTS", mounts)
    return tmp_path


@pytest.mark.parametrize(
    ("place", "is_shared"),
    [("nfs", True), ("a share", True), ("sshfs", True), ("local", False), ("nfs/memory", False), ("nfs-backup", False)],
)
def test_the_mount_says_whether_a_file_system_is_shared(mounted: Path, place: str, *, is_shared: bool) -> None:
    assert on_network_file_system(mounted / place / "journal.db") == is_shared


@pytest.mark.parametrize(("place", "mode"), [("nfs", "delete"), ("local", "wal")])
def test_a_journal_is_written_in_the_mode_that_works_there(mounted: Path, place: str, mode: str) -> None:
    path = mounted / place / "journal.db"

    with Journal.create(path) as journal, journal.transaction() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar_one() == mode


def test_a_journal_that_comes_to_a_share_leaves_its_write_ahead_log_behind(mounted: Path) -> None:
    Journal.create(mounted / "journal.db").close()
    (mounted / "nfs").mkdir()
    path = (mounted / "journal.db").rename(mounted / "nfs" / "journal.db")

    with Journal.open(path):
        pass

    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)


def test_where_linux_says_nothing_the_file_system_counts_as_local(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "MOUNTS", tmp_path / "nothing")

    assert not on_network_file_system(tmp_path / "journal.db")
