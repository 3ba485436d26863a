"""What the uploads go to: services on this machine, started anew for each run, so that all runs find the same."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from azure.storage.blob import ContainerClient

from tests.emulators import running_azurite

WARMING_PUTS = 500

# It answers as Azure does, as far as clients look, and forgets what it was sent. What was sent as a checksum comes
# back as if it had been computed. Clients that ask for a file afterwards are told the size that its name tells.
# chorus-upload looks whether its first object is there, and sends it twice, to see that conditions hold: it is told
# that the object is missing, and is refused the second time.
# Left to itself nginx answers a PUT before it has read the body, which no service does. So large bodies take a way
# round that makes it read all of them first; small ones have arrived by then in any case.
NGINX = """\
daemon off;
master_process off;
pid nginx.pid;
error_log error.log warn;
events { worker_connections 1024; }
http {
  access_log off;
  client_body_temp_path body;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  client_header_buffer_size 32k;
  client_body_buffer_size 16m;
  client_max_body_size 0;
  keepalive_requests 1000000000;
  etag off;
  default_type application/xml;
  map "$request_method $arg_comp $content_length $http_user_agent" $kind {
    "~^PUT .* [0-9]{6,} " large;
    "~^PUT " small;
    "~^GET list " list;
    "~*^HEAD .*(rclone|azcopy)" look;
    default missing;
  }
  map $status $error_code {
    404 BlobNotFound;
    409 BlobAlreadyExists;
  }
  map $http_if_none_match $new_object {
    "*" $request_uri;
  }
  limit_req_zone $new_object zone=new_objects:16m rate=1r/m;
  limit_req_status 409;
  limit_req_log_level info;
  server {
    listen 127.0.0.1:%(port)d default_server;
    root sizes;
    add_header Content-MD5 $http_content_md5 always;
    add_header x-ms-content-crc64 $http_x_ms_content_crc64 always;
    add_header ETag '"0x8DC000000000000"' always;
    add_header Last-Modified 'Wed, 01 Jan 2025 00:00:00 GMT' always;
    add_header x-ms-version $http_x_ms_version always;
    add_header x-ms-request-id 00000000-0000-0000-0000-000000000000 always;
    add_header x-ms-error-code $error_code always;
    add_header x-ms-request-server-encrypted true always;
    if ($kind = small) { rewrite ^ /small last; }
    if ($kind = large) { rewrite ^ /large last; }
    if ($kind = list) { return 200 '%(listing)s'; }
    if ($kind = missing) { rewrite ^ /missing last; }
    location ~ -(?<size>[0-9]+)[.]dat$ { try_files /$size =404; }
    location / { return 404; }
    location = /small {
      internal;
      limit_req zone=new_objects;
      error_page 405 =201 @created;
    }
    location @created { return 201; }
    location = /large {
      internal;
      limit_req zone=new_objects;
      proxy_pass http://127.0.0.1:%(port)d/;
      proxy_pass_request_body off;
      proxy_set_header Content-Length 0;
      proxy_set_header Host inner;
    }
  }
  server {
    listen 127.0.0.1:%(port)d;
    server_name inner;
    return 201;
  }
}
"""
ANY_SAS = "sv=2025-01-05&se=2099-01-01T00%3A00%3A00Z&sr=c&sp=racwdl&sig=bm90aGluZw%3D%3D"
LISTING = (
    '<?xml version="1.0" encoding="utf-8"?>'
    '<EnumerationResults ServiceEndpoint="http://127.0.0.1/" ContainerName="central">'
    "<Blobs></Blobs><NextMarker></NextMarker></EnumerationResults>"
)


@dataclass(frozen=True, slots=True)
class Destination:
    """An empty container. Where it `keeps` what it is sent, what arrived can be counted."""

    container_url: str
    sas: str
    keeps: bool

    def url(self, name: str) -> str:
        """The address of what is below `name`, credential included."""
        return f"{self.container_url}/{name}?{self.sas}"

    def check(self, *, files: int, size: int) -> None:
        """Raises RuntimeError unless files of the trees have arrived in this number and total size."""
        if not self.keeps:
            return
        with ContainerClient.from_container_url(f"{self.container_url}?{self.sas}") as container:
            sizes = [blob.size for blob in container.list_blobs() if blob.name.endswith(".dat")]
        if (len(sizes), sum(sizes)) != (files, size):
            raise RuntimeError(f"{len(sizes)} files of {sum(sizes)} bytes arrived, instead of {files} of {size}")


Service = Callable[[Path, Collection[int]], AbstractContextManager[Destination]]
"""Starts a service in a directory, for files of these sizes, and stops it at the end."""


@contextmanager
def emulator(home: Path, _sizes: Collection[int]) -> Iterator[Destination]:
    """Azurite, in memory. Its JavaScript is slow at first, so it does some work before anybody is measured."""
    with running_azurite(home) as azurite:
        with azurite.service() as service, service.get_container_client(azurite.create_container()) as container:
            for number in range(WARMING_PUTS):
                container.upload_blob(str(number), bytes(10_000))
            container.delete_container()
        name = azurite.create_container()
        yield Destination(f"{azurite.account_url}/{name}", azurite.sas(name), keeps=True)


def discarding(nginx: Path) -> Service:
    """An endpoint that answers at once and keeps nothing."""

    @contextmanager
    def start(home: Path, sizes: Collection[int]) -> Iterator[Destination]:
        (home / "sizes").mkdir()
        for size in sizes:
            with (home / "sizes" / str(size)).open("wb") as file:
                file.truncate(size)
        port = free_port()
        config = home / "nginx.conf"
        config.write_text(NGINX % {"port": port, "listing": LISTING}, encoding="utf-8")
        with subprocess.Popen(
            [nginx, "-p", home, "-c", config],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            try:
                wait_for(port, process, home / "error.log")
                yield Destination(f"http://127.0.0.1:{port}/devstoreaccount1/central", ANY_SAS, keeps=False)
            finally:
                process.terminate()

    return start


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Returns when somebody answers; RuntimeError when the process ended instead."""
    while process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    said = log.read_text(errors="replace") if log.exists() else "nothing"
    raise RuntimeError(f"the endpoint did not start; it said: {said}")
