"""What S3 says of the parts of an object, and how far it proves something."""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from collections.abc import Mapping
from typing import Any, NamedTuple

from chorus_upload.storage.s3_client import bare

_MD5 = re.compile(r"[0-9a-f]{32}")


class Part(NamedTuple):
    """One part that the service has; `spared` when it had not to be sent."""

    number: int
    etag: str
    size: int
    spared: bool


def computed_md5(answer: Mapping[str, Any]) -> bytes | None:
    """The MD5 that the service computed over what one request brought; None if its etag is something else."""
    etag = bare(str(answer.get("ETag") or ""))
    is_encrypted = str(answer.get("ServerSideEncryption") or "").startswith("aws:") or "SSECustomerAlgorithm" in answer
    return bytes.fromhex(etag) if _MD5.fullmatch(etag) and not is_encrypted else None


def etag_of(parts: list[Part]) -> str | None:
    """The etag of the object that is made of these parts; None if it does not follow from theirs."""
    if not all(_MD5.fullmatch(part.etag) for part in parts):
        return None
    return f"{md5_of(b''.join(bytes.fromhex(part.etag) for part in parts)).hex()}-{len(parts)}"


def md5_of(content: bytes | memoryview) -> bytes:
    """As a checksum, not for security."""
    return hashlib.md5(content, usedforsecurity=False).digest()


def base64_of(md5: bytes) -> str:
    """As a Content-MD5."""
    return b64encode(md5).decode()
