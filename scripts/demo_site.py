"""Builds the source tree of a small imaginary hospital: what a clinical site uploads, in the default layout.

The images are the DICOM files that pydicom ships and the waveforms are cut from the 12-lead ECG among them; only
identifiers and dates are ours. The OMOP tables have the columns of CDM v5.4 and tell of the same patients. One
seed always gives the same tree, byte for byte and with the same file times, whatever the day.

    OMOP/<table>.csv
    Metadata/…
    <patient>/Images/<study>/<series>/IM0001.dcm
    <patient>/Waveforms/<recording>.edf, .hea and .dat
"""

from __future__ import annotations

import argparse
import array
import csv
import io
import os
import random
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

try:
    import pydicom
    import pydicom.data
    from pydicom.uid import generate_uid
except ImportError:
    sys.exit("demo_site: needs pydicom, for its images. `scripts/environment demo` makes a .venv that has it.")

SHIPPED = Path(pydicom.data.__file__).parent / "test_files"

SERIES = {
    "CT_CHEST": "CT_small.dcm",
    "CT_HEAD": "693_J2KI.dcm",
    "MR_BRAIN": "MR_small.dcm",
    "MR_BRAIN_RLE": "MR_small_RLE.dcm",
    "MR_SPINE": "examples_overlay.dcm",
    "NM_BONE": "JPEG2000.dcm",
    "US_CARDIAC": "examples_ybr_color.dcm",
    "US_VASCULAR": "examples_palette.dcm",
    "SC_DOCUMENT": "SC_rgb_rle_2frame.dcm",
}
"""What a series shows, and the shipped file that its images are made from."""


@dataclass(frozen=True)
class Visit:
    visit_id: int
    kind: int
    start: datetime
    end: datetime


@dataclass(frozen=True)
class Patient:
    person_id: int
    gender: str
    year_of_birth: int
    visits: tuple[Visit, ...]

    @property
    def code(self) -> str:
        """The identifier in paths, in DICOM and EDF headers and in `person_source_value`."""
        return f"P{self.person_id:05d}"


# --- the people -------------------------------------------------------------------------------------------------

INPATIENT, EMERGENCY = 9201, 9203


def admit(rng: random.Random, count: int) -> list[Patient]:
    """Invents patients with one to three visits each, from 2023 on."""
    patients = []
    visit_ids = iter(range(1, 4 * count + 1))
    for person_id in range(1, count + 1):
        visits = []
        day = datetime(2023, 1, 1, tzinfo=UTC) + timedelta(days=rng.randrange(200))
        for _ in range(rng.randint(1, 3)):
            start = day + timedelta(minutes=rng.randrange(24 * 60))
            end = start + timedelta(hours=rng.randint(6, 200))
            visits.append(Visit(next(visit_ids), rng.choice((INPATIENT, EMERGENCY)), start, end))
            day = end + timedelta(days=rng.randint(10, 90))
        patients.append(Patient(person_id, rng.choice("MF"), rng.randint(1935, 2004), tuple(visits)))
    return patients


# --- OMOP -------------------------------------------------------------------------------------------------------

OMOP_COLUMNS = {
    "person": """person_id gender_concept_id year_of_birth month_of_birth day_of_birth birth_datetime race_concept_id
        ethnicity_concept_id location_id provider_id care_site_id person_source_value gender_source_value
        gender_source_concept_id race_source_value race_source_concept_id ethnicity_source_value
        ethnicity_source_concept_id""",
    "observation_period": """observation_period_id person_id observation_period_start_date
        observation_period_end_date period_type_concept_id""",
    "visit_occurrence": """visit_occurrence_id person_id visit_concept_id visit_start_date visit_start_datetime
        visit_end_date visit_end_datetime visit_type_concept_id provider_id care_site_id visit_source_value
        visit_source_concept_id admitted_from_concept_id admitted_from_source_value discharged_to_concept_id
        discharged_to_source_value preceding_visit_occurrence_id""",
    "condition_occurrence": """condition_occurrence_id person_id condition_concept_id condition_start_date
        condition_start_datetime condition_end_date condition_end_datetime condition_type_concept_id
        condition_status_concept_id stop_reason provider_id visit_occurrence_id visit_detail_id
        condition_source_value condition_source_concept_id condition_status_source_value""",
    "drug_exposure": """drug_exposure_id person_id drug_concept_id drug_exposure_start_date
        drug_exposure_start_datetime drug_exposure_end_date drug_exposure_end_datetime verbatim_end_date
        drug_type_concept_id stop_reason refills quantity days_supply sig route_concept_id lot_number provider_id
        visit_occurrence_id visit_detail_id drug_source_value drug_source_concept_id route_source_value
        dose_unit_source_value""",
    "measurement": """measurement_id person_id measurement_concept_id measurement_date measurement_datetime
        measurement_time measurement_type_concept_id operator_concept_id value_as_number value_as_concept_id
        unit_concept_id range_low range_high provider_id visit_occurrence_id visit_detail_id
        measurement_source_value measurement_source_concept_id unit_source_value unit_source_concept_id
        value_source_value measurement_event_id meas_event_field_concept_id""",
    "note": """note_id person_id note_date note_datetime note_type_concept_id note_class_concept_id note_title
        note_text encoding_concept_id language_concept_id provider_id visit_occurrence_id visit_detail_id
        note_source_value note_event_id note_event_field_concept_id""",
}

FROM_EHR = 32817
NO_MATCHING_CONCEPT = 0
INTRAVENOUS = 4171047
UTF_8, ENGLISH = 32678, 4180186
GENDERS = {"M": 8507, "F": 8532}
RACES = {"White": 8527, "Black": 8516, "Asian": 8515}
ETHNICITIES = {"Hispanic": 38003563, "Not Hispanic": 38003564}
CONDITIONS = {"Sepsis": 132797, "Pneumonia": 255848, "Atrial fibrillation": 313217}
DRUGS = {"norepinephrine": 1321341, "heparin": 1367571, "propofol": 753626, "vancomycin": 1707687}
VITAL_SIGNS = {  # name: concept, unit concept, unit, usual value, spread
    "Heart rate": (3027018, 8541, "/min", 84, 14),
    "Systolic blood pressure": (3004249, 8876, "mm[Hg]", 122, 16),
    "Respiratory rate": (3024171, 8541, "/min", 17, 3),
    "Body temperature": (3020891, 586323, "Cel", 37.1, 0.5),
    "Oxygen saturation": (40762499, 8554, "%", 96, 2),
}

Row = Mapping[str, object]


def moment(prefix: str, when: datetime) -> dict[str, str]:
    """The pair of columns in which OMOP writes a time."""
    return {f"{prefix}_date": f"{when:%Y-%m-%d}", f"{prefix}_datetime": f"{when:%Y-%m-%d %H:%M:%S}"}


def person_rows(rng: random.Random, patients: Sequence[Patient]) -> Iterator[Row]:
    for patient in patients:
        race, ethnicity = rng.choice(list(RACES)), rng.choice(list(ETHNICITIES))
        yield {
            "person_id": patient.person_id,
            "gender_concept_id": GENDERS[patient.gender],
            "year_of_birth": patient.year_of_birth,
            "race_concept_id": RACES[race],
            "ethnicity_concept_id": ETHNICITIES[ethnicity],
            "person_source_value": patient.code,
            "gender_source_value": patient.gender,
            "race_source_value": race,
            "ethnicity_source_value": ethnicity,
        }


def observation_period_rows(patients: Sequence[Patient]) -> Iterator[Row]:
    for patient in patients:
        yield {
            "observation_period_id": patient.person_id,
            "person_id": patient.person_id,
            "observation_period_start_date": f"{patient.visits[0].start:%Y-%m-%d}",
            "observation_period_end_date": f"{patient.visits[-1].end:%Y-%m-%d}",
            "period_type_concept_id": FROM_EHR,
        }


def visit_rows(patients: Sequence[Patient]) -> Iterator[Row]:
    for patient in patients:
        preceding: int | None = None
        for visit in patient.visits:
            yield {
                "visit_occurrence_id": visit.visit_id,
                "person_id": patient.person_id,
                "visit_concept_id": visit.kind,
                **moment("visit_start", visit.start),
                **moment("visit_end", visit.end),
                "visit_type_concept_id": FROM_EHR,
                "preceding_visit_occurrence_id": preceding,
            }
            preceding = visit.visit_id


def condition_rows(rng: random.Random, patients: Sequence[Patient]) -> Iterator[Row]:
    for patient in patients:
        for visit in patient.visits:
            condition = rng.choice(list(CONDITIONS))
            yield {
                "person_id": patient.person_id,
                "condition_concept_id": CONDITIONS[condition],
                **moment("condition_start", visit.start),
                **moment("condition_end", visit.end),
                "condition_type_concept_id": FROM_EHR,
                "visit_occurrence_id": visit.visit_id,
                "condition_source_value": condition,
            }


def drug_rows(rng: random.Random, patients: Sequence[Patient]) -> Iterator[Row]:
    for patient in patients:
        for visit in patient.visits:
            for drug in rng.sample(list(DRUGS), rng.randint(1, 3)):
                start = visit.start + timedelta(minutes=rng.randrange(180))
                yield {
                    "person_id": patient.person_id,
                    "drug_concept_id": DRUGS[drug],
                    **moment("drug_exposure_start", start),
                    **moment("drug_exposure_end", start + timedelta(hours=rng.randint(1, 5))),
                    "drug_type_concept_id": FROM_EHR,
                    "quantity": rng.randint(1, 20),
                    "route_concept_id": INTRAVENOUS,
                    "visit_occurrence_id": visit.visit_id,
                    "drug_source_value": drug,
                    "route_source_value": "IV",
                }


def measurement_rows(rng: random.Random, patients: Sequence[Patient]) -> Iterator[Row]:
    for patient in patients:
        for visit in patient.visits:
            when = visit.start
            while when < visit.end:
                for sign, (concept, unit_concept, unit, usual, spread) in VITAL_SIGNS.items():
                    yield {
                        "person_id": patient.person_id,
                        "measurement_concept_id": concept,
                        **moment("measurement", when),
                        "measurement_type_concept_id": FROM_EHR,
                        "value_as_number": round(rng.gauss(usual, spread), 1),
                        "unit_concept_id": unit_concept,
                        "visit_occurrence_id": visit.visit_id,
                        "measurement_source_value": sign,
                        "unit_source_value": unit,
                    }
                when += timedelta(hours=4)


def note_rows(patients: Sequence[Patient]) -> Iterator[Row]:
    for patient in patients:
        for visit in patient.visits:
            days = (visit.end - visit.start).days
            yield {
                "person_id": patient.person_id,
                **moment("note", visit.end),
                "note_type_concept_id": FROM_EHR,
                "note_class_concept_id": NO_MATCHING_CONCEPT,
                "note_title": "Discharge summary",
                "note_text": f'Stayed {days} days, "uneventful".\nDischarged home, follow-up in six weeks.',
                "encoding_concept_id": UTF_8,
                "language_concept_id": ENGLISH,
                "visit_occurrence_id": visit.visit_id,
            }


def write_omop(root: Path, rng: random.Random, patients: Sequence[Patient]) -> None:
    tables: dict[str, Iterable[Row]] = {
        "person": person_rows(rng, patients),
        "observation_period": observation_period_rows(patients),
        "visit_occurrence": visit_rows(patients),
        "condition_occurrence": condition_rows(rng, patients),
        "drug_exposure": drug_rows(rng, patients),
        "measurement": measurement_rows(rng, patients),
        "note": note_rows(patients),
    }
    exported = max(visit.end for patient in patients for visit in patient.visits)
    for table, rows in tables.items():
        text = io.StringIO()
        writer = csv.DictWriter(text, OMOP_COLUMNS[table].split(), restval="", lineterminator="\n")
        writer.writeheader()
        for number, row in enumerate(rows, start=1):
            writer.writerow({f"{table}_id": number, **row})
        write(root / "OMOP" / f"{table}.csv", text.getvalue().encode(), exported)


# --- images -----------------------------------------------------------------------------------------------------


def write_images(root: Path, rng: random.Random, patients: Sequence[Patient]) -> None:
    """One study a visit, of one or two series with a few images each."""
    for patient in patients:
        for visit in patient.visits:
            study = f"{visit.start:%Y%m%d}_{visit.visit_id:04d}"
            for series_number, name in enumerate(rng.sample(list(SERIES), rng.randint(1, 2)), start=1):
                folder = root / patient.code / "Images" / study / f"{series_number}_{name}"
                taken = visit.start + timedelta(minutes=rng.randrange(60))
                template = SHIPPED / SERIES[name]
                # A slice of a tomography is a file; the large shipped examples are single pictures.
                images = rng.randint(4, 8) if template.stat().st_size < 50_000 else 1
                for number in range(1, images + 1):
                    content = dicom_image(template, patient, (study, series_number, number), taken)
                    write(folder / f"IM{number:04d}.dcm", content, taken)


def dicom_image(template: Path, patient: Patient, place: tuple[str, int, int], taken: datetime) -> bytes:
    """The shipped image as one of this patient's: its pixels stay, its identity is replaced."""
    study, series, number = place
    image = pydicom.dcmread(template)
    image.PatientID = image.PatientName = patient.code
    image.PatientSex = patient.gender
    image.PatientBirthDate = ""
    image.StudyDate = image.SeriesDate = f"{taken:%Y%m%d}"
    image.StudyTime = image.SeriesTime = f"{taken:%H%M%S}"
    image.StudyInstanceUID = generate_uid(entropy_srcs=[patient.code, study])
    image.SeriesInstanceUID = generate_uid(entropy_srcs=[patient.code, study, str(series)])
    image.SOPInstanceUID = generate_uid(entropy_srcs=[patient.code, study, str(series), str(number)])
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    image.StudyID, image.SeriesNumber, image.InstanceNumber = study, series, number
    content = io.BytesIO()
    image.save_as(content)
    return content.getvalue()


# --- waveforms --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recording:
    """Signals of equal length, 16 bits a sample, in units of `resolution` microvolts."""

    labels: tuple[str, ...]
    rate: int
    resolution: float
    signals: tuple[array.array[int], ...]

    def cut(self, start: int, seconds: int) -> Recording:
        """`seconds` of it from sample `start`; what would lie past the end comes from the beginning."""
        length = seconds * self.rate
        return Recording(
            self.labels,
            self.rate,
            self.resolution,
            tuple((signal + signal)[start : start + length] for signal in self.signals),
        )


def shipped_ecg() -> Recording:
    """The rhythm strip of the 12-lead ECG that pydicom ships."""
    strip: Any = pydicom.dcmread(SHIPPED / "waveform_ecg.dcm").WaveformSequence[0]
    channels = strip.ChannelDefinitionSequence
    samples = little_endian(array.array("h", bytes(strip.WaveformData)))
    return Recording(
        labels=tuple(str(c.ChannelSourceSequence[0].CodeMeaning).split()[1] for c in channels),
        rate=int(strip.SamplingFrequency),
        resolution=float(channels[0].ChannelSensitivity),
        signals=tuple(samples[number :: len(channels)] for number in range(len(channels))),
    )


def little_endian(samples: array.array[int]) -> array.array[int]:
    """From the file formats' byte order to the machine's, or back."""
    if sys.byteorder == "big":
        samples.byteswap()
    return samples


def edf(recording: Recording, patient: Patient, started: datetime) -> bytes:
    """An EDF file (https://www.edfplus.info/specs/edf.html) with data records of one second."""
    count = len(recording.labels)
    seconds = len(recording.signals[0]) // recording.rate

    def field(value: object, width: int) -> bytes:
        text = str(value).encode("ascii")
        if len(text) > width:
            raise ValueError(f"{value!r} does not fit into {width} characters of an EDF header")
        return text.ljust(width)

    header = [
        field(0, 8),
        field(f"{patient.code} {patient.gender} X X", 80),
        field(f"Startdate {started:%d}-{started.strftime('%b').upper()}-{started:%Y} X X X", 80),
        field(f"{started:%d.%m.%y}", 8),
        field(f"{started:%H.%M.%S}", 8),
        field(256 * (count + 1), 8),
        field("", 44),
        field(seconds, 8),
        field(1, 8),
        field(count, 4),
    ]
    columns: list[tuple[int, list[object]]] = [
        (16, [f"ECG {label}" for label in recording.labels]),
        (80, ["AgAgCl electrode"] * count),
        (8, ["uV"] * count),
        (8, [-32768 * recording.resolution] * count),
        (8, [32767 * recording.resolution] * count),
        (8, [-32768] * count),
        (8, [32767] * count),
        (80, [""] * count),
        (8, [recording.rate] * count),
        (32, [""] * count),
    ]
    header += [field(value, width) for width, values in columns for value in values]
    for second in range(seconds):
        span = slice(second * recording.rate, (second + 1) * recording.rate)
        header += [little_endian(signal[span]).tobytes() for signal in recording.signals]
    return b"".join(header)


def wfdb(recording: Recording, name: str, started: datetime) -> tuple[bytes, bytes]:
    """A WFDB record: its header (https://wfdb.io/spec/header-files.html) and its signals in format 16."""
    length = len(recording.signals[0])
    gain = 1000 / recording.resolution
    lines = [f"{name} {len(recording.labels)} {recording.rate} {length} {started:%H:%M:%S} {started:%d/%m/%Y}"]
    for label, signal in zip(recording.labels, recording.signals, strict=True):
        checksum = (sum(signal) + 32768) % 65536 - 32768
        lines.append(f"{name}.dat 16 {gain:g}(0)/mV 16 0 {signal[0]} {checksum} 0 {label}")
    interleaved = array.array("h", (value for frame in zip(*recording.signals, strict=True) for value in frame))
    return ("\n".join(lines) + "\n").encode("ascii"), little_endian(interleaved).tobytes()


def write_waveforms(root: Path, rng: random.Random, patients: Sequence[Patient]) -> None:
    """A recording a visit: monitors export EDF, the older ones WFDB."""
    ecg = shipped_ecg()
    for patient in patients:
        for visit in patient.visits:
            started = visit.start + timedelta(minutes=rng.randrange(30))
            recording = ecg.cut(rng.randrange(len(ecg.signals[0])), seconds=rng.randint(2, 6))
            name = f"{patient.code}_{started:%Y%m%dT%H%M%S}"
            folder = root / patient.code / "Waveforms"
            if rng.random() < 0.5:
                write(folder / f"{name}.edf", edf(recording, patient, started), started)
            else:
                header, signals = wfdb(recording, name, started)
                write(folder / f"{name}.hea", header, started)
                write(folder / f"{name}.dat", signals, started)


# --- the rest ---------------------------------------------------------------------------------------------------

README = """\
# Site A, demonstration export

Invented patients. The images and ECGs are public examples that the pydicom package ships.
OMOP tables follow CDM v5.4; `person_source_value` is the name of a patient's folder.
"""


def write_metadata(root: Path, patients: Sequence[Patient]) -> None:
    exported = max(visit.end for patient in patients for visit in patient.visits)
    dictionary = "table,column\n" + "".join(
        f"{table},{column}\n" for table, columns in OMOP_COLUMNS.items() for column in columns.split()
    )
    write(root / "Metadata" / "README.md", README.encode(), exported)
    # Names with spaces and accents are what people give to files like these.
    write(root / "Metadata" / "data dictionary.csv", dictionary.encode(), exported)
    write(root / "Metadata" / "protocol" / "déidentification.txt", b"Dates are shifted per patient.\n", exported)


def write(path: Path, content: bytes, when: datetime) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, (when.timestamp(), when.timestamp()))


def build(root: Path, *, patients: int, seed: int) -> int:
    """Builds the tree below `root`, which must be missing or empty; returns the number of its files."""
    if root.exists() and any(root.iterdir()):
        raise FileExistsError(f"{root} is not empty")
    # A stream for each part, so that a change to one of them leaves the others as they were.
    people = admit(random.Random(f"{seed} people"), patients)
    write_omop(root, random.Random(f"{seed} omop"), people)
    write_images(root, random.Random(f"{seed} images"), people)
    write_waveforms(root, random.Random(f"{seed} waveforms"), people)
    write_metadata(root, people)
    return sum(path.is_file() for path in root.rglob("*"))


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the source tree of a small imaginary hospital.")
    parser.add_argument("out", type=Path, metavar="OUT", help="directory to build it in; missing or empty")
    parser.add_argument("--patients", type=int, default=12, metavar="N", help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="default: %(default)s")
    arguments = parser.parse_args()
    if arguments.patients < 1:
        parser.error("--patients must be at least 1")
    try:
        files = build(arguments.out, patients=arguments.patients, seed=arguments.seed)
    except FileExistsError as error:
        parser.error(str(error))
    print(f"{files} files of {arguments.patients} patients in {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
