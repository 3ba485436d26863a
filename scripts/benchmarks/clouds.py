"""From one service to another, or within one: `journal update` and `file upload` beside `rclone copy`."""

from __future__ import annotations

import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.emulators import Azurite, running_azurite
from tests.gs import Service, running_fake_gcs
from tests.s3 import SeaweedFS, running_seaweedfs

from . import peers
from .measure import Columns, Measurement, Target, judge, measure, medians, print_table, ratio
from .ours import PROGRAM

OURS = "update + upload"
RCLONE = "rclone copy"
PAIRS = ("az-s3", "s3-az", "az-gs", "gs-az", "s3-gs", "az-az", "s3-s3", "gs-gs")
TREES = {"small": (2_000, 10_000), "large": (4, 64_000_000)}
"""How many files of how many bytes."""

CONFIGURATION = """\
[configuration]
supported_modalities = "Data"
[journal]
journaling_mode = "full"
[journal.local]
path = '{home}/journal.db'
[journal.source]
path = '{home}/cloud.db'
[central_path]
path = "{central.path}"
[central_path.auth]
{central.auth}
[site_path.Data]
path = "{source.path}"
pattern = "{{filepath}}"
[site_path.Data.auth]
{source.auth}
"""


@dataclass(frozen=True, slots=True)
class Place:
    """A bucket or container, as the configuration and as rclone name it; `put` and `sizes` look behind the scenes."""

    path: str
    auth: str
    remote: str
    put: Callable[[str, bytes], object]
    sizes: Callable[[], list[int]]


def azure(azurite: Azurite) -> Place:
    name = azurite.create_container()
    sas = azurite.sas(name)

    def put(key: str, body: bytes) -> None:
        with azurite.service() as service:
            service.get_blob_client(name, key).upload_blob(body)

    def sizes() -> list[int]:
        with azurite.service() as service, service.get_container_client(name) as container:
            return [blob.size for blob in container.list_blobs() if blob.name.endswith(".dat")]

    url = f"{azurite.account_url}/{name}"
    return Place(
        path=f"az://{name}",
        auth=f'azure_account_url = "{azurite.account_url}"\nazure_sas_token = "{sas}"',
        remote=f':azureblob,sas_url="{url}?{sas}":{name}',
        put=put,
        sizes=sizes,
    )


def s3(service: SeaweedFS) -> Place:
    name = service.create_bucket()

    def sizes() -> list[int]:
        pages = service.client.get_paginator("list_objects_v2").paginate(Bucket=name)
        return [each["Size"] for page in pages for each in page.get("Contents", []) if each["Key"].endswith(".dat")]

    keys = f'access_key_id="{service.key_id}",secret_access_key="{service.secret}"'
    return Place(
        path=f"s3://{name}",
        auth=f'endpoint_url = "{service.url}"\naws_access_key_id = "{service.key_id}"\n'
        f'aws_secret_access_key = "{service.secret}"',
        remote=f':s3,provider=SeaweedFS,storage_class=STANDARD,endpoint="{service.url}",{keys}:{name}',
        put=lambda key, body: service.client.put_object(Bucket=name, Key=key, Body=body),
        sizes=sizes,
    )


def google(service: Service) -> Place:
    """fake-gcs-server by itself, for both: it computes MD5s, and takes resumable uploads."""
    name = service.create_bucket()

    def sizes() -> list[int]:
        found: list[int] = []
        token = ""
        while True:
            page = service.ask("GET", f"/storage/v1/b/{name}/o?maxResults=1000&pageToken={token}").said
            found += [int(each["size"]) for each in page.get("items") or [] if each["name"].endswith(".dat")]
            token = page.get("nextPageToken") or ""
            if not token:
                return found

    return Place(
        path=f"gs://{name}",
        auth=f'google_endpoint_url = "{service.url}"\nauth_mode = "anonymous"',
        remote=f':googlecloudstorage,anonymous=true,endpoint="{service.url}/storage/v1/":{name}',
        put=lambda key, body: service.put(name, key, body),
        sizes=sizes,
    )


Places = dict[str, Callable[[], Place]]


@contextmanager
def services(work: Path) -> Iterator[Places]:
    """The emulators, each with as many places as are wanted."""
    with ExitStack() as stack:
        for name in ("az", "s3", "gs"):
            (work / name).mkdir(parents=True)
        azurite = stack.enter_context(running_azurite(work / "az"))
        seaweedfs = stack.enter_context(running_seaweedfs(work / "s3"))
        fake_gcs = stack.enter_context(running_fake_gcs(work / "gs"))
        yield {"az": lambda: azure(azurite), "s3": lambda: s3(seaweedfs), "gs": lambda: google(fake_gcs)}


def bench_clouds(work: Path, *, rounds: int, pairs: Collection[str], trees: Sequence[str]) -> int:
    """Each pair of services, small and large files."""
    program = peers.rclone()
    targets = []
    with services(work / "services") as places:
        for tree in trees:
            number, size = TREES[tree]
            for pair in pairs:
                source_kind, _, central_kind = pair.partition("-")
                source = places[source_kind]()
                fill(source, number=number, size=size)
                runs: defaultdict[str, list[Measurement]] = defaultdict(list)
                for _ in range(rounds):
                    for name, send in ((OURS, send_ours), (RCLONE, send_by(program))):
                        central = places[central_kind]()
                        home = work / "run"
                        home.mkdir()
                        runs[name].append(send(home, source, central))
                        if (found := central.sizes()) != [size] * number:
                            raise RuntimeError(f"{name}: {len(found)} files arrived, instead of {number}")
                        shutil.rmtree(home)
                results = {name: medians(measured) for name, measured in runs.items()}
                title = f"{pair}: {number:,} files of {size:,} bytes, medians of {rounds} rounds"
                print_table(title, results, columns(number, size))
                beside = ratio(results[OURS], results[RCLONE])
                targets.append(Target(f"{pair}, {tree} files: ours / rclone", beside, 1.0))
    return judge(targets)


def fill(place: Place, *, number: int, size: int) -> None:
    """No two files are the same: what is there twice would not have to be sent twice."""
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda each: place.put(f"tree/{each % 20}/{each}.dat", body(each, size)), range(number)))


def body(number: int, size: int) -> bytes:
    return number.to_bytes(8, "big") + os.urandom(min(size, 1 << 20) - 8) + bytes(max(0, size - (1 << 20)))


def send_ours(home: Path, source: Place, central: Place) -> Measurement:
    config = home / "config.toml"
    config.write_text(CONFIGURATION.format(home=home, source=source, central=central), encoding="utf-8")
    config.chmod(0o600)
    update, upload = (
        measure([PROGRAM, "-c", config, *command]) for command in (("journal", "update"), ("file", "upload"))
    )
    return Measurement(
        update.seconds + upload.seconds,
        update.cpu_seconds + upload.cpu_seconds,
        max(update.peak_bytes, upload.peak_bytes),
    )


def send_by(program: Path) -> Callable[[Path, Place, Place], Measurement]:
    """Without options about checking: it compares the checksums that both sides list."""

    def send(_home: Path, source: Place, central: Place) -> Measurement:
        options = ["--config", os.devnull, "--transfers", "16", "--checkers", "16"]
        return measure([program, "copy", *options, f"{source.remote}/tree", f"{central.remote}/tree"])

    return send


def columns(number: int, size: int) -> Columns:
    return {
        "files/s": lambda result: number / result.seconds,
        "MB/s": lambda result: number * size / 1e6 / result.seconds,
        "CPU ms a file": lambda result: result.cpu_seconds * 1000 / number,
    }
