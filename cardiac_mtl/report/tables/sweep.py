"""Dice and AUC against the weight of the mask: Fig. 3 of FPM."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pandas as pd

from cardiac_mtl.metrics.classification import bootstrap_auc, roc
from cardiac_mtl.metrics.statistics import bootstrap_mean
from cardiac_mtl.report.methods import Method
from cardiac_mtl.report.tables.layout import with_interval

SWEPT: Final = "fpm_multitask"
SETTING: Final = "weighting.mask"
ENDS: Final = {"fpm_segmentation": 1.0, "fpm_classification": 0.0}
"""Experiments that have one task: the weight of the mask that they stand for."""
MEASURES: Final = {"dice": "Dice of slices", "auc": "AUC"}


def by_weight(methods: Sequence[Method]) -> pd.DataFrame:
    """Score one experiment at several weights; without a row where there are not several.

    Returns:
        A row a method, by rising weight: Dice over slices and AUC of the second class, each with
        its 95 % interval by patients, NaN where the task is absent.
    """
    weights = [(_weight(method), method) for method in methods]
    known = sorted(
        ((weight, method) for weight, method in weights if weight is not None),
        key=lambda pair: pair[0],
    )
    if len({weight for weight, method in known if method.experiment == SWEPT}) < 2:
        return pd.DataFrame()
    return pd.DataFrame([_row(weight, method) for weight, method in known])


def sweep_shown(table: pd.DataFrame) -> pd.DataFrame:
    """Lay the sweep out."""
    shown = table[["method", "data", "weight"]].copy()
    for measure, heading in MEASURES.items():
        shown[heading] = with_interval(table, measure)
    shown["protocol"] = table["protocol"]
    return shown


def _weight(method: Method) -> float | None:
    if method.experiment == SWEPT:
        return method.runs[0].settings.get(SETTING)
    return ENDS.get(method.experiment)


def _row(weight: float, method: Method) -> dict[str, Any]:
    row: dict[str, Any] = {"method": method.name, "data": method.data, "weight": weight}
    dice = method.slices["dice"].to_numpy(float)
    row["dice"] = np.nanmean(dice) if np.isfinite(dice).any() else np.nan
    row["dice_low"], row["dice_high"] = bootstrap_mean(
        dice, clusters=method.slices["patient_id"].to_numpy()
    )
    row |= dict.fromkeys(("auc", "auc_low", "auc_high"), np.nan)
    if len(method.labels):
        rows = method.labels[method.labels["class"] == "1"]
        pair = rows["probability"].to_numpy(float), rows["is_class"].to_numpy(int)
        row["auc"] = roc(*pair).area
        row["auc_low"], row["auc_high"] = bootstrap_auc(*pair, rows["patient_id"].to_numpy(str))
    return row | {"protocol": method.protocol}
