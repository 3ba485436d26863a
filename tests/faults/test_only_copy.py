"""Where the only copy of something is, nothing is brought back to: not to a store, a source or a journal."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from chorus_upload.config.loading import load
from chorus_upload.errors import ConfigError
from chorus_upload.operations.overlap import require_apart
from tests.e2e.clouds import Disk
from tests.e2e.conftest import Prepared
from tests.e2e.mortal_program import Condition, Ended, Program, running_program
from tests.e2e.site import Site
from tests.faults.figures import Figures, possible
from tests.trees import Content, build, contents

TREE: dict[str, Content] = {
    "OMOP/person.csv": "as it was",
    "1001/Images/a.dcm": b"image",
    "Metadata/README.md": "about",
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """A site with two versions, of which the store has the only copies."""
    root = tmp_path_factory.mktemp("copies")
    prepared = Prepared.after(root, TREE, (("journal", "update", "--version", "spring"), ("file", "upload")))
    build(prepared.site.source, {"OMOP/person.csv": "as it is now"})
    prepared.site.run("journal", "update", "--version", "summer")
    prepared.site.run("file", "upload")
    return Prepared(prepared.site, prepared.root, shutil.copytree(prepared.root, root / "copy of both"))


@pytest.fixture
def site(prepared: Prepared) -> Site:
    return prepared.restore()


def places(site: Site) -> dict[str, Path]:
    assert isinstance(site.cloud, Disk)
    return {
        "store": site.cloud.root / "data",
        "source": site.source,
        "journal": site.cloud.root / "journal",
        "home": site.home,
    }


def kept(root: Path) -> dict[str, bytes]:
    """All that is there, but for what SQLite has beside a journal that is read."""
    return {path: body for path, body in contents(root).items() if not path.endswith(("-shm", "-wal"))}


def require_refused(site: Site, to: str, *options: str, says: str) -> None:
    root = site.home.parent
    before = kept(root)

    refused = site.run("file", "download", "--version", "spring", "--to", to, "--overwrite", *options, exit_code=2)

    assert says in refused.err
    assert "directory of its own" in refused.err or "name another" in refused.err
    assert kept(root) == before


@pytest.mark.parametrize(
    ("place", "below", "says"),
    [
        ("store", "", "is the central store"),
        ("store", "summer", "is in the central store"),
        ("store", "a/new/one", "is in the central store"),
        ("store", "..", "holds the central store"),
        ("source", "", "files would be replaced or removed that may be only there"),
        ("source", "back", "is in the source of OMOP"),
        ("source", "..", "holds the central store"),
        ("journal", "", "is the directory of the journal"),
        ("home", "", "is the directory of the local journal"),
    ],
)
def test_what_overlaps_is_refused(site: Site, place: str, below: str, says: str, figures: Figures) -> None:
    require_refused(site, str(places(site)[place] / below), says=says)
    figures.count("targets refused")


def test_a_source_that_holds_nothing_but_the_target_above_it(site: Site, tmp_path: Path, figures: Figures) -> None:
    inner = build(tmp_path / "outer", {}) / "inner"
    site.source.rename(inner)
    site.configure(site.config.read_text().replace(str(site.source), str(inner)))

    refused = site.run("file", "download", "--to", str(tmp_path / "outer"), exit_code=2)

    assert "holds the source of OMOP" in refused.err
    figures.count("targets refused")


@pytest.mark.parametrize("place", ["store", "source"])
def test_whatever_leads_there(site: Site, place: str, tmp_path: Path, figures: Figures) -> None:
    real = places(site)[place]
    (tmp_path / "link").symlink_to(real)
    (tmp_path / "inside").symlink_to(real / "OMOP")
    build(tmp_path / "beside", {})

    require_refused(site, str(tmp_path / "link" / "new"), says="is in")
    require_refused(site, str(tmp_path / "inside"), says="is in")
    require_refused(site, f"{tmp_path}/beside/../link", says="is ")
    require_refused(site, f"{real.parent}/./{real.name}//", says="is ")
    figures.count("targets refused", 4)


def test_a_store_that_is_named_by_a_link(site: Site, tmp_path: Path, figures: Figures) -> None:
    store = places(site)["store"]
    (tmp_path / "link").symlink_to(store)
    site.configure(site.config.read_text().replace(str(store), str(tmp_path / "link")))

    require_refused(site, str(store / "summer"), says="is in the central store")
    figures.count("targets refused")


def test_another_spelling_where_case_does_not_count(
    site: Site, monkeypatch: pytest.MonkeyPatch, figures: Figures
) -> None:
    """As on Windows and macOS: another name, and the same directory."""
    store = places(site)["store"]
    settings = load(site.config, environ={})
    real = Path.stat

    def stat(path: Path, **options: bool) -> object:
        return real(Path(str(path).replace("/DATA", "/data")), **options)

    monkeypatch.setattr(Path, "stat", stat)

    with pytest.raises(ConfigError, match="is in the central store"):
        require_apart(settings, store.parent / "DATA" / "summer", replaces=False)
    require_apart(settings, store.parent / "DATABASE", replaces=True)
    figures.count("targets refused")


@pytest.mark.parametrize("to", ["", " "])
def test_an_empty_name_is_no_directory(site: Site, to: str) -> None:
    assert "--to names no directory" in site.run("file", "download", "--to", to, exit_code=2).err


def test_a_lost_source_is_brought_back_in_its_place(site: Site) -> None:
    (site.source / "OMOP/person.csv").unlink()

    site.run("file", "download", "--to", str(site.source))

    assert (site.source / "OMOP/person.csv").read_text() == "as it is now"


def test_nothing_is_removed_from_a_source(site: Site, figures: Figures) -> None:
    before = kept(site.source)

    for option in (("--delete-extra", "--yes"), ("--overwrite", "--delete-extra", "--yes")):
        refused = site.run("file", "download", "--version", "spring", "--to", str(site.source), *option, exit_code=2)
        assert "files would be replaced or removed that may be only there" in refused.err
    assert kept(site.source) == before
    figures.count("targets refused", 2)


def test_beside_them_there_is_room(site: Site) -> None:
    """Also below the directory of a journal, which is where most sites work."""
    site.run("file", "download", "--version", "spring")

    assert (site.home / "spring/OMOP/person.csv").read_text() == "as it was"


# --- remote download -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["store", "source"])
@pytest.mark.parametrize("options", [(), ("--overwrite",)])
def test_a_plain_download_into_them(site: Site, place: str, options: tuple[str, ...], figures: Figures) -> None:
    before = kept(site.home.parent)
    to = places(site)[place] / "summer"

    refused = site.run("remote", "download", "spring/OMOP/person.csv", f"{to}/", *options, exit_code=2)

    assert "is in" in refused.err
    assert kept(site.home.parent) == before
    figures.count("targets refused")


@pytest.mark.parametrize("name", ["config.toml", "journal.db", "Config.TOML"])
def test_a_plain_download_over_a_file_of_the_program(site: Site, name: str, figures: Figures) -> None:
    assert isinstance(site.cloud, Disk)
    site.cloud.put(f"data/notes/{name}", b"from somewhere")
    before = kept(site.home)

    refused = site.run("remote", "download", f"notes/{name}", "./", "--overwrite", exit_code=2)

    assert "is the program's own" in refused.err
    assert kept(site.home) == before
    figures.count("targets refused")


def test_a_plain_download_that_leads_into_the_store(site: Site, tmp_path: Path, figures: Figures) -> None:
    """The target holds the store, and what is fetched would come to lie in it."""
    assert isinstance(site.cloud, Disk)
    site.cloud.put("data/data/summer/OMOP/person.csv", b"from somewhere")
    before = kept(site.home.parent)

    refused = site.run("remote", "download", "-r", "data", f"{site.cloud.root}/", "--overwrite", exit_code=2)

    assert "is in the central store or a source" in refused.err
    assert kept(site.home.parent) == before
    site.run("remote", "download", "spring/OMOP/person.csv", f"{site.cloud.root}/")
    assert (site.cloud.root / "person.csv").read_text() == "as it was"
    figures.count("targets refused")


# --- mounts ----------------------------------------------------------------------------------------------------------

MEDDLING = "tests.faults.meddling"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """The program, where it may mount directories that nobody else sees so."""
    with running_program(within=("unshare", "--mount", "--map-root-user")) as program:
        home = tmp_path_factory.mktemp("home")
        possible(program.run("--version", home=home).exit_code == 0, "mount something")
        yield program


def run_beside(program: Program, site: Site, mounted: Condition, *arguments: str) -> Ended:
    return program.run(*arguments, home=site.home, under=(mounted,))


@pytest.mark.parametrize("place", ["store", "source"])
@pytest.mark.parametrize(
    ("arguments", "below"),
    [
        (("file", "download", "--version", "spring", "--to", "back", "--overwrite"), "OMOP"),
        (("file", "download", "--version", "spring", "--to", "back", "--overwrite"), ""),
        (("file", "download", "--version", "spring", "--to", "back/new"), ""),
        (("remote", "download", "--overwrite", "spring/OMOP/person.csv", "back/OMOP/"), "OMOP"),
        (("remote", "download", "--overwrite", "spring/OMOP/person.csv", "back/OMOP/person.csv"), "OMOP"),
        (("remote", "download", "--overwrite", "-r", "spring/OMOP", "back/"), "OMOP"),
    ],
)
def test_a_directory_of_theirs_that_is_mounted_elsewhere(
    program: Program, site: Site, place: str, arguments: tuple[str, ...], below: str, figures: Figures
) -> None:
    """As containers get it: a directory in the store, under a name that says nothing of that."""
    inner = places(site)[place] / {"store": "summer", "source": "."}[place] / "OMOP"
    point = build(site.home / "a b" / "back", {}) / below
    point.mkdir(parents=True, exist_ok=True)
    before = kept(site.home.parent)
    mounted = Condition(f"{MEDDLING}:mount", {"what": str(inner), "where": str(point)})

    refused = run_beside(program, site, mounted, *(word.replace("back", "a b/back") for word in arguments))

    assert refused.exit_code == 2, refused.err
    assert (
        "is in the" in refused.err or "a part of the" in refused.err or "the central store or a source" in refused.err
    )
    assert kept(site.home.parent) == before
    figures.count("targets refused")


def test_a_mount_that_is_nobodys(program: Program, site: Site, tmp_path: Path, figures: Figures) -> None:
    """Another disk below the target: files come to lie there, whole, and nothing else does."""
    point = build(site.home / "back" / "OMOP", {"person.csv": "older"})
    disk = build(tmp_path / "disk", {"person.csv": "older"})
    mounted = Condition(f"{MEDDLING}:mount", {"what": str(disk), "where": str(point)})

    left = run_beside(program, site, mounted, "file", "download", "--version", "spring", "--to", "back")
    assert (left.exit_code, contents(disk)) == (3, {"person.csv": b"older"})
    brought = run_beside(
        program, site, mounted, "file", "download", "--version", "spring", "--to", "back", "--overwrite"
    )

    assert brought.exit_code == 0, brought.err
    assert contents(disk) == {"person.csv": b"as it was"}
    assert contents(site.home / "back").keys() == {"1001/Images/a.dcm", "Metadata/README.md", "OMOP/person.csv"}
    (disk / "person.csv").unlink()
    again = run_beside(program, site, mounted, "file", "download", "--version", "spring", "--to", "back")
    assert (again.exit_code, contents(disk)) == (0, {"person.csv": b"as it was"})
    figures.count("files brought back to another disk", 2)
