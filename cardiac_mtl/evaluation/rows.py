"""The rows that everything after evaluation reads: one a slice, one a case, for each label.

Area errors of a case are means over its slices that hold the label; distances of a slice are in
plane. Volume Dice and slice Dice are two measures, in two files (P3).

Distances are in mm on the prepared grid. Slices without annotation are scored nowhere: a volume
is what is annotated of it. A paper that predicts no mask has the state `not_predicted`, and NaN.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cardiac_mtl.contracts import UNLABELLED
from cardiac_mtl.evaluation.collect import CollectedCase
from cardiac_mtl.evaluation.phases import name_phases, name_regions
from cardiac_mtl.evaluation.states import Scores, score_masks
from cardiac_mtl.postprocessing import cavity

AREA = "area_mm2"
CASE_COLUMNS = [
    "case_id",
    "patient_id",
    "phase",
    "cardiac_phase",
    "pathology",
    "centre",
    "vendor",
    "label",
    "state",
    "dice",
    "jaccard",
    "msd_mm",
    "msd_voxels",
    "hd_mm",
    "volume_ml",
    "reference_volume_ml",
    "slices",
    "slices_annotated",
    "area_error_mm2",
    "regressed_area_error_mm2",
    "protocol",
]
SLICE_COLUMNS = [
    "case_id",
    "patient_id",
    "phase",
    "cardiac_phase",
    "slice",
    "region",
    "label",
    "state",
    "dice",
    "jaccard",
    "msd_mm",
    "hd_mm",
    "area_mm2",
    "reference_area_mm2",
    "area_error_mm2",
    "regressed_area_mm2",
    "regressed_area_error_mm2",
    "protocol",
]
_OF_CASE = ("case_id", "patient_id", "phase", "pathology", "centre", "vendor")
_OF_SLICE = ("case_id", "patient_id", "phase")
_NOT_PREDICTED = Scores("not_predicted", *[math.nan] * 5)  # type: ignore[arg-type]

Row = dict[str, Any]


def score(
    cases: Iterable[CollectedCase],
    table: pd.DataFrame,
    labels: Mapping[str, int],
    index_names: Sequence[str],
    protocol: str,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Score volumes and their slices.

    Args:
        cases: collected and post-processed.
        table: the case table; `CollectedCase.row` counts its rows.
        labels: value of each class in the masks.
        index_names: columns of the indices; `area_mm2` belongs to the first label.
        protocol: `honest`, or how else the checkpoint was selected; marks every row.

    Returns:
        The frames of `slices.csv` and `cases.csv`; without a row when nothing is annotated.
    """
    slices: list[Row] = []
    volumes: list[Row] = []
    cavities: dict[str, dict[str, float]] = defaultdict(dict)
    area_column = index_names.index(AREA) if AREA in index_names else None
    for case in cases:
        info = table.iloc[case.row]
        known = (case.reference != UNLABELLED).any(axis=(1, 2))
        if not known.any():
            continue
        first = next(iter(labels.values()))
        cavities[info["patient_id"]][info["phase"]] = float(
            cavity(case.reference[known] == first).sum() * np.prod(case.spacing)
        )
        for position, (label, value) in enumerate(labels.items()):
            regressed = area_column if position == 0 else None
            slices += _slice_rows(case, info, known, label, value, regressed)
            volumes.append(_case_row(case, info, known, label, value))
    if not volumes:
        return pd.DataFrame(columns=SLICE_COLUMNS), pd.DataFrame(columns=CASE_COLUMNS)
    frames = pd.DataFrame(slices), _with_area_errors(pd.DataFrame(volumes), pd.DataFrame(slices))
    names = {patient: name_phases(phases) for patient, phases in cavities.items()}
    for frame in frames:
        keys = zip(frame["patient_id"], frame["phase"], strict=True)
        frame["cardiac_phase"] = [names[patient][phase] for patient, phase in keys]
        frame["protocol"] = protocol
    return frames[0][SLICE_COLUMNS], frames[1][CASE_COLUMNS]


def _with_area_errors(cases: pd.DataFrame, slices: pd.DataFrame) -> pd.DataFrame:
    keys, columns = ["case_id", "label"], ["area_error_mm2", "regressed_area_error_mm2"]
    bearing = slices[slices["reference_area_mm2"] > 0]
    means = bearing.groupby(keys, as_index=False)[columns].mean()
    return cases.merge(means, on=keys, how="left")


def write_csv(path: Path, frame: pd.DataFrame) -> None:
    """Write a table as CSV, whole or not at all, six significant digits."""
    temporary = path.with_name(f".{path.name}")
    frame.to_csv(temporary, index=False, float_format="%.6g")
    temporary.replace(path)


def _case_row(
    case: CollectedCase, info: pd.Series, known: NDArray[np.bool_], label: str, value: int
) -> Row:
    reference = case.reference[known] == value
    voxel_ml = float(np.prod(case.spacing)) / 1000
    scores, volume = _NOT_PREDICTED, math.nan
    if case.predicted is not None:
        predicted = case.predicted[known] == value
        scores, volume = score_masks(predicted, reference, case.spacing), predicted.sum() * voxel_ml
    return {
        **{key: info.get(key, "") for key in _OF_CASE},
        "label": label,
        **scores._asdict(),
        "volume_ml": volume,
        "reference_volume_ml": reference.sum() * voxel_ml,
        "slices": len(known),
        "slices_annotated": int(known.sum()),
    }


def _slice_rows(
    case: CollectedCase,
    info: pd.Series,
    known: NDArray[np.bool_],
    label: str,
    value: int,
    regressed: int | None,
) -> list[Row]:
    references = case.reference == value
    regions = name_regions(references.any(axis=(1, 2)))
    return [
        {
            **{key: info.get(key, "") for key in _OF_SLICE},
            "slice": int(case.slices[k]),
            "region": regions[k],
            "label": label,
            **_slice_scores(case, references, k, value),
            **_slice_areas(case, references, k, value, regressed),
        }
        for k in np.flatnonzero(known).tolist()
    ]


def _slice_scores(case: CollectedCase, references: NDArray[np.bool_], k: int, value: int) -> Row:
    scores = _NOT_PREDICTED
    if case.predicted is not None:
        scores = score_masks(case.predicted[k] == value, references[k], case.spacing[1:])
    row = scores._asdict()
    del row["msd_voxels"]
    return row


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
    }
