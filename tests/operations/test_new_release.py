"""A dataset is released again: all times are new, hardly any content is, and only that is sent."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from chorus_upload.config.settings import Location
from chorus_upload.errors import StorageError, TransientError
from chorus_upload.events import ProblemFound, UpdateFinished
from chorus_upload.journal import life
from chorus_upload.model import Change
from chorus_upload.operations.update import MOST_GIVEN_UP, UpdateRequest
from chorus_upload.storage.tape import Tape
from chorus_upload.storage.tar_source import TarSource
from chorus_upload.storage.web_source import WebSource
from tests.archives import SPRING, members_of, put, tar, zipped
from tests.operations.conftest import Site
from tests.sites import WebSite, web_site
from tests.trees import MARK, Bytes, bytes_of

AUTUMN = SPRING + 10_000_000
TREE: dict[str, str | bytes | Bytes] = {
    "OMOP/person.csv": Bytes(3_000),
    "OMOP/empty.csv": "",
    "1002/Images/large.dcm": Bytes(1_500_000),
    **{f"1001/Images/{number}.dcm": Bytes(2_000 + number) for number in range(10)},
}
CHANGED: dict[str, str | bytes | Bytes] = {
    "OMOP/person.csv": Bytes(3_000, edition=2),
    "1001/Images/3.dcm": Bytes(17),
    "1001/Images/new.dcm": Bytes(18),
}
LARGE = "1002/Images/large.dcm"


@pytest.fixture
def web() -> Iterator[WebSite]:
    with web_site() as site:
        yield site


@pytest.fixture(params=["zip", "tar", "tar.gz", "zip of the web", "tar of the web", "web directory"])
def release(request: pytest.FixtureRequest, web: WebSite, tmp_path: Path) -> Release:
    return Release(request.param, web, tmp_path)


class Release:
    """Publishes a tree in its way; `url` is where it is then."""

    def __init__(self, kind: str, web: WebSite, tmp_path: Path) -> None:
        self._kind = kind
        self._web = web
        self._file = tmp_path / "archive"

    @property
    def url(self) -> str:
        if self._kind == "web directory":
            return f"{self._web.url}/set/"
        place = f"{self._web.url}/archive" if "web" in self._kind else str(self._file)
        return f"{self._kind[:3]}://::{place}"

    def publish(self, tree: dict[str, str | bytes | Bytes], mtime: int) -> None:
        if self._kind == "web directory":
            self._web.files.clear()
            for path, body in tree.items():
                self._web.put(f"set/{path}", bytes_of(path, body), changed=mtime)
            return
        members = members_of(tree, mtime=mtime)
        compression = "gz" if self._kind == "tar.gz" else ""
        data = zipped(members) if self._kind.startswith("zip") else tar(members, compression=compression)
        if "web" in self._kind:
            self._web.put("archive", data, changed=mtime)
        else:
            put(self._file, data)


def at(site: Site, url: str) -> Site:
    """The same site, whose files are all there."""
    sites = {
        name: each.model_copy(update={"location": Location(path=url)}) for name, each in site.settings.sites.items()
    }
    return site.with_settings(sites=sites)


def counts(finished: UpdateFinished) -> dict[str, int]:
    found = {
        what: sum(getattr(each, what).files for each in finished.modalities.values())
        for what in ("added", "modified", "touched", "renamed", "retired", "unchanged")
    }
    return {what: number for what, number in found.items() if number}


def delivered_as(version: str, tree: dict[str, str | bytes | Bytes]) -> dict[str, bytes]:
    return {f"{version}/{path}": bytes_of(path, body) for path, body in tree.items()}


def objects(site: Site) -> dict[str, bytes]:
    return {
        path.relative_to(site.central).as_posix(): path.read_bytes()
        for path in site.central.rglob("*")
        if path.is_file() and path.suffix != ".db" and not path.name.startswith(("manifest-", MARK))
    }


def test_only_what_is_other_content_is_sent(site: Site, release: Release) -> None:
    site = at(site, release.url)
    release.publish(TREE, SPRING)
    site.update(UpdateRequest(version="spring"))
    site.upload()

    release.publish({**TREE, **CHANGED}, AUTUMN)
    updated = site.update(UpdateRequest(version="autumn"))
    assert counts(updated) == {"added": 1, "modified": 2, "touched": len(TREE) - 2}
    assert updated.pending.files == len(CHANGED)
    site.upload()
    assert objects(site) == delivered_as("spring", TREE) | delivered_as("autumn", CHANGED)

    # Nothing but times is new in the next one, and after that nothing at all.
    for version, mtime, what in (("winter", AUTUMN + 1_000_000, "touched"), ("again", AUTUMN + 1_000_000, "unchanged")):
        release.publish({**TREE, **CHANGED}, mtime)
        updated = site.update(UpdateRequest(version=version))
        assert (counts(updated), updated.pending.files) == ({what: len(TREE) + 1}, 0)
    with site.journal() as journal:
        for path in TREE:
            states = life.states(journal, path, modality="OMOP" if path.startswith("OMOP") else "Images")
            contents = [each.fingerprint for each in states]
            assert len(contents) == len(set(contents)) == (2 if path in CHANGED else 1)
            assert {each.change for each in states[1:]} <= {Change.MODIFIED}


def test_a_zip_archive_says_itself_what_is_the_same(site: Site, web: WebSite, tmp_path: Path) -> None:
    """Of the next release nothing but the directory is fetched to see that."""
    release = Release("zip of the web", web, tmp_path)
    site = at(site, release.url)
    release.publish(TREE, SPRING)
    site.update()
    site.upload()
    web.asked.clear()

    release.publish({**TREE, "OMOP/person.csv": Bytes(3_000, edition=2)}, AUTUMN)
    updated = site.update()

    assert counts(updated) == {"modified": 1, "touched": len(TREE) - 1}
    assert web.fetched() < 70_000


def test_what_a_zip_archive_said_is_learned_once(site: Site, web: WebSite, tmp_path: Path) -> None:
    """A journal of before has none of it: members are read, once."""
    release = Release("zip of the web", web, tmp_path)
    site = at(site, release.url)
    release.publish(TREE, SPRING)
    site.update()
    site.upload()
    for journal in (site.local, site.cloud):
        with closing(sqlite3.connect(journal)) as database, database:
            database.execute("DELETE FROM archive_crc32")
    for mtime, is_read in ((AUTUMN, True), (AUTUMN + 1_000_000, False)):
        release.publish(TREE, mtime)
        web.asked.clear()
        assert counts(site.update()) == {"touched": len(TREE)}
        assert (web.fetched() > 1_000_000) == is_read


def test_a_zip_archive_whose_times_never_change(site: Site, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    for version, edition in (("spring", 1), ("autumn", 2)):
        put(archive, zipped(members_of({"OMOP/a.csv": Bytes(500, edition=edition), "OMOP/b.csv": "b"})))
        updated = at(site, f"zip://::{archive}").update(UpdateRequest(version=version))
    assert counts(updated) == {"modified": 1, "unchanged": 1}


def test_the_members_of_a_tar_archive_are_compared_in_one_pass(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "archive"
    site = at(site, f"tar://::{archive}")
    put(archive, tar(members_of(TREE)))
    site.update()
    site.upload()
    put(archive, tar(members_of(TREE, mtime=AUTUMN)))
    tapes: list[Tape] = []
    new_tape = TarSource._new_tape

    def counted(source: TarSource) -> Tape:
        tapes.append(new_tape(source))
        return tapes[-1]

    monkeypatch.setattr(TarSource, "_new_tape", counted)

    assert counts(site.update()) == {"touched": len(TREE)}
    assert len(tapes) == 2, "one that lists, and one that reads"


def test_what_was_delivered_while_it_was_young_is_not_sent_again(site: Site, web: WebSite, tmp_path: Path) -> None:
    release = Release("web directory", web, tmp_path)
    site = at(site, release.url)
    release.publish(TREE, int(time.time()) + 60)
    site.update()
    site.upload()

    updated = site.update()

    assert (counts(updated), updated.pending.files) == ({"unchanged": len(TREE)}, 0)


def refuse(path: str, error: Callable[[], StorageError]) -> Callable[[WebSource, str], object]:
    opened = WebSource.open

    def open_(source: WebSource, wanted: str) -> object:
        if wanted.startswith(path):
            raise error()
        return opened(source, wanted)

    return open_


def test_a_file_that_is_not_given_is_told_and_left_as_it_was(
    site: Site, web: WebSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = Release("web directory", web, tmp_path)
    site = at(site, release.url)
    release.publish(TREE, SPRING)
    site.update()
    site.upload()
    release.publish(TREE, AUTUMN)

    with monkeypatch.context() as patched:
        patched.setattr(WebSource, "open", refuse(LARGE, lambda: TransientError("it broke off")))
        updated = site.update(UpdateRequest(version="autumn"))
    assert (updated.problems, counts(updated)) == (1, {"touched": len(TREE) - 1})
    (told,) = (each for each in site.events if isinstance(each, ProblemFound))
    assert (told.problem.path, told.problem.detail) == (LARGE, "it broke off")

    # When none is given it ends, and what was done is kept.
    release.publish(TREE, AUTUMN + 1_000)
    with monkeypatch.context() as patched:
        patched.setattr(WebSource, "open", refuse("1001/Images", lambda: TransientError("no route to host")))
        with pytest.raises(TransientError, match="no route to host"):
            site.update(UpdateRequest(version="winter"))
    assert len([path for path in TREE if path.startswith("1001/Images")]) > MOST_GIVEN_UP
    updated = site.update()
    assert (updated.version, updated.resumed, updated.pending.files) == ("winter", True, 0)
