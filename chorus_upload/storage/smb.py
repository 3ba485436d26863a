"""A directory of a Windows share (SMB 2 and 3), entered with a password, or with Kerberos where that is set up.

Messages are signed, and encrypted where the server asks for it.
"""

from __future__ import annotations

import errno
import ntpath
import os
import stat as modes
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import smbclient
from smbprotocol import exceptions as smb

from chorus_upload.errors import AccessDenied, ObjectNotFound, StorageError, TransientError
from chorus_upload.storage.answers import unresolved
from chorus_upload.storage.share_source import Found, Kind
from chorus_upload.storage.source import FileStat

_PORT = 445
_CONNECT_SECONDS = 60
_DENIED = frozenset({0xC0000022, 0xC000006D, 0xC000006E, 0xC0000071, 0xC0000072, 0xC0000234})
"""NTSTATUS: access denied, and the reasons why a log-in fails."""
_NO_SHARE = 0xC00000CC
_NO_FILE = 0xC000000F
_DIRECTORY = 0x10
# The library raises ValueError when there is nobody to connect to, and others for a response that cannot be.
_BROKEN = (
    *(smb.SMBException, OSError, EOFError, ValueError, ArithmeticError),
    *(LookupError, TypeError, AttributeError, struct.error),
)
_EPOCH, _MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class SmbAccess:
    """Where to connect to and as whom; without a user, as Kerberos says."""

    host: str
    port: int = _PORT
    username: str | None = None
    password: str | None = field(default=None, repr=False)


class SmbShare:
    """The directory `root` of a server: the name of a share and a path in it. See `Share`."""

    def __init__(self, access: SmbAccess, root: str) -> None:
        self._access = access
        self._root = ntpath.join(f"\\\\{access.host}", root.replace("/", "\\")).rstrip("\\")
        self._url = f"smb://{access.host}{'' if access.port == _PORT else f':{access.port}'}/{root}".rstrip("/")
        self._lock = threading.Lock()
        self._cache: dict[str, Any] = {}

    @property
    def url(self) -> str:
        return self._url

    def list(self, path: str) -> list[Found]:
        doing = f"listing {path or self._url}"
        with self._session(doing) as options, smbclient.scandir(self._full(path), **options) as entries:
            return [_listed(each) for each in entries]

    def stat(self, path: str) -> Found:
        with self._session(f"looking at {path}") as options:
            return _described(ntpath.basename(path), smbclient.stat(self._full(path), **options))

    def open(self, path: str) -> _Reading:
        with self._session(f"reading {path}") as options:
            file = smbclient.open_file(self._full(path), "rb", buffering=0, share_access="rwd", **options)
            return _Reading(self, file, path)

    def close(self) -> None:
        with self._lock:
            cache, self._cache = self._cache, {}
        with suppress(Exception):
            smbclient.reset_connection_cache(fail_on_error=False, connection_cache=cache)

    @contextmanager
    def _session(self, doing: str) -> Iterator[dict[str, Any]]:
        """What every call of the library is to be given."""
        access = self._access
        with self.translated(doing):
            options: dict[str, Any] = {
                "username": access.username,
                "password": access.password,
                "port": access.port,
                "connection_timeout": _CONNECT_SECONDS,
            }
            with self._lock:
                options["connection_cache"] = self._cache
                smbclient.register_session(access.host, **options)
            yield options

    @contextmanager
    def translated(self, doing: str) -> Iterator[None]:
        """Only OSErrors of a path and errors of ours leave; after a broken connection a new one will be made."""
        try:
            yield
        except StorageError:
            raise
        except smb.SMBOSError as error:
            failure = self._of_a_path(error, doing)
            if failure is None:
                raise
        except (smb.SMBAuthenticationError, smb.LogonFailure, smb.AccessDenied):
            failure = self._denied(doing)
        except smb.BadNetworkName:
            failure = ObjectNotFound(f"{doing}: the server has no such share")
        except _BROKEN as error:
            failure = unresolved(error, doing=doing) or TransientError(
                f"{doing}: the connection to {self._access.host} failed ({type(error).__name__})"
            )
        else:
            return
        if isinstance(failure, TransientError):
            self.close()
        raise failure

    def _of_a_path(self, error: smb.SMBOSError, doing: str) -> StorageError | None:
        if error.ntstatus == _NO_SHARE:
            return ObjectNotFound(f"{doing}: the server has no such share")
        if error.ntstatus == _NO_FILE:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(error.filename)) from None
        if error.ntstatus in _DENIED and not error.errno:
            raise PermissionError(errno.EACCES, "permission denied", str(error.filename)) from None
        return None

    def _denied(self, doing: str) -> AccessDenied:
        return AccessDenied(
            f"{doing}: the server {self._access.host} does not let us in",
            hint="Put smb://USER:PASSWORD@HOST/SHARE/… into the path.",
        )

    def _full(self, path: str) -> str:
        return f"{self._root}\\{path.replace('/', chr(92))}" if path else self._root


class _Reading:
    """See `share_source.Reading`."""

    def __init__(self, share: SmbShare, file: Any, path: str) -> None:  # noqa: ANN401 - the library has no type for it
        self._share = share
        self._file = file
        self._path = path

    def state(self) -> FileStat:
        return self._share.stat(self._path).state

    def read(self, offset: int, length: int) -> bytes:
        with self._share.translated(f"reading {self._path}"):
            self._file.seek(offset)
            data = bytearray()
            while len(data) < length and (piece := self._file.read(length - len(data))):
                data += piece
            return bytes(data)

    def close(self) -> None:
        with suppress(Exception):
            self._file.close()


def _listed(entry: Any) -> Found:  # noqa: ANN401 - the library has no type for it
    """A name in a listing, by what came with it: the library would ask for more elsewhere, at the usual port."""
    info = entry.smb_info
    moment = info.last_write_time
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    state = FileStat.told(info.end_of_file, (moment - _EPOCH) // _MICROSECOND)
    if entry.is_symlink():
        return Found(entry.name, Kind.LINK, state)
    return Found(entry.name, Kind.DIRECTORY if info.file_attributes & _DIRECTORY else Kind.FILE, state)


def _described(name: str, status: Any) -> Found:  # noqa: ANN401 - the library has no type for it
    mode = status.st_mode
    kind = Kind.FILE if modes.S_ISREG(mode) else Kind.DIRECTORY if modes.S_ISDIR(mode) else Kind.OTHER
    return Found(name, kind, FileStat.told(status.st_size, status.st_mtime_ns // 1000))
