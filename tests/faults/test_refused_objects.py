"""One object that is refused stops nothing: by a policy, by a filter on the way, in a container that keeps all."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from chorus_upload.config.loading import load
from chorus_upload.events import Event, FileDelivered, FileFailed
from chorus_upload.model import FailureKind
from chorus_upload.operations.custody import journal_session
from chorus_upload.operations.upload import UploadRequest, upload
from chorus_upload.storage import liveness
from chorus_upload.storage import open as storage_open
from tests.e2e.clouds import CENTRAL, files_of, manifest_of
from tests.e2e.conftest import settle
from tests.e2e.site import Site
from tests.faults.figures import THOROUGH, Figures
from tests.faults.services import SERVICES, Services
from tests.trees import Bytes, build, contents
from tests.wire import Answer, Fault, Request, Wire

REFUSED = 24
FINE = 40
# The largest are sent first.
TREE = {
    **{f"{patient}/Images/secret.dcm": Bytes(3_000) for patient in range(1001, 1001 + REFUSED)},
    **{f"{patient}/Images/scan.dcm": Bytes(1_000) for patient in range(2001, 2001 + FINE)},
}
ALL = {f"spring/{path}" for path in TREE}
GOOD = {key for key in ALL if "secret" not in key}

DENIALS = {
    "azure": Answer(403, (("x-ms-request-id", "1"), ("x-ms-error-code", "AuthorizationPermissionMismatch"))),
    "s3": Answer(
        403,
        (("x-amz-request-id", "1"), ("Content-Type", "application/xml")),
        b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>",
    ),
    "google": Answer(
        403,
        (("Content-Type", "application/json"),),
        b'{"error": {"code": 403, "message": "no", "errors": [{"reason": "forbidden", "message": "no"}]}}',
    ),
}
"""What each service says of an object that may not be written."""
IMMUTABLE = Answer(
    409, (("x-ms-request-id", "1"), ("x-ms-error-code", "BlobImmutableDueToPolicy"), ("Content-Type", "text/plain"))
)


@contextmanager
def a_site(
    services: Services, service: str, root: Path, *, patience: int = 5, threads: int = 8
) -> Iterator[tuple[Site, Wire]]:
    """A site on a wire to a service, whose files are in the journal."""
    cloud, port = services.cloud(service)
    with Wire(port) as wire:
        cloud = dataclasses.replace(cloud, port=wire.port)  # type: ignore[type-var]
        site = settle(root / "home", build(root / "source", TREE), cloud, threads=threads, patience=patience)
        site.run("journal", "update", "--version", "spring")
        yield site, wire


def _writes(request: Request, name: str) -> bool:
    """Whether it brings a file of that name."""
    return request.method in ("PUT", "POST") and name in request.target


def _delivered(site: Site) -> set[str]:
    return set(files_of(site.cloud.objects()))


@pytest.mark.parametrize("service", SERVICES if THOROUGH else SERVICES[:1])
def test_refused_files_that_stand_first_keep_no_other_from_arriving(
    service: str, services: Services, tmp_path: Path, figures: Figures
) -> None:
    """Neither in one run, nor with a number of files a run: what is refused does not use that up."""
    with a_site(services, service, tmp_path) as (site, wire):

        def refuse(request: Request) -> Fault | None:
            if not _writes(request, "secret"):
                return None
            figures.count("refusals")
            return DENIALS[service]

        wire.chance = refuse
        upload = site.run("file", "upload", "--max-num-files", "10", exit_code=3)
        assert len(_delivered(site)) == 10
        assert "denied: 1001/Images/secret.dcm: " in upload.err
        assert "403" in upload.err

        upload = site.run("file", "upload", exit_code=3)
        assert _delivered(site) == GOOD
        assert upload.err.count("warning: denied: ") == REFUSED
        assert f"{REFUSED} files could not be delivered" in upload.err
        # What was refused is all that is left, and is no reason to call everything refused.
        site.run("file", "upload", exit_code=3)
        assert set(manifest_of(site.cloud.objects(), "spring")) == GOOD

        wire.chance = None
        site.run("file", "upload")
        assert _delivered(site) == ALL


@pytest.mark.parametrize("service", SERVICES if THOROUGH else SERVICES[:1])
def test_a_run_that_is_refused_everything_stops_soon(
    service: str, services: Services, tmp_path: Path, figures: Figures
) -> None:
    with a_site(services, service, tmp_path) as (site, wire):
        asked: set[str] = set()

        def refuse(request: Request) -> Fault | None:
            if not (_writes(request, "secret") or _writes(request, "scan")):
                return None
            asked.add(request.target.partition("?")[0])
            figures.count("refusals")
            return DENIALS[service]

        wire.chance = refuse
        upload = site.run("file", "upload", exit_code=21)
        assert "error: writing spring/" in upload.err
        assert "hint: Writing has to be allowed" in upload.err
        # Ten in a row, those that were under way then, and ten from all over the plan.
        assert service == "google" or len(asked) < REFUSED + FINE
        wire.chance = None
        site.run("file", "upload")
        assert _delivered(site) == ALL


def test_a_permission_that_is_withdrawn_stops_the_run(services: Services, tmp_path: Path, figures: Figures) -> None:
    """What was accepted before is refused now: that is not about single objects.

    One thread: with more, what was accepted may be heard of after the first refusals.
    """
    with a_site(services, "azure", tmp_path, threads=1) as (site, wire):
        put: list[str] = []

        def refuse(request: Request) -> Fault | None:
            if not (_writes(request, "secret") or _writes(request, "scan")):
                return None
            put.append(request.target)
            if len(put) <= 20:
                return None
            figures.count("refusals")
            return DENIALS["azure"]

        wire.chance = refuse
        site.run("file", "upload", exit_code=21)
        assert len(put) < len(TREE)
        wire.chance = None
        site.run("file", "upload")
        assert _delivered(site) == ALL


def test_a_permission_that_is_withdrawn_for_the_last_files(
    services: Services, tmp_path: Path, figures: Figures
) -> None:
    """They are too few, and too many threads, to be refused ten in a row."""
    with a_site(services, "azure", tmp_path) as (site, wire):
        put: list[str] = []

        def refuse(request: Request) -> Fault | None:
            if not (_writes(request, "secret") or _writes(request, "scan")):
                return None
            put.append(request.target)
            if len(put) <= len(TREE) - 5:
                return None
            figures.count("refusals")
            return DENIALS["azure"]

        wire.chance = refuse
        upload = site.run("file", "upload", exit_code=21)
        assert "hint: Writing has to be allowed" in upload.err
        wire.chance = None
        site.run("file", "upload")
        assert _delivered(site) == ALL


def test_what_a_filter_on_the_way_keeps_back_holds_up_nobody_else(
    services: Services, tmp_path: Path, figures: Figures, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pages are nobody's refusal, and are asked again; but not by all threads for as long as a service is away."""
    monkeypatch.setattr(storage_open, "ASIDE_SECONDS", 0.2)
    monkeypatch.setattr(liveness, "_ASK_SECONDS", 0.05)
    with a_site(services, "azure", tmp_path, patience=2) as (site, wire):
        let_through: list[str] = []

        def keep_back(request: Request) -> Fault | None:
            path = request.target.partition("?")[0]
            if not _writes(request, "secret") or path in let_through:
                return None
            if "1001/" in path and wire.count("PUT", "1001/") > 8:
                # In the end somebody lets this one pass.
                let_through.append(path)
            figures.count("pages of the filter")
            return Answer(403, (("Content-Type", "text/html"),), b"<html>This looks like patients' data</html>")

        wire.chance = keep_back
        settings, told = load(site.config, environ={}), list[Event]()
        with journal_session(settings, command="upload", arguments={}, emit=told.append) as session:
            finished = upload(session.journal, settings, UploadRequest(), emit=told.append)

        good = GOOD | {"spring/1001/Images/secret.dcm"} if let_through else GOOD
        assert _delivered(site) == good
        assert finished.delivered.files == len(good)
        assert finished.failures == {FailureKind.TRANSIENT: len(ALL - good)}
        first = next(index for index, event in enumerate(told) if isinstance(event, FileFailed))
        # They were tried again when all others had arrived.
        assert sum(isinstance(event, FileDelivered) for event in told[:first]) == len(good)
        wire.chance = None
        site.run("file", "upload")
        assert _delivered(site) == ALL


def test_an_immutable_object_and_a_container_that_keeps_everything(
    services: Services, tmp_path: Path, figures: Figures
) -> None:
    """The file that would replace one is named; manifest and journal copy get names of their own, and are found."""
    with a_site(services, "azure", tmp_path) as (site, wire):
        site.run("file", "upload")
        written = {f"/{CENTRAL}/{key}" for key in ALL} | {f"/{CENTRAL}/spring/journal.db"}

        def keep(request: Request) -> Fault | None:
            name = f"/{CENTRAL}/" + request.target.partition("?")[0].partition(f"/{CENTRAL}/")[2]
            if request.method != "PUT" or name not in written:
                return None
            figures.count("refusals")
            return IMMUTABLE

        wire.chance = keep
        build(site.source, {"1001/Images/secret.dcm": Bytes(5_000), "3001/Images/new.dcm": Bytes(10)})
        site.run("journal", "update", "--version", "spring")
        upload = site.run("file", "upload", exit_code=3)

        assert "refused: 1001/Images/secret.dcm: " in upload.err
        assert "BlobImmutableDueToPolicy" in upload.err
        assert "spring/journal.db cannot be replaced" in upload.err
        assert "spring/3001/Images/new.dcm" in _delivered(site)
        (copy,) = [key for key in site.cloud.objects() if key.startswith(f"{CENTRAL}/spring/journal-")]
        assert f"the new one is {copy.removeprefix(f'{CENTRAL}/')}" in upload.err
        # The receiver's newest journal is no stranger.
        site.run("file", "verify")
        assert (
            contents(site.source)["3001/Images/new.dcm"] == files_of(site.cloud.objects())["spring/3001/Images/new.dcm"]
        )


@pytest.mark.parametrize("answer", [Answer(403, body=b"<html>blocked</html>"), DENIALS["azure"]])
def test_a_manifest_that_is_refused_is_an_outcome_and_left_by_the_next_upload(
    answer: Answer, services: Services, tmp_path: Path, figures: Figures
) -> None:
    with a_site(services, "azure", tmp_path, patience=2) as (site, wire):

        def refuse(request: Request) -> Fault | None:
            if not _writes(request, "manifest-"):
                return None
            figures.count("refusals")
            return answer

        wire.chance = refuse
        for delivered in (len(ALL), 0):
            upload = site.run("--json", "file", "upload", exit_code=3)
            told = upload.event("upload-finished")
            assert (told["delivered"]["files"], told["failed"]) == (delivered, 0)
            assert told["manifests_refused"] == ["spring"]
        said = site.run("file", "upload", exit_code=3).err
        assert "spring: its manifest or journal copy could not be put there: " in said
        assert "Next: chorus-upload file upload" in said
        assert not manifest_of(site.cloud.objects(), "spring")

        wire.chance = None
        site.run("file", "upload")
        assert set(manifest_of(site.cloud.objects(), "spring")) == ALL
