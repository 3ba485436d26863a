"""What S3 says of objects and their parts, and how far it proves something."""

from __future__ import annotations

import hashlib
import re
import time
from base64 import b64encode
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from chorus_upload.errors import TransientError
from chorus_upload.storage.answers import broken_off, moment_in
from chorus_upload.storage.curl import Answer
from chorus_upload.storage.s3_client import bare, microseconds

_MD5 = re.compile(r"[0-9a-f]{32}")


class Part(NamedTuple):
    """One part that the service has; `spared` when it had not to be sent.

    `sha256` is what the service was told of it, in base64, and `is_proven` whether it says the checksum of what it has.
    """

    number: int
    etag: str
    size: int
    spared: bool = False
    sha256: str | None = None
    is_proven: bool = True


@dataclass(slots=True)
class Checksums:
    """Which checksum of what it receives the service says: its etag, or, where that is no MD5, a SHA-256 that is sent.

    It is asked for that only then (`are_asked`): many services that are like Amazon's do not know it.
    """

    are_asked: bool = False


SHA256 = "x-amz-checksum-sha256"


def is_encrypted(answer: Mapping[str, Any]) -> bool:
    """Whether it is about an object whose etag is no MD5, because a key of KMS, or of ours, encrypts it."""
    return str(answer.get("ServerSideEncryption") or "").startswith("aws:") or "SSECustomerAlgorithm" in answer


def computed_md5(answer: Mapping[str, Any]) -> bytes | None:
    """The MD5 that the service computed over what one request brought; None if its etag is something else."""
    etag = bare(str(answer.get("ETag") or ""))
    return bytes.fromhex(etag) if _MD5.fullmatch(etag) and not is_encrypted(answer) else None


def computed_md5_in(answer: Answer) -> bytes | None:
    """The same for an answer of our own request."""
    return computed_md5({"ETag": answer.headers.get("etag"), **encryption_in(answer)})


def encryption_in(answer: Answer) -> dict[str, Any]:
    """What an answer of our own request says of encryption, as the library says it."""
    said: dict[str, Any] = {"ServerSideEncryption": answer.headers.get("x-amz-server-side-encryption", "")}
    if "x-amz-server-side-encryption-customer-algorithm" in answer.headers:
        said["SSECustomerAlgorithm"] = ""
    return said


def etag_in(answer: Answer) -> str:
    """The etag that an answer has. TransientError when it has none."""
    said = answer.headers.get("etag")
    if not said:
        raise broken_off()
    return bare(said)


def time_in(answer: Answer) -> int:
    """When the service says that it answered, microseconds UTC: to a write it does not say the object's time."""
    return moment_of(answer.headers.get("date"))


def moment_of(date: str | None) -> int:
    """What a header says, microseconds UTC; now, if it says nothing that can be understood."""
    with suppress(TransientError):
        return _moment(date)
    return time.time_ns() // 1000


@lru_cache(maxsize=16)
def _moment(header: str | None) -> int:
    """Cached because it is the same second for very many small files."""
    return microseconds(moment_in(header))


def etag_of(parts: list[Part]) -> str | None:
    """The etag of the object that is made of these parts; None if it does not follow from theirs."""
    if not all(_MD5.fullmatch(part.etag) for part in parts):
        return None
    return f"{md5_of(b''.join(bytes.fromhex(part.etag) for part in parts)).hex()}-{len(parts)}"


def md5_of(content: bytes | memoryview) -> bytes:
    """As a checksum, not for security."""
    return hashlib.md5(content, usedforsecurity=False).digest()


def sha256_of(content: bytes | memoryview) -> str:
    """The SHA-256, as the service says it."""
    return base64_of(hashlib.sha256(content).digest())


def base64_of(checksum: bytes) -> str:
    """As headers have it."""
    return b64encode(checksum).decode()
