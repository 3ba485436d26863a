"""Another service with a container of the same name: what was delivered to one is not delivered to the other.

The same service under another address is the same, once a person has said so. Journals of earlier releases, which did
not record the service, go on without a file being sent again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.e2e.clouds import Cloud, Container, Disk, ask, files_of
from tests.e2e.conftest import new_disk, settle
from tests.e2e.site import Site
from tests.emulators import Azurite, running_azurite
from tests.faults.figures import Figures
from tests.gs import Bucket as GsBucket
from tests.gs import running_fake_gcs, running_front
from tests.s3 import Bucket as S3Bucket
from tests.s3 import SeaweedFS, running_seaweedfs
from tests.trees import Content, build
from tests.wire import Wire

TREE: dict[str, Content] = {
    "OMOP/person.csv": "person_id\n1\n",
    "1001/Images/a.dcm": b"image",
    "Metadata/README.md": "about",
}
KEYS = {f"spring/{path}" for path in TREE}


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A journal on a disk, for a site whose files go to a service."""

    journal: Disk
    files: Cloud

    @property
    def config(self) -> str:
        central = self.files.config.partition("[central_path]")
        return self.journal.config.partition("[central_path]")[0] + "".join(central[1:])

    @property
    def secrets(self) -> tuple[str, ...]:
        return self.files.secrets

    def objects(self) -> dict[str, bytes]:
        return self.files.objects()

    def backups(self) -> dict[str, bytes]:
        return {}

    def put(self, key: str, content: bytes) -> None:
        self.files.put(key, content)

    def delete(self, key: str) -> None:
        self.files.delete(key)


@pytest.fixture(scope="module")
def other_azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    with running_azurite(tmp_path_factory.mktemp("azurite")) as service:
        yield service


def delivered(tmp_path: Path, cloud: Cloud) -> Site:
    """A site that has sent all that it has."""
    site = settled(tmp_path, cloud)
    site.run("journal", "update", "--version", "spring")
    site.run("file", "upload")
    assert files_of(cloud.objects()).keys() == KEYS
    return site


def settled(tmp_path: Path, cloud: Cloud) -> Site:
    """The same machine, with a configuration that sends to this cloud."""
    disk = Disk(tmp_path / "cloud") if (tmp_path / "cloud").exists() else new_disk(tmp_path / "cloud")
    return settle(tmp_path / "home", build(tmp_path / "source", TREE), Elsewhere(disk, cloud))


def require_asked(tmp_path: Path, there: Cloud, here: Cloud) -> None:
    """After deliveries there, nothing is done here before it is said what this is; then all is sent, or nothing."""
    delivered(tmp_path, there)
    site = settled(tmp_path, here)

    for command in (
        "file list",
        "file upload",
        "file upload --dry-run",
        "file verify",
        "file download",
        "journal list",
    ):
        refused = site.run(*command.split(), exit_code=7)
        assert "is not the one that the journal knows: 3 files were delivered to" in refused.err, command
        assert "--same-destination: what was delivered there counts as delivered here" in refused.err, command
        assert "--new-destination: nothing counts as delivered here, and everything is sent" in refused.err, command
    assert "is not the one that the journal knows" in site.run("journal", "update", "--amend").err
    assert files_of(here.objects()) == {}
    assert set(site.run("file", "list", "--same-destination").lines) == set()
    assert set(site.run("file", "list", "--new-destination").lines) == TREE.keys()

    site.run("file", "upload", "--new-destination")

    assert files_of(here.objects()).keys() == KEYS
    assert site.pending() == set()
    site.run("file", "verify")
    # It knows both of them now.
    assert settled(tmp_path, there).pending() == set()


@pytest.mark.thorough
def test_two_azurites(tmp_path: Path, container: Container, other_azurite: Azurite, figures: Figures) -> None:
    with other_azurite.service() as service:
        service.create_container(container.name).close()
    here = Container(other_azurite, container.name, other_azurite.sas(container.name))

    require_asked(tmp_path, container, here)
    figures.count("services with a container of the same name")


def test_two_googles(tmp_path: Path, figures: Figures) -> None:
    token = build(tmp_path, {"token.txt": "ya29.a-token-of-the-tests\n"}) / "token.txt"
    token.chmod(0o600)
    with (
        running_fake_gcs(build(tmp_path / "one", {})) as one,
        running_fake_gcs(build(tmp_path / "other", {})) as other,
        running_front(one) as (_, there),
        running_front(other) as (_, here),
    ):
        name = there.create_bucket()
        here.create_bucket(name)

        require_asked(tmp_path, GsBucket(there, name, token), GsBucket(here, name, token))
    figures.count("services with a container of the same name")


@pytest.mark.thorough
def test_two_seaweeds(tmp_path: Path, seaweedfs: SeaweedFS, s3_bucket: str, figures: Figures) -> None:
    with running_seaweedfs(build(tmp_path / "weed", {})) as other:
        other.client.create_bucket(Bucket=s3_bucket)

        require_asked(tmp_path, S3Bucket(seaweedfs, s3_bucket), S3Bucket(other, s3_bucket))
    figures.count("services with a container of the same name")


def test_the_same_service_under_another_address(
    tmp_path: Path, seaweedfs: SeaweedFS, s3_bucket: str, figures: Figures
) -> None:
    cloud = S3Bucket(seaweedfs, s3_bucket)
    delivered(tmp_path, cloud)
    with Wire(seaweedfs.port) as wire:
        site = settled(tmp_path, replace(cloud, port=wire.port))
        assert f"127.0.0.1:{wire.port}" in site.run("file", "upload", exit_code=7).err

        site.run("file", "verify", "--same-destination")
        site.run("file", "upload", exit_code=7)
        told = site.run("--json", "file", "upload", "--same-destination").event("upload-finished")

        assert told["delivered"]["files"] == 0
        assert site.pending() == set()
        site.run("file", "verify")
        assert not [each for each in wire.requests if each.method == "PUT"]
    figures.count("other addresses of a service")


def test_both_answers_at_once_are_refused(tmp_path: Path, disk: Disk) -> None:
    site = settle(tmp_path / "home", build(tmp_path / "source", TREE), disk)
    refused = site.run("file", "upload", "--same-destination", "--new-destination", exit_code=2)
    assert "exclude each other" in refused.err


# --- journals of earlier releases ---------------------------------------------------------------------------------


def make_early(journal: Path, url: str) -> None:
    """Make a journal one of the first schema, whose only destination has this name."""
    with closing(sqlite3.connect(journal)) as database:
        database.execute("PRAGMA foreign_keys = OFF")
        database.executescript(
            """
            BEGIN;
            CREATE TABLE early (
                id INTEGER NOT NULL, url TEXT NOT NULL,
                CONSTRAINT pk_destination PRIMARY KEY (id), CONSTRAINT uq_destination_url UNIQUE (url)
            );
            INSERT INTO early SELECT id, url FROM destination;
            DROP TABLE destination;
            DROP TABLE mount_point;
            DROP TABLE archive_crc32;
            ALTER TABLE early RENAME TO destination;
            UPDATE alembic_version SET version_num = '0001';
            COMMIT;
            """
        )
        database.execute("UPDATE destination SET url = ?", (url,))
        database.commit()


def test_a_journal_that_does_not_say_which_service(
    tmp_path: Path, seaweedfs: SeaweedFS, s3_bucket: str, figures: Figures
) -> None:
    cloud = S3Bucket(seaweedfs, s3_bucket)
    require_taken_over(tmp_path, cloud, f"s3://{s3_bucket}/data", f"s3://{s3_bucket}/data@127.0.0.1:{seaweedfs.port}")
    figures.count("journals of earlier releases")


@pytest.mark.parametrize("account", ["@devstoreaccount1", ""])
def test_a_journal_that_says_the_account_or_nothing(
    tmp_path: Path, container: Container, account: str, figures: Figures
) -> None:
    place = f"az://{container.name}/data"
    service = f"127.0.0.1:{container.azurite.port}/devstoreaccount1"
    require_taken_over(tmp_path, container, f"{place}{account}", f"{place}@{service}")
    figures.count("journals of earlier releases")


def require_taken_over(tmp_path: Path, cloud: Cloud, early: str, name: str) -> None:
    """A journal of an earlier release goes on, nothing is sent again, and from then on it says the service."""
    site = delivered(tmp_path, cloud)
    journal = tmp_path / "cloud" / "journal" / "journal.db"
    make_early(journal, early)
    for path in tmp_path.glob("home/journal.db*"):
        path.unlink()
    before, objects = journal.read_bytes(), cloud.objects()

    assert site.pending() == set()
    assert "spring" in site.run("journal", "list").out
    assert "this command is not in the history of the journal" in site.run("file", "verify").err
    assert journal.read_bytes() == before, "it was only read"

    told = site.run("--json", "file", "upload").event("upload-finished")

    assert (told["delivered"]["files"], told["already_there"]["files"]) == (0, 0)
    assert cloud.objects() == objects
    assert ask(journal, "SELECT url, exact FROM destination") == [(name, 1)]
    assert site.pending() == set()


def test_a_journal_of_another_account_is_not_taken_over(tmp_path: Path, container: Container, figures: Figures) -> None:
    site = delivered(tmp_path, container)
    make_early(tmp_path / "cloud" / "journal" / "journal.db", f"az://{container.name}/data@chorusmgh")
    (tmp_path / "home" / "journal.db").unlink()

    assert "delivered to az://" in site.run("file", "list", exit_code=7).err
    figures.count("journals of another account")
