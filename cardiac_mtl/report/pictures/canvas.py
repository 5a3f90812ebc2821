"""What every figure of a report shares: colours of Okabe and Ito, markers, panels, files."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from textwrap import fill
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#999999", "#882255")
"""As many as MuTGAN has rows; the last two, a grey and a wine, are not of Okabe and Ito."""
MARKERS = "osD^vP"
_LONGEST = 120
"""Letters of a name of a file: the settings of a variant may be more than a disk takes."""
_MARK_IN, _LETTER_IN = 0.6, 0.07
"""Width of the mark of a legend, and of a letter of its names of 8 points, in inches."""
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
    short = safe[:_LONGEST]
    if short != safe or re.search(r"[^\w.,\s-]", str(name), re.ASCII):
        # what goes may be all that tells two methods apart: one would get the figure of the other
        short += "_" + hashlib.sha256(str(name).encode()).hexdigest()[:6]
    return short


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


def put_title(ax: Axes, *lines: str) -> None:
    """Put lines above a panel, broken where they would reach into its neighbours."""
    ax.set_title("\n".join(fill(line, 40) for line in lines), fontsize=9)


def legend_above(figure: Figure, ax: Axes) -> None:
    """Put the legend above the panels, where it hides nothing, in as many columns as there fit."""
    handles, names = ax.get_legend_handles_labels()
    width = figure.get_figwidth()
    names = [fill(name, int((width - _MARK_IN) / _LETTER_IN)) for name in names]
    longest = max(len(line) for name in names for line in name.splitlines())
    columns = max(1, int(width / (_MARK_IN + _LETTER_IN * longest)))
    figure.legend(handles, names, loc="outside upper left", ncols=columns, fontsize=8)
