from __future__ import annotations

import os
import shutil
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chorus_upload.errors import DeletionRefused
from chorus_upload.model import Problem, ProblemKind
from chorus_upload.storage import local_source
from chorus_upload.storage.local_source import LocalSource
from chorus_upload.storage.source import Directory, Entry, FileReplaced
from tests.trees import Bytes, build, change_in_secret

pytestmark = pytest.mark.skipif(os.name == "nt", reason="links, pipes and names of POSIX")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    directory = tmp_path / "source"
    directory.mkdir()
    return directory


def plant(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(path)


def walked(root: Path, *, follow_links: bool | None = None) -> dict[str, Directory]:
    found: dict[str, Directory] = {}
    for directory in LocalSource(root, follow_links=follow_links).walk():
        assert directory.path not in found
        found[directory.path] = directory
    return found


def files(found: dict[str, Directory]) -> list[str]:
    return sorted(
        f"{directory.path}/{entry.name}".lstrip("/") for directory in found.values() for entry in directory.entries
    )


def problems(found: dict[str, Directory]) -> list[tuple[ProblemKind, str]]:
    return sorted((each.kind, each.path) for directory in found.values() for each in directory.problems)


class TestWalk:
    def test_every_directory_once_with_its_files(self, root: Path) -> None:
        plant(root, "top.csv", "a/1", "a/2", "a/b/3", ".hidden/.file")
        (root / "empty").mkdir()
        found = walked(root)
        assert sorted(found) == ["", ".hidden", "a", "a/b", "empty"]
        assert files(found) == [".hidden/.file", "a/1", "a/2", "a/b/3", "top.csv"]
        assert problems(found) == []

    def test_an_entry_is_name_size_and_time_rounded_down(self, root: Path) -> None:
        plant(root, "file")
        os.utime(root / "file", ns=(0, 1_700_000_000_123_456_789))
        [entry] = walked(root)[""].entries
        assert type(entry) is Entry
        assert entry == Entry("file", 4, 1_700_000_000_123_456)

    def test_times_before_1970_are_rounded_down_too(self, root: Path) -> None:
        plant(root, "file")
        os.utime(root / "file", ns=(0, -1_500))
        assert walked(root)[""].entries[0].mtime_us == -2

    def test_an_empty_root(self, root: Path) -> None:
        assert walked(root) == {"": Directory("", [], [], is_empty=True)}

    def test_the_root_may_be_a_link(self, root: Path, tmp_path: Path) -> None:
        plant(root, "a/1")
        (tmp_path / "link").symlink_to(root)
        assert files(walked(tmp_path / "link")) == ["a/1"]

    @given(
        paths=st.sets(
            st.lists(st.text("abAB .", min_size=1, max_size=3), min_size=1, max_size=4).map("/".join), max_size=12
        )
    )
    def test_agrees_with_the_standard_library(self, tmp_path_factory: pytest.TempPathFactory, paths: set[str]) -> None:
        root = tmp_path_factory.mktemp("tree")
        for path in paths:
            try:
                plant(root, path)
            except OSError:
                continue  # "a" and "a/b", or a name that is none
        expected = {
            (Path(directory) / name).relative_to(root).as_posix()
            for directory, _, names in os.walk(root)
            for name in names
        }
        for follow_links in (False, True):
            assert set(files(walked(root, follow_links=follow_links))) == expected


class TestRoot:
    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(DeletionRefused, match="No such file") as caught:
            walked(tmp_path / "missing")
        assert "mounted" in (caught.value.hint or "")

    def test_a_file(self, root: Path) -> None:
        plant(root, "file")
        with pytest.raises(DeletionRefused, match="Not a directory"):
            walked(root / "file")

    def test_unreadable(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        refuse(monkeypatch, str(root))
        with pytest.raises(DeletionRefused, match="Permission denied"):
            walked(root)

    def test_follows_links_or_not_all_the_same(self, tmp_path: Path) -> None:
        with pytest.raises(DeletionRefused):
            walked(tmp_path / "missing", follow_links=True)


def refuse(monkeypatch: pytest.MonkeyPatch, path: str, *, error: type[OSError] = PermissionError) -> None:
    """Make opening this directory fail. Tests may run as root, whom no file mode stops."""
    really_open = os.open

    def opened(target: str, flags: int, mode: int = 0o777) -> int:
        if str(target) == path:
            raise error(13, "Permission denied")
        return really_open(target, flags, mode)

    monkeypatch.setattr("chorus_upload.storage.local_source.os.open", opened)


class TestTrouble:
    def test_an_unreadable_directory_is_not_an_empty_one(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        plant(root, "a/1", "a/b/2", "c/3")
        refuse(monkeypatch, f"{root}/a")
        found = walked(root)
        assert found["a"] == Directory("a", [], [Problem(ProblemKind.UNREADABLE_DIRECTORY, "a", "Permission denied")])
        assert sorted(found) == ["", "a", "c"]

    def test_a_directory_that_breaks_off_is_unreadable_as_a_whole(
        self, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plant(root, "a/1", "a/2", "b/3")
        really_scan = os.scandir
        calls = 0

        class Breaks:
            def __init__(self, where: int) -> None:
                self._scan = really_scan(where)

            def __enter__(self) -> Breaks:
                return self

            def __exit__(self, *_: object) -> None:
                self._scan.close()

            def __iter__(self) -> Breaks:
                return self

            def __next__(self) -> os.DirEntry[str]:
                nonlocal calls
                calls += 1
                if calls == 4:  # the root's two, one of the first directory, and then
                    raise OSError(5, "Input/output error")
                return next(self._scan)

        monkeypatch.setattr("chorus_upload.storage.local_source.os.scandir", Breaks)
        monkeypatch.setattr(local_source, "_BY_DESCRIPTOR", True)
        found = walked(root)
        [broken] = [each for each in found.values() if each.problems]
        assert broken.entries == []
        assert broken.problems[0].kind is ProblemKind.UNREADABLE_DIRECTORY

    def test_a_directory_that_vanishes_is_unreadable(self, root: Path) -> None:
        plant(root, "a/1", "b/2")
        walk = LocalSource(root, follow_links=False).walk()
        assert next(walk).path == ""
        shutil.rmtree(root / "a")
        shutil.rmtree(root / "b")
        rest = {each.path: each for each in walk}
        assert files(rest) == []
        assert problems(rest) == [(ProblemKind.UNREADABLE_DIRECTORY, "a"), (ProblemKind.UNREADABLE_DIRECTORY, "b")]

    def test_a_directory_swapped_for_a_link_is_not_entered(self, root: Path, tmp_path: Path) -> None:
        plant(root, "a/1")
        plant(tmp_path / "outside", "secret")
        walk = LocalSource(root, follow_links=False).walk()
        next(walk)
        shutil.rmtree(root / "a")
        (root / "a").symlink_to(tmp_path / "outside")
        rest = {each.path: each for each in walk}
        assert files(rest) == []
        assert problems(rest) == [(ProblemKind.UNREADABLE_DIRECTORY, "a")]

    def test_a_file_that_vanishes_while_it_is_listed(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        plant(root, "a", "b")
        really_scan = os.scandir

        class Vanishing:
            def __init__(self, where: int) -> None:
                self._entries = list(really_scan(where))
                (root / "a").unlink()

            def __enter__(self) -> list[os.DirEntry[str]]:
                return self._entries

            def __exit__(self, *_: object) -> None:
                pass

        monkeypatch.setattr("chorus_upload.storage.local_source.os.scandir", Vanishing)
        monkeypatch.setattr(local_source, "_BY_DESCRIPTOR", True)
        found = walked(root)
        assert files(found) == ["b"]
        assert problems(found) == [(ProblemKind.VANISHED, "a")]

    def test_what_is_not_a_file(self, root: Path) -> None:
        os.mkfifo(root / "pipe")
        with socket.socket(socket.AF_UNIX) as opened:
            here = Path.cwd()
            os.chdir(root)  # the path of a socket has at most about 100 characters
            try:
                opened.bind("socket")
            finally:
                os.chdir(here)
        plant(root, "file")
        found = walked(root)
        assert files(found) == ["file"]
        assert problems(found) == [(ProblemKind.NOT_A_FILE, "pipe"), (ProblemKind.NOT_A_FILE, "socket")]
        assert {each.detail for each in found[""].problems} == {"a pipe", "a socket"}


class TestNames:
    def test_that_are_not_utf_8(self, root: Path) -> None:
        (root / "good ü").write_text("1")
        with open(os.fsencode(root) + b"/bad \xff", "w"):  # noqa: PTH123
            pass
        os.mkdir(os.fsencode(root) + b"/dir \xe9")  # noqa: PTH102
        found = walked(root)
        assert files(found) == ["good ü"]
        assert problems(found) == [(ProblemKind.INVALID_NAME, "bad \\xff"), (ProblemKind.INVALID_NAME, "dir \\xe9")]
        assert all(path.encode() for _, path in problems(found))

    @pytest.mark.parametrize(
        "names",
        [("Scan.dcm", "scan.dcm"), ("é", "e\N{COMBINING ACUTE ACCENT}"), ("STRASSE", "straße"), ("Ä.csv", "ä.csv")],
    )
    def test_that_some_systems_cannot_tell_apart(self, root: Path, names: tuple[str, str]) -> None:
        plant(root, *(f"dir/{name}" for name in names), "dir/other", "DIR/x")
        found = walked(root)
        assert len(files(found)) == 4
        kinds = {each.kind for directory in found.values() for each in directory.problems}
        assert kinds == {ProblemKind.NAMES_DIFFER_ONLY_IN_CASE}
        [inner] = found["dir"].problems
        assert {inner.path, f"dir/{inner.detail.removeprefix('alike: ')}"} == {f"dir/{name}" for name in names}
        assert len(found[""].problems) == 1  # dir and DIR


class TestLinks:
    def test_to_a_file_is_that_file(self, root: Path) -> None:
        plant(root, "a/target")
        os.utime(root / "a/target", ns=(0, 5_000))
        (root / "link").symlink_to(root / "a/target")
        found = walked(root)
        assert found[""].entries == [Entry("link", 8, 5)]
        assert problems(found) == []
        source = LocalSource(root, follow_links=None)
        assert source.read_small("link", size=8).data == b"a/target"
        assert source.stat("link") == (8, 5)

    def test_to_a_file_outside_only_when_asked(self, root: Path, tmp_path: Path) -> None:
        plant(tmp_path, "target")
        (root / "link").symlink_to(tmp_path / "target")
        for undecided in (None, False):
            found = walked(root, follow_links=undecided)
            assert files(found) == []
            assert problems(found) == [(ProblemKind.LINK_TO_OUTSIDE, "link")]
            with pytest.raises(OSError, match="outside of the source"):
                LocalSource(root, follow_links=undecided).open("link")
        assert files(walked(root, follow_links=True)) == ["link"]
        assert LocalSource(root, follow_links=True).read_small("link", size=6).data == b"target"

    def test_a_file_swapped_for_one_is_not_read(self, root: Path, tmp_path: Path) -> None:
        """Nor is one whose directory was swapped, although the thread has read in it before."""
        plant(root, "a/1", "a/2", "b/3")
        plant(tmp_path, "outside/1", "outside/2", "outside/3")
        source = LocalSource(root, follow_links=None)
        assert source.read_small("a/1", size=3).data == b"a/1"
        (root / "a/1").unlink()
        (root / "a/1").symlink_to(tmp_path / "outside/1")
        (root / "b").rename(root / "c")
        (root / "b").symlink_to(tmp_path / "outside")
        for path in ("a/1", "b/3"):
            for do in (source.open, source.stat, lambda path: source.read_small(path, size=3)):
                with pytest.raises(OSError, match=r"outside of the source|leads through a link"):
                    do(path)
        assert source.read_small("a/2", size=3).data == b"a/2"
        (root / "a").rename(root / "d")
        (root / "a").symlink_to(tmp_path / "outside")
        # What is read now is what was listed, wherever it lies by now; anybody who comes new is kept out.
        assert source.read_small("a/2", size=3).data == b"a/2"
        with pytest.raises(OSError, match="leads through a link"):
            LocalSource(root, follow_links=None).open("a/2")

    def test_a_directory_that_was_made_anew_is_seen(self, root: Path) -> None:
        plant(root, "a/1")
        source = LocalSource(root, follow_links=None)
        assert source.stat("a/1") is not None
        shutil.rmtree(root / "a")
        plant(root, "a/1")
        assert source.read_small("a/1", size=3).data == b"a/1"

    def test_to_nothing(self, root: Path) -> None:
        (root / "broken").symlink_to("nowhere")
        (root / "self").symlink_to("self")
        found = walked(root)
        assert problems(found) == [(ProblemKind.UNREADABLE_FILE, "broken"), (ProblemKind.UNREADABLE_FILE, "self")]

    def test_to_a_directory_only_when_asked(self, root: Path, tmp_path: Path) -> None:
        plant(tmp_path, "elsewhere/1", "elsewhere/sub/2")
        (root / "link").symlink_to(tmp_path / "elsewhere")
        found = walked(root)
        assert files(found) == []
        assert problems(found) == [(ProblemKind.LINK_TO_DIRECTORY, "link")]
        assert problems(walked(root, follow_links=False)) == [(ProblemKind.SKIPPED_LINK, "link")]
        found = walked(root, follow_links=True)
        assert files(found) == ["link/1", "link/sub/2"]
        assert problems(found) == []

    def test_round_in_circles(self, root: Path) -> None:
        plant(root, "a/b/1")
        (root / "a/b/up").symlink_to(root / "a")
        (root / "a/b/top").symlink_to(root)
        (root / "a/here").symlink_to(".")
        found = walked(root, follow_links=True)
        assert files(found) == ["a/b/1"]
        assert problems(found) == [
            (ProblemKind.LINK_LOOP, "a/b/top"), (ProblemKind.LINK_LOOP, "a/b/up"), (ProblemKind.LINK_LOOP, "a/here"),
        ]  # fmt: skip

    def test_into_each_other(self, root: Path) -> None:
        plant(root, "a/1", "b/2")
        (root / "a/to_b").symlink_to(root / "b")
        (root / "b/to_a").symlink_to(root / "a")
        found = walked(root, follow_links=True)
        assert files(found) == ["a/1", "a/to_b/2", "b/2", "b/to_a/1"]
        assert problems(found) == [(ProblemKind.LINK_LOOP, "a/to_b/to_a"), (ProblemKind.LINK_LOOP, "b/to_a/to_b")]

    def test_twice_to_the_same_is_no_circle(self, root: Path, tmp_path: Path) -> None:
        plant(tmp_path, "elsewhere/1")
        for name in ("x", "y"):
            (root / name).symlink_to(tmp_path / "elsewhere")
        assert files(walked(root, follow_links=True)) == ["x/1", "y/1"]


class TestOneFile:
    def test_stat_and_open_agree_with_the_walk(self, root: Path) -> None:
        plant(root, "a/b c.csv")
        with LocalSource(root, follow_links=False) as source:
            [entry] = [entry for directory in source.walk() for entry in directory.entries]
            assert source.stat("a/b c.csv") == entry[1:]
            with source.open("a/b c.csv") as stream:
                assert source.open_stat(stream) == entry[1:]
                assert stream.read() == b"a/b c.csv"

    def test_what_is_no_file(self, root: Path) -> None:
        plant(root, "dir/1")
        os.mkfifo(root / "pipe")
        source = LocalSource(root, follow_links=False)
        for path in ("missing", "dir", "pipe", "dir/1/2", "missing/1"):
            assert source.stat(path) is None
            with pytest.raises(OSError, match=r"No such file|Not a directory|not a regular file"):
                source.open(path)

    def test_a_small_file_is_read_at_once(self, root: Path) -> None:
        plant(root, "a/1")
        (root / "empty").touch()
        source = LocalSource(root, follow_links=False)
        assert source.read_small("a/1", size=3) == (b"a/1", source.stat("a/1"))
        assert source.read_small("a/1", size=2).data == b"a/1"
        assert source.read_small("a/1", size=1).data == b"a/"
        assert source.read_small("a/1", size=9).data == b"a/1"
        assert source.read_small("empty", size=0).data == b""
        (root / "pipe").unlink(missing_ok=True)
        os.mkfifo(root / "pipe")
        for path in ("missing", "a", "../source/a/1", "pipe"):
            with pytest.raises(OSError, match=r"No such file|not a regular file|not a path|Is a directory"):
                source.read_small(path, size=10)

    def test_a_small_file_that_changes_while_it_is_read_shows(
        self, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plant(root, "file")
        source = LocalSource(root, follow_links=False)
        before = source.stat("file")
        really_read = os.read

        def grows(descriptor: int, length: int) -> bytes:
            with (root / "file").open("a") as file:
                file.write("more")
            return really_read(descriptor, length)

        monkeypatch.setattr("chorus_upload.storage.local_source.os.read", grows)
        found = source.read_small("file", size=4)
        assert len(found.data) > 4
        assert found.state != before

    def test_a_pipe_does_not_hang(self, root: Path) -> None:
        os.mkfifo(root / "pipe")
        refused = threading.Event()

        def read() -> None:
            with pytest.raises(OSError, match="not a regular file"):
                LocalSource(root, follow_links=False).open("pipe")
            refused.set()

        threading.Thread(target=read, daemon=True).start()
        assert refused.wait(5)

    @pytest.mark.parametrize("path", ["../outside", "/etc/hostname", "a/../../outside", "", ".", "a//b", "nul\0"])
    def test_a_damaged_journal_cannot_lead_out(self, root: Path, path: str) -> None:
        plant(root.parent, "outside")
        source = LocalSource(root, follow_links=True)
        acts: list[Callable[[str], object]] = [source.stat, source.open]
        for act in acts:
            with pytest.raises(OSError, match="not a path inside the source"):
                act(path)

    def test_links_to_directories_lead_out_only_when_asked(self, root: Path, tmp_path: Path) -> None:
        plant(tmp_path, "elsewhere/1")
        (root / "link").symlink_to(tmp_path / "elsewhere")
        strict = LocalSource(root, follow_links=False)
        acts: list[Callable[[str], object]] = [strict.stat, strict.open]
        for act in acts:
            with pytest.raises(OSError, match="leads through a link"):
                act("link/1")
        with LocalSource(root, follow_links=True).open("link/1") as stream:
            assert stream.read() == b"elsewhere/1"


def test_a_file_that_was_written_to_in_secret_while_it_was_read(tmp_path: Path) -> None:
    """Neither its size nor its time shows it."""
    build(tmp_path, {"scan.dcm": Bytes(100)})
    with LocalSource(tmp_path, follow_links=False) as source, source.open("scan.dcm") as stream:
        before = source.open_stat(stream)
        assert source.open_stat(stream) == before
        time.sleep(0.02)
        change_in_secret(tmp_path / "scan.dcm")

        with pytest.raises(FileReplaced):
            source.open_stat(stream)
