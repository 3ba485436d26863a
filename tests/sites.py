"""A web site of ours, on this machine: with or without ranges, redirects, log-ins, and what goes wrong."""

from __future__ import annotations

import base64
import html
import re
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote, unquote, urlsplit

SPRING = 1_740_000_000


@dataclass(slots=True)
class Page:
    """One file of the site."""

    content: bytes
    changed: int = SPRING
    etag: str | None = None


@dataclass(slots=True)
class WebSite:
    """`files` by path, without a leading slash. `asked` has every request: its target, range and log-in.

    `cut` answers break off after so many bytes of the body, each once. `log_in` is `user:password`.
    """

    port: int = 0
    scheme: str = "http"
    files: dict[str, Page] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    pages: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    has_ranges: bool = True
    says_size: bool = True
    log_in: str = ""
    query: str = ""
    cut: list[int] = field(default_factory=list)
    failing: list[int] = field(default_factory=list)

    def put(self, path: str, content: bytes, *, changed: int = SPRING, etag: str | None = None) -> None:
        self.files[path] = Page(content, changed, etag)

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def fetched(self) -> int:
        """How many bytes of files were asked for by ranges."""
        asked = [wanted for target, wanted, _ in self.asked if unquote(urlsplit(target).path)[1:] in self.files]
        bounds = [each.removeprefix("bytes=").split("-") for each in asked if each]
        return sum(int(last) - int(first) + 1 for first, last in bounds)


@contextmanager
def web_site(*, tls: ssl.SSLContext | None = None) -> Iterator[WebSite]:
    """A site that lives for as long as the block."""
    site = WebSite(scheme="https" if tls else "http")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 30

        def log_message(self, *_: object) -> None: ...

        def do_GET(self) -> None:
            _answer(site, self)

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """Clients that hang up are no news here."""

    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    site.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _answer(site: WebSite, asked: BaseHTTPRequestHandler) -> None:
    address = urlsplit(asked.path)
    path = unquote(address.path).removeprefix("/")
    wanted = asked.headers.get("Range", "")
    site.asked.append((asked.path, wanted, asked.headers.get("Authorization", "")))
    expected = f"Basic {base64.b64encode(site.log_in.encode()).decode()}"
    if site.failing:
        _send(asked, site.failing.pop(0))
    elif path in site.redirects:
        _send(asked, 302, headers={"Location": site.redirects[path]})
    elif (site.log_in and asked.headers.get("Authorization") != expected) or address.query != site.query:
        _send(asked, 401 if site.log_in else 403)
    elif path in site.files:
        _give(site, asked, site.files[path], wanted)
    elif path in site.pages:
        _send(asked, 200, site.pages[path].encode(), {"Content-Type": "text/html"})
    elif (not path or path.endswith("/")) and any(each.startswith(path) for each in site.files):
        _send(asked, 200, _listing(site, path).encode(), {"Content-Type": "text/html; charset=utf-8"})
    else:
        _send(asked, 404)


def _listing(site: WebSite, path: str) -> str:
    """As nginx writes it."""
    below = {each[len(path) :] for each in site.files if each.startswith(path)}
    names = sorted({name if "/" not in name else name.partition("/")[0] + "/" for name in below})
    rows = "".join(f'<a href="{quote(name)}">{html.escape(name)}</a>  01-Jan-2026  1\n' for name in names)
    more = '<a href="?C=N;O=D">Name</a><a href="https://example.org/">elsewhere</a><a href="../">../</a>'
    return f"<html><head><title>Index of /{path}</title></head><body><pre>{more}\n{rows}</pre></body></html>"


def _give(site: WebSite, asked: BaseHTTPRequestHandler, page: Page, wanted: str) -> None:
    changed = formatdate(page.changed, usegmt=True)
    headers = {"Last-Modified": changed}
    if page.etag:
        headers["ETag"] = page.etag
    condition = asked.headers.get("If-Match")
    if (condition and condition != page.etag) or asked.headers.get("If-Unmodified-Since", changed) != changed:
        _send(asked, 412)
        return
    found = re.fullmatch(r"bytes=(\d+)-(\d+)", wanted) if site.has_ranges else None
    if found is None:
        _send(asked, 200, page.content, headers, site=site)
        return
    first, last = int(found[1]), min(int(found[2]), len(page.content) - 1)
    if first >= len(page.content):
        _send(asked, 416, headers={"Content-Range": f"bytes */{len(page.content)}"})
        return
    headers["Content-Range"] = f"bytes {first}-{last}/{len(page.content)}"
    _send(asked, 206, page.content[first : last + 1], headers, site=site)


def _send(
    asked: BaseHTTPRequestHandler,
    status: int,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    *,
    site: WebSite | None = None,
) -> None:
    asked.send_response(status)
    for name, value in (headers or {}).items():
        asked.send_header(name, value)
    is_short = site is not None and bool(site.cut) and len(body) > site.cut[0]
    if site is not None and not site.says_size:
        asked.send_header("Transfer-Encoding", "chunked")
        asked.end_headers()
        for at in range(0, len(body), 10_000):
            piece = body[at : at + 10_000]
            asked.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        asked.wfile.write(b"0\r\n\r\n")
        return
    asked.send_header("Content-Length", str(len(body)))
    asked.end_headers()
    try:
        if is_short and site is not None:
            asked.wfile.write(body[: site.cut.pop(0)])
            asked.wfile.flush()
            asked.connection.shutdown(socket.SHUT_RDWR)
            asked.close_connection = True
        else:
            asked.wfile.write(body)
    except OSError:  # a client that has had enough
        asked.close_connection = True
