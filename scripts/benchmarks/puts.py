"""One process of the load that candidates.py measures: puts of 10 kB to a container, by one library.

    puts.py CANDIDATE CONTAINER-URL SAS PUTS AT-A-TIME PREFIX

Says "ready", waits for a line, puts, and says what that took. Runs in an environment that has all the libraries.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import http.client
import importlib
import json
import os
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

Put = Callable[[str, bytes], bool]
"""Puts a body under a name that is free; tells whether the answer carries the MD5 of the body."""

HEADERS = {
    "x-ms-blob-type": "BlockBlob",
    "x-ms-version": "2025-01-05",
    "If-None-Match": "*",
    "Content-Type": "application/octet-stream",
    "x-ms-meta-source_mtime_us": "1767225600000000",
}
SIZE = 10_000


class Container:
    """Where the puts go. `put` of a thread is made by `connect`, which each thread calls once."""

    def __init__(self, url: str, sas: str) -> None:
        self.url = url
        self.sas = sas
        parts = urlsplit(url)
        self.host = parts.hostname or ""
        self.port = parts.port or 80
        self.account_url, _, self.name = url.rpartition("/")
        self.account = self.account_url.rpartition("/")[2]
        self.path = parts.path

    def target(self, name: str) -> str:
        return f"{self.path}/{name}?{self.sas}"


def by_http_client(container: Container) -> Callable[[], Put]:
    def connect() -> Put:
        connection = http.client.HTTPConnection(container.host, container.port)

        def put(name: str, body: bytes) -> bool:
            md5 = md5_of(body)
            connection.request("PUT", container.target(name), body, {**HEADERS, "Content-MD5": md5})
            response = connection.getresponse()
            response.read()
            must_be_created(response.status)
            return response.headers["Content-MD5"] == md5

        return put

    return connect


def by_urllib3(container: Container) -> Callable[[], Put]:
    urllib3 = importlib.import_module("urllib3")
    pool: Any = urllib3.HTTPConnectionPool(container.host, container.port, maxsize=64, retries=False)

    def put(name: str, body: bytes) -> bool:
        md5 = md5_of(body)
        response = pool.urlopen("PUT", container.target(name), body, {**HEADERS, "Content-MD5": md5})
        must_be_created(response.status)
        return bool(response.headers.get("Content-MD5") == md5)

    return lambda: put


def by_pycurl(container: Container) -> Callable[[], Put]:
    pycurl = importlib.import_module("pycurl")
    headers = [f"{name}: {value}" for name, value in HEADERS.items()]

    def connect() -> Put:
        curl: Any = pycurl.Curl()
        curl.setopt(pycurl.NOSIGNAL, 1)
        curl.setopt(pycurl.CUSTOMREQUEST, "PUT")
        curl.setopt(pycurl.WRITEFUNCTION, lambda _: None)

        def put(name: str, body: bytes) -> bool:
            md5 = md5_of(body)
            lines: list[bytes] = []
            curl.setopt(pycurl.URL, f"{container.url}/{name}?{container.sas}")
            curl.setopt(pycurl.HTTPHEADER, [*headers, f"Content-MD5: {md5}"])
            curl.setopt(pycurl.POSTFIELDSIZE, len(body))
            curl.setopt(pycurl.POSTFIELDS, body)
            curl.setopt(pycurl.HEADERFUNCTION, lines.append)
            curl.perform()
            must_be_created(curl.getinfo(pycurl.RESPONSE_CODE))
            return any(line.lower().startswith(b"content-md5:") and md5.encode() in line for line in lines)

        return put

    return connect


def by_azure_storage_blob(container: Container) -> Callable[[], Put]:
    blob = importlib.import_module("azure.storage.blob")
    client: Any = blob.ContainerClient.from_container_url(f"{container.url}?{container.sas}")

    def put(name: str, body: bytes) -> bool:
        return answer_carries(
            client.get_blob_client(name).upload_blob(
                body, validate_content=True, metadata={"source_mtime_us": "1767225600000000"}
            ),
            body,
        )

    return lambda: put


def by_obstore(container: Container) -> Callable[[], Put]:
    obstore = importlib.import_module("obstore")
    stores = importlib.import_module("obstore.store")
    store: Any = stores.AzureStore(
        container.name,
        account_name=container.account,
        endpoint=container.account_url,
        sas_key=container.sas,
        client_options={"allow_http": True},
    )

    def put(name: str, body: bytes) -> bool:
        md5_of(body)  # ours needs it in any case
        return "md5" in str(obstore.put(store, name, body, mode="create", use_multipart=False)).lower()

    return lambda: put


async def by_asynchronous_azure_storage_blob(container: Container, names: Iterator[str], tasks: int) -> bool:
    blob = importlib.import_module("azure.storage.blob.aio")
    body = os.urandom(SIZE)
    async with blob.ContainerClient.from_container_url(f"{container.url}?{container.sas}") as client:

        async def work() -> bool:
            carried = True
            for name in names:
                answer = await client.get_blob_client(name).upload_blob(
                    body, validate_content=True, metadata={"source_mtime_us": "1767225600000000"}
                )
                carried &= answer_carries(answer, body)
            return carried

        return all(await asyncio.gather(*(work() for _ in range(tasks))))


THREADED: dict[str, Callable[[Container], Callable[[], Put]]] = {
    "http.client": by_http_client,
    "urllib3": by_urllib3,
    "pycurl": by_pycurl,
    "azure-storage-blob": by_azure_storage_blob,
    "obstore": by_obstore,
}
ASYNCHRONOUS = "azure-storage-blob aio"
CANDIDATES = (*THREADED, ASYNCHRONOUS)


def in_threads(connect: Callable[[], Put], names: Iterator[str], threads: int) -> bool:
    body = os.urandom(SIZE)
    lock = threading.Lock()

    def work() -> bool:
        put = connect()
        carried = True
        while True:
            with lock:
                name = next(names, None)
            if name is None:
                return carried
            carried &= put(name, body)

    with ThreadPoolExecutor(threads) as pool:
        return all(done.result() for done in [pool.submit(work) for _ in range(threads)])


def md5_of(body: bytes) -> str:
    return base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()


def answer_carries(answer: dict[str, Any], body: bytes) -> bool:
    return bytes(answer.get("content_md5") or b"") == hashlib.md5(body, usedforsecurity=False).digest()


def must_be_created(status: int) -> None:
    if status != http.client.CREATED:
        raise RuntimeError(f"the answer is {status}")


def peak_bytes() -> int:
    """Of this process alone: what getrusage tells also covers the one that started it."""
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> int:
    candidate, url, sas, puts, at_a_time, prefix = sys.argv[1:]
    container = Container(url, sas)
    names = (f"{prefix}/{number:06}-{SIZE}.dat" for number in range(int(puts)))
    if candidate == ASYNCHRONOUS:
        importlib.import_module("azure.storage.blob.aio")
        importlib.import_module("aiohttp")

        def load() -> bool:
            return asyncio.run(by_asynchronous_azure_storage_blob(container, names, int(at_a_time)))

    else:
        connect = THREADED[candidate](container)

        def load() -> bool:
            return in_threads(connect, names, int(at_a_time))

    print("ready", flush=True)
    sys.stdin.readline()
    begun = time.process_time()
    answers_md5 = load()
    cpu_seconds = time.process_time() - begun
    print(json.dumps({"cpu_seconds": cpu_seconds, "peak_bytes": peak_bytes(), "answers_md5": answers_md5}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
