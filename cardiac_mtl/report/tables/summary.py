"""Rows to a table of results: counts of failures beside every mean."""

import pandas as pd

from cardiac_mtl.contracts import HONEST, UNLABELLED
from cardiac_mtl.metrics.classification import confusion, roc
from cardiac_mtl.metrics.shape import ERROR_NAMES
from cardiac_mtl.report.methods import in_words
from cardiac_mtl.report.tables.analysis import phases_of
from cardiac_mtl.report.tables.layout import in_markdown

_MEASURES = ("dice", "jaccard", "msd_mm", "hd_mm")
_AREAS = {"segmented": "area_error_mm2", "regressed": "regressed_area_error_mm2"}
_HEADINGS = {"segmented": "area mm2", "regressed": "regr. mm2"}
NOTHING = "No mask was scored: no annotated slice has a prediction that fits it."
_COUNTS = ("missed", "false_positive", "both_empty")


def summary(cases: pd.DataFrame, slices: pd.DataFrame) -> pd.DataFrame:
    """Average the rows over cases, by label and cardiac phase.

    Args:
        cases: rows of `cases.csv`.
        slices: rows of `slices.csv`.

    Returns:
        One row for each label and for ED, ES (where they are) and all phases: number of volumes,
        how many were missed, false or empty in both; mean, SD, median and worst of the measures
        with misses at their worst, the mean Dice without them; mean, SD and median error of the
        segmented and the regressed area over slices that hold the label.
    """
    rows = []
    for label, of_label in cases.groupby("label", sort=False):
        slices_of_label = slices[slices["label"] == label]
        for phase, chosen in phases_of(of_label):
            bearing = slices_of_label["case_id"].isin(chosen["case_id"]) & (
                slices_of_label["reference_area_mm2"] > 0
            )
            rows.append(
                {
                    "label": label,
                    "phase": phase,
                    **_volumes(chosen),
                    **_slices(slices_of_label[bearing]),
                    "protocol": _protocol(chosen["protocol"]),
                }
            )
    return pd.DataFrame(rows)


def index_summary(indices: pd.DataFrame) -> pd.DataFrame:
    """Average the errors of the seven indices over slices, as text.

    Args:
        indices: rows of `indices.csv`.

    Returns:
        One row an index: mean error and SD of the regression and of the predicted mask, each with
        the number of slices in which reference and prediction have it.
    """
    rows = []
    for name in ERROR_NAMES:
        row = {"index": name}
        for heading, prefix in (("regressed", "regressed_"), ("from the mask", "")):
            errors = indices[f"{prefix}{name}_error"].dropna()
            row[heading] = f"{errors.mean():.2f}±{errors.std():.2f}" if len(errors) > 1 else ""
            row[f"{heading}, slices"] = str(len(errors))
        rows.append(row)
    return pd.DataFrame(rows)


def regressed_summary(regressed: pd.DataFrame) -> pd.DataFrame:
    """Average the errors of regressed indices over slices, as text.

    Args:
        regressed: rows of `regressed.csv`.

    Returns:
        One row an index: mean and SD of its absolute error, and the number of slices.
    """
    rows = []
    for name, errors in regressed.groupby("index", sort=False)["error"]:
        error = f"{errors.mean():.2f}" + (f"±{errors.std():.2f}" if len(errors) > 1 else "")
        rows.append({"index": name, "regressed, error": error, "slices": str(len(errors))})
    return pd.DataFrame(rows)


def class_summary(labels: pd.DataFrame) -> pd.DataFrame:
    """Rate the calls of images, each class as the positive one in turn, as text.

    Args:
        labels: rows of `labels.csv`; images without a true class are left out.

    Returns:
        A row at a threshold of one half, and one at that of the run where it is another.
    """
    rows = []
    for _, of_class in labels[labels["is_class"] != UNLABELLED].groupby("class"):
        name, threshold = of_class["class_name"].iloc[0], float(of_class["threshold"].iloc[0])
        true, probability = of_class["is_class"].to_numpy(int), of_class["probability"].to_numpy()
        scores = {"0.5": probability}
        if threshold != 0.5:
            scores[f"{threshold:.3g}, chosen"] = of_class["called"].to_numpy(float)
        for above, score in scores.items():
            found = confusion(score, true)
            rows.append(
                {
                    "positive class": name,
                    "images (of it)": f"{len(true)} ({true.sum()})",
                    "AUC": f"{roc(probability, true).area:.3f}",
                    "above": above,
                    "accuracy": f"{found.accuracy:.3f}",
                    "sensitivity": f"{found.sensitivity:.3f}",
                    "specificity": f"{found.specificity:.3f}",
                }
            )
    return pd.DataFrame(rows)


def to_text(table: pd.DataFrame) -> str:
    """Lay the table out for a terminal of 100 columns."""
    body = _compact(table).to_string(index=False) if len(table) else NOTHING
    return "\n".join([*_title(table), "", body, *_footer(table)])


def to_markdown(table: pd.DataFrame) -> str:
    """Lay the table out as Markdown."""
    if table.empty:
        return "\n".join([*_title(table), "", NOTHING, ""])
    body = in_markdown(_compact(table))
    return "\n".join([*_title(table), "", body, "", *_footer(table)]).rstrip() + "\n"


def _protocol(protocols: pd.Series) -> str:
    """One dishonest checkpoint makes the mean dishonest (P9)."""
    dishonest = protocols[protocols != HONEST]
    return HONEST if dishonest.empty else str(dishonest.iloc[0])


def _volumes(cases: pd.DataFrame) -> dict[str, float]:
    row: dict[str, float] = {"n": len(cases)}
    row |= {f"n_{state}": int((cases["state"] == state).sum()) for state in _COUNTS}
    for measure in _MEASURES:
        values = cases[measure]
        worst = values.min() if measure in {"dice", "jaccard"} else values.max()
        row |= {
            f"{measure}_mean": values.mean(),
            f"{measure}_sd": values.std(),
            f"{measure}_median": values.median(),
            f"{measure}_worst": worst,
        }
    row["dice_mean_without_misses"] = cases.loc[cases["state"] == "ok", "dice"].mean()
    return row


def _slices(slices: pd.DataFrame) -> dict[str, float]:
    row: dict[str, float] = {"n_slices": len(slices)}
    for name, column in _AREAS.items():
        errors = slices[column]
        row |= {
            f"{name}_area_error_mm2_mean": errors.mean(),
            f"{name}_area_error_mm2_sd": errors.std(),
            f"{name}_area_error_mm2_median": errors.median(),
        }
    return row


def _compact(table: pd.DataFrame) -> pd.DataFrame:
    """Keep what fits a screen, as text."""
    shown = pd.DataFrame({"label": table["label"], "phase": table["phase"]})
    shown["n (missed/false/empty)"] = [
        f"{n} ({a}/{b}/{c})"
        for n, a, b, c in table[["n", *(f"n_{s}" for s in _COUNTS)]].to_numpy().tolist()
    ]
    if table["dice_mean"].notna().any():
        shown["Dice"] = _spread(table, "dice", 3)
        shown["worst"] = table["dice_worst"].map("{:.3f}".format)
        shown["MSD mm"] = _spread(table, "msd_mm", 2)
        shown["HD mm"] = _spread(table, "hd_mm", 1)
    for name, heading in _HEADINGS.items():
        column = f"{name}_area_error_mm2"
        if table[f"{column}_mean"].notna().any():
            shown[heading] = _spread(table, column, 0)
    return shown


def _spread(table: pd.DataFrame, name: str, digits: int) -> list[str]:
    pairs = zip(table[f"{name}_mean"], table[f"{name}_sd"], strict=True)
    return [
        f"{mean:.{digits}f}" if pd.isna(sd) else f"{mean:.{digits}f}±{sd:.{digits}f}"
        for mean, sd in pairs
    ]


def _title(table: pd.DataFrame) -> list[str]:
    if table.empty:
        return ["Test patients."]
    protocol = _protocol(table["protocol"])
    return [
        f"Test patients, checkpoint {in_words(protocol)}.",
        "Mean±SD over volumes; area errors over slices with the label.",
    ]


def _footer(table: pd.DataFrame) -> list[str]:
    """Say what the mean Dice would be without the failures, where there are any (P1)."""
    return [
        f"Dice where both are there, {row['label']}, {row['phase']}: "
        f"{row['dice_mean_without_misses']:.3f}"
        for row in table.to_dict("records")
        if row["n_missed"] + row["n_false_positive"]
    ]
