"""History is never rewritten: only the newest version can be amended, and a version in a path is but a folder."""

from __future__ import annotations

import csv
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from chorus_upload.errors import CheckinConflict, ConfigError
from chorus_upload.events import FilesMarked, VerifyResult
from chorus_upload.journal import checking, versions
from chorus_upload.journal.checking import Finding
from chorus_upload.model import JournalingMode
from chorus_upload.operations.custody import checkin, checkout
from chorus_upload.operations.download import DownloadRequest, download
from chorus_upload.operations.insight import compared_versions
from chorus_upload.operations.listing import list_files
from chorus_upload.operations.marking import mark_as_deleted
from chorus_upload.operations.update import UpdateRequest
from chorus_upload.operations.upload import UploadRequest
from chorus_upload.operations.verify import VerifyRequest, verify
from tests.faults.figures import Figures
from tests.operations.conftest import Site, new_site
from tests.operations.test_merge import change, merge


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return new_site(tmp_path)


@pytest.fixture
def by_paths(site: Site) -> Site:
    """A site whose paths of OMOP name versions."""
    omop = site.settings.sites["OMOP"].model_copy(
        update={"pattern": "{version:w}/{patient_id:w}/OMOP_tables/{filepath}", "versioned": True}
    )
    site.write("y2024/55/OMOP_tables/person.csv", "of 2024")
    site.write("y2025/55/OMOP_tables/person.csv", "of 2025")
    return site.with_settings(sites={**site.settings.sites, "OMOP": omop}, mode=JournalingMode.FULL)


def brought(site: Site, version: str) -> dict[str, str]:
    """What a download of a version brings, by path."""
    target = site.home / f"brought-{version}-{len(list(site.home.iterdir()))}"
    with site.journal() as journal:
        request = DownloadRequest(version=version, to=target)
        assert not download(journal, site.settings, request, emit=site.events.append).failed
    return {
        path.relative_to(target).as_posix(): path.read_text()
        for path in target.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }


def labels(site: Site) -> list[str]:
    with site.journal() as journal:
        return [each.label for each in versions.ordered(journal)]


def broken(site: Site) -> list[Finding]:
    with site.journal() as journal:
        return [each for each in checking.findings(journal) if each.is_broken]


def sources(site: Site) -> dict[str, str]:
    return {
        path.relative_to(site.source).as_posix(): path.read_text()
        for path in site.source.rglob("*")
        if path.is_file() and path.parent != site.source
    }


def test_an_older_version_is_refused_and_what_newer_ones_say_stays(site: Site, figures: Figures) -> None:
    site.update(UpdateRequest(version="2024"))
    site.upload()
    site.write("OMOP/person.csv", "person_id\n1\n2\n")
    site.update(UpdateRequest(version="2025"))
    site.upload()
    before = {version: brought(site, version) for version in ("2024", "2025")}
    site.write("OMOP/person.csv", "person_id\n1\n2\n3\n")

    for request in (UpdateRequest(version="2024"), UpdateRequest(version="2024", amend=True)):
        with pytest.raises(ConfigError, match="version 2024 is older than 2025") as refusal:
            site.update(request)
        assert "Only the newest version, 2025, can be amended" in str(refusal.value.hint)

    assert {version: brought(site, version) for version in ("2024", "2025")} == before
    assert site.update(UpdateRequest(version="2025")).version == "2025"
    assert labels(site) == ["2024", "2025"]
    figures.count("older versions refused", 2)


def test_the_newest_version_is_that_which_was_begun_last_whatever_it_is_called(site: Site, figures: Figures) -> None:
    site.update(UpdateRequest(version="b"))
    site.update(UpdateRequest(version="a"))

    assert site.update(UpdateRequest(amend=True)).version == "a"
    assert site.update(UpdateRequest(version="a")).version == "a"
    with pytest.raises(ConfigError, match="version b is older than a"):
        site.update(UpdateRequest(version="b"))
    figures.count("older versions refused")


def test_nothing_is_retired_by_an_older_version(site: Site, figures: Figures) -> None:
    site.update(UpdateRequest(version="2024"))
    site.update(UpdateRequest(version="2025"))
    with site.journal() as journal:
        for version in ("2025", "2026"):
            path = {"2025": "1000/Images/a.dcm", "2026": "1001/Images/a.dcm"}[version]
            marked = mark_as_deleted(journal, site.settings, paths=[path], version=version, emit=site.events.append)
            assert marked.marked == 1
        with pytest.raises(ConfigError, match="version 2024 is older than 2026"):
            mark_as_deleted(
                journal, site.settings, paths=["1002/Images/a.dcm"], version="2024", emit=site.events.append
            )
    assert broken(site) == []
    figures.count("older versions refused")


def test_an_interrupted_version_is_not_gone_on_with_once_there_is_a_newer_one(site: Site) -> None:
    site.update(UpdateRequest(version="2024"))
    change(site.cloud, "UPDATE version SET completed_us = NULL")
    site.update(UpdateRequest(version="2025"))
    site.write("OMOP/person.csv", "person_id\n1\n2\n")

    made = site.update()

    assert not made.resumed
    assert made.version not in ("2024", "2025")
    with site.journal() as journal:
        remarks = [each.detail for each in checking.findings(journal)]
    assert remarks == ["version 2024 was not finished: a later one was begun instead"]


def test_a_version_in_a_path_is_a_folder_and_the_update_has_the_history(by_paths: Site, figures: Figures) -> None:
    site = by_paths
    site.update(UpdateRequest(version="first"))
    site.upload()
    first = sources(site)
    site.write("y2025/55/OMOP_tables/more.csv", "more")
    (site.source / "y2024/55/OMOP_tables/person.csv").unlink()
    site.update(UpdateRequest(version="second", confirm_deletions=True))
    site.upload()
    second = sources(site)

    assert labels(site) == ["first", "second"]
    del first["OMOP/person.csv"], second["OMOP/person.csv"]
    assert brought(site, "first") == first
    assert brought(site, "second") == second
    with (
        site.journal() as journal,
        compared_versions(
            journal, site.settings, before="first", after="second", modalities=None, emit=site.events.append
        ) as comparison,
    ):
        assert {each.path: (each.what, each.version) for each in comparison.files()} == {
            "y2024/55/OMOP_tables/person.csv": ("retired", "first"),
            "y2025/55/OMOP_tables/more.csv": ("added", "second"),
        }
    assert site.update(UpdateRequest(amend=True)).version == "second"
    assert broken(site) == []
    figures.count("versions brought back", 2)


def test_every_folder_that_was_written_to_has_its_manifest_and_journal(by_paths: Site) -> None:
    site = by_paths
    site.update(UpdateRequest(version="first"))

    done = site.upload()

    folders = {key.partition("/")[0] for key in site.delivered()}
    assert folders == {"first", "y2024", "y2025"}
    assert {key.partition("/")[0] for key in done.manifests} == folders
    in_manifests: list[str] = []
    for key in done.manifests:
        with (site.central / key).open(encoding="utf-8", newline="") as stream:
            listed = [row["key"] for row in csv.DictReader(stream)]
        assert {each.partition("/")[0] for each in listed} == {key.partition("/")[0]}
        in_manifests += listed
    assert sorted(in_manifests) == sorted(site.delivered())
    assert all((site.central / folder / "journal.db").is_file() for folder in folders)


def test_a_folder_may_be_chosen_as_a_version(by_paths: Site) -> None:
    """As sites type it: `--version` is the version of the file, where a path names one."""
    site = by_paths
    site.update(UpdateRequest(version="first"))

    def listed(version: str, *, uploaded: bool = False) -> set[str]:
        with site.journal() as journal:
            found = list_files(
                journal, site.settings, version=version, modalities=None, max_files=None, uploaded=uploaded
            )
            return {each.path for each in found}

    assert listed("y2024") == {"y2024/55/OMOP_tables/person.csv"}
    assert len(listed("first")) == 8
    done = site.upload(UploadRequest(version="y2024"))
    assert (done.delivered.files, set(site.delivered())) == (1, {"y2024/55/OMOP/person.csv"})
    assert listed("y2024") == set()
    assert listed("y2024", uploaded=True) == {"y2024/55/OMOP_tables/person.csv"}
    with site.journal() as journal:
        verified = verify(journal, site.settings, VerifyRequest(version="y2024"), emit=site.events.append)
    assert (verified.versions, verified.results) == (("y2024",), {VerifyResult.MATCHED: 1})
    with pytest.raises(ConfigError, match="there is no version y2023"):
        listed("y2023")
    with site.journal() as journal, pytest.raises(ConfigError, match="there is no version y2024") as refusal:
        download(journal, site.settings, DownloadRequest(version="y2024"), emit=site.events.append)
    assert "y2024 is a folder" in str(refusal.value.hint)


def test_what_a_killed_upload_left_under_the_key_of_a_path_gives_way(by_paths: Site) -> None:
    """The earlier state of the file had the same key, although another update recorded it."""
    site = by_paths
    site.update(UpdateRequest(version="first"))
    site.upload()
    change(site.cloud, "DELETE FROM delivery WHERE key = 'y2024/55/OMOP/person.csv'")
    site.write("y2024/55/OMOP_tables/person.csv", "of 2024, corrected")
    site.update(UpdateRequest(version="second"))

    done = site.upload()

    assert (done.failed, done.remaining.files) == (0, 0)
    assert site.delivered()["y2024/55/OMOP/person.csv"] == "of 2024, corrected"


def test_deliveries_below_a_version_of_a_path_are_merged_whatever_update_recorded_them(by_paths: Site) -> None:
    site = by_paths
    site.update(UpdateRequest(version="first"))
    checkout(site.settings, local_journal=None, emit=site.events.append)
    site.upload()
    change(
        site.local,
        "UPDATE version SET label = 'theirs'",
        "UPDATE delivery SET key = replace(key, 'first/', 'theirs/')",
    )
    change(site.cloud, "UPDATE command SET seconds = 1")
    with pytest.raises(CheckinConflict):
        checkin(site.settings, local_journal=None, emit=site.events.append)

    merged = merge(site)

    assert isinstance(merged, FilesMarked)
    assert merged.marked == 2
    assert {key.partition("/")[0] for key in merged.refused} == {"theirs"}
    with closing(sqlite3.connect(site.cloud)) as database:
        keys = [key for (key,) in database.execute("SELECT key FROM delivery ORDER BY key")]
    assert keys == ["y2024/55/OMOP/person.csv", "y2025/55/OMOP/person.csv"]


def test_append_mode_with_versions_in_paths(by_paths: Site) -> None:
    """What is delivered stays active. The folders of versions keep what they have."""
    site = by_paths.with_settings(mode=JournalingMode.APPEND)
    site.update(UpdateRequest(version="first"))
    (site.source / "y2024/55/OMOP_tables/person.csv").unlink()
    site.write("y2025/55/OMOP_tables/person.csv", "of 2025, corrected")
    site.update(UpdateRequest(version="second"))

    assert labels(site) == ["first", "second"]
    assert broken(site) == []
