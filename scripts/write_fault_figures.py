#!/usr/bin/env python
"""Put the figures of the last `scripts/test --faults` into docs/reliability.md, in the place of those that are there.

Only the figures of attacks that ran are replaced, so that a part of them can be run again; attacks that are gone go.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.faults.figures import Figures, as_table, from_table  # noqa: E402 - the tests are no installed package

FIGURES = ROOT / ".faults.json"
DOCUMENT = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- figures -->\n", "<!-- end of figures -->\n"


def main() -> None:
    """Raises FileNotFoundError when there are no figures, ValueError when the document has no place for them."""
    before, begin, rest = DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)
    table, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{DOCUMENT} has no place for figures")
    new = {test: Figures(**figures) for test, figures in json.loads(FIGURES.read_text(encoding="utf-8")).items()}
    total = {test: figures for test, figures in from_table(table).items() if (ROOT / test.partition("::")[0]).exists()}
    DOCUMENT.write_text(f"{before}{begin}\n{as_table(total | new)}\n\n{end}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
