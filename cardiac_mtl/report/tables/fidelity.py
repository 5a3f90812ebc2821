"""Ours beside the papers' values: every row of every published table that some run can answer."""

from collections.abc import Sequence
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from cardiac_mtl.contracts import HONEST
from cardiac_mtl.metrics.agreement import pearson
from cardiac_mtl.metrics.binned import RATES
from cardiac_mtl.metrics.classification import roc
from cardiac_mtl.metrics.shape import ERROR_NAMES
from cardiac_mtl.metrics.statistics import bootstrap_mean, ks
from cardiac_mtl.report.methods import Method
from cardiac_mtl.report.tables.diagnosis import rated
from cardiac_mtl.report.tables.pixels import rates_by_patient

LAYOUT = {"mtn": "lvsc", "weak_transfer": "mscmr"}
"""Layout of each paper's data set that researchers can get; the others are private."""
PATIENTS = {
    **{("mtn", table): 97 for table in ("Table 1", "Table 2", "Fig. 2", "Fig. 3")},
    ("weak_transfer", "Table 1"): 2,
    ("weak_transfer", "Table 2"): 40,
    ("weak_transfer", "Table 3"): 40,
}
"""Tested, by paper and table, where runs can test the same."""
_ON_TEST = {"mtn"}
"""Papers that chose the checkpoint on test patients."""
_VOLUMES = {
    "dice": "dice",
    "jaccard": "jaccard",
    "msd": "msd_mm",
    "hd": "hd_mm",
    "hd95": "hd95_mm",
}
_IN_VOXELS = {"mtn"}
"""Papers whose MSD is in voxels in all likelihood (docs/papers/mtn.md)."""
_OF_SLICES = {"fpm"}
"""Papers whose Dice and Jaccard are means over images."""
_EXTREMES = {"minimum": np.min, "maximum": np.max}
_SLICES = {
    "segmented_area_error": "area_error_mm2",
    "regressed_area_error": "regressed_area_error_mm2",
}
_INDICES = {name.rpartition("_")[0]: f"regressed_{name}_error" for name in ERROR_NAMES}
_INDICES["segment_percent"] = "regressed_segment_percent_error"
_OF_IMAGES = {
    "accuracy": ("tp", "fp", "fn", "tn"),
    "sensitivity": ("tp", "fn"),
    "specificity": ("fp", "tn"),
}
"""Rates, and the counts of the images that each is of."""
POSITIVE = "0"
"""Healthy, the positive class of FPM's tables (docs/papers/fpm_multitask.md)."""
_LINES = {"pearson_r_segmented": "area_mm2", "pearson_r_regressed": "regressed_area_mm2"}


class _Ours(NamedTuple):
    value: float
    sd: float
    low: float
    high: float
    n: int


def paper_values() -> pd.DataFrame:
    """Return every published value: `paper_values.csv`."""
    with (files("cardiac_mtl.report.tables") / "paper_values.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file, keep_default_na=False)


def fidelity(methods: Sequence[Method]) -> pd.DataFrame:
    """Set our values beside the papers'.

    Args:
        methods: those named as an experiment answer the rows of that experiment; not so several
            variants of one, as none of them need be the paper's.

    Returns:
        One row a published value and method that answers it: the paper's value, ours with its 95 %
        interval by patients, what it was measured on, whether the two may be compared, how the
        checkpoint was selected, and the command.
    """
    rows = []
    records = [
        {str(k): v for k, v in record.items()} for record in paper_values().to_dict("records")
    ]
    answers = [
        (row, method)
        for row in records
        for method in methods
        if method.experiment == row["experiment"] and not method.variant
    ]
    for row, method in answers:
        ours = _ours(method, row, methods)
        if ours is None:
            continue
        what = [row["label"], row["phase"], row["region"], row["measure"], row["statistic"]]
        rows.append(
            {
                "paper": row["paper"],
                "table": row["table"],
                "row": row["row"],
                "quantity": " ".join(word for word in what if word),
                "unit": row["unit"],
                "paper_value": float(row["value"]),
                "paper_sd": float(row["sd"]) if row["sd"] else np.nan,
                "ours": ours.value,
                "ours_sd": ours.sd,
                "low": ours.low,
                "high": ours.high,
                "n": ours.n,
                "data": method.data
                + (method.name.removeprefix(method.family) if method.family else ""),
                "comparable": comparable(method, row["paper"], row["table"]),
                "protocol": method.protocol,
                "command": method.runs[0].identity.get("command", ""),
                "note": row["note"],
            }
        )
    return pd.DataFrame(rows)


def comparable(method: Method, paper: str, table: str) -> str:
    """Say whether the values of a method may be held against those of a paper's table."""
    identities = [run.identity for run in method.runs]
    if any(identity.get("phantom") for identity in identities):
        return "no: phantom hearts"
    if any(identity.get("layout") != LAYOUT.get(paper, "") for identity in identities):
        return "no: other patients"
    count = method.cases["patient_id"].nunique()
    if count != (tested := PATIENTS.get((paper, table), count)):
        return f"no: {count} of {tested} patients"
    same = f"by layout and count, if these are the {LAYOUT[paper]} patients"
    if method.protocol == HONEST and paper in _ON_TEST:
        return f"{same}; the paper selected on test"
    return same


def published_pixels(methods: Sequence[Method]) -> pd.DataFrame:
    """Return the pixel rates of Table 1 of MuTGAN for the rows that some methods are.

    Returns:
        Columns of `pixels.pixel_measures`; the paper says neither which pixels nor which average.
    """
    values = paper_values()
    values = values[(values["table"] == "Table 1") & values["measure"].isin(RATES)]
    rows = []
    for method in methods:
        found = values[values["experiment"] == method.experiment]
        if len(method.pixels) and len(found):
            given = dict(zip(found["measure"], found["value"].astype(float), strict=True))
            name = f"{found['row'].iloc[0]}, the paper's patients"
            rows.append({"method": name, "pixels": "not said", "average": "not said", **given})
    return pd.DataFrame(rows)


def _ours(method: Method, row: dict[str, Any], methods: Sequence[Method]) -> _Ours | None:
    """Return our value of one published quantity, None where no run measured it."""
    measure = str(row["measure"])
    if not row["label"] and (measure in _OF_IMAGES or measure == "auc"):
        return _of_classes(method, measure)
    if measure == "psnr":
        return _extreme(method, row["statistic"])
    if found := _rows_of(method, row, measure):
        return _mean(*found, row["statistic"])
    if measure in _LINES:
        slices = _chosen(method.slices, row)
        slices = slices[slices["reference_area_mm2"] > 0]
        areas = slices[_LINES[measure]].to_numpy(float)
        line = pearson(slices["reference_area_mm2"].to_numpy(float), areas)
        return _Ours(line.r, np.nan, np.nan, np.nan, line.n) if np.isfinite(line.r) else None
    return _ks(method, row, methods) if measure.startswith("ks_p_") else None


def _rows_of(method: Method, row: dict[str, Any], measure: str) -> tuple[pd.DataFrame, str] | None:
    """Return the rows, and the column of them, whose mean answers a published value."""
    if row["paper"] in _OF_SLICES and measure in {"dice", "jaccard"}:
        return _chosen(method.slices, row), measure
    if measure in _VOLUMES:
        return _chosen(method.cases, row), _column_of(row["paper"], measure)
    if measure in _SLICES:
        slices = method.slices[method.slices["reference_area_mm2"] > 0]
        return _chosen(slices, row), _SLICES[measure]
    if measure in _INDICES:
        return method.indices, _INDICES[measure]
    if measure in RATES:  # of pixels; the Dice is one of volumes
        return rates_by_patient(method), measure
    return None


def _extreme(method: Method, statistic: str) -> _Ours | None:
    """Return the smallest or largest PSNR; of masks, whose values are few, a mode says nothing."""
    values = method.slices["psnr_db"].dropna().to_numpy(float)
    if statistic not in _EXTREMES or not len(values):
        return None
    return _Ours(float(_EXTREMES[statistic](values)), np.nan, np.nan, np.nan, len(values))


def _chosen(frame: pd.DataFrame, row: dict[str, Any]) -> pd.DataFrame:
    if row["label"]:
        frame = frame[frame["label"] == row["label"]]
    if row["phase"] in {"ED", "ES"}:
        frame = frame[frame["cardiac_phase"] == row["phase"]]
    if row["region"] in {"apical", "mid", "basal"}:
        frame = frame[frame["region"] == row["region"]]
    return frame


def _mean(frame: pd.DataFrame, column: str, statistic: str) -> _Ours | None:
    if frame.empty:
        return None
    values = frame[column].to_numpy(float)
    known = values[np.isfinite(values)]
    if not len(known):
        return None
    sd = float(known.std(ddof=1)) if len(known) > 1 else np.nan
    if statistic == "median":  # the SD is of a mean
        return _Ours(float(np.median(known)), np.nan, np.nan, np.nan, len(known))
    low, high = bootstrap_mean(values, clusters=frame["patient_id"].to_numpy())
    return _Ours(float(known.mean()), sd, low, high, len(known))


def _of_classes(method: Method, measure: str) -> _Ours | None:
    """Return a rate over the images of all folds, or the mean of the AUC of the folds [paper]."""
    rows = _positive(method.labels)
    if rows.empty:
        return None
    if measure == "auc":
        folds = [_positive(run.labels) for run in method.runs]
        areas = [
            roc(fold["probability"].to_numpy(float), fold["is_class"].to_numpy(int)).area
            for fold in folds
        ]
        known = [area for area in areas if np.isfinite(area)]
        return _Ours(float(np.mean(known)), np.nan, np.nan, np.nan, len(known)) if known else None
    found = rated(rows, rows["probability"].to_numpy(float) > 0.5)
    count = sum(found[cell] for cell in _OF_IMAGES[measure])
    ends = found[f"{measure}_low"], found[f"{measure}_high"]
    return _Ours(found[measure], np.nan, *ends, count) if count else None


def _positive(labels: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the positive class; without one where no class is predicted."""
    return labels[labels["class"].astype(str) == POSITIVE]


def _ks(method: Method, row: dict[str, Any], methods: Sequence[Method]) -> _Ours | None:
    """Compare the volumes of MTN with those of the U-Net on the same data, of the same seed."""
    column = _column_of(row["paper"], str(row["measure"]).removeprefix("ks_p_"))
    for other in methods:
        alike = _data_and_seed(other) == _data_and_seed(method)
        pair = method, other
        if other.experiment == "mtn_unet" and not other.variant and alike:
            one, two = (_chosen(m.cases, row)[column].dropna().to_numpy(float) for m in pair)
            return _Ours(ks(one, two), np.nan, np.nan, np.nan, len(one)) if len(one) else None
    return None


def _data_and_seed(method: Method) -> tuple[str, str]:
    return method.data, str(method.runs[0].identity.get("seed", ""))


def _column_of(paper: str, measure: str) -> str:
    """Return the column of volumes in the unit of the paper."""
    return "msd_voxels" if measure == "msd" and paper in _IN_VOXELS else _VOLUMES[measure]
