"""The page: everything in one file that opens from disk, without a network."""

import base64
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, select_autoescape
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from cardiac_mtl.files import whole
from cardiac_mtl.report.methods import Method, in_words
from cardiac_mtl.report.pictures.canvas import Photo, Picture, file_name
from cardiac_mtl.report.pictures.gallery import (
    FOLDER,
    Window,
    annotated,
    choose,
    fullest,
    mean_dice,
    of_patient,
)
from cardiac_mtl.report.pictures.loops import Frame, contours, film, write_loop
from cardiac_mtl.report.tables.layout import Table

_INSIDE = re.compile(r"(?<=±) | (?=±)|(?<=/) | (?=/)|(?<=,) (?=[-+\d][^]]*\])")
"""Spaces of `1.0 ± 0.2 [0.9, 1.1]` and `35 (0 / 0 / 0)` at which a line must not break."""

_NUMBER = re.compile(r"<td>(?=[-+.\de]+</td>)")
"""Cells that are a number or a date, at whose hyphen a line must not break either."""


@dataclass(frozen=True)
class Section:
    """One part of the page."""

    name: str
    """Of the anchor."""
    title: str
    text: str
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    photos: Sequence[Photo] = ()


@dataclass(frozen=True)
class Page:
    """What the page shows."""

    title: str
    generated: str
    version: str
    warnings: Sequence[str]
    sections: Sequence[Section]
    methods: Sequence[Method]


def write_page(path: Path, page: Page, images: dict[str, Path]) -> None:
    """Write the page whole or not at all.

    Args:
        path: `index.html`; loops of the gallery are written into `figures` beside it.
        page: its content.
        images: SVG file of each picture, by name.
    """
    environment = Environment(
        loader=PackageLoader("cardiac_mtl.report", "."),
        autoescape=select_autoescape(["html"]),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["svg"] = lambda picture: _data_url("svg+xml", images[picture.name])
    environment.filters["png"] = lambda photo: _data_url("png", photo.file)
    environment.filters["html"] = _html
    exhibits = [exhibit for method in page.methods for exhibit in _exhibits(method)]
    for exhibit in exhibits:
        if exhibit.gif:
            title = f"{exhibit.case_id}\n{exhibit.method}, slice {exhibit.loop['start'][1]}"
            aspect = exhibit.loop["aspect"]
            write_loop(path.parent / exhibit.gif, exhibit.frames, aspect, title)
    text = environment.get_template("page.html").render(
        page=page,
        exhibits=exhibits,
        # `<` would end the script that holds it
        loops=Markup(json.dumps([e.loop for e in exhibits]).replace("<", "\\u003c")),  # noqa: S704
        in_words=in_words,
    )
    with whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@dataclass(frozen=True)
class Exhibit:
    """One case of the gallery."""

    method: str
    rank: str
    case_id: str
    caption: str
    loop: dict[str, Any]
    """For the script: size, picture of all slices and phases, contours."""
    frames: Sequence[Frame]
    """Of the slice that is shown first."""

    @property
    def gif(self) -> str:
        """Where the loop is written, from the page; empty where nothing moves."""
        name = file_name("loop", f"{self.method}_{self.case_id}")
        return f"figures/{name}.gif" if len(self.frames) > 1 else ""


def _exhibits(method: Method) -> list[Exhibit]:
    files = {f.stem: f for run in method.runs for f in (run.folder / FOLDER).glob("*.npz")}
    dice = mean_dice(method.cases)
    ranks = dice.rank(ascending=False, method="first").astype(int)
    exhibits = []
    for rank, case_id in choose(method.cases).items():
        shown = case_id
        if case_id not in files:  # the median of all folds need not be that of one
            kept = dice[dice.index.isin(files)]
            if kept.empty:
                continue
            shown = str((kept - dice[case_id]).abs().idxmin())
        alike = of_patient(shown, method.cases, files)
        caption = f"{rank}: rank {ranks[shown]} of {len(dice)}, volume Dice {dice[shown]:.3f}"
        loop = _loop(alike, shown, dice, method.slices)
        frames = film([window for _, window in alike], loop["start"][1])
        exhibits.append(Exhibit(method.name, rank, shown, caption, loop, frames))
    return exhibits


def _loop(
    windows: Sequence[tuple[dict[str, Any], Window]],
    first: str,
    dice: pd.Series,
    slices: pd.DataFrame,
) -> dict[str, Any]:
    """Return what the script plays: frames by phase and slice, and their contours."""
    scored = slices.groupby(["case_id", "slice"])["dice"].mean()
    _, one = windows[0]
    count, height, width = one.image.shape[1:]
    frames = [(row, w, t) for row, w in windows for t in range(len(w.image))]
    sheet = np.concatenate([np.concatenate(list(w.image[t]), axis=1) for _, w, t in frames], axis=0)
    return {
        "width": width,
        "height": height,
        "slices": count,
        "aspect": float(one.spacing[1] / one.spacing[2]),
        "sheet": _webp(sheet),
        "start": [
            next(k for k, (row, _, _) in enumerate(frames) if row["case_id"] == first),
            fullest(one),
        ],
        "phases": [
            {
                "name": _phase_name(row, t if len(w.image) > 1 else None),
                "dice": _rounded(dice.get(row["case_id"])),
                "slices": [
                    {
                        "dice": _rounded(scored.get((row["case_id"], k))),
                        "annotated": bool(known),
                        "reference": _flat(w.reference[k]),
                        "predicted": _flat(w.predicted[k]),
                    }
                    for k, known in enumerate(annotated(w))
                ],
            }
            for row, w, t in frames
        ],
    }


def _phase_name(row: dict[Any, Any], frame: int | None) -> str:
    phase = str(row["phase"] if frame is None else frame)
    known = {"", row["phase"]} if frame is None else {row["cardiac_phase"]}
    return phase if row["cardiac_phase"] in known else f"{phase} {row['cardiac_phase']}"


def _flat(mask: NDArray[np.integer[Any]]) -> list[list[int]]:
    """Return lines x, y, x, y, ... around every class, in halves of a pixel of the window."""
    return [line.ravel().tolist() for line in contours(mask)]


def _rounded(value: Any) -> float | None:  # noqa: ANN401 - pandas has no narrower type
    return None if value is None or pd.isna(value) else round(float(value), 3)


def _webp(pixels: NDArray[np.uint8]) -> str:
    """Return a picture as a URL; it is only looked at, and so may lose a little."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="WEBP", quality=85)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def _data_url(kind: str, image: Path) -> str:
    return f"data:image/{kind};base64," + base64.b64encode(image.read_bytes()).decode()


def _html(table: Table) -> Markup:
    """Return a table as HTML; pandas escapes every cell.

    Wide cells break before their interval, never inside a number.
    """
    shown = table.shown.map(lambda cell: _held_together(cell) if isinstance(cell, str) else cell)
    text = shown.to_html(index=False, border=0, na_rep="—", justify="left")
    return Markup(_NUMBER.sub('<td class="number">', text))  # noqa: S704


def _held_together(cell: str) -> str:
    return _INSIDE.sub("\u00a0", cell)
