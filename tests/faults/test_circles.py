"""Names of renamed files that lead in a circle, in a journal that was damaged: each walk along them ends."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from chorus_upload.journal import checking, deliveries, life, pruning, versions
from chorus_upload.journal.comparing import Comparison
from chorus_upload.journal.database import driver
from chorus_upload.journal.deliveries import Selection
from chorus_upload.journal.journal import Journal
from tests.faults.figures import Figures
from tests.journal.test_insight import URL, deliver, ids, take_down

CONTENT = b"large enough to have twins" * 4_000
STEPS = 200
"""So many times SQLite may ask whether to go on, after ten thousand instructions each."""


def compared(journal: Journal) -> None:
    known = ids(journal)
    with Comparison(journal, before=known["v1"], after=known["v4"]) as comparison:
        assert list(comparison.files())


def planned(journal: Journal) -> None:
    deliveries.plan(journal, url=URL, selection=Selection())
    assert len(list(deliveries.planned(journal))) == 1


def followed(journal: Journal) -> None:
    for path in ("1/Images/a", "1/Images/b", "1/Images/c"):
        assert life.states(journal, path, modality="Images")


def pruned(journal: Journal) -> None:
    first, *_, last = versions.ordered(journal)
    pruning.drop(journal, [first.id], first_kept=last.id)


@pytest.mark.parametrize("walk", [compared, planned, followed, pruned])
@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_circle_of_names_is_walked_once(
    length: int, walk: Callable[[Journal], None], tmp_path: Path, figures: Figures
) -> None:
    path = tmp_path / "journal.db"
    with Journal.create(path) as journal:
        take_down(journal, {"OMOP/x": b"first"}, *({f"1/Images/{name}": CONTENT} for name in "abc"))
        deliver(journal)
    with closing(sqlite3.connect(path)) as database, database:
        rows = [number for (number,) in database.execute("SELECT id FROM file WHERE name IN ('a', 'b', 'c')")]
        circle = rows[-length:]
        for before, after in zip(circle, circle[1:] + circle[:1], strict=True):
            database.execute("UPDATE file SET change = 'renamed', renamed_from = ? WHERE id = ?", (before, after))
        database.execute("DELETE FROM delivery WHERE file_id = ?", (circle[-1],))

    with Journal.open(path) as journal:
        with journal.transaction() as connection:
            steps = iter(range(STEPS))
            driver(connection).set_progress_handler(lambda: next(steps, None) is None, 10_000)
        walk(journal)
        assert "renamed-from-later" in {each.rule for each in checking.findings(journal) if each.is_broken}
    figures.count("walks along a circle")
