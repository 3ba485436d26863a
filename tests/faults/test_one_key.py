"""Two files, one key: neither takes the other's place. What differs only in case or Unicode form is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from chorus_upload.cli.render.plain import plain_sink
from chorus_upload.cli.render.stream import Stream
from chorus_upload.config.settings import Overwrite
from chorus_upload.events import FileFailed, ProblemFound
from chorus_upload.journal import deliveries, planning
from chorus_upload.journal.deliveries import Selection
from chorus_upload.journal.journal import Journal
from chorus_upload.model import FailureKind, JournalingMode, Problem, ProblemKind
from chorus_upload.operations.update import UpdateRequest
from chorus_upload.operations.upload import UploadRequest
from tests.cli.streams import Pretended
from tests.faults.figures import Figures
from tests.operations.conftest import Site, new_site


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return new_site(tmp_path)


def with_pattern(site: Site, **patterns: str) -> Site:
    sites = {
        name: each.model_copy(update={"pattern": patterns.get(name, each.pattern)})
        for name, each in site.settings.sites.items()
    }
    changed = site.with_settings(sites=sites)
    changed.events = site.events
    return changed


def problems(site: Site, kind: ProblemKind) -> list[Problem]:
    return [event.problem for event in site.events if isinstance(event, ProblemFound) and event.problem.kind is kind]


def failures(site: Site) -> dict[str, str]:
    return {event.path: event.detail for event in site.events if isinstance(event, FileFailed)}


def test_names_that_differ_only_in_case_keep_both_files(site: Site, figures: Figures) -> None:
    """As a pattern that ends in a suffix finds them."""
    site = with_pattern(site, OMOP="OMOP/{filepath}.csv")
    site.write("OMOP/a.csv", "small")
    site.write("OMOP/a.CSV", "large")

    site.update(UpdateRequest(version="1"))
    done = site.upload()

    (problem,) = problems(site, ProblemKind.NAMES_DIFFER_ONLY_IN_CASE)
    assert {problem.path.rpartition("/")[2], problem.detail.removeprefix("alike: ")} == {"a.csv", "a.CSV"}
    assert done.failed == 0
    assert {site.delivered()["1/OMOP/a.csv"], site.delivered()["1/OMOP/a.CSV"]} == {"small", "large"}
    figures.count("pairs of names alike")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("P1/Images/x.dcm", "p1/Images/x.dcm"),
        ("P1/Images/Series/x.dcm", "P1/Images/series/X.dcm"),
        ("P1/Images/caf\u00e9/x.dcm", "P1/Images/cafe\u0301/x.dcm"),
    ],
)
def test_keys_that_differ_only_in_case_or_unicode_are_named_wherever_that_begins(
    first: str, second: str, site: Site, figures: Figures
) -> None:
    for path in (first, second, second.replace("x.dcm", "more.dcm").replace("X.dcm", "more.dcm")):
        site.write(path, path)

    result = site.update(UpdateRequest(version="1"))

    (problem,) = problems(site, ProblemKind.KEYS_DIFFER_ONLY_IN_CASE)
    assert {problem.path, *(each for each in (first, second) if each in problem.detail)} == {first, second}
    assert result.problems == 0
    assert site.upload().failed == 0
    assert {f"1/{first}", f"1/{second}"} <= site.delivered().keys()
    figures.count("pairs of names alike")


def test_of_many_keys_that_are_alike_a_person_reads_the_first(site: Site, figures: Figures) -> None:
    """Once an update, and a program is told of all."""
    for number in range(30):
        for patient in ("P1", "p1"):
            site.write(f"{patient}/Images/{number}/x.dcm", f"{patient} {number}")
    result = site.update(UpdateRequest(version="1"))
    events = [event for event in site.events if isinstance(event, ProblemFound)]
    assert {event.problem.kind for event in events} == {ProblemKind.KEYS_DIFFER_ONLY_IN_CASE}
    assert len(events) == 30

    err = Pretended()
    sink = plain_sink(out=Stream(Pretended()), err=Stream(err))
    for event in events:
        sink.emit(event)
    sink.emit(result)

    *shown, rest = [line for line in err.shown.splitlines() if "keys-differ-only-in-case" in line]
    assert len(shown) == 10
    assert all("where files are kept without telling them apart" in line for line in shown)
    assert rest == "warning: keys-differ-only-in-case: 20 more (--json holds all of them)"
    figures.count("pairs of names alike", 30)


def test_one_key_within_a_directory_is_found_by_the_update(site: Site, figures: Figures) -> None:
    """The pattern begins in the middle of a name, and ignores case."""
    site = with_pattern(site, OMOP="OMOP/scan_{filepath}")
    site.write("OMOP/SCAN_a.csv", "capital")
    site.write("OMOP/scan_a.csv", "small")
    site.write("OMOP/scan_b.csv", "fine")

    result = site.update(UpdateRequest(version="1"))
    site.upload()

    (problem,) = problems(site, ProblemKind.SAME_KEY)
    assert (problem.path, "OMOP/SCAN_a.csv" in problem.detail) == ("OMOP/scan_a.csv", True)
    assert result.problems == 1
    delivered = site.delivered()
    assert (delivered["1/OMOP/a.csv"], delivered["1/OMOP/b.csv"]) == ("capital", "fine")
    figures.count("pairs with one key")


def test_one_key_in_two_modalities_is_found_by_the_update(site: Site, figures: Figures) -> None:
    """What is called like a modality is a patient of another one."""
    site.write("OMOP/Images/x.dcm", "whose?")

    result = site.update(UpdateRequest(version="1"))

    assert [problem.path for problem in problems(site, ProblemKind.SAME_KEY)] == ["OMOP/Images/x.dcm"]
    assert result.problems == 1
    figures.count("pairs with one key")


def test_of_two_pending_files_with_one_key_none_is_sent_and_both_are_named(site: Site, figures: Figures) -> None:
    """They were journaled under another pattern."""
    site.write("OMOP/scan_a.csv", "small")
    site.write("OMOP/SCAN_a.csv", "capital")
    site.update(UpdateRequest(version="1"))
    changed = with_pattern(site, OMOP="OMOP/scan_{filepath}", Metadata="Metadata/{filepath}")

    tried = changed.upload(UploadRequest(dry_run=True))
    done = changed.upload()

    assert (tried.failed, done.failed, done.failures) == (3, 3, {FailureKind.REFUSED: 3})
    told = failures(site)
    assert told["OMOP/scan_a.csv"].startswith("1/OMOP/a.csv is the central key of OMOP/SCAN_a.csv, too")
    assert told["OMOP/SCAN_a.csv"].startswith("1/OMOP/a.csv is the central key of OMOP/scan_a.csv, too")
    assert "does not match" in told["OMOP/person.csv"]
    assert (done.delivered.files, done.remaining.files) == (6, 3)
    figures.count("pairs with one key")


def test_directories_that_lead_to_one_place_are_compared_name_by_name(site: Site, figures: Figures) -> None:
    site.write("1000/images/a.dcm", "the other one")
    site.write("1000/images/b.dcm", "fine")
    site = site.with_settings(mode=JournalingMode.APPEND)
    (site.source / "1000/Images").rename(site.home / "away")
    site.update(UpdateRequest(version="1"))
    (site.source / "1000/images").rename(site.home / "once")
    (site.home / "away").rename(site.source / "1000/Images")
    site.update(UpdateRequest(version="1"))

    done = site.upload()

    told = failures(site)
    assert {path for path, detail in told.items() if "is the central key of" in detail} == {
        "1000/Images/a.dcm",
        "1000/images/a.dcm",
    }
    assert done.failed == 3
    assert "1000/images/b.dcm" in told, "it is away"
    figures.count("pairs with one key")


@pytest.mark.parametrize("overwrite", Overwrite)
def test_what_was_delivered_is_not_replaced_by_another_file_of_its_key(
    overwrite: Overwrite, site: Site, figures: Figures
) -> None:
    """The first one is active still, in append mode, and counts as delivered: then its object has to stay."""
    central = site.settings.central.model_copy(update={"overwrite": overwrite})
    site = with_pattern(site.with_settings(mode=JournalingMode.APPEND, central=central), OMOP="OMOP/scan_{filepath}")
    first = site.write("OMOP/scan_a.csv", "first")
    site.update(UpdateRequest(version="1"))
    site.upload()
    first.unlink()
    site.write("OMOP/SCAN_a.csv", "second")
    site.update(UpdateRequest(version="1"))

    done = site.upload()

    assert failures(site).keys() == {"OMOP/SCAN_a.csv"}
    assert "is the central key of OMOP/scan_a.csv, too" in failures(site)["OMOP/SCAN_a.csv"]
    assert site.delivered()["1/OMOP/a.csv"] == "first"
    assert done.failed == 1
    figures.count("pairs with one key")


def test_usual_files_are_not_asked_for_their_keys_one_by_one(site: Site) -> None:
    """So that a million files cost no more than their directories."""
    site.update(UpdateRequest(version="1"))
    asked: list[str] = []

    def ask(_modality: str, path: str, _version: str) -> str:
        asked.append(path)
        return path

    def look(journal: Journal, places: dict[str, str]) -> dict[int, str]:
        def lead(_modality: str, directory: str, version: str) -> str:
            return places.get(directory, f"{version}/{directory}/")

        deliveries.plan(journal, url="x", selection=Selection())
        return planning.shared_keys(journal, lead_of=lead, key_of=ask)

    with site.journal() as journal:
        assert look(journal, {}) == {}
        assert asked == []
        assert look(journal, {"1000/Images": "same/", "1001/Images": "same/"}) == {}
    assert set(asked) == {"1000/Images/a.dcm", "1001/Images/a.dcm"}
