"""Indices against those of their references, slice by slice: the seven of an infarct, and any."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cardiac_mtl.contracts import UNLABELLED
from cardiac_mtl.evaluation.collect import CollectedCase
from cardiac_mtl.metrics.shape import ERROR_NAMES, INDEX_NAMES, index_errors, infarct_indices

INDEX_COLUMNS = [
    "case_id",
    "patient_id",
    "slice",
    "label",
    *(f"reference_{name}" for name in INDEX_NAMES),
    *INDEX_NAMES,
    *(f"regressed_{name}" for name in INDEX_NAMES),
    *(f"{name}_error" for name in ERROR_NAMES),
    *(f"regressed_{name}_error" for name in ERROR_NAMES),
]

REGRESSED_COLUMNS = [
    "case_id",
    "patient_id",
    "slice",
    "index",
    "reference",
    "regressed",
    "error",
]


def index_rows(
    case: CollectedCase,
    case_id: str,
    patient_id: str,
    label: str,
    value: int,
    muscle: int | None,
    *,
    wall_of_reference: bool = False,
) -> pd.DataFrame:
    """Compare the indices of one label in every annotated slice: of the mask, and regressed.

    Args:
        case: collected.
        case_id: of the case table.
        patient_id: of the case table.
        label: name of the class, such as infarct.
        value: of the class in the masks.
        muscle: value of the myocardium, the denominator of the segment percentage, which is NaN
            where the reference of the case holds none, or the prediction where that is to name
            it; None where no masks do: then the whole image is.
        wall_of_reference: the prediction names no myocardium, and is held against that of the
            reference.

    Returns:
        `INDEX_COLUMNS`; NaN where an index is not defined, as in a slice without infarct, or not
        predicted. The reference is measured in its mask where nothing else is known.
    """
    known = np.flatnonzero((case.reference != UNLABELLED).any(axis=(1, 2)))
    spacing = case.spacing[1:]
    reference = case.reference[known]
    wall = None if muscle is None else _wall(reference, muscle, value)
    true = infarct_indices(reference == value, spacing, wall)
    if case.reference_indices.shape[1] == len(INDEX_NAMES):
        given = case.reference_indices[known].astype(float)
        true = np.where(np.isnan(given), true, given)
    measured = regressed = np.full_like(true, np.nan)
    if case.predicted is not None:
        predicted = case.predicted[known]
        if muscle is not None and not wall_of_reference:
            wall = _wall(predicted, muscle, value)
        measured = infarct_indices(predicted == value, spacing, wall)
    if case.indices is not None:
        regressed = case.indices[known].astype(float)
    columns: dict[str, Any] = {
        "case_id": case_id,
        "patient_id": patient_id,
        "slice": case.slices[known],
        "label": label,
    }
    for prefix, values in (("reference_", true), ("", measured), ("regressed_", regressed)):
        columns |= {f"{prefix}{name}": values[:, k] for k, name in enumerate(INDEX_NAMES)}
    for prefix, values in (("", measured), ("regressed_", regressed)):
        errors = index_errors(values, true)
        columns |= {f"{prefix}{name}_error": errors[:, k] for k, name in enumerate(ERROR_NAMES)}
    return pd.DataFrame(columns, columns=INDEX_COLUMNS)


def regressed_rows(
    case: CollectedCase, case_id: str, patient_id: str, names: Sequence[str]
) -> list[tuple[Any, ...]]:
    """Compare regressed indices of any names with their references, where these are known.

    Args:
        case: collected.
        case_id: of the case table.
        patient_id: of the case table.
        names: of the columns of the indices.

    Returns:
        Values of `REGRESSED_COLUMNS`, one row a slice and index; none where nothing is regressed.
    """
    if case.indices is None:
        return []
    return [
        (case_id, patient_id, int(case.slices[k]), name, true, found, abs(found - true))
        for k, (wanted, given) in enumerate(
            zip(case.reference_indices.tolist(), case.indices.tolist(), strict=True)
        )
        for name, true, found in zip(names, wanted, given, strict=True)
        if not math.isnan(true)
    ]


def _wall(mask: NDArray[np.integer[Any]], muscle: int, value: int) -> NDArray[np.bool_]:
    """Return the myocardium (S, H, W) with what is infarcted of it; nothing where none is drawn."""
    wall: NDArray[np.bool_] = np.isin(mask, (muscle, value))
    if not (mask == muscle).any():
        wall[:] = False  # nobody drew it: an infarct is not 100 % of itself
    return wall
