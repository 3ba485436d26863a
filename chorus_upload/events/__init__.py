"""What operations tell the world while they work: frozen values, sent to one `emit` function.

The terminal, the JSON lines and the tests are all sinks of these same events, so they cannot drift apart.
An operation emits from one thread only; the keeper of the lock, beside it, from its own, and any thread that a place
keeps silent or responds again. Progress events are sent a few times a second at most; every other event is sent once
for each thing that it names.
"""

from __future__ import annotations

from collections.abc import Callable

from chorus_upload.events.common import EndedEarly, Level, Notice, Tally
from chorus_upload.events.custody import (
    JournalCheckedIn,
    JournalCheckedOut,
    JournalUpgraded,
    UpgradedPart,
    UpgradeRemark,
)
from chorus_upload.events.download import (
    DownloadFinished,
    DownloadPlanned,
    DownloadProgressed,
    ExtraFile,
    ExtraFiles,
    FileDownloaded,
    FileNotDownloaded,
)
from chorus_upload.events.remote import RemoteDeleted, RemoteUploaded
from chorus_upload.events.update import (
    FileOutsidePatterns,
    ModalityUpdate,
    ProblemFound,
    ReadProgressed,
    ScanProgressed,
    UpdateFinished,
)
from chorus_upload.events.upload import (
    FileDelivered,
    FileFailed,
    FilePlanned,
    FilesMarked,
    ScriptWritten,
    UploadFinished,
    UploadPlanned,
    UploadProgressed,
)
from chorus_upload.events.verify import FileVerified, VerifyFinished, VerifyProgressed, VerifyResult
from chorus_upload.model import CredentialsAwaited, PlaceResponds, PlaceSilent, RequestsFail

__all__ = [
    "CredentialsAwaited",
    "DownloadFinished",
    "DownloadPlanned",
    "DownloadProgressed",
    "Emit",
    "EndedEarly",
    "Event",
    "ExtraFile",
    "ExtraFiles",
    "FileDelivered",
    "FileDownloaded",
    "FileFailed",
    "FileNotDownloaded",
    "FileOutsidePatterns",
    "FilePlanned",
    "FileVerified",
    "FilesMarked",
    "JournalCheckedIn",
    "JournalCheckedOut",
    "JournalUpgraded",
    "Level",
    "ModalityUpdate",
    "Notice",
    "PlaceResponds",
    "PlaceSilent",
    "ProblemFound",
    "ReadProgressed",
    "RemoteDeleted",
    "RemoteUploaded",
    "RequestsFail",
    "ScanProgressed",
    "ScriptWritten",
    "Tally",
    "UpdateFinished",
    "UpgradeRemark",
    "UpgradedPart",
    "UploadFinished",
    "UploadPlanned",
    "UploadProgressed",
    "VerifyFinished",
    "VerifyProgressed",
    "VerifyResult",
]

Event = (
    Notice
    | EndedEarly
    | PlaceSilent
    | RequestsFail
    | PlaceResponds
    | CredentialsAwaited
    | ScanProgressed
    | ReadProgressed
    | ProblemFound
    | FileOutsidePatterns
    | UpdateFinished
    | UploadPlanned
    | FilePlanned
    | UploadProgressed
    | FileDelivered
    | FileFailed
    | UploadFinished
    | FileVerified
    | VerifyProgressed
    | VerifyFinished
    | DownloadPlanned
    | DownloadProgressed
    | FileDownloaded
    | FileNotDownloaded
    | ExtraFile
    | DownloadFinished
    | RemoteUploaded
    | RemoteDeleted
    | FilesMarked
    | ScriptWritten
    | JournalCheckedOut
    | JournalCheckedIn
    | JournalUpgraded
)

Emit = Callable[[Event], None]
