"""Pictures: contours over images, and how training went. Colours that the colour-blind can tell."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray
from scipy import ndimage

from cardiac_mtl.contracts import UNLABELLED
from cardiac_mtl.files import whole
from cardiac_mtl.metrics.overlap import dice

REFERENCE, PREDICTED = "#56B4E9", "#E69F00"  # sky blue and orange of Okabe and Ito
MOST_SLICES = 12
MARGIN_MM = 15.0
CHANNELS = 3
"""Of a layer that are shown beside its mean."""
SHEET = 64
"""Pictures on one contact sheet."""
CLASS_COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#F0E442")
"""Of the classes 1, 2, ...: light enough for what is dark in an image."""

_PANELS = {
    "loss": ("loss, as its tasks are weighted", "loss"),
    "loss/mask": ("loss of the mask", "loss"),
    "loss/area": ("loss of the area", "mm²"),
    "loss/indices": ("loss of the indices", "sum of errors, in SDs"),
    "loss/label": ("loss of the class", "nats an image"),
    "loss/labelled": ("loss of masks of their own", "cross-entropy and Dice"),
    "loss/transferred": ("loss of transferred masks", "cross-entropy and Dice"),
    "adversarial": ("generator against discriminator", "loss"),
    "discriminator": ("loss of the discriminator", "loss"),
    "discriminator_accuracy": ("accuracy of the discriminator", "share, 0 to 1"),
    "convergence": ("convergence (BEGAN's M)", "M"),
    "lambda": ("weight of generated pairs", "lambda, 0 to 1"),
    "dice_vol": ("volume Dice", "Dice, 0 to 1"),
    "mae/area_mm2": ("error of the regressed area", "mm²"),
    "auc": ("AUC of the class", "AUC, 0 to 1"),
    "s/": ("learned log-uncertainty", "s"),
    "weight/": ("weight of each task", "factor of the loss"),
}
_STAGES = {"train": "#0072B2", "val": "#D55E00", "test": "#CC79A7"}


def overlay(
    path: Path,
    image: NDArray[np.float32],
    reference: NDArray[np.int8] | None,
    predicted: NDArray[np.uint8] | None,
    spacing: tuple[float, float, float],
    *,
    title: str,
    subtitle: str = "",
) -> None:
    """Draw the slices of one volume with both contours.

    Args:
        path: PNG to write.
        image: (S, H, W), any unit.
        reference: (S, H, W), above 0 inside, `UNLABELLED` where not annotated, or None.
        predicted: (S, H, W), above 0 inside, or None.
        spacing: distance between slices, rows and columns in mm.
        title: above the picture.
        subtitle: below the title.
    """
    reference = np.full(image.shape, UNLABELLED, np.int8) if reference is None else reference
    known = (reference != UNLABELLED).any(axis=(1, 2))
    masks = [reference > 0] if predicted is None else [reference > 0, predicted > 0]
    shown = np.unique(np.linspace(0, len(image) - 1, min(len(image), MOST_SLICES)).round())
    window = _window(np.logical_or.reduce(masks).any(axis=0), spacing[1:])
    columns = min(len(shown), 4)
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(2.6 * columns, 2.6 * rows + 0.8), dpi=110, facecolor="white")
    axes = figure.subplots(rows, columns, squeeze=False)
    low, high = np.percentile(image[:, window[0], window[1]], [1, 99])
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, k in zip(axes.flat, shown.astype(int), strict=False):
        ax.imshow(
            image[k][window],
            cmap="gray",
            vmin=low,
            vmax=high,
            aspect=spacing[1] / spacing[2],
            interpolation="bicubic",
        )
        for mask, colour, style in zip(masks, (REFERENCE, PREDICTED), ("-", "--"), strict=False):
            contour(ax, mask[k][window], colour, style)
        _caption(ax, f"slice {k}{_slice_dice([m[k] for m in masks]) if known[k] else ''}")
    _legend(figure, with_reference=bool(known.any()), with_prediction=predicted is not None)
    figure.suptitle(f"{title}\n{subtitle}" if subtitle else title, fontsize=11)
    figure.tight_layout(rect=(0, 0.3 / figure.get_figheight(), 1, 1), pad=0.4)
    write_figure(figure, path)


def _slice_dice(masks: list[NDArray[np.bool_]]) -> str:
    if len(masks) < 2:
        return ""
    value = dice(*masks)
    return ", both empty" if np.isnan(value) else f", Dice {value:.2f}"


def _caption(ax: Axes, text: str) -> None:
    caption = ax.text(0.03, 0.03, text, color="white", fontsize=8, transform=ax.transAxes)
    caption.set_path_effects([withStroke(linewidth=2, foreground="black")])


def _legend(figure: Figure, *, with_reference: bool, with_prediction: bool) -> None:
    handles = []
    if with_reference:
        handles.append(Line2D([], [], color=REFERENCE, label="reference"))
    if with_prediction:
        handles.append(Line2D([], [], color=PREDICTED, linestyle="--", label="predicted"))
    figure.legend(handles=handles, loc="lower center", ncols=2, frameon=False)


def feature_maps(
    path: Path,
    image: NDArray[np.float32],
    masks: Sequence[NDArray[np.bool_]],
    maps: Mapping[str, NDArray[np.float32]],
    *,
    title: str,
) -> None:
    """Draw what the layers of a network hold of one slice: Fig. 3B of MuTGAN.

    Args:
        path: PNG to write.
        image: (H, W), any unit.
        masks: (H, W), reference and, where there is one, prediction; the first is drawn over all.
        maps: by name of the layer (channels, rows, columns), in the order of the columns.
        title: above the picture.
    """
    height, width = image.shape
    rows = 1 + CHANNELS
    figure = Figure(figsize=(1.5 * (1 + len(maps)), 1.5 * rows + 0.9), dpi=110, facecolor="white")
    axes = figure.subplots(rows, 1 + len(maps), squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    axes[0, 0].imshow(image, cmap="gray")
    axes[0, 0].set_title(f"first phase\n{height} x {width}", fontsize=8)
    for mask, colour, style in zip(masks, (REFERENCE, PREDICTED), ("-", "--"), strict=False):
        contour(axes[0, 0], mask, colour, style)
    for column, (name, channels) in zip(axes.T[1:], maps.items(), strict=True):
        liveliest = np.argsort(-channels.std(axis=(1, 2)), kind="stable")[:CHANNELS]
        mean = channels.mean(axis=0)
        size = " x ".join(map(str, channels.shape))
        reach = f"{mean.min():.2g} to {mean.max():.2g}"
        column[0].set_title(f"{name}, {size}\n{reach}", fontsize=8)
        for ax, shown in zip(column, (mean, *channels[liveliest]), strict=False):
            ax.imshow(shown, cmap="viridis", extent=(-0.5, width - 0.5, height - 0.5, -0.5))
            contour(ax, masks[0], "white", "-")
    _legend(figure, with_reference=bool(masks[0].any()), with_prediction=len(masks) > 1)
    what = f"above the mean over channels and its range, below it the {CHANNELS} that vary most"
    figure.suptitle(f"{title}: {what}", fontsize=10)
    inches = figure.get_figheight()
    figure.tight_layout(rect=(0, 0.3 / inches, 1, 1 - 0.2 / inches), pad=0.4)
    write_figure(figure, path)


@dataclass(frozen=True)
class Thumbnail:
    """One picture of a contact sheet."""

    title: str
    image: NDArray[np.float32]
    """(H, W), any unit."""
    mask: NDArray[np.int16] | None
    """(H, W), above 0 inside."""
    faulty: bool = False
    """Drawn with a red title."""


def contact_sheets(path: Path, thumbnails: Sequence[Thumbnail]) -> list[Path]:
    """Draw many small pictures with their contours, so that a flipped mask is seen at a glance.

    Args:
        path: PNG to write; a second sheet and those after it get a number.
        thumbnails: in the order wanted.

    Returns:
        The files.
    """
    sheets = []
    for number, start in enumerate(range(0, len(thumbnails), SHEET)):
        shown = thumbnails[start : start + SHEET]
        columns = min(len(shown), 8)
        rows = -(-len(shown) // columns)
        figure = Figure(figsize=(1.7 * columns, 1.85 * rows), dpi=110, facecolor="white")
        for ax in (axes := figure.subplots(rows, columns, squeeze=False)).flat:
            ax.set_axis_off()
        for ax, one in zip(axes.flat, shown, strict=False):
            low, high = np.percentile(one.image, [1, 99])
            ax.imshow(one.image, cmap="gray", vmin=low, vmax=high)
            if one.mask is not None:
                for value, colour in zip(_classes(one.mask), CLASS_COLOURS, strict=False):
                    contour(ax, one.mask == value, colour, "-")
            ax.set_title(one.title, fontsize=7, color="#B00020" if one.faulty else "black", pad=2)
        figure.tight_layout(pad=0.3)
        sheets.append(path if number == 0 else path.with_stem(f"{path.stem}_{number + 1}"))
        write_figure(figure, sheets[-1])
    return sheets


def _classes(mask: NDArray[np.int16]) -> list[int]:
    return [int(value) for value in np.unique(mask) if value > 0]


def curves(path: Path, metrics: pd.DataFrame, monitor: str = "", best: float | None = None) -> None:
    """Draw losses, scores and learned weights over the epochs, and which epoch was kept.

    Args:
        path: PNG to write.
        metrics: rows of a run's `metrics.csv`; columns such as `epoch`, `train/loss/mask`,
            `val/dice_vol`, `s/area`.
        monitor: column that the epoch was chosen by.
        best: its value at that epoch.
    """
    by_epoch = metrics.groupby("epoch").mean(numeric_only=True)
    names = [str(column) for column in by_epoch]
    panels = [
        (name, columns)
        for name in _PANELS
        if (columns := [c for c in names if _belongs(c, name) and by_epoch[c].notna().any()])
    ]
    per_row = min(len(panels), 3) or 1
    rows = max(1, -(-len(panels) // per_row))
    figure = Figure(figsize=(4.2 * per_row, 3.0 * rows), dpi=110, facecolor="white")
    axes = figure.subplots(rows, per_row, squeeze=False)
    for ax in axes.flat[len(panels) :]:
        ax.set_axis_off()
    for ax, (name, columns) in zip(axes.flat, panels, strict=False):
        title, unit = _PANELS[name]
        _lines(ax, by_epoch, columns, {} if best is None else {monitor: best})
        ax.set_title(title, fontsize=10)
        ax.set_xlabel("epoch")
        ax.set_ylabel(unit)
        if name == "weight/":
            ax.set_yscale("log")
    figure.tight_layout()
    write_figure(figure, path)


def _belongs(column: str, panel: str) -> bool:
    """Say whether a column, `<stage>/<panel>` or `<panel><task>`, is drawn in a panel."""
    if panel.endswith("/"):
        return column.startswith(panel)
    stage, _, rest = column.partition("/")
    return stage in _STAGES and rest == panel


def _lines(ax: Axes, by_epoch: pd.DataFrame, columns: list[str], best: Mapping[str, float]) -> None:
    for column in columns:
        stage, _, rest = column.partition("/")
        values = by_epoch[column].dropna()
        label = stage if stage in _STAGES else rest
        if column in best:
            kept = values.index[int((values - best[column]).abs().argmin())]
            ax.axvline(kept, color="grey", linewidth=0.8, linestyle=":")
            label = f"{label}, best {best[column]:.3f} at epoch {kept}"
        mark = "o" if len(values) == 1 else None
        ax.plot(
            values.index, values, color=_STAGES.get(stage), label=label, linewidth=1.4, marker=mark
        )
    ax.legend(frameon=False, fontsize=8)
    ax.grid(alpha=0.25)


def contour(ax: Axes, mask: NDArray[np.bool_], colour: str, style: str = "-") -> None:
    """Draw the outline of a mask, if it has one.

    Args:
        ax: shows the image that it belongs to.
        mask: (H, W).
        colour: of the line.
        style: of the line, as matplotlib has it.
    """
    if mask.any() and not mask.all():
        ax.contour(
            mask.astype(float), levels=[0.5], colors=[colour], linestyles=[style], linewidths=1.3
        )


def _window(inside: NDArray[np.bool_], spacing: tuple[float, ...]) -> tuple[slice, slice]:
    """Return rows and columns around the heart, square in mm where the image allows."""
    found = ndimage.find_objects(inside.astype(np.uint8))
    if not found:
        return slice(None), slice(None)
    extent = [(s.stop - s.start) * mm for s, mm in zip(found[0], spacing, strict=True)]
    half = max(extent) / 2 + MARGIN_MM
    centre = [(s.start + s.stop) / 2 for s in found[0]]
    bounds = [
        (max(0, int(c - half / mm)), min(n, int(c + half / mm) + 1))
        for c, mm, n in zip(centre, spacing, inside.shape, strict=True)
    ]
    return slice(*bounds[0]), slice(*bounds[1])


def write_figure(figure: Figure, path: Path) -> None:
    """Write a figure in the format of its suffix, whole or not at all."""
    with whole(path) as temporary:
        figure.savefig(temporary, format=path.suffix.removeprefix("."))
