"""Masks of one structure: what is right, missed and false, and their PSNR: Figs. 4, 5 of FPM."""

from collections.abc import Iterator, Sequence
from textwrap import fill
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from cardiac_mtl.report.methods import Method
from cardiac_mtl.report.pictures.canvas import (
    COLOURS,
    Picture,
    looks_of,
    panels_for,
    put_title,
)
from cardiac_mtl.report.pictures.sequences import Slice, grid, shared_slices, show

RIGHT, MISSED, FALSE = "#0072B2", "#D55E00", "#009E73"
"""Blue, red and green as in the paper, of Okabe and Ito: the colour-blind can tell them."""
_NAMES: Final = {RIGHT: "correct", MISSED: "missed", FALSE: "false"}
_DARK: Final = 0.75
"""Of the colours over the image."""


def painted(
    predicted: NDArray[np.bool_], reference: NDArray[np.bool_]
) -> dict[str, NDArray[np.bool_]]:
    """Return the pixels of each colour."""
    return {
        RIGHT: predicted & reference,
        MISSED: ~predicted & reference,
        FALSE: predicted & ~reference,
    }


def right_missed_false(methods: Sequence[Method]) -> Iterator[Picture]:
    """Paint masks over images by what is right of them: a row a method, a column a case.

    Args:
        methods: at least one; those without masks are left out, and several structures are drawn
            by `side_by_side`.
    """
    drawing = [method for method in methods if method.cases["dice"].notna().any()]
    labels = {str(label) for method in drawing for label in method.cases["label"].unique()}
    cases = shared_slices(drawing) if len(labels) == 1 else {}
    if not cases:
        return
    (label,) = labels
    names = [method.name for method in drawing]
    figure, axes = grid(len(names), len(cases))
    for column, (case, one) in zip(axes.T, cases.items(), strict=True):
        column[0].set_title(case, fontsize=9)
        for ax, name in zip(column, names, strict=True):
            _paint(ax, one, name)
    for ax, name in zip(axes[:, 0], names, strict=True):
        ax.set_ylabel(fill(name, 20), fontsize=9)
    patches = [Patch(color=colour, label=name) for colour, name in _NAMES.items()]
    figure.legend(handles=patches, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    yield Picture(
        "mask_errors",
        f"Right, missed and false: {label}",
        "One slice in the middle of the heart of each case, with the Dice of the whole slice; the "
        "same window in each row, beyond which nothing is shown. Blue: correct, red: missed, "
        "green: false (Fig. 4 of the paper of FPM).",
        f"Masks of {', '.join(names)} over {', '.join(cases)}; their scores stand in the tables.",
        figure,
    )


def psnr_scatter(methods: Sequence[Method]) -> Iterator[Picture]:
    """Draw the PSNR of each mask (Fig. 5 of FPM); a mask without fault is on the upper edge."""
    drawn = [m for m in methods if len(m.slices) and m.slices["psnr_db"].notna().any()]
    if not drawn:
        return
    looks = dict(zip((m.name for m in methods), looks_of(methods), strict=True))
    finite = np.concatenate([_psnr(m)[np.isfinite(_psnr(m))] for m in drawn])
    low, high = (finite.min(), finite.max()) if len(finite) else (0.0, 1.0)
    room = 0.08 * max(high - low, 1.0)
    figure, axes = panels_for(len(drawn))
    heard = []
    for ax, method in zip(axes, drawn, strict=True):
        values = _psnr(method)
        perfect = np.isinf(values)
        number = np.arange(len(values))
        ax.scatter(
            number[~perfect], values[~perfect], s=9, alpha=0.6, linewidths=0,
            color=looks[method.name]["color"], rasterized=len(values) > 300,
        )  # fmt: skip
        top = np.full(perfect.sum(), high + room)
        ax.scatter(number[perfect], top, s=22, marker="^", color=COLOURS[1], clip_on=False)
        ax.set(xlabel="mask", ylabel="PSNR, dB", ylim=(low - room, high + room))
        known = values[~perfect]
        median = f"median {np.median(values):.2f}"
        span = f"{known.min():.2f} to {known.max():.2f} dB" if len(known) else "no fault"
        count = f", {perfect.sum()} perfect" if perfect.any() else ""
        put_title(ax, f"{method.name}, n = {len(values)}", f"{span}, {median}{count}")
        heard.append(f"{method.name}: {span}, {median}, {perfect.sum()} perfect")
    yield Picture(
        "psnr",
        "PSNR of each mask",
        "-10 log10 of the share of wrong pixels, by slice in the order of the rows (Fig. 5 of "
        "the paper of FPM). It grows with the background that an image shows. A mask without a "
        "wrong pixel has none: such masks are counted, and drawn as triangles on the upper edge.",
        f"PSNR of masks. {'; '.join(heard)}.",
        figure,
    )


def _psnr(method: Method) -> NDArray[np.float64]:
    values = method.slices["psnr_db"].to_numpy(float)
    return values[~np.isnan(values)]


def _paint(ax: Axes, one: Slice, name: str) -> None:
    shown = show(ax, one)
    reference = one.reference[shown] > 0
    predicted = one.masks[name][shown] > 0
    for colour, pixels in painted(predicted, reference).items():
        if pixels.any():
            aspect = one.spacing[0] / one.spacing[1]
            layer = np.where(pixels, 1.0, np.nan)
            ax.imshow(layer, cmap=ListedColormap([colour]), alpha=_DARK, aspect=aspect)
    score = ax.text(0.03, 0.03, f"Dice {one.dice[name]:.3f}", transform=ax.transAxes)
    score.set(color="white", fontsize=8)
    score.set_path_effects([withStroke(linewidth=2, foreground="black")])
