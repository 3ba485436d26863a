"""Places for files of every kind, each of which can be the source or the cloud of a site."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.emulators import Azurite
from tests.gs import Service
from tests.s3 import SeaweedFS
from tests.trees import build, contents

KINDS = ("local", "az", "s3", "gs")


@dataclass(frozen=True, slots=True)
class End:
    """A place for files, which can be the cloud of a site: `path` and `auth` are for the configuration."""

    path: str
    auth: str
    write: Callable[[str, bytes], object]
    read_all: Callable[[], dict[str, bytes]]
    secrets: tuple[str, ...] = ()

    @property
    def config(self) -> str:
        return f"""
[journal.source]
path = "{self.path}/journal.db"
[journal.source.auth]
{self.auth}
[central_path]
path = "{self.path}/data"
[central_path.auth]
{self.auth}
"""

    def put(self, key: str, content: bytes) -> None:
        self.write(key, content)

    def objects(self) -> dict[str, bytes]:
        return self.read_all()

    def backups(self) -> dict[str, bytes]:
        return {key: body for key, body in self.read_all().items() if key.endswith(".backup")}

    def delete(self, key: str) -> None:
        raise NotImplementedError(key)


@pytest.fixture
def end(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str, str], End]:
    """Makes an empty place of a kind."""

    def make(kind: str, name: str) -> End:
        if kind == "local":
            root = tmp_path / name
            (root / "data").mkdir(parents=True)
            return End(str(root), "", lambda key, body: build(root, {key: body}), lambda: contents(root))
        if kind == "az":
            azurite: Azurite = request.getfixturevalue("azurite")
            container = azurite.create_container()
            return _azure(azurite, container)
        if kind == "s3":
            seaweedfs: SeaweedFS = request.getfixturevalue("seaweedfs")
            return _s3(seaweedfs, seaweedfs.create_bucket())
        token = tmp_path / "token"
        token.touch(mode=0o600)
        token.write_text("ya29.the-token-of-the-tests\n")
        return _google(request.getfixturevalue("gcs"), token)

    return make


def _azure(azurite: Azurite, container: str) -> End:
    sas = azurite.sas(container)

    def put(key: str, body: bytes) -> None:
        with azurite.service() as service, service.get_blob_client(container, key) as blob:
            blob.upload_blob(body, overwrite=True)

    def objects() -> dict[str, bytes]:
        with azurite.service() as service, service.get_container_client(container) as found:
            return {name: found.download_blob(name).readall() for name in found.list_blob_names()}

    auth = f'azure_account_url = "{azurite.account_url}"\nazure_sas_token = "{sas}"'
    return End(f"az://{container}", auth, put, objects, (azurite.key, sas.partition("sig=")[2]))


def _s3(service: SeaweedFS, bucket: str) -> End:
    return End(
        f"s3://{bucket}",
        f'endpoint_url = "{service.url}"\naws_access_key_id = "{service.key_id}"\n'
        f'aws_secret_access_key = "{service.secret}"',
        lambda key, body: service.client.put_object(Bucket=bucket, Key=key, Body=body),
        lambda: service.objects(bucket),
        (service.secret,),
    )


def _google(service: Service, token: Path) -> End:
    bucket = service.create_bucket()
    return End(
        f"gs://{bucket}",
        f'google_endpoint_url = "{service.url}"\ngoogle_token_file = "{token}"',
        lambda key, body: service.put(bucket, key, body),
        lambda: service.objects(bucket),
        (token.read_text().strip(),),
    )
