"""Archives, declared inside the test that uses them, the hostile ones too."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import time
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from backports import zstd

from tests.trees import Bytes, bytes_of

SPRING = 1_740_000_000
"""The time of members that have no other."""

COMPRESSIONS = ("", "gz", "bz2", "xz", "zst")


@dataclass(frozen=True, slots=True)
class Member:
    """A member that is out of the ordinary. `type` is one of tarfile's; `mtime` is seconds."""

    name: str
    content: bytes = b""
    type: bytes = tarfile.REGTYPE
    link: str = ""
    mtime: float = SPRING


Content = str | bytes | Bytes


def members_of(tree: Mapping[str, Content], *, mtime: float = SPRING) -> list[Member]:
    """The files of a tree, as `trees.build` would write them."""
    return [Member(name, bytes_of(name, content), mtime=mtime) for name, content in tree.items()]


def tar(members: Iterable[Member], *, compression: str = "") -> bytes:
    """A tar archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for member in members:
            info = tarfile.TarInfo(member.name)
            info.size, info.type, info.linkname, info.mtime = (
                len(member.content),
                member.type,
                member.link,
                member.mtime,
            )
            archive.addfile(info, io.BytesIO(member.content))
    return compressed(buffer.getvalue(), compression)


def compressed(data: bytes, compression: str) -> bytes:
    """`data`, compressed like that."""
    match compression:
        case "gz":
            return gzip.compress(data, mtime=0)
        case "bz2":
            return bz2.compress(data)
        case "xz":
            return lzma.compress(data)
        case "zst":
            # As its program does it; without that, damage need not show.
            return zstd.compress(data, options={zstd.CompressionParameter.checksum_flag: 1})
    return data


def zipped(members: Iterable[Member], *, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip archive, without more about times than DOS knew."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for member in members:
            info = zipfile.ZipInfo(member.name, time.gmtime(member.mtime)[:6])
            info.compress_type = method
            archive.writestr(info, member.content)
    return buffer.getvalue()


def put(path: Path, data: bytes) -> Path:
    """Write an archive in the place of an older one, as a move of a finished file does."""
    fresh = path.with_name(f"{path.name}.new")
    fresh.write_bytes(data)
    return fresh.replace(path)
