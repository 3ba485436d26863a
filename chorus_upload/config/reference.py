"""The reference of `config.toml`, made from the declaration of its keys: as a document and as help."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path

from chorus_upload.config.generations import SECTIONS
from chorus_upload.config.keys import CREDENTIALS, IDLE_PROXY, Key
from chorus_upload.config.overrides import variable_for


def template() -> str:
    """Return `config.toml.template`: inside an installed package, or at the top of a checkout."""
    package = Path(__file__).resolve().parent.parent
    installed = package / _TEMPLATE
    return (installed if installed.exists() else package.parent / _TEMPLATE).read_text(encoding="utf-8")


_TEMPLATE = "config.toml.template"

_INTRODUCTION = """\
The configuration is one TOML file: `config.toml` in the current directory, or the file that `-c` names.
`chorus-upload config template config.toml` writes one to fill in. A key that nothing reads is an error that names the
nearest known key.
`chorus-upload config check` looks for mistakes without touching the cloud, and `chorus-upload config show` prints
what file and environment come to, with secrets masked.
"""

_PLACES = r"""
A `path` is a local directory (`/data/chorus`, `D:/chorus`, `'\\server\share'`, `~/chorus`, relative to the current
directory, or `file://…`), `az://container/prefix`, `s3://bucket/prefix`, `gs://bucket/prefix`, or another address
such as `sftp://host/path`. A SAS URL of Azure may be pasted as it was received
(`https://account.blob.core.windows.net/container/prefix?sv=…&sig=…`): account, container and token are taken from it.
What mails, chats, shells and web pages leave around and in it is taken off: quotes of every kind, `<…>`, backticks, a
comma or semicolon after it, line breaks, `\&` and `\?`, `&amp;`, and a second percent encoding of the signature.
"""

_SOURCES = """\
These can be the `path` of a source, `[site_path.default]` or `[site_path.<Modality>]`, and of nothing else:

| path | what it is |
|---|---|
| `tar://::PLACE`, `tar://INNER/PATH::PLACE` | the files in a tar archive, or those below a directory in it |
| `zip://::PLACE`, `zip://INNER/PATH::PLACE` | the same for a zip archive |
| `https://host/directory/` | the files in and below a web directory that the server lists, as Apache and nginx do |
| `https://host/file` | a single file |
| `sftp://user@host/path`, `sftp://user@host/~/path` | a directory that is reached by SFTP |
| `smb://user@host/share/path` | a directory of a Windows share; where the system has mounted it, write its path |

A tar archive may be compressed by gzip, bzip2, xz or Zstandard; how is seen from its first bytes, and not from its
name. Three of these need more than is installed: `pip install "chorus-upload[zst,sftp,smb]"` for Zstandard, SFTP, SMB.

The PLACE of an archive is where its file is, in any notation of this page but an archive's: `zip://::/data/set.zip`,
`tar://images::https://host/set.tar.gz`, `tar://::https://account.blob.core.windows.net/container/set.tar?sv=…&sig=…`,
`tar://::sftp://host/set.tar`. Credentials are those of that place, and stand in the same section; a SAS token needs to
permit no more than to read that one blob. Nothing is unpacked to a disk, and no whole archive is held in memory.

- *What is listed.* Of a zip archive only the directory at its end is read; it is held in memory, about half a kilobyte
  for each member. A tar archive has none: it is read from its beginning to its end, once for each `journal update` and
  once for each `file upload`, which sends in the order of the archive. Members of a compressed one are hashed when they
  are listed, so that of a new release of a dataset only what has other content is sent, whatever the times say.
- *What is no file* is reported and left out: links, devices, names that lead out of the archive or hold a backslash,
  encrypted members of a zip archive, and those compressed by anything but deflate. When a name is there twice, that is
  reported, and of a tar archive the first is taken, of a zip archive the last.
- *Times* in a zip archive are UTC if it says so (most programs write that beside the time of DOS); the time of DOS, in
  steps of two seconds, is taken for UTC.
- *Damage.* An archive that is not complete is never listed, so nothing counts as deleted. The checksum of a zip
  member is checked when it is sent, that of a compressed tar archive when it is listed.
- *A web server* should know ranges of bytes. From one that does not, tar archives can be read, and zip archives up to
  64 MiB. A file is asked for under the condition that it is still the one that was listed, by its ETag or time. In a
  web directory each file is asked once for size and time; without a time, a change under the same size is not seen.
  Redirects are followed, never from https to http; user, password and what stands behind the `?` go to the first host
  only.
- *User and password* of `https://`, `sftp://` and `smb://` stand before the host, `user:password@host`, with `%40`
  for `@` and the like in them, and are never shown. Without a password SFTP uses the keys of the user: those of the
  agent and those in `~/.ssh`. The host has to be in `~/.ssh/known_hosts`; an unknown one is refused, and so is another
  key than the known one. SMB messages are signed; without a user, Kerberos is used.
"""

_LINKS = """\
In a source that is a directory of this machine (with SFTP the first three hold, too):

- *A link to a file of the same source* counts as that file. One to a file outside of the source is refused, unless
  `follow_links = true`: `link-to-outside` names it.
- *A link to a directory* is followed with `follow_links = true`, but never on a share. Until the configuration says
  `true` or `false`, `journal update` names each one that could hold files of a modality (`link-to-directory`) and ends
  with 3; with `false` it names them, and that is all. Of many links the first ten are named, with `--json` all.
- *What lies behind a link that is not followed, or whose target is away,* does not count as deleted.
- *A mount point* in a source, or behind a link, is remembered by the journal. When nothing is mounted there any more,
  or what is mounted is empty, nothing below it counts as deleted, whatever the limits: `not-mounted` names it, and
  `journal update --forget-mount PATH` is for one that is to be none any more. If the source itself is the mount point,
  the update is refused (exit code 5). What is mounted is seen by its device; a bind mount
  within one device only on Linux, which names it.
- *A file that is swapped for a link*, or whose directory is, between the scan and the reading, is not read (where
  `follow_links` is not `true`).

Files that match no pattern are counted by every update, which names the first; `--list-outside` names all. A recorded
file that is now under such a name stays in the journal (`moved-outside`): one of the same size, of the same time (it
was moved) or name (it was copied), and, where it can be read here, of the same content. So does whatever is missing
from a source of which, since the last update, more than `outside_limit` has come to match no pattern
(`outside-patterns`). Both end with 3, until `--confirm-outside` (or `--confirm-deletions`) retires what is missing.
What matched none before is normal: a tree that is shared with others is told of once, at its first update. For
`outside_limit` a file also counts as matched where the pattern of a modality that has a source of its own takes it, if
that pattern names a directory, as `{patient_id:w}/Images/{filepath}` does.
"""

_CREDENTIALS = """\
The same keys may stand in each section that ends in `.auth`. Credentials are for the `path` of their own section and
are never used for another one; only a modality without a `path` takes those of `[site_path.default]`, together with
its path. Of several credentials in one section one is used, and a warning names the others.

A file with credentials should be yours alone (`chmod 600 config.toml`). Better still, keep them out of the file:
"""

_ENVIRONMENT = """\
1. `CHORUS_UPLOAD_<PLACE>_<KEY>` replaces what the file says of one place. A credential given like this replaces all
   credentials that the file has for the place. For example:

{examples}

2. The variables of the cloud in the last column below are used for a place of that cloud for which the file has no
   credential, and not if they are for another storage account than the file names.
3. Without any of these, the identity of the machine or user is used, as with `auth_mode = "login"`.
"""

_GOOGLE = """\
A `gs://` place (`pip install "chorus-upload[gcs]"`) is entered in one of four ways:

- `google_token_file`: an access token in a text file, for whoever is handed one that lives an hour. Write the next one
  into the same file, also while an upload runs: it is used from the next request on. When it has ended all the same,
  the run stops with exit code 22, and the same command goes on later, in the middle of a large file, too.
- `google_application_credentials`: the key of a service account, a login that was made elsewhere, or a workload
  identity. Tokens are renewed as long as needed.
- `auth_mode = "login"`: what `gcloud auth application-default login` has left, or the identity of a machine in Google's
  cloud.
- `auth_mode = "anonymous"`: nobody, for public buckets.

The identity needs the role Storage Object User on the bucket. `journal.db.sessions` beside the local journal remembers
uploads of large files that are under way. Whoever can read it could write these files for a week: it is for its owner
only, like the configuration, and is gone when nothing is under way.
"""

_BANDWIDTH = """\
`bandwidth_limit` is a rate, or a timetable. It limits the content of the files, for all threads together; what the
network adds to that comes on top.

| rate | bytes per second |
|---|---|
| `512k`, `512 KiB/s` | 512 · 1,024; `M`, `G`, `MiB`, `GiB` go on with powers of 1,024 |
| `10 MB/s` | 10 · 1,000,000; `kB` and `GB` are powers of 1,000, too |
| `100 Mbit/s` | 100 · 1,000,000 / 8; `kbit` and `Gbit` likewise |
| `off` | no limit |

`/s` may be left out, and case does not matter, except that `Mb` is refused: it may stand for bits or for bytes. Less
than 1 KiB/s is refused as well.

A timetable has entries `HH:MM,RATE` with spaces between, in local time: from then on this rate holds. Behind them
stand the days on which they hold (`mon-fri`, `fri-mon`, `sat,sun`; every day when left out), and after a `;` others may
follow: `08:00,2M 18:00,20M mon-fri; 00:00,off sat,sun`. A day begins with what the day before ended with, if that is
in the timetable, and else without a limit. Days that are not in it have no limit. A change takes effect within
seconds, also during an upload.
"""

_PATTERNS = """\
A pattern says which files below a `path` belong to a modality, and what the parts of their names mean. It describes
the whole path of a file, with `/` between directories; upper and lower case are the same.

| field | stands for |
|---|---|
| `{patient_id:w}` | the patient: up to 200 ASCII letters, digits and underscores |
| `{patient_id:d}` | the patient: digits only |
| `{version:w}`, `{version:d}` | the version whose folder the file goes to, instead of the journal's |
| `{filepath}` | the rest, slashes included; every pattern has it once |

`{patient_id}` means `{patient_id:w}`, and `{version}` means `{version:w}`. Examples:
`Person{patient_id:w}/Images/{filepath}`, `{version:w}/{patient_id:w}/OMOP_tables/{filepath}`.

A file goes to `<version>/<patient>/<Modality>/<filepath>` below the central path, or to
`<version>/<Modality>/<patient>/<filepath>` with `patient_first = false`; without a patient in the pattern, to
`<version>/<Modality>/<filepath>`.
"""

_OLDER = """\
Files for earlier releases load unchanged. These keys and places are read. They mean the same as the ones above, or
are without effect, and then each is warned of:
"""


def markdown() -> str:
    """The reference as a Markdown document."""
    parts = ["# Configuration", _INTRODUCTION, "## Paths", _PLACES, "### Sources of other kinds", _SOURCES]
    parts += ["### Links and mounts", _LINKS]
    for section in SECTIONS:
        if not section.name.endswith(".auth"):
            parts += [f"## `[{_written(section.name)}]`", section.text, _table(_current(section.keys))]
    auth = ", ".join(f"`[{_written(section.name)}]`" for section in SECTIONS if section.name.endswith(".auth"))
    parts += [f"## Credentials: {auth}", _CREDENTIALS, _ENVIRONMENT.format(examples=_variable_examples())]
    parts += [_table(_current(CREDENTIALS), with_variables=True)]
    parts += ["## Google", _GOOGLE]
    parts += ["## Bandwidth", _BANDWIDTH, "## Patterns", _PATTERNS, "## Older files", _OLDER, "\n".join(_older())]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def help_text(*, width: int = 100) -> str:
    """The reference for a terminal: every section and key, in lines of at most `width` characters."""
    lines = [*_wrapped(_INTRODUCTION, width=width), ""]
    for section in SECTIONS:
        if not section.name.endswith(".auth"):
            lines += [f"[{_written(section.name)}]", *_wrapped(section.text, width=width)]
            lines += [line for key in _current(section.keys) for line in _key_lines(key, width=width)] + [""]
    lines += [f"[{_written(section.name)}]" for section in SECTIONS if section.name.endswith(".auth")]
    lines += _wrapped("Credentials, for the path of the section before the dot only.", width=width)
    lines += [line for key in _current(CREDENTIALS) for line in _key_lines(key, width=width)] + [""]
    variable = variable_for("central.location", "", "azure_sas_token")
    lines += _wrapped(f"In the environment, {variable} and the like replace what the file says.", width=width)
    return "\n".join(lines) + "\n"


def _current(keys: Iterable[Key]) -> list[Key]:
    return [key for key in keys if key.current]


def _written(section: str) -> str:
    return section.replace("*", "<Modality>")


def _table(keys: list[Key], *, with_variables: bool = False) -> str:
    rows = [["key", "meaning", "value", "default", *(["in the environment"] if with_variables else [])]]
    rows.append(["---"] * len(rows[0]))
    for key in keys:
        value = f"`{key.example}`" if key.value.is_text else f"{key.value.expects}, e.g. `{key.example}`"
        row = [f"`{key.name}`", key.text, value, key.default or "none"]
        if with_variables:
            row.append(", ".join(f"`{variable}`" for variable in key.variables))
        rows.append(row)
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)


def _variable_examples() -> str:
    places = (("central.location", ""), ("journal.cloud", ""), ("sites.*.location", "Images"))
    return "\n".join(f"   - `{variable_for(place, name, 'azure_sas_token')}`" for place, name in places)


def _older() -> Iterator[str]:
    """What only older files have, section by section: other places, credentials inline, other spellings."""
    for section in SECTIONS:
        moved = [key for key in section.keys if not key.current and not _is_for_access(key)]
        if moved:
            names = "; ".join(f"`{key.name}` ({_as_phrase(key.text)})" for key in moved)
            yield f"- in `[{_written(section.name)}]`: {names}"
    inline = [
        section for section in SECTIONS if section.find("azure_account_name") and not section.name.endswith(".auth")
    ]
    names = ", ".join(f"`[{_written(section.name)}]`" for section in inline)
    yield f"- in {names}: the credentials of the path, and its container"
    keys = [key for key in CREDENTIALS if not key.current] + [IDLE_PROXY]
    aliases = "; ".join(f"`{key.name}` ({_as_phrase(key.text)})" for key in keys)
    yield f"- wherever credentials are, and the last in `[configuration]`, too: {aliases}"
    yield '- as `journaling_mode`: `"snapshot"` (another spelling of `"full"`)'
    yield (
        "- as the path of the cloud journal: the local journal itself, for a journal that is on this machine only."
        " Commands work on a file that is called the same with `.local` behind it, and warn"
    )


def _is_for_access(key: Key) -> bool:
    return ".auth." in key.slot or ".container." in key.slot or key.name == IDLE_PROXY.name


def _as_phrase(text: str) -> str:
    return text[0].lower() + text[1:].rstrip(".")


def _key_lines(key: Key, *, width: int) -> list[str]:
    default = f" Default: {key.default}." if key.default else ""
    text = _wrapped(f"{key.text}{default}", width=width, indent="      ")
    return [f"  {key.name} = {key.example}", *text]


def _wrapped(text: str, *, width: int, indent: str = "") -> list[str]:
    plain = " ".join(text.replace("`", "").split())
    return textwrap.wrap(plain, width, initial_indent=indent, subsequent_indent=indent, break_long_words=False)
