"""`journal update` as its user sees it: what changed, what is wrong, and what is refused."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import BinaryIO

import pytest
from sqlalchemy import text

from chorus_upload.config.settings import Location
from chorus_upload.errors import ConfigError, DeletionRefused, LayoutError
from chorus_upload.events import FileOutsidePatterns, ProblemFound, Tally
from chorus_upload.journal import versions
from chorus_upload.model import FingerprintTime, JournalingMode, ProblemKind
from chorus_upload.operations.update import UpdateRequest
from chorus_upload.storage.local_source import LocalSource
from chorus_upload.storage.source import SmallFile
from tests.operations.conftest import Site

LONG_AGO = 1_600_000_000


def settle(site: Site) -> None:
    """Make every file old enough to be trusted by its time."""
    for path in site.source.rglob("*"):
        if path.is_file() and path.stat().st_mtime > LONG_AGO + 1_000_000:
            os.utime(path, (LONG_AGO, LONG_AGO))


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Paths of all files that are read."""
    read: list[str] = []
    original_read_small, original_open = LocalSource.read_small, LocalSource.open

    def read_small(self: LocalSource, path: str, *, size: int) -> SmallFile:
        read.append(path)
        return original_read_small(self, path, size=size)

    def open_(self: LocalSource, path: str) -> BinaryIO:
        read.append(path)
        return original_open(self, path)

    monkeypatch.setattr(LocalSource, "read_small", read_small)
    monkeypatch.setattr(LocalSource, "open", open_)
    return read


def test_the_first_update_finds_everything_and_the_second_nothing(site: Site, reads: list[str]) -> None:
    settle(site)
    first = site.update()
    assert len(reads) == 7
    reads.clear()
    second = site.update()

    assert {name: result.added.files for name, result in first.modalities.items()} == {
        "OMOP": 1,
        "Images": 5,
        "Metadata": 1,
    }
    assert (second.total.changed, second.total.unchanged.files, reads) == (0, 7, [])
    assert second.version != first.version


def test_every_kind_of_change_is_told_apart(site: Site) -> None:
    settle(site)
    site.update()
    site.write("1000/Images/a.dcm", "IMAGE 0")
    os.utime(site.source / "1000/Images/a.dcm", (LONG_AGO + 5, LONG_AGO + 5))
    os.utime(site.source / "1001/Images/a.dcm", (LONG_AGO + 9, LONG_AGO + 9))
    (site.source / "1002/Images/a.dcm").rename(site.source / "1002/Images/b.dcm")
    (site.source / "1003/Images/a.dcm").unlink()
    site.write("1009/Images/new.dcm", "another image")

    images = site.update(UpdateRequest(confirm_deletions=True)).modalities["Images"]

    size = len("image 0")
    assert images.modified == images.touched == images.renamed == images.retired == Tally(1, size)
    assert images.added == Tally(1, len("another image"))
    assert images.unchanged == Tally(1, size)


def test_the_same_time_with_another_size_and_the_same_size_with_another_time_are_both_seen(site: Site) -> None:
    settle(site)
    site.update()
    site.write("1000/Images/a.dcm", "longer than it was")
    settle(site)
    site.write("1001/Images/a.dcm", "IMAGE 1")

    assert site.update().modalities["Images"].modified.files == 2


def test_a_file_younger_than_the_clocks_grain_is_read_again_next_time(site: Site, reads: list[str]) -> None:
    settle(site)
    young = site.write("1000/Images/a.dcm", "image 0")
    times = young.stat()
    site.update()
    young.write_text("IMAGE 0")
    os.utime(young, ns=(times.st_atime_ns, times.st_mtime_ns))
    reads.clear()

    assert site.update().modalities["Images"].modified.files == 1
    assert reads == ["1000/Images/a.dcm"]


def test_on_upload_new_files_are_only_looked_at_and_read_once_while_they_are_sent(site: Site, reads: list[str]) -> None:
    settle(site)
    late = site.with_settings(fingerprint=FingerprintTime.ON_UPLOAD)

    assert late.update().total.added.files == 7
    assert reads == []
    assert late.upload().delivered.files == 7
    assert len(reads) == 7
    reads.clear()
    assert late.update().total.unchanged.files == 7
    (site.source / "1001/Images/a.dcm").rename(site.source / "1001/Images/z.dcm")
    os.utime(site.source / "1002/Images/a.dcm", (LONG_AGO + 9, LONG_AGO + 9))
    result = late.update(UpdateRequest(confirm_deletions=True)).modalities["Images"]

    assert (result.renamed.files, result.touched.files, result.added.files) == (1, 1, 0)
    assert sorted(reads) == ["1001/Images/z.dcm", "1002/Images/a.dcm"]


def test_an_update_goes_on_with_the_version_that_was_interrupted(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, pytest.raises(RuntimeError):
        patch.setattr(versions, "complete", lambda *_: (_ for _ in ()).throw(RuntimeError("killed")))
        site.update(UpdateRequest(version="first"))

    result = site.update()

    assert (result.version, result.resumed) == ("first", True)
    assert site.update().version != "first"


def test_amend_adds_to_the_last_version_and_an_existing_label_does_too(site: Site) -> None:
    with pytest.raises(ConfigError, match="no version yet"):
        site.update(UpdateRequest(amend=True))
    site.update(UpdateRequest(version="v1"))
    site.write("OMOP/visit_occurrence.csv")
    assert site.update(UpdateRequest(amend=True)).version == "v1"
    site.write("OMOP/measurement.csv")
    site.update(UpdateRequest(version="v1"))

    site.upload()

    assert {key.split("/")[0] for key in site.delivered()} == {"v1"}
    assert len(site.delivered()) == 9


def test_a_version_amended_after_its_upload_replaces_what_it_held(site: Site) -> None:
    site.update(UpdateRequest(version="v1"))
    site.upload()
    site.write("OMOP/person.csv", "person_id\n1\n2\n")
    site.update(UpdateRequest(amend=True))

    assert site.upload().delivered.files == 1
    assert site.delivered()["v1/OMOP/person.csv"] == "person_id\n1\n2\n"


@pytest.mark.parametrize("label", ["a/b", "..", "", "x" * 200, "tab\t"])
def test_a_label_that_cannot_be_a_folder_is_refused(site: Site, label: str) -> None:
    with pytest.raises(LayoutError):
        site.update(UpdateRequest(version=label))


def test_an_unknown_modality_is_refused_with_the_known_ones(site: Site) -> None:
    with pytest.raises(ConfigError) as error:
        site.update(UpdateRequest(modalities=("Imges",)))
    assert "Images" in str(error.value.hint)


def test_only_the_modalities_asked_for_are_touched(site: Site) -> None:
    site.update()
    (site.source / "OMOP/person.csv").unlink()
    site.write("1000/Images/new.dcm", "new")

    result = site.update(UpdateRequest(modalities=("images",)))

    assert list(result.modalities) == ["Images"]
    assert result.total.retired.files == 0


def remove(site: Site, count: int) -> None:
    for number in range(count):
        (site.source / f"100{number}/Images/a.dcm").unlink()


def recorded(site: Site) -> list[str]:
    with site.journal() as journal, journal.transaction() as connection:
        return list(connection.execute(text("SELECT label FROM version")).scalars())


def test_one_in_five_may_disappear_and_two_may_not(site: Site) -> None:
    site.update(UpdateRequest(version="1"))
    remove(site, 1)
    assert site.update(UpdateRequest(version="2")).total.retired.files == 1
    remaining = [site.source / f"100{number}/Images/a.dcm" for number in (1, 2)]
    for path in remaining:
        path.unlink()

    with pytest.raises(DeletionRefused, match="2 of 4") as refusal:
        site.update(UpdateRequest(version="3"))

    assert "--confirm-deletions" in str(refusal.value.hint)
    assert recorded(site) == ["1", "2"]
    assert site.update(UpdateRequest(version="3", confirm_deletions=True)).total.retired.files == 2


def test_an_empty_modality_is_refused_whatever_the_limit(site: Site) -> None:
    site.update()
    (site.source / "Metadata/README.md").unlink()

    with pytest.raises(DeletionRefused, match="Metadata: no file at all"):
        site.with_settings(deletion_limit=1.0).update()


def test_a_missing_root_is_refused_in_either_mode_and_can_be_confirmed(site: Site) -> None:
    site.update()
    site.source.rename(site.home / "unmounted")

    with pytest.raises(DeletionRefused, match="cannot be listed"):
        site.update()
    with pytest.raises(DeletionRefused):
        site.with_settings(mode=JournalingMode.APPEND).update()

    assert site.update(UpdateRequest(confirm_deletions=True)).total.retired.files == 7


def test_append_mode_retires_nothing(site: Site) -> None:
    append = site.with_settings(mode=JournalingMode.APPEND)
    append.update()
    remove(site, 5)
    site.write("1009/Images/a.dcm", "image 0")

    result = append.update()

    assert (result.total.retired.files, result.total.renamed.files, result.total.added.files) == (0, 0, 1)


def test_files_outside_the_patterns_are_counted_and_listed_on_request(site: Site) -> None:
    site.write("notes.txt", "12345")
    site.write("1000/Other/x", "1")

    quiet = site.update()
    assert quiet.outside == {str(site.source): Tally(2, 6)}
    assert not [event for event in site.events if isinstance(event, FileOutsidePatterns)]
    site.update(UpdateRequest(list_outside=True, modalities=("OMOP",)))

    listed = [event.path for event in site.events if isinstance(event, FileOutsidePatterns)]
    assert sorted(listed) == ["1000/Other/x", "notes.txt"]


def test_modalities_in_different_places_are_walked_each_in_its_own(site: Site, tmp_path: Path) -> None:
    pacs = tmp_path / "pacs"
    (pacs / "2000/Images").mkdir(parents=True)
    (pacs / "2000/Images/a.dcm").write_text("from the PACS")
    images = site.settings.sites["Images"].model_copy(update={"location": Location(path=str(pacs))})
    apart = site.with_settings(sites={**site.settings.sites, "Images": images})

    result = apart.update(UpdateRequest(version="1"))
    apart.upload()

    assert result.modalities["Images"].added.files == 1
    assert site.delivered()["1/2000/Images/a.dcm"] == "from the PACS"
    # They are told of, and are no strangers: they look like those of the PACS.
    assert result.outside[str(site.source)].files == 5
    assert result.problems == 0


@pytest.mark.parametrize(
    ("place", "pattern", "outside", "told"),
    [
        # It lies in the other source, and whatever is there is its own.
        ("site/OMOP", "{filepath}", 0, False),
        # It holds the other source.
        (".", "site/OMOP/{filepath}", 0, False),
        # It is elsewhere: a pattern that takes everything says nothing of the files of others.
        ("elsewhere", "{filepath}", 1, True),
        ("elsewhere", "{patient_id:w}/{filepath}", 1, True),
        ("elsewhere", "OMOP/{filepath}", 1, False),
    ],
)
def test_what_belongs_to_another_source_is_no_stranger(
    site: Site, place: str, pattern: str, outside: int, *, told: bool
) -> None:
    home = site.home / place
    home.mkdir(exist_ok=True)
    (home / "table.csv").write_text("1")
    omop = site.settings.sites["OMOP"].model_copy(update={"location": Location(path=str(home)), "pattern": pattern})
    apart = site.with_settings(sites={**site.settings.sites, "OMOP": omop}, outside_limit=0.0)

    result = apart.update(UpdateRequest(modalities=("Images", "Metadata")))

    assert result.outside[str(site.source)].files == outside
    kinds = [event.problem.kind for event in apart.events if isinstance(event, ProblemFound)]
    assert kinds == ([ProblemKind.OUTSIDE_PATTERNS] if told else [])


def test_directories_that_lead_to_one_key_are_reported_and_stop_nothing_else(site: Site) -> None:
    site.write("1000/images/a.dcm", "the other one")
    site.write("1000/images/b.dcm", "fine")

    result = site.update(UpdateRequest(version="1"))
    site.upload()

    problems = [event.problem for event in site.events if isinstance(event, ProblemFound)]
    assert (ProblemKind.SAME_KEY, "1000/images/a.dcm") in [(problem.kind, problem.path) for problem in problems]
    assert result.problems >= 1
    assert site.delivered()["1/1000/Images/a.dcm"] == "image 0"
    assert site.delivered()["1/1000/Images/b.dcm"] == "fine"


@pytest.mark.parametrize("label", ["CON", "v1.", "-rf", "V1"])
def test_a_label_that_no_new_version_can_have(site: Site, label: str) -> None:
    site.update(UpdateRequest(version="v1"))

    with pytest.raises(LayoutError, match=re.escape(repr(label))):
        site.update(UpdateRequest(version=label))


def test_a_label_that_the_journal_has_is_taken(site: Site) -> None:
    """As an older program let it in."""
    site.update(UpdateRequest(version="v1"))
    with site.journal() as journal, journal.transaction() as connection:
        connection.exec_driver_sql("UPDATE version SET label = 'CON'")

    assert site.update(UpdateRequest(version="CON")).version == "CON"


def test_a_version_in_the_path_that_cannot_be_one(site: Site) -> None:
    """What is below it is told of and left alone; of two that differ in case the one stays that the journal has."""
    pattern = "{version:w}/{patient_id:w}/OMOP_tables/{filepath}"
    omop = site.settings.sites["OMOP"].model_copy(update={"pattern": pattern, "versioned": True})
    versioned = site.with_settings(sites={**site.settings.sites, "OMOP": omop}, outside_limit=1.0)
    site.write("v7/55/OMOP_tables/person.csv", "seven")
    versioned.update(UpdateRequest(version="1"))
    for label in ("V7", "NUL", "x" * 129, "2025"):
        site.write(f"{label}/55/OMOP_tables/person.csv", f"in {label}")

    result = versioned.update(UpdateRequest(version="2"))

    told = {event.problem.path: event.problem for event in versioned.events if isinstance(event, ProblemFound)}
    assert told.keys() == {f"{label}/55/OMOP_tables" for label in ("V7", "NUL", "x" * 129)}
    assert {problem.kind for problem in told.values()} == {ProblemKind.INVALID_NAME}
    assert "differs from v7 in case" in told["V7/55/OMOP_tables"].detail
    assert "device" in told["NUL/55/OMOP_tables"].detail
    assert (result.modalities["OMOP"].added.files, result.modalities["OMOP"].unchanged.files) == (1, 1)
    versioned.upload()
    assert {key.partition("/")[0] for key in site.delivered() if "OMOP" in key} == {"v7", "2025"}


def test_a_version_in_the_path_beside_that_of_an_update(site: Site) -> None:
    """Both become folders of the central store: no two of those differ in case only. What is there already stays."""
    pattern = "{version:w}/{patient_id:w}/OMOP_tables/{filepath}"
    omop = site.settings.sites["OMOP"].model_copy(update={"pattern": pattern, "versioned": True})
    versioned = site.with_settings(sites={**site.settings.sites, "OMOP": omop}, outside_limit=1.0)
    for label in ("Spring", "winter", "summer"):
        site.write(f"{label}/55/OMOP_tables/person.csv", f"in {label}")
    site.update(UpdateRequest(version="Winter", modalities=("Images",)))

    versioned.update(UpdateRequest(version="spring"))
    versioned.update(UpdateRequest(version="summer"))
    versioned.upload()

    told = {event.problem.path: event.problem.detail for event in versioned.events if isinstance(event, ProblemFound)}
    assert told.keys() == {"Spring/55/OMOP_tables", "winter/55/OMOP_tables"}
    assert "differs from spring in case only" in told["Spring/55/OMOP_tables"]
    assert "differs from Winter in case only" in told["winter/55/OMOP_tables"]
    assert "summer/55/OMOP/person.csv" in site.delivered()
    assert {key.partition("/")[0] for key in site.delivered()} == {"Winter", "spring", "summer"}


def test_a_version_in_the_path_is_the_version_of_the_file(site: Site) -> None:
    pattern = "{version:w}/{patient_id:w}/OMOP_tables/{filepath}"
    omop = site.settings.sites["OMOP"].model_copy(update={"pattern": pattern, "versioned": True})
    versioned = site.with_settings(sites={**site.settings.sites, "OMOP": omop})
    site.write("v7/55/OMOP_tables/person.csv", "seven")
    site.write("v8/55/OMOP_tables/person.csv", "eight")

    versioned.update(UpdateRequest(version="1"))
    versioned.upload()

    delivered = site.delivered()
    assert delivered["v7/55/OMOP/person.csv"] == "seven"
    assert delivered["v8/55/OMOP/person.csv"] == "eight"
    assert delivered["1/1000/Images/a.dcm"] == "image 0"


def test_what_a_pattern_ends_in_stays_in_the_key(site: Site) -> None:
    images = site.settings.sites["Images"].model_copy(update={"pattern": "{patient_id:d}_vid/{filepath}.avi"})
    site = site.with_settings(sites={**site.settings.sites, "Images": images})
    site.write("7_vid/a/gait.avi", "moving")
    site.write("7_vid/notes.txt", "no video")

    site.update(UpdateRequest(version="spring", modalities=("Images",)))
    site.upload()

    assert site.delivered() == {"spring/7/Images/a/gait.avi": "moving"}
