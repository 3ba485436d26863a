"""What is in the target of a download and not in the version: named, and removed only where that harms nothing."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from chorus_upload.errors import ConfigError, OutOfResources, StorageError
from chorus_upload.events import DownloadFinished, ExtraFile, ExtraFiles, Notice
from chorus_upload.operations.download import DownloadRequest, download
from chorus_upload.operations.extras import settle_extras
from chorus_upload.operations.update import UpdateRequest
from chorus_upload.storage.target import Target
from tests.operations.conftest import Site
from tests.trees import build

SPRING = {
    *(f"100{number}/Images/a.dcm" for number in range(5)),
    "OMOP/person.csv",
    "Metadata/README.md",
}


@pytest.fixture
def uploaded(site: Site) -> Site:
    """A site whose `spring` is in the central store, and `summer`, which has two files less and one more."""
    site.update(UpdateRequest(version="spring"))
    site.upload()
    (site.source / "1001/Images/a.dcm").unlink()
    (site.source / "Metadata/README.md").unlink()
    site.write("1009/Images/new.dcm")
    site.update(UpdateRequest(version="summer", confirm_deletions=True))
    site.upload()
    return site


@pytest.fixture
def target(uploaded: Site, tmp_path: Path) -> Path:
    """Where spring is."""
    run(uploaded, tmp_path / "target", version="spring")
    return tmp_path / "target"


def run(
    site: Site,
    to: Path,
    *,
    version: str | None = None,
    agree: Callable[[ExtraFiles], bool] = lambda _: True,
    patients: tuple[str, ...] | None = None,
    overwrite: bool = True,
    delete_extra: bool = False,
) -> DownloadFinished:
    request = DownloadRequest(version=version, to=to, patients=patients, overwrite=overwrite, delete_extra=delete_extra)
    with site.journal() as journal:
        return download(journal, site.settings, request, emit=site.events.append, agree=agree)


def names(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if not path.is_dir() or path.is_symlink()}


def test_what_is_left_of_another_version_is_named(uploaded: Site, target: Path) -> None:
    finished = run(uploaded, target)

    assert finished.extra is not None
    assert (finished.extra.files, finished.extra.removed) == (2, 0)
    assert finished.extra.first == ("Metadata/README.md", "1001/Images/a.dcm")
    assert "--delete-extra" in finished.extra.why_kept
    assert names(target) > SPRING
    assert run(uploaded, target, version="summer", overwrite=False).extra is None, "nobody spoke of replacing"


def test_it_is_removed_on_request_and_so_are_empty_directories(uploaded: Site, target: Path) -> None:
    finished = run(uploaded, target, delete_extra=True)

    assert finished.extra is not None
    assert (finished.extra.files, finished.extra.removed, finished.extra.kept) == (2, 2, 0)
    assert names(target) == names(uploaded.source)
    assert not (target / "1001").exists()
    assert not (target / "Metadata").exists()
    assert {each.path for each in uploaded.events if isinstance(each, ExtraFile) and each.removed} == {
        "1001/Images/a.dcm",
        "Metadata/README.md",
    }


def test_a_part_of_a_version_makes_no_other_part_extra(uploaded: Site, target: Path) -> None:
    finished = run(uploaded, target, patients=("1002",), delete_extra=True)

    assert finished.extra is not None
    assert finished.extra.removed == 2
    assert {"OMOP/person.csv", "1003/Images/a.dcm"} < names(target)


def test_nothing_is_removed_while_files_are_missing(uploaded: Site, target: Path) -> None:
    (uploaded.central / "summer/1009/Images/new.dcm").unlink()

    finished = run(uploaded, target, delete_extra=True)

    assert finished.failed == 1
    assert finished.extra is not None
    assert "files of the version are missing" in finished.extra.why_kept
    assert names(target) == SPRING


def test_nothing_is_removed_for_a_version_that_was_not_finished(
    uploaded: Site, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_off(*_: object) -> object:
        raise OutOfResources("no memory")

    uploaded.write("OMOP/late.csv")
    with monkeypatch.context() as patched:
        patched.setattr("chorus_upload.journal.versions.complete", break_off)
        with pytest.raises(OutOfResources):
            uploaded.update(UpdateRequest(version="autumn"))
    uploaded.upload()

    finished = run(uploaded, target, delete_extra=True)

    assert (finished.version, finished.failed) == ("autumn", 0)
    assert finished.extra is not None
    assert (finished.extra.removed, finished.extra.why_kept) == (
        0,
        "nothing is removed for a version that was not finished",
    )


def test_somebody_who_does_not_agree(uploaded: Site, target: Path) -> None:
    asked: list[ExtraFiles] = []

    def refuse(extra: ExtraFiles) -> bool:
        asked.append(extra)
        return False

    finished = run(uploaded, target, delete_extra=True, agree=refuse)

    assert [each.files for each in asked] == [2]
    assert finished.extra == asked[0]
    assert names(target) > SPRING


def test_links_and_what_they_lead_to_stay(uploaded: Site, target: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/precious.txt").write_text("precious")
    (target / "linked").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (target / "link.txt").symlink_to(tmp_path / "elsewhere/precious.txt")

    finished = run(uploaded, target, delete_extra=True)

    assert finished.extra is not None
    assert (finished.extra.files, finished.extra.removed, finished.extra.kept) == (4, 2, 2)
    assert (target / "linked").is_symlink()
    assert (target / "link.txt").is_symlink()
    assert (tmp_path / "elsewhere/precious.txt").read_text() == "precious"


def test_a_directory_that_becomes_a_link_meanwhile(uploaded: Site, target: Path, tmp_path: Path) -> None:
    """Between the look and the removal somebody puts a link in the way."""
    (tmp_path / "elsewhere/Images").mkdir(parents=True)
    (tmp_path / "elsewhere/Images/a.dcm").write_text("precious")

    def swap(_: ExtraFiles) -> bool:
        (target / "1001/Images/a.dcm").unlink()
        (target / "1001/Images").rmdir()
        (target / "1001").rmdir()
        (target / "1001").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
        return True

    finished = run(uploaded, target, delete_extra=True, agree=swap)

    assert finished.extra is not None
    assert (finished.extra.removed, finished.extra.kept) == (1, 1)
    assert (tmp_path / "elsewhere/Images/a.dcm").read_text() == "precious"


def with_ours_in(uploaded: Site, target: Path) -> Site:
    """The site, with the configuration, a copy of it, and the local journal in the target."""
    (target / "config.toml").write_text("[journal]")
    (target / "config.toml.bak").write_text("[journal]")
    return uploaded.with_settings(
        file=target / "config.toml",
        journal=uploaded.settings.journal.model_copy(update={"local_path": target / "journal.db"}),
    )


def test_what_is_ours_stays(uploaded: Site, target: Path) -> None:
    """The configuration, and what lies beside it."""
    journal = uploaded.settings.journal
    site = with_ours_in(uploaded, target).with_settings(journal=journal)

    finished = run(site, target, delete_extra=True)

    assert finished.extra is not None
    assert (finished.extra.files, finished.extra.removed, finished.extra.kept) == (4, 2, 2)
    assert names(target) == names(uploaded.source) | {"config.toml", "config.toml.bak"}


def test_nothing_is_removed_beside_the_journal(uploaded: Site, target: Path) -> None:
    site = with_ours_in(uploaded, target)
    before = names(target)

    with pytest.raises(ConfigError, match="is the directory of the local journal"):
        run(site, target, delete_extra=True)

    assert names(target) >= {*before, "journal.db"}


def test_what_is_ours_is_never_removed(uploaded: Site) -> None:
    """Also where such a target was not refused: the journal with what lies beside it, a local store and a source."""
    home = Target(uploaded.home)
    build(uploaded.home, {"journal.db.writer": "", "journal.db-wal": "", "extra.csv": "extra"})
    ours = sorted(path for path in names(uploaded.home) if path.startswith(("journal.db", "central/", "site/")))
    assert {path.partition("/")[0] for path in ours} > {"journal.db", "central", "site"}

    found = settle_extras(
        [*ours, "extra.csv"], home, uploaded.settings, why_kept="", agree=lambda _: True, emit=uploaded.events.append
    )

    assert found is not None
    assert (found.files, found.removed, found.kept) == (len(ours) + 1, 1, len(ours))
    assert names(uploaded.home) >= set(ours)
    assert not (uploaded.home / "extra.csv").exists()


def test_a_target_that_cannot_be_looked_through_keeps_everything(
    uploaded: Site, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Target) -> object:
        raise StorageError("listing 1003: permission denied")

    monkeypatch.setattr(Target, "walk", refuse)

    finished = run(uploaded, target, delete_extra=True)

    assert finished.extra is None
    assert names(target) > SPRING
    assert "permission denied" in " ".join(each.text for each in uploaded.events if isinstance(each, Notice))


def test_another_spelling_of_a_file_of_the_version_is_no_other_file(
    uploaded: Site, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As file systems show it that know no case."""
    walk = Target.walk

    def shown(self: Target) -> list[str]:
        return [path.replace("OMOP/person.csv", "omop/Person.csv") for path in walk(self)]

    monkeypatch.setattr(Target, "walk", shown)
    monkeypatch.setattr(Target, "is_same", lambda *paths: paths[1].casefold() == paths[2].casefold())

    finished = run(uploaded, target, delete_extra=True)

    assert finished.extra is not None
    assert set(finished.extra.first) == {"1001/Images/a.dcm", "Metadata/README.md"}


def test_a_name_that_is_no_text_is_named_and_stays(uploaded: Site, target: Path) -> None:
    (target / os.fsdecode(b"odd-\xff.dcm")).write_text("odd")

    finished = run(uploaded, target, delete_extra=True)

    assert finished.extra is not None
    assert (finished.extra.files, finished.extra.removed, finished.extra.kept) == (3, 2, 1)
