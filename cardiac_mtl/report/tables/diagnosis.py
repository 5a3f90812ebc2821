"""Rows of `labels.csv` to tables: what images are called, at one half and at a chosen threshold."""

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cardiac_mtl.contracts import UNLABELLED
from cardiac_mtl.metrics.classification import (
    bootstrap_auc,
    bootstrap_auc_difference,
    precision_recall,
    reliability,
    roc,
)
from cardiac_mtl.metrics.statistics import bootstrap_sums
from cardiac_mtl.report.methods import Method
from cardiac_mtl.report.tables.layout import estimate, numbers_shown, with_interval

HALF: Final = "0.5"
CHOSEN: Final = "chosen"
RATES: Final = ("accuracy", "balanced accuracy", "sensitivity", "specificity")
_PARTS: Final = {"val": "validation", "test": "TEST: optimistic", "": "nothing"}


def class_names(methods: Sequence[Method]) -> dict[str, str]:
    """Return the name of each class, by its value in `labels.csv`, of all methods."""
    rows = [m.labels[["class", "class_name"]].drop_duplicates() for m in methods if len(m.labels)]
    pairs = pd.concat(rows).itertuples(index=False) if rows else ()
    return {str(value): str(name) for value, name in pairs}


def operating_points(methods: Sequence[Method]) -> pd.DataFrame:
    """Count and rate the calls of each method, each class as the positive one in turn.

    Returns:
        A row at a threshold of one half and one at that which each run has chosen: counts of
        images over all folds, rates with their 95 % interval by patients.
    """
    return pd.DataFrame(
        [
            _row(method, name, rows, threshold, called)
            for method, name, rows in _by_class(methods)
            for threshold, called in (
                (HALF, rows["probability"].to_numpy(float) > 0.5),
                (CHOSEN, rows["called"].to_numpy(bool)),
            )
        ]
    )


def curves_of(methods: Sequence[Method]) -> pd.DataFrame:
    """Return what needs no threshold: areas under ROC and PR, and calibration."""
    rows = []
    for method, name, of_class in _by_class(methods):
        pair = of_class["probability"].to_numpy(float), of_class["is_class"].to_numpy(int)
        low, high = bootstrap_auc(*pair, of_class["patient_id"].to_numpy(str))
        rows.append(
            {
                "method": method.name,
                "positive class": name,
                "n": int((pair[1] != UNLABELLED).sum()),
                "AUC": roc(*pair).area,
                "AUC_low": low,
                "AUC_high": high,
                "average precision": precision_recall(*pair).area,
                "ECE": reliability(*pair).ece,
                "protocol": method.protocol,
            }
        )
    return pd.DataFrame(rows)


def curves_shown(table: pd.DataFrame) -> pd.DataFrame:
    """Lay the areas out, the AUC before its interval."""
    if table.empty:
        return table
    shown = numbers_shown(table.drop(columns=["AUC_low", "AUC_high"]))
    shown["AUC"] = with_interval(table, "AUC")
    return shown


def auc_comparisons(methods: Sequence[Method]) -> pd.DataFrame:
    """Compare the areas of every pair of methods on the images that both have called.

    Returns:
        Areas of both, and second minus first with its 95 % interval by patients. Seeds of one
        experiment are not compared with each other.
    """
    rows = []
    for first, second in combinations([method for method in methods if len(method.labels)], 2):
        if first.family and first.family == second.family:
            continue
        before, after = (m.labels[m.labels["class"] == "1"] for m in (first, second))
        merged = before.merge(after, on=["case_id", "slice"], suffixes=("_1", "_2"))
        if merged.empty:
            continue
        one, two = (merged[f"probability_{k}"].to_numpy(float) for k in (1, 2))
        label, patients = merged["is_class_1"].to_numpy(int), merged["patient_id_1"].to_numpy(str)
        areas = [roc(probability, label).area for probability in (one, two)]
        interval = bootstrap_auc_difference(one, two, label, patients)
        rows.append(
            {
                "first": first.name,
                "second": second.name,
                "images": int((label != UNLABELLED).sum()),
                "patients": len(set(patients)),
                "AUC_first": areas[0],
                "AUC_second": areas[1],
                "difference": areas[1] - areas[0],
                "low": interval.low,
                "high": interval.high,
            }
        )
    return pd.DataFrame(rows)


def auc_comparisons_shown(table: pd.DataFrame) -> pd.DataFrame:
    """Lay pairs of areas out."""
    shown = pd.DataFrame({"second minus first": table["second"] + " - " + table["first"]})
    shown[["images", "patients"]] = table[["images", "patients"]]
    for heading, column in (("AUC, first", "AUC_first"), ("AUC, second", "AUC_second")):
        shown[heading] = [estimate(area) for area in table[column]]
    shown["difference [95 %]"] = with_interval(table, "difference", "low", "high", spec="+.3f")
    return shown


def confusions(methods: Sequence[Method]) -> pd.DataFrame:
    """Lay the counts of `operating_points` out as matrices: rows are true, columns called."""
    rows = []
    for method in methods:
        points = operating_points([method])
        if points.empty:
            continue
        first, second = dict.fromkeys(points["positive class"])
        for row in points[points["positive class"] == second].to_dict("records"):
            shared = {"method": method.name, "threshold": row["threshold"]}
            cells = {first: (row["tn"], row["fp"]), second: (row["fn"], row["tp"])}
            rows += [
                shared
                | {"truly": name, f"called {first}": one, f"called {second}": other}
                | {"protocol": method.protocol}
                for name, (one, other) in cells.items()
            ]
    return pd.DataFrame(rows)


def thresholds(methods: Sequence[Method]) -> pd.DataFrame:
    """List the threshold of each run, on what it was chosen, and how."""
    return pd.DataFrame(
        [
            {
                "method": method.name,
                "run": run.part,
                "on the probability of": facts["class"],
                "threshold": float(facts["value"]),
                "chosen on": _PARTS[facts["chosen_on"]],
                "images": facts.get("images", 0),
                f"of them {facts['class']}": facts.get(f"of_{facts['class']}", 0),
                "balanced accuracy there": facts.get("balanced_accuracy", np.nan),
                "rule": facts["rule"],
                "protocol": method.protocol,
            }
            for method in methods
            for run in method.runs
            if (facts := run.identity.get("threshold"))
        ]
    )


def thresholds_shown(table: pd.DataFrame) -> pd.DataFrame:
    """Lay the thresholds out; the rule stands below."""
    return numbers_shown(table.drop(columns=["rule"])) if len(table) else table


def points_shown(table: pd.DataFrame) -> pd.DataFrame:
    """Lay the operating points out, each rate before its interval."""
    shown = table[["method", "positive class", "threshold", "n"]].copy()
    for rate in RATES:
        shown[rate] = with_interval(table, rate)
    shown["protocol"] = table["protocol"]
    return shown


def _by_class(methods: Sequence[Method]) -> Iterator[tuple[Method, str, pd.DataFrame]]:
    for method in methods:
        names = class_names([method])
        for value, rows in method.labels.groupby("class"):
            yield method, names[str(value)], rows


def _row(
    method: Method, name: str, rows: pd.DataFrame, threshold: str, called: NDArray[np.bool_]
) -> dict[str, Any]:
    names = {"method": method.name, "positive class": name, "threshold": threshold}
    return names | rated(rows, called) | {"protocol": method.protocol}


def rated(rows: pd.DataFrame, called: NDArray[np.bool_]) -> dict[str, Any]:
    """Count and rate the calls of one class.

    Args:
        rows: (N,) of `labels.csv`, of that class.
        called: (N,), whether each is called the class.

    Returns:
        `n` and the four counts of images, rates with their 95 % interval by patients.
    """
    cells = _cells_by_patient(rows, called)
    total = cells.sum(axis=0)
    counts = {cell: int(n) for cell, n in zip(("tp", "fp", "fn", "tn"), total, strict=True)}
    row: dict[str, Any] = {"n": int(total.sum()), **counts}
    for rate, value, interval in zip(
        RATES, _rates(total[None])[0], bootstrap_sums(cells, _rates), strict=True
    ):
        row |= {rate: value, f"{rate}_low": interval.low, f"{rate}_high": interval.high}
    return row


def _cells_by_patient(rows: pd.DataFrame, called: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Count true and false positives, false and true negatives of each patient: (N, 4)."""
    known = (rows["is_class"] != UNLABELLED).to_numpy()
    true = (rows["is_class"] == 1).to_numpy()
    cells = np.stack([called & true, called & ~true, ~called & true, ~called & ~true], axis=1)
    patients, line = np.unique(rows["patient_id"].to_numpy(str)[known], return_inverse=True)
    counts = np.zeros((len(patients), 4))
    np.add.at(counts, line, cells[known].astype(float))
    return counts


def _rates(cells: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return `RATES` (R, 4) of counts (R, 4); NaN for 0/0."""
    tp, fp, fn, tn = cells.T
    with np.errstate(invalid="ignore"):
        sensitivity, specificity = tp / (tp + fn), tn / (tn + fp)
        accuracy = (tp + tn) / cells.sum(axis=1)
    return np.stack([accuracy, (sensitivity + specificity) / 2, sensitivity, specificity], axis=1)
