"""A directory that is reached by SFTP. The host has to be a known one: its key is never taken on trust.

Who logs in shows a password, or the usual keys of the user: those of the agent and those in `~/.ssh`. A connection has
some channels, each for one request at a time, since a server gives out no more than ten.
"""

from __future__ import annotations

import itertools
import posixpath
import socket
import stat as modes
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import paramiko

from chorus_upload.errors import AccessDenied, StorageError, TlsError, TransientError
from chorus_upload.storage.answers import unresolved
from chorus_upload.storage.share_source import Found, Kind
from chorus_upload.storage.source import FileStat

_SYSTEM_HOSTS = Path("/etc/ssh/ssh_known_hosts")
_PORT = 22
_CONNECT_SECONDS = 60
_SILENCE_SECONDS = 180
_CHANNELS = 8
# The library asks for an eighth of that, and waits for the line each time; that it can ask ahead is of no use, since it
# does so in threads that nobody can catch when the connection breaks. A server may always give less.
_REQUEST = 255 << 10
_NO_WAY_IN = "No authentication methods available"
_BROKEN = (ConnectionError, TimeoutError, socket.gaierror, paramiko.ssh_exception.NoValidConnectionsError)


@dataclass(frozen=True, slots=True)
class SftpAccess:
    """Where to connect to and as whom; without a user, as the one of this machine."""

    host: str
    port: int = _PORT
    username: str | None = None
    password: str | None = field(default=None, repr=False)


class _UnknownHost(paramiko.SSHException):
    """Nobody has said which key the host has."""


class _Refuse(paramiko.MissingHostKeyPolicy):
    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        raise _UnknownHost(f"{key.get_name()} {key.fingerprint}")


class _Channel:
    """One request at a time."""

    def __init__(self, client: paramiko.SFTPClient) -> None:
        self.client = client
        self.lock = threading.Lock()


class _Connection:
    """A connection, and the channels that were opened in it so far."""

    def __init__(self, access: SftpAccess) -> None:
        self._client = _connect(access)
        self._channels: list[_Channel] = []
        self._lock = threading.Lock()
        self._next = itertools.count()

    def channel(self) -> _Channel:
        with self._lock:
            if len(self._channels) < _CHANNELS:
                client = self._client.open_sftp()
                channel = client.get_channel()
                if channel is not None:
                    channel.settimeout(_SILENCE_SECONDS)
                self._channels.append(_Channel(client))
                return self._channels[-1]
            return self._channels[next(self._next) % _CHANNELS]

    def close(self) -> None:
        with suppress(Exception):
            self._client.close()


class SftpShare:
    """The directory `root` of a server. See `Share`."""

    def __init__(self, access: SftpAccess, root: str) -> None:
        self._access = access
        # Relative to where the log-in leads, as with scp.
        self._root = root[3:] or "." if root.startswith("/~/") else root or "/"
        self._url = f"sftp://{access.host}{'' if access.port == _PORT else f':{access.port}'}{root}".rstrip("/")
        self._lock = threading.Lock()
        self._connection: _Connection | None = None

    @property
    def url(self) -> str:
        return self._url

    def list(self, path: str) -> list[Found]:
        full = self._full(path)
        with self._channel(f"listing {path or self._url}") as channel:
            found = [(each.filename, each) for each in channel.client.listdir_attr(full)]
            return [self._found(channel, posixpath.join(full, name), name, each) for name, each in found]

    def stat(self, path: str) -> Found:
        with self._channel(f"looking at {path}") as channel:
            return _described(posixpath.basename(path), channel.client.stat(self._full(path)))

    def open(self, path: str) -> _Reading:
        with self._channel(f"reading {path}") as channel:
            file = channel.client.open(self._full(path), "rb")
            file.MAX_REQUEST_SIZE = _REQUEST
            return _Reading(self, channel, file, path)

    def close(self) -> None:
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    @contextmanager
    def _channel(self, doing: str) -> Iterator[_Channel]:
        with self.translated(doing):
            with self._lock:
                if self._connection is None:
                    self._connection = _Connection(self._access)
                connection = self._connection
            channel = connection.channel()
            with channel.lock:
                yield channel

    @contextmanager
    def translated(self, doing: str) -> Iterator[None]:
        """Only OSErrors of a path and errors of ours leave; after a broken connection a new one will be made."""
        try:
            yield
        except StorageError:
            raise
        except _UnknownHost as error:
            failure: StorageError = TlsError(
                f"the host {self._access.host} is not a known one; the key that it shows is {error}",
                hint="Compare that with what its administrator says, and let ssh write it into ~/.ssh/known_hosts.",
            )
        except paramiko.BadHostKeyException:
            failure = TlsError(
                f"the host {self._access.host} shows another key than the known one",
                hint="Ask its administrator why; somebody may be listening. The known one is in ~/.ssh/known_hosts.",
            )
        except paramiko.AuthenticationException as error:
            failure = self._denied(str(error))
        except OSError as error:
            # Of a path the server says what is the matter by a number; a time-out is of the connection.
            if error.errno is not None and not isinstance(error, _BROKEN):
                raise
            failure = unresolved(error, doing=doing) or TransientError(
                f"{doing}: {error.strerror or str(error) or 'the connection broke'}"
            )
        except UnicodeError as error:
            failure = unresolved(error, doing=doing) or TransientError(doing)
        except (paramiko.SSHException, EOFError) as error:
            failure = (
                self._denied(_NO_WAY_IN)
                if str(error) == _NO_WAY_IN
                else TransientError(f"{doing}: {str(error) or 'the connection broke'}")
            )
        except (ValueError, ArithmeticError, LookupError, TypeError, AttributeError, struct.error) as error:
            failure = TransientError(f"{doing}: the response cannot be read ({type(error).__name__})")
        else:
            return
        if isinstance(failure, TransientError):
            self.close()
        raise failure

    def _denied(self, reason: str) -> AccessDenied:
        return AccessDenied(
            f"the host {self._access.host} does not let us in: {reason}",
            hint="Put sftp://USER@HOST/… or sftp://USER:PASSWORD@HOST/… into the path, or load a key: ssh-add.",
        )

    def _found(self, channel: _Channel, full: str, name: str, attributes: paramiko.SFTPAttributes) -> Found:
        if not modes.S_ISLNK(attributes.st_mode or 0):
            return _described(name, attributes)
        try:
            behind = _described(name, channel.client.stat(full))
        except FileNotFoundError:
            return Found(name, Kind.DEAD_LINK, FileStat(0, 0))
        if behind.kind is Kind.DIRECTORY:
            return Found(name, Kind.LINKED_DIRECTORY, behind.state)
        root, target = channel.client.normalize(self._root), channel.client.normalize(full)
        if behind.kind is Kind.FILE and not target.startswith(root.rstrip("/") + "/"):
            return Found(name, Kind.OUTSIDE, behind.state)
        return behind

    def _full(self, path: str) -> str:
        return posixpath.join(self._root, path) if path else self._root


class _Reading:
    """See `share_source.Reading`."""

    def __init__(self, share: SftpShare, channel: _Channel, file: paramiko.SFTPFile, path: str) -> None:
        self._share = share
        self._channel = channel
        self._file = file
        self._doing = f"reading {path}"

    def state(self) -> FileStat:
        with self._share.translated(self._doing), self._channel.lock:
            return _described("", self._file.stat()).state

    def read(self, offset: int, length: int) -> bytes:
        with self._share.translated(self._doing), self._channel.lock:
            self._file.seek(offset)
            return self._file.read(length)

    def close(self) -> None:
        with suppress(Exception), self._channel.lock:
            self._file.close()


def _described(name: str, attributes: paramiko.SFTPAttributes) -> Found:
    mode = attributes.st_mode or 0
    kind = Kind.FILE if modes.S_ISREG(mode) else Kind.DIRECTORY if modes.S_ISDIR(mode) else Kind.OTHER
    return Found(name, kind, FileStat.told(attributes.st_size or 0, (attributes.st_mtime or 0) * 1_000_000))


def _connect(access: SftpAccess) -> paramiko.SSHClient:
    client = paramiko.SSHClient()
    try:
        client.load_system_host_keys()
        if _SYSTEM_HOSTS.exists():
            client.load_system_host_keys(str(_SYSTEM_HOSTS))
        client.set_missing_host_key_policy(_Refuse())
        client.connect(
            access.host,
            access.port,
            username=access.username,
            password=access.password,
            timeout=_CONNECT_SECONDS,
            banner_timeout=_CONNECT_SECONDS,
            auth_timeout=_CONNECT_SECONDS,
            channel_timeout=_CONNECT_SECONDS,
        )
    except BaseException:
        client.close()
        raise
    return client
