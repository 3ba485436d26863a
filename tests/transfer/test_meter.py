"""The meter: what is under way, whoever looks."""

from __future__ import annotations

from chorus_upload.model import Transfer
from chorus_upload.transfer.meter import Meter


def a_file(number: int, modality: str, path: str) -> Transfer:
    return Transfer(number, modality, path, f"v/{modality}/{path}", size=10, mtime_us=0)


def test_bytes_of_unfinished_files() -> None:
    meter, first, second = Meter(), a_file(1, "OMOP", "a"), a_file(2, "OMOP", "b")

    meter.begin(first)
    meter.begin(second)
    meter.add(first, 3)
    meter.add(second, 4)
    assert meter.snapshot() == (7, ("a", "b"))

    meter.end(first)
    assert meter.snapshot() == (4, ("b",))


def test_a_file_that_is_read_again_counts_once() -> None:
    meter, file = Meter(), a_file(1, "OMOP", "a")

    meter.begin(file)
    meter.add(file, 10)
    meter.begin(file)
    meter.add(file, 4)

    assert meter.snapshot() == (4, ("a",))


def test_two_sources_may_have_files_of_one_path() -> None:
    meter, table, image = Meter(), a_file(1, "OMOP", "1001/a"), a_file(2, "Images", "1001/a")

    meter.begin(table)
    meter.begin(image)
    meter.end(table)
    meter.add(image, 5)

    assert meter.snapshot() == (5, ("1001/a",))
