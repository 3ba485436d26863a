from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pytest

from chorus_upload.cli.render.jsonlines import JsonSink
from chorus_upload.cli.render.records import as_json, event_name, fields_of
from chorus_upload.cli.render.sink import Failure
from chorus_upload.cli.render.stream import Stream
from chorus_upload.cli.render.tables import Report
from chorus_upload.events import Event, FileDelivered, Notice
from chorus_upload.model import Change, CommandRecord, ListedFile
from tests.cli.samples import EVENTS, HOSTILE, UPLOAD
from tests.cli.streams import Pretended


def shown(pretended: Pretended) -> list[dict[str, Any]]:
    return [json.loads(line) for line in pretended.shown.splitlines()]


def sink_to(pretended: Pretended, *, quiet: bool = False) -> JsonSink:
    return JsonSink(out=Stream(pretended), err=Stream(Pretended()), quiet=quiet, clock=lambda: 1_767_225_600.5)


def test_the_samples_hold_every_kind_of_event() -> None:
    assert {type(event) for event in EVENTS} == set(get_args(Event))


@pytest.mark.parametrize("event", EVENTS, ids=event_name)
def test_every_event_is_one_line_with_all_its_fields(event: Event) -> None:
    out = Pretended(encoding="ascii")

    sink_to(out).emit(event)

    (line,) = shown(out)
    assert line["event"] == event_name(event)
    assert set(line) >= {"event", "at_us", "at", *fields_of(event)}


def test_a_delivered_file() -> None:
    out = Pretended()
    (event,) = (event for event in EVENTS if isinstance(event, FileDelivered))

    sink_to(out).emit(event)

    (line,) = shown(out)
    assert line["event"] == "file-delivered"
    assert line["at_us"] == 1_767_225_600_500_000
    assert line["size"] == 5_000
    assert line["evidence"] == "server"
    assert line["path"] == HOSTILE


def test_sizes_are_raw_and_maps_keep_their_names() -> None:
    fields = fields_of(UPLOAD)

    assert fields["delivered"] == {"files": 1_234, "bytes": 5 * 1024**3}
    assert fields["evidence"] == {"server": 1_200, "transit": 36}


def test_checksums_are_hex_and_times_have_two_forms() -> None:
    listed = ListedFile(
        path="a",
        modality="OMOP",
        patient=None,
        version="1",
        change=Change.ADDED,
        size=1,
        mtime_us=0,
        key="1/a",
        md5=bytes.fromhex("0cc175b9c0f1b6a831c399e269772661"),
    )

    fields = fields_of(listed)

    assert fields["md5"] == "0cc175b9c0f1b6a831c399e269772661"
    assert fields["mtime_us"] == 0
    assert str(fields["mtime"]).startswith(("1970-01-01T", "1969-12-31T"))
    assert fields["delivered"] is None
    assert fields["change"] == "added"


def test_quiet_leaves_out_progress_and_remarks() -> None:
    out = Pretended()
    sink = sink_to(out, quiet=True)

    for event in EVENTS:
        sink.emit(event)

    names = [line["event"] for line in shown(out)]
    assert names.count("notice") == 1
    assert not [name for name in names if "progress" in name]
    assert "upload-finished" in names


def test_results_are_one_line_each() -> None:
    out = Pretended()
    record = CommandRecord(0, "history", "", "host", "user", "1.0", None, 0)

    sink_to(out).result("command", [record, record], Report)
    sink_to(out).result("word", ["plain"], Report)

    first, second, word = shown(out)
    assert first == second
    assert first["event"] == "command"
    assert word == {"event": "word", "value": "plain"}


def test_a_failure_says_how_the_command_ends() -> None:
    out = Pretended()

    sink_to(out).failure(Failure("JournalLocked", 10, "locked by somebody", "wait"))

    assert shown(out) == [
        {"event": "error", "code": "JournalLocked", "exit_code": 10, "message": "locked by somebody", "hint": "wait"}
    ]


def test_log_lines_stay_off_the_events() -> None:
    out, err = Pretended(), Pretended()
    sink = JsonSink(out=Stream(out), err=Stream(err))

    sink.log("a line")
    sink.pause()
    sink.close()

    assert out.shown == ""
    assert err.shown == "a line\n"


def test_what_has_no_form_in_json_is_a_defect() -> None:
    @dataclass
    class Strange:
        value: object

    assert as_json(Path("a")) == "a"
    assert as_json([Notice("a")]) == [{"text": "a", "level": "info"}]
    with pytest.raises(TypeError, match="object has no JSON form"):
        as_json(Strange(object()))
    with pytest.raises(TypeError, match="int is not a dataclass"):
        fields_of(1)
