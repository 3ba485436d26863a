"""A tar archive as a source: one pass lists it, one pass gives what is pending of it, and nothing is unpacked."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import tarfile
import threading
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO, Self, cast

from chorus_upload.errors import DeletionRefused, ObjectNotFound, StorageError
from chorus_upload.model import Problem, ProblemKind
from chorus_upload.storage import members
from chorus_upload.storage.outer import OpenedFile, Outer, not_listed
from chorus_upload.storage.source import Directory, FileReplaced, FileStat, SmallFile
from chorus_upload.storage.store import Origin
from chorus_upload.storage.tape import Damaged, Tape, mtime_of

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_PIECE = 1 << 20


class TarSource:
    """The members of the tar archive `outer`, below its directory `inner`. See `Source`.

    It is a tape: members are found by going forward, and what lies behind by starting over. So they are best asked
    for one after the other in the order of `walk`; then the tape is read once. Whoever asks while another member is
    being read gets a tape of their own: correct and slow, but nobody ever waits for anybody.

    Members are those of the archive as it was when it was first read: when it is replaced, reading raises
    FileReplaced. Of a name that is there twice the first counts.
    """

    def __init__(self, outer: Outer, inner: str) -> None:
        self._outer = outer
        self._inner = inner
        self._lock = threading.Lock()
        self._opened: OpenedFile | None = None
        self._idle: Tape | None = None
        self._under_way: Counter[tuple[str, FileStat]] = Counter()
        self._damage: str | None = None

    @property
    def url(self) -> str:
        return f"tar://{self._inner}::{self._outer.url}"

    @property
    def service(self) -> str | None:
        return None

    @property
    def is_remote(self) -> bool:
        """Reading a member means reading all that is before it, wherever the archive is."""
        return True

    @property
    def is_sequential(self) -> bool:
        return True

    def walk(self) -> Iterator[Directory]:
        """See `Source.walk`: one pass. What has to be unpacked for that is hashed, too.

        Raises StorageError when the archive is damaged or not complete, and when it is replaced meanwhile.
        """
        found = members.Collector()
        try:
            with self._new_tape() as tape:
                yield from self._members(tape, found)
        except FileReplaced:
            raise StorageError(f"{self.url} was replaced while it was listed", hint="Repeat the command.") from None
        except FileNotFoundError:
            raise self._missing() from None
        except OSError as error:
            raise not_listed(self.url, self._opened, error) from None
        yield from found.rest()
        if found.is_empty and self._inner:
            raise DeletionRefused(
                f"the source {self.url} cannot be listed: nothing in the archive is below {self._inner}",
                hint="Is the path inside the archive right? Nothing was recorded.",
            )

    def _members(self, tape: Tape, found: members.Collector) -> Iterator[Directory]:
        seen: set[int] = set()
        while (member := tape.next()) is not None:
            path = members.path_of(member.name, self._inner)
            if path is None or member.isdir():
                continue
            problem = members.refused(path) or _refused(member, path)
            if problem is None and hash(path) in seen:
                detail = "the archive has several of this name; the first is taken"
                problem = Problem(ProblemKind.INVALID_NAME, path, detail)
            if problem is not None:
                yield from found.problem(problem)
                continue
            # Hashes, because there may be millions: two that are alike by chance are reported, and not lost.
            seen.add(hash(path))
            # The holes of a sparse file may be larger than everything that is in the archive.
            md5 = _md5_of(tape.content(member)) if tape.is_compressed and not member.issparse() else None
            yield from found.file(path, member.size, mtime_of(member), claim=md5)

    def stat(self, path: str) -> FileStat | None:
        """See `Source.stat`. Of what is just being read it is known without a pass."""
        with self._lock:
            known = next((state for name, state in self._under_way if name == path), None)
        if known is not None:
            self._open_outer().require_same()
            return known
        try:
            with self.open(path) as stream:
                return self.open_stat(stream)
        except FileNotFoundError:
            return None

    def read_small(self, path: str, *, size: int) -> SmallFile:
        with self.open(path) as stream:
            data = bytearray()
            while len(data) <= size and (piece := stream.read(size + 1 - len(data))):
                data += piece
            return SmallFile(bytes(data), self.open_stat(stream))

    def origin(self, path: str) -> Origin | None:
        """No service copies it."""
        return None

    def open(self, path: str) -> BinaryIO:
        """See `Source.open`. Damage on the way to the member raises OSError, too."""
        if problem := members.refused(path):
            raise OSError(errno.EINVAL, problem.detail, path)
        if not self._outer.is_remote:
            # A tape may hold what is asked for already. To ask a service each time would be a request for each member.
            self._open_outer().require_same()
        with self._lock:
            if self._damage is not None and self._idle is None:
                # A tape for each of those behind the damage would only get there again.
                raise Damaged(self._damage)
            tape, self._idle = self._idle, None
        found = None
        if tape is not None:
            found = self._find(tape, path)
        if found is None:
            tape = self._new_tape()
            found = self._find(tape, path)
        if found is None or tape is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return cast(BinaryIO, _File(self, tape, found, path))

    def open_stat(self, stream: BinaryIO) -> FileStat:
        return cast(_File, stream).state

    def open_md5(self, stream: BinaryIO) -> bytes | None:
        """Nobody says it."""
        return None

    def close(self) -> None:
        if self._idle is not None:
            self._idle.close()
        if self._opened is not None:
            self._opened.close()
        self._outer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def begin(self, path: str, state: FileStat) -> None:
        """A member is being read from now on."""
        with self._lock:
            self._under_way[path, state] += 1

    def end(self, path: str, state: FileStat, tape: Tape | None) -> None:
        """It is not any more; `tape` can be read on, if it is given."""
        with self._lock:
            self._under_way[path, state] -= 1
            self._under_way += Counter()
            if tape is not None and self._idle is None:
                self._idle, tape = tape, None
        if tape is not None:
            tape.close()

    def _find(self, tape: Tape, path: str) -> tarfile.TarInfo | None:
        """The member of that path, if it is further on; if not, or if there is trouble, the tape is closed."""
        try:
            while (member := tape.next()) is not None:
                if member.isreg() and members.path_of(member.name, self._inner) == path:
                    return member
        except Damaged as damage:
            tape.close()
            with self._lock:
                self._damage = str(damage)
            raise
        except BaseException:
            tape.close()
            raise
        tape.close()
        return None

    def _new_tape(self) -> Tape:
        return Tape(self._open_outer().stream())

    def _open_outer(self) -> OpenedFile:
        with self._lock:
            if self._opened is None:
                try:
                    self._opened = self._outer.open()
                except ObjectNotFound as error:
                    raise FileNotFoundError(errno.ENOENT, error.message, self._outer.url) from None
            return self._opened

    def _missing(self) -> StorageError | DeletionRefused:
        if self._outer.is_remote:
            return ObjectNotFound(f"there is no archive {self._outer.url}")
        return DeletionRefused(
            f"the source {self.url} cannot be listed: there is no such archive",
            hint="Is the path right, and the share mounted? Nothing was recorded.",
        )


class _File(io.RawIOBase):
    """A member that is being read. Its tape is free for others when it is closed."""

    def __init__(self, source: TarSource, tape: Tape, member: tarfile.TarInfo, path: str) -> None:
        super().__init__()
        self.state = FileStat(member.size, mtime_of(member))
        self._source = source
        self._tape: Tape | None = tape
        self._path = path
        self._content = tape.content(member)
        self._is_good = True
        source.begin(path, self.state)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        try:
            return self._content.readinto(buffer)  # type: ignore[attr-defined, no-any-return]
        except BaseException:
            # Where the tape stands now is not known.
            self._is_good = False
            raise

    def close(self) -> None:
        if self._tape is not None:
            tape, self._tape = self._tape, None
            if not self._is_good:
                tape.close()
            self._source.end(self._path, self.state, tape if self._is_good else None)
        super().close()


def _refused(member: tarfile.TarInfo, path: str) -> Problem | None:
    if member.isreg():
        return None
    if member.issym():
        detail = f"a link to {members.shown(member.linkname)}"
    elif member.islnk():
        detail = f"a hard link to {members.shown(member.linkname)}, with which the content is"
    elif member.isfifo():
        detail = "a pipe"
    else:
        detail = "a device" if member.isdev() else "neither a file nor a directory"
    return Problem(ProblemKind.NOT_A_FILE, path, detail)


def _md5_of(content: BinaryIO) -> bytes:
    md5 = hashlib.md5(usedforsecurity=False)
    while piece := content.read(_PIECE):
        md5.update(piece)
    return md5.digest()
