"""How often a structure is found where it is, and nothing where it is not: by patient, paired.

Dice says little of it: it is undefined in a patient without the structure in whom nothing was
found, so that a false finding has no partner to be compared with.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from cardiac_mtl.metrics.statistics import holm
from cardiac_mtl.report.methods import Family, Method, pairs_of
from cardiac_mtl.report.tables.layout import p_value, with_interval

_RIGHT = {"ok": 1.0, "missed": 0.0, "both_empty": 1.0, "false_positive": 0.0}
_KINDS = {"ok": "with", "missed": "with", "both_empty": "without", "false_positive": "without"}
"""Patients with the structure, which may be missed; without it, in whom one may be found."""


def rates(methods: Sequence[Method]) -> pd.DataFrame:
    """Count the patients in all of whose volumes a method is right about the structure.

    Returns:
        By method, label and kind of patient: how many, how many right, and Wilson's 95 % interval
        of the rate. Labels about which every method is always right are left out. A patient with
        volumes of both kinds counts in both.
    """
    rows = []
    for method in methods:
        for (label, kind), right in _by_patient(method.cases).groupby(["label", "kind"]):
            count, patients = int((right["right"] == 1).sum()), len(right)
            interval = stats.binomtest(count, patients).proportion_ci(0.95, "wilson")
            rows.append(
                {
                    "method": method.name,
                    "label": label,
                    "patients": kind,
                    "n": patients,
                    "right": count,
                    "rate": count / patients,
                    "low": float(interval.low),
                    "high": float(interval.high),
                    "protocol": method.protocol,
                }
            )
    table = pd.DataFrame(rows)
    if table.empty:
        return table
    wrong = table.loc[table["right"] < table["n"], "label"].unique()
    return table[table["label"].isin(wrong)].reset_index(drop=True)


def comparisons(methods: Sequence[Method]) -> pd.DataFrame:
    """Test every pair of methods on the cases of both: exact sign test (McNemar's, one seed).

    Returns:
        By label and kind of patient: how many both have, in how many each is right more often
        than the other (over volumes and seeds), p, and p by Holm over all rows. Rows in which the
        two never differ are left out.
    """
    rows = []
    for first, second in pairs_of(methods):
        cases = pd.concat(first.rows("cases")).drop_duplicates("case_id")
        # the second may have the same cases under other names of their patients
        patients = cases.set_index("case_id")["patient_id"]
        before, after = (_shares(family, patients) for family in (first, second))
        pairs = pd.concat({"first": before, "second": after}, axis=1, join="inner")
        for (label, kind), pair in pairs.groupby(["label", "kind"]):
            # the same shares in another order of seeds add up to another last digit
            better = np.sign((pair["second"] - pair["first"]).round(9))
            ahead = [int((better == sign).sum()) for sign in (-1, 1)]
            if not sum(ahead):
                continue
            rows.append(
                {
                    "first": first.name,
                    "second": second.name,
                    "label": label,
                    "patients": kind,
                    "n": len(pair),
                    "first_better": ahead[0],
                    "second_better": ahead[1],
                    "p": float(stats.binomtest(ahead[0], sum(ahead)).pvalue),
                }
            )
    table = pd.DataFrame(rows)
    if len(table):
        table["p_holm"] = holm(table["p"].to_numpy(float))
    return table


def _shares(family: Family, patients: pd.Series) -> pd.Series:
    """Return the share of volumes and seeds that are right, by patient, label and kind.

    Args:
        family: its cases are known to the next.
        patients: of the cases.
    """
    judged = [
        _by_patient(cases.assign(patient_id=cases["case_id"].map(patients)))
        for cases in family.rows("cases")
    ]
    return pd.concat(judged).groupby(["patient_id", "label", "kind"])["right"].mean()


def _by_patient(cases: pd.DataFrame) -> pd.DataFrame:
    """Return the share of volumes that are right, by patient, label and kind."""
    judged = cases.assign(right=cases["state"].map(_RIGHT), kind=cases["state"].map(_KINDS))
    judged = judged.dropna(subset=["right"])
    return judged.groupby(["patient_id", "label", "kind"])["right"].mean().reset_index()


def rates_shown(table: pd.DataFrame) -> pd.DataFrame:
    """Lay the rates out."""
    shown = table[["method", "label"]].copy()
    shown["patients"] = table["patients"] + " it"
    columns = (table[name] for name in ("right", "n"))
    shown["right"] = [f"{right} of {n}" for right, n in zip(*columns, strict=True)]
    shown["rate [95 %]"] = with_interval(table, "rate", "low", "high")
    shown["protocol"] = table["protocol"]
    return shown


def comparisons_shown(table: pd.DataFrame) -> pd.DataFrame:
    """Lay the sign tests out."""
    shown = table[["first", "second", "label"]].copy()
    shown["patients"] = table["patients"] + " it"
    shown["n"] = table["n"]
    shown["first / second right more often"] = [
        f"{one} / {two}"
        for one, two in zip(table["first_better"], table["second_better"], strict=True)
    ]
    shown["p, sign test"] = table["p"].map(p_value)
    shown["p by Holm"] = table["p_holm"].map(p_value)
    return shown
