"""A data manager describes a source with patterns; every file of it gets one central key, or none."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from chorus_upload.errors import LayoutError
from chorus_upload.layout import (
    DirectoryMatcher,
    Parts,
    Pattern,
    central_key,
    check_modality_name,
    check_version_label,
    default_pattern,
    new_version_label,
    unfit_label,
)

# --- Patterns


@pytest.mark.parametrize(
    ("pattern", "path", "parts"),
    [
        ("OMOP/{filepath}", "OMOP/PERSON.csv", Parts(None, None, "PERSON.csv")),
        ("OMOP/{filepath}", "omop/a/b.csv", Parts(None, None, "a/b.csv")),
        ("{patient_id:w}/Images/{filepath}", "1000101/Images/3/x.dcm", Parts(None, "1000101", "3/x.dcm")),
        ("Person{patient_id:w}/Images/{filepath}", "person007/IMAGES/x.dcm", Parts(None, "007", "x.dcm")),
        (
            "{version:w}/{patient_id:w}/OMOP_tables/{filepath}",
            "v2/12/OMOP_tables/PERSON.csv",
            Parts("v2", "12", "PERSON.csv"),
        ),
        ("{patient_id}/Images/{filepath}", "a_1/Images/x", Parts(None, "a_1", "x")),
        ("{filepath}", "a/b", Parts(None, None, "a/b")),
        ("Notes/{filepath}_{patient_id:w}.txt", "Notes/a_7_8.txt", Parts(None, "7_8", "a_7_8.txt")),
        ("{patient_id:d}_vid/{filepath}.avi", "7_vid/b/a.AVI", Parts(None, "7", "b/a.AVI")),
        ("Scans/{filepath}/raw.dcm", "Scans/a/b/raw.dcm", Parts(None, None, "a/b/raw.dcm")),
        ("{patient_id:w}/Images/{filepath}", "1/Images/two\nlines", Parts(None, "1", "two\nlines")),
        ("{patient_id:d}/ECG (raw)/{filepath}", "1/ecg (RAW)/x", Parts(None, "1", "x")),
    ],
)
def test_a_path_is_taken_apart(pattern: str, path: str, parts: Parts) -> None:
    assert Pattern.parse(pattern).match(path) == parts


def test_what_a_pattern_ends_in_is_cut_off_where_the_older_tool_did_so() -> None:
    """Its objects are called so: an upgraded journal has to name them as they are."""
    pattern = Pattern.parse("{patient_id:d}_vid/{filepath}.avi")
    assert pattern.match("7_vid/b/a.avi", cut=True) == Parts(None, "7", "b/a")


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("OMOP/{filepath}", "OMOP"),
        ("OMOP/{filepath}", "OMOP/"),
        ("OMOP/{filepath}", "x/OMOP/PERSON.csv"),
        ("{patient_id:w}/Images/{filepath}", "a-b/Images/x"),
        ("{patient_id:w}/Images/{filepath}", "a/b/Images/x"),
        ("{patient_id:d}/Images/{filepath}", "12a/Images/x"),
        ("{patient_id:d}/Images/{filepath}", "١٢/Images/x"),
        ("{patient_id:w}/Images/{filepath}", "Müller/Images/x"),
        ("{patient_id:w}/Images/{filepath}", "\u017f/Images/x"),
        ("a.b/{filepath}", "axb/c"),
        ("Images/{filepath}.dcm", "Images/x.dcm\n"),
    ],
)
def test_a_path_that_does_not_belong_matches_nothing(pattern: str, path: str) -> None:
    assert Pattern.parse(pattern).match(path) is None


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("{patient}/{filepath}", "{patient} at character 1 is not a known field"),
        ("Images/{}/{filepath}", "{} at character 8 is not a known field"),
        ("{patient_id:x}/{filepath}", "{patient_id:x} at character 1 has an unknown type"),
        ("{filepath:w}", "{filepath} takes no type"),
        ("Images/{filepath", "{ at character 8 has no counterpart"),
        ("Images}/{filepath}", "} at character 7 has no counterpart"),
        ("OMOP/", "{filepath} is missing"),
        ("", "{filepath} is missing"),
        ("{filepath}/{filepath}", "{filepath} at character 12 is there for the second time"),
        ("{version:w}{patient_id:w}/{filepath}", "nothing says where {version} ends"),
        ("/OMOP/{filepath}", "no file could ever match"),
        ("./OMOP/{filepath}", "no file could ever match"),
    ],
)
def test_a_pattern_that_cannot_be_is_explained(pattern: str, said: str) -> None:
    with pytest.raises(LayoutError) as raised:
        Pattern.parse(pattern)
    assert said in raised.value.message
    assert repr(pattern) in raised.value.message


def test_what_is_allowed_is_named_with_a_mistake() -> None:
    with pytest.raises(LayoutError, match=r"\{version:w\}, \{version:d\}, \{patient_id:w\}, \{patient_id:d\}"):
        Pattern.parse("{site}/{filepath}")


# --- The directory alone decides


def test_a_directory_decides_for_all_its_files() -> None:
    pattern = Pattern.parse("{patient_id:w}/Images/{filepath}")
    matcher = pattern.matcher("17/Images/series 3")
    assert matcher is not None
    assert matcher.constant == Parts(None, "17", "series 3/")
    assert matcher.match("x.dcm") == Parts(None, "17", "series 3/x.dcm")


@pytest.mark.parametrize("directory", ["", "17", "17/Waveforms", "Images/17", "1-7/Images"])
def test_a_directory_in_which_nothing_can_match_is_skipped(directory: str) -> None:
    assert Pattern.parse("{patient_id:w}/Images/{filepath}").matcher(directory) is None


def test_names_are_looked_at_only_where_the_pattern_says_something_of_them() -> None:
    pattern = Pattern.parse("Images/{patient_id:d}_{filepath}")
    matcher = pattern.matcher("images")
    assert matcher is not None
    assert matcher.constant is None
    assert matcher.match("7_x.dcm") == Parts(None, "7", "x.dcm")
    assert matcher.match("x.dcm") is None
    assert pattern.matcher("Waveforms") is None


_SEGMENT = st.sampled_from(["a", "B", "ab", "12", "a.b", "a b", "Images", "_", "ä", "x\ny", "a\\b", "(", "\u017f"])
_LITERAL = st.sampled_from(["a", "B", "Images", "1", "_", ".", "-", "ä", "(", "a b"])
_VALUES = {"w": st.sampled_from(["a", "a_1", "12", "B"]), "d": st.sampled_from(["1", "007"])}


@st.composite
def _patterns_and_paths(draw: st.DrawFn) -> tuple[Pattern, list[str]]:
    """A pattern and a path that is made after it, and then perhaps no longer quite follows it."""
    fields = list(draw(st.permutations(["version", "patient_id"])))
    pieces: list[tuple[str, str]] = []
    for _ in range(draw(st.integers(0, 4))):
        is_field = draw(st.booleans())
        if is_field and fields:
            kind = draw(st.sampled_from(["w", "d"]))
            pieces.append((f"{{{fields.pop()}:{kind}}}", draw(_VALUES[kind])))
        else:
            literal = draw(_LITERAL)
            pieces.append((literal, draw(st.sampled_from([literal, literal.swapcase(), "other"]))))
        if draw(st.booleans()):
            pieces.append(("/", "/"))
    rest = "/".join(draw(st.lists(_SEGMENT, min_size=1, max_size=3)))
    position = len(pieces) if draw(st.booleans()) else draw(st.integers(0, len(pieces)))
    pieces.insert(position, ("{filepath}", rest))
    text, path = ("".join(part) for part in zip(*pieces, strict=True))
    try:
        pattern = Pattern.parse(text)
    except LayoutError:
        assume(False)  # noqa: FBT003 - it has empty parts, or two fields meet
        raise
    names = path.split("/")
    if draw(st.integers(0, 3)) == 0:
        names.insert(draw(st.integers(0, len(names))), draw(_SEGMENT))
    return pattern, names


@given(_patterns_and_paths())
def test_the_fast_way_finds_what_the_plain_way_finds(case: tuple[Pattern, list[str]]) -> None:
    pattern, names = case
    matcher: DirectoryMatcher | None = pattern.matcher("/".join(names[:-1]))
    assert (matcher.match(names[-1]) if matcher else None) == pattern.match("/".join(names))


@given(
    patient=st.from_regex(r"[A-Za-z0-9_]{1,8}", fullmatch=True),
    directories=st.lists(_SEGMENT, max_size=3),
    name=_SEGMENT,
)
def test_every_file_below_a_patients_directory_is_found_by_its_directory(
    patient: str, directories: list[str], name: str
) -> None:
    pattern = Pattern.parse("Person{patient_id:w}/Images/{filepath}")
    matcher = pattern.matcher("/".join([f"person{patient}", "IMAGES", *directories]))
    assert matcher is not None
    assert matcher.constant is not None
    assert matcher.match(name) == Parts(None, patient, "/".join([*directories, name]))


@given(text=st.text(alphabet=".*+?()[]|^$\\-#& ~a", min_size=1, max_size=10))
def test_what_is_not_a_field_is_taken_literally(text: str) -> None:
    if text in (".", ".."):
        return
    pattern = Pattern.parse(f"{text}/{{filepath}}")
    assert pattern.match(f"{text}/x") == Parts(None, None, "x")
    assert pattern.match(f"{text}b/x") is None


# --- Defaults and keys


@pytest.mark.parametrize(
    ("modality", "omop_per_patient", "expected"),
    [
        ("OMOP", False, "OMOP/{filepath}"),
        ("OMOP", True, "{patient_id:w}/OMOP/{filepath}"),
        ("Metadata", True, "Metadata/{filepath}"),
        ("Images", False, "{patient_id:w}/Images/{filepath}"),
        ("Notes", True, "{patient_id:w}/Notes/{filepath}"),
    ],
)
def test_default_patterns(modality: str, omop_per_patient: bool, expected: str) -> None:  # noqa: FBT001
    assert default_pattern(modality, omop_per_patient=omop_per_patient) == expected
    assert default_pattern(modality, omop_per_patient=omop_per_patient, versioned=True) == "{version:w}/" + expected


@pytest.mark.parametrize(
    ("modality", "parts", "patient_first", "key"),
    [
        ("Images", Parts(None, "17", "3/x.dcm"), True, "V1/17/Images/3/x.dcm"),
        ("Images", Parts(None, "17", "3/x.dcm"), False, "V1/Images/17/3/x.dcm"),
        ("OMOP", Parts(None, None, "PERSON.csv"), True, "V1/OMOP/PERSON.csv"),
        ("OMOP", Parts("v7", "17", "PERSON.csv"), True, "v7/17/OMOP/PERSON.csv"),
        ("Metadata", Parts(None, None, "a\nb"), False, "V1/Metadata/a\nb"),
    ],
)
def test_where_a_file_goes(modality: str, parts: Parts, patient_first: bool, key: str) -> None:  # noqa: FBT001
    assert central_key(modality=modality, version="V1", parts=parts, patient_first=patient_first) == key


@pytest.mark.parametrize(
    ("filepath", "said"),
    [
        ("../x", "part"),
        ("a/./x", "part"),
        ("a//x", "part"),
        ("a/", "part"),
        ("..\\x", "part"),
        ("", "part"),
        ("x" * 1_025, "1,024"),
        ("ä" * 600, "1,024"),
        ("a/" * 260 + "x", "254 parts"),
        ("\udcff.dcm", "Unicode"),
    ],
)
def test_a_name_that_no_service_would_keep_is_refused(filepath: str, said: str) -> None:
    with pytest.raises(LayoutError, match=re.escape(said)):
        central_key(modality="Images", version="V1", parts=Parts(None, "1", filepath), patient_first=True)


def test_dots_in_names_are_no_dot_parts() -> None:
    parts = Parts(None, "1", "..x/.hidden/a..b/...")
    assert central_key(modality="Images", version="V1", parts=parts, patient_first=True).endswith("a..b/...")


@given(filepath=st.text(min_size=1, max_size=40), patient_first=st.booleans())
def test_a_key_ends_in_the_file_and_is_safe(filepath: str, patient_first: bool) -> None:  # noqa: FBT001
    try:
        key = central_key(
            modality="Images", version="V1", parts=Parts(None, "1", filepath), patient_first=patient_first
        )
    except LayoutError:
        return
    assert key.endswith(f"/{filepath}")
    assert not {"", ".", ".."} & set(re.split(r"[/\\]", key))
    assert len(key.encode()) <= 1_024


@pytest.mark.parametrize("label", ["20260101120000", "v1.2-rc_3", "a" * 128])
def test_version_labels_that_can_be(label: str) -> None:
    check_version_label(label)
    key = central_key(modality="OMOP", version=label, parts=Parts(None, None, "a.csv"), patient_first=True)
    assert key.startswith(f"{label}/")


@pytest.mark.parametrize("label", ["", ".", "..", "a/b", "a b", "ä", "a" * 129, "a\n"])
def test_version_labels_that_cannot_be(label: str) -> None:
    with pytest.raises(LayoutError):
        check_version_label(label)


@pytest.mark.parametrize("label", ["20260101120000", "v1.2-rc_3", "console", "com10", "_nul", "v1"])
def test_labels_that_a_new_version_can_have(label: str) -> None:
    assert unfit_label(label, ["v1", "2025"]) is None


@pytest.mark.parametrize(
    ("label", "why"),
    [
        ("CON", "device"), ("nul", "device"), ("COM1.x", "device"), ("lpt9", "device"), ("v1.", "dot"),
        ("-rf", "option"), ("V1", "case"), ("v1 ", "letters"), ("v\n", "letters"), ("a\tb", "letters"),
    ],
)  # fmt: skip
def test_labels_that_a_new_version_cannot_have(label: str, why: str) -> None:
    """Some system drops a part of them, takes them for something else, or for the folder of another version."""
    reason = unfit_label(label, ["v1", "2025"])
    assert reason is not None
    assert repr(label) in reason
    assert why in reason


@pytest.mark.parametrize(
    ("directory", "may"),
    [("1001", True), ("1001/Images", True), ("1001/Images/deep", True), ("1001/OMOP", False), ("no-patient", False)],
)
def test_what_could_be_below_a_directory(directory: str, *, may: bool) -> None:
    assert Pattern.parse("{patient_id:w}/Images/{filepath}").may_match_below(directory) == may


@pytest.mark.parametrize("name", ["", ".", "default", "a/b", "-x", "ä", "a,b", "Images\n", "x" * 65])
def test_modalities_that_cannot_be(name: str) -> None:
    with pytest.raises(LayoutError):
        check_modality_name(name)


def test_a_new_version_is_named_after_its_time() -> None:
    assert new_version_label(datetime(2026, 3, 1, 7, 5, 9, tzinfo=UTC)) == "20260301070509"
