"""The rows that everything after evaluation reads: one a slice, one a case, for each label.

Area errors of a case are means over its slices that hold the label; distances of a slice are in
plane. Volume Dice and slice Dice are two measures, in two files (P3). A third file holds the
function of the heart, one row a patient and chamber: `function.py`; a fourth predicted classes.

Distances are in mm on the grid that was scored: the prepared one in `test`, that of the reference
in `evaluate`. Slices without annotation are scored nowhere: a volume is what is annotated of it.
A paper that predicts no mask has the state `not_predicted`, and NaN.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cardiac_mtl.contracts import UNLABELLED, label_of_area
from cardiac_mtl.evaluation.collect import CollectedCase
from cardiac_mtl.evaluation.function import CHAMBER_COLUMNS, chambers_of, patient_rows
from cardiac_mtl.evaluation.phases import name_phases, name_regions
from cardiac_mtl.evaluation.states import (
    NOT_SCORED,
    TOLERANCE_MM,
    Scores,
    score_masks,
    score_slices,
)
from cardiac_mtl.files import whole
from cardiac_mtl.metrics.overlap import psnr_db

AREA = "area_mm2"
MEASURES = Scores._fields[1:]
_WHO = ["case_id", "patient_id", "phase", "cardiac_phase", "pathology", "centre", "vendor"]
_AREA_ERRORS = ["area_error_mm2", "regressed_area_error_mm2", "area_disagreement_mm2"]
CASE_COLUMNS = [
    *_WHO,
    "label",
    "state",
    *MEASURES,
    "tolerance_mm",
    "volume_ml",
    "reference_volume_ml",
    "slices",
    "slices_annotated",
    *_AREA_ERRORS,
    "protocol",
]
SLICE_COLUMNS = [
    *_WHO,
    "slice",
    "region",
    "label",
    "state",
    *MEASURES,
    "psnr_db",
    "tolerance_mm",
    "area_mm2",
    "reference_area_mm2",
    "regressed_area_mm2",
    *_AREA_ERRORS,
    "protocol",
]
LABEL_COLUMNS = [
    "case_id",
    "patient_id",
    "slice",
    "class",
    "is_class",
    "probability",
    "protocol",
]
"""One row a slice and class; `is_class` is 1, 0, or -1 where the true class is not known."""
_OF_TABLE = [column for column in _WHO if column != "cardiac_phase"]

Row = dict[str, Any]


class CaseRows(NamedTuple):
    """What one volume adds to the tables."""

    slices: list[Row]
    volumes: list[Row]
    chambers: list[Row]
    labels: list[Row]


class Frames(NamedTuple):
    """The tables of an evaluation, as they are written: `slices.csv` and so on."""

    slices: pd.DataFrame
    cases: pd.DataFrame
    patients: pd.DataFrame
    labels: pd.DataFrame


def score(
    cases: Iterable[CollectedCase],
    table: pd.DataFrame,
    labels: Mapping[str, int],
    index_names: Sequence[str],
    protocol: str,
) -> Frames:
    """Score volumes and their slices.

    Args:
        cases: collected and post-processed.
        table: the case table; `CollectedCase.row` counts its rows.
        labels: value of each class in the masks.
        index_names: columns of the indices; `area_mm2` is that of `label_of_area`.
        protocol: `honest`, or how else the checkpoint was selected; marks every row.

    Returns:
        Frames without a row when nothing is annotated.
    """
    rows = [score_case(case, table.iloc[case.row], labels, index_names) for case in cases]
    return assemble(rows, protocol)


def score_case(
    case: CollectedCase,
    info: Mapping[str, Any] | pd.Series,
    labels: Mapping[str, int],
    index_names: Sequence[str] = (),
    tolerance_mm: float = TOLERANCE_MM,
) -> CaseRows:
    """Score one volume, its slices and its chambers.

    Args:
        case: collected and post-processed.
        info: its row of the case table.
        labels: value of each class in the masks.
        index_names: columns of the indices; `area_mm2` is that of `label_of_area`.
        tolerance_mm: of the surface Dice.
    """
    known = (case.reference != UNLABELLED).any(axis=(1, 2))
    who = {key: info.get(key, "") for key in _OF_TABLE}
    classes = _label_rows(case, who)
    if not known.any():
        return CaseRows([], [], [], classes)
    area_column = index_names.index(AREA) if AREA in index_names else None
    slices: list[Row] = []
    volumes: list[Row] = []
    for label, value in labels.items():
        shared = who | {"label": label, "tolerance_mm": tolerance_mm}
        regressed = area_column if label == label_of_area(labels) else None
        of_label = _slice_rows(case, known, value, regressed, tolerance_mm)
        slices += [shared | row for row in of_label]
        volumes.append(
            shared | _volume_row(case, known, value, tolerance_mm) | _mean_errors(of_label)
        )
    chambers = [who | row for row in chambers_of(case, known, labels)]
    return CaseRows(slices, volumes, chambers, classes)


def assemble(rows: Iterable[CaseRows], protocol: str) -> Frames:
    """Put the rows of all volumes together, and name the phases of each patient."""
    slices: list[Row] = []
    volumes: list[Row] = []
    chambers: list[Row] = []
    labels: list[Row] = []
    for one in rows:
        slices += one.slices
        volumes += one.volumes
        chambers += one.chambers
        labels += one.labels
    heart = pd.DataFrame(chambers, columns=CHAMBER_COLUMNS)
    cardiac = _cardiac_phases(heart, volumes)
    frames = []
    for found, columns in ((slices, SLICE_COLUMNS), (volumes, CASE_COLUMNS)):
        frame = pd.DataFrame(found, columns=columns)
        keys = zip(frame["patient_id"], frame["phase"], strict=True)
        frame["cardiac_phase"] = [cardiac[key] for key in keys]
        frame["protocol"] = protocol
        frames.append(frame)
    patients = patient_rows(heart)
    patients["protocol"] = protocol
    classes = pd.DataFrame(labels, columns=LABEL_COLUMNS)
    classes["protocol"] = protocol
    return Frames(frames[0], frames[1], patients, classes)


def write_csv(path: Path, frame: pd.DataFrame) -> None:
    """Write a table as CSV, whole or not at all.

    Six significant digits, but all of a probability: rounded ones of a sure network would tie.
    """
    exact = any(str(column).startswith("probability") for column in frame)
    with whole(path) as temporary:
        frame.to_csv(temporary, index=False, float_format=None if exact else "%.6g")


def _cardiac_phases(heart: pd.DataFrame, volumes: Sequence[Row]) -> dict[tuple[str, str], str]:
    """Return ED or ES for each patient and phase, by the reference of the left ventricle."""
    names = {(row["patient_id"], row["phase"]): "" for row in volumes}
    left = heart[heart["chamber"] == "lv"]
    for patient, rows in left.groupby("patient_id", sort=False):
        if rows["phase"].duplicated().any():
            continue  # of several visits or sequences: the largest of all is ED of one at best
        found = name_phases(dict(zip(rows["phase"], rows["reference_ml"], strict=True)))
        names |= {(str(patient), phase): name for phase, name in found.items()}
    return names | {key: key[1] for key in names if key[1] in {"ED", "ES"}}


def _volume_row(
    case: CollectedCase, known: NDArray[np.bool_], value: int, tolerance_mm: float
) -> Row:
    reference = case.reference == value
    voxel_ml = float(np.prod(case.spacing)) / 1000
    scores, volume = _NOT_PREDICTED, math.nan
    if case.predicted is not None:
        predicted = case.predicted == value
        scores = score_masks(predicted, reference, case.spacing, tolerance_mm, known)
        volume = predicted[known].sum() * voxel_ml
    return {
        **scores._asdict(),
        "volume_ml": volume,
        "reference_volume_ml": reference.sum() * voxel_ml,
        "slices": len(known),
        "slices_annotated": int(known.sum()),
    }


def _slice_rows(
    case: CollectedCase,
    known: NDArray[np.bool_],
    value: int,
    regressed: int | None,
    tolerance_mm: float,
) -> list[Row]:
    references = case.reference == value
    regions = name_regions(references.any(axis=(1, 2)))
    scores = [_NOT_PREDICTED] * len(references)
    if case.predicted is not None:
        spacing = case.spacing[1:]
        scores = score_slices(case.predicted == value, references, spacing, tolerance_mm)
    return [
        {
            "slice": int(case.slices[k]),
            "region": regions[k],
            **scores[k]._asdict(),
            "psnr_db": _psnr(case, references, k, value),
            **_slice_areas(case, references, k, value, regressed),
        }
        for k in np.flatnonzero(known).tolist()
    ]


def _psnr(case: CollectedCase, references: NDArray[np.bool_], k: int, value: int) -> float:
    """Return dB; NaN where there is nothing to be found and nothing was."""
    if case.predicted is None:
        return math.nan
    predicted = case.predicted[k] == value
    bearing = predicted.any() or references[k].any()
    return psnr_db(predicted, references[k]) if bearing else math.nan


def _slice_areas(
    case: CollectedCase, references: NDArray[np.bool_], k: int, value: int, regressed: int | None
) -> Row:
    pixel_mm2 = case.spacing[1] * case.spacing[2]
    true = float(references[k].sum() * pixel_mm2)
    segmented = regression = math.nan
    if case.predicted is not None:
        segmented = float((case.predicted[k] == value).sum() * pixel_mm2)
    if case.indices is not None and regressed is not None:
        regression = float(case.indices[k, regressed])
    return {
        "area_mm2": segmented,
        "reference_area_mm2": true,
        "area_error_mm2": abs(segmented - true),
        "regressed_area_mm2": regression,
        "regressed_area_error_mm2": abs(regression - true),
        "area_disagreement_mm2": abs(segmented - regression),
    }


def _label_rows(case: CollectedCase, who: Row) -> list[Row]:
    if case.label_prob is None:
        return []
    return [
        {
            "case_id": who["case_id"],
            "patient_id": who["patient_id"],
            "slice": int(case.slices[k]),
            "class": str(value),
            "is_class": UNLABELLED if case.label == UNLABELLED else int(case.label == value),
            "probability": float(probability),
        }
        for k, row in enumerate(case.label_prob)
        for value, probability in enumerate(_complementary(row))
    ]


def _complementary(probability: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return P of two classes (2,), the first from the second in double precision.

    1 - p of a small p in single precision ties images that the second class tells apart: the area
    under the ROC would depend on which class is the positive one.
    """
    second = np.float64(probability[1])
    return np.array([1 - second, second])


def _mean_errors(slices: Sequence[Row]) -> Row:
    """Average errors over the slices that hold the label, the disagreement over all slices.

    The disagreement must not know the reference: it is there to find bad masks without one.
    """
    bearing = [row for row in slices if row["reference_area_mm2"] > 0]
    return {
        name: _mean([row[name] for row in (slices if "disagreement" in name else bearing)])
        for name in _AREA_ERRORS
    }


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan


_NOT_PREDICTED = NOT_SCORED._replace(state="not_predicted")
