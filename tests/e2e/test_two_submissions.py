"""What a site does twice a year: update the journal, upload, work on the data, update and upload again.

With each generation of `config.toml` that sites have, by the commands that sites type, on an emulator whose every
object is compared with what was to be expected.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.clouds import (
    CENTRAL,
    JOURNAL,
    LOCK,
    Container,
    Disk,
    ask,
    fetched,
    files_of,
    manifest_for,
    manifest_of,
    others_of,
    sent,
    tables_of,
)
from tests.e2e.site import MODULE, SCRIPT, Site
from tests.trees import Bytes, build, bytes_of, remove, rename, touch
from tests.wire import Wire

FIRST, SECOND = "20260301080000", "20260901080000"
WARD = "OMOP,Images,Waveforms"


@dataclass(frozen=True, slots=True)
class File:
    """A file as people think of it, wherever a site keeps it and whatever it is called in the end."""

    modality: str
    patient: str
    name: str


@dataclass(frozen=True, slots=True)
class Generation:
    """A site as some year set it up: `path` is where it keeps a file, `key` what that is called centrally."""

    name: str
    program: tuple[str, ...]
    config: Callable[[Container, Path, Path], str]
    path: Callable[[File], str]
    key: Callable[[str, File], str]


def _config_2024(cloud: Container, journal: Path, source: Path) -> str:
    return f"""
[configuration]
upload_method = "builtin"
journaling_mode = "full"
supported_modalities = "{WARD}"
page_size = 1000
num_threads = 4

[journal]
path = "az://{cloud.name}/{JOURNAL}"
local_path = "{journal}"
upload_method = "builtin"
azure_account_url = "{cloud.url}"
azure_sas_token = "?{cloud.token}"

[central_path]
path = "az://{cloud.name}/{CENTRAL}/"
azure_container = "{cloud.name}"
azure_account_name = "{cloud.azurite.account}"
azure_account_url = "{cloud.url}"
azure_account_key = "{cloud.azurite.key}"

[site_path.default]
path = "{source}"
"""


def _config_2025(cloud: Container, journal: Path, source: Path) -> str:
    connection = cloud.azurite.connection_string.replace(cloud.azurite.account_url, cloud.url)
    return f"""
[configuration]
upload_method = "builtin"
journaling_mode = "full"
supported_modalities = "{WARD}"
num_threads = 4

[journal]
path = "az://{cloud.name}/{JOURNAL}"
local_path = "{journal}"
azure_storage_connection_string = "{connection}"

[central_path]
path = "az://{cloud.name}/{CENTRAL}"
azure_container = "{cloud.name}"
azure_connection_string = "{connection}"

[site_path.default]
path = "{source}"

[site_path.OMOP]
pattern = "{{patient_id:d}}/OMOP_tables/{{filepath}}"
omop_per_patient = true

[site_path.Images]
path = "{source}/radiology"
pattern = "Person{{patient_id:w}}/Images/{{filepath}}"
versioned = false

[site_path.Waveforms]
versioned = true
pattern = "export_{{version:w}}/{{patient_id:w}}/{{filepath}}"
"""


def _config_2026(cloud: Container, journal: Path, source: Path) -> str:
    return f"""
[configuration]
supported_modalities = ["OMOP", "Images", "Waveforms"]
num_threads = 4

[journal]
journaling_mode = "full"

[journal.local]
path = "{journal}"

[journal.source]
path = "az://{cloud.name}/{JOURNAL}"
upload_method = "builtin"

[journal.source.auth]
auth_mode = "sas"
azure_account_url = "{cloud.url}"
azure_sas_token = "{cloud.token}"

[central_path]
path = "{cloud.url}/{cloud.name}/{CENTRAL}?{cloud.token}"
patient_first = false
upload_method = "builtin"

[site_path.default]
path = "{source}"
"""


def _path_2025(file: File) -> str:
    match file.modality:
        case "OMOP":
            return f"{file.patient}/OMOP_tables/{file.name}"
        case "Images":
            return f"radiology/Person{file.patient}/Images/{file.name}"
        case "Waveforms":
            return f"export_spring/{file.patient}/{file.name}"
    return f"Metadata/{file.name}"


def _key_2025(version: str, file: File) -> str:
    if file.modality == "Metadata":
        return f"{version}/Metadata/{file.name}"
    version = "spring" if file.modality == "Waveforms" else version
    return f"{version}/{file.patient}/{file.modality}/{file.name}"


def _path_by_patient(file: File) -> str:
    if file.modality in ("OMOP", "Metadata"):
        return f"{file.modality}/{file.name}"
    return f"{file.patient}/{file.modality}/{file.name}"


def _key_2024(version: str, file: File) -> str:
    return f"{version}/{_path_by_patient(file)}"


def _key_2026(version: str, file: File) -> str:
    if file.modality in ("OMOP", "Metadata"):
        return f"{version}/{file.modality}/{file.name}"
    return f"{version}/{file.modality}/{file.patient}/{file.name}"


GENERATIONS = (
    Generation("2024", MODULE, _config_2024, _path_by_patient, _key_2024),
    Generation("2025", SCRIPT, _config_2025, _path_2025, _key_2025),
    Generation("2026", MODULE, _config_2026, _path_by_patient, _key_2026),
)

PERSON = File("OMOP", "1001", "person.csv")
NOTE = File("OMOP", "1001", "note.csv")
README = File("Metadata", "", "README.txt")
ECG = File("Waveforms", "1001", "ecg.edf")
SCANS = [File("Images", patient, f"ct/{number:03}.dcm") for patient in ("1001", "1002") for number in range(6)]
CHANGED, TOUCHED, RENAMED, DELETED, *_ = SCANS
NEW_NAME = File("Images", "1001", "mr/first.dcm")
NEW_PATIENT = File("Images", "1003", "ct/000.dcm")
EMPTY = File("Metadata", "", "errata.txt")


@pytest.mark.parametrize(
    "generation",
    [
        # It differs from its neighbours by three keys, which tests/config has.
        pytest.param(each, id=each.name, marks=[pytest.mark.thorough] if each.name == "2025" else [])
        for each in GENERATIONS
    ],
)
def test_two_submissions(generation: Generation, tmp_path: Path, container: Container, wire: Wire) -> None:
    cloud = dataclasses.replace(container, port=wire.port)
    source = tmp_path / "source"
    site = Site(tmp_path, source, cloud, generation.program)
    config, journal = tmp_path / "site.toml", tmp_path / "journal.db"
    config.touch(mode=0o600)
    config.write_text(generation.config(cloud, journal, source), encoding="utf-8")

    def chorus(*arguments: str, exit_code: int = 0) -> list[str]:
        return site.run("-c", str(config), *arguments, exit_code=exit_code).lines

    def have(file: File, content: str | Bytes) -> bytes:
        build(source, {generation.path(file): content})
        return bytes_of(generation.path(file), content)

    # Spring: everything is new.
    first = {file: have(file, Bytes(3_000 + number)) for number, file in enumerate(SCANS)}
    first |= {PERSON: have(PERSON, "person_id\n1001\n"), NOTE: have(NOTE, "note\n"), ECG: have(ECG, Bytes(70_000))}
    first |= {README: have(README, "These are the data of one hospital.\n")}
    build(source, {"lost+found/of no modality.txt": "x"})
    predicted = {generation.key(FIRST, file): body for file, body in first.items()}

    chorus("journal", "update", "--version", FIRST)
    listed = chorus("file", "list")
    chorus("file", "upload")

    assert len(listed) == len(first)
    assert files_of(cloud.objects()) == predicted

    # Autumn: one file of each fate.
    second = {CHANGED: have(CHANGED, Bytes(3_000, edition=2)), NEW_PATIENT: have(NEW_PATIENT, Bytes(500))}
    second |= {PERSON: have(PERSON, "person_id\n1001\n1003\n"), ECG: have(ECG, Bytes(70_000, edition=2))}
    second |= {EMPTY: have(EMPTY, "")}
    touch(source / generation.path(TOUCHED))
    rename(source, generation.path(RENAMED), generation.path(NEW_NAME))
    second[NEW_NAME] = first[RENAMED]
    remove(source / generation.path(DELETED))
    predicted |= {generation.key(SECOND, file): body for file, body in second.items()}

    chorus("journal", "update", "--version", SECOND)
    listed = chorus("file", "list")
    chorus("file", "upload")

    assert len(listed) == len(second)
    objects = cloud.objects()
    assert files_of(objects) == predicted
    folders = {key.partition("/")[0] for key in predicted}
    assert others_of(objects) == {JOURNAL} | {
        f"{CENTRAL}/{folder}/{name}" for folder in folders for name in ("journal.db", "manifest")
    }
    for folder in folders:
        assert manifest_of(objects, folder) == manifest_for(predicted, folder, evidence="server")
    chorus("file", "verify")
    for folder in folders - {SECOND}:
        chorus("file", "verify", "--version", folder)
    assert sent(wire, cloud.name) == sent_once(first, second, generation)
    assert tables_of(journal) == tables_of(fetched(cloud, tmp_path))
    # What was left beside the files tells the receiver all that has arrived.
    proof = build(tmp_path, {"proof.db": objects[f"{CENTRAL}/{SECOND}/journal.db"]}) / "proof.db"
    assert {key for (key,) in ask(proof, "SELECT key FROM delivery")} == predicted.keys()


def sent_once(first: Mapping[File, bytes], second: Mapping[File, bytes], generation: Generation) -> Mapping[str, int]:
    """Each content of each key is sent once. A version in the path can make one key of two contents."""
    keys = [generation.key(FIRST, file) for file in first] + [generation.key(SECOND, file) for file in second]
    return {key: keys.count(key) for key in keys}


def test_a_third_submission_with_nothing_new(site: Site, disk: Disk) -> None:
    """Nothing is sent, and no version folder and no manifest is made of it."""
    build(site.source, {"1001/Images/scan.dcm": Bytes(500), "OMOP/person.csv": "person_id\n"})
    site.run("journal", "update")
    site.run("file", "upload")
    before = disk.objects()

    update = site.run("--json", "journal", "update").event("update-finished")
    upload = site.run("--json", "file", "upload").event("upload-finished")

    assert update["modalities"]["Images"]["unchanged"]["files"] == 1
    assert (upload["submission"], upload["manifests"]) == (None, [])
    assert files_of(disk.objects()) == files_of(before)
    assert disk.objects().keys() == before.keys()


def test_many_commands_on_a_journal_that_was_taken_once(azure_site: Site, container: Container) -> None:
    """The explicit way of working, in the spelling of old scripts: the cloud sees the journal leave and come back."""
    site = azure_site
    tree = {f"{patient}/Images/scan.dcm": Bytes(1_000 + patient) for patient in range(1001, 1005)}
    tree |= {"OMOP/person.csv": Bytes(200), "Metadata/README.txt": Bytes(100)}
    build(site.source, tree)

    site.run("journal", "checkout")
    site.run("journal", "update", "--version", "spring", "--modalities", "OMOP")
    site.run("journal", "update", "--version", "spring", "--amend", "--modalities", "images,Metadata")
    assert site.pending() == set(tree)

    site.run("file", "upload", "--modalities", "OMOP")
    assert set(files_of(container.objects())) == {"spring/OMOP/person.csv"}
    site.run("file", "upload", "--max_num_files", "3")
    assert len(files_of(container.objects())) == 4
    # The largest go first; the command counts over all modalities.
    assert site.run("file", "list", "--max-num-files", "1").lines == ["1001/Images/scan.dcm"]
    assert JOURNAL not in container.objects()
    assert LOCK in container.objects()

    site.run("file", "upload", "--version", "spring")
    site.run("journal", "checkin", "--local_journal", str(site.journal))

    objects = container.objects()
    assert files_of(objects) == {f"spring/{key}": bytes_of(key, content) for key, content in tree.items()}
    assert manifest_of(objects, "spring") == manifest_for(files_of(objects), "spring", evidence="server")
    assert others_of(objects) == {JOURNAL, "data/spring/journal.db", "data/spring/manifest"}
    assert tables_of(site.journal) == tables_of(fetched(container, site.home))


def test_old_spellings_of_the_marking_commands(site: Site, disk: Disk) -> None:
    build(site.source, {f"{patient}/Images/scan.dcm": Bytes(50) for patient in range(6)})
    site.run("journal", "update", "--version", "spring")
    disk.put("data/spring/0/Images/scan.dcm", bytes_of("0/Images/scan.dcm", Bytes(50)))
    disk.put("data/spring/1/Images/scan.dcm", bytes_of("1/Images/scan.dcm", Bytes(50)))

    site.run("file", "mark_as_uploaded_central", "--upload_datetime", "20260302101500", "--file", "0/Images/scan.dcm")
    site.run("journal", "checkout")
    site.run(
        *("file", "mark_as_uploaded_local", "--upload_datetime", "20260302101600"),
        *("--file", "1/Images/scan.dcm", "--local_journal", str(site.journal)),
    )
    site.run("journal", "checkin", "--local_journal", str(site.journal))
    site.run("file", "mark_as_deleted", "--file", "2/Images/scan.dcm")

    assert site.pending() == {"3/Images/scan.dcm", "4/Images/scan.dcm", "5/Images/scan.dcm"}
