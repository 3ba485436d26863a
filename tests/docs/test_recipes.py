"""Whoever follows a recipe gets what it promises, on emulators in the place of the services that it names."""

from __future__ import annotations

import io
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.docs import shell, sites
from tests.docs.markdown import blocks, read
from tests.emulators import Azurite
from tests.gs import Service
from tests.s3 import SeaweedFS
from tests.trees import Bytes, build, bytes_of, contents

TOKEN = "ya29.a-token-of-the-tests"


def follow(name: str, home: Path, *, instead: dict[str, str], environment: dict[str, str]) -> str:
    """Write the files that a recipe shows, and type what it says; gives all that the commands said."""
    steps, replaced = [], set()
    for block in blocks(read(f"docs/recipes/{name}.md")):
        if block.marker.startswith("file "):
            text = block.text
            for theirs, ours in instead.items():
                if theirs in text:
                    replaced.add(theirs)
                    text = text.replace(theirs, ours)
            sites.configure(home, text, name=block.marker.removeprefix("file "))
        elif block.language == "bash" and not block.marker.startswith("not run"):
            steps.append(shell.step_of(block))
    assert replaced == instead.keys()
    said = "\n".join(shell.run(steps, cwd=home, environment=environment))
    assert TOKEN not in said
    return said


@pytest.fixture
def google(tmp_path: Path, gcs: Service, gs_bucket: str) -> dict[str, str]:
    """The environment of somebody who has a token, and for whom Google is the emulator."""
    token = tmp_path / "token.txt"
    token.touch(mode=0o600)
    token.write_text(f"{TOKEN}\n")
    return {
        "STORAGE_EMULATOR_HOST": gcs.url,
        "CHORUS_UPLOAD_JOURNAL_GOOGLE_TOKEN_FILE": str(token),
        "CHORUS_UPLOAD_CENTRAL_PATH_GOOGLE_TOKEN_FILE": str(token),
    }


@pytest.mark.thorough
def test_azure_to_google(
    tmp_path: Path, azurite: Azurite, azure_container: str, gcs: Service, gs_bucket: str, google: dict[str, str]
) -> None:
    tree = {"train.csv": Bytes(500), "train/patient1/view1.jpg": Bytes(70_000), "valid/large.jpg": Bytes(9_000_000)}
    with azurite.service() as service, service.get_container_client(azure_container) as container:
        for path, body in tree.items():
            container.upload_blob(path, bytes_of(path, body))
    given = f"{azurite.account_url}/{azure_container}?{azurite.sas(azure_container, permissions='rl')}"
    (shown,) = [
        line.split('"')[1]
        for block in blocks(read("docs/recipes/azure-to-google.md"))
        for line in block.text.splitlines()
        if "blob.core.windows.net" in line
    ]
    # As it comes out of somebody's notes: in quotes, with the shell's backslashes.
    pasted = "'" + given.replace("&", "\\\\&") + "'"
    said = follow("azure-to-google", tmp_path, instead={shown: pasted, "our-datasets": gs_bucket}, environment=google)
    assert "error" not in said
    sent = {key: body for key, body in gcs.objects(gs_bucket).items() if key.startswith("chexpert/1/CheXpert/")}
    expected = {path: bytes_of(path, body) for path, body in tree.items()}
    assert sent == {f"chexpert/1/CheXpert/{path}": body for path, body in expected.items()}
    assert contents(tmp_path / "data") == expected
    assert azurite.key not in said
    assert given.partition("sig=")[2] not in said


def test_hub(
    tmp_path: Path, gcs: Service, gs_bucket: str, seaweedfs: SeaweedFS, s3_bucket: str, google: dict[str, str]
) -> None:
    build(tmp_path / "output", {"run.zarr/.zattrs": "{}", "run.zarr/t/0.0": Bytes(1_000), "ocean.nc": Bytes(20_000)})
    # The recipe has a bucket of one name at both services.
    instead = {
        "gs://hub-scratch": f"gs://{gs_bucket}",
        "s3://hub-scratch": f"s3://{s3_bucket}",
        "https://s3.hub.example.org": seaweedfs.url,
    }
    keys = {"AWS_ACCESS_KEY_ID": seaweedfs.key_id, "AWS_SECRET_ACCESS_KEY": seaweedfs.secret}
    environment = {"STORAGE_EMULATOR_HOST": google["STORAGE_EMULATOR_HOST"], **keys}
    said = follow("hub", tmp_path, instead=instead, environment=environment)
    assert "error" not in said
    expected = {f"ana/run-1/Runs/{path}": body for path, body in contents(tmp_path / "output").items()}
    for found in (gcs.objects(gs_bucket), seaweedfs.objects(s3_bucket)):
        assert {key: body for key, body in found.items() if "/Runs/" in key} == expected
        assert not [key for key, body in found.items() if TOKEN.encode() in body]
    assert not (tmp_path / "token.txt").exists()
    left = [path for path in tmp_path.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]
    assert left == []


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """A web server with two archives."""
    root = tmp_path / "web"
    build(root, {"breeds/x": "", "shelter/x": ""})
    with tarfile.open(root / "breeds/images.tar.gz", "w:gz") as archive:
        for number in range(3):
            member = tarfile.TarInfo(f"images/dog-{number}.jpg")
            member.size, member.mtime = 1_000, 1_700_000_000
            archive.addfile(member, io.BytesIO(bytes([number]) * 1_000))
    with zipfile.ZipFile(root / "shelter/photos.zip", "w") as photos:
        photos.writestr("cat.jpg", b"cat" * 100)

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(root)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.thorough
def test_web_archives(tmp_path: Path, web: str, gcs: Service, gs_bucket: str, google: dict[str, str]) -> None:
    said = follow(
        "web-archives",
        tmp_path,
        instead={"https://www.example.org": web, "our-datasets": gs_bucket},
        environment=google,
    )
    assert "error" not in said
    found = {key for key in gcs.objects(gs_bucket) if "journal" not in key and "manifest" not in key}
    assert found == {
        *(f"pets/2026-11/Breeds/dog-{number}.jpg" for number in range(3)),
        "pets/2026-11/Shelter/cat.jpg",
    }
