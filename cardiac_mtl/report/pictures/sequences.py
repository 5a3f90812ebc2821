"""Masks of several structures over images: of the sequences of a patient, and of methods."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from textwrap import fill
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from cardiac_mtl.contracts import UNLABELLED
from cardiac_mtl.metrics.overlap import dice
from cardiac_mtl.metrics.surface import bounding_box
from cardiac_mtl.report.methods import Method
from cardiac_mtl.report.pictures.canvas import Picture
from cardiac_mtl.report.pictures.figures import CLASS_COLOURS, contour
from cardiac_mtl.report.pictures.gallery import FOLDER, Window, choose, read

MARGIN_MM: Final = 15.0
"""Around the heart."""
MOST_CASES: Final = 4
"""Beside each other, as in Fig. 4 of weak transfer."""


@dataclass(frozen=True)
class Slice:
    """One slice with masks of any number of classes."""

    image: NDArray[Any]
    """(H, W), any unit."""
    masks: Mapping[str, NDArray[Any]]
    """(H, W) by name, such as of a method: 0 background, above 0 the classes."""
    reference: NDArray[Any]
    """(H, W), likewise; `UNLABELLED` where not annotated."""
    spacing: tuple[float, float]
    """Distance between rows and columns in mm."""
    dice: Mapping[str, float] = field(default_factory=dict)
    """Of each mask, of all classes as one: of the whole slice, also what lies around the image."""


def middle(mask: NDArray[Any]) -> int:
    """Return the slice in the middle of those that show most classes.

    Args:
        mask: (S, H, W), above 0 inside.
    """
    shown = np.array([len(np.unique(plane[plane > 0])) for plane in mask])
    most = np.flatnonzero(shown == shown.max())
    return int(most[len(most) // 2])


def of_sequences(patient: str, slices: Mapping[str, Slice], names: Sequence[str]) -> Picture:
    """Lay the mask of each sequence over its image (Fig. 2 of weak transfer).

    Args:
        patient: a pseudonym.
        slices: by sequence; their references are drawn.
        names: of the classes 1, 2, ...
    """
    figure, axes = grid(1, len(slices))
    for ax, (name, one) in zip(axes[0], slices.items(), strict=True):
        shown = show(ax, one)
        _outline(ax, one.reference[shown], names, fill=True)
        ax.set_title(name, fontsize=10)
    _legend(figure, names)
    return Picture(
        f"sequences_{patient}",
        f"Sequences of {patient}",
        "One slice in the middle of the heart of each sequence, with its own mask (Fig. 2 of "
        "the paper of weak transfer).",
        f"Masks of {', '.join(names)} over {', '.join(slices)}.",
        figure,
    )


def of_methods(cases: Mapping[str, Slice], names: Sequence[str]) -> Picture:
    """Put contours of methods below each other, cases beside each other (Fig. 4 of weak transfer).

    Args:
        cases: by name; all have masks of the same methods.
        names: of the classes 1, 2, ...
    """
    methods = list(next(iter(cases.values())).masks)
    rows = ["input", *methods, "reference"]
    figure, axes = grid(len(rows), len(cases))
    for column, (name, one) in enumerate(cases.items()):
        for ax, row in zip(axes[:, column], rows, strict=True):
            shown = show(ax, one)
            mask = one.reference if row == "reference" else one.masks.get(row)
            if mask is not None:
                _outline(ax, mask[shown], names)
        axes[0, column].set_title(name, fontsize=9)
    for ax, row in zip(axes[:, 0], rows, strict=True):
        ax.set_ylabel(fill(row, 20), fontsize=9)
    _legend(figure, names)
    return Picture(
        "side_by_side",
        "Methods side by side",
        "One slice in the middle of the heart of each case; the same window in each row (Fig. 4 of "
        "the paper of weak transfer).",
        f"Contours of {', '.join(names)} by {', '.join(methods)} and of the reference, over "
        f"{', '.join(cases)}; their scores stand in the tables.",
        figure,
    )


def side_by_side(methods: Sequence[Method]) -> Iterator[Picture]:
    """Draw `of_methods` on cases that the galleries of all methods hold, if of several labels.

    Args:
        methods: at least one; the first decides which cases are best, median and worst.
    """
    names = [str(label) for label in methods[0].cases["label"].unique()]
    if len(names) < 2:
        return
    if cases := shared_slices(methods):
        yield of_methods(cases, names)


def shared_slices(methods: Sequence[Method]) -> dict[str, Slice]:
    """Read one slice of each case that the galleries of all methods hold, of the first few.

    A case whose reference is not the same for all is left out: masks of another tool are scored on
    the grid of the files and ours on the prepared one, and two data sets may name cases alike.

    Args:
        methods: those that predict masks; the first decides which cases are best, median and
            worst: they come first.
    """
    kept = [
        {file.stem: file for run in m.runs for file in (run.folder / FOLDER).glob("*.npz")}
        for m in methods
    ]
    shared = [case for case in kept[0] if all(case in files for files in kept)] if kept else []
    seen = [case for case in shared if (read(kept[0][case]).reference > 0).any()]
    chosen = list(choose(methods[0].cases).values()) if kept else []
    seen.sort(key=lambda case: chosen.index(case) if case in chosen else len(chosen))
    labels = {m.name: [str(label) for label in m.cases["label"].unique()] for m in methods}
    found = (
        (
            case,
            _slice({m.name: files[case] for m, files in zip(methods, kept, strict=True)}, labels),
        )
        for case in seen
    )
    return dict(islice(((case, one) for case, one in found if one is not None), MOST_CASES))


def _slice(files: Mapping[str, Path], labels: Mapping[str, Sequence[str]]) -> Slice | None:
    """Read the slice in the middle of one case, kept by several methods.

    Their windows differ, as each holds all that its method found: the part around the reference
    lies in every one of them. None where that is not the same for all.

    Args:
        files: of the gallery, by method.
        labels: of the classes 1, 2, ... by method; those of the first are the classes returned.
    """
    wanted = next(iter(labels.values()))
    windows = {name: _numbered(read(file), labels[name], wanted) for name, file in files.items()}
    cut = {name: _around(w.reference, w.spacing[1:].tolist()) for name, w in windows.items()}
    name, one = next(iter(windows.items()))
    inside = [w.reference[(slice(None), *cut[other])].clip(min=0) for other, w in windows.items()]
    if not all(np.array_equal(inside[0], mask) for mask in inside):
        return None
    k = middle(one.reference)
    return Slice(
        image=one.image[0, k][cut[name]],
        masks={name: w.predicted[k][cut[name]] for name, w in windows.items()},
        reference=one.reference[k][cut[name]],
        spacing=(float(one.spacing[1]), float(one.spacing[2])),
        dice={n: dice(w.predicted[k] > 0, w.reference[k] > 0) for n, w in windows.items()},
    )


def _numbered(window: Window, labels: Sequence[str], wanted: Sequence[str]) -> Window:
    """Number the classes of a method as another one does: names tell them, in any order."""
    numbers = np.zeros(257, np.int8)  # of every class of a byte, and the last of -1
    numbers[-1] = UNLABELLED
    numbers[1 : 1 + len(labels)] = [wanted.index(n) + 1 if n in wanted else 0 for n in labels]
    predicted = numbers[window.predicted].astype(np.uint8)
    return replace(window, reference=numbers[window.reference], predicted=predicted)


def _around(mask: NDArray[Any], spacing: Sequence[float]) -> tuple[slice, slice]:
    """Return rows and columns around what is above 0 in a mask (..., H, W); all without any."""
    inside = np.any((mask > 0).reshape(-1, *mask.shape[-2:]), axis=0, keepdims=True)[0]
    if not inside.any():
        return slice(None), slice(None)
    rows, columns = (
        slice(max(0, box.start - round(MARGIN_MM / mm)), box.stop + round(MARGIN_MM / mm))
        for box, mm in zip(bounding_box(inside), spacing, strict=True)
    )
    return rows, columns


def grid(rows: int, columns: int) -> tuple[Figure, NDArray[Any]]:
    """Return a figure and its panels (rows, columns)."""
    figure = Figure(figsize=(2.1 * columns + 0.3, 2.1 * rows + 0.6), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def show(ax: Axes, one: Slice) -> tuple[slice, slice]:
    """Show the image around the heart on an axis; return its rows and columns."""
    shown = _around(np.stack([one.reference, *one.masks.values()]), one.spacing)
    low, high = np.percentile(one.image[shown], [1, 99])
    aspect = one.spacing[0] / one.spacing[1]
    ax.imshow(one.image[shown], cmap="gray", vmin=low, vmax=high, aspect=aspect)
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    return shown


def _outline(ax: Axes, mask: NDArray[Any], names: Sequence[str], *, fill: bool = False) -> None:
    """Draw each class in its colour, the first last: a border of two classes has its colour."""
    for value, colour in reversed(list(enumerate(CLASS_COLOURS[: len(names)], start=1))):
        if fill:
            ax.contourf(mask == value, levels=[0.5, 1.5], colors=[colour], alpha=0.35)
        contour(ax, mask == value, colour)


def _legend(figure: Figure, names: Sequence[str]) -> None:
    lines = [
        Line2D([], [], color=colour, label=name)
        for name, colour in zip(names, CLASS_COLOURS, strict=False)
    ]
    figure.legend(handles=lines, loc="outside lower center", ncols=len(lines), frameon=False)
