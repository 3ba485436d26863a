"""Sending one body to Azure, so that the service checks every byte of it as it arrives."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypedDict, cast

from azure.storage.blob import BlobBlock, BlobClient, ContentSettings

from chorus_upload.errors import IntegrityError
from chorus_upload.storage.azure_requests import Conditions, Requests, bare_etag, must_be_complete
from chorus_upload.storage.store import Checksum, ComputedBy, Properties, StoredObject

_MOST_BLOCKS = 50_000
_MIB = 1 << 20


class _Answer(TypedDict):
    """What is used of the answer to a write."""

    etag: str
    last_modified: datetime
    content_md5: bytearray | None


@dataclass(frozen=True, slots=True)
class Upload:
    """One write: where to, and under which conditions."""

    requests: Requests
    blob: BlobClient
    key: str
    conditions: Conditions
    properties: Callable[[], Properties]

    def at_once(self, body: bytes) -> StoredObject:
        """Send `body` with one request. Of the checksum in the result the service is the author."""

        def write() -> _Answer:
            return _complete(
                self.blob.upload_blob(
                    body,
                    length=len(body),
                    overwrite=True,  # the conditions say when not to
                    validate_content=True,
                    metadata=dict(self.properties().metadata),
                    **self.conditions.options,
                )
            )

        answer = self.requests.send(f"writing {self.key}", write)
        computed = answer["content_md5"]
        if computed is not None and bytes(computed) != _md5(body):
            raise IntegrityError(f"writing {self.key}: the service reports a checksum that is not the body's")
        checksum = None if computed is None else Checksum(bytes(computed), ComputedBy.SERVICE)
        return self._describe(answer, size=len(body), checksum=checksum)

    def in_blocks(self, blocks: Iterator[bytes], *, size: int) -> StoredObject:
        """Send `blocks` one after the other, then make them the object; nothing is visible before that.

        An exception of `blocks` passes unchanged and leaves blocks behind that nobody sees; the service
        forgets them after a week, or when the object is written after all.
        """
        whole = hashlib.md5(usedforsecurity=False)
        names = []
        for number, block in enumerate(blocks):
            whole.update(block)
            # The name says what is in the block, so that a resumed transfer can tell which are there already.
            # All names of an object have to be of one length.
            name = f"{number:05d}-{_md5(block).hex()}"
            self._stage(name, block)
            names.append(BlobBlock(name))

        def commit() -> _Answer:
            return _complete(
                self.blob.commit_block_list(
                    names,
                    # A convenience for those who download; the service does not check it.
                    content_settings=ContentSettings(content_md5=bytearray(whole.digest())),
                    validate_content=True,
                    metadata=dict(self.properties().metadata),
                    **self.conditions.options,
                )
            )

        answer = self.requests.send(f"writing {self.key}", commit)
        return self._describe(answer, size=size, checksum=Checksum(whole.digest(), ComputedBy.UNKNOWN))

    def _stage(self, name: str, block: bytes) -> None:
        self.requests.send(
            f"writing {self.key}",
            lambda: self.blob.stage_block(name, block, length=len(block), validate_content=True),
        )

    def _describe(self, answer: _Answer, *, size: int, checksum: Checksum | None) -> StoredObject:
        return StoredObject(
            key=self.key,
            size=size,
            etag=bare_etag(answer["etag"]),
            time_us=microseconds(answer["last_modified"]),
            checksum=checksum,
            transit_checked=True,
        )


def _complete(answer: Mapping[str, Any]) -> _Answer:
    must_be_complete(answer.get("etag"), answer.get("last_modified"))
    return cast("_Answer", answer)


def block_size_for(size: int, *, at_least: int) -> int:
    """A block size, in whole MiB if it has to grow, with which `size` bytes fit into one object."""
    needed = -(-size // _MOST_BLOCKS)
    return max(at_least, -(-needed // _MIB) * _MIB) if needed > at_least else at_least


def microseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1_000_000)


def _md5(content: bytes) -> bytes:
    return hashlib.md5(content, usedforsecurity=False).digest()
