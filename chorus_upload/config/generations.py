"""Every section and key that a `config.toml` of any generation may have, declared once.

The loader, the hints for misspelled keys, the reference documentation and the test of the template all read
these tables. A key says where its value goes; keys of several generations lead to the same slot:

- 2024: credentials stand in `[journal]`, `[central_path]` and `[site_path.…]` themselves.
- 2025: the same, with patterns for each modality.
- 2026, the form that is documented first: `[journal.local]`, `[journal.source]` and the `.auth` sections.

The generations are not told apart: a file may mix them, as long as no two keys contradict each other.
"""

from __future__ import annotations

from collections.abc import Mapping

from chorus_upload.config.keys import (
    BANDWIDTH,
    CONTAINERS,
    CREDENTIALS,
    IDLE_KEYS,
    MODE,
    NAMES,
    PROXY,
    SWITCH,
    TEXT,
    TIER,
    Key,
    Section,
    Value,
    choice,
    idle_proxy,
    in_place,
)
from chorus_upload.config.settings import BackupCount, Overwrite, PageSize, Seconds, Share, ThreadCount, UploadMethod
from chorus_upload.model import FingerprintTime

# Slots that are no places in `Settings`: what modalities without a path of their own inherit, and what is
# accepted because sites have it, but decides nothing any more.
DEFAULT_PLACE = "default"
CENTRAL_UPLOAD_METHOD = "central.upload_method"
JOURNAL_UPLOAD_METHOD = "journal.upload_method"
FOLLOW_LINKS = "follow_links"

_METHOD = choice(UploadMethod)


def _credentials_of(section: str, place: str) -> Section:
    keys = (*in_place(CREDENTIALS, place), *in_place(CONTAINERS, place, current=False), idle_proxy(place))
    return Section(f"{section}.auth", f"The credentials for the path of `[{section}]`.", keys)


def _inline(place: str, *, containers_are_current: bool = False) -> tuple[Key, ...]:
    return (
        *in_place(CONTAINERS, place, current=containers_are_current),
        *in_place(CREDENTIALS, place, current=False),
        idle_proxy(place),
    )


_CONFIGURATION = Section(
    "configuration",
    "How the program works.",
    (
        Key(
            "supported_modalities",
            "modalities",
            NAMES,
            "The modalities of this site: text with commas, or a list. `Metadata` is always among them.",
            '"OMOP,Images,Waveforms,Metadata"',
            default='`"OMOP,Images,Waveforms,Metadata"`',
        ),
        Key(
            "num_threads",
            "num_threads",
            Value(ThreadCount, "a whole number from 1 to 512"),
            "How many files are sent at the same time.",
            "16",
            default="`16`",
        ),
        Key(
            "page_size",
            "page_size",
            Value(PageSize, "a whole number from 1 to 1,000,000"),
            "How many files the journal records in one step.",
            "1000",
            default="`1000`",
        ),
        Key(
            "fingerprint",
            "fingerprint",
            choice(FingerprintTime),
            "When a new file is read for the first time: at `journal update`, or only while it is sent.",
            '"on-update"',
            default='`"on-update"`',
        ),
        Key(
            "deletion_limit",
            "deletion_limit",
            Value(Share, "a number from 0 to 1"),
            "The share of a modality's files that may disappear from one `journal update` to the next without"
            " `--confirm-deletions`; 0.2 is one file in five.",
            "0.2",
            default="`0.2`",
        ),
        Key(
            "outside_limit",
            "outside_limit",
            Value(Share, "a number from 0 to 1"),
            "The share of a source's files that may come to match no pattern: more retire nothing, and end with 3.",
            "0.5",
            default="`0.5`",
        ),
        Key(
            "accept_size_evidence",
            "accept_size_evidence",
            SWITCH,
            "Whether a file counts as delivered when the service can confirm nothing but its size.",
            "false",
            default="`false`",
        ),
        Key(
            "retry_seconds",
            "retry_seconds",
            Value(Seconds, "a number of seconds from 0 to 604,800"),
            "How long a failing network or service is tried again before a file is left for the next run.",
            "900",
            default="`900`",
        ),
        Key(
            "environment_file",
            "environment_file",
            TEXT,
            "A file of environment variables, one `NAME=VALUE` a line: they count as if they were in the environment,"
            " whose own come first. When credentials have expired, a command that works takes the next ones from it.",
            '"~/chorus.env"',
        ),
        Key(
            "bandwidth_limit",
            "bandwidth_limit",
            BANDWIDTH,
            "How much is sent in a second, at most, by all threads together: a rate, or a timetable of local times with"
            " the rates from then on, and of the days on which they hold. Only the content of files counts.",
            '"08:00,2M 18:00,off mon-fri"',
            default='`"off"`: no limit',
        ),
        Key(
            "ca_bundle",
            "ca_bundle",
            TEXT,
            "Certificates (a PEM file or directory) to trust instead of the usual ones, if a proxy inspects TLS.",
            '"hospital-ca.pem"',
            default="what `REQUESTS_CA_BUNDLE` or `CURL_CA_BUNDLE` name, or the usual ones",
        ),
        Key(
            "proxy",
            "proxy",
            PROXY,
            "The proxy on the way to the services. It may hold a user and a password (`http://user:password@host:port`,"
            " with `%40` for `@` and the like in them) and is never shown. `off`: none, even if the environment names"
            " one.",
            '"http://proxy.hospital.org:3128"',
            default="what the environment says (`HTTPS_PROXY`, `NO_PROXY`)",
        ),
        Key(
            "follow_links",
            FOLLOW_LINKS,
            SWITCH,
            "Whether links to directories, and to files outside of the source, are followed.",
            "false",
            default="not followed",
        ),
        Key("journaling_mode", "mode", MODE, "As in `[journal]`.", '"full"', current=False),
        Key("upload_method", "upload_method", _METHOD, "As in `[central_path]`.", '"builtin"', current=False),
        *IDLE_KEYS,
    ),
)

_JOURNAL = (
    Section(
        "journal",
        "The journal: what has been seen and what has been sent.",
        (
            Key(
                "journaling_mode",
                "mode",
                MODE,
                "Whether the source holds everything (`full`: a file that is missing there counts as deleted, and is"
                " retired in the journal) or only what is new since the last time (`append`: a missing file stays in"
                " the journal). Always write it: without it every command warns.",
                '"full"',
                default='`"append"`, as in the older tool',
            ),
            Key(
                "backups",
                "journal.backups",
                Value(BackupCount, "a whole number from 0 to 1,000"),
                "How many of the last journals are kept as dated backups beside the cloud journal; 0 keeps none.",
                "3",
                default="`3`",
            ),
            Key(
                "path",
                "journal.cloud.path",
                TEXT,
                "As in `[journal.source]`.",
                '"az://chorus-mgh/journal/journal.db"',
                current=False,
            ),
            Key(
                "local_path",
                "journal.local_path",
                TEXT,
                "As `path` in `[journal.local]`.",
                '"journal.db"',
                current=False,
            ),
            Key(
                "upload_method",
                JOURNAL_UPLOAD_METHOD,
                _METHOD,
                "As in `[journal.source]`.",
                '"builtin"',
                current=False,
            ),
            *_inline("journal.cloud"),
        ),
    ),
    Section(
        "journal.local",
        "The journal on this machine.",
        (
            Key(
                "path",
                "journal.local_path",
                TEXT,
                "The file that the checked-out journal is worked on in. Best on a local disk.",
                '"journal.db"',
                default='`"journal.db"`',
            ),
        ),
    ),
    Section(
        "journal.source",
        "The cloud journal, which is checked out from here and checked in to here.",
        (
            Key(
                "path",
                "journal.cloud.path",
                TEXT,
                "The journal file itself, not its directory.",
                '"az://chorus-mgh/journal/journal.db"',
            ),
            Key(
                "upload_method",
                JOURNAL_UPLOAD_METHOD,
                _METHOD,
                "Accepted and without effect: the program always moves the journal itself.",
                '"builtin"',
                default='`"builtin"`',
            ),
            *_inline("journal.cloud"),
        ),
    ),
    _credentials_of("journal.source", "journal.cloud"),
)

_CENTRAL = (
    Section(
        "central_path",
        "Where the files go.",
        (
            Key(
                "path",
                "central.location.path",
                TEXT,
                "The central container and the prefix in it, or the SAS URL as it was received.",
                '"az://chorus-mgh/data"',
            ),
            Key(
                "patient_first",
                "central.patient_first",
                SWITCH,
                "Whether files are stored as `<version>/<patient>/<Modality>/…` (true) or as"
                " `<version>/<Modality>/<patient>/…` (false).",
                "true",
                default="`true`",
            ),
            Key(
                "upload_method",
                CENTRAL_UPLOAD_METHOD,
                _METHOD,
                "Accepted, and not followed: `file upload` always sends the files itself. With `azcli` or `azcopy` it"
                " says which command writes the script that sends them with that tool.",
                '"builtin"',
                default='`"builtin"`',
            ),
            Key(
                "tier",
                "central.tier",
                TIER,
                "The access tier of Azure that files are stored in. What is in `Archive` cannot be read back.",
                '"Cool"',
                default="the account's own",
            ),
            Key(
                "overwrite",
                "central.overwrite",
                choice(Overwrite),
                "What happens when there is other content where a file belongs: it stays, the file is reported and left"
                " pending (`never`), or the file replaces it, and that is reported (`replace`).",
                '"never"',
                default='`"never"`',
            ),
            *_inline("central.location", containers_are_current=True),
        ),
    ),
    _credentials_of("central_path", "central.location"),
)

_SITES = (
    Section(
        "site_path.default",
        "The source of all modalities that have no `path` of their own. They take its credentials with it.",
        (
            Key(
                "path",
                f"{DEFAULT_PLACE}.path",
                TEXT,
                "The directory or container in which the files are. In a local path write `/`, also on Windows.",
                '"/data/chorus"',
            ),
            *_inline(DEFAULT_PLACE),
        ),
    ),
    _credentials_of("site_path.default", DEFAULT_PLACE),
    Section(
        "site_path.*",
        "The source of one modality: `[site_path.Images]`, for example.",
        (
            Key(
                "path",
                "sites.*.location.path",
                TEXT,
                "As in `[site_path.default]`. A path here takes no credentials from there.",
                '"/data/images"',
                default="the path and the credentials of `[site_path.default]`",
            ),
            Key(
                "pattern",
                "sites.*.pattern",
                TEXT,
                "Which files below `path` belong to the modality; see below.",
                '"{patient_id:w}/Images/{filepath}"',
                default="`{patient_id:w}/<Modality>/{filepath}`; `OMOP/{filepath}`; `Metadata/{filepath}`",
            ),
            Key(
                "versioned",
                "sites.*.versioned",
                SWITCH,
                "Whether the default pattern begins with `{version:w}/`. With a `pattern` of your own, put the field"
                " there.",
                "false",
                default="`false`",
            ),
            Key(
                "omop_per_patient",
                "sites.*.omop_per_patient",
                SWITCH,
                "For OMOP: whether there is one set of tables for each patient, so that the default pattern is"
                " `{patient_id:w}/OMOP/{filepath}`.",
                "false",
                default="`false`",
            ),
            Key(
                "follow_links",
                "sites.*.follow_links",
                SWITCH,
                "Whether links to directories, and to files outside of the source, are followed.",
                "false",
                default="`follow_links` of `[configuration]`",
            ),
            *_inline("sites.*.location"),
        ),
    ),
    _credentials_of("site_path.*", "sites.*.location"),
)

SECTIONS: tuple[Section, ...] = (_CONFIGURATION, *_JOURNAL, *_CENTRAL, *_SITES)

# What a section of credentials is called in the names of the environment variables that override it.
PLACE_VARIABLES: Mapping[str, str] = {
    "journal.cloud": "JOURNAL",
    "central.location": "CENTRAL_PATH",
    DEFAULT_PLACE: "SITE_PATH_DEFAULT",
    "sites.*.location": "SITE_PATH_*",
}


def find_section(name: tuple[str, ...]) -> Section | None:
    """The declared section of a table's full name; a name that is declared wins over a modality's."""
    matching = [section for section in SECTIONS if _matches(section.name.split("."), name)]
    return min(matching, key=lambda section: "*" in section.name, default=None)


def is_above_a_section(name: tuple[str, ...]) -> bool:
    """Whether tables of this name only hold other tables, as `[site_path]` does."""
    return any(_matches(section.name.split(".")[: len(name)], name) for section in SECTIONS)


def _matches(declared: list[str], name: tuple[str, ...]) -> bool:
    return len(declared) == len(name) and all(
        part in ("*", actual) for part, actual in zip(declared, name, strict=True)
    )
