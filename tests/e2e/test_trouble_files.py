"""Files that are not what the journal says when their turn comes, and keys that are not free."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from tests.e2e.clouds import Container, Disk, files_of
from tests.e2e.site import LIKE_ANYBODY, Site
from tests.trees import Bytes, Directory, Link, build, bytes_of, change_in_secret, contents, remove


def _becomes(content: Bytes | Directory | Link) -> Callable[[Path], object]:
    def happen(path: Path) -> None:
        remove(path)
        build(path.parent, {path.name: content})

    return happen


def _becomes_a_pipe(path: Path) -> None:
    remove(path)
    os.mkfifo(path)


def _is_behind_a_link(path: Path) -> None:
    path.parent.rename(path.parent.with_name("behind"))
    path.parent.symlink_to("behind")


WHAT_HAPPENS: dict[str, tuple[Callable[[Path], object], str]] = {
    "deleted": (remove, "vanished"),
    "rewritten": (_becomes(Bytes(100, edition=2)), "changed"),
    "written to in secret": (change_in_secret, "changed"),
    "truncated": (_becomes(Bytes(99)), "changed"),
    "longer": (_becomes(Bytes(101)), "changed"),
    "a directory": (_becomes(Directory()), "unreadable"),
    "a pipe": (_becomes_a_pipe, "unreadable"),
    "a link to itself": (_becomes(Link("scan.dcm")), "unreadable"),
    "a link to nothing": (_becomes(Link("nothing")), "vanished"),
    "forbidden": (lambda path: path.chmod(0), "unreadable"),
    "behind a link": (_is_behind_a_link, "unreadable"),
}


def test_what_happens_to_files_after_they_were_journaled(site: Site, disk: Disk) -> None:
    """Each is named with what is the matter, and none is sent; all others are."""
    fine = build(site.source, {"1001/Images/fine.dcm": "fine", "1001/Images/empty.dcm": "", "OMOP/person.csv": "1\n"})
    predicted = {f"spring/{path}": body for path, body in contents(fine).items()}
    bad = {f"1001/Images/{what}/scan.dcm": what for what in WHAT_HAPPENS}
    build(site.source, dict.fromkeys(bad, Bytes(100)))
    site.run("journal", "update", "--version", "spring")
    for path, what in bad.items():
        happen, _ = WHAT_HAPPENS[what]
        happen(site.source / path)

    upload = site.run("--json", "file", "upload", exit_code=3, program=LIKE_ANYBODY)

    assert {bad[each["path"]]: each["kind"] for each in upload.events("file-failed")} == {
        what: kind for what, (_, kind) in WHAT_HAPPENS.items()
    }
    assert upload.event("upload-finished")["remaining"]["files"] == len(bad)
    assert site.pending() == set(bad)
    assert files_of(disk.objects()) == predicted


def test_a_file_that_changed_in_secret_goes_after_the_next_update(site: Site, disk: Disk) -> None:
    """The upload found that its content is another one, and advised an update: that has to help."""
    build(site.source, {"1001/Images/scan.dcm": Bytes(100), "1001/Images/other.dcm": Bytes(100)})
    site.run("journal", "update", "--version", "spring")
    change_in_secret(site.source / "1001/Images/scan.dcm")
    site.run("file", "upload", exit_code=3)

    site.run("journal", "update", "--version", "summer")
    site.run("file", "upload")

    tree = contents(site.source)
    assert files_of(disk.objects()) == {
        "spring/1001/Images/other.dcm": tree["1001/Images/other.dcm"],
        "summer/1001/Images/scan.dcm": tree["1001/Images/scan.dcm"],
    }


def test_files_that_cannot_be_sent_do_not_stand_in_the_way(site: Site, disk: Disk) -> None:
    """Who sends a number of files each night gets on, though the largest of them can never go."""
    build(site.source, {"1001/Images/large.dcm": Bytes(1_000), "1001/Images/small.dcm": Bytes(10)})
    site.run("journal", "update", "--version", "spring")
    remove(site.source / "1001/Images/large.dcm")

    for _ in range(2):
        site.run("file", "upload", "--max-num-files", "1", exit_code=None)

    assert files_of(disk.objects()).keys() == {"spring/1001/Images/small.dcm"}


def test_a_key_that_holds_something_else_is_left_alone(azure_site: Site, container: Container) -> None:
    site, theirs = azure_site, b"put there by somebody else"
    build(site.source, {f"1001/Images/{name}.dcm": Bytes(2_000) for name in ("taken", "same", "free")})
    site.run("journal", "update", "--version", "spring")
    container.put("data/spring/1001/Images/taken.dcm", theirs)
    container.put("data/spring/1001/Images/same.dcm", bytes_of("1001/Images/same.dcm", Bytes(2_000)))

    upload = site.run("--json", "file", "upload", exit_code=3)

    failed = upload.event("file-failed")
    assert (failed["path"], failed["kind"]) == ("1001/Images/taken.dcm", "key-taken")
    assert upload.event("upload-finished")["already_there"]["files"] == 1
    assert upload.event("upload-finished")["remaining"]["files"] == 1
    assert files_of(container.objects()) == {
        "spring/1001/Images/taken.dcm": theirs,
        "spring/1001/Images/same.dcm": bytes_of("1001/Images/same.dcm", Bytes(2_000)),
        "spring/1001/Images/free.dcm": bytes_of("1001/Images/free.dcm", Bytes(2_000)),
    }

    container.delete("data/spring/1001/Images/taken.dcm")
    site.run("file", "upload")
    assert contents(site.source).items() == {
        (key.removeprefix("spring/"), body) for key, body in files_of(container.objects()).items()
    }


def test_files_that_another_tool_has_sent(azure_site: Site, container: Container) -> None:
    """Only what is there as it ought to be is marked. That the other tool says so of an object is no proof."""
    site = azure_site
    paths = {name: f"1001/Images/{name}.dcm" for name in ("right", "wrong", "claimed", "shorter", "missing")}
    right = {name: bytes_of(path, Bytes(2_000)) for name, path in paths.items()}
    build(site.source, dict.fromkeys(paths.values(), Bytes(2_000)))
    site.run("journal", "update", "--version", "spring")
    container.put("data/spring/1001/Images/right.dcm", right["right"])
    container.put("data/spring/1001/Images/wrong.dcm", bytes(2_000))
    container.put("data/spring/1001/Images/claimed.dcm", bytes(2_000))
    container.claim("data/spring/1001/Images/claimed.dcm", md5=hashlib.md5(right["claimed"]).digest())  # noqa: S324
    container.put("data/spring/1001/Images/shorter.dcm", right["shorter"][:-1])

    marking = ("file", "mark_as_uploaded_central", "--upload-datetime", "20260302101500")
    marked = site.run("--json", *marking, exit_code=3).event("files-marked")

    assert marked["marked"] == 1
    assert set(marked["refused"]) == {path for name, path in paths.items() if name != "right"}
    assert site.pending() == set(marked["refused"])
    (delivered,) = site.uploaded().values()
    assert (delivered["path"], delivered["evidence"], delivered["submission"]) == (
        paths["right"],
        "readback",
        "20260302101500",
    )

    upload = site.run("--json", "file", "upload", exit_code=3)
    assert [each["path"] for each in upload.events("file-delivered")] == [paths["missing"]]
    assert {each["kind"] for each in upload.events("file-failed")} == {"key-taken"}


def test_what_becomes_of_uploaded_files_is_found_by_verify(azure_site: Site, container: Container) -> None:
    site = azure_site
    names = ("kept", "deleted", "shorter", "other", "again")
    build(site.source, {f"1001/Images/{name}.dcm": Bytes(2_000) for name in names})
    site.run("journal", "update", "--version", "spring")
    site.run("file", "upload")
    objects = container.objects()

    def key(name: str) -> str:
        return f"data/spring/1001/Images/{name}.dcm"

    container.delete(key("deleted"))
    container.put(key("shorter"), objects[key("shorter")][:-1])
    container.put(key("other"), bytes(2_000))
    container.put(key("again"), objects[key("again")])
    container.put("data/spring/1001/Images/unknown.dcm", b"?")

    verify = site.run("--json", "file", "verify", exit_code=3)

    found = {each["key"].split("/")[-1].partition(".")[0]: each["result"] for each in verify.events("file-verified")}
    assert found == {
        "kept": "matched",
        "deleted": "missing",
        "shorter": "size-differs",
        "other": "checksum-differs",
        "again": "matched",
        "unknown": "not-in-journal",
    }
