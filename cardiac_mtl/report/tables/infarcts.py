"""Rows of `indices.csv` to tables: errors of the seven infarct indices, tests between methods."""

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from cardiac_mtl.metrics.shape import ERROR_NAMES
from cardiac_mtl.metrics.statistics import bootstrap_mean, holm
from cardiac_mtl.report.methods import Method, pairs_of
from cardiac_mtl.report.tables.analysis import difference
from cardiac_mtl.report.tables.layout import estimate, p_value, with_interval

SOURCES = {"regressed": "regressed_", "from the mask": ""}
"""Where an index comes from, and how its columns begin."""
_COLUMNS = [
    (name, source, f"{prefix}{name}_error")
    for source, prefix in SOURCES.items()
    for name in ERROR_NAMES
]


def index_errors_of(methods: Sequence[Method]) -> pd.DataFrame:
    """Average the absolute errors of each index over slices.

    Returns:
        By method, index and source: mean, SD, median and the 95 % interval of the mean by
        patients, over the slices in which reference and prediction have the index. A slice whose
        infarct was missed has an error of size and percentage from the mask, and no other: the
        counts of slices say how many are left.
    """
    rows = []
    for method, (name, source, column) in product(_measured(methods), _COLUMNS):
        known = method.indices[["patient_id", column]].dropna()
        errors = known[column].to_numpy(float)
        if not len(errors):
            continue
        interval = bootstrap_mean(errors, clusters=known["patient_id"].to_numpy())
        rows.append(
            {
                "method": method.name,
                "index": name,
                "source": source,
                "slices": len(known),
                "patients": known["patient_id"].nunique(),
                "mean": errors.mean(),
                "sd": errors.std(ddof=1) if len(errors) > 1 else np.nan,
                "median": np.median(errors),
                "low": interval.low,
                "high": interval.high,
                "protocol": method.protocol,
            }
        )
    return pd.DataFrame(rows)


def index_comparisons(methods: Sequence[Method]) -> pd.DataFrame:
    """Test every pair of methods on the slices of which both have an index, the mean of its seeds.

    Returns:
        Mean difference of the errors (second minus first) with its 95 % interval by patients,
        Wilcoxon's p on the means of patients, and the same by Holm over all rows.
    """
    rows: list[dict[str, Any]] = []
    for first, second in pairs_of(_measured(methods)):
        merged = first.indices.merge(
            second.indices, on=["case_id", "slice"], suffixes=("_1", "_2"), validate="1:1"
        )
        for name, source, column in _COLUMNS:
            one, two = (merged[f"{column}_{k}"].to_numpy(float) for k in (1, 2))
            both = np.isfinite(two - one)
            if not both.any():
                continue
            rows.append(
                {
                    "first": first.name,
                    "second": second.name,
                    "index": name,
                    "source": source,
                    "slices": int(both.sum()),
                    **difference(one, two, merged["patient_id_1"]),
                }
            )
    table = pd.DataFrame(rows)
    if len(table):
        table["p_holm"] = holm(table["p_wilcoxon"].to_numpy(float))
    return table


def errors_shown(table: pd.DataFrame) -> pd.DataFrame:
    """Lay the errors out: a column a method and source."""
    text = table[["index"]].copy()
    text["column"] = table["method"] + ", " + table["source"]
    text["error"] = [
        f"{estimate(row['mean'], row['low'], row['high'], sd=row['sd'], spec='.2f')}, "
        f"n {row['slices']}"
        for row in table.to_dict("records")
    ]
    wide = text.pivot_table(
        index="index", columns="column", values="error", aggfunc="first", sort=False
    )
    return wide.fillna("—").reset_index().rename_axis(columns=None)


def comparisons_shown(table: pd.DataFrame) -> pd.DataFrame:
    """Lay paired tests of errors out, as those of overlap are."""
    if table.empty:
        return table
    shown = pd.DataFrame({"second minus first": table["second"] + " - " + table["first"]})
    shown[["index", "source", "slices", "patients"]] = table[
        ["index", "source", "slices", "patients"]
    ]
    columns = ("difference", "low", "high")
    shown["difference of errors [95 %]"] = with_interval(table, *columns, spec="+.2f")
    for column, heading in (("p_wilcoxon", "p Wilcoxon"), ("p_holm", "p by Holm")):
        shown[heading] = table[column].map(p_value)
    return shown


def _measured(methods: Sequence[Method]) -> list[Method]:
    """Return the methods that have indices."""
    return [method for method in methods if len(method.indices)]
