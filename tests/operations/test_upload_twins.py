"""Less to send: what the service has already is copied there, and everything arrives all the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from chorus_upload.config.settings import Location
from chorus_upload.errors import AccessDenied
from chorus_upload.events import FileDelivered, FilePlanned, UploadFinished
from chorus_upload.journal.planning import TWIN_BYTES
from chorus_upload.model import FailureKind, FingerprintTime
from chorus_upload.operations.update import UpdateRequest
from chorus_upload.operations.upload import UploadRequest, upload
from chorus_upload.transfer.pool import Pool, SerialPool, ThreadPool
from tests.operations.conftest import Site
from tests.transfer.stores import CopyingStore

LARGE = "image" * TWIN_BYTES


@pytest.fixture
def store(site: Site, monkeypatch: pytest.MonkeyPatch) -> CopyingStore:
    """The central store of the site, as one that can copy."""
    store = CopyingStore(site.central)

    def open_store(location: Location, *_: object, **__: object) -> CopyingStore:
        assert location == site.settings.central.location
        return store

    monkeypatch.setattr("chorus_upload.operations.upload.open_store", open_store)
    return store


def send(site: Site, request: UploadRequest | None = None, *, pool: Pool | None = None) -> UploadFinished:
    """One upload, in a fixed order."""
    site.events.clear()
    with site.journal("file upload") as journal:
        return upload(
            journal, site.settings, request or UploadRequest(), emit=site.events.append, pool=pool or SerialPool()
        )


def large_puts(store: CopyingStore) -> dict[str, str | None]:
    """Which files of test were put, and which twin was named with each: their names, in their order."""
    return {Path(key).name: twin and Path(twin).name for key, twin in store.puts.items() if "/2000/Images/" in key}


def test_a_renamed_file_is_copied(site: Site, store: CopyingStore) -> None:
    site.write("2000/Images/old.dcm", LARGE)
    site.update(UpdateRequest(version="spring"))
    send(site)
    (site.source / "2000/Images/old.dcm").rename(site.source / "2000/Images/new.dcm")
    site.update(UpdateRequest(version="autumn"))

    finished = send(site)

    assert store.puts["autumn/2000/Images/new.dcm"] == "spring/2000/Images/old.dcm"
    assert (finished.delivered.files, finished.delivered.bytes) == (1, len(LARGE))
    assert finished.spared == len(LARGE)
    (delivered,) = (event for event in site.events if isinstance(event, FileDelivered))
    assert delivered.spared == len(LARGE)
    assert site.delivered()["autumn/2000/Images/new.dcm"] == LARGE


def test_a_file_that_is_no_longer_where_it_was_is_sent(site: Site, store: CopyingStore) -> None:
    site.write("2000/Images/old.dcm", LARGE)
    site.update(UpdateRequest(version="spring"))
    send(site)
    (site.source / "2000/Images/old.dcm").rename(site.source / "2000/Images/new.dcm")
    site.update(UpdateRequest(version="autumn"))
    (site.central / "spring/2000/Images/old.dcm").write_text("somebody wrote over it")

    finished = send(site)

    assert (finished.delivered.files, finished.spared) == (1, 0)
    assert site.delivered()["autumn/2000/Images/new.dcm"] == LARGE


@pytest.mark.parametrize("pool", [SerialPool(), ThreadPool(4, idle_seconds=0.01)], ids=["serial", "threads"])
def test_identical_content_is_sent_once(site: Site, store: CopyingStore, pool: Pool) -> None:
    for name in ("first", "second", "third"):
        site.write(f"2000/Images/{name}.dcm", LARGE)
    site.write("2000/Images/larger.dcm", f"{LARGE} and more")
    site.write("2000/Images/small.dcm", "s")
    site.update(UpdateRequest(version="spring"))

    finished = send(site, pool=pool)

    put = large_puts(store)
    twins = {name: twin for name, twin in put.items() if twin}
    assert {put[name] for name in put.keys() - twins.keys()} == {None}
    assert len(twins) == 2
    assert set(twins.values()) == {"first.dcm", "second.dcm", "third.dcm"} - twins.keys()
    # Their turn comes when everything else is delivered.
    assert list(put)[-2:] == list(twins)
    assert finished.spared == 2 * len(LARGE)
    assert finished.remaining.files == 0
    delivered = site.delivered()
    assert {delivered[f"spring/2000/Images/{name}.dcm"] for name in ("first", "second", "third")} == {LARGE}


def test_the_largest_go_first_in_each_pass(site: Site, store: CopyingStore) -> None:
    for number in range(3):
        site.write(f"2000/Images/large-{number}.dcm", LARGE)
        site.write(f"2000/Images/larger-{number}.dcm", f"{LARGE} and more")
    site.update(UpdateRequest(modalities=("Images",)))

    send(site)

    sent = [name.partition("-")[0] for name in large_puts(store)]
    assert sent == ["larger", "large", "larger", "larger", "large", "large"]


def test_when_the_first_of_them_cannot_be_sent_the_others_are(site: Site, store: CopyingStore) -> None:
    for name in ("first", "second", "third"):
        site.write(f"2000/Images/{name}.dcm", LARGE)
    site.update(UpdateRequest(version="spring"))
    send(site, UploadRequest(dry_run=True))
    first = next(event.path for event in site.events if isinstance(event, FilePlanned))
    (site.source / first).unlink()

    finished = send(site)

    assert finished.failures == {FailureKind.VANISHED: 1}
    assert (finished.remaining.files, finished.spared) == (1, 0)
    assert set(large_puts(store).values()) == {None}


def test_an_upload_of_so_many_files_counts_over_both_passes(site: Site, store: CopyingStore) -> None:
    """Of nine images six are not copies: five small ones, and the first of the large ones."""
    for number in range(4):
        site.write(f"2000/Images/{number}.dcm", LARGE)
    site.update(UpdateRequest(version="spring", modalities=("Images",)))

    first = send(site, UploadRequest(max_files=7))
    second = send(site, UploadRequest(max_files=7))

    assert (first.delivered.files, first.spared) == (7, len(LARGE))
    assert (second.delivered.files, second.remaining.files) == (2, 0)
    assert len(site.delivered()) == 9


def test_a_dry_run_names_what_would_be_copied_too(site: Site) -> None:
    for name in ("first", "second"):
        site.write(f"2000/Images/{name}.dcm", LARGE)
    site.update()

    send(site, UploadRequest(dry_run=True))

    planned = [event for event in site.events if isinstance(event, FilePlanned)]
    assert len(planned) == 9
    assert planned[-1].size == len(LARGE)


def test_an_interrupted_upload_goes_on_with_what_it_sent(
    site: Site, store: CopyingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("first", "second", "third"):
        site.write(f"2000/Images/{name}.dcm", LARGE)
    site.update(UpdateRequest(version="spring"))
    put = store.put

    def put_and_lose_permission(key: str, *arguments: object, **options: object) -> object:
        if store.puts:
            raise AccessDenied("not any more")
        return put(key, *arguments, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as meanwhile, pytest.raises(AccessDenied):
        meanwhile.setattr(store, "put", put_and_lose_permission)
        send(site)
    (sent,) = large_puts(store)

    finished = send(site)

    assert finished.spared == 2 * len(LARGE)
    assert {twin for name, twin in large_puts(store).items() if name != sent} == {sent}


def test_what_is_first_read_while_it_is_sent_has_no_twins(site: Site, store: CopyingStore) -> None:
    site = site.with_settings(fingerprint=FingerprintTime.ON_UPLOAD)
    for name in ("first", "second"):
        site.write(f"2000/Images/{name}.dcm", LARGE)
    site.update()

    finished = send(site)

    assert set(large_puts(store).values()) == {None}
    assert (finished.remaining.files, finished.spared) == (0, 0)


def test_a_store_that_cannot_copy(site: Site) -> None:
    """It is sent everything; nobody notices."""
    for name in ("first", "second"):
        site.write(f"2000/Images/{name}.dcm", LARGE)
    site.update(UpdateRequest(version="spring"))

    finished = send(site)

    assert (finished.remaining.files, finished.spared) == (0, 0)
    assert {site.delivered()[f"spring/2000/Images/{name}.dcm"] for name in ("first", "second")} == {LARGE}
