"""The report of a verification: complete and readable by other programs, or not there."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from chorus_upload.cli.reporting import COLUMNS, report_to
from chorus_upload.errors import ChorusError, ConfigError
from chorus_upload.events import FileVerified, VerifyResult
from chorus_upload.model import Evidence

MATCHED = FileVerified(
    key='spring/1001/Images/a "good", 患者\r\nscan.dcm',
    result=VerifyResult.MATCHED,
    detail="",
    path='1001/Images/a "good", 患者\r\nscan.dcm',
    modality="Images",
    evidence=Evidence.READBACK,
    version="spring",
    size=0,
    fingerprint=bytes(range(16)),
    md5=bytes(16),
    etag="0x8DC",
    submission="march",
    delivered_us=1_772_366_400_000_000,
)
STRANGER = FileVerified(
    key="spring/stranger.txt", result=VerifyResult.NOT_IN_JOURNAL, detail="8 bytes", version="spring", size=8
)


def written(path: Path) -> Path:
    with report_to(path) as note:
        note(MATCHED)
        note(STRANGER)
    return path


def test_csv(tmp_path: Path) -> None:
    with written(tmp_path / "report.csv").open(encoding="utf-8", newline="") as file:
        matched, stranger = csv.DictReader(file)

    assert tuple(matched) == COLUMNS
    assert matched == {
        "path": MATCHED.path,
        "modality": "Images",
        "version": "spring",
        "key": MATCHED.key,
        "size": "0",
        "result": "matched",
        "evidence": "readback",
        "detail": "",
        "fingerprint": "000102030405060708090a0b0c0d0e0f",
        "md5": "00" * 16,
        "etag": "0x8DC",
        "submission": "march",
        "delivered_us": "1772366400000000",
    }
    filled = {name: cell for name, cell in stranger.items() if cell}
    assert filled == {
        "version": "spring",
        "key": "spring/stranger.txt",
        "size": "8",
        "result": "not-in-journal",
        "detail": "8 bytes",
    }


@pytest.mark.parametrize("name", ["report.json", "report.jsonl", "REPORT.JSONL"])
def test_lines_of_json(tmp_path: Path, name: str) -> None:
    lines = written(tmp_path / name).read_text(encoding="utf-8").splitlines()

    matched, stranger = map(json.loads, lines)
    assert tuple(matched) == tuple(stranger) == COLUMNS
    assert (matched["path"], matched["size"], matched["evidence"]) == (MATCHED.path, 0, "readback")
    assert (matched["fingerprint"], matched["md5"]) == ("000102030405060708090a0b0c0d0e0f", "00" * 16)
    assert (stranger["path"], stranger["evidence"], stranger["md5"]) == (None, None, None)


def test_a_report_of_nothing_has_its_columns(tmp_path: Path) -> None:
    with report_to(tmp_path / "report.csv"):
        pass

    assert (tmp_path / "report.csv").read_text(encoding="utf-8").split() == [",".join(COLUMNS)]


def test_a_name_that_is_no_text_is_written_as_an_escape(tmp_path: Path) -> None:
    strange = FileVerified(key="spring/\udcff.dcm", result=VerifyResult.MISSING, detail="")

    with report_to(tmp_path / "report.csv") as note:
        note(strange)

    assert r"spring/\udcff.dcm" in (tmp_path / "report.csv").read_text(encoding="utf-8")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ChorusError("a failing service"), OSError("of somebody else")])
def test_a_report_that_is_not_complete_does_not_appear(tmp_path: Path, error: BaseException) -> None:
    path = written(tmp_path / "report.csv")
    before = path.read_bytes()

    with pytest.raises(type(error)) as raised, report_to(path) as note:
        note(MATCHED)
        raise error

    assert raised.value is error
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["report", "report.txt", "-", ".csv"])
def test_a_name_that_says_no_format(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="says no format") as refused, report_to(tmp_path / name):
        pass

    assert refused.value.hint == "It has to end in .csv, .json, .jsonl (lines of JSON)."


def test_places_that_cannot_be_written_to_are_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "directory.csv").mkdir()

    with pytest.raises(ConfigError, match="is a directory"), report_to(tmp_path / "directory.csv"):
        pass
    with pytest.raises(ConfigError, match="No such file or directory"), report_to(tmp_path / "none" / "report.csv"):
        pass


def test_a_directory_that_goes_away_meanwhile(tmp_path: Path) -> None:
    (tmp_path / "reports").mkdir()

    with (
        pytest.raises(ChorusError, match="cannot write the report"),
        report_to(tmp_path / "reports" / "it.csv") as note,
    ):
        note(MATCHED)
        for path in (tmp_path / "reports").iterdir():
            path.unlink()
        (tmp_path / "reports").rmdir()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = io.FileIO("/dev/full", "w")
    monkeypatch.setattr("chorus_upload.cli.listing.new_part", lambda _: (tmp_path / "unfinished", full))

    with (
        pytest.raises(ChorusError, match=r"cannot write the report .*: No space left"),
        report_to(tmp_path / "a.csv") as note,
    ):
        for _ in range(10_000):
            note(MATCHED)

    assert list(tmp_path.iterdir()) == []
