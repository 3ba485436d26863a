"""What Linux says of mounts."""

from __future__ import annotations

from pathlib import Path

import pytest

from chorus_upload.storage import mounts as module
from chorus_upload.storage.mounts import mounts, shown_at

TABLE = r"""
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
28 27 254:0 /srv/central/V1 /home/a\040b rw shared:3 master:1 - ext4 /dev/vda rw
29 27 0:40 / /mnt/all rw - nfs4 server:/export rw
30 27 0:40 / /mnt/part rw - nfs4 server:/export/V1 rw
31 27 0:41 / /mnt/share rw - cifs //server/share/V1 rw
32 27 0:42 /V1/OMOP /mnt/folder rw - cifs //server/share rw
33 27 0:43 / /dev/shm rw - tmpfs tmpfs rw
34 33 0:44 / /dev/shm rw - tmpfs tmpfs rw
35 27 0:44 /V1 /mnt/memory rw - tmpfs tmpfs rw
nonsense
"""


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("/home/a b/OMOP", "/srv/central/V1/OMOP"),
        ("/mnt/part/OMOP", "/mnt/all/V1/OMOP"),
        ("/mnt/share/OMOP", "/mnt/folder"),
        ("/mnt/memory/OMOP", "/dev/shm/V1/OMOP"),  # noqa: S108 - of two mounts at one point, the last one is seen
    ],
)
def test_two_places_that_show_one_directory(
    one: str, other: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mountinfo").write_text(TABLE)
    monkeypatch.setattr(module, "_MOUNTS", tmp_path / "mountinfo")

    assert shown_at(Path(one), mounts()) == shown_at(Path(other), mounts())
    assert shown_at(Path(one), mounts()) != shown_at(Path(other).parent, mounts())


def test_a_system_that_does_not_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOUNTS", tmp_path / "none")

    assert shown_at(tmp_path, mounts()) is None
