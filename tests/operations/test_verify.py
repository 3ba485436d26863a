"""Holding the central store against the journal, on stores that lose, change and refuse things."""

from __future__ import annotations

import dataclasses
import io
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from unittest.mock import patch

import pytest

from chorus_upload.config.settings import Auth, AuthMode, Location
from chorus_upload.errors import (
    AccessDenied,
    ConfigError,
    CredentialsExpired,
    ObjectNotFound,
    PreconditionFailed,
    StorageError,
    TransientError,
)
from chorus_upload.events import Event, FileVerified, VerifyFinished, VerifyProgressed, VerifyResult
from chorus_upload.journal import deliveries, submissions
from chorus_upload.journal.deliveries import Selection
from chorus_upload.journal.journal import Journal
from chorus_upload.journal.who import Who
from chorus_upload.model import Delivered, Evidence, Transfer
from chorus_upload.operations.central import Keys, destination_url
from chorus_upload.operations.custody import journal_session
from chorus_upload.operations.refusals import MOST_DENIED
from chorus_upload.operations.sampling import Sample
from chorus_upload.operations.update import UpdateRequest
from chorus_upload.operations.verify import VerifyRequest, verify
from chorus_upload.storage.local import LocalStore
from chorus_upload.storage.store import ObjectStream
from chorus_upload.transfer.pool import Pool, SerialPool
from tests.emulators import MARK
from tests.operations.conftest import Site
from tests.wire import Answer, Wire

DEEP = VerifyRequest(deep=True)
MATCHED, MISSING = VerifyResult.MATCHED, VerifyResult.MISSING


class WatchedStore(LocalStore):
    """A local store that notes what is opened; `before` may raise, or meddle."""

    def __init__(self, root: Path, before: Callable[[str], None] = lambda _: None) -> None:
        super().__init__(root)
        self.opened: list[str] = []
        self._before = before

    def open(self, key: str, *, offset: int = 0) -> ObjectStream:
        self.opened.append(key)
        self._before(key)
        return super().open(key, offset=offset)


@dataclasses.dataclass
class Verified:
    """What a verification ended with, and what it said of each file, by the path or else the key."""

    finished: VerifyFinished
    events: list[Event]
    opened: list[str]

    @property
    def files(self) -> dict[str, FileVerified]:
        return {each.path or each.key: each for each in self.told}

    @property
    def told(self) -> list[FileVerified]:
        return [each for each in self.events if isinstance(each, FileVerified)]

    @property
    def keys(self) -> dict[str, VerifyResult]:
        return {each.key: each.result for each in self.told}

    @property
    def results(self) -> dict[str, VerifyResult]:
        return {path: each.result for path, each in self.files.items()}


def run(
    site: Site,
    request: VerifyRequest | None = None,
    *,
    before: Callable[[str], None] = lambda _: None,
    pool: Pool | None = None,
    stop: threading.Event | None = None,
) -> Verified:
    """Verify, and make sure that the result counts what was said."""
    store, events = WatchedStore(site.central, before), list[Event]()
    with reading(site) as journal, patch("chorus_upload.operations.verify.open_store", lambda *_, **__: store):
        finished = verify(journal, site.settings, request or VerifyRequest(), emit=events.append, pool=pool, stop=stop)
    verified = Verified(finished, events, store.opened)
    assert sum(finished.results.values()) == len(verified.told) == len(verified.keys)
    assert sum(finished.evidence.values()) == finished.results.get(MATCHED, 0)
    return verified


@contextmanager
def reading(site: Site) -> Iterator[Journal]:
    with journal_session(
        site.settings, command="file verify", arguments={}, emit=site.events.append, read_only=True
    ) as session:
        yield session.journal


@pytest.fixture
def uploaded(site: Site) -> Site:
    """A site whose seven files are in the central store, as version `spring`."""
    site.update(UpdateRequest(version="spring"))
    site.upload()
    return site


def at(site: Site, path: str) -> Path:
    return site.central / "spring" / path


def change_in_secret(path: Path) -> None:
    """Let a disk lose a bit: other content, and nothing that tells of it."""
    times = path.stat()
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def edit_journal(site: Site, statement: str) -> None:
    for path in (site.local, site.cloud):
        with closing(sqlite3.connect(path)) as database, database:
            database.execute(statement)


# --- from the listing --------------------------------------------------------------------------------------------


def test_what_was_delivered_since_the_listing_is_looked_for(uploaded: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """An upload is running on the same journal."""
    scan = LocalStore.scan
    monkeypatch.setattr(
        LocalStore, "scan", lambda *where: (each for each in scan(*where) if not each.key.endswith("person.csv"))
    )
    assert run(uploaded).finished.is_good

    at(uploaded, "OMOP/person.csv").unlink()
    assert run(uploaded).results["OMOP/person.csv"] is VerifyResult.MISSING


def test_nothing_is_read_of_what_was_not_written_again(uploaded: Site) -> None:
    verified = run(uploaded)

    assert verified.opened == []
    assert verified.finished.results == {MATCHED: 7}
    assert verified.finished.evidence == {Evidence.READBACK: 7}
    assert verified.finished.read_back.files == 0
    assert verified.finished.is_good
    found = verified.files["OMOP/person.csv"]
    assert (found.key, found.modality, found.version) == ("spring/OMOP/person.csv", "OMOP", "spring")
    assert (found.size, found.detail) == (len("person_id\n1\n"), "")
    assert found.etag
    assert found.md5 is not None
    assert found.fingerprint is not None


def test_what_the_listing_shows_is_not_read_either(uploaded: Site) -> None:
    at(uploaded, "OMOP/person.csv").unlink()
    at(uploaded, "Metadata/README.md").write_text("about this")
    at(uploaded, "stranger.txt").write_text("?")

    verified = run(uploaded)

    assert verified.opened == []
    bad = {path: result for path, result in verified.results.items() if not result.is_good}
    assert bad == {
        "OMOP/person.csv": MISSING,
        "Metadata/README.md": VerifyResult.SIZE_DIFFERS,
        "spring/stranger.txt": VerifyResult.NOT_IN_JOURNAL,
    }
    assert verified.files["Metadata/README.md"].detail == "10 bytes, the journal says 5"
    assert verified.files["spring/stranger.txt"].size == 1
    assert not verified.finished.is_good


def test_what_was_written_again_is_read(uploaded: Site) -> None:
    at(uploaded, "OMOP/person.csv").write_text("person_id\n1\n")
    at(uploaded, "Metadata/README.md").write_text("ABOUT")

    verified = run(uploaded)

    # What is another one is read twice, before anybody is alarmed.
    assert sorted(verified.opened) == [*["spring/Metadata/README.md"] * 2, "spring/OMOP/person.csv"]
    again, other = verified.files["OMOP/person.csv"], verified.files["Metadata/README.md"]
    assert (again.result, again.evidence, again.detail) == (
        MATCHED,
        Evidence.READBACK,
        "written again since it was proven",
    )
    assert (other.result, other.evidence) == (VerifyResult.CHECKSUM_DIFFERS, None)
    assert other.detail == "written again since it was proven, with other content"


def test_what_an_older_tool_recorded(uploaded: Site) -> None:
    """A directory has no checksums to show, so such files are read; there may be no fingerprint to compare."""
    edit_journal(uploaded, "UPDATE delivery SET evidence = 'imported', etag = NULL")
    edit_journal(uploaded, "UPDATE file SET fingerprint = NULL")
    at(uploaded, "Metadata/README.md").write_text("ABOUT")

    verified = run(uploaded)

    assert len(set(verified.opened)) == 7
    person, readme = verified.files["OMOP/person.csv"], verified.files["Metadata/README.md"]
    assert (person.result, person.evidence, person.detail) == (MATCHED, Evidence.READBACK, "never proven before")
    assert (readme.result, readme.detail) == (
        VerifyResult.CHECKSUM_DIFFERS,
        "other content than an older tool recorded",
    )


def test_only_what_was_asked_for(uploaded: Site) -> None:
    verified = run(uploaded, VerifyRequest(modalities=("OMOP",), deep=True))

    assert verified.opened == ["spring/OMOP/person.csv"]
    assert verified.results == {"OMOP/person.csv": MATCHED}


def test_a_store_to_which_nothing_was_delivered(site: Site) -> None:
    site.update()

    verified = run(site, DEEP)

    assert verified.finished.versions == ()
    assert verified.finished.pending.files == 7
    assert not verified.finished.is_good, "nothing was checked, and nothing is blessed"


@pytest.fixture
def lively(uploaded: Site) -> Site:
    """The same site, whose `summer` has another person.csv and no a.dcm of 1001 any more, and is uploaded, too."""
    uploaded.write("OMOP/person.csv", "person_id\n1\n2\n")
    (uploaded.source / "1001/Images/a.dcm").unlink()
    uploaded.update(UpdateRequest(version="summer"))
    uploaded.upload()
    return uploaded


def test_the_last_version_is_checked_and_the_others_are_named(lively: Site) -> None:
    lively.write("OMOP/late.csv")
    lively.update(UpdateRequest(version="autumn"))

    verified = run(lively)

    assert verified.keys == {"summer/OMOP/person.csv": MATCHED}
    assert (verified.finished.versions, verified.finished.unchecked) == (("summer",), ("spring",))
    assert (verified.finished.pending.files, verified.finished.pending_versions) == (1, ("autumn",))
    other = run(lively, VerifyRequest(version="spring")).finished
    assert (other.versions, other.unchecked, other.pending_versions) == (("spring",), ("summer",), ("autumn",))


def test_all_versions(lively: Site) -> None:
    at(lively, "OMOP/person.csv").unlink()

    verified = run(lively, VerifyRequest(all_versions=True))

    assert (verified.finished.versions, verified.finished.unchecked) == (("spring", "summer"), ())
    assert verified.finished.results == {MATCHED: 7, MISSING: 1}
    assert {each.key: each.version for each in verified.told}["spring/OMOP/person.csv"] == "spring"
    with pytest.raises(ConfigError, match="exclude each other"):
        VerifyRequest(all_versions=True, version="spring")


def test_a_version_of_which_nothing_was_delivered(uploaded: Site) -> None:
    uploaded.write("OMOP/late.csv")
    uploaded.update(UpdateRequest(version="summer"))

    finished = run(uploaded, VerifyRequest(version="summer")).finished

    assert (finished.versions, finished.unchecked, finished.results) == (("summer",), ("spring",), {})
    assert not finished.is_good


def test_a_modality_of_which_nothing_was_delivered(uploaded: Site) -> None:
    site = uploaded.with_settings(modalities=(*uploaded.settings.modalities, "Waveforms"))

    finished = run(site, VerifyRequest(modalities=("Waveforms",), all_versions=True)).finished

    assert (finished.versions, finished.results, finished.modalities) == ((), {}, ("Waveforms",))
    assert not finished.is_good


def test_a_modality_that_is_not_configured_any_more_is_looked_at_all_the_same(uploaded: Site) -> None:
    sites = {name: each for name, each in uploaded.settings.sites.items() if name != "OMOP"}
    site = uploaded.with_settings(modalities=("Images", "Metadata"), sites=sites)
    at(uploaded, "OMOP/person.csv").unlink()

    assert run(site).results["OMOP/person.csv"] is MISSING


@pytest.mark.parametrize("request_", [VerifyRequest(version="spring"), VerifyRequest(all_versions=True)], ids=str)
def test_what_a_later_version_changed_is_looked_at(lively: Site, request_: VerifyRequest) -> None:
    """`file download --version spring` needs it still."""
    assert run(lively, request_).finished.is_good

    at(lively, "OMOP/person.csv").write_text("person_id\n9\n")
    at(lively, "1001/Images/a.dcm").unlink()
    verified = run(lively, request_)

    assert verified.keys["spring/OMOP/person.csv"] is VerifyResult.CHECKSUM_DIFFERS
    assert verified.keys["spring/1001/Images/a.dcm"] is MISSING
    (gone,) = (each for each in verified.told if each.result is MISSING)
    assert "and retired in summer" in gone.detail
    assert not verified.finished.is_good


def test_what_a_later_version_changed_is_read_back(lively: Site) -> None:
    change_in_secret(at(lively, "OMOP/person.csv"))

    assert run(lively, VerifyRequest(version="spring")).finished.is_good
    verified = run(lively, VerifyRequest(version="spring", deep=True))

    assert verified.finished.results == {MATCHED: 6, VerifyResult.CHECKSUM_DIFFERS: 1}
    assert verified.finished.read_back.files == 7
    assert verified.finished.superseded == 1
    (other,) = (each for each in verified.told if each.result is VerifyResult.CHECKSUM_DIFFERS)
    assert "this content is not sent again" in other.detail


def test_a_key_that_a_later_delivery_of_the_version_took_is_looked_at_once(uploaded: Site) -> None:
    uploaded.write("OMOP/person.csv", "person_id\n1\n2\n")
    uploaded.update(UpdateRequest(version="spring", amend=True))
    uploaded.upload()

    assert run(uploaded, DEEP).finished.results == {MATCHED: 7}
    at(uploaded, "OMOP/person.csv").unlink()
    assert run(uploaded).finished.results == {MATCHED: 6, MISSING: 1}


def test_what_is_known_of_an_object_that_is_not_there(uploaded: Site) -> None:
    edit_journal(uploaded, "UPDATE delivery SET delivered_us = 1772366400000000")
    edit_journal(uploaded, "UPDATE submission SET label = 'march'")
    at(uploaded, "OMOP/person.csv").unlink()

    found = run(uploaded).files["OMOP/person.csv"]

    assert found.detail == (
        "delivered 2026-03-01 12:00:00 UTC by submission march (evidence: readback);"
        " it is not there now: the receiver may have moved it"
    )
    assert (found.submission, found.delivered_us) == ("march", 1_772_366_400_000_000)
    edit_journal(uploaded, "UPDATE delivery SET delivered_us = 9223372036854775807")
    assert "9223372036854775807 us after 1970" in run(uploaded).files["OMOP/person.csv"].detail


def test_the_files_of_a_patient(lively: Site) -> None:
    verified = run(lively, VerifyRequest(patients=("1001", "1002"), all_versions=True))

    assert set(verified.keys) == {"spring/1001/Images/a.dcm", "spring/1002/Images/a.dcm"}
    assert verified.finished.patients == ("1001", "1002")
    # The last version of which anything of the patient was delivered.
    assert run(lively, VerifyRequest(patients=("1002",))).finished.versions == ("spring",)
    with pytest.raises(ConfigError, match="no files of patient 9999"):
        run(lively, VerifyRequest(patients=("1002", "9999")))


def test_one_request_for_five_thousand_objects(site: Site, tmp_path: Path) -> None:
    """A service that answers like Azure, with the pages of a folder of 5,001 objects."""
    number = 5_001
    for each in range(number - 7):
        site.write(f"{each:05}/Images/a.dcm", "")
    with Wire(upstream=0) as wire:
        auth = Auth.model_validate(
            {
                "mode": AuthMode.ACCOUNT_KEY,
                "azure_account_name": "site",
                "azure_account_url": f"http://127.0.0.1:{wire.port}/site",
                "azure_account_key": "a2V5",
            }
        )
        location = Location(path="az://central/data", auth=auth)
        site = site.with_settings(central=site.settings.central.model_copy(update={"location": location}))
        site.update(UpdateRequest(version="spring"))
        keys = call_delivered(site)
        assert len(keys) == number
        for first in range(0, number, 5_000):
            page = keys[first : first + 5_000]
            more = str(first + 5_000) if first + 5_000 < number else ""
            wire.script(Answer(200, (MARK, ("Content-Type", "application/xml")), listing(page, more)), method="GET")

        events: list[Event] = []
        with reading(site) as journal:
            finished = verify(journal, site.settings, VerifyRequest(), emit=events.append)

        assert finished.results == {MATCHED: number}
        assert finished.evidence == {Evidence.SERVER: number}
        assert len(wire.requests) == 2
        assert {"comp=list" in each.target and "prefix=data%2Fspring%2F" in each.target for each in wire.requests} == {
            True
        }


def call_delivered(site: Site) -> list[str]:
    """Have the journal believe that everything is in the central store; gives the keys in order."""
    url, keys, when = destination_url(site.settings.central.location), Keys(site.settings), 1_772_366_400_000_000
    with site.journal() as journal:
        deliveries.plan(journal, url=url, selection=Selection())
        transfers = [
            Transfer(
                file_id=file.id,
                modality=file.modality,
                path=file.path,
                key=keys.key(modality=file.modality, path=file.path, version=file.version),
                size=file.size,
                mtime_us=file.mtime_us,
                fingerprint=file.fingerprint,
            )
            for page in deliveries.planned(journal)
            for file in page
        ]
        submission = submissions.begin(journal, url=url, label="20260301120000", who=Who.here())
        delivered = [
            Delivered(each, each.fingerprint or b"", bytes(16), Evidence.SERVER, f"0x{each.file_id:X}", when, 0.1)
            for each in transfers
        ]
        deliveries.record(journal, submission, delivered)
    return sorted(f"{each.key} {each.size} 0x{each.file_id:X}" for each in transfers)


def listing(objects: list[str], marker: str) -> bytes:
    """A page of a listing as Azure writes it; each object is given as key, size and etag."""
    blobs = "".join(
        f"<Blob><Name>data/{key}</Name><Properties><Last-Modified>Sun, 01 Mar 2026 12:00:00 GMT</Last-Modified>"
        f"<Etag>{etag}</Etag><Content-Length>{size}</Content-Length><BlobType>BlockBlob</BlobType></Properties></Blob>"
        for key, size, etag in (each.rsplit(" ", 2) for each in objects)
    )
    return (
        '<?xml version="1.0" encoding="utf-8"?><EnumerationResults ContainerName="central">'
        f"<Blobs>{blobs}</Blobs><NextMarker>{marker}</NextMarker></EnumerationResults>"
    ).encode()


# --- reading back ------------------------------------------------------------------------------------------------


def test_a_silent_change_is_found_by_reading_only(uploaded: Site) -> None:
    change_in_secret(at(uploaded, "1001/Images/a.dcm"))

    assert run(uploaded).finished.results == {MATCHED: 7}
    verified = run(uploaded, DEEP)

    assert set(verified.opened) == {each.key for each in verified.files.values()}
    assert verified.finished.results == {MATCHED: 6, VerifyResult.CHECKSUM_DIFFERS: 1}
    changed = verified.files["1001/Images/a.dcm"]
    assert changed.result is VerifyResult.CHECKSUM_DIFFERS
    assert changed.detail == "other content, although it was not written again since it was proven"


@pytest.mark.parametrize("column", ["fingerprint", "md5"])
def test_both_checksums_have_to_be_right(uploaded: Site, column: str) -> None:
    table = "file" if column == "fingerprint" else "delivery"
    edit_journal(uploaded, f"UPDATE {table} SET {column} = zeroblob(16)")  # noqa: S608

    assert run(uploaded, DEEP).finished.results == {VerifyResult.CHECKSUM_DIFFERS: 7}


def test_how_far_the_reading_has_come(uploaded: Site) -> None:
    verified = run(uploaded, DEEP)

    progress = [each for each in verified.events if isinstance(each, VerifyProgressed)]
    size = sum(each.size or 0 for each in verified.files.values())
    listed = verified.finished.results[MATCHED] + 2  # the manifest, and the copy of the journal
    assert progress[0] == VerifyProgressed(listed)
    assert progress[1] == VerifyProgressed(listed, files=0, files_total=7, bytes=0, bytes_total=size)
    assert progress[-1] == VerifyProgressed(listed, files=7, files_total=7, bytes=size, bytes_total=size)
    assert (verified.finished.read_back.files, verified.finished.read_back.bytes) == (7, size)


def test_a_sample_is_read_and_the_rest_is_listed(uploaded: Site) -> None:
    def request(seed: int) -> VerifyRequest:
        return VerifyRequest(sample=Sample.parse("3", seed=seed))

    first, again = run(uploaded, request(1)), run(uploaded, request(1))
    others = [run(uploaded, request(seed)) for seed in range(2, 12)]

    assert len(first.opened) == 3
    assert first.finished.results == {MATCHED: 7}
    assert (first.finished.sample, first.finished.seed, first.finished.read_back.files) == ("3", 1, 3)
    assert set(again.opened) == set(first.opened)
    assert any(set(other.opened) != set(first.opened) for other in others)


def test_a_sample_of_one_percent_of_seven_files_is_a_file(uploaded: Site) -> None:
    assert len(run(uploaded, VerifyRequest(sample=Sample.parse("1%"))).opened) >= 1


def test_everything_or_a_part(uploaded: Site) -> None:
    with pytest.raises(ConfigError, match="exclude each other"):
        VerifyRequest(deep=True, sample=Sample.parse("1%"))


# --- trouble while reading ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        TransientError("reading it: no route to host (gave up after 9 attempts in 900 s)"),
        StorageError("reading it: This operation is not permitted on an archived blob (409 BlobArchived)"),
        PreconditionFailed("reading it: The condition is not met (412 ConditionNotMet)"),
        AccessDenied("reading it: Permission denied"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_one_object_that_cannot_be_read(uploaded: Site, error: StorageError) -> None:
    def refuse(key: str) -> None:
        if key == "spring/1001/Images/a.dcm":
            raise error

    verified = run(uploaded, DEEP, before=refuse)

    found = verified.files["1001/Images/a.dcm"]
    assert (found.result, found.detail) == (VerifyResult.UNREADABLE, error.message)
    assert verified.finished.results == {MATCHED: 6, VerifyResult.UNREADABLE: 1}
    assert verified.finished.read_back.files == 6
    assert not verified.finished.is_good


def test_a_service_that_is_away_for_all_of_them_is_no_end(uploaded: Site) -> None:
    def refuse(_: str) -> None:
        raise TransientError("no route to host")

    assert run(uploaded, DEEP, before=refuse).finished.results == {VerifyResult.UNREADABLE: 7}


def test_an_object_whose_reading_breaks_off(uploaded: Site) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise TransientError("the answer broke off")

    with patch.object(WatchedStore, "open", lambda *_: Broken()):
        verified = run(uploaded, DEEP)

    assert verified.finished.results == {VerifyResult.UNREADABLE: 7}


@pytest.mark.parametrize("error", [AccessDenied("403"), CredentialsExpired("the SAS token expired")])
def test_no_permission_to_read_anything_ends_it(uploaded: Site, error: StorageError) -> None:
    def refuse(_: str) -> None:
        raise error

    with pytest.raises(type(error), match=error.message):
        run(uploaded, DEEP, before=refuse)


def test_a_permission_that_is_taken_away_ends_it(uploaded: Site) -> None:
    """Of hundreds of files that nobody may read any more, only a few are asked for."""
    for number in range(200):
        uploaded.write(f"2000/Images/{number}.dcm")
    uploaded.update(UpdateRequest(version="spring", amend=True))
    uploaded.upload()
    asked: list[str] = []

    def refuse(key: str) -> None:
        asked.append(key)
        if "2000" in key:
            raise AccessDenied("403")

    with pytest.raises(AccessDenied):
        run(uploaded, DEEP, before=refuse, pool=SerialPool())

    assert len(asked) == 5 + MOST_DENIED


def test_an_object_that_is_removed_meanwhile(uploaded: Site) -> None:
    def remove(key: str) -> None:
        if key == "spring/1001/Images/a.dcm":
            (uploaded.central / key).unlink()

    verified = run(uploaded, DEEP, before=remove)

    found = verified.files["1001/Images/a.dcm"]
    assert (found.result, found.detail) == (MISSING, "it was removed while this command ran")
    assert verified.finished.results == {MATCHED: 6, MISSING: 1}


def test_an_object_that_grows_meanwhile(uploaded: Site) -> None:
    def extend(key: str) -> None:
        if key == "spring/1001/Images/a.dcm":
            with (uploaded.central / key).open("a") as file:
                file.write("more")

    found = run(uploaded, DEEP, before=extend).files["1001/Images/a.dcm"]

    assert (found.result, found.detail) == (VerifyResult.SIZE_DIFFERS, "it was written again while this command ran")


def test_a_bit_that_is_another_one_on_its_way_alarms_nobody(uploaded: Site) -> None:
    once = iter([True])

    def spoil(key: str) -> None:
        if key == "spring/1001/Images/a.dcm":
            is_wrong = next(once, False)
            file = at(uploaded, "1001/Images/a.dcm")
            if is_wrong:
                kept.append(file.read_bytes())
            change_in_secret(file) if is_wrong else file.write_bytes(kept[0])

    kept: list[bytes] = []
    verified = run(uploaded, DEEP, before=spoil)

    assert verified.finished.results == {MATCHED: 7}
    assert verified.opened.count("spring/1001/Images/a.dcm") == 2


def test_a_share_that_is_unmounted_meanwhile_has_lost_no_file(uploaded: Site) -> None:
    def unmount(_: str) -> None:
        with suppress(FileNotFoundError):
            uploaded.central.rename(uploaded.home / "away")

    with pytest.raises(ObjectNotFound, match="no directory"):
        run(uploaded, DEEP, before=unmount)


def test_an_interruption_waits_for_nothing(uploaded: Site) -> None:
    stop, threads = threading.Event(), threading.active_count()
    opened: list[str] = []

    def interrupt(key: str) -> None:
        opened.append(key)
        stop.set()
        # What a store says whose patience is cut short.
        raise TransientError("given up, because the run is to end")

    with pytest.raises(KeyboardInterrupt):
        run(uploaded, DEEP, before=interrupt, stop=stop)

    assert 1 <= len(opened) <= 2
    assert threading.active_count() == threads


def test_an_interruption_of_the_listing(uploaded: Site) -> None:
    stop = threading.Event()
    stop.set()

    with pytest.raises(KeyboardInterrupt):
        run(uploaded, stop=stop)


def test_an_interruption_of_a_service_that_is_waited_for(uploaded: Site) -> None:
    """A wait that is given up ends in a TransientError, but it is the user who ended it."""
    stop = threading.Event()

    def wait(_: object, __: str) -> Iterator[object]:
        stop.set()
        raise TransientError("given up, because the run is to end")

    with patch.object(WatchedStore, "scan", wait), pytest.raises(KeyboardInterrupt):
        run(uploaded, stop=stop)
