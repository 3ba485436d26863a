"""Backups: the last journals beside the cloud's, made by a check-in, never in its way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from chorus_upload.errors import AccessDenied
from chorus_upload.events import Level, Notice
from chorus_upload.operations import backups, handover
from chorus_upload.operations.verify import VerifyRequest, verify
from chorus_upload.storage.local import LocalStore
from tests.operations.conftest import Site


def backups_of(site: Site) -> list[Path]:
    store = LocalStore(site.cloud.parent)
    return [site.cloud.parent / key for key in backups.backups(store, site.cloud.name)]


def keeping(site: Site, number: int) -> Site:
    return site.with_settings(journal=site.settings.journal.model_copy(update={"backups": number}))


def test_the_last_journals_are_kept_under_dated_names(site: Site) -> None:
    checked_in = []
    for number in range(5):
        with site.journal(f"command {number}"):
            pass
        checked_in.append(site.cloud.read_bytes())

    kept = backups_of(site)

    assert [path.read_bytes() for path in kept] == checked_in[-3:]
    assert all(path.name.startswith("journal.db.2") and path.suffix == ".backup" for path in kept)
    assert {path.name for path in site.cloud.parent.iterdir()} >= {"journal.db"}


@pytest.mark.parametrize(("number", "left"), [(0, 3), (1, 1), (5, 4)])
def test_how_many_is_configured(site: Site, number: int, left: int) -> None:
    """None are made with 0; what is there already is not removed by that."""
    for _ in range(3):
        with site.journal():
            pass

    with keeping(site, number).journal():
        pass

    assert len(backups_of(site)) == left


def test_nothing_but_backups_is_removed(site: Site) -> None:
    others = ["journal.db.2026.backup", "journal.db.20260101000000.backup.zip", "journal.db.20260101000000", "x.backup"]
    for name in others:
        (site.cloud.parent / name).write_text("somebody's")
    for _ in range(4):
        with keeping(site, 1).journal():
            pass

    assert len(backups_of(site)) == 1
    assert all((site.cloud.parent / name).read_text() == "somebody's" for name in others)


@pytest.mark.parametrize("step", ["publish", "backups"])
def test_trouble_with_a_backup_is_a_warning(site: Site, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def denied(*_: object, **__: object) -> None:
        raise AccessDenied("this token cannot do that")

    monkeypatch.setattr(backups, step, denied)
    with site.journal():
        pass

    (told,) = [event for event in site.events if isinstance(event, Notice) and event.level is Level.WARNING]
    assert "checked in, but its backups could not be seen to: this token cannot do that" in told.text
    assert site.local_state() == "in"
    assert not site.cloud.with_name("journal.db.locked").exists()


class Died(BaseException):
    """Stands for a SIGKILL."""


@pytest.mark.parametrize("real", [lambda *_, **__: None, backups.keep_backup], ids=["before", "after"])
def test_a_death_around_a_backup(site: Site, monkeypatch: pytest.MonkeyPatch, real: Callable[..., None]) -> None:
    for _ in range(3):
        with site.journal():
            pass

    def dies(*arguments: object, **options: object) -> None:
        real(*arguments, **options)
        raise Died

    def killed() -> None:
        with monkeypatch.context() as patch, site.journal():
            patch.setattr(handover, "keep_backup", dies)

    with pytest.raises(Died):
        killed()
    of_the_killed = site.cloud.read_bytes()
    with site.journal():
        pass

    assert len(backups_of(site)) == 3
    assert backups_of(site)[-1].read_bytes() == site.cloud.read_bytes()
    assert [each.read_bytes() for each in backups_of(site)].count(of_the_killed) == 1


def test_verify_is_not_confused_by_backups_in_the_central_store(site: Site) -> None:
    """Sites keep the journal beside the version folders."""
    within = site.settings.journal.cloud.model_copy(update={"path": str(site.central / "journal.db")})
    site = site.with_settings(journal=site.settings.journal.model_copy(update={"cloud": within}))
    site.update()
    site.upload()
    assert len(backups_of(site)) == 2

    with site.journal() as journal:
        finished = verify(journal, site.settings, VerifyRequest(), emit=site.events.append)

    assert finished.is_good


def test_looking_for_backups_does_not_walk_the_central_store(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    (site.cloud.parent / "data" / "spring").mkdir(parents=True)
    listed = []
    real = LocalStore._list

    def noted(self: LocalStore, directory: str, pending: list[str]) -> object:
        listed.append(directory)
        return real(self, directory, pending)

    monkeypatch.setattr(LocalStore, "_list", noted)
    backups_of(site)

    assert listed == [""]
