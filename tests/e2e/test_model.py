"""Whatever is done in whatever order: the central store ends as the union of versions that a simple model predicts."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from unittest.mock import patch

import pytest
import xxhash
from hypothesis import HealthCheck, assume, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from chorus_upload.config.loading import load
from chorus_upload.errors import ConfigError, StorageError
from chorus_upload.events import Event, FileDelivered, VerifyResult
from chorus_upload.journal import versions
from chorus_upload.model import Evidence, FingerprintTime
from chorus_upload.operations.listing import list_files
from chorus_upload.operations.update import UpdateRequest, update
from chorus_upload.operations.upload import UploadRequest, upload
from chorus_upload.operations.verify import VerifyRequest, verify
from chorus_upload.transfer.pool import SerialPool
from tests.e2e.clouds import files_of
from tests.e2e.conftest import MEMORY
from tests.e2e.model import Model, belongs
from tests.e2e.mortal import Fault, FaultyStore, Killed, Life, MortalJournal
from tests.trees import contents

# Few paths and fewer contents, so that what is added has often been there before, here or elsewhere.
PATHS = st.sampled_from(
    [
        "1001/Images/a.dcm",
        "1001/Images/b.dcm",
        "1002/Images/a.dcm",
        "OMOP/person.csv",
        "OMOP/note.csv",
        "notes/todo.txt",
    ]
)
CONTENTS = st.sampled_from([b"", b"x", b"y", b"xx", b"xy"])
FAULTS = st.lists(st.none() | st.sampled_from(Fault), max_size=6)
IN_AN_HOUR = time.time_ns() + 3_600 * 1_000_000_000
"""Files of this time are too young to be trusted, however long a test takes."""


class TwoHistories(RuleBasedStateMachine):
    """The same things happen to a site and to the model of one."""

    @initialize(full=st.booleans(), reading=st.sampled_from(FingerprintTime))
    def begin(self, full: bool, reading: FingerprintTime) -> None:  # noqa: FBT001
        self.model = Model(full)
        self.reading = reading
        self.home = tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None)
        root = Path(self.home.name)
        self.source, self.central = root / "source", root / "data"
        self.source.mkdir()
        self.central.mkdir()
        (root / "config.toml").write_text(f"""
[configuration]
fingerprint = "{reading}"
[journal]
path = "{root}/cloud/journal.db"
journaling_mode = "{"full" if full else "append"}"
[central_path]
path = "{self.central}"
[site_path.default]
path = "{self.source}"
""")
        self.settings = load(root / "config.toml", environ={})
        MortalJournal.life = self.life = Life()
        self.journal = MortalJournal.create(root / "journal.db")
        self.versions = 0
        self.put: dict[str, bytes] = {}
        """What has been stored, whether the program knows of it or was killed before it could."""

    # What people do to their files.

    @rule(path=PATHS, content=CONTENTS, young=st.booleans())
    def write(self, path: str, content: bytes, young: bool) -> None:  # noqa: FBT001
        self.model.write(path, content)
        file = self.source / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        self._set_time(path, young=young)

    @precondition(lambda self: self.model.source)
    @rule(data=st.data(), young=st.booleans())
    def touch(self, data: st.DataObject, young: bool) -> None:  # noqa: FBT001
        path = self._any_file(data)
        self.model.touch(path)
        self._set_time(path, young=young)

    @precondition(lambda self: self.model.source)
    @rule(data=st.data(), new=PATHS)
    def rename(self, data: st.DataObject, new: str) -> None:
        old = self._any_file(data)
        assume(old != new)
        self.model.rename(old, new)
        (self.source / new).parent.mkdir(parents=True, exist_ok=True)
        (self.source / old).rename(self.source / new)

    @precondition(lambda self: self.model.source)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        path = self._any_file(data)
        self.model.delete(path)
        (self.source / path).unlink()

    @precondition(lambda self: self._young())
    @rule(data=st.data())
    def change_in_secret(self, data: st.DataObject) -> None:
        """A file that is written to twice in one moment keeps its time, and may keep its size."""
        path = data.draw(st.sampled_from(self._young()), label="path")
        file = self.source / path
        content, moment = bytes(byte ^ 1 for byte in file.read_bytes()), file.stat().st_mtime_ns
        self.model.change_in_secret(path, content)
        file.write_bytes(content)
        os.utime(file, ns=(moment, moment))

    # What they do with the program.

    @rule(amend=st.booleans())
    def update(self, amend: bool) -> None:  # noqa: FBT001
        self._update(self._version(amend=amend))

    @rule(amend=st.booleans(), after=st.integers(0, 20))
    def update_that_is_killed_and_repeated(self, amend: bool, after: int) -> None:  # noqa: FBT001
        version = self._version(amend=amend)
        self.life.steps_left = after
        with suppress(Killed):
            update(self.journal, self.settings, _request(version), emit=_ignore, pool=SerialPool())
        self._come_back()
        self._update(version)

    @rule(max_files=st.none() | st.integers(1, 3))
    def upload(self, max_files: int | None) -> None:
        pending, ready = self.model.pending(), self.model.ready()
        delivered = self._upload(max_files=max_files, faults=[])
        assert delivered <= ready
        if max_files is None:
            assert delivered == ready
        elif ready == pending:
            assert len(delivered) == min(max_files, len(pending))

    @rule(faults=FAULTS, after=st.none() | st.integers(0, 12))
    def upload_in_trouble(self, faults: list[Fault | None], after: int | None) -> None:
        if self.reading is FingerprintTime.ON_UPLOAD:
            # See `test_a_file_that_changed_after_a_killed_upload`: then this is about what nobody stored.
            faults, after = [fault for fault in faults if fault in (None, Fault.TRANSIENT, Fault.DENIED)], None
        self.fail_to_upload(faults=faults, after=after)

    # What holds at all times, and in the end.

    @invariant()
    def what_is_called_delivered_is_there(self) -> None:
        if versions.last(self.journal) is None:
            return
        stored = contents(self.central)
        for file in list_files(
            self.journal, self.settings, version=None, modalities=None, max_files=None, uploaded=True
        ):
            body = stored[file.key]
            assert file.md5 == hashlib.md5(body, usedforsecurity=False).digest()
            assert file.fingerprint == xxhash.xxh3_128_digest(body)
            assert file.evidence is Evidence.READBACK

    @invariant()
    def nothing_else_is_there(self) -> None:
        stored = files_of({f"data/{key}": body for key, body in contents(self.central).items()})
        for key, body in self.model.store.items():
            # An upload that was killed may have replaced it, in a version that was amended.
            assert stored[key] in (body, self.put.get(key))
        assert stored.items() <= (self.put | self.model.store).items()

    def teardown(self) -> None:
        """Nothing disturbs the last update and upload any more."""
        if not hasattr(self, "journal"):
            return
        try:
            self._update(self._version(amend=False))
            assert set(self.model.journal) >= {path for path in self.model.source if belongs(path)}
            self.upload(max_files=None)
            self.nothing_else_is_there()
            self.what_is_called_delivered_is_there()
            self._hold_against_verify()
        finally:
            self.close()

    def close(self) -> None:
        self.journal.close()
        self.home.cleanup()

    def _hold_against_verify(self) -> None:
        for number in range(1, self.versions + 1):
            if versions.find(self.journal, f"v{number}"):
                request = VerifyRequest(version=f"v{number}")
                results = verify(self.journal, self.settings, request, emit=_ignore).results
                assert results.keys() <= {VerifyResult.MATCHED, VerifyResult.NOT_IN_JOURNAL}

    def _version(self, *, amend: bool) -> str:
        """The version of the next update: the last one again, or another."""
        if not self.versions or not amend:
            self.versions += 1
        return f"v{self.versions}"

    def _update(self, version: str) -> None:
        self.model.update(version)
        update(self.journal, self.settings, _request(version), emit=_ignore, pool=SerialPool())

    def _upload(self, *, max_files: int | None, faults: list[Fault | None], after: int | None = None) -> set[str]:
        """Upload, killed `after` so many steps, and let the model know what the program says it has delivered."""
        has_version = versions.last(self.journal) is not None
        self.life.steps_left = after
        if not has_version:
            with suppress(Killed), pytest.raises(ConfigError, match="no version"):
                upload(self.journal, self.settings, UploadRequest(), emit=_ignore, pool=SerialPool())
            return set()
        events: list[Event] = []
        store = FaultyStore(self.central, self.life, list(faults))
        request = UploadRequest(max_files=max_files)
        try:
            with patch("chorus_upload.operations.upload.open_store", lambda *_, **__: store):
                upload(self.journal, self.settings, request, emit=events.append, pool=SerialPool())
        except (StorageError, Killed):
            assert faults or self.life.steps_left is not None
        delivered = {event.path: event.key for event in events if isinstance(event, FileDelivered)}
        if self.reading is FingerprintTime.ON_UPDATE:
            # What is first read while it is sent may have been another content of that size when it was journaled.
            assert delivered == {path: self.model.key(path) for path in delivered}
        for path, key in delivered.items():
            self.model.deliver(path, key)
        self.put |= store.stored
        return set(delivered)

    def fail_to_upload(self, *, faults: list[Fault | None], after: int | None = None) -> None:
        self._upload(max_files=None, faults=faults, after=after)
        self._come_back()

    def _come_back(self) -> None:
        """Start a new process."""
        self.life.end()
        self.journal = MortalJournal.open(self.journal.path)

    def _any_file(self, data: st.DataObject) -> str:
        return data.draw(st.sampled_from(sorted(self.model.source)), label="path")

    def _young(self) -> list[str]:
        """Files that can change without a trace, and are read at each update because of that."""
        if self.reading is FingerprintTime.ON_UPLOAD:
            return []
        return [path for path in sorted(self.model.source) if (self.source / path).stat().st_mtime_ns >= IN_AN_HOUR]

    def _set_time(self, path: str, *, young: bool) -> None:
        moment = self.model.source[path].moment * 1_000_000_000 + (IN_AN_HOUR if young else 0)
        os.utime(self.source / path, ns=(moment, moment))


def _request(version: str) -> UpdateRequest:
    return UpdateRequest(version=version, confirm_deletions=True)


def _ignore(event: Event) -> None:
    del event


TwoHistories.TestCase.settings = settings(
    max_examples=400 if os.environ.get("CHORUS_EVERY_STEP") else 10,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


@pytest.mark.parametrize(
    ("reading", "amend"),
    [
        (FingerprintTime.ON_UPDATE, False),
        (FingerprintTime.ON_UPDATE, True),
        # Not in the same version: nobody knows what had arrived there, so it is reported and not overwritten.
        (FingerprintTime.ON_UPLOAD, False),
    ],
)
def test_a_file_that_changed_after_a_killed_upload(reading: FingerprintTime, *, amend: bool) -> None:
    """It had arrived, and nobody wrote that down. What it is now arrives all the same."""
    site = TwoHistories()
    site.begin(full=True, reading=reading)
    try:
        site.write(path="OMOP/person.csv", content=b"xx", young=False)
        site.update(amend=False)
        site.fail_to_upload(faults=[Fault.KILLED])
        site.write(path="OMOP/person.csv", content=b"xy", young=False)
        site.update(amend=amend)
        site.upload(max_files=None)
        site.nothing_else_is_there()
    finally:
        site.close()


# Finding the shortest history that fails takes longer than a test may take.
TestTwoHistories = pytest.mark.timeout(600)(TwoHistories.TestCase)
