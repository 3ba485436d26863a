"""What lies where nobody could look is not gone: behind links, below mount points, under names of no pattern."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.clouds import ask
from tests.e2e.conftest import new_disk, settle
from tests.e2e.mortal_program import Condition, Ended, Program, running_program
from tests.e2e.site import Site
from tests.faults.figures import Figures, possible
from tests.trees import Link, build, remove, rename

MEDDLING = "tests.faults.meddling"
MANY = {f"1001/Images/{number}.dcm": f"{number}" for number in range(20)} | {"OMOP/person.csv": "person_id\n"}
AWAY = {"Images/a.dcm": "a", "Images/b.dcm": "b"}
"""What lies on the disk of patient 1002."""


def active(site: Site) -> set[str]:
    """The files that the journal holds to be there."""
    paths = "SELECT d.path || '/' || f.name FROM file f JOIN directory d ON d.id = f.directory_id"
    return {row[0] for row in ask(site.journal, f"{paths} WHERE retired_by IS NULL")}


# --- mounts ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """The program, where it may mount disks that nobody else sees."""
    with running_program(within=("unshare", "--mount", "--map-root-user")) as program:
        home = tmp_path_factory.mktemp("home")
        possible(program.run("--version", home=home).exit_code == 0, "mount something")
        yield program


@dataclass(frozen=True, slots=True)
class Hospital:
    """A site of whose source one directory, `point`, is a disk of its own."""

    site: Site
    program: Program
    point: Path
    mount: str = "mount_memory"

    def run(self, *arguments: str, mounted: bool, code: int = 0) -> Ended:
        what = {"where": str(self.point)} | ({"tree": AWAY} if mounted else {})
        under = (Condition(f"{MEDDLING}:{self.mount if mounted else 'unmount'}", what),)
        ended = self.program.run(*arguments, home=self.site.home, under=under)
        assert ended.exit_code == code, f"{arguments}: {ended.exit_code}\n{ended.out}\n{ended.err}"
        return ended


def _mounted_inside(tmp_path: Path) -> Path:
    return tmp_path / "source/1002"


def _mounted_behind_a_link(tmp_path: Path) -> Path:
    build(tmp_path / "source", {"1002": Link("../mnt/pacs")})
    return tmp_path / "mnt/pacs"


@pytest.fixture(
    params=[
        pytest.param((_mounted_inside, "mount_memory"), id="in the source"),
        pytest.param((_mounted_behind_a_link, "mount_memory"), id="behind a link"),
        pytest.param((_mounted_inside, "mount_again"), id="of the same device"),
    ]
)
def hospital(request: pytest.FixtureRequest, tmp_path: Path, program: Program) -> Hospital:
    configuration = "follow_links = true\ndeletion_limit = 1.0"
    site = settle(tmp_path / "home", tmp_path / "source", new_disk(tmp_path / "cloud"), configuration=configuration)
    build(site.source, MANY)
    place, mount = request.param
    point: Path = place(tmp_path)
    point.mkdir(parents=True)
    hospital = Hospital(site, program, point, mount)
    hospital.run("journal", "update", "--version", "spring", mounted=True)
    assert active(site) == MANY.keys() | {f"1002/{name}" for name in AWAY}
    return hospital


def test_a_disk_that_is_not_mounted(hospital: Hospital, figures: Figures) -> None:
    """Whatever the limit, and whatever else is confirmed; what is gone for certain is gone."""
    everything = active(hospital.site)
    for confirmed in ((), ("--confirm-deletions",)):
        update = hospital.run("journal", "update", *confirmed, mounted=False, code=3)

        assert "not-mounted: 1002" in update.err
        assert "2 files that are missing there stay" in update.err
        assert active(hospital.site) == everything
    remove(hospital.site.source / "1001/Images/0.dcm")
    build(hospital.site.source, {"1003/Images/new.dcm": "new"})
    quiet = hospital.run("--quiet", "journal", "update", mounted=False, code=3)
    assert "not-mounted: 1002" in quiet.err
    assert active(hospital.site) == (everything | {"1003/Images/new.dcm"}) - {"1001/Images/0.dcm"}

    hospital.run("journal", "update", mounted=True)
    assert active(hospital.site) == (everything | {"1003/Images/new.dcm"}) - {"1001/Images/0.dcm"}
    figures.count("updates without a disk", 3)


def test_another_disk_in_its_place(hospital: Hospital, figures: Figures) -> None:
    """Something lies where nothing is mounted: a part of the files, or others."""
    build(hospital.point, {"Images/a.dcm": "a", "Images/stray.dcm": "stray"})
    everything = active(hospital.site)

    update = hospital.run("journal", "update", mounted=False, code=3)

    assert "not-mounted: 1002" in update.err
    assert active(hospital.site) == everything | {"1002/Images/stray.dcm"}
    figures.count("updates without a disk")


def test_its_mount_point_is_gone_too(hospital: Hospital, figures: Figures) -> None:
    """As where disks are mounted by themselves when somebody looks."""
    everything = active(hospital.site)
    hospital.run("journal", "list", mounted=False)
    remove(hospital.site.source / "1002")

    assert "not-mounted: 1002" in hospital.run("journal", "update", mounted=False, code=3).err
    assert active(hospital.site) == everything
    figures.count("updates without a disk")


def test_a_disk_that_is_gone_for_good(hospital: Hospital) -> None:
    """A person says so, and of which; afterwards it is a directory like others."""
    point = hospital.site.source / "1002"
    refused = hospital.run("journal", "update", "--forget-mount", f"{point}x", mounted=False, code=2)
    assert f"Known are: {point}" in refused.err

    hospital.run("journal", "update", "--forget-mount", str(point), mounted=False)

    assert active(hospital.site) == set(MANY)
    hospital.run("journal", "update", mounted=False)


def test_what_was_moved_to_the_disk_below_is_no_trouble(hospital: Hospital) -> None:
    hospital.run("journal", "list", mounted=False)
    build(hospital.point, AWAY)

    hospital.run("journal", "update", mounted=False)

    assert active(hospital.site) == MANY.keys() | {f"1002/{name}" for name in AWAY}


@pytest.mark.parametrize("mode", ["full", "append"])
def test_a_source_that_is_a_disk_and_not_mounted(tmp_path: Path, program: Program, mode: str, figures: Figures) -> None:
    """Files that lie below its mount point are not taken for it."""
    configuration = "deletion_limit = 1.0"
    cloud = new_disk(tmp_path / "cloud")
    site = settle(tmp_path / "home", tmp_path / "source/1002", cloud, mode=mode, configuration=configuration)
    site.configure(f'{site.config.read_text()}[site_path.Images]\npattern = "Images/{{filepath}}"\n')
    site.source.mkdir(parents=True)
    hospital = Hospital(site, program, site.source)
    hospital.run("journal", "update", mounted=True)
    build(site.source, {"Images/a.dcm": "a"})

    refused = hospital.run("journal", "update", "--confirm-deletions", mounted=False, code=5)

    assert f"the source {site.source} was a mount point" in refused.err
    assert f"--forget-mount {site.source}" in refused.err
    assert active(site) == set(AWAY)
    figures.count("updates without a disk")


# --- links -------------------------------------------------------------------------------------------------------


@pytest.fixture
def linked(tmp_path: Path) -> Site:
    """A site of whose patients one lies elsewhere."""
    site = settle(
        tmp_path / "home", tmp_path / "source", new_disk(tmp_path / "cloud"), configuration="follow_links = true"
    )
    build(site.source, MANY | {"1002": Link("../elsewhere"), "1001/Images/deep": Link("../../../elsewhere")})
    build(tmp_path / "elsewhere", AWAY)
    site.run("journal", "update", "--version", "spring")
    assert len(active(site)) == len(MANY) + 2 * len(AWAY)
    return site


@pytest.mark.parametrize("change", ["away", "not followed any more", "said not to be followed"])
def test_nothing_behind_a_link_that_is_not_followed_is_gone(
    tmp_path: Path, linked: Site, change: str, figures: Figures
) -> None:
    everything = active(linked)
    if change == "away":
        rename(tmp_path, "elsewhere", "moved")
    else:
        said = "" if change == "not followed any more" else "follow_links = false"
        linked.configure(linked.config.read_text().replace("follow_links = true", said))

    decided = change == "said not to be followed"
    for confirmed in ((), ("--confirm-deletions",)):
        update = linked.run("journal", "update", *confirmed, exit_code=0 if decided else 3)

        assert active(linked) == everything
        kind = {"away": "unreadable-file", "not followed any more": "link-to-directory"}.get(change, "skipped-link")
        assert f"{kind}: 1002" in update.err
        assert f"{kind}: 1001/Images/deep" in update.err
    figures.count("updates without what links lead to", 2)


def test_a_patient_behind_a_link_is_never_left_out_without_a_word(tmp_path: Path, figures: Figures) -> None:
    """Nobody has said whether links are followed. Where nothing could belong to any modality none is told of."""
    site = settle(tmp_path / "home", tmp_path / "source", new_disk(tmp_path / "cloud"))
    patients = {f"{number}": Link("../elsewhere") for number in range(1002, 1005)}
    build(site.source, MANY | patients | {"no-patient": Link("../elsewhere"), "not here": Link("nowhere")})
    build(tmp_path / "elsewhere", AWAY)

    update = site.run("--json", "--quiet", "journal", "update", exit_code=3)

    told = {each["problem"]["path"]: each["problem"] for each in update.events("problem-found")}
    assert told.keys() == patients.keys()
    assert "follow_links = true" in told["1002"]["detail"]
    assert update.event("update-finished")["problems"] == len(patients)
    assert "3 problems" in site.run("journal", "update", exit_code=3).err
    figures.count("links named", len(patients))


# --- names -------------------------------------------------------------------------------------------------------


@pytest.fixture
def uploaded(tmp_path: Path) -> Site:
    """Twenty-two patients with a file each, all delivered."""
    site = settle(tmp_path / "home", tmp_path / "source", new_disk(tmp_path / "cloud"))
    build(site.source, {f"{number}/Images/a.dcm": f"{number}" for number in range(1001, 1023)})
    site.run("journal", "update", "--version", "spring")
    site.run("file", "upload")
    return site


@pytest.mark.parametrize(
    ("old", "new"), [("1001/Images", "1001/Images-old"), ("1001/Images", "1001/archive/Images"), ("1001", "done/1001")]
)
def test_what_no_pattern_matches_any_more_is_not_deleted(uploaded: Site, old: str, new: str, figures: Figures) -> None:
    """Few enough to be retired, had they been deleted. They are told of until a person confirms."""
    everything = active(uploaded)
    rename(uploaded.source, old, new)
    build(uploaded.source, {"2000/Images/new.dcm": "new"})
    remove(uploaded.source / "1010/Images/a.dcm")

    update = uploaded.run("--quiet", "journal", "update", "--version", "summer", exit_code=3)

    now = f"{new}/a.dcm" if old.endswith("Images") else f"{new}/Images/a.dcm"
    assert "moved-outside: 1001/Images: 1 files are now under names that no pattern matches" in update.err
    assert now in update.err
    assert "--confirm-outside" in update.err
    assert active(uploaded) == (everything | {"2000/Images/new.dcm"}) - {"1010/Images/a.dcm"}
    uploaded.run("journal", "update", "--confirm-outside")
    assert "1001/Images/a.dcm" not in active(uploaded)
    figures.count("files moved outside of every pattern")


def test_most_of_a_source_is_renamed(uploaded: Site, figures: Figures) -> None:
    """As many as are refused anyway: what became of them is said, and it is no deletion that is guessed."""
    everything = active(uploaded)
    for number in range(1001, 1011):
        rename(uploaded.source, f"{number}/Images", f"{number}/Bilder")

    refused = uploaded.run("journal", "update", exit_code=5)

    assert "Images: 10 of 22 active files are gone (45%)" in refused.err
    assert "10 of them are now where no pattern matches, e.g. 1001/Bilder/a.dcm" in refused.err
    assert active(uploaded) == everything
    figures.count("files moved outside of every pattern", 10)


def test_a_source_of_which_most_matches_no_pattern(uploaded: Site, figures: Figures) -> None:
    """A pattern is wrong, or a tool has made other names: nothing is retired then, and every update says so."""
    everything = active(uploaded)
    build(uploaded.source, {f"out {number}/b.dcm": f"b{number}" for number in range(30)})
    remove(uploaded.source / "1010/Images/a.dcm")

    for quiet in ((), ("--quiet",)):
        update = uploaded.run(*quiet, "journal", "update", exit_code=3)
        assert "outside-patterns" in update.err
        assert "30 of 51 files (59%) match no pattern, e.g. " in update.err
        assert "1 files that are missing stay in the journal" in update.err
        assert active(uploaded) == everything
    told = uploaded.run("--json", "journal", "update", exit_code=3).event("update-finished")
    (outside,) = told["outside"].values()
    (examples,) = told["outside_examples"].values()
    assert outside["files"] == 30
    assert len(examples) == 3
    assert all(each.startswith("out ") for each in examples)

    uploaded.run("journal", "update", "--confirm-outside", exit_code=3)
    assert active(uploaded) == everything - {"1010/Images/a.dcm"}
    few = uploaded.run("journal", "update")
    assert "Outside every pattern" in few.out
    assert "e.g. out " in few.out
    figures.count("files outside of every pattern", 30)


def test_a_source_that_is_shared_with_others(uploaded: Site, figures: Figures) -> None:
    """Most of it matches no pattern, on purpose: that is said once, and then no night is different from others."""
    everything = active(uploaded)
    build(uploaded.source, {f"study/{number}.bin": f"{number}" for number in range(60)})
    told = uploaded.run("journal", "update", exit_code=3)
    assert "60 of 82 files (73%) match no pattern" in told.err

    for number in range(1010, 1013):
        remove(uploaded.source / f"{number}/Images/a.dcm")
        everything.remove(f"{number}/Images/a.dcm")
        build(uploaded.source, {f"study/{number}.bin": f"{number}"})
        assert "outside-patterns" not in uploaded.run("journal", "update").err
        assert active(uploaded) == everything
    rename(uploaded.source, "1001/Images", "1001/Bilder")
    assert "moved-outside: 1001/Images" in uploaded.run("journal", "update", exit_code=3).err
    remove(uploaded.source / "1014/Images/a.dcm")
    build(uploaded.source, {f"study 2/{number}.bin": f"{number}" for number in range(150)})
    again = uploaded.run("journal", "update", exit_code=3)
    assert "214 of 231 files (93%) match no pattern, 64 did before" in again.err
    assert "--confirm-outside" in again.err
    assert active(uploaded) == everything
    figures.count("updates of a shared source", 7)


@pytest.mark.parametrize("is_read", [True, False])
def test_a_copy_outside_with_a_time_of_its_own_is_the_file(tmp_path: Path, is_read: bool, figures: Figures) -> None:  # noqa: FBT001
    """As shares copy. What has only the name of a file that was deleted keeps it no longer than until it is read."""
    configuration = "" if is_read else 'fingerprint = "on-upload"'
    site = settle(tmp_path / "home", tmp_path / "source", new_disk(tmp_path / "cloud"), configuration=configuration)
    build(site.source, {f"{number}/Images/a{number}.dcm": f"{number}" for number in range(1001, 1023)})
    build(site.source, {"1003/Images/a1003.dcm": ""})
    site.run("journal", "update", "--version", "spring")
    everything = active(site)
    build(site.source, {"P-1001/Images/a1001.dcm": "1001", "other/a1002.dcm": "2002", "other/a1003.dcm": ""})
    for number in (1001, 1002, 1003):
        remove(site.source / str(number))

    update = site.run("journal", "update", exit_code=3)

    assert "moved-outside: 1001/Images: 1 files are now under names that no pattern matches" in update.err
    assert ("moved-outside: 1002" in update.err) is not is_read
    retired = {"1003/Images/a1003.dcm"} | ({"1002/Images/a1002.dcm"} if is_read else set())
    assert active(site) == everything - retired
    figures.count("files copied outside of every pattern")


def test_what_is_outside_is_compared_by_its_content(uploaded: Site, figures: Figures) -> None:
    """A file that was deleted is not kept by another one that has its size and time."""
    everything = active(uploaded)
    for number in (1001, 1002):
        gone = uploaded.source / f"{number}/Images/a.dcm"
        build(uploaded.source, {f"backup/{number}.dcm": "1001"})
        os.utime(uploaded.source / f"backup/{number}.dcm", ns=(0, gone.stat().st_mtime_ns))
        remove(gone)

    update = uploaded.run("journal", "update", exit_code=3)

    assert "moved-outside: 1001/Images: 1 files" in update.err
    assert "1002/Images" not in update.err
    assert active(uploaded) == everything - {"1002/Images/a.dcm"}
    figures.count("files moved outside of every pattern")
