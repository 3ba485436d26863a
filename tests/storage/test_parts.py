"""Files without a name yet: those of living processes are left alone, those of dead ones do not stay."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import pytest

from chorus_upload.storage.guard import GUARD_NAME, guarded, remove_dead_guard
from chorus_upload.storage.local import LocalStore
from chorus_upload.storage.parts import new_part, remove_dead_parts

A_DAY = 86_400.0
A_KILLED_PROCESS = """
import os, signal, sys
from pathlib import Path
from chorus_upload.storage.guard import guarded
from chorus_upload.storage.parts import new_part
place, file = new_part(Path(sys.argv[1]))
file.write(b"half of a patient's scan")
with guarded(Path(sys.argv[1])):
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def left(tmp_path: Path) -> Path:
    """A directory of a store in which a process was killed."""
    directory = tmp_path / "spring"
    directory.mkdir()
    subprocess.run([sys.executable, "-c", A_KILLED_PROCESS, str(directory)], check=False)
    assert sorted(path.suffix for path in directory.iterdir()) == ["", ".part"]
    return directory


@pytest.mark.parametrize("what", ["put", "read"])
def test_what_a_killed_process_left_is_removed_where_the_next_one_works(what: str, left: Path) -> None:
    """Also where it only finds that all is there already."""
    (left / "scan.dcm").write_bytes(b"a scan")
    with LocalStore(left.parent) as store:
        if what == "put":
            store.put("spring/other.dcm", b"another", size=7)
        else:
            with store.open("spring/scan.dcm") as stream:
                assert stream.read() == b"a scan"
    assert {path.name for path in left.iterdir()} <= {"scan.dcm", "other.dcm"}


def test_what_somebody_writes_to_is_left_alone(tmp_path: Path) -> None:
    place, file = new_part(tmp_path)
    with file:
        remove_dead_parts(tmp_path, older_than=A_DAY)
        assert place.exists()
    remove_dead_parts(tmp_path, older_than=A_DAY)
    assert not place.exists()


def test_a_guard_that_is_held_is_left_alone(tmp_path: Path) -> None:
    with guarded(tmp_path):
        remove_dead_guard(tmp_path)
        assert (tmp_path / GUARD_NAME).exists()
    assert not (tmp_path / GUARD_NAME).exists()


def test_what_another_machine_left_has_to_be_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its locks may not be seen here."""
    place, file = new_part(tmp_path)
    file.close()
    monkeypatch.setattr(platform, "node", lambda: "another")

    remove_dead_parts(tmp_path, older_than=A_DAY)
    assert place.exists()

    yesterday = time.time() - A_DAY - 60
    os.utime(place, (yesterday, yesterday))
    remove_dead_parts(tmp_path, older_than=A_DAY)
    assert not place.exists()
