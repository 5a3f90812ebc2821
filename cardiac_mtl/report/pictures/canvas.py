"""What every figure of a report shares: colours of Okabe and Ito, markers, panels, files."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
MARKERS = "osD^vP"
STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "svg.hashsalt": "cardiac-mtl",
}


@dataclass(frozen=True)
class Picture:
    """One figure with what a reader needs beside it."""

    name: str
    """Of the files."""
    title: str
    caption: str
    alt: str
    """What a reader who cannot see it must know."""
    figure: Figure


@dataclass(frozen=True)
class Photo:
    """A picture that `test` drew, with what a reader needs beside it."""

    name: str
    """Of its file in the report: two methods draw the same case under one name."""
    file: Path
    title: str
    caption: str
    alt: str
    """What a reader who cannot see it must know."""


def save(picture: Picture, folder: Path) -> Path:
    """Write a figure as SVG and PNG; return the SVG. The same rows give the same bytes."""
    path = folder / f"{picture.name}.svg"
    with rc_context(STYLE):
        picture.figure.savefig(path, metadata={"Date": None}, dpi=150)
        picture.figure.set_layout_engine("none")  # laying it out again takes as long as drawing it
        picture.figure.savefig(path.with_suffix(".png"), dpi=150)
    return path


def file_name(kind: str, name: object) -> str:
    """Return a name that every file system takes, another one for another name.

    Examples:
        >>> file_name("scatter", "mtn_unet, seed 0")
        'scatter_mtn_unet_seed_0'
    """
    safe = re.sub(r"[^A-Za-z0-9.-]+", "_", f"{kind}_{name}")
    if re.search(r"[^\w.,\s-]", str(name), re.ASCII):
        # what goes may be all that tells two methods apart: one would get the figure of the other
        safe += "_" + hashlib.sha256(str(name).encode()).hexdigest()[:6]
    return safe


def looks_of(drawn: Sequence[object]) -> list[dict[str, Any]]:
    """Return colour and marker of each method, or of whatever else has a line of its own."""
    looks = zip(cycle(COLOURS), cycle(MARKERS), strict=False)
    return [{"color": c, "marker": m} for (c, m), _ in zip(looks, drawn, strict=False)]


def panels_for(
    count: int, per_row: int = 3, size: tuple[float, float] = (3.4, 3.0)
) -> tuple[Any, ...]:
    """Return a figure and its axes, `per_row` beside each other, of a size in inches each."""
    columns = min(count, per_row)
    rows = -(-count // columns)
    figure = Figure(figsize=(size[0] * columns, size[1] * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten().tolist()
    for ax in axes[count:]:
        ax.set_axis_off()
    return figure, axes[:count]


def legend_above(figure: Figure, ax: Axes) -> None:
    """Put the legend above the panels, where it hides nothing."""
    handles, names = ax.get_legend_handles_labels()
    columns = max(1, round(figure.get_figwidth() / 2.4))
    figure.legend(handles, names, loc="outside upper left", ncols=columns, fontsize=8)
