"""Files that are not what the journal says when their turn comes, and keys that are not free."""

from __future__ import annotations

import os

from tests.e2e.clouds import Container, Disk, files_of
from tests.e2e.site import LIKE_ANYBODY, Site
from tests.trees import Bytes, Directory, Link, build, bytes_of, change_in_secret, contents, remove


def test_what_happened_to_files_since_the_journal_was_written(site: Site, disk: Disk) -> None:
    """Each is named with what is the matter, none is sent, and all the others are."""
    images = site.source / "1001" / "Images"
    good: dict[str, str] = {"1001/Images/good.dcm": "good", "1001/Images/empty.dcm": "", "OMOP/person.csv": "person_id\n"}
    names = (
        "vanished",
        "rewritten",
        "in secret",
        "truncated",
        "grown",
        "directory",
        "loop",
        "pipe",
        "forbidden",
        "linked",
    )
    build(site.source, good | {f"1001/Images/{name}/x.dcm": Bytes(100) for name in names})
    site.run("journal", "update", "--version", "spring")

    remove(images / "vanished" / "x.dcm")
    build(images, {"rewritten/x.dcm": Bytes(100, edition=2)})
    change_in_secret(images / "in secret" / "x.dcm")
    build(images, {"truncated/x.dcm": Bytes(99), "grown/x.dcm": Bytes(101)})
    for name in ("directory", "loop", "pipe", "linked"):
        remove(images / name / "x.dcm")
    build(images, {"directory/x.dcm": Directory(), "loop/x.dcm": Link("x.dcm")})
    os.mkfifo(images / "pipe" / "x.dcm")
    (images / "forbidden" / "x.dcm").chmod(0)
    (images / "linked").rmdir()
    build(images, {"linked": Link("grown")})

    upload = site.run("--json", "file", "upload", exit_code=3, program=LIKE_ANYBODY)

    failures = {each["path"].split("/")[2]: each["kind"] for each in upload.events("file-failed")}
    assert failures == {
        "vanished": "vanished",
        "rewritten": "changed",
        "in secret": "changed",
        "truncated": "changed",
        "grown": "changed",
        "directory": "unreadable",
        "loop": "unreadable",
        "pipe": "unreadable",
        "forbidden": "unreadable",
        "linked": "unreadable",
    }
    assert upload.event("upload-finished")["remaining"]["files"] == len(names)
    assert site.pending() == {f"1001/Images/{name}/x.dcm" for name in names}
    assert files_of(disk.objects()) == {f"spring/{path}": bytes_of(path, body) for path, body in good.items()}

    # They are what they are now; the journal is told so, and they go.
    remove(images)
    build(site.source, good)
    site.run("journal", "update", "--confirm-deletions")
    assert site.pending() == set()


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
    assert site.pending() == {"1001/Images/taken.dcm"}
    assert files_of(container.objects()) == {
        "spring/1001/Images/taken.dcm": theirs,
        "spring/1001/Images/same.dcm": bytes_of("1001/Images/same.dcm", Bytes(2_000)),
        "spring/1001/Images/free.dcm": bytes_of("1001/Images/free.dcm", Bytes(2_000)),
    }

    container.delete("data/spring/1001/Images/taken.dcm")
    site.run("file", "upload")
    site.run("file", "verify")
    assert site.pending() == set()


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
