"""Tables as people read them: few digits, intervals beside means, in Markdown, LaTeX and HTML."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cardiac_mtl.report.tables.analysis import COMPARED, MEASURES
from cardiac_mtl.report.tables.quantities import FUNCTION


@dataclass(frozen=True)
class Table:
    """One table of a report: all its numbers, and the few that fit a page."""

    name: str
    """Of the files."""
    title: str
    caption: str
    full: pd.DataFrame
    shown: pd.DataFrame


def headline_shown(table: pd.DataFrame) -> pd.DataFrame:
    """Lay the headline out: counts of failures beside every mean (P1)."""
    shown = table[["method", "label", "phase"]].copy()
    shown["patients"] = table["patients"]
    shown["volumes (missed / false / empty)"] = _failures(table)
    for measure in ("dice", "jaccard", "msd_mm", "hd_mm", "hd95_mm", "surface_dice"):
        digits = 2 if "mm" in measure else 3
        shown[MEASURES[measure]] = _mean_with_interval(table, measure, digits)
    shown["worst Dice"] = _number(table["dice_worst"], 3)
    shown["Dice without failures"] = _number(table["dice_without_failures"], 3)
    return _marked(shown, table)


def strata_shown(table: pd.DataFrame) -> pd.DataFrame:
    """Lay strata, or regions, out."""
    groups = [name for name in ("column", "value", "region") if name in table]
    shown = table[["method", *groups, "label", "patients"]].copy()
    shown["n (missed / false / empty)"] = _failures(table)
    for measure in COMPARED:
        shown[MEASURES[measure]] = _mean_with_interval(table, measure, 2 if "mm" in measure else 3)
    return _marked(shown, table)


def areas_shown(table: pd.DataFrame) -> pd.DataFrame:
    """Lay area errors out as Table 2 of MTN does: a column a method and branch."""
    text = table[["label", "phase", "region"]].copy()
    text["column"] = table["method"] + ", " + table["branch"]
    text["error"] = [
        f"{estimate(mean, sd=sd, spec='.0f')} (median {median:.0f}, n {n})"
        for mean, sd, median, n in zip(
            table["error_mm2_mean"],
            table["error_mm2_sd"],
            table["error_mm2_median"],
            table["slices"],
            strict=True,
        )
    ]
    wide = text.pivot_table(
        index=["label", "phase", "region"],
        columns="column",
        values="error",
        aggfunc="first",
        sort=False,
    )
    return wide.fillna("—").reset_index().rename_axis(columns=None)


def seeds_shown(table: pd.DataFrame) -> pd.DataFrame:
    """Lay the means of several seeds out: a row a label, a column a measure."""
    text = table[["method", "label", "seeds", "patients", "measure"]].copy()
    text["value"] = [
        "—"
        if np.isnan(mean)
        else f"{estimate(mean, low, high, spec=f'.{d}f')}, "
        f"SD {sd:.{d}f}, {least:.{d}f} to {largest:.{d}f}"
        for d, mean, low, high, sd, least, largest in zip(
            [2 if "mm" in measure else 3 for measure in table["measure"]],
            *(table[k] for k in ("mean", "low", "high", "sd_of_seeds", "least", "largest")),
            strict=True,
        )
    ]
    keys = ["method", "label", "seeds", "patients"]
    shown = text.pivot_table("value", keys, "measure", aggfunc="first")
    order = pd.MultiIndex.from_frame(text[keys].drop_duplicates())
    return shown.loc[order, list(text["measure"].unique())].reset_index().rename_axis(columns=None)


def comparisons_shown(table: pd.DataFrame) -> pd.DataFrame:
    """Lay paired tests out."""
    shown = table[["label", "phase", "measure"]].copy()
    shown.insert(0, "second minus first", table["second"] + " - " + table["first"])
    shown["volumes"], shown["patients"] = table["volumes"], table["patients"]
    shown["difference [95 %]"] = with_interval(table, "difference", "low", "high", spec="+.4f")
    for column, heading in (
        ("p_wilcoxon", "p Wilcoxon"),
        ("p_holm", "p by Holm"),
        ("p_ks", "p KS"),
    ):
        shown[heading] = table[column].map(p_value)
    return shown


def agreement_shown(table: pd.DataFrame) -> pd.DataFrame:
    """Lay the agreement of quantities out."""
    shown = table[["method", "quantity", "unit", "n"]].copy()
    shown["bias [95 %]"] = with_interval(table, "bias", spec=".4g")
    shown["limits of agreement"] = [
        "—" if np.isnan(low) else f"{low:.4g} to {high:.4g}"
        for low, high in zip(table["lower_limit"], table["upper_limit"], strict=True)
    ]
    shown["mean |error|"] = table["mean_absolute_error"].map("{:.4g}".format)
    shown["Pearson r"] = _number(table["pearson_r"], 4)
    shown["ICC(2,1) [95 %]"] = with_interval(table, "icc", spec=".4f")
    return shown


def function_shown(table: pd.DataFrame) -> pd.DataFrame:
    """Lay flagged patients out."""
    shown = table.rename(columns=FUNCTION)
    for heading in FUNCTION.values():
        shown[heading] = _number(shown[heading], 1)
    return shown


def fidelity_shown(table: pd.DataFrame) -> pd.DataFrame:
    """Lay the papers' values out beside ours."""
    shown = table[["paper", "table", "row", "quantity", "unit"]].copy()
    shown["paper's value"] = _plus_minus(table["paper_value"], table["paper_sd"])
    shown["ours"] = _plus_minus(table["ours"], table["ours_sd"])
    shown["[95 %]"] = [
        "—" if np.isnan(low) else f"[{low:.4g}, {high:.4g}]"
        for low, high in zip(table["low"], table["high"], strict=True)
    ]
    for column in ("n", "data", "comparable", "protocol"):
        shown[column] = table[column]
    return shown


def protocol_shown(table: pd.DataFrame) -> pd.DataFrame:
    """Lay the runs out: what no run has is left out, hashes are cut."""
    shown = table.drop(columns=["command", "run_id"])
    for column in ("split_sha256", "git_commit"):
        shown[column] = shown[column].astype(str).str[:10]
    shown["started_at"] = shown["started_at"].astype(str).str[:10]
    known = [name for name in shown if (shown[name].astype(str) != "").any()]
    return numbers_shown(shown[known])


def numbers_shown(table: pd.DataFrame) -> pd.DataFrame:
    """Lay any other table out with four digits."""
    return table.apply(lambda column: _significant(column) if column.dtype.kind == "f" else column)


def with_interval(
    table: pd.DataFrame, value: str, low: str = "", high: str = "", *, spec: str = ".3f"
) -> list[str]:
    """Write numbers with their intervals; a dash where there is none.

    Args:
        table: holds all three columns.
        value: column of the numbers.
        low: column of the lower ends, `<value>_low` unless it is another.
        high: column of the upper ends, `<value>_high` unless it is another.
        spec: how a number is written; shares with three digits.
    """
    columns = (table[name] for name in (value, low or f"{value}_low", high or f"{value}_high"))
    return [estimate(*row, spec=spec) for row in zip(*columns, strict=True)]


def estimate(
    value: float,
    low: float = float("nan"),
    high: float = float("nan"),
    *,
    sd: float = float("nan"),
    spec: str = ".3f",
) -> str:
    """Write a number with its SD and interval: of one patient there is none, and none is written.

    Examples:
        >>> estimate(0.5, 0.25, 0.75, sd=0.125)
        '0.500 ± 0.125 [0.250, 0.750]'
        >>> estimate(0.5), estimate(float("nan"))
        ('0.500', '—')
    """
    if np.isnan(value):
        return "—"
    spread = "" if np.isnan(sd) else f" ± {sd:{spec}}"
    interval = "" if np.isnan(low) else f" [{low:{spec}}, {high:{spec}}]"
    return f"{value:{spec}}{spread}{interval}"


def to_markdown(table: Table) -> str:
    """Return a table as Markdown, title above and caption below."""
    return f"**{table.title}**\n\n{in_markdown(table.shown)}\n\n{table.caption}\n"


def in_markdown(table: pd.DataFrame) -> str:
    """Write a table of texts as Markdown."""
    head = [[_escaped(name) for name in table.columns], ["---"] * table.shape[1]]
    cells = head + [[_escaped(cell) for cell in row] for row in table.to_numpy().tolist()]
    return "\n".join("| " + " | ".join(row) + " |" for row in cells)


def to_latex(table: Table) -> str:
    """Return a table as LaTeX (booktabs)."""
    text: str = table.shown.astype(str).to_latex(
        index=False,
        escape=True,
        caption=re.sub("([%_])", r"\\\1", table.caption),  # pandas escapes no caption
        label=f"tab:{table.name}",
    )
    symbols: Mapping[str, str] = {"±": r"$\pm$", "²": r"$^2$", "—": "---"}
    for symbol, command in symbols.items():
        text = text.replace(symbol, command)
    return text


def _escaped(cell: object) -> str:
    return str(cell).replace("|", "\\|")


def _failures(table: pd.DataFrame) -> list[str]:
    counts = table[["n", "n_missed", "n_false_positive", "n_both_empty"]].to_numpy().tolist()
    return [f"{n} ({missed} / {false} / {empty})" for n, missed, false, empty in counts]


def _mean_with_interval(table: pd.DataFrame, measure: str, digits: int) -> list[str]:
    columns = [table[f"{measure}_{name}"] for name in ("mean", "sd", "low", "high")]
    return [
        estimate(mean, low, high, sd=sd, spec=f".{digits}f")
        for mean, sd, low, high in zip(*columns, strict=True)
    ]


def _plus_minus(values: pd.Series, sds: pd.Series) -> list[str]:
    return [
        f"{value:.4g}" if np.isnan(sd) else f"{value:.4g} ± {sd:.3g}"
        for value, sd in zip(values, sds, strict=True)
    ]


def _marked(shown: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Say beside each row how its checkpoint was selected."""
    shown["selected"] = [
        {"honest": "without test patients", "external": "not known"}.get(p, "ON TEST: optimistic")
        for p in table["protocol"]
    ]
    return shown


def _number(values: pd.Series, digits: int) -> list[str]:
    return ["—" if pd.isna(value) else f"{value:.{digits}f}" for value in values]


def _significant(values: pd.Series) -> list[str]:
    return ["—" if pd.isna(value) else f"{value:.4g}" for value in values]


def p_value(value: float) -> str:
    """Write a p value; a small one by its order, never as 0."""
    if np.isnan(value):
        return "—"
    return f"{value:.1e}" if value < 0.001 else f"{value:.3f}"
