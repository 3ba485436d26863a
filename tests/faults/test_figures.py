"""The report itself."""

from __future__ import annotations

from tests.faults.figures import Figures, as_table, from_table


def test_figures_are_added_up_and_peaks_kept() -> None:
    figures = Figures()
    figures.count("kills")
    figures.count("kills", 2)
    figures.measure("peak MB", 70)
    figures.add({"kills": 1_000, "peak MB": 60, "answers lost": 4})

    assert figures.counted == {"kills": 1_003, "peak MB": 70, "answers lost": 4}


def test_a_table_says_all_that_was_counted() -> None:
    total = {
        "tests/faults/test_b.py::test_two": Figures({"kills": 12_345, "peak MB of `update`": 9}, is_thorough=True),
        "tests/faults/test_a.py::TestIt::test_one": Figures({"requests": 0}, is_thorough=False),
    }
    table = as_table(total)

    assert "| `test_b.py::test_two` | thorough | 12,345 kills, 9 peak MB of `update` |" in table.splitlines()
    assert from_table(table) == total
