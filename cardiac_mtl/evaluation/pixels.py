"""How many pixels were given which probability, by case: what ROC and PR over pixels are of."""

import numpy as np
import pandas as pd

from cardiac_mtl.contracts import UNLABELLED
from cardiac_mtl.evaluation.collect import CollectedCase
from cardiac_mtl.metrics.binned import LOG_ODDS, count_in_bins

REGION, MYOCARDIUM = "whole region", "myocardium"
PIXEL_COLUMNS = [
    "case_id",
    "patient_id",
    "label",
    "pixels",
    "log_odds",
    "positives",
    "negatives",
]
"""One row a case, place (`REGION` or `MYOCARDIUM`) and bin that holds a pixel; see `binned.py`."""


def pixel_rows(
    case: CollectedCase, case_id: str, patient_id: str, label: str, value: int, muscle: int | None
) -> pd.DataFrame:
    """Count the pixels of annotated slices by the probability of one label.

    Args:
        case: collected; without probabilities its mask stands for them, as 0 and 1.
        case_id: of the case table.
        patient_id: of the case table.
        label: name of the class, such as infarct.
        value: of the class in the masks, and the one whose probability was kept.
        muscle: value of the myocardium in the reference, None where no case has one.

    Returns:
        `PIXEL_COLUMNS`. Within the myocardium, that of the reference with what is infarcted of it,
        only where the case has some; no row where nothing is predicted or annotated.
    """
    found = case.probability
    if found is None and case.predicted is not None:
        found = (case.predicted == value).astype(np.float32)
    known = (case.reference != UNLABELLED).any(axis=(1, 2))
    if found is None or not known.any():
        return pd.DataFrame(columns=PIXEL_COLUMNS)
    probability, reference = found[known], case.reference[known]
    places = {REGION: reference != UNLABELLED}
    if muscle is not None and (reference == muscle).any():
        places[MYOCARDIUM] = np.isin(reference, (muscle, value))
    frames = []
    for name, inside in places.items():
        positives, negatives = count_in_bins(probability[inside], reference[inside] == value)
        held = positives + negatives > 0
        who = {"case_id": case_id, "patient_id": patient_id, "label": label, "pixels": name}
        counted = {"positives": positives[held], "negatives": negatives[held]}
        frames.append(pd.DataFrame({**who, "log_odds": LOG_ODDS[held], **counted}))
    return pd.concat(frames)[PIXEL_COLUMNS]
