"""The demonstration's site: the same tree every time, and files that their own readers accept."""

from __future__ import annotations

import array
import csv
import filecmp
import os
import subprocess
import sys
from pathlib import Path

import pydicom
import pytest

PROGRAM = Path(__file__).parents[2] / "scripts" / "demo_site.py"


def build(out: Path, *options: str) -> Path:
    subprocess.run([sys.executable, PROGRAM, out, *options], check=True, capture_output=True)
    return out


def files_of(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def rows_of(site: Path, table: str) -> list[dict[str, str]]:
    with (site / "OMOP" / f"{table}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("demo") / "site", "--patients", "4", "--seed", "7")


def test_one_seed_gives_one_tree(site: Path, tmp_path: Path) -> None:
    again = build(tmp_path / "again", "--patients", "4", "--seed", "7")

    assert files_of(again) == files_of(site)
    assert filecmp.cmpfiles(site, again, files_of(site), shallow=False)[1:] == ([], [])
    for name in files_of(site):
        assert (again / name).stat().st_mtime_ns == (site / name).stat().st_mtime_ns


def test_another_seed_gives_another_tree(site: Path, tmp_path: Path) -> None:
    assert files_of(build(tmp_path / "other", "--patients", "4", "--seed", "8")) != files_of(site)


def test_a_directory_with_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()

    result = subprocess.run([sys.executable, PROGRAM, tmp_path], capture_output=True, text=True, check=False)

    assert result.returncode == 2
    assert "is not empty" in result.stderr
    assert files_of(tmp_path) == ["mine.txt"]


def test_every_modality_has_files_in_the_default_layout(site: Path) -> None:
    tops = {name.split("/")[0] for name in files_of(site)}
    patients = {row["person_source_value"] for row in rows_of(site, "person")}

    assert tops == {"OMOP", "Metadata"} | patients
    for patient in patients:
        assert list((site / patient / "Images").glob("*/*/IM0001.dcm"))
        assert list((site / patient / "Waveforms").iterdir())


def test_images_are_dicom_and_name_the_patient_of_their_folder(site: Path) -> None:
    images = sorted(site.glob("*/Images/*/*/*.dcm"))
    identities = set()
    for path in images:
        image = pydicom.dcmread(path)
        assert image.PatientID == str(image.PatientName) == path.relative_to(site).parts[0]
        assert image.SOPInstanceUID == image.file_meta.MediaStorageSOPInstanceUID
        assert len(image.PixelData) > 0
        identities.add(str(image.SOPInstanceUID))

    assert len(identities) == len(images) > 0


def test_edf_headers_say_what_the_files_hold(site: Path) -> None:
    recordings = sorted(site.glob("*/Waveforms/*.edf"))
    assert recordings
    for path in recordings:
        content = path.read_bytes()
        header_bytes, records, seconds, signals = (
            int(content[start:end]) for start, end in ((184, 192), (236, 244), (244, 252), (252, 256))
        )
        header = content[256:header_bytes]
        samples = [int(header[216 * signals + 8 * number :][:8]) for number in range(signals)]

        assert content[:8] == b"0       "
        assert content[8:88].split()[0].decode() == path.relative_to(site).parts[0]
        assert header_bytes == 256 * (signals + 1)
        assert header[:16] == b"ECG I           "
        assert len(content) == header_bytes + records * 2 * sum(samples)
        assert (seconds, signals) == (1, 12)


def test_wfdb_headers_say_what_the_files_hold(site: Path) -> None:
    headers = sorted(site.glob("*/Waveforms/*.hea"))
    assert headers
    for path in headers:
        record, *lines = path.read_text(encoding="ascii").splitlines()
        _, signals, _, length = record.split()[:4]
        samples = array.array("h", path.with_suffix(".dat").read_bytes())
        if sys.byteorder == "big":
            samples.byteswap()

        assert len(lines) == int(signals) == 12
        assert len(samples) == int(signals) * int(length)
        for number, line in enumerate(lines):
            signal = samples[number :: int(signals)]
            first, checksum = (int(field) for field in line.split()[5:7])
            assert first == signal[0]
            assert (checksum - sum(signal)) % 65536 == 0


def test_omop_tables_tell_of_the_same_people_and_visits(site: Path) -> None:
    persons = {row["person_id"] for row in rows_of(site, "person")}
    visits = {row["visit_occurrence_id"]: row["person_id"] for row in rows_of(site, "visit_occurrence")}

    assert len(persons) == 4
    assert set(visits.values()) == persons
    assert {row["person_id"] for row in rows_of(site, "observation_period")} == persons
    for table in ("condition_occurrence", "drug_exposure", "measurement", "note"):
        rows = rows_of(site, table)
        assert rows
        assert all(visits[row["visit_occurrence_id"]] == row["person_id"] for row in rows)
        assert len({row[f"{table}_id"] for row in rows}) == len(rows)


def test_without_its_library_it_says_where_to_get_it(tmp_path: Path) -> None:
    (tmp_path / "pydicom.py").write_text("raise ImportError\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}

    ran = subprocess.run(
        [sys.executable, PROGRAM, str(tmp_path / "site")], env=environment, capture_output=True, text=True, check=False
    )

    assert (ran.returncode, "scripts/environment demo" in ran.stderr, "Traceback" in ran.stderr) == (1, True, False)
