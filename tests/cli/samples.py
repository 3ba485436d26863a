"""One event of every kind, with names that try to break whatever shows them."""

from __future__ import annotations

from chorus_upload.events import (
    CredentialsAwaited,
    DownloadFinished,
    DownloadPlanned,
    DownloadProgressed,
    EndedEarly,
    Event,
    ExtraFile,
    ExtraFiles,
    FileDelivered,
    FileDownloaded,
    FileFailed,
    FileNotDownloaded,
    FileOutsidePatterns,
    FilePlanned,
    FilesMarked,
    FileVerified,
    JournalCheckedIn,
    JournalCheckedOut,
    JournalUpgraded,
    Level,
    ModalityUpdate,
    Notice,
    PlaceResponds,
    PlaceSilent,
    ProblemFound,
    ReadProgressed,
    RemoteDeleted,
    RemoteUploaded,
    RequestsFail,
    ScanProgressed,
    ScriptWritten,
    Tally,
    UpdateFinished,
    UpgradedPart,
    UpgradeRemark,
    UploadFinished,
    UploadPlanned,
    UploadProgressed,
    VerifyFinished,
    VerifyProgressed,
    VerifyResult,
)
from chorus_upload.model import Evidence, FailureKind, JournalingMode, Problem, ProblemKind, RetrievalFailure

HOSTILE = "1001/Images/[red]Größe-患者\x1b[2J\n\u202egpj.\udcff.dcm"
GIB = 1024**3

UPDATE = UpdateFinished(
    version="20260301120000",
    mode=JournalingMode.FULL,
    resumed=True,
    modalities={
        "OMOP": ModalityUpdate(added=Tally(12, 3 * GIB), unchanged=Tally(100, GIB)),
        "Images": ModalityUpdate(modified=Tally(1, 512), retired=Tally(2, 1024), unreadable=1),
    },
    outside={"/data/site": Tally(7, 2048)},
    problems=3,
    pending=Tally(13, 3 * GIB),
    seconds=200.4,
)
UPLOAD = UploadFinished(
    submission="20260301130000",
    destination="az://central/site-01",
    delivered=Tally(1_234, 5 * GIB),
    already_there=Tally(2, 10),
    failed=1,
    remaining=Tally(1, 512),
    evidence={Evidence.SERVER: 1_200, Evidence.TRANSIT: 36},
    manifests=("20260301120000/manifest.csv",),
    seconds=100.0,
)
VERIFY = VerifyFinished(
    versions=("20260301120000",),
    destination="az://central/site-01",
    results={VerifyResult.MATCHED: 99, VerifyResult.MISSING: 1},
    pending=Tally(4, 4096),
    seconds=3.2,
    evidence={Evidence.SERVER: 89, Evidence.READBACK: 10},
    read_back=Tally(11, 2 * GIB),
    sample="10%",
    seed=4711,
    unchecked=("20260101120000",),
    pending_versions=("20260401120000",),
)
DOWNLOAD = DownloadFinished(
    version="20260301120000",
    origin="az://central/site-01",
    target="/data/restored",
    fetched=Tally(1_200, 5 * GIB),
    was_there=Tally(36, GIB),
    failures={RetrievalFailure.TAKEN: 1},
    seconds=100.0,
    extra=ExtraFiles(12, ("a\nb", "c"), why_kept="files of the version are missing"),
)

EVENTS: tuple[Event, ...] = (
    Notice("two\nlines"),
    Notice("take care", Level.WARNING),
    EndedEarly("fetched", Tally(1, 2), Tally(3, 4), 1),
    PlaceSilent(
        f"host.example ({HOSTILE})", 5.2, f"no such {HOSTILE}\n<html>", 1_767_225_600_000_000, "path and proxy"
    ),
    RequestsFail(f"host.example ({HOSTILE})", 2, 7.0, f"no {HOSTILE}\n<html>", 1_767_225_600_000_000),
    RequestsFail(f"host.example ({HOSTILE})", 0, 0.0, "", 0),
    CredentialsAwaited(
        f"host.example ({HOSTILE})", f"expired {HOSTILE}", 1_767_225_600_000_000, ("/etc/a.toml", HOSTILE)
    ),
    PlaceResponds(f"host.example ({HOSTILE})", 65.0),
    ScanProgressed(root="/data/site", directories=12, files=3_456),
    ReadProgressed(files=1, files_total=3, bytes=512, bytes_total=GIB, path=HOSTILE),
    ProblemFound(
        Problem(ProblemKind.UNREADABLE_FILE, HOSTILE, "permission denied"), root="/data/site", modality="Images"
    ),
    FileOutsidePatterns(path=HOSTILE, root="/data/site"),
    UPDATE,
    UploadPlanned(submission="20260301130000", destination="az://central/site-01", pending=Tally(1_237, 5 * GIB)),
    FilePlanned(path=HOSTILE, key=f"20260301120000/{HOSTILE}", modality="Images", size=5_000),
    UploadProgressed(
        files=10, files_total=1_237, bytes=GIB, bytes_total=5 * GIB, current=(HOSTILE, *("a", "b", "c", "d", "e"))
    ),
    FileDelivered(
        path=HOSTILE, key=HOSTILE, modality="Images", size=5_000, evidence=Evidence.SERVER, seconds=0.1, sent=True
    ),
    FileFailed(path=HOSTILE, key=HOSTILE, modality="Images", kind=FailureKind.CHANGED, detail="the size is another"),
    UPLOAD,
    FileVerified(key=HOSTILE, result=VerifyResult.MISSING, detail="", path=HOSTILE, modality="Images"),
    FileVerified(
        key=HOSTILE,
        result=VerifyResult.MATCHED,
        detail=HOSTILE,
        path=HOSTILE,
        modality="Images",
        evidence=Evidence.READBACK,
        version="20260301120000",
        size=5_000,
        fingerprint=bytes(16),
        md5=bytes(16),
        etag="0x8DC",
    ),
    VerifyProgressed(objects=10_000),
    VerifyProgressed(
        objects=10_000, files=3, files_total=1_200, bytes=GIB, bytes_total=5 * GIB, current=(HOSTILE, "a", "b")
    ),
    VERIFY,
    DownloadPlanned("20260301120000", "az://central/site-01", f"/data/{HOSTILE}", Tally(1_237, 6 * GIB)),
    DownloadProgressed(files=10, files_total=1_237, bytes=GIB, bytes_total=6 * GIB, current=(HOSTILE, "a")),
    FileDownloaded(HOSTILE, "Images", key=HOSTILE, size=5_000, fetched=5_000, was_there=False),
    ExtraFile(HOSTILE, removed=False, detail=HOSTILE),
    ExtraFile(HOSTILE, removed=True),
    FileNotDownloaded(HOSTILE, "Images", key=None, kind=RetrievalFailure.TAKEN, detail=HOSTILE),
    DOWNLOAD,
    RemoteUploaded("az://central/site-01", sent=Tally(3, GIB), already_there=Tally(1, 5), failed=1, seconds=1.0),
    RemoteDeleted("az://central/site-01", deleted=Tally(3, GIB), refused={HOSTILE: HOSTILE}),
    FilesMarked(what="deleted", marked=3, refused={HOSTILE: "not in the journal"}),
    ScriptWritten(paths=("upload.bat", "upload.bat.files"), files=3, bytes=GIB),
    JournalCheckedOut(cloud="az://central/journal.db", local="/data/journal.db", created=False, resumed=False),
    JournalCheckedIn(cloud="az://central/journal.db", local="/data/journal.db", unchanged=False),
    JournalUpgraded(
        journal="az://central/journal.db",
        in_cloud=True,
        original="az://central/journal.db.20260228170000",
        generation="v1",
        parts=(
            UpgradedPart(
                version="20240101000000",
                modality="Images",
                rows=1_300,
                files=Tally(1_234, 5 * GIB),
                active=Tally(1_200, 4 * GIB),
                uploaded=1_230,
                pending=Tally(4, 4096),
            ),
        ),
        submissions=2,
        commands=7,
        omitted=1,
        remarks=(UpgradeRemark("a file was active twice: the older row is retired", 6, (HOSTILE, HOSTILE)),),
        destination="az://central/site-01",
        sent_to=("az://central/site-01/",),
        is_new_destination=False,
        seconds=3.2,
    ),
)
