"""What people write as a path, taken apart: one notation for every place, and no credential left in it."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field, replace
from urllib.parse import parse_qs, unquote

from chorus_upload.config.accounts import has_own_name, is_numeric_host, split_address
from chorus_upload.config.pasting import clean_address

SCHEMES = ("file", "az", "s3", "gs", "http", "https", "ftp", "sftp", "smb", "zip", "tar", "memory")
_OTHER_NAMES = {"azure": "az", "gcs": "gs"}
_CLOUDS = ("az", "s3", "gs")
ARCHIVES = ("zip", "tar")

# At least two letters, so that the `C:` of a Windows path is no scheme.
_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+)://(?P<rest>.*)", re.DOTALL)
_DRIVE = re.compile(r"/[A-Za-z]:(?:[/\\]|\Z)")
# How others chain places, with kinds of them that are none of ours.
_CHAIN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+::[A-Za-z][A-Za-z0-9+.-]+:(?:/|:)")
_ARCHIVE_NAME = re.compile(r"(?i)\.(?:(?P<zip>zip)|tar(?:\.(?:gz|bz2|xz|zst))?|tgz|tbz2?|txz)\Z")
_ABSOLUTE_LOCAL = re.compile(r"[/\\~.]|[A-Za-z]:")


@dataclass(frozen=True, slots=True)
class Address:
    """A place without its credentials (`path`), and what was pasted along with it.

    `path` is `az://container/prefix`, `s3://…`, `gs://…`, another URL, or a local path as it was written. Of an
    archive it is `zip://INNER::OUTER` or `tar://INNER::OUTER`, where OUTER is such a path, and what was pasted is
    for that.
    """

    scheme: str
    path: str
    account_name: str | None = None
    account_url: str | None = None
    username: str | None = None
    sas_token: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    query: str | None = field(default=None, repr=False)

    @property
    def has_no_container(self) -> bool:
        """Whether this is a cloud's address without the container or bucket that it needs."""
        outer = self.path.partition("::")[2] if self.scheme in ARCHIVES else self.path
        return self.service in _CLOUDS and not outer.partition("://")[2].partition("/")[0]

    @property
    def service(self) -> str:
        """The scheme of the place that is entered: for an archive, of the one that it lies in."""
        return scheme_of(self.path.partition("::")[2]) if self.scheme in ARCHIVES else self.scheme


def archive_kind(name: str) -> str | None:
    """The scheme for a file that is an archive, by its name; None if it does not look like one."""
    found = _ARCHIVE_NAME.search(name)
    return None if found is None else "zip" if found["zip"] else "tar"


def scheme_of(path: str) -> str:
    """The scheme of a path that was taken apart; `file` for a local one."""
    scheme, separator, _ = path.partition("://")
    return scheme if separator and scheme in SCHEMES else "file"


def parse_address(text: str) -> Address:
    """Take `text` apart; what pasting leaves around it (see `pasting`) is ignored.

    Raises ValueError, whose message never shows what may be a credential.
    """
    text = clean_address(text)
    if not text:
        raise ValueError("is empty")
    url = _URL.fullmatch(text)
    if url is None:
        if _CHAIN.match(text):
            raise ValueError(f"{text.partition('::')[0]}:: is not known here; archives are {_HOW}")
        return Address("file", text)
    scheme = url["scheme"].lower()
    scheme, rest = _OTHER_NAMES.get(scheme, scheme), url["rest"]
    if scheme in ARCHIVES:
        return _archive(scheme, rest)
    if scheme not in SCHEMES:
        near = difflib.get_close_matches(scheme, SCHEMES, n=1)
        meant = f"did you mean {near[0]}://?" if near else f"known are {', '.join(SCHEMES)}"
        raise ValueError(f"{scheme}:// is not a kind of place that is known; {meant}")
    if scheme == "file":
        return Address("file", _local_path(rest))
    if scheme in ("http", "https"):
        return _web_address(text)
    if scheme in _CLOUDS:
        path, _, query = rest.partition("?") if scheme == "az" else (rest, "", "")
        return Address(scheme, f"{scheme}://{path.rstrip('/')}", sas_token=query or None)
    return _with_user(scheme, rest)


_HOW = "zip://INNER/PATH::PLACE and tar://INNER/PATH::PLACE, with nothing between // and :: for all of an archive"


def _archive(scheme: str, rest: str) -> Address:
    inner, separator, place = rest.partition("::")
    if not separator or not place:
        raise ValueError(f"does not say where the archive is: {_HOW}")
    outer = parse_address(place)
    if outer.scheme in ARCHIVES:
        raise ValueError("is an archive inside an archive, which cannot be read")
    inner = "" if inner.strip("/") in ("*", "**") else inner.strip("/")
    return replace(outer, scheme=scheme, path=f"{scheme}://{inner}::{outer.path}")


def in_container(address: Address, *, scheme: str, container: str) -> Address:
    """`address` inside the container that a key of its own names; a bare prefix is put below it.

    An absolute local path and a place of another scheme stay what they are. Raises ValueError when the address
    names another container.
    """
    if address.scheme == "file" and not _ABSOLUTE_LOCAL.match(address.path):
        prefix = address.path.strip("/")
    elif address.scheme == scheme:
        named, _, prefix = address.path.partition("://")[2].partition("/")
        if named not in ("", container):
            raise ValueError(f"the path is in the container {named}, but this is {container}; keep one of them")
    else:
        return address
    path = "/".join(part for part in (f"{scheme}://{container}", prefix) if part)
    return replace(address, scheme=scheme, path=path)


def _local_path(rest: str) -> str:
    host, slash, path = rest.partition("/")
    path = unquote(slash + path)
    if host.lower() not in ("", "localhost"):
        return f"//{host}{path}"
    return path[1:] if _DRIVE.match(path) else path


def _web_address(text: str) -> Address:
    """An http(s) URL: a blob container when host or query are Azure's, a web site otherwise."""
    url = split_address(text)
    host = url.hostname or ""
    query = parse_qs(url.query)
    is_emulator = is_numeric_host(host) and url.path.startswith("/devstoreaccount1")
    if not (".blob." in host or is_emulator or ("sig" in query and "sv" in query)):
        shown = f"{url.scheme}://{url.netloc.rpartition('@')[2]}{url.path}"
        return Address(
            url.scheme,
            shown,
            username=unquote(url.username) if url.username else None,
            password=unquote(url.password) if url.password else None,
            query=url.query or None,
        )
    names = url.path.strip("/").split("/") if url.path.strip("/") else []
    account_url = f"{url.scheme}://{url.netloc}"
    account_name = None if has_own_name(host) else host.partition(".")[0]
    if is_numeric_host(host):
        if not names:
            raise ValueError("the account is missing: https://ADDRESS/ACCOUNT/CONTAINER")
        account_name = names.pop(0)
        account_url += f"/{account_name}"
    return Address(
        "az",
        f"az://{unquote('/'.join(names))}",
        account_name=account_name,
        account_url=account_url,
        sas_token=url.query or None,
    )


def _with_user(scheme: str, rest: str) -> Address:
    place, slash, path = rest.partition("/")
    user, at, host = place.rpartition("@")
    name, _, password = user.partition(":")
    return Address(
        scheme,
        f"{scheme}://{host}{slash}{path}",
        username=unquote(name) if at else None,
        password=unquote(password) or None,
    )
