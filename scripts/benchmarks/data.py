"""What the benchmarks read. Made once; a directory that is kept can serve many runs."""

from __future__ import annotations

import os
import random
import shutil
from dataclasses import dataclass
from pathlib import Path

FILES_PER_DIRECTORY = 100
DIRECTORIES_PER_PATIENT = 20

UPLOADS = {
    "small": {10_000: 5_000},
    "large": {64_000_000: 10},
    "mixed": {10_000: 1_000, 1_000_000: 100, 64_000_000: 4},
}
"""The trees that are uploaded: how many files there are of each size in bytes."""


@dataclass(frozen=True, slots=True)
class UploadTree:
    """Files of known sizes below `path`. The name of each tells its size: `<number>-<size>.dat`."""

    path: Path
    counts: dict[int, int]

    @property
    def files(self) -> int:
        return sum(self.counts.values())

    @property
    def size(self) -> int:
        return sum(size * count for size, count in self.counts.items())


def small_files(home: Path, files: int) -> Path:
    """A tree of `files` files of 20 to 220 bytes below `home`, a hundred in each directory."""
    tree = home / f"{files}-files"
    if not begin(tree):
        return tree
    rng = random.Random(files)
    for number in range(files):
        index, position = divmod(number, FILES_PER_DIRECTORY)
        if position == 0:
            directory = tree / directory_name(index)
            directory.mkdir(parents=True)
        (directory / f"{position:05}.dat").write_bytes(rng.randbytes(rng.randint(20, 220)))
    complete(tree)
    return tree


def directory_name(index: int) -> str:
    """All modalities of the default layout, as at a site: few directories without a patient, many with one."""
    if index < 2:
        return ("Metadata", "OMOP")[index]
    patient, place = divmod(index, DIRECTORIES_PER_PATIENT)
    return f"P{patient:05}/{('Images', 'Waveforms')[place % 2]}/{place:02}"


def large_file(home: Path, gibibytes: int) -> Path:
    """A tree with one file of random bytes."""
    tree = home / f"{gibibytes}-GiB"
    if not begin(tree):
        return tree
    path = tree / "P00001" / "Waveforms" / "recording.h5"
    path.parent.mkdir(parents=True)
    with path.open("wb") as file:
        for _ in range(gibibytes * 64):
            file.write(os.urandom(16 * 2**20))
    complete(tree)
    return tree


def upload_tree(home: Path, name: str) -> UploadTree:
    """One of UPLOADS, made of random bytes."""
    tree = UploadTree(home / f"upload-{name}", UPLOADS[name])
    if not begin(tree.path):
        return tree
    sizes = [size for size, count in tree.counts.items() for _ in range(count)]
    for number, size in enumerate(sizes):
        index, position = divmod(number, FILES_PER_DIRECTORY)
        directory = tree.path / directory_name(index)
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"{position:05}-{size}.dat").write_bytes(os.urandom(size))
    complete(tree.path)
    return tree


def begin(tree: Path) -> bool:
    """Whether `tree` is to be made: not when it is complete; what was begun only is removed."""
    if marker(tree).exists():
        return False
    shutil.rmtree(tree, ignore_errors=True)
    print(f"making {tree}", flush=True)
    tree.mkdir(parents=True)
    return True


def complete(tree: Path) -> None:
    marker(tree).touch()


def marker(tree: Path) -> Path:
    return tree.with_name(f"{tree.name}.complete")


def warm(tree: Path) -> None:
    """Reads everything once, so that all competitors find it in memory."""
    for directory, _, names in os.walk(tree):
        for name in names:
            with Path(directory, name).open("rb", buffering=0) as file:
                while file.read(2**20):
                    pass
