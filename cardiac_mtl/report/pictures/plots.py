"""Figures of a report."""

from collections.abc import Iterator, Sequence
from textwrap import fill
from typing import Any, Final

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes

from cardiac_mtl.metrics.agreement import bland_altman, pearson
from cardiac_mtl.metrics.classification import precision_recall, reliability, roc
from cardiac_mtl.report.methods import Method
from cardiac_mtl.report.pictures.canvas import (
    STYLE,
    Picture,
    file_name,
    legend_above,
    looks_of,
    panels_for,
    put_title,
)
from cardiac_mtl.report.pictures.mask_errors import psnr_scatter
from cardiac_mtl.report.pictures.pixel_plots import pixel_curves
from cardiac_mtl.report.tables.analysis import COMPARED, MEASURES, phases_of
from cardiac_mtl.report.tables.diagnosis import class_names
from cardiac_mtl.report.tables.quantities import quantities

_UNITS: Final = {"_mm2": "mm²", "_mm": "mm", "_percent": "%", "_deg": "degrees"}
"""Of what is regressed, by the end of its name."""


def pictures(
    methods: Sequence[Method], volumes: pd.DataFrame, by_region: pd.DataFrame
) -> Iterator[Picture]:
    """Draw every figure that the rows of some methods allow.

    Args:
        methods: at least one.
        volumes: `analysis.headline` of them.
        by_region: `analysis.areas` of them.
    """
    with rc_context(STYLE):
        yield from _boxes(methods)
        yield from _intervals(methods, volumes)
        yield from psnr_scatter(methods)
        yield from _areas(by_region)
        yield from _agreement(methods)
        yield from _classification(methods)
        yield from pixel_curves(methods)
        yield from _training(methods)


def _labels_of(methods: Sequence[Method]) -> list[str]:
    found = pd.concat([method.cases["label"] for method in methods])
    return [str(label) for label in found.unique()]


def _groups(methods: Sequence[Method], label: str) -> list[tuple[str, list[pd.DataFrame]]]:
    """Return, for each phase, the volumes of each method."""
    parts = [dict(phases_of(m.cases[m.cases["label"] == label])) for m in methods]
    phases = [phase for phase in ("ED", "ES", "all") if any(phase in part for part in parts)]
    empty = methods[0].cases.iloc[:0]
    return [(phase, [part.get(phase, empty) for part in parts]) for phase in phases]


def _boxes(methods: Sequence[Method]) -> Iterator[Picture]:
    for label in _labels_of(methods):
        shown = [m for m in COMPARED if any(method.cases[m].notna().any() for method in methods)]
        if not shown:
            continue
        groups = _groups(methods, label)
        figure, axes = panels_for(len(shown))
        for ax, measure in zip(axes, shown, strict=True):
            _grouped_boxes(ax, groups, measure, methods)
            ax.set_ylabel(MEASURES[measure])
        legend_above(figure, axes[0])
        medians = "; ".join(
            f"{method.name}, all phases, median Dice {cases[-1]['dice'].median():.3f}"
            for method, cases in zip(
                methods, zip(*(frames for _, frames in groups), strict=True), strict=True
            )
        )
        yield Picture(
            file_name("boxes", label),
            f"Volumes: {label}",
            "Quartiles and whiskers at 1.5 interquartile ranges, over volumes; what lies beyond is "
            "not drawn, as in the paper of MTN. Misses count at their worst.",
            f"Box plots by phase and method. {medians}.",
            figure,
        )


def _grouped_boxes(
    ax: Axes,
    groups: Sequence[tuple[str, Sequence[pd.DataFrame]]],
    measure: str,
    methods: Sequence[Method],
) -> None:
    width = 0.8 / len(methods)
    for k, (method, look) in enumerate(zip(methods, looks_of(methods), strict=True)):
        values = [frames[k][measure].dropna().to_numpy() for _, frames in groups]
        places = [n - 0.4 + width * (k + 0.5) for n in range(len(groups))]
        drawn = ax.boxplot(
            values, positions=places, widths=width * 0.85, showfliers=False, patch_artist=True,
            medianprops={"color": "black"},
        )  # fmt: skip
        for box in drawn["boxes"]:
            box.set(facecolor=look["color"], alpha=0.75)
        ax.plot([], [], "s", color=look["color"], label=method.name)
    ax.set_xticks(range(len(groups)), [phase for phase, _ in groups])


def _intervals(methods: Sequence[Method], table: pd.DataFrame) -> Iterator[Picture]:
    if table.empty:
        return
    for label, of_label in table.groupby("label", sort=False):
        shown = [m for m in COMPARED if of_label[f"{m}_mean"].notna().any()]
        if not shown:
            continue
        phases = list(dict.fromkeys(of_label["phase"]))
        figure, axes = panels_for(len(shown))
        for ax, measure in zip(axes, shown, strict=True):
            for k, (method, look) in enumerate(zip(methods, looks_of(methods), strict=True)):
                rows = of_label[of_label["method"] == method.name].set_index("phase")
                at = np.array([phases.index(p) for p in rows.index]) + _offset(k, len(methods))
                _interval_marks(ax, at, rows, measure, look, method.name)
            ax.set_xticks(range(len(phases)), phases)
            ax.set_xlim(-0.6, len(phases) - 0.4)
            ax.set_ylabel(MEASURES[measure])
        legend_above(figure, axes[0])
        yield Picture(
            file_name("intervals", label),
            f"Means with intervals: {label}",
            "Mean over volumes. Thick: 95 % bootstrap interval that resamples patients. Thin: 99 % "
            "interval that resamples volumes, as in Fig. 2 of the paper of MTN; it is too "
            "narrow where the phases of a patient are alike.",
            "Means with bootstrap intervals by phase and method; the numbers stand in the table of "
            "results.",
            figure,
        )


def _interval_marks(
    ax: Axes, at: np.ndarray, rows: pd.DataFrame, measure: str, look: dict[str, Any], name: str
) -> None:
    mean = rows[f"{measure}_mean"].to_numpy(float)
    for low, high, width in (("low99", "high99", 1.0), ("low", "high", 3.0)):
        bottom, top = (rows[f"{measure}_{end}"].to_numpy(float) for end in (low, high))
        ax.vlines(
            at + (0.04 if width == 1.0 else 0), bottom, top, color=look["color"], linewidth=width
        )
    ax.plot(at, mean, linestyle="", markersize=6, label=name, **look)


def _offset(k: int, count: int) -> float:
    return (k - (count - 1) / 2) * 0.6 / count


def _areas(table: pd.DataFrame) -> Iterator[Picture]:
    if table.empty:
        return
    for label, of_label in table.groupby("label", sort=False):
        phases = list(dict.fromkeys(of_label["phase"]))
        lines = list(dict.fromkeys(zip(of_label["method"], of_label["branch"], strict=True)))
        regions = [r for r in ("all", "apical", "mid", "basal") if (of_label["region"] == r).any()]
        figure, axes = panels_for(len(phases))
        for ax, phase in zip(axes, phases, strict=True):
            for k, ((method, branch), look) in enumerate(zip(lines, looks_of(lines), strict=True)):
                rows = of_label[
                    (of_label["phase"] == phase)
                    & (of_label["method"] == method)
                    & (of_label["branch"] == branch)
                ].set_index("region")
                at = np.array([regions.index(r) for r in rows.index]) + _offset(k, len(lines))
                _interval_marks(ax, at, rows, "error_mm2", look, f"{method}, {branch}")
            ax.set_xticks(range(len(regions)), regions)
            ax.set_title(f"phases: {phase}", fontsize=9)
            ax.set_ylabel("|area error| mm²")
        legend_above(figure, axes[0])
        yield Picture(
            file_name("area_errors", label),
            f"Area errors by region: {label}",
            "Mean absolute error over slices whose reference holds the label; thick 95 % interval "
            "by patients, thin 99 % by slices (Fig. 4b of the paper of MTN).",
            "Mean absolute area errors with intervals by region, phase, method and branch; the "
            "numbers stand in the table of areas.",
            figure,
        )


def _agreement(methods: Sequence[Method]) -> Iterator[Picture]:
    for method in methods:
        found = [q for q in quantities(method) if np.isfinite(q[3] - q[2]).sum() > 2]
        if not found:
            continue
        figure, axes = panels_for(len(found))
        for ax, (name, unit, true, predicted, _) in zip(axes, found, strict=True):
            _scatter(ax, name, unit, true, predicted)
        strongest = "; ".join(f"{n}: {_correlation(pearson(t, p).r)}" for n, _, t, p, _ in found)
        yield Picture(
            file_name("scatter", method.name),
            f"Predicted against reference: {method.name}",
            "Dashed: equality. Solid: least squares (Fig. 3 of the paper of MTN for the areas).",
            f"Scatter plots. {strongest}.",
            figure,
        )
        figure, axes = panels_for(len(found))
        for ax, quantity in zip(axes, found, strict=True):
            _bland_altman(ax, *quantity)
        biases = "; ".join(
            f"{n}: bias {bland_altman(t, p).bias:.3g} {u}" for n, u, t, p, _ in found
        )
        yield Picture(
            file_name("bland_altman", method.name),
            f"Bland-Altman: {method.name}",
            "Predicted minus reference against their mean; bias and limits of agreement (1.96 SD) "
            "with 95 % intervals by patients shaded.",
            f"Bland-Altman plots. {biases}.",
            figure,
        )


def _scatter(ax: Axes, name: str, unit: str, true: np.ndarray, found: np.ndarray) -> None:
    known = np.isfinite(true) & np.isfinite(found)
    true, found = true[known], found[known]
    line = pearson(true, found)
    ends = np.array([min(true.min(), found.min()), max(true.max(), found.max())])
    _dots(ax, true, found)
    ax.plot(ends, ends, "--", color="grey", linewidth=1)
    if np.isfinite(line.r):
        ax.plot(ends, line.intercept + line.slope * ends, color="#D55E00", linewidth=1.4)
    put_title(ax, name, f"{_correlation(line.r)}, n = {line.n}")
    ax.set_xlabel(f"reference, {unit}")
    ax.set_ylabel(f"predicted, {unit}")


def _bland_altman(
    ax: Axes, name: str, unit: str, true: np.ndarray, found: np.ndarray, patients: np.ndarray
) -> None:
    known = np.isfinite(true) & np.isfinite(found)
    true, found = true[known], found[known]
    limits = bland_altman(true, found, clusters=patients[known])
    _dots(ax, (true + found) / 2, found - true)
    for value, interval, style in (
        (limits.bias, limits.bias_ci, "-"),
        (limits.lower, limits.lower_ci, "--"),
        (limits.upper, limits.upper_ci, "--"),
    ):
        ax.axhline(value, linestyle=style, color="#D55E00", linewidth=1.2)
        ax.axhspan(*interval, color="#D55E00", alpha=0.12, linewidth=0)
    put_title(ax, name, f"{limits.bias:.4g} [{limits.lower:.4g}, {limits.upper:.4g}]")
    ax.set_xlabel(f"mean of both, {unit}")
    ax.set_ylabel(f"difference, {unit}")


def _correlation(r: float) -> str:
    """Say how strongly two measurements go together; of a constant one nothing can be said."""
    return f"r = {r:.4f}" if np.isfinite(r) else "r undefined"


def _dots(ax: Axes, x: np.ndarray, y: np.ndarray) -> None:
    many = len(x) > 300
    ax.scatter(
        x, y, s=4 if many else 14, alpha=0.25 if many else 0.7, color="#0072B2", linewidths=0,
        rasterized=many,
    )  # fmt: skip


def _classification(methods: Sequence[Method]) -> Iterator[Picture]:
    for positive, name in class_names(methods).items():
        figure, (left, middle, right) = panels_for(3)
        heard = []
        for method, look in zip(methods, looks_of(methods), strict=True):
            rows = method.labels[method.labels["class"] == positive]
            if rows.empty:
                continue
            score, truth = rows["probability"].to_numpy(float), rows["is_class"].to_numpy(int)
            curve, precise, bins = (
                roc(score, truth),
                precision_recall(score, truth),
                reliability(score, truth),
            )
            label = fill(f"{method.name}, AUC {curve.area:.3f}", 40)
            left.plot(curve.x, curve.y, color=look["color"], label=label)
            middle.plot(precise.x, precise.y, color=look["color"], label=f"AP {precise.area:.3f}")
            right.plot(bins.confidence, bins.frequency, **look, label=f"ECE {bins.ece:.3f}")
            heard.append(f"{method.name}: AUC {curve.area:.3f}, ECE {bins.ece:.3f}")
        for ax in (left, right):
            ax.plot([0, 1], [0, 1], "--", color="grey", linewidth=1)
        for ax, x, y in (
            (left, "1 - specificity", "sensitivity"),
            (middle, "recall", "precision"),
            (right, "predicted probability", "observed frequency"),
        ):
            ax.set(xlabel=x, ylabel=y, xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
            ax.legend(fontsize=7, loc="lower right")
        yield Picture(
            file_name("classification", name),
            f"Classification, positive class: {name}",
            "ROC, precision and recall, reliability; folds pooled.",
            f"Curves of classification. {'; '.join(heard)}.",
            figure,
        )


def _training(methods: Sequence[Method]) -> Iterator[Picture]:
    for method in methods:
        tables = [(run.part, run.metrics) for run in method.runs if len(run.metrics)]
        if not tables:
            continue
        names = list(dict.fromkeys(c for _, t in tables for c in t.columns))
        monitors = {run.identity.get("monitor") for run in method.runs}
        dice = [c for c in names if c.endswith("/dice_vol") and c not in monitors]
        panels = [
            ("selection score", [c for c in names if c in monitors]),
            ("volume Dice", dice),
            ("training losses", [c for c in names if c.startswith("train/loss/")]),
            *(
                (
                    f"error, {unit}",
                    [c for c in names if c.startswith("val/mae/") and c.endswith(end)],
                )
                for end, unit in _UNITS.items()
            ),
            ("convergence of the players", [c for c in names if c == "train/convergence"]),
            ("lambda", [c for c in names if c == "train/lambda"]),
            ("learned log-uncertainty s", [c for c in names if c.startswith("s/")]),
            ("weight of each task", [c for c in names if c.startswith("weight/")]),
        ]
        panels = [(title, columns) for title, columns in panels if columns]
        figure, axes = panels_for(len(panels))
        for ax, (title, columns) in zip(axes, panels, strict=True):
            _epochs(ax, [table for _, table in tables], columns)
            ax.set_title(title, fontsize=9)
            ax.set_xlabel("epoch")
            if title.startswith(("weight", "training")):
                ax.set_yscale("log")
        yield Picture(
            file_name("training", method.name),
            f"Training: {method.name}",
            f"One line a run: {', '.join(part for part, _ in tables)}.",
            f"Learning curves of {len(tables)} runs: {', '.join(title for title, _ in panels)}.",
            figure,
        )


def _epochs(ax: Axes, tables: Sequence[pd.DataFrame], columns: Sequence[str]) -> None:
    for column, look in zip(columns, looks_of(columns), strict=True):
        for number, table in enumerate(t for t in tables if column in t):
            values = table.groupby("epoch")[column].mean().dropna()
            ax.plot(
                values.index, values, color=look["color"], linewidth=1, alpha=0.8,
                label=column if number == 0 else None,
                marker="o" if len(values) == 1 else None,  # a line of one point is not seen
            )  # fmt: skip
    ax.legend(fontsize=7)
