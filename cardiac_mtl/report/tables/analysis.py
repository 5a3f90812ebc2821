"""Rows to the tables of a report: means with intervals and failures, tests, agreement, strata."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from cardiac_mtl.metrics.classification import roc
from cardiac_mtl.metrics.statistics import bootstrap_mean, holm, ks, paired_test
from cardiac_mtl.report.methods import Method, families, pairs_of

MEASURES = {
    "dice": "Dice",
    "jaccard": "Jaccard",
    "msd_mm": "MSD mm",
    "msd_voxels": "MSD voxels (legacy)",
    "hd_mm": "HD mm",
    "hd95_mm": "HD95 mm",
    "surface_dice": "surface Dice",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "precision": "precision",
    "accuracy": "accuracy",
}
"""Column of the rows to heading; all but the distances grow with agreement."""
COMPARED = ("dice", "jaccard", "msd_mm", "hd_mm", "hd95_mm")
BRANCHES = {"segmented": "area_error_mm2", "regressed": "regressed_area_error_mm2"}
REGIONS = ("all", "apical", "mid", "basal")
BAD_DICE = 0.7
"""Below it a segmentation counts as bad when the disagreement of the branches is judged."""

Row = dict[str, Any]


def phases_of(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield ED and ES where they are a part of the rows, then all."""
    for phase in ("ED", "ES"):
        chosen = frame[frame["cardiac_phase"] == phase]
        if 0 < len(chosen) < len(frame):
            yield phase, chosen
    yield "all", frame


def headline(methods: Sequence[Method]) -> pd.DataFrame:
    """Average volumes by method, label and phase.

    Returns:
        Counts of patients, volumes and failures beside mean, SD, median, worst and interval of
        each measure: 95 % by patients, and 99 % by volumes as the paper of MTN has it. Misses count
        at their worst; `dice_without_failures` shows what leaving them out would have given (P1).
    """
    rows = []
    for method in methods:
        for label, of_label in method.cases.groupby("label", sort=False):
            for phase, chosen in phases_of(of_label):
                rows.append(
                    {
                        "method": method.name,
                        "label": label,
                        "phase": phase,
                        **_counts(chosen),
                        **{k: v for m in MEASURES for k, v in _spread(chosen, m).items()},
                        "dice_without_failures": chosen.loc[chosen["state"] == "ok", "dice"].mean(),
                        "protocol": method.protocol,
                    }
                )
    return pd.DataFrame(rows)


def strata(methods: Sequence[Method], columns: Sequence[str]) -> pd.DataFrame:
    """Average the Dice and distances of volumes within each value of some columns.

    Args:
        methods: their cases hold the columns.
        columns: such as pathology, vendor, centre.
    """
    rows = []
    for method in methods:
        for column in columns:
            if column not in method.cases:
                continue
            known = method.cases[method.cases[column].astype(str) != ""]
            for (value, label), chosen in known.groupby([column, "label"], sort=True):
                spread = {k: v for m in COMPARED for k, v in _spread(chosen, m).items()}
                rows.append(
                    {"method": method.name, "column": column, "value": value, "label": label}
                    | _counts(chosen)
                    | spread
                    | {"protocol": method.protocol}
                )
    return pd.DataFrame(rows)


def areas(methods: Sequence[Method]) -> pd.DataFrame:
    """Average the area errors of slices that hold the label, by phase and region, as MTN has."""
    rows = []
    for method in methods:
        bearing = method.slices[method.slices["reference_area_mm2"] > 0]
        for label, of_label in bearing.groupby("label", sort=False):
            for phase, in_phase in phases_of(of_label):
                for region in REGIONS:
                    chosen = in_phase if region == "all" else in_phase[in_phase["region"] == region]
                    for branch, column in BRANCHES.items():
                        if chosen[column].notna().any():
                            rows.append(
                                {
                                    "method": method.name,
                                    "branch": branch,
                                    "label": label,
                                    "phase": phase,
                                    "region": region,
                                    "patients": chosen["patient_id"].nunique(),
                                    "slices": len(chosen),
                                    **_renamed(_spread(chosen, column), column, "error_mm2"),
                                    "protocol": method.protocol,
                                }
                            )
    return pd.DataFrame(rows)


def regions(methods: Sequence[Method]) -> pd.DataFrame:
    """Average the in-plane measures of slices by region: base and apex are where networks fail."""
    rows = []
    for method in methods:
        for label, of_label in method.slices.groupby("label", sort=False):
            for region in ("basal", "mid", "apical", ""):
                chosen = of_label[of_label["region"] == region]
                if len(chosen):
                    spread = {k: v for m in COMPARED for k, v in _spread(chosen, m).items()}
                    name = region or "without the label"
                    rows.append(
                        {"method": method.name, "label": label, "region": name}
                        | _counts(chosen)
                        | spread
                        | {"protocol": method.protocol}
                    )
    return pd.DataFrame(rows)


def comparisons(methods: Sequence[Method]) -> pd.DataFrame:
    """Test every pair of methods on the cases that both have, each the mean of its seeds.

    Returns:
        By label, phase and measure: mean difference (second minus first) with its 95 % interval
        by patients, Wilcoxon's p on the means of patients, the same by Holm over all rows, and p
        of the two-sample Kolmogorov-Smirnov test on volumes, as the paper of MTN has it.
    """
    rows: list[Row] = []
    for first, second in pairs_of(methods):
        keys = ["case_id", "label"]
        merged = first.cases.merge(second.cases, on=keys, suffixes=("_1", "_2"))
        named = merged["cardiac_phase_1"]  # where references without a table name none: the other's
        merged["cardiac_phase"] = named.where(named != "", merged["cardiac_phase_2"])
        for label, of_label in merged.groupby("label", sort=False):
            for phase, chosen in phases_of(of_label):
                for measure in COMPARED:
                    one, two = (chosen[f"{measure}_{k}"].to_numpy(float) for k in (1, 2))
                    known = np.isfinite(two - one)
                    if not known.any():
                        continue
                    rows.append(
                        {
                            "first": first.name,
                            "second": second.name,
                            "label": label,
                            "phase": phase,
                            "measure": MEASURES[measure],
                            "volumes": int(known.sum()),
                            **difference(one, two, chosen["patient_id_1"]),
                            "p_ks": ks(one, two),
                        }
                    )
    table = pd.DataFrame(rows)
    if len(table):
        table.insert(11, "p_holm", holm(table["p_wilcoxon"].to_numpy(float)))
    return table


def difference(first: np.ndarray, second: np.ndarray, patients: pd.Series) -> Row:
    """Compare two methods on the same rows, of which one at least both have.

    Args:
        first: (N,), any unit, NaN where unknown.
        second: (N,), same unit.
        patients: (N,), whose each row is.

    Returns:
        Mean of second minus first with its 95 % interval by patients, and Wilcoxon's p on the
        means of patients.
    """
    gaps, clusters = second - first, patients.to_numpy()
    test = paired_test(second, first, clusters=clusters)
    interval = bootstrap_mean(gaps, clusters=clusters)
    return {
        "patients": test.n,
        "difference": float(gaps[np.isfinite(gaps)].mean()),
        "low": interval.low,
        "high": interval.high,
        "p_wilcoxon": test.p_wilcoxon,
    }


def over_seeds(methods: Sequence[Method]) -> pd.DataFrame:
    """Average every experiment that was run with several seeds.

    Returns:
        By label, on the cases that all seeds have scored: the mean of each measure over cases and
        seeds with its 95 % interval by patients, and the means of the seeds, SD, least and largest.
    """
    rows = []
    for family in families(methods):
        if len(family.members) < 2:
            continue
        shared = set.intersection(*(set(method.cases["case_id"]) for method in family.members))
        alone = [method.cases[method.cases["case_id"].isin(shared)] for method in family.members]
        # the rows of all, not means of cases: a control in which one seed alone finds something
        # has a Dice by that seed alone, and its mean would count for all of them
        for label, cases in pd.concat(alone).groupby("label", sort=False):
            for measure in COMPARED:
                of_seeds = [seed.loc[seed["label"] == label, measure].mean() for seed in alone]
                values, patients = cases[measure].to_numpy(float), cases["patient_id"].to_numpy()
                interval = bootstrap_mean(values, clusters=patients)
                rows.append(
                    {
                        "method": family.name,
                        "label": label,
                        "measure": MEASURES[measure],
                        "seeds": len(family.members),
                        "patients": len(set(patients)),
                        "mean": cases[measure].mean(),
                        "low": interval.low,
                        "high": interval.high,
                        "sd_of_seeds": np.std(of_seeds, ddof=1),
                        "least": min(of_seeds),
                        "largest": max(of_seeds),
                    }
                )
    return pd.DataFrame(rows)


def consistency(methods: Sequence[Method]) -> pd.DataFrame:
    """Judge how well the disagreement of mask and regression finds bad segmentations.

    Returns:
        For each method that predicts both: AUC of the disagreement, relative to the larger of
        both areas, for a slice Dice below `BAD_DICE`. It needs no reference to be known.
    """
    rows = []
    for method in methods:
        slices = method.slices[method.slices["area_disagreement_mm2"].notna()]
        slices = slices[slices["dice"].notna()]
        if slices.empty:
            continue
        bad = (slices["dice"] < BAD_DICE).astype(int).to_numpy()
        curve = roc(disagreement(slices), bad)
        rows.append(
            {
                "method": method.name,
                "slices": len(slices),
                f"slices with Dice < {BAD_DICE}": int(bad.sum()),
                "median disagreement mm2": slices["area_disagreement_mm2"].median(),
                "auc": curve.area,
            }
        )
    return pd.DataFrame(rows)


def suspects(methods: Sequence[Method], count: int = 10) -> pd.DataFrame:
    """List the cases whose branches disagree most; whoever has no reference looks at these first.

    Args:
        methods: those that predict the area twice.
        count: of cases of each method.
    """
    rows = []
    for method in methods:
        slices = method.slices[method.slices["area_disagreement_mm2"].notna()]
        if slices.empty:
            continue
        flag = pd.Series(disagreement(slices), index=slices.index).groupby(slices["case_id"]).mean()
        dice = method.cases.groupby("case_id")["dice"].mean()
        rows += [
            {
                "method": method.name,
                "case": case,
                "disagreement": value,
                "volume Dice": dice[str(case)],
            }
            for case, value in flag.sort_values(ascending=False).head(count).items()
        ]
    return pd.DataFrame(rows)


def disagreement(slices: pd.DataFrame) -> np.ndarray:
    """Return |segmented - regressed| over the larger of both, in 0..1: the quality flag."""
    larger = slices[["area_mm2", "regressed_area_mm2"]].max(axis=1).clip(lower=1.0)
    relative: np.ndarray = (slices["area_disagreement_mm2"] / larger).clip(0, 1).to_numpy(float)
    return relative


def protocols(methods: Sequence[Method]) -> pd.DataFrame:
    """Say what was run and how it was selected, one row a run."""
    keys = (
        "data", "fold", "seed", "protocol", "selected_on", "monitor", "best_value", "epochs",
        "split_sha256", "git_commit", "started_at", "run_id", "command",
    )  # fmt: skip
    return pd.DataFrame(
        [
            {"method": method.name, **{key: run.identity.get(key, "") for key in keys}}
            for method in methods
            for run in method.runs
        ]
    )


def _counts(cases: pd.DataFrame) -> Row:
    states = cases["state"]
    return {
        "patients": cases["patient_id"].nunique(),
        "n": len(cases),
        **{f"n_{s}": int((states == s).sum()) for s in ("missed", "false_positive", "both_empty")},
    }


def _spread(frame: pd.DataFrame, measure: str) -> Row:
    values = frame[measure].to_numpy(float)
    known = values[np.isfinite(values)]
    low, high = bootstrap_mean(values, 0.95, clusters=frame["patient_id"].to_numpy())
    low99, high99 = bootstrap_mean(values, 0.99)
    grows = "mm" not in measure and "voxels" not in measure
    row = {
        "mean": known.mean() if len(known) else np.nan,
        "sd": known.std(ddof=1) if len(known) > 1 else np.nan,
        "median": np.median(known) if len(known) else np.nan,
        "worst": (known.min() if grows else known.max()) if len(known) else np.nan,
        "low": low,
        "high": high,
        "low99": low99,
        "high99": high99,
    }
    return {f"{measure}_{name}": value for name, value in row.items()}


def _renamed(row: Row, old: str, new: str) -> Row:
    return {key.replace(old, new): value for key, value in row.items()}
