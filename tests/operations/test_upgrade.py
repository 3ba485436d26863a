"""`journal upgrade`: whatever happens, the old journal is never lost, and repeating the command ends well."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import datetime
from itertools import count
from pathlib import Path
from unittest.mock import patch

import pytest

from chorus_upload.config.settings import Location, SiteSettings
from chorus_upload.errors import CheckinConflict, JournalError, JournalLocked, JournalNotCheckedOut
from chorus_upload.events import JournalUpgraded, Notice, Tally
from chorus_upload.journal import checking
from chorus_upload.journal.journal import Journal
from chorus_upload.journal.legacy import OldJournal
from chorus_upload.journal.legacy_import import Terms, take_over
from chorus_upload.journal.legacy_proof import Proof, prove
from chorus_upload.layout import STANDARD_MODALITIES, default_pattern
from chorus_upload.operations import upgrade as upgrading
from chorus_upload.operations.custody import checkout, journal_session
from chorus_upload.operations.destination import Choice
from chorus_upload.operations.local_files import fetch_journal, take_place
from chorus_upload.operations.upgrade import UpgradeRequest
from chorus_upload.storage.store import Store
from tests.e2e.mortal import FaultyStore, Killed, Life, MortalJournal
from tests.operations.conftest import Site

LEGACY = Path(__file__).parents[1] / "data" / "legacy"
ORIGINAL = (LEGACY / "journal-v2.db").read_bytes()


@pytest.fixture
def old_site(site: Site) -> Site:
    """A site whose cloud journal is of the older tool."""
    source = Location(path=str(site.source))
    sites = {
        name: SiteSettings(modality=name, location=source, pattern=default_pattern(name, omop_per_patient=False))
        for name in STANDARD_MODALITIES
    }
    old = site.with_settings(sites=sites, modalities=STANDARD_MODALITIES)
    put(old.cloud, ORIGINAL)
    return old


def put(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)
    path.write_bytes(content)


def upgrade(
    site: Site, *, local: Path | None = None, confirm_omissions: bool = False, destination: Choice | None = Choice.SAME
) -> JournalUpgraded | None:
    """Upgrade, for a user who knows that the files went to this central store: it is empty here."""
    request = UpgradeRequest(local_journal=local, confirm_omissions=confirm_omissions, destination=destination)
    return upgrading.upgrade(site.settings, request, emit=site.events.append, redact=str)


def notices(site: Site) -> list[str]:
    return [event.text for event in site.events if isinstance(event, Notice)]


def kept(path: Path) -> list[Path]:
    """The originals that are kept beside a journal."""
    return sorted(each for each in path.parent.glob(f"{path.name}.2*") if not each.name.endswith(".backup"))


def traces(site: Site) -> set[str]:
    """What ought to be gone when a command has ended."""
    passing = ("locked", "claim", "original", "converted", "offered", "fetched")
    return {
        path.name for path in [*site.home.glob("*.db.*"), *site.cloud.parent.iterdir()] if path.suffix[1:] in passing
    }


def ask(path: Path, question: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
        return database.execute(question).fetchall()


def test_the_cloud_journal_is_ours_and_the_original_is_kept(old_site: Site) -> None:
    site = old_site

    done = upgrade(site)

    assert done is not None
    assert (done.generation, done.submissions, done.commands, done.omitted, done.remarks) == ("v2", 2, 4, 0, ())
    assert sum((part.active for part in done.parts), Tally()) == Tally(29, 45_169)
    assert sum((part.pending for part in done.parts), Tally()) == Tally(3, 1_621)
    assert done.sent_to == ("az://legacy181136402/v2/",)
    assert [path.read_bytes() for path in kept(site.cloud)] == [ORIGINAL]
    assert done.original == str(kept(site.cloud)[0])
    assert ask(site.cloud, "SELECT count(*) FROM file") == [(37,)]
    assert ask(site.cloud, "SELECT url FROM destination") == [(site.central.as_posix(),)]
    assert ask(site.cloud, "SELECT command, exit_code FROM command ORDER BY id DESC LIMIT 1") == [
        ("journal upgrade", 0)
    ]
    assert site.local_state() == "in"
    assert traces(site) == set()


def test_once_more_changes_nothing(old_site: Site) -> None:
    upgrade(old_site)
    before = old_site.cloud.read_bytes()

    assert upgrade(old_site) is None

    assert old_site.cloud.read_bytes() == before
    assert "nothing to upgrade" in notices(old_site)[-1]
    assert len(kept(old_site.cloud)) == 1


def test_the_next_command_works_on_it(old_site: Site) -> None:
    upgrade(old_site)

    with old_site.journal("journal update") as journal:
        assert journal.problems() == []

    assert traces(old_site) == set()


# --- others ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("leaves_the_journal", [True, False])
def test_the_lock_of_the_older_tool_is_respected(old_site: Site, *, leaves_the_journal: bool) -> None:
    """It is a copy of the journal, which itself may be gone meanwhile."""
    site = old_site
    put(site.cloud.with_name("journal.db.locked"), ORIGINAL)
    if not leaves_the_journal:
        site.cloud.unlink()
    before = {path.name for path in site.cloud.parent.iterdir()}

    with pytest.raises(JournalLocked, match="an older chorus-upload holds it") as refusal:
        upgrade(site)

    assert "journal unlock" in str(refusal.value.hint)
    assert {path.name for path in site.cloud.parent.iterdir()} == before
    assert not site.local.exists()


def test_somebody_else_who_upgrades_is_respected(old_site: Site, tmp_path: Path) -> None:
    site = old_site
    elsewhere = site.settings.journal.model_copy(update={"local_path": tmp_path / "other.db"})
    colleague = site.with_settings(journal=elsewhere)
    refused: list[JournalLocked] = []

    def meanwhile(*_: object, **__: object) -> None:
        with pytest.raises(JournalLocked) as refusal:
            upgrade(colleague)
        refused.append(refusal.value)
        raise Killed

    with patch("chorus_upload.operations.converting.prove", meanwhile), suppress(Killed):
        upgrade(site)

    assert "holds it since" in refused[0].message
    assert site.cloud.read_bytes() == ORIGINAL
    assert traces(site) == set()


def test_a_journal_that_changes_meanwhile_is_left_alone(old_site: Site) -> None:
    site = old_site

    def fetch_and_lose(store: Store, location: Location, target: Path) -> None:
        fetch_journal(store, location, target)
        put(site.cloud, ORIGINAL + b"more")

    with patch.object(upgrading, "fetch_journal", fetch_and_lose), pytest.raises(JournalError, match="just changed"):
        upgrade(site)

    assert site.cloud.read_bytes() == ORIGINAL + b"more"
    assert traces(site) == set()


def test_a_journal_that_is_replaced_at_the_last_moment_is_not_overwritten(old_site: Site) -> None:
    site = old_site

    def take_place_and_lose(converted: Path, local: Path) -> None:
        take_place(converted, local)
        put(site.cloud, b"somebody else's")

    with patch.object(upgrading, "take_place", take_place_and_lose), pytest.raises(CheckinConflict):
        upgrade(site)

    assert site.cloud.read_bytes() == b"somebody else's"
    assert [path.read_bytes() for path in kept(site.cloud)] == [ORIGINAL]


# --- what is on this machine ----------------------------------------------------------------------------------------


def test_an_old_journal_on_this_machine_is_kept_aside(old_site: Site) -> None:
    """It may hold what was never checked in."""
    site = old_site
    put(site.local, ORIGINAL + b"unsaved")

    upgrade(site)

    assert [path.read_bytes() for path in kept(site.local)] == [ORIGINAL + b"unsaved"]
    assert any(str(kept(site.local)[0]) in text for text in notices(site))
    assert site.local_state() == "in"


def test_on_the_other_machines_only_the_local_one_has_to_go(old_site: Site) -> None:
    site = old_site
    upgrade(site)
    site.local.unlink()
    put(site.local, ORIGINAL)
    with pytest.raises(JournalError, match="older chorus-upload") as refusal, site.journal():
        pytest.fail("it must not be replaced in silence")
    assert "journal upgrade" in str(refusal.value.hint)

    assert upgrade(site) is None

    assert [path.read_bytes() for path in kept(site.local)] == [ORIGINAL]
    with site.journal():
        pass


def test_a_journal_that_is_checked_out_by_hand_is_left_alone(old_site: Site) -> None:
    site = old_site
    upgrade(site)
    checkout(site.settings, local_journal=None, emit=site.events.append)

    assert upgrade(site) is None

    assert site.local_state() == "out"
    assert str(site.local) in notices(site)[-1]


def test_what_an_interrupted_command_left_is_checked_in_first(old_site: Site) -> None:
    site = old_site
    upgrade(site)

    def crash() -> None:
        with site.journal("crashed"):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        crash()

    assert upgrade(site) is None

    assert ask(site.cloud, "SELECT command FROM command ORDER BY id DESC LIMIT 1") == [("crashed",)]
    assert traces(site) == set()


def test_there_is_no_journal_at_all(old_site: Site) -> None:
    old_site.cloud.unlink()

    with pytest.raises(JournalNotCheckedOut) as refusal:
        upgrade(old_site)

    assert "--local-journal" in str(refusal.value.hint)


# --- what cannot be converted ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["empty", "text", "torn", "recipes"])
def test_what_is_no_journal_is_refused_and_left_alone(damage: str, old_site: Site, tmp_path: Path) -> None:
    site = old_site
    with closing(sqlite3.connect(tmp_path / "recipes.db")) as database:
        database.execute("CREATE TABLE recipe (name)")
    contents = {
        "empty": b"",
        "text": b"no journal",
        "torn": ORIGINAL[: len(ORIGINAL) // 2],
        "recipes": (tmp_path / "recipes.db").read_bytes(),
    }
    put(site.cloud, contents[damage])

    with pytest.raises(JournalError) as refusal:
        upgrade(site)

    assert site.cloud.name in refusal.value.message
    assert site.cloud.read_bytes() == contents[damage]
    assert {path.name for path in site.cloud.parent.iterdir()} == {"journal.db"}
    assert not site.local.exists()


@pytest.fixture
def strange_site(old_site: Site) -> Site:
    """A site whose old journal has rows that make no sense."""
    with closing(sqlite3.connect(old_site.cloud)) as database, database:
        database.execute("UPDATE journal_v2 SET SIZE = 'big' WHERE FILE_ID IN (2, 3)")
    return old_site


def test_rows_that_make_no_sense_are_refused_and_named(strange_site: Site) -> None:
    site, before = strange_site, strange_site.cloud.read_bytes()

    with pytest.raises(JournalError, match="2 rows that cannot be taken over, nothing was changed") as refusal:
        upgrade(site)

    assert "row 2, OMOP/person.csv: its size is 'big'" in refusal.value.message
    assert "--confirm-omissions" in str(refusal.value.hint)
    assert site.cloud.read_bytes() == before
    assert {path.name for path in site.cloud.parent.iterdir()} == {"journal.db"}


def test_rows_that_make_no_sense_are_left_out_when_that_is_confirmed(strange_site: Site) -> None:
    done = upgrade(strange_site, confirm_omissions=True)

    assert done is not None
    assert done.omitted == 2
    named = [text for text in notices(strange_site) if text.startswith("left out: ")]
    assert [text.split(",")[0] for text in named] == ["left out: row 3", "left out: row 2"]
    assert ask(strange_site.cloud, "SELECT count(*) FROM file") == [(35,)]


def test_a_defect_of_the_conversion_is_found_and_changes_nothing(old_site: Site) -> None:
    site = old_site

    def take_over_badly(journal: Journal, old: OldJournal, terms: Terms) -> object:
        remarks = take_over(journal, old, terms)
        with journal.transaction() as connection:
            connection.exec_driver_sql("DELETE FROM file WHERE id = 41")
        return remarks

    with (
        patch("chorus_upload.operations.converting.take_over", take_over_badly),
        pytest.raises(JournalError, match="rows: 41 before, 40 after"),
    ):
        upgrade(site)

    assert site.cloud.read_bytes() == ORIGINAL
    assert kept(site.cloud) == []
    assert traces(site) == set()


def test_a_modality_that_is_not_configured_any_more(old_site: Site) -> None:
    """Its keys are those of the usual layout."""
    site = old_site.with_settings(modalities=("OMOP",), sites={"OMOP": old_site.settings.sites["OMOP"]})

    upgrade(site)

    keys = {str(key) for (key,) in ask(site.cloud, "SELECT key FROM delivery")}
    assert "20240101000000/1000101/Waveforms/1/1000101_002.dat" in keys


@pytest.mark.parametrize("last", ["one of them", "nobody knows"])
def test_of_two_uploads_to_one_key_only_the_last_counts(old_site: Site, last: str) -> None:
    """The other one is not there any more. Rows that contradict each other would make the new journal unsound."""
    sites = old_site.settings.sites
    omop = sites["OMOP"].model_copy(update={"pattern": "OMOP/{filepath}.csv"})
    site = old_site.with_settings(sites={**sites, "OMOP": omop})
    active = "TIME_INVALID_us IS NULL AND UPLOAD_DT_ID IS NOT NULL"
    with closing(sqlite3.connect(site.cloud)) as database, database:
        database.execute(
            f"UPDATE journal_v2 SET FILENAME = 'measurement.CSV' WHERE {active} AND FILENAME = 'visit_occurrence.csv'"  # noqa: S608
        )
        if last == "one of them":
            database.execute("INSERT INTO uploads (UPLOAD_DT) VALUES ('20261122000000')")
            database.execute(
                f"UPDATE journal_v2 SET UPLOAD_DT_ID = (SELECT max(id) FROM uploads) WHERE {active}"  # noqa: S608
                " AND FILENAME = 'measurement.CSV'"
            )

    done = upgrade(site)

    assert done is not None
    (remark,) = [each for each in done.remarks if "central key of another one" in each.reason]
    with Journal.open(site.local, read_only=True) as journal:
        assert [each for each in checking.findings(journal) if each.is_broken] == []
    delivered = ask(
        site.cloud,
        "SELECT name FROM file JOIN delivery ON file_id = file.id WHERE name LIKE 'measurement.%'",
    )
    if last == "one of them":
        assert (remark.count, remark.examples, delivered) == (1, ("OMOP/measurement.csv",), [("measurement.CSV",)])
    else:
        assert (remark.count, delivered) == (2, [])
    told = sum(part.pending.files for part in done.parts)
    pending = "SELECT count(*) FROM file WHERE retired_by IS NULL AND id NOT IN (SELECT file_id FROM delivery)"
    assert ask(site.cloud, pending) == [(told,)]


# --- the name of the original ---------------------------------------------------------------------------------------


def test_what_the_older_tool_cut_off_names_is_cut_off_keys(old_site: Site) -> None:
    """Its objects are called so."""
    sites = old_site.settings.sites
    omop = sites["OMOP"].model_copy(update={"pattern": "OMOP/{filepath}.csv"})
    upgrade(old_site.with_settings(sites={**sites, "OMOP": omop}))

    question = "SELECT DISTINCT key FROM delivery WHERE key LIKE '%/OMOP/%' ORDER BY key"
    assert {str(key).rpartition("/")[2] for (key,) in ask(old_site.cloud, question)} >= {
        "measurement",
        "visit_occurrence",
    }


def test_the_original_is_named_after_its_last_change(old_site: Site) -> None:
    """So a second attempt finds the copy of the first one; another journal of that second is left alone."""
    site = old_site
    stored = dated_name(site.cloud)
    put(site.cloud.with_name(stored), b"another")

    done = upgrade(site)

    assert done is not None
    assert Path(done.original).name == f"{stored}-2"
    assert [path.read_bytes() for path in kept(site.cloud)] == [b"another", ORIGINAL]


def dated_name(path: Path) -> str:
    return f"{path.name}.{datetime.fromtimestamp(path.stat().st_mtime).astimezone():%Y%m%d%H%M%S}"


# --- a mere file ----------------------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """An old journal that lies somewhere on this machine."""
    return Path(shutil.copy2(LEGACY / "journal-v1.db", tmp_path / "old.db"))


def test_a_file_is_converted_in_its_place(site: Site, file: Path) -> None:
    original = file.read_bytes()

    done = upgrade(site, local=file)

    assert done is not None
    assert (done.journal, done.in_cloud, done.original) == (str(file), False, str(kept(file)[0]))
    assert [path.read_bytes() for path in kept(file)] == [original]
    assert ask(file, "SELECT count(*) FROM file") == [(36,)]
    assert list(site.cloud.parent.iterdir()) == []
    assert upgrade(site, local=file) is None
    with journal_session(
        site.settings, command="x", arguments={}, emit=site.events.append, local_journal=file, local_only=True
    ) as session:
        assert session.journal.problems() == []


def test_a_file_that_is_being_written_is_left_alone(site: Site, file: Path) -> None:
    file.with_name("old.db-journal").write_bytes(b"half a transaction")

    with pytest.raises(JournalError, match="not finished"):
        upgrade(site, local=file)

    assert file.read_bytes() == (LEGACY / "journal-v1.db").read_bytes()


def test_a_file_that_changes_meanwhile_is_left_alone(site: Site, file: Path) -> None:
    def prove_late(journal: Journal, old: OldJournal, *, omitted: int) -> Proof:
        with closing(sqlite3.connect(file)) as database, database:
            database.execute("UPDATE journal SET SIZE = SIZE + 1 WHERE FILE_ID = 1")
        return prove(journal, old, omitted=omitted)

    with (
        patch("chorus_upload.operations.converting.prove", prove_late),
        pytest.raises(JournalError, match="just changed"),
    ):
        upgrade(site, local=file)

    assert ask(file, "SELECT SIZE FROM journal WHERE FILE_ID = 1") == [(20,)]
    assert kept(file) == []


def test_a_file_that_is_none(site: Site, file: Path) -> None:
    with pytest.raises(JournalNotCheckedOut):
        upgrade(site, local=file.with_name("absent.db"))
    file.write_bytes(b"")
    with pytest.raises(JournalError, match="is empty"):
        upgrade(site, local=file)


# --- every step is the last one -------------------------------------------------------------------------------------

STEPS = ("take_place", "move_aside", "drop_claim", "_keep_beside", "copy_at_rest")


@contextmanager
def mortal(life: Life) -> Iterator[None]:
    """What the program does to the cloud, to journals and to files on this machine is a step of its life."""

    def open_store(location: Location, *_: object, **__: object) -> FaultyStore:
        return FaultyStore(location.local_path, life, [])

    def step_of(function: Callable[..., object]) -> Callable[..., object]:
        def step(*arguments: object) -> object:
            life.step()
            return function(*arguments)

        return step

    MortalJournal.life = life
    with ExitStack() as patches:
        for name in STEPS:
            patches.enter_context(patch.object(upgrading, name, step_of(getattr(upgrading, name))))
        patches.enter_context(patch("chorus_upload.operations.upgrade.open_store", open_store))
        for module in ("upgrade", "handover"):
            patches.enter_context(patch(f"chorus_upload.operations.{module}.Journal", MortalJournal))
        try:
            yield
        except Killed:
            life.end()


@pytest.mark.parametrize("then", ["upgrade", "another command"])
def test_a_crash_after_every_step(old_site: Site, then: str) -> None:
    """The old journal is in the cloud, or the new one with the old one beside it; and the same command ends well."""
    site, life = old_site, Life()
    for steps in count():
        for path in [*site.home.glob("journal.db*"), *site.cloud.parent.iterdir()]:
            path.unlink()
        put(site.cloud, ORIGINAL)
        put(site.local, ORIGINAL + b"unsaved")
        life.steps_left = steps
        done: list[JournalUpgraded | None] = []
        with mortal(life):
            done.append(upgrade(site))
        life.steps_left = None
        assert site.cloud.read_bytes() == ORIGINAL or [path.read_bytes() for path in kept(site.cloud)] == [ORIGINAL]
        if then == "another command":
            with suppress(JournalError), site.journal("another"):
                pass
        upgrade(site)

        assert [path.read_bytes() for path in kept(site.cloud)] == [ORIGINAL]
        assert [path.read_bytes() for path in kept(site.local)] == [ORIGINAL + b"unsaved"]
        assert ask(site.cloud, "SELECT count(*) FROM file") == [(37,)]
        assert site.local_state() == "in"
        assert traces(site) == set()
        if done:
            break
    assert steps > 10


def test_a_crash_after_every_step_in_a_file(site: Site, file: Path) -> None:
    original, life = file.read_bytes(), Life()
    for steps in count():
        for path in file.parent.glob("old.db*"):
            path.unlink()
        shutil.copy2(LEGACY / "journal-v1.db", file)
        life.steps_left = steps
        done: list[JournalUpgraded | None] = []
        with mortal(life):
            done.append(upgrade(site, local=file))
        life.steps_left = None
        assert file.read_bytes() == original or [path.read_bytes() for path in kept(file)] == [original]

        upgrade(site, local=file)

        assert [path.read_bytes() for path in kept(file)] == [original]
        assert ask(file, "SELECT count(*) FROM file") == [(36,)]
        if done:
            break
    assert steps >= 2
