"""What a key may look like, everywhere and in front of every store."""

from __future__ import annotations

from chorus_upload.errors import StorageError

LEFTOVER_PREFIX = ".chorus-upload-"
"""Names that begin like this belong to the stores themselves (unfinished files, guards): never objects."""

_LONGEST = 4_096
_SHOWN = 100


def check_key(key: str) -> str:
    """Return `key` if it is one that a store may be asked for, and raise StorageError otherwise.

    A key is a non-empty POSIX path without a leading slash and without `.`, `..` or empty parts; that is
    what keeps it below the prefix of its store. It has to be text that can be written down as UTF-8.
    """
    if len(key) > _LONGEST:
        raise StorageError(f"{key[:_SHOWN]!r}... is not a key: it is longer than any path")
    parts = key.split("/")
    if "" in parts or "." in parts or ".." in parts:
        raise StorageError(f"{key!r} is not a key: it is empty, or has an empty part, '.' or '..'")
    if not is_text(key):
        raise StorageError(f"{key!r} is not a key: it holds bytes that are not UTF-8")
    if "\0" in key:
        raise StorageError(f"{key!r} is not a key: it holds a NUL character")
    return key


def is_text(name: str) -> bool:
    """Whether `name` can be written as UTF-8; a name from a file system may hold bytes that are none."""
    if name.isascii():
        return True
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def join_key(prefix: str, key: str) -> str:
    """`key` below `prefix`, where an empty prefix is no prefix."""
    return f"{prefix}/{key}" if prefix else key


def clean_prefix(prefix: str) -> str:
    """The prefix at which a store is opened, without slashes around it; StorageError when it cannot be one."""
    trimmed = prefix.strip("/")
    return check_key(trimmed) if trimmed else ""
