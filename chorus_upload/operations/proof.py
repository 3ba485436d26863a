"""What an upload leaves beside the files for their receiver: a manifest and a copy of the journal."""

from __future__ import annotations

import csv
from datetime import UTC, datetime
from io import TextIOWrapper

from chorus_upload.config.settings import Settings
from chorus_upload.journal import deliveries
from chorus_upload.journal.database import private_file
from chorus_upload.journal.journal import Journal
from chorus_upload.journal.submissions import Submission
from chorus_upload.operations.central import is_cloud_journal
from chorus_upload.operations.local_files import beside, discard
from chorus_upload.storage.store import Store
from chorus_upload.transfer.publish import publish


def manifest_key(folder: str, submission: str) -> str:
    """Where the manifest of a submission is, in each version folder that it wrote to."""
    return f"{folder}/manifest-{submission}.csv"


def leave_proof(journal: Journal, settings: Settings, submission: Submission, store: Store, *, folder: str) -> str:
    """Put the manifest and a copy of the journal into a version folder; gives the manifest's key."""
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
        key = manifest_key(folder, submission.label)
        publish(store, key, manifest)
        if not is_cloud_journal(settings, f"{folder}/{settings.journal.cloud_name}"):
            private_file(copy).close()
            journal.copy_to(copy)
            publish(store, f"{folder}/{settings.journal.cloud_name}", copy)
    finally:
        discard(manifest)
        discard(copy)
    return key
