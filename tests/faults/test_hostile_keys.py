"""What a store calls its objects is never where they go on a disk: nothing is written outside the target."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from urllib.parse import quote

import pytest

from chorus_upload.model import NotRetrieved, Retrieval, RetrievalFailure
from chorus_upload.storage import local_paths
from chorus_upload.storage.local import LocalStore
from chorus_upload.storage.store import ObjectStream
from chorus_upload.storage.target import Target
from chorus_upload.transfer.receiver import Receiver
from tests.e2e.conftest import settle
from tests.faults.figures import Figures
from tests.faults.hostile import surroundings, times, typed
from tests.gs import Bucket, Service
from tests.trees import build, contents

GOOD = ("plain.dcm", "1001/Images/scan.dcm", "a b/äö.dcm", "..a", "a..b/...x", "-rf", "~", "$(reboot)", "[red]x[/]")
OUTSIDE = (
    *(
        "../evil",
        "../../evil",
        "a/../../evil",
        "/evil",
        "//evil",
        "/etc/evil",
        "a//evil",
        "./evil",
        "a/./evil",
        ".",
        "..",
    ),
    *(
        "a/..",
        "evil/",
        "a/../b",
        "../data/../evil",
        ".chorus-upload-parts/evil",
        ".chorus-upload-x",
        "a/.chorus-upload-y",
    ),
)
OF_WINDOWS = (
    *(
        "C:\\evil",
        "C:evil",
        "C:/evil",
        "..\\evil",
        "a\\..\\..\\evil",
        "\\\\host\\share\\evil",
        "a:stream",
        "a:$DATA",
        "con",
    ),
    *(
        "aux.txt",
        "x/NUL",
        "com1.tar.gz",
        "lpt\u00b9",
        "conin$",
        "dot.",
        "space ",
        "x./y",
        "x /y",
        "?",
        "a*",
        '"',
        "<x>",
        "a|b",
    ),
    *("nul .txt", "COM0", "a\x07b"),
)
LONG = ("n" * 255, "n" * 256, "n" * 1_000, "d/" * 500 + "x")


@pytest.fixture
def bucket(gcs: Service, gs_bucket: str, tmp_path: Path) -> Bucket:
    token = tmp_path / "token.txt"
    token.touch(mode=0o600)
    token.write_text("ya29.a-token-of-the-tests\n")
    return Bucket(gcs, gs_bucket, token, gcs.port)


def _put(bucket: Bucket, name: str, content: bytes) -> None:
    """As any client can: the name is not in the path of this request, so nothing on the way bends it."""
    target = f"/upload/storage/v1/b/{bucket.name}/o?uploadType=media&name={quote(name, safe='')}"
    assert bucket.service.ask("POST", target, content).status == 200, name


def _listed(bucket: Bucket) -> set[str]:
    answer = bucket.service.ask("GET", f"/storage/v1/b/{bucket.name}/o?prefix=data/")
    return {each["name"].removeprefix("data/") for each in json.loads(answer.body).get("items", ())}


def test_keys_that_lead_elsewhere(tmp_path: Path, bucket: Bucket, figures: Figures) -> None:
    """They are in the central store, and are listed, verified, and brought back with everything else."""
    site = settle(tmp_path / "home", tmp_path / "source", bucket, patience=0, threads=2)
    build(site.source, {"OMOP/person.csv": "1"})
    for name in (*GOOD, *OUTSIDE, *OF_WINDOWS, *LONG):
        _put(bucket, f"data/{name}", b"evil")
    there = _listed(bucket)
    figures.count("hostile keys in a bucket", len(there - {*GOOD}))
    assert len(there - {*GOOD}) > 40
    around = surroundings(tmp_path, but=(site.home,))

    ended = typed(site.home, "remote", "download", "-r", "*", "--to", "back", figures=figures)
    listed = typed(site.home, "--json", "remote", "list", "-r", figures=figures)

    assert ended.exit_code == 3
    assert listed.exit_code == 0
    assert surroundings(tmp_path, but=(site.home,)) == around
    back = contents(site.home / "back")
    assert {*GOOD} <= back.keys() <= there
    assert not back.keys() & {*OUTSIDE}
    for command in ("journal update --version spring", "file upload", "file verify", "remote delete -r --yes 1001"):
        ended = typed(site.home, *command.split(), figures=figures)
        assert ended.exit_code in (0, 3), (command, ended)
        assert surroundings(tmp_path, but=(site.home,)) == around
    assert _listed(bucket) >= there - {"1001/Images/scan.dcm"}


def test_keys_that_lead_elsewhere_in_a_source(tmp_path: Path, bucket: Bucket, figures: Figures) -> None:
    """What has no proper name is named and left out; the rest is sent under the names that it has."""
    for name in (*GOOD, *OUTSIDE, *OF_WINDOWS):
        _put(bucket, f"data/Images/{name}", b"evil")
    root = build(tmp_path / "disk", {"data/x": "", "journal/x": ""})
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "config.toml").touch(mode=0o600)
    (tmp_path / "home" / "config.toml").write_text(
        f"""
[configuration]
supported_modalities = "Images"
retry_seconds = 0
[journal]
journaling_mode = "full"
[journal.local]
path = "{tmp_path}/home/journal.db"
[journal.source]
path = "{root}/journal/journal.db"
[central_path]
path = "{root}/data"
[site_path.Images]
path = "gs://{bucket.name}/data"
pattern = "Images/{{filepath}}"
[site_path.Images.auth]
google_token_file = "{bucket.token_file}"
google_endpoint_url = "{bucket.service.url}"
"""
    )
    around = surroundings(tmp_path, but=(tmp_path / "home", root))
    for command in ("journal update --version spring", "file upload"):
        assert typed(tmp_path / "home", *command.split(), figures=figures).exit_code == 3
    arrived = {name.removeprefix("spring/Images/") for name in contents(root / "data") if "/Images/" in name}
    assert {*GOOD} <= arrived
    assert not arrived & {*OUTSIDE}
    assert surroundings(tmp_path, but=(tmp_path / "home", root)) == around
    figures.count("hostile keys in a source", len({*OUTSIDE, *OF_WINDOWS}))


@pytest.mark.parametrize("system", ["posix", "nt"])
def test_every_key_on_every_system(
    system: str, tmp_path: Path, figures: Figures, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the rules of Windows, which this system does not have."""
    monkeypatch.setattr(local_paths, "_IS_WINDOWS", system == "nt")
    target = Target(tmp_path / "to")
    around = surroundings(tmp_path, but=(tmp_path / "to",))
    for key in (*GOOD, *OUTSIDE, *OF_WINDOWS, *LONG, "a\0b", "", "half a \ud800"):
        wanted = Retrieval("", key, "x", 4, 0, None, None)
        build(tmp_path / "store", {"x": "evil"})
        with LocalStore(tmp_path / "store") as store:
            ended = _receiver(store, target).receive(wanted)
        is_refused = isinstance(ended, NotRetrieved)
        if key in OUTSIDE or (system == "nt" and key in OF_WINDOWS):
            assert is_refused, key
            assert isinstance(ended, NotRetrieved)
            assert ended.kind is RetrievalFailure.REFUSED
        assert not (is_refused and key in GOOD), key
        figures.count("keys refused" if is_refused else "keys that are paths")
    (tmp_path / "store" / "x").unlink()
    (tmp_path / "store").rmdir()
    assert surroundings(tmp_path, but=(tmp_path / "to",)) == around


class _Meanwhile(LocalStore):
    """A store in whose time somebody puts a link in the way of what is being fetched."""

    def __init__(self, root: Path, directory: Path, elsewhere: Path) -> None:
        super().__init__(root)
        self._directory = directory
        self._elsewhere = elsewhere

    def open(self, key: str, *, offset: int = 0) -> ObjectStream:
        stream = super().open(key, offset=offset)
        self._directory.rename(self._directory.with_name("moved"))
        self._directory.symlink_to(self._elsewhere)
        return stream


def test_a_link_that_is_put_in_the_way_meanwhile(tmp_path: Path, figures: Figures) -> None:
    root, elsewhere = tmp_path / "to", tmp_path / "elsewhere"
    elsewhere.mkdir()
    for number in range(times(quick=3, thorough=50)):
        build(tmp_path / "store", {f"{number}/x": "evil"})
        target = Target(root)
        with _Meanwhile(tmp_path / "store", root / str(number), elsewhere) as store:
            ended = _receiver(store, target).receive(Retrieval("", f"{number}/x", f"{number}/x", 4, 0, None, None))
        assert isinstance(ended, NotRetrieved)
        assert ended.kind is RetrievalFailure.REFUSED
        (root / "moved").rename(root / f"moved-{number}")
        figures.count("links put in the way")
    assert contents(elsewhere) == {}


def _receiver(store: LocalStore, target: Target) -> Receiver:
    return Receiver(
        store, target, overwrite=True, reread=False, stop=threading.Event(), on_bytes=lambda wanted, size: None
    )
