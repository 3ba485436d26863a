"""From everywhere to everywhere: each kind of place as the source and as the central store, twice, and back again."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.ends import KINDS, End
from tests.e2e.site import Site
from tests.trees import Bytes, bytes_of, contents

SPRING = {
    "OMOP/person.csv": Bytes(3_000),
    "OMOP/empty.csv": Bytes(0),
    "1001/Images/a b/scan äö.dcm": Bytes(70_000),
    "1002/Waveforms/large.h5": Bytes(9_000_001),
}
SUMMER = {"OMOP/person.csv": Bytes(3_000, edition=2), "1003/Images/new.dcm": Bytes(100)}


# In these, each kind is a source and a central store. The others are left to thorough runs.
PAIRS_OF_EVERY_RUN = {("local", "az"), ("az", "s3"), ("s3", "local"), ("local", "gs"), ("gs", "az")}
PAIRS = [
    pytest.param(*pair, id="-".join(pair), marks=[] if pair in PAIRS_OF_EVERY_RUN else [pytest.mark.thorough])
    for pair in itertools.product(KINDS, repeat=2)
]


@pytest.mark.parametrize(("source_kind", "central_kind"), PAIRS)
def test_two_submissions_and_back(
    tmp_path: Path, end: Callable[[str, str], End], source_kind: str, central_kind: str
) -> None:
    source, central = end(source_kind, "source"), end(central_kind, "central")
    site = Site(tmp_path / "home", tmp_path / "nothing", central)
    auth = f"[site_path.default.auth]\n{source.auth}" if source.auth else ""
    site.configure(
        f"""
[configuration]
retry_seconds = 10

[journal]
journaling_mode = "full"

[journal.local]
path = "{site.journal}"
{central.config}
[site_path.default]
path = "{source.path}"
{auth}"""
    )
    expected: dict[str, bytes] = {}
    state: dict[str, bytes] = {}
    for version, tree in (("spring", SPRING), ("summer", SUMMER)):
        for path, body in tree.items():
            data = bytes_of(path, body)
            source.put(path, data)
            state[path] = expected[f"data/{version}/{path}"] = data
        site.run("journal", "update", "--version", version)
        assert site.pending() == set(tree)
        site.run("file", "upload")
    found = central.objects()
    assert {key: body for key, body in found.items() if key in expected} == expected
    others = {key.rpartition("/")[2].partition("-")[0].partition(".")[0] for key in found.keys() - expected.keys()}
    assert others == {"journal", "manifest"}

    site.run("file", "verify", "--deep")
    site.run("file", "download", "--to", str(tmp_path / "back"))
    assert contents(tmp_path / "back") == state
