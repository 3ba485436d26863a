"""A million files in 300 MB: memory does not grow with what is in the journal or in the source."""

from __future__ import annotations

import shlex
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from chorus_upload.errors import DestinationChanged
from tests.e2e.conftest import new_disk, settle
from tests.e2e.site import MODULE, Site
from tests.faults.figures import THOROUGH, Figures
from tests.trees import build

MOST = 300 << 20
ROWS = 1_000_000 if THOROUGH else 5_000
FILES = 200_000 if THOROUGH else 5_000
"""Real ones, for what reads the source."""
_AZURE = """"az://central/data"
[central_path.auth]
auth_mode = "sas_token"
azure_account_url = "https://account.blob.core.windows.net"
azure_sas_token = "sv=2024-08-04&sr=c&sp=racwdl&se=2099-01-01T00:00:00Z&sig=none"
"""
LEGACY = Path(__file__).parents[1] / "data" / "legacy" / "journal-v2.db"

# Half of the rows are delivered, and a tenth of them are of a former version and gone.
_GROW = """
    WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {last})
    INSERT INTO {into} FROM n
"""
_DIRECTORIES = "directory (id, path) SELECT 1000 + i, (1000000 + i) || '/Images/series'"
_MEMBERS = """
    file (id, modality_id, directory_id, name, patient, size, mtime_us, fingerprint, md5, change, introduced_by,
        retired_by, retirement)
    SELECT 1000 + i, (SELECT id FROM modality WHERE name = 'Images'), 1000 + i / 100, 'slice-' || i || '.dcm',
        1000000 + i / 100, 100 + i % 1000, 1700000000000000 + i, randomblob(16), randomblob(16), 'added',
        1, iif(i % 10 = 1, 2, NULL), iif(i % 10 = 1, 'gone', NULL)
"""
_DELIVERIES = """
    delivery SELECT 1000 + i, 1, 1, 'spring/' || i, (SELECT md5 FROM file WHERE id = 1000 + i), 'readback', '1-1',
        1700000000000000 + i, 0.5
"""


_OLD_ROWS = """
    journal_v2 SELECT 1000 + i, 1000000 + i / 100, 1, (1000000 + i / 100) || '/Images/' || i || '.dcm', 2,
        1700000000000000, 100, lower(hex(randomblob(16))), 1795251845005523 + i, NULL, 1, 1
"""

# The most memory that a process had counts what it was forked from: so it is a small one that starts the program.
_MEASURED = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[2:])
with open(sys.argv[1], "w") as file:
    file.write(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
sys.exit(code)
"""


def limited(site: Site, command: str, figures: Figures, *, exit_code: int = 0) -> None:
    """Run a command that gets 300 MB; the most that it really had is a figure."""
    notes = site.home / "peak"
    within = (sys.executable, "-S", "-c", _MEASURED, str(notes), "prlimit", f"--data={MOST}", *MODULE)
    ran = subprocess.run(
        [*within, *shlex.split(command)], cwd=site.home, capture_output=True, check=False, stdin=subprocess.DEVNULL
    )
    assert ran.returncode == exit_code, f"{command}: {ran.returncode}\n{ran.stderr.decode()[-3_000:]}"
    megabytes = int(notes.read_text()) // 1024
    assert megabytes < MOST >> 20, f"{command}: {megabytes} MB"
    figures.measure(f"peak MB of {' '.join(word for word in command.split()[:4] if word[0] != '-')}", megabytes)
    figures.count("commands in 300 MB")


@pytest.mark.timeout(1_800)
@pytest.mark.thorough
def test_a_journal_of_a_million_rows(in_memory: Path, figures: Figures) -> None:
    disk = new_disk(in_memory / "cloud")
    site = settle(in_memory / "home", build(in_memory / "source", {"OMOP/person.csv": "1"}), disk)
    for command in ("journal update --version spring", "file upload", "journal checkout"):
        site.run(*command.split())
    build(site.source, {"OMOP/death.csv": "1"})
    site.run("journal", "update", "--version", "autumn")
    with closing(sqlite3.connect(site.journal)) as journal, journal:
        for into, number in ((_DIRECTORIES, ROWS // 100), (_MEMBERS, ROWS), (_DELIVERIES, ROWS // 2)):
            journal.execute(_GROW.format(into=into, last=number - 1))
    figures.measure("peak rows", ROWS)
    (site.home / "azure.toml").write_text(site.config.read_text().replace(f'"{disk.root}/data"', _AZURE))
    for command in (
        "journal check",
        "journal list",
        "journal diff spring autumn",
        "journal show OMOP/person.csv",
        "file list --output-file list.txt",
        "file list --uploaded --output-file uploaded.txt",
        "-c azure.toml file list --output-type azcli --output-file upload.sh",
        "file upload --dry-run",
        "journal checkin",
        "journal checkout",
        "journal update --confirm-deletions --version winter",
        "journal diff autumn winter",
        "journal checkin",
    ):
        limited(site, command, figures)


@pytest.mark.timeout(1_800)
@pytest.mark.thorough
def test_a_source_of_very_many_files(in_memory: Path, figures: Figures) -> None:
    site = settle(in_memory / "home", in_memory / "source", new_disk(in_memory / "cloud"))
    for number in range(FILES):
        path = site.source / str(1_000 + number // 500) / "Images" / f"{number}.dcm"
        if number % 500 == 0:
            path.parent.mkdir(parents=True)
        path.write_bytes(number.to_bytes(4, "little"))
    figures.measure("peak files", FILES)
    limited(site, "journal update --version spring", figures)
    limited(site, "journal update --version again", figures)
    # All of them have other names.
    for directory in list(site.source.iterdir()):
        directory.rename(directory.with_name(f"9{directory.name}"))
    limited(site, "journal update --version renamed", figures)
    limited(site, "file upload --max-num-files 20000", figures)
    limited(site, "file verify", figures)


@pytest.mark.timeout(1_800)
def test_an_old_journal_of_a_million_rows(in_memory: Path, figures: Figures) -> None:
    disk = new_disk(in_memory / "cloud")
    site = settle(in_memory / "home", build(in_memory / "source", {"OMOP/person.csv": "1"}), disk)
    old = Path(shutil.copy(LEGACY, disk.root / "journal/journal.db"))
    with closing(sqlite3.connect(old)) as journal, journal:
        journal.execute(_GROW.format(into=_OLD_ROWS, last=ROWS - 1))
    figures.measure("peak rows", ROWS)
    # It looks for some of its uploads, and finds none.
    limited(site, "journal upgrade", figures, exit_code=DestinationChanged.exit_code)
    limited(site, "journal upgrade --same-destination", figures)
    limited(site, "journal list", figures)
    limited(site, "journal check", figures)
