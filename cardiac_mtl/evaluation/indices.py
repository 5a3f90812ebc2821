"""The seven infarct indices of masks, against those of their references, slice by slice."""

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
    *(f"{name}_error" for name in ERROR_NAMES),
]


def index_rows(
    case: CollectedCase, case_id: str, patient_id: str, label: str, value: int, muscle: int | None
) -> pd.DataFrame:
    """Measure the indices of one label in every annotated slice.

    Args:
        case: collected, with a predicted mask.
        case_id: of the case table.
        patient_id: of the case table.
        label: name of the class, such as infarct.
        value: of the class in the masks.
        muscle: value of the myocardium, the denominator of the segment percentage; None where the
            masks have none: then the whole image is.

    Returns:
        `INDEX_COLUMNS`; NaN where an index is not defined, as in a slice without infarct.
    """
    known = np.flatnonzero((case.reference != UNLABELLED).any(axis=(1, 2)))
    spacing = case.spacing[1:]
    sides: list[NDArray[np.float64]] = []
    for mask in (case.reference[known], np.asarray(case.predicted)[known]):
        held = mask == value
        wall = None if muscle is None else (mask == muscle) | held
        sides.append(infarct_indices(held, spacing, wall))
    errors = index_errors(sides[1], sides[0])
    columns: dict[str, Any] = {
        "case_id": case_id,
        "patient_id": patient_id,
        "slice": case.slices[known],
        "label": label,
    }
    columns |= {f"reference_{name}": sides[0][:, k] for k, name in enumerate(INDEX_NAMES)}
    columns |= {name: sides[1][:, k] for k, name in enumerate(INDEX_NAMES)}
    columns |= {f"{name}_error": errors[:, k] for k, name in enumerate(ERROR_NAMES)}
    return pd.DataFrame(columns, columns=INDEX_COLUMNS)
