"""What an upload leaves beside the files for their receiver: a manifest and a copy of the journal."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from io import TextIOWrapper
from pathlib import Path, PurePosixPath

from chorus_upload.config.settings import Settings
from chorus_upload.errors import (
    CredentialsExpired,
    IntegrityError,
    ObjectExists,
    StorageError,
    StoreFull,
    TlsError,
    TransientError,
)
from chorus_upload.events import Emit, Level, Notice
from chorus_upload.journal import deliveries, submissions
from chorus_upload.journal.database import private_file
from chorus_upload.journal.journal import Journal
from chorus_upload.journal.submissions import Submission
from chorus_upload.operations.central import is_cloud_journal
from chorus_upload.operations.local_files import beside, discard
from chorus_upload.storage.store import Store
from chorus_upload.transfer.evidence import with_fingerprint
from chorus_upload.transfer.publish import hash_file, publish

_MOST_NAMES = 100


def manifest_key(folder: str, submission: str) -> str:
    """Where the manifest of a submission is, in each version folder that it wrote to."""
    return f"{folder}/manifest-{submission}.csv"


def is_proof(name: str, *, journal_name: str) -> bool:
    """Whether an object of that name in a version folder is a manifest or a copy of the journal."""
    if name == journal_name or name.startswith("manifest-"):
        return "/" not in name
    own = PurePosixPath(journal_name)
    return re.fullmatch(rf"{re.escape(own.stem)}-\d{{14}}(-\d+)*{re.escape(own.suffix)}", name) is not None


@dataclass(frozen=True, slots=True)
class Proofs:
    """The keys of the manifests that were left, and the reasons of refusals by version folder."""

    manifests: tuple[str, ...]
    refused: Mapping[str, str]


def leave_proofs(journal: Journal, settings: Settings, submission: Submission, store: Store, *, emit: Emit) -> Proofs:
    """Leave the proof in every version folder that was written to; one that refuses it does not keep it from others.

    What was not taken is told, and left by the next upload as long as the submission is open.
    """
    manifests: list[str] = []
    refused: dict[str, str] = {}
    for folder in submissions.folders_written(journal, submission):
        try:
            manifests.append(_leave_proof(journal, settings, submission, store, folder=folder, emit=emit))
        except (CredentialsExpired, TlsError, StoreFull):
            raise
        except StorageError as error:
            refused[folder] = error.message
            emit(
                Notice(f"{folder}: its manifest or journal copy could not be put there: {error.message}", Level.WARNING)
            )
    return Proofs(tuple(manifests), refused)


def _leave_proof(
    journal: Journal, settings: Settings, submission: Submission, store: Store, *, folder: str, emit: Emit
) -> str:
    """Put the manifest and a copy of the journal into a version folder; gives the manifest's key.

    Where one is there that cannot be replaced (the container keeps everything as it is), the new one gets a name of
    its own, which is told.
    """
    # Names that are always the same: what a killed command leaves is removed by the next.
    manifest, copy = beside(journal.path, "manifest"), beside(journal.path, "copy")
    try:
        discard(copy)
        with TextIOWrapper(private_file(manifest), encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["key", "size", "md5", "evidence", "delivered"])
            for record in deliveries.of_submission(journal, submission, folder=folder):
                when = datetime.fromtimestamp(record.delivered_us / 1e6, tz=UTC).isoformat()
                writer.writerow([record.key, record.size, record.md5.hex(), record.evidence.value, when])
        key = _put(store, manifest_key(folder, submission.label), manifest, emit=emit)
        if not is_cloud_journal(settings, f"{folder}/{settings.journal.cloud_name}"):
            private_file(copy).close()
            journal.copy_to(copy)
            name = PurePosixPath(settings.journal.cloud_name)
            own = f"{name.stem}-{submission.label}{name.suffix}"
            _put(store, f"{folder}/{name}", copy, otherwise=f"{folder}/{own}", emit=emit)
    finally:
        discard(manifest)
        discard(copy)
    return key


def _put(store: Store, key: str, path: Path, *, otherwise: str | None = None, emit: Emit) -> str:
    """Store a file of ours under its key, or beside what cannot be replaced there; gives the key it has."""
    try:
        publish(store, key, path)
    except (CredentialsExpired, TlsError, TransientError, IntegrityError, StoreFull):
        raise
    except StorageError as error:
        refused = error
    else:
        return key
    content = hash_file(path)[0]
    if store.stat(key) is None:
        raise refused
    if with_fingerprint(store, key, content) is not None:
        return key
    place, name = key.rpartition("/")[0], PurePosixPath(otherwise or key)
    for other in (name.name, *(f"{name.stem}-{number}{name.suffix}" for number in range(2, _MOST_NAMES))):
        free = f"{place}/{other}"
        if free == key:
            continue
        with suppress(ObjectExists):
            publish(store, free, path, create_only=True)
            emit(
                Notice(
                    f"{key} cannot be replaced ({refused.message}): it is left, and the new one is {free}",
                    Level.WARNING,
                )
            )
            return free
        if with_fingerprint(store, free, content) is not None:
            return free
    raise refused
