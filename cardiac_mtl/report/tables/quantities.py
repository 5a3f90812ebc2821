"""What is measured beside overlap: areas, volumes and function, against their references."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from cardiac_mtl.metrics.agreement import bland_altman, icc, pearson
from cardiac_mtl.report.methods import Method

FUNCTION = {
    "edv_ml": "EDV ml",
    "esv_ml": "ESV ml",
    "sv_ml": "SV ml",
    "ef_percent": "EF %",
    "mass_g": "mass g",
    "ed_wall_mm": "ED wall mm",
}
"""Column of `patients.csv` to heading and unit."""

Row = dict[str, Any]


def agreement(methods: Sequence[Method]) -> pd.DataFrame:
    """Compare predicted quantities with their references: areas of slices, volumes, function."""
    rows = [
        {"method": method.name, "quantity": name, "unit": unit, **_agreement(true, found, patients)}
        for method in methods
        for name, unit, true, found, patients in quantities(method)
    ]
    return pd.DataFrame(rows)


Quantity = tuple[str, str, np.ndarray, np.ndarray, np.ndarray]
"""Name, unit, reference, prediction, and the patient of each."""


def quantities(method: Method) -> list[Quantity]:
    """Return what a method measures and its rows have a reference for."""
    found = [*_areas_of(method), *_volumes_of(method), *_function_of(method)]
    return [one for one in found if np.isfinite(one[3] - one[2]).any()]


def _areas_of(method: Method) -> Iterator[Quantity]:
    for label, slices in method.slices.groupby("label", sort=False):
        bearing = slices[slices["reference_area_mm2"] > 0]
        true = bearing["reference_area_mm2"].to_numpy(float)
        for branch, column in (("segmented", "area_mm2"), ("regressed", "regressed_area_mm2")):
            found, patients = bearing[column].to_numpy(float), bearing["patient_id"].to_numpy()
            yield f"{label} area, {branch}", "mm²", true, found, patients


def _volumes_of(method: Method) -> Iterator[Quantity]:
    for label, cases in method.cases.groupby("label", sort=False):
        true, found = (cases[f"{p}volume_ml"].to_numpy(float) for p in ("reference_", ""))
        yield f"{label} volume", "ml", true, found, cases["patient_id"].to_numpy()


def _function_of(method: Method) -> Iterator[Quantity]:
    for chamber, patients in method.patients.groupby("chamber", sort=False):
        for column, heading in FUNCTION.items():
            name, unit = heading.rsplit(" ", 1)
            true, found = (patients[f"{p}{column}"].to_numpy(float) for p in ("reference_", ""))
            who = patients["patient_id"].to_numpy()
            yield f"{str(chamber).upper()} {name}", unit, true, found, who


def function_flags(methods: Sequence[Method]) -> pd.DataFrame:
    """List the patients whose predicted function is impossible or absurd."""
    rows = [
        {"method": method.name, **row}
        for method in methods
        for row in method.patients[method.patients["flags"].fillna("") != ""][
            ["patient_id", "chamber", *FUNCTION, "flags"]
        ].to_dict("records")
    ]
    return pd.DataFrame(rows)


def _agreement(true: np.ndarray, found: np.ndarray, patients: np.ndarray) -> Row:
    line, limits = pearson(true, found), bland_altman(true, found, clusters=patients)
    single = icc(true, found, clusters=patients)
    return {
        "n": limits.n,
        "bias": limits.bias,
        "bias_low": limits.bias_ci.low,
        "bias_high": limits.bias_ci.high,
        "lower_limit": limits.lower,
        "lower_limit_low": limits.lower_ci.low,
        "lower_limit_high": limits.lower_ci.high,
        "upper_limit": limits.upper,
        "upper_limit_low": limits.upper_ci.low,
        "upper_limit_high": limits.upper_ci.high,
        "mean_absolute_error": float(np.nanmean(np.abs(found - true))),
        "pearson_r": line.r,
        "slope": line.slope,
        "intercept": line.intercept,
        "icc": single.value,
        "icc_low": single.interval.low,
        "icc_high": single.interval.high,
    }
