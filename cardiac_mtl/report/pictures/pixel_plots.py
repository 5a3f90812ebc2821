"""ROC, and precision against recall, over the pixels of a label: Fig. 4 of MuTGAN."""

from collections.abc import Iterator, Sequence
from textwrap import fill

from matplotlib.axes import Axes

from cardiac_mtl.evaluation.pixels import MYOCARDIUM, REGION
from cardiac_mtl.metrics.binned import precision_recall_of_bins, roc_of_bins
from cardiac_mtl.report.methods import Method
from cardiac_mtl.report.pictures.canvas import Picture, looks_of, panels_for
from cardiac_mtl.report.tables.pixels import PixelCounts, pixel_counts

_TITLES = {REGION: "whole region of interest", MYOCARDIUM: "within the myocardium"}


def pixel_curves(methods: Sequence[Method]) -> Iterator[Picture]:
    """Draw both curves of every method that gives probabilities, folds pooled."""
    drawn = [counts for counts in pixel_counts(methods) if not counts.from_masks]
    if not drawn:
        return
    looks = dict(zip((m.name for m in methods), looks_of(methods), strict=True))
    places = list(dict.fromkeys(counts.place for counts in drawn))
    figure, axes = panels_for(2 * len(places), per_row=2, size=(4.4, 3.4 + 0.15 * len(methods)))
    heard = []
    for k, place in enumerate(places):
        left, right = axes[2 * k : 2 * k + 2]
        heard += [
            _draw(left, right, counts, looks[counts.method.name]["color"])
            for counts in drawn
            if counts.place == place
        ]
        left.plot([0, 1], [0, 1], "--", color="grey", linewidth=1)
        _finish(left, f"ROC, {_TITLES[place]}", "1 - specificity", "sensitivity")
        title = f"precision and recall, {_TITLES[place]}"
        _finish(right, title, "recall", "precision")
    yield Picture(
        "pixels",
        "ROC and PR over pixels",
        "All pixels of all patients, folds pooled, as in Fig. 4 of the paper of MuTGAN. Dots: "
        "calls at a probability of one half. Dashed: chance, which for precision is the "
        "share of infarct.",
        f"Curves over pixels. {'; '.join(heard)}.",
        figure,
    )


def _draw(left: Axes, right: Axes, counts: PixelCounts, colour: str) -> str:
    """Draw one method on both axes; say its areas."""
    pooled = counts.by_patient.sum(axis=0)
    receiver, precision = roc_of_bins(pooled), precision_recall_of_bins(pooled)
    name = counts.method.name
    label = fill(f"{name}, AUC {receiver.area:.4f}", 60)
    left.plot(receiver.x, receiver.y, color=colour, label=label)
    label = fill(f"{name}, AP {precision.area:.3f}", 60)
    right.plot(precision.x, precision.y, color=colour, drawstyle="steps-pre", label=label)
    called = pooled[:, counts.log_odds > 0].sum(axis=1)
    found, false = called / pooled.sum(axis=1)
    left.plot(false, found, "o", color=colour, markersize=5)
    if called.sum():
        right.plot(found, called[0] / called.sum(), "o", color=colour, markersize=5)
    right.axhline(pooled[0].sum() / pooled.sum(), color="grey", linestyle="--", linewidth=1)
    return f"{name}, {counts.place}: AUC {receiver.area:.3f}, AP {precision.area:.3f}"


def _finish(ax: Axes, title: str, x: str, y: str) -> None:
    ax.set(xlabel=x, ylabel=y, xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    ax.set_title(title, fontsize=9)
    # below: within the panel it would hide the curve of a method that finds little
    ax.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.15))
