"""What a site asks its journal, and what it may throw away: on a small site with a local central store."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from chorus_upload.config.settings import Location
from chorus_upload.errors import ConfigError, JournalError, ObjectNotFound
from chorus_upload.events import Level, Notice, VerifyResult
from chorus_upload.journal.checking import Finding
from chorus_upload.journal.comparing import Difference
from chorus_upload.model import Evidence, JournalingMode
from chorus_upload.operations import custody
from chorus_upload.operations.checking_journal import check_cloud, check_journal, finished
from chorus_upload.operations.insight import (
    FileLife,
    ModalityDifference,
    compared_versions,
    differences,
    file_life,
    last_pruned,
    version_totals,
)
from chorus_upload.operations.listing import list_files, list_versions
from chorus_upload.operations.prune import PruneFinished, PruneRequest, prune
from chorus_upload.operations.update import UpdateRequest
from chorus_upload.operations.verify import VerifyRequest, verify
from tests.operations.conftest import Site

SPRING = UpdateRequest(version="spring", confirm_deletions=True)
SUMMER = UpdateRequest(version="summer", confirm_deletions=True)
AUTUMN = UpdateRequest(version="autumn", confirm_deletions=True)


@pytest.fixture
def year(site: Site) -> Site:
    """A site that took down its files three times and sent them twice: not in summer."""
    site.update(SPRING)
    site.upload()
    site.write("OMOP/person.csv", "person_id\n1\n2\n")
    site.write("1000/Images/a.dcm", "image 0, corrected")
    site.write("1009/Images/new.dcm", "a new one")
    (site.source / "1001/Images/a.dcm").rename(site.source / "1001/Images/scan.dcm")
    (site.source / "1002/Images/a.dcm").unlink()
    site.update(SUMMER)
    site.write("OMOP/person.csv", "person_id\n1\n2\n3\n")
    (site.source / "1009/Images/new.dcm").unlink()
    site.update(AUTUMN)
    site.upload()
    return site


# --- journal list ------------------------------------------------------------------------------------------------


def test_totals_count_each_person_once(year: Site) -> None:
    with year.journal() as journal:
        rows = list_versions(journal, year.settings, version=None, modalities=None)
        totals = version_totals(journal, year.settings, rows, version=None, modalities=None)

    by_name = {(total.version, total.modality): total for total in totals}
    assert list(by_name) == [
        ("spring", None),
        ("summer", None),
        (None, "OMOP"),
        (None, "Images"),
        (None, "Metadata"),
        (None, None),
    ]
    # Spring had five patients, of whom two came again in summer, with one more.
    assert [(total.version, total.persons) for total in totals if total.modality is None] == [
        ("spring", 5),
        ("summer", 3),
        (None, 6),
    ]
    everything = by_name[None, None]
    assert (everything.files, everything.active_files, everything.pending_files) == (12, 6, 0)
    assert everything.active_bytes == sum(row.active_bytes for row in rows)


def test_totals_are_those_of_what_was_chosen(year: Site) -> None:
    with year.journal() as journal:
        rows = list_versions(journal, year.settings, version=None, modalities=("Images",))
        totals = version_totals(journal, year.settings, rows, version=None, modalities=("Images",))
        spring = list_versions(journal, year.settings, version="spring", modalities=None)
        of_spring = version_totals(journal, year.settings, spring, version="spring", modalities=None)

    assert [(total.version, total.modality, total.persons, total.files) for total in totals] == [(None, None, 6, 8)]
    assert [(total.version, total.modality, total.persons, total.files) for total in of_spring] == [
        ("spring", None, 5, 7)
    ]


# --- journal diff ------------------------------------------------------------------------------------------------


def diff(site: Site, before: str, after: str) -> tuple[dict[str, tuple[Difference, str | None]], ModalityDifference]:
    with (
        site.journal() as journal,
        compared_versions(
            journal, site.settings, before=before, after=after, modalities=None, emit=site.events.append
        ) as comparison,
    ):
        return {each.path: (each.what, each.former_path) for each in comparison.files()}, differences(comparison)[-1]


def test_what_differs_between_two_versions(year: Site) -> None:
    files, total = diff(year, "spring", "summer")

    assert files == {
        "OMOP/person.csv": (Difference.MODIFIED, None),
        "1000/Images/a.dcm": (Difference.MODIFIED, None),
        "1009/Images/new.dcm": (Difference.ADDED, None),
        "1001/Images/scan.dcm": (Difference.RENAMED, "1001/Images/a.dcm"),
        "1002/Images/a.dcm": (Difference.RETIRED, None),
    }
    assert total.modality is None
    assert (total.added.files, total.modified.files, total.renamed.files, total.retired.files) == (1, 2, 1, 1)


def test_the_way_back(year: Site) -> None:
    files, _ = diff(year, "autumn", "spring")

    assert files == {
        "OMOP/person.csv": (Difference.MODIFIED, None),
        "1000/Images/a.dcm": (Difference.MODIFIED, None),
        "1001/Images/a.dcm": (Difference.RENAMED, "1001/Images/scan.dcm"),
        "1002/Images/a.dcm": (Difference.ADDED, None),
    }


def test_a_file_that_was_only_touched_does_not_differ(site: Site) -> None:
    site.update(SPRING)
    (site.source / "OMOP/person.csv").touch()
    site.update(SUMMER)

    with (
        site.journal() as journal,
        compared_versions(
            journal, site.settings, before="spring", after="summer", modalities=None, emit=site.events.append
        ) as comparison,
    ):
        assert differences(comparison) == []


def test_in_append_mode_a_file_stays_until_it_is_marked(site: Site) -> None:
    site = site.with_settings(mode=JournalingMode.APPEND)
    site.update(SPRING)
    (site.source / "1002/Images/a.dcm").unlink()
    site.write("1009/Images/new.dcm")
    site.update(SUMMER)

    files, _ = diff(site, "spring", "summer")

    assert files == {"1009/Images/new.dcm": (Difference.ADDED, None)}


@pytest.mark.parametrize(("label", "hint"), [("sumer", "Did you mean summer?"), ("2", "`journal list` shows them.")])
def test_a_wrong_label_is_answered_with_the_nearest(year: Site, label: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=f"no version {label}") as refused:
        diff(year, "spring", label)

    assert refused.value.hint == hint


def test_of_a_version_that_was_not_finished_more_may_come(year: Site) -> None:
    with year.journal() as journal, journal.transaction() as connection:
        connection.exec_driver_sql("UPDATE version SET completed_us = NULL WHERE label = 'autumn'")

    diff(year, "spring", "autumn")

    assert Notice("version autumn was not finished: more may differ when it is", Level.WARNING) in year.events


# --- journal show ------------------------------------------------------------------------------------------------


def life_of(site: Site, path: str, modality: str | None = None) -> FileLife:
    with site.journal() as journal:
        return file_life(journal, site.settings, path=path, modality=modality)


def test_the_life_of_a_file(year: Site) -> None:
    life = life_of(year, "./OMOP/person.csv")

    assert [(state.version, str(state.change), len(state.deliveries)) for state in life.states] == [
        ("spring", "added", 1),
        ("summer", "modified", 0),
        ("autumn", "modified", 1),
    ]
    (proof,) = life.states[0].deliveries
    assert (proof.key, proof.evidence) == ("spring/OMOP/person.csv", Evidence.READBACK)
    assert proof.destination == year.central.as_posix()


def test_a_former_name_leads_to_the_same_file(year: Site) -> None:
    assert life_of(year, "1001/Images/a.dcm").states == life_of(year, "1001/Images/scan.dcm").states


def test_an_unknown_file_is_answered_with_those_that_are_called_alike(year: Site) -> None:
    with pytest.raises(ConfigError, match=r"has no file OMOP/persons\.csv") as refused:
        life_of(year, "OMOP/persons.csv")
    assert refused.value.hint == "Did you mean OMOP/person.csv?"

    with pytest.raises(ConfigError, match=r"Images has no file OMOP/person\.csv"):
        life_of(year, "OMOP/person.csv", "Images")


def test_a_name_that_is_no_text_is_in_no_journal(year: Site) -> None:
    with pytest.raises(ConfigError, match="has no file"):
        life_of(year, "OMOP/\udcff.csv")


def test_a_path_of_several_modalities_needs_one_of_them(site: Site) -> None:
    notes = site.settings.sites["Metadata"].model_copy(update={"pattern": "OMOP/{filepath}"})
    site = site.with_settings(sites={**site.settings.sites, "Metadata": notes})
    site.update(SPRING)

    with pytest.raises(ConfigError, match=r"several modalities have OMOP/person\.csv: OMOP, Metadata") as refused:
        life_of(site, "OMOP/person.csv")

    assert refused.value.hint == "Choose one with --modality."
    assert life_of(site, "OMOP/person.csv", "metadata").modality == "Metadata"


# --- journal check -----------------------------------------------------------------------------------------------


def found(site: Site, *, given: bool = False) -> list[Finding]:
    """What `journal check` finds, as it is run: without a lock."""
    with custody.journal_session(
        site.settings,
        command="journal check",
        arguments={},
        emit=site.events.append,
        local_journal=site.local if given else None,
        local_only=given,
        read_only=True,
    ) as session:
        findings = [*check_journal(session.journal), *check_cloud(session.journal, site.settings, given=given)]
        assert finished(session.journal, findings).broken == sum(finding.is_broken for finding in findings)
    return findings


def rules(findings: list[Finding]) -> list[tuple[str, bool]]:
    return [(finding.rule, finding.is_broken) for finding in findings]


def test_after_a_year_the_journal_is_sound(year: Site) -> None:
    before = year.cloud.read_bytes()

    assert found(year) == []

    assert year.cloud.read_bytes() == before
    with year.journal() as journal:
        assert finished(journal, []).contents is not None


def test_while_it_is_checked_out_the_cloud_has_its_lock(year: Site) -> None:
    custody.checkout(year.settings, local_journal=None, emit=year.events.append)

    assert found(year) == []


def test_somebody_who_holds_it_is_worth_a_remark(year: Site, tmp_path: Path) -> None:
    elsewhere = year.settings.journal.model_copy(update={"local_path": tmp_path / "elsewhere.db"})
    custody.checkout(year.with_settings(journal=elsewhere).settings, local_journal=None, emit=year.events.append)

    (remark,) = found(year)

    assert (remark.rule, remark.is_broken) == ("locked", False)
    assert "holds it since" in remark.detail


def test_a_lock_that_was_broken_is_found(year: Site, tmp_path: Path) -> None:
    custody.checkout(year.settings, local_journal=None, emit=year.events.append)
    custody.unlock(year.settings, emit=year.events.append)
    assert rules(found(year)) == [("lock-gone", False)]

    elsewhere = year.settings.journal.model_copy(update={"local_path": tmp_path / "elsewhere.db"})
    other = year.with_settings(journal=elsewhere)
    custody.checkout(other.settings, local_journal=None, emit=year.events.append)
    assert rules(found(year)) == [("lock-of-another", True)]

    custody.checkin(other.settings, local_journal=None, emit=year.events.append)
    assert rules(found(year)) == [("cloud-changed", True)]


def test_a_journal_of_another_cloud_is_found(year: Site, tmp_path: Path) -> None:
    custody.checkout(year.settings, local_journal=None, emit=year.events.append)
    moved = year.settings.journal.model_copy(update={"cloud": Location(path=str(tmp_path / "other" / "journal.db"))})

    assert rules(found(year.with_settings(journal=moved), given=True)) == [("other-cloud", True)]


def test_a_copy_is_told_from_what_the_cloud_has(year: Site) -> None:
    assert found(year, given=True) == []
    before = year.cloud.read_bytes()
    with year.journal():
        pass
    copy = year.local.read_bytes()
    with year.journal():
        pass
    year.local.write_bytes(copy)

    assert rules(found(year, given=True)) == [("outdated", False)]

    # A copy that went to a version's folder belongs to nobody.
    year.local.write_bytes(before)
    assert rules(found(year, given=True)) == [("cloud", False)]


def test_an_interrupted_check_in_is_no_fault(year: Site) -> None:
    custody.checkout(year.settings, local_journal=None, emit=year.events.append)
    with closing(sqlite3.connect(year.local)) as database, database:
        database.execute("UPDATE custody SET state = 'returned'")

    assert rules(found(year)) == [("check-in-open", False)]


def test_what_is_broken_in_the_cloud_is_found_without_a_lock(year: Site) -> None:
    with closing(sqlite3.connect(year.cloud)) as database, database:
        database.execute("UPDATE delivery SET md5 = zeroblob(16) WHERE key = 'spring/OMOP/person.csv'")

    (finding,) = found(year)

    assert (finding.rule, finding.is_broken) == ("delivered-other-content", True)
    assert finding.detail.startswith("OMOP/person.csv was delivered as spring/OMOP/person.csv")


def test_a_cloud_journal_that_is_damaged_ends_with_14(year: Site) -> None:
    size = year.cloud.stat().st_size
    with year.cloud.open("r+b") as file:
        file.truncate(size // 2)

    with pytest.raises(JournalError, match="damaged") as refused:
        found(year)

    assert refused.value.exit_code == 14


def test_a_cloud_that_cannot_be_asked_is_trouble_of_its_own(year: Site) -> None:
    custody.checkout(year.settings, local_journal=None, emit=year.events.append)
    year.cloud.parent.rename(year.home / "gone")
    with custody.journal_session(
        year.settings, command="", arguments={}, emit=year.events.append, read_only=True
    ) as session:
        assert list(check_journal(session.journal)) == []
        with pytest.raises(ObjectNotFound):
            list(check_cloud(session.journal, year.settings, given=False))


# --- journal prune -----------------------------------------------------------------------------------------------


def pruned(
    site: Site, *, dry_run: bool = False, keep: int | None = None, older_than: str | None = None
) -> PruneFinished:
    with site.journal() as journal:
        return prune(journal, site.settings, PruneRequest(keep=keep, older_than=older_than), dry_run=dry_run)


def proofs(site: Site) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(site.cloud)) as database:
        return database.execute(
            "SELECT k.path || '/' || f.name, f.size, f.fingerprint, d.*, s.label FROM delivery d"
            " JOIN file f ON f.id = d.file_id JOIN directory k ON k.id = f.directory_id"
            " JOIN submission s ON s.id = d.submission_id ORDER BY d.key"
        ).fetchall()


def test_what_came_and_went_undelivered_is_dropped_and_every_proof_stays(year: Site) -> None:
    before = proofs(year)

    foreseen = pruned(year, keep=1, dry_run=True)
    done = pruned(year, keep=1)

    # OMOP/person.csv as it was in summer, and 1009/Images/new.dcm with its directory.
    assert done.versions == ("spring", "summer")
    assert (done.dropped.files.files, done.dropped.directories) == (2, 1)
    assert done.dropped == foreseen.dropped
    assert proofs(year) == before
    assert found(year) == []
    assert pruned(year, keep=1).dropped.is_nothing


def test_after_a_prune_the_work_goes_on(year: Site) -> None:
    pruned(year, keep=1)

    year.write("1000/Images/a.dcm", "image 0, corrected again")
    winter = UpdateRequest(version="winter")
    assert year.update(winter).total.changed == 1
    assert year.upload().delivered.files == 1
    with year.journal() as journal:
        for version in ("spring", "summer", "autumn", "winter"):
            checked = verify(journal, year.settings, VerifyRequest(version=version), emit=year.events.append)
            assert set(checked.results) <= {VerifyResult.MATCHED}
        listed = list_files(journal, year.settings, version=None, modalities=None, max_files=None, uploaded=True)
        assert {file.path for file in listed} == {
            path.relative_to(year.source).as_posix() for path in year.source.rglob("*") if path.is_file()
        }
    files, _ = diff(year, "autumn", "winter")
    assert files == {"1000/Images/a.dcm": (Difference.MODIFIED, None)}
    assert [state.version for state in life_of(year, "OMOP/person.csv").states] == ["spring", "autumn"]


def test_pruned_versions_cannot_be_compared_and_say_so(year: Site) -> None:
    pruned(year, keep=1)

    with pytest.raises(ConfigError, match="dropped what came and went at version spring"):
        diff(year, "spring", "autumn")

    with year.journal() as journal:
        assert last_pruned(journal) == "summer"
    assert life_of(year, "OMOP/person.csv").pruned == "summer"


def test_a_version_that_is_not_delivered_keeps_its_detail_and_that_of_all_after_it(site: Site) -> None:
    site.update(SPRING)
    site.write("OMOP/person.csv", "more")
    site.update(SUMMER)
    site.update(AUTUMN)

    result = pruned(site, keep=1)

    assert (result.versions, result.stopped_by) == ((), "version spring has 6 files to upload")
    assert result.dropped.is_nothing
    site.upload()
    assert pruned(site, keep=1).versions == ("spring", "summer")


def test_a_version_that_is_not_finished_keeps_its_detail(year: Site) -> None:
    with year.journal() as journal, journal.transaction() as connection:
        connection.exec_driver_sql("UPDATE version SET completed_us = NULL WHERE label = 'summer'")

    result = pruned(year, keep=1)

    assert (result.versions, result.stopped_by) == (("spring",), "version summer was not finished")


def test_how_old_is_old(year: Site) -> None:
    def versions(request: PruneRequest) -> tuple[str, ...]:
        return prune(journal, year.settings, request, dry_run=True).versions

    with year.journal() as journal:
        assert versions(PruneRequest(keep=2)) == ("spring",)
        assert versions(PruneRequest(keep=9)) == ()
        assert versions(PruneRequest(older_than="autumn")) == ("spring", "summer")
        assert versions(PruneRequest(older_than="spring")) == ()
        assert versions(PruneRequest(older_than="2001-01-01")) == ()
        # The last version is never old.
        assert versions(PruneRequest(older_than="2999-01-01")) == ("spring", "summer")


@pytest.mark.parametrize(
    ("older_than", "hint"), [("autum", "Did you mean autumn?"), ("31.12.2025", "Write a day as YYYY-MM-DD.")]
)
def test_what_is_neither_a_day_nor_a_version(year: Site, older_than: str, hint: str) -> None:
    with pytest.raises(ConfigError, match="neither a day nor a version") as refused:
        pruned(year, older_than=older_than)

    assert refused.value.hint == hint


def test_one_measure_of_age_has_to_be_given() -> None:
    with pytest.raises(ConfigError, match="how much is to be kept"):
        PruneRequest()
    with pytest.raises(ConfigError, match="how much is to be kept"):
        PruneRequest(keep=1, older_than="spring")
