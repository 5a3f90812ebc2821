"""Rows of `pixels.csv` to a table: how well infarct pixels are told, pooled and by patient."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cardiac_mtl.evaluation.pixels import MYOCARDIUM, REGION
from cardiac_mtl.metrics.binned import (
    RATES,
    Bounds,
    auc,
    auc_bounds,
    average_precision,
    average_precision_bounds,
    rates,
)
from cardiac_mtl.metrics.statistics import Interval, bootstrap_mean, bootstrap_sums
from cardiac_mtl.report.methods import Method
from cardiac_mtl.report.tables.layout import with_interval

POOLED, BY_PATIENT = "pooled", "mean over patients"
MEASURES = (*RATES, "auc", "average_precision")


class PixelCounts(NamedTuple):
    """Pixels of one method and place."""

    method: Method
    place: str
    """`REGION` or `MYOCARDIUM`."""
    patients: NDArray[np.str_]
    by_patient: NDArray[np.int64]
    """(patients, 2, bins), infarcted pixels and others, bins in rising order."""
    log_odds: NDArray[np.float64]
    """(bins,), upper edges."""

    @property
    def from_masks(self) -> bool:
        """Whether there are no probabilities: every pixel has 0 or 1."""
        return len(self.log_odds) <= 2


def pixel_counts(methods: Sequence[Method]) -> Iterator[PixelCounts]:
    """Yield the counts of each place, and within it of each method that has some."""
    for place in (REGION, MYOCARDIUM):
        for method in methods:
            rows = method.pixels
            rows = rows[rows["pixels"] == place] if len(rows) else rows
            if len(rows):
                yield _counted(method, place, rows)


def pixel_measures(methods: Sequence[Method]) -> pd.DataFrame:
    """Measure the pixels of each method, of the whole region and within the myocardium.

    Returns:
        A row with all pixels pooled, and one with means over patients: rates of the calls at a
        probability of one half, and pooled the areas under ROC and PR, each with its 95 % interval
        by patients. A patient without infarct has no sensitivity, and one in whom nothing is
        found either no Dice. `auc_bound` and `average_precision_bound` say how much the bins may
        have moved the areas.
    """
    return pd.DataFrame([row for counts in pixel_counts(methods) for row in _rows(counts)])


def rates_by_patient(method: Method) -> pd.DataFrame:
    """Return `patient_id` and the rates in the whole region; no row without `pixels.csv`."""
    for counts in pixel_counts([method]):
        if counts.place == REGION:
            values = rates(counts.by_patient, counts.log_odds)
            return pd.DataFrame(values, columns=list(RATES)).assign(patient_id=counts.patients)
    return pd.DataFrame(columns=[*RATES, "patient_id"])


def pixels_shown(table: pd.DataFrame) -> pd.DataFrame:
    """Lay the measures out, each before its interval."""
    shown = table[["method", "pixels", "average"]].copy()
    shown["patients"] = ["—" if np.isnan(n) else str(int(n)) for n in table["patients"]]
    shown["infarct"] = ["—" if np.isnan(v) else f"{v:.1%}" for v in table["share_of_infarct"]]
    for measure in MEASURES:
        heading = {"auc": "AUC", "average_precision": "AP", "dice": "Dice"}.get(measure, measure)
        shown[heading] = with_interval(table, measure)
    return shown


def _counted(method: Method, place: str, rows: pd.DataFrame) -> PixelCounts:
    log_odds, column = np.unique(rows["log_odds"].to_numpy(float), return_inverse=True)
    patients, line = np.unique(rows["patient_id"].to_numpy(str), return_inverse=True)
    counts = np.zeros((len(patients), 2, len(log_odds)), np.int64)
    for k, name in enumerate(("positives", "negatives")):
        np.add.at(counts[:, k], (line, column), rows[name].to_numpy(int))
    return PixelCounts(method, place, patients, counts, log_odds)


def _rows(counts: PixelCounts) -> list[dict[str, Any]]:
    """Return the row of all pixels, and that of the means over patients."""
    by_patient, pooled = counts.by_patient, counts.by_patient.sum(axis=0)
    who = {
        "method": counts.method.name,
        "pixels": counts.place,
        "patients": len(by_patient),
        "share_of_infarct": pooled[0].sum() / pooled.sum(),
        "protocol": counts.method.protocol,
    }
    intervals = bootstrap_sums(
        by_patient.reshape(len(by_patient), -1).astype(float),
        lambda sums: _measures_of(sums.reshape(-1, *pooled.shape), counts),
    )
    of_all = _columns(MEASURES, _measures_of(pooled, counts), intervals)
    if not counts.from_masks:
        of_all["auc_bound"] = _reach(auc(pooled), auc_bounds(pooled))
        bounds = average_precision_bounds(pooled)
        of_all["average_precision_bound"] = _reach(average_precision(pooled), bounds)
    each = rates(by_patient, counts.log_odds).T
    means = [known.mean() if len(known := v[np.isfinite(v)]) else np.nan for v in each]
    of_means = _columns(RATES, means, [bootstrap_mean(values) for values in each])
    return [{**who, "average": POOLED, **of_all}, {**who, "average": BY_PATIENT, **of_means}]


def _measures_of(summed: NDArray[Any], counts: PixelCounts) -> NDArray[np.float64]:
    """Return `MEASURES` (..., 6) of counts (..., 2, bins); masks have no areas."""
    areas = np.stack([auc(summed), average_precision(summed)], axis=-1)
    if counts.from_masks:
        areas[:] = np.nan
    return np.concatenate([rates(summed, counts.log_odds), areas], axis=-1)


def _columns(
    names: Sequence[str], values: Iterable[float], intervals: Iterable[Interval]
) -> dict[str, float]:
    columns: dict[str, float] = {}
    for name, value, interval in zip(names, values, intervals, strict=True):
        columns |= {name: value, f"{name}_low": interval.low, f"{name}_high": interval.high}
    return columns


def _reach(value: NDArray[np.float64], bounds: Bounds) -> float:
    """Return how far a value may be from that without bins."""
    return float(max(bounds.high - value, value - bounds.low))
