"""What a person reads: in a log file, and (the same sentences) on a terminal."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chorus_upload.cli.render.formats import local_time
from chorus_upload.cli.render.human import HumanSink
from chorus_upload.cli.render.listings import history_report, versions_report
from chorus_upload.cli.render.plain import plain_sink
from chorus_upload.cli.render.progress import NoProgress, ProgressLines
from chorus_upload.cli.render.sink import Failure
from chorus_upload.cli.render.stream import Stream
from chorus_upload.cli.render.tables import Column, Row, Table, plain_table
from chorus_upload.events import (
    FileFailed,
    FilesMarked,
    FileVerified,
    JournalCheckedOut,
    ModalityUpdate,
    PlaceResponds,
    PlaceSilent,
    ProblemFound,
    Tally,
    UploadFinished,
    UploadProgressed,
    VerifyFinished,
    VerifyProgressed,
    VerifyResult,
)
from chorus_upload.model import (
    CommandRecord,
    Evidence,
    FailureKind,
    JournalingMode,
    Problem,
    ProblemKind,
    VersionSummary,
)
from tests.cli.samples import EVENTS, GIB, UPDATE, UPLOAD, VERIFY
from tests.cli.streams import Pretended


class Screen:
    """A plain sink and what it wrote."""

    def __init__(self, *, encoding: str = "utf-8", quiet: bool = False, verbose: bool = False) -> None:
        self._out, self._err = Pretended(encoding=encoding), Pretended(encoding=encoding)
        self.sink = plain_sink(out=Stream(self._out), err=Stream(self._err), quiet=quiet, verbose=verbose)

    @property
    def out(self) -> str:
        return self._out.shown

    @property
    def err(self) -> str:
        return self._err.shown


@pytest.mark.parametrize("encoding", ["ascii", "cp437", "utf-8"])
@pytest.mark.parametrize("quiet", [False, True])
def test_every_event_can_be_shown_everywhere(encoding: str, quiet: bool) -> None:  # noqa: FBT001
    screen = Screen(encoding=encoding, quiet=quiet, verbose=True)

    for event in EVENTS:
        screen.sink.emit(event)
    screen.sink.close()

    assert "\x1b" not in screen.out + screen.err
    assert r"\x1b[2J\n\u202egpj" in screen.out


SILENT = PlaceSilent(
    "acct.blob.core.windows.net (az://c/data)",
    7.0,
    "listing …: Could not resolve host\n<html>",
    1_767_225_600_000_000,
    "azure_account_name, azure_account_url, endpoint_ip and proxy",
)


@pytest.mark.parametrize("quiet", [False, True])
def test_a_place_that_keeps_silent(*, quiet: bool) -> None:
    """What it is, why, until when it is tried, and where to look; on standard error, also for whoever wants quiet."""
    screen = Screen(quiet=quiet)

    screen.sink.emit(SILENT)
    screen.sink.emit(PlaceResponds(SILENT.place, 43))

    silent, *responds = screen.err.splitlines()
    assert silent.startswith(
        "warning: acct.blob.core.windows.net (az://c/data) has not responded for 7.0 s: listing …: Could not resolve"
        f" host. It is tried again until {local_time(SILENT.until_us or 0)}; look at azure_account_name,"
        " azure_account_url, endpoint_ip and proxy in the configuration"
    )
    assert "retry_seconds" in silent
    assert responds == ([] if quiet else ["acct.blob.core.windows.net (az://c/data) responds again after 43 s"])
    assert screen.out == ""


def test_a_place_of_which_no_request_has_failed_yet() -> None:
    screen = Screen()

    screen.sink.emit(replace(SILENT, until_us=None))

    assert "It is tried again when the request fails; look at azure_account_name" in screen.err


def test_an_update() -> None:
    screen = Screen()

    screen.sink.emit(UPDATE)

    assert screen.out == (
        "Version 20260301120000 (full mode, continued after an interruption)\n"
        "\n"
        "Modality  What           Files      Size\n"
        "--------  -------------  -----  --------\n"
        "OMOP      added             12  3.00 GiB\n"
        "          unchanged        100  1.00 GiB\n"
        "Images    modified           1     512 B\n"
        "          retired            2  1.00 KiB\n"
        "          not journaled      1\n"
        "All       added             12  3.00 GiB\n"
        "          modified           1     512 B\n"
        "          retired            2  1.00 KiB\n"
        "          unchanged        100  1.00 GiB\n"
        "          not journaled      1\n"
        "\n"
        "Outside every pattern below /data/site: 7 files, 2.00 KiB (--list-outside names them).\n"
        "To upload: 13 files, 3.00 GiB.\n"
        "Took 3 min 20 s.\n"
    )
    assert screen.err == "warning: 3 problems in the sources, named above.\nNext: chorus-upload file upload\n"


def test_an_update_that_finds_nothing() -> None:
    screen = Screen()
    unchanged = {"OMOP": ModalityUpdate(unchanged=Tally(5, 10))}

    screen.sink.emit(replace(UPDATE, resumed=False, modalities=unchanged, outside={}, problems=0, pending=Tally()))

    assert "Nothing has changed since the last update." in screen.out
    assert screen.err == ""


def test_an_upload() -> None:
    screen = Screen()

    screen.sink.emit(UPLOAD)

    assert "Submission 20260301130000 to az://central/site-01\n" in screen.out
    assert "delivered        1,234  5.00 GiB\n" in screen.out
    assert "Proven by: server 1,200, transit 36.\n" in screen.out
    assert "Took 1 min 40 s, 51.2 MiB/s.\n" in screen.out
    assert screen.err == "warning: 1 file could not be delivered, named above.\nNext: chorus-upload file upload\n"


def test_an_upload_with_nothing_to_do() -> None:
    screen = Screen()

    screen.sink.emit(UploadFinished(None, "/central", Tally(), Tally(), 0, Tally()))

    assert screen.out.startswith("Nothing was sent to /central\n")
    assert screen.err == ""


def test_a_verification() -> None:
    screen = Screen()

    screen.sink.emit(VERIFY)

    assert screen.out == (
        "Checked 20260301120000 in az://central/site-01\n"
        "\n"
        "Found                Files\n"
        "-------------------  -----\n"
        "as the journal says     99\n"
        "missing                  1\n"
        "\n"
        "Evidence: server 89, readback 10.\n"
        "Sample: 10%, chosen by --seed 4711.\n"
        "Read back: 11 files, 2.00 GiB.\n"
        "What is missing was delivered, as said above: ask the receiver, who may have taken it over, before anything is"
        " done. Nothing sends it again by itself.\n"
        "Still to upload: 4 files, 4.00 KiB, of version 20260401120000.\n"
        "Not checked: version 20260101120000. With --all-versions everything is.\n"
        "Took 3.2 s.\n"
    )
    assert screen.err == "warning: 1 file needs attention, named above.\nNext: chorus-upload file upload\n"


@pytest.mark.parametrize(
    ("results", "next_step"),
    [
        ({VerifyResult.MATCHED: 2}, "file upload"),
        ({VerifyResult.MISSING: 1}, "file upload"),
        ({VerifyResult.SIZE_DIFFERS: 1}, "file mark-as-deleted --file PATH"),
        ({VerifyResult.CHECKSUM_DIFFERS: 1}, "file mark-as-deleted --file PATH"),
        ({VerifyResult.NOT_IN_JOURNAL: 1}, "file upload"),
        ({VerifyResult.UNREADABLE: 1}, "file upload"),
    ],
)
def test_what_to_do_after_a_verification(results: dict[VerifyResult, int], next_step: str) -> None:
    screen = Screen()

    screen.sink.emit(replace(VERIFY, results=results))

    assert screen.err.endswith(f"Next: chorus-upload {next_step}\n")


def test_what_could_not_be_read() -> None:
    screen = Screen()

    screen.sink.emit(FileVerified("1/a.dcm", VerifyResult.UNREADABLE, "reading 1/a.dcm: archived (409 BlobArchived)"))
    screen.sink.emit(replace(VERIFY, results={VerifyResult.UNREADABLE: 1}, pending=Tally()))

    assert "could not be read: 1/a.dcm (reading 1/a.dcm: archived (409 BlobArchived))\n" in screen.out
    assert "could not be read      1\n" in screen.out
    assert "What could not be read is neither confirmed nor refuted: check again later.\n" in screen.out
    assert screen.err == "warning: 1 file needs attention, named above.\n"


def test_what_a_match_rests_on_is_shown_on_request() -> None:
    screen = Screen(verbose=True)

    screen.sink.emit(FileVerified("1/a.dcm", VerifyResult.MATCHED, "", evidence=Evidence.SERVER))
    screen.sink.emit(FileVerified("1/b.dcm", VerifyResult.MATCHED, "written again", evidence=Evidence.READBACK))

    assert screen.err.splitlines() == [
        "1/a.dcm: as the journal says, evidence server",
        "1/b.dcm: as the journal says, evidence readback (written again)",
    ]


def test_what_an_earlier_version_had_is_not_said_to_be_sent_again() -> None:
    screen = Screen()

    screen.sink.emit(replace(VERIFY, results={VerifyResult.CHECKSUM_DIFFERS: 1}, superseded=1, pending=Tally()))

    said = " ".join(screen.out.split())
    assert "Ask first who wrote to the store." in said
    assert "Only a copy of the store brings it back." in said
    assert "mark-as-deleted" not in screen.out + screen.err


def test_a_verification_of_some_files_says_so_of_what_it_says() -> None:
    screen, empty = Screen(), Screen()
    some = replace(GOOD, modalities=("Images", "Waveforms"), patients=("7",))

    screen.sink.emit(some)
    empty.sink.emit(replace(some, versions=(), results={}, patients=None))

    assert screen.out.endswith(
        "Only files of Images, Waveforms and of patient 7 were looked at.\n"
        "Everything of Images, Waveforms and of patient 7 that the journal calls delivered of version 1 is in the"
        " central store: 2 files.\n"
        "No file of Images, Waveforms and of patient 7 of another version has been delivered.\n"
        "Took 0.1 s.\n"
    )
    assert "no delivery of files of Images, Waveforms to this central store" in empty.err


GOOD = VerifyFinished(("1",), "/central", {VerifyResult.MATCHED: 2}, Tally(), 0.1)


def test_a_good_verification() -> None:
    screen = Screen()

    screen.sink.emit(GOOD)

    assert screen.out.endswith(
        "Everything that the journal calls delivered of version 1 is in the central store: 2 files.\n"
        "No other version has been delivered.\n"
        "Took 0.1 s.\n"
    )
    assert screen.err == ""


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (replace(GOOD, versions=("1", "2")), "delivered of versions 1 and 2 is in the central store: 2 files."),
        (replace(GOOD, versions=tuple(map(str, range(40)))), "delivered of versions 0, 1, 37 more and 39 is in"),
        (replace(GOOD, unchecked=("2", "3", "4")), "Not checked: versions 2, 3 and 4. With --all-versions"),
        (replace(GOOD, modalities=("OMOP", "Images")), "Only files of OMOP, Images were looked at."),
        (
            replace(GOOD, modalities=("OMOP",), patients=("1001", "1002")),
            "Only files of OMOP and of patient 1001, 1002 were looked at.",
        ),
    ],
)
def test_what_a_good_verification_speaks_of(changed: VerifyFinished, said: str) -> None:
    screen = Screen()

    screen.sink.emit(changed)

    assert said in screen.out


@pytest.mark.parametrize("versions", [(), ("1",)])
def test_nothing_that_could_be_verified(versions: tuple[str, ...]) -> None:
    screen = Screen()

    screen.sink.emit(VerifyFinished(versions, "/central", {}, Tally(), 0.1))

    assert "Everything" not in screen.out
    assert "warning: Nothing was checked: the journal has no delivery" in screen.err


def test_marking() -> None:
    screen = Screen()

    screen.sink.emit(FilesMarked("deleted", 2, {}))

    assert screen.out == "2 files marked as deleted\n"


@pytest.mark.parametrize(
    ("created", "resumed", "words"),
    [
        (True, False, "a new one was made"),
        (False, True, "checked out by you before"),
        (False, False, "checked out and"),
    ],
)
def test_checking_out(created: bool, resumed: bool, words: str) -> None:  # noqa: FBT001
    event = JournalCheckedOut("az://c/journal.db", "journal.db", created=created, resumed=resumed)
    on_the_way, asked_for = Screen(), Screen()

    on_the_way.sink.emit(event)
    asked_for.sink.answer(event)

    # Around another command only what is unusual is worth a remark.
    assert (words in on_the_way.err) == (created or resumed)
    assert words in asked_for.out
    assert "In the cloud: az://c/journal.db" in asked_for.out


def test_quiet_leaves_warnings_and_what_was_asked_for() -> None:
    screen = Screen(quiet=True)

    for event in EVENTS:
        screen.sink.emit(event)

    assert "Submission" not in screen.out
    assert "missing: 1001/Images" in screen.out
    assert screen.err.splitlines()[0] == "warning: take care"
    assert all(line.startswith("warning: ") for line in screen.err.splitlines())


def test_a_failure_with_several_lines() -> None:
    screen = Screen()

    screen.sink.failure(
        Failure("ConfigError", 2, "config.toml: first\nconfig.toml: second", "see\nconfig-help", "Trace\nback")
    )

    assert screen.err == ("error: config.toml: first\n  config.toml: second\nhint: see config-help\nTrace\nback\n")


def test_a_person_reads_the_first_of_many_troubles_and_a_number() -> None:
    err = Pretended()
    sink = HumanSink(out=Stream(Pretended()), progress=NoProgress(Stream(err).line), draw_table=plain_table, at_most=2)

    for number in range(1_000):
        sink.emit(FileFailed(f"{number}.dcm", f"1/{number}.dcm", "Images", FailureKind.VANISHED, ""))
    sink.emit(UPLOAD)

    assert err.shown.splitlines()[:3] == [
        "warning: vanished: 0.dcm",
        "warning: vanished: 1.dcm",
        "warning: vanished: 998 more (--json or a log file holds all of them)",
    ]


def test_a_log_file_names_every_trouble_but_not_every_link() -> None:
    screen = Screen()

    for number in range(1_000):
        screen.sink.emit(ProblemFound(Problem(ProblemKind.LINK_TO_OUTSIDE, f"{number}.dcm"), "/data"))
        screen.sink.emit(ProblemFound(Problem(ProblemKind.UNREADABLE_FILE, f"{number}.dcm"), "/data"))
    screen.sink.emit(UPDATE)

    lines = screen.err.splitlines()
    assert len([line for line in lines if "unreadable-file: " in line]) == 1_000
    assert [line for line in lines if "link-to-outside: " in line][9:] == [
        "warning: link-to-outside: 9.dcm",
        "warning: link-to-outside: 990 more (--json holds all of them)",
    ]


def test_a_log_file_gets_a_line_of_progress_now_and_then() -> None:
    now = 0.0
    lines: list[str] = []
    progress = ProgressLines(lines.append, every=10.0, clock=lambda: now)

    for second in range(35):
        now = float(second)
        progress.show(UploadProgressed(second, 100, second * GIB, 100 * GIB, ()))

    assert lines == [
        "Sending: 10 of 100 files, 10.0 GiB of 100 GiB, 10%, 1.00 GiB/s, 1 min 30 s left",
        "Sending: 20 of 100 files, 20.0 GiB of 100 GiB, 20%, 1.00 GiB/s, 1 min 20 s left",
        "Sending: 30 of 100 files, 30.0 GiB of 100 GiB, 30%, 1.00 GiB/s, 1 min 10 s left",
    ]


def test_the_progress_of_a_verification() -> None:
    now = 0.0
    lines: list[str] = []
    progress = ProgressLines(lines.append, every=10.0, clock=lambda: now)

    for second in range(35):
        now = float(second)
        read = second - 15
        progress.show(
            VerifyProgressed(second * 1_000) if read < 0 else VerifyProgressed(20_000, read, 100, read * GIB, 100 * GIB)
        )

    assert lines == [
        "Checking the central store: 10,000 objects listed",
        "Reading back: 5 of 100 files, 5.00 GiB of 100 GiB, 5%, 1.00 GiB/s, 1 min 35 s left",
        "Reading back: 15 of 100 files, 15.0 GiB of 100 GiB, 15%, 1.00 GiB/s, 1 min 25 s left",
    ]


def test_the_list_of_versions() -> None:
    def summary(version: str, modality: str | None, completed_us: int | None) -> VersionSummary:
        return VersionSummary(
            version, JournalingMode.FULL, 0, completed_us, modality, 3, 1_000, GIB, 900, GIB, 10, 2048
        )

    screen = Screen()
    summaries = [summary("1", "OMOP", 1), summary("1", "Images", 1), summary("2", None, None)]

    screen.sink.result("version", summaries, lambda: versions_report(summaries))

    assert screen.out == (
        "Version  Modality    Persons  Files  Active      Size  To upload      Size\n"
        "-------  ----------  -------  -----  ------  --------  ---------  --------\n"
        "1        OMOP              3  1,000     900  1.00 GiB         10  2.00 KiB\n"
        "         Images            3  1,000     900  1.00 GiB         10  2.00 KiB\n"
        "2        (no files)        3  1,000     900  1.00 GiB         10  2.00 KiB\n"
    )
    assert screen.err == (
        "warning: Version 2 was interrupted: 'chorus-upload journal update --version 2' goes on with it.\n"
    )


def test_the_history() -> None:
    screen = Screen(quiet=True)
    records = [
        CommandRecord(0, "file upload", '{"max-num-files": "3", "dry-run": "true"}', "host", "me", "1.0", 61.0, 3)
    ]

    screen.sink.result("command", records, lambda: history_report(records))

    assert "file upload  --max-num-files 3 --dry-run  1 min 1 s     3  me@host" in screen.out


def test_empty_lists_say_so() -> None:
    assert versions_report([]).heading == "The journal holds no version yet."
    assert history_report([]).heading == "No command has been recorded yet."


def test_columns_are_aligned_for_wide_characters() -> None:
    table = Table((Column("Name"), Column("N", numeric=True)), (Row(("患者", "1")), Row(("e\u0301", "22"))))

    assert plain_table(table) == ["Name   N", "----  --", "患者   1", "e\u0301     22"]
