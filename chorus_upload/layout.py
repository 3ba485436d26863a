"""Which files of a source belong to a modality, and where they go in the central store. Pure: no I/O.

A *pattern* describes the path of a file relative to the root of its source, with `/` between directories::

    {patient_id:w}/Images/{filepath}          Person{patient_id:d}/OMOP/{filepath}

`{version:w}` and `{patient_id:w}` stand for up to 200 ASCII digits, letters and underscores (`{version}` and
`{patient_id}` mean the same), `:d` for digits only, `{filepath}` for the rest, slashes included. Everything
else is literal; matching ignores case and always concerns the whole path. What a pattern has after `{filepath}`
chooses files, and takes nothing from their names.

A *central key* is the name of an object relative to the central path: `<version>/<patient>/<Modality>/<file>`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from chorus_upload.errors import LayoutError

STANDARD_MODALITIES = ("OMOP", "Images", "Waveforms", "Metadata")

# The narrowest limits of the services: S3 and Google count bytes, Azure characters and path segments.
MAX_KEY_BYTES = 1_024
MAX_KEY_PARTS = 254

_FLAGS = re.IGNORECASE | re.DOTALL

# `(?a:…)` and not `[0-9A-Za-z_]`: when case is ignored, such a class takes in the long s and the Kelvin sign too.
# And with an end: three fields of any length divide a long name in so many ways that trying all takes minutes.
_FIELD_TYPES = {"w": r"(?a:\w{1,200})", "d": r"(?a:\d{1,200})"}
_NAME_FIELDS = ("version", "patient_id")
_ALLOWED = "a pattern may have {version:w}, {version:d}, {patient_id:w}, {patient_id:d} and must have {filepath} once"
_TOKEN = re.compile(r"\{(?P<name>[^{}:]*)(?P<type>:[^{}]*)?\}|(?P<brace>[{}])|(?P<literal>[^{}]+)")

# A backslash counts as a separator: Azure turns it into a slash, and `..\x` would then leave the central path.
_BAD_PART = re.compile(r"(?:^|[/\\])\.{0,2}(?:[/\\]|\Z)")
_MODALITY_NAME = re.compile(r"(?a:\w)[A-Za-z0-9_.-]{0,63}")
_DEVICE = re.compile(r"(?:con|prn|aux|nul|conin\$|conout\$|clock\$|(?:com|lpt)[0-9])(?:\.|\Z)", re.IGNORECASE)
_VERSION_LABEL = re.compile(r"[A-Za-z0-9_.-]{1,128}")


@dataclass(frozen=True, slots=True)
class Parts:
    """What a pattern finds in a path. `version` and `patient_id` are None when the pattern has no such field.

    `filepath` is all of the path from where `{filepath}` begins.
    """

    version: str | None
    patient_id: str | None
    filepath: str


@dataclass(frozen=True, slots=True)
class DirectoryMatcher:
    """What a pattern says of the files of one directory; made by `Pattern.matcher`.

    `constant`, when it is not None, holds for every file of the directory: version and patient as they are,
    and a `filepath` ("" or ending in a slash) to which the file's name is to be appended. When it is None,
    each name has to be asked for with `match`. `match` is right in both cases.
    """

    pattern: Pattern
    directory: str
    constant: Parts | None

    def match(self, name: str) -> Parts | None:
        """The parts of the file `name` (not empty) in this directory, or None when it does not belong."""
        if self.constant is not None:
            return Parts(self.constant.version, self.constant.patient_id, self.constant.filepath + name)
        return self.pattern.match(f"{self.directory}/{name}" if self.directory else name)


@dataclass(frozen=True, slots=True)
class Pattern:
    """A parsed pattern; make one with `Pattern.parse`.

    Why a directory alone can decide: a field other than `{filepath}` never contains a slash, so the slashes
    before `{filepath}` can only meet the first slashes of a path, and the k directories that the pattern
    names before the part with `{filepath}` (its *head*) meet exactly the first k directories of the path.
    A directory whose start does not match the head holds no file of the modality. And if the pattern ends in
    `/{filepath}`, nothing remains that a file's name could fail at.
    """

    text: str
    fields: frozenset[str] = field(compare=False, repr=False)
    _whole: re.Pattern[str] = field(compare=False, repr=False)
    _head: re.Pattern[str] | None = field(compare=False, repr=False)
    _above: tuple[re.Pattern[str], ...] = field(compare=False, repr=False)
    _tail: re.Pattern[str] = field(compare=False, repr=False)
    _ends_in_filepath: bool = field(compare=False, repr=False)

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """Parse `text`; LayoutError names the pattern, the place and what is allowed."""
        names, pieces = _tokenise(text)
        if "filepath" not in names:
            raise _pattern_error(text, "{filepath} is missing", hint=_ALLOWED)
        _check_directories(text)

        before = pieces[: names.index("filepath")]
        cut = next((index for index in reversed(range(len(before))) if "/" in before[index]), None)
        is_last = names[-1] == "filepath"
        head, rest = None, "".join(before)
        if cut is not None:
            literal, _, after = before[cut].rpartition("/")
            head = _compile("".join(before[:cut]) + literal + "(?:/(?P<below>.*))?")
            rest = after + "".join(before[cut + 1 :])
        return cls(
            text=text,
            fields=frozenset(names) - {""},
            _whole=_compile("".join(pieces)),
            _head=head,
            _above=tuple(
                _compile("".join(_tokenise(part)[1])) for part in text.partition("{filepath}")[0].split("/")[:-1]
            ),
            _tail=_compile("" if names[-1] else pieces[-1]),
            _ends_in_filepath=is_last and not rest,
        )

    def match(self, path: str, *, cut: bool = False) -> Parts | None:
        """The parts of a path relative to the source's root, or None when it does not belong.

        With `cut` the `filepath` ends where the pattern goes on, as in the keys that the older tool made.
        """
        # What ends otherwise is told by that alone, and not by trying all ways to divide it.
        found = self._whole.match(path) if self._tail.search(path) else None
        if found is None:
            return None
        groups = found.groupdict()
        filepath = groups["filepath"] if cut else path[found.start("filepath") :]
        return Parts(groups.get("version"), groups.get("patient_id"), filepath)

    @property
    def names_directory(self) -> bool:
        """Whether a directory of its files has more of a name than a version or a patient."""
        directories = self.text.partition("{filepath}")[0].rpartition("/")[0]
        return re.search(r"\w", re.sub(r"\{[^{}]*\}", "", directories)) is not None

    def may_match_below(self, directory: str) -> bool:
        """Whether files at or below this path could belong, as far as the names that are known can tell."""
        return all(above.match(name) for above, name in zip(self._above, directory.split("/"), strict=False))

    def matcher(self, directory: str) -> DirectoryMatcher | None:
        """What the pattern says of the files directly in `directory` ("" is the root); None: of none of them."""
        groups: dict[str, str | None] = {"below": directory or None}
        if self._head is not None:
            found = self._head.match(directory)
            if found is None:
                return None
            groups = found.groupdict()
        if not self._ends_in_filepath:
            return DirectoryMatcher(self, directory, None)
        below = groups["below"]
        constant = Parts(groups.get("version"), groups.get("patient_id"), "" if below is None else f"{below}/")
        return DirectoryMatcher(self, directory, constant)


def _tokenise(text: str) -> tuple[list[str], list[str]]:
    """The field's name ("" for a literal) and the regular expression of every token of a pattern."""
    names: list[str] = []
    pieces: list[str] = []
    for token in _TOKEN.finditer(text):
        where = f"at character {token.start() + 1}"
        if token["brace"]:
            raise _pattern_error(text, f"{token['brace']} {where} has no counterpart", hint=_ALLOWED)
        if token["literal"]:
            names.append("")
            pieces.append(re.escape(token["literal"]))
            continue
        name = token["name"]
        if name and name in names:
            raise _pattern_error(text, f"{{{name}}} {where} is there for the second time", hint=_ALLOWED)
        if name in _NAME_FIELDS and names and names[-1] in _NAME_FIELDS:
            problem = f"nothing says where {{{names[-1]}}} ends and {{{name}}} {where} begins"
            raise _pattern_error(text, problem, hint="put a character between them that is in neither, such as /")
        names.append(name)
        pieces.append(_field_expression(text, token, is_last=token.end() == len(text)))
    return names, pieces


def _field_expression(text: str, token: re.Match[str], *, is_last: bool) -> str:
    name, kind = token["name"], token["type"]
    where = f"{token[0]} at character {token.start() + 1}"
    if name == "filepath":
        if kind is not None:
            raise _pattern_error(text, f"{where}: {{filepath}} takes no type", hint=_ALLOWED)
        # Before other fields it is the shortest that fits, so that a patient id after it is found whole.
        return "(?P<filepath>.+)" if is_last else "(?P<filepath>.+?)"
    if name not in _NAME_FIELDS:
        raise _pattern_error(text, f"{where} is not a known field", hint=_ALLOWED)
    expression = _FIELD_TYPES.get((kind or ":w")[1:])
    if expression is None:
        raise _pattern_error(text, f"{where} has an unknown type", hint=_ALLOWED)
    return f"(?P<{name}>{expression})"


def _check_directories(text: str) -> None:
    if any(part in ("", ".", "..") for part in text.split("/")):
        problem = "it has an empty, '.' or '..' part between slashes, so no file could ever match"
        raise _pattern_error(text, problem, hint="start at the source's root, without a leading slash")


def _compile(expression: str) -> re.Pattern[str]:
    return re.compile(rf"{expression}\Z", _FLAGS)


def _pattern_error(text: str, problem: str, *, hint: str) -> LayoutError:
    return LayoutError(f"pattern {text!r}: {problem} ({hint})")


def default_pattern(modality: str, *, omop_per_patient: bool, versioned: bool = False) -> str:
    """The pattern of a modality whose configuration has none; `versioned` puts a version's directory before it."""
    has_patient = modality != "Metadata" and (modality != "OMOP" or omop_per_patient)
    version = "{version:w}/" if versioned else ""
    return version + ("{patient_id:w}/" if has_patient else "") + modality + "/{filepath}"


def central_key(*, modality: str, version: str, parts: Parts, patient_first: bool) -> str:
    """The key of a file relative to the central path.

    `version` is the one in which the content entered the journal; a version in the path itself wins over it, but
    only in the key: the journal has the file in the version of the update that saw it.
    Raises LayoutError when the name could not be stored everywhere: empty, `.` or `..` parts, more than
    1,024 bytes of UTF-8 or 254 parts, or a name that is not valid Unicode.
    """
    version = parts.version or version
    if not parts.patient_id:
        key = f"{version}/{modality}/{parts.filepath}"
    elif patient_first:
        key = f"{version}/{parts.patient_id}/{modality}/{parts.filepath}"
    else:
        key = f"{version}/{modality}/{parts.patient_id}/{parts.filepath}"
    _check_key(key)
    return key


def _check_key(key: str) -> None:
    if _BAD_PART.search(key):
        raise LayoutError(f"{key!r} cannot be a central key: it has an empty, '.' or '..' part")
    if key.count("/") >= MAX_KEY_PARTS:
        raise LayoutError(f"{key!r} cannot be a central key: it has more than {MAX_KEY_PARTS} parts")
    try:
        length = len(key) if key.isascii() else len(key.encode())
    except UnicodeEncodeError:
        raise LayoutError(f"{key!r} cannot be a central key: the file's name is not valid Unicode") from None
    if length > MAX_KEY_BYTES:
        raise LayoutError(
            f"{key!r} cannot be a central key: it has {length:,} bytes, and services take at most {MAX_KEY_BYTES:,}"
        )


def check_modality_name(name: str) -> None:
    """Raise LayoutError unless `name` can be a modality: up to 64 ASCII letters, digits, `_`, `-`, `.`."""
    if name == "default":
        raise LayoutError("'default' cannot be a modality: it stands for the path of all that have none of their own")
    if not _MODALITY_NAME.fullmatch(name):
        raise LayoutError(
            f"{name!r} cannot be a modality: up to 64 letters, digits, '_', '-' and '.', not beginning with '-' or '.'"
        )


def check_version_label(label: str) -> None:
    """Raise LayoutError unless `label` can name a version: up to 128 ASCII letters, digits, `_`, `-`, `.`."""
    if label in (".", "..") or not _VERSION_LABEL.fullmatch(label):
        raise LayoutError(
            f"{label!r} cannot be a version: up to 128 letters, digits, '_', '-' and '.', and not just '.' or '..'"
        )


def unfit_label(label: str, others: Iterable[str]) -> str | None:
    """Return why a new version cannot have this label beside those `others`; None when it can.

    It becomes a directory, on systems of every kind, and a word on command lines.
    """
    try:
        check_version_label(label)
    except LayoutError as error:
        return error.message
    if label.startswith("-"):
        reason = "a command would take it for an option"
    elif label.endswith("."):
        reason = "Windows drops the dot at its end"
    elif _DEVICE.match(label):
        reason = "Windows takes it for a device"
    elif same := next((each for each in others if each != label and each.casefold() == label.casefold()), None):
        reason = f"it differs from {same} in case only, and some systems take them for one"
    else:
        return None
    return f"{label!r} cannot be a version: {reason}"


def new_version_label(now: datetime) -> str:
    """The label of a version that begins at `now`: YYYYMMDDHHMMSS in the time zone of `now`."""
    return now.strftime("%Y%m%d%H%M%S")
