"""A cine with its contours as a GIF: what plays on a slide."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from contourpy import contour_generator
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageDraw, ImageFont

from cardiac_mtl.contracts import UNLABELLED
from cardiac_mtl.files import whole
from cardiac_mtl.report.pictures.figures import PREDICTED, REFERENCE
from cardiac_mtl.report.pictures.gallery import Window

SIDE: Final = 192
"""Pixels of the shorter side of a frame."""
GREYS: Final = 32
"""Levels of a frame: more make the files larger than the eye rewards."""
BEAT_MS: Final = 1200
"""Of a whole loop, a little slower than a heart: a slide is looked at once."""
_FOOT: Final = 48
_DASH: Final = (6, 4)
_BLUE, _ORANGE, _WHITE, _BLACK = GREYS, GREYS + 1, GREYS + 2, GREYS + 3


class Frame(NamedTuple):
    """One phase of one slice."""

    image: NDArray[np.uint8]
    """(h, w)."""
    reference: NDArray[np.integer[Any]]
    """(h, w), above 0 inside, `UNLABELLED` where not annotated."""
    predicted: NDArray[np.integer[Any]]
    """(h, w), above 0 inside."""


def write_loop(path: Path, frames: Sequence[Frame], aspect: float, title: str) -> None:
    """Write the phases of one slice as an animated picture, whole or not at all.

    Args:
        path: GIF to write; there are programs for slides that do not play an animated PNG.
        frames: at least one, in the order of time.
        aspect: height of a pixel over its width.
        title: below the picture, two lines at most.
    """
    height, width = frames[0].image.shape
    scale = SIDE / min(height * aspect, width)
    size = round(width * scale), round(height * scale * aspect)
    drawn = [_drawn(frame, size, title) for frame in frames]
    with whole(path) as temporary:
        drawn[0].save(
            temporary,
            format="GIF",
            save_all=True,
            append_images=drawn[1:],
            duration=round(BEAT_MS / len(frames) / 10) * 10,  # GIF counts hundredths of a second
            loop=0,
            optimize=False,
        )


def film(windows: Sequence[Window], k: int) -> list[Frame]:
    """Return the phases of one slice: of one cine, or of the volumes of a patient."""
    return [
        Frame(window.image[t, k], window.reference[k], window.predicted[k])
        for window in windows
        for t in range(len(window.image))
    ]


def contours(mask: NDArray[np.integer[Any]]) -> list[NDArray[np.int64]]:
    """Return lines (N, 2) of x, y around every class, in halves of a pixel."""
    lines = []
    for value in np.unique(mask[mask > 0]):
        padded = np.pad(mask == value, 1).astype(float)
        for line in contour_generator(z=padded).lines(0.5):
            # the padding, then from the centre of a pixel to its corner; all are halves
            points = np.rint(2 * np.asarray(line) - 1).astype(int)
            steps = np.diff(points, axis=0)
            turns = steps[:-1, 0] * steps[1:, 1] != steps[:-1, 1] * steps[1:, 0]
            lines.append(points[np.r_[True, turns, True]])
    return lines


def _drawn(frame: Frame, size: tuple[int, int], title: str) -> Image.Image:
    """Draw one frame with the palette of all, so that no colour flickers."""
    width, height = size
    grey = Image.fromarray(frame.image).resize(size, Image.Resampling.BICUBIC)
    canvas = Image.new("P", (width, height + _FOOT), _BLACK)
    canvas.putpalette(_palette())
    levels = (np.asarray(grey).astype(int) * GREYS // 256).astype(np.uint8)
    canvas.paste(Image.frombytes("P", size, levels.tobytes()), (0, 0))
    pen = ImageDraw.Draw(canvas)
    rows, columns = frame.image.shape
    steps = np.array([width / columns, height / rows]) / 2
    for mask, colour in ((frame.reference, _BLUE), (frame.predicted, _ORANGE)):
        for line in contours(mask):
            _line(pen, line * steps, colour, dashed=colour == _ORANGE)
    known = bool((frame.reference != UNLABELLED).any())
    _write_foot(pen, size, title, with_reference=known)
    return canvas


def _line(
    pen: ImageDraw.ImageDraw, points: NDArray[np.float64], colour: int, *, dashed: bool
) -> None:
    """Draw a line (N, 2), which Pillow cannot dash by itself."""
    if not dashed:
        pen.line([tuple(point) for point in points], fill=colour, width=2, joint="curve")
        return
    lengths = np.hypot(*np.diff(points, axis=0).T)
    along = np.append(0.0, lengths.cumsum())
    for start in np.arange(0.0, along[-1], sum(_DASH)):
        end = min(start + _DASH[0], along[-1])
        at = np.r_[start, along[(along > start) & (along < end)], end]
        piece = np.stack([np.interp(at, along, points[:, k]) for k in (0, 1)], axis=1)
        pen.line([tuple(point) for point in piece], fill=colour, width=2)


def _write_foot(
    pen: ImageDraw.ImageDraw, size: tuple[int, int], title: str, *, with_reference: bool
) -> None:
    width, height = size
    font = ImageFont.load_default(size=12)
    pen.fontmode = "1"  # no shades between the colours of the palette
    pen.multiline_text((4, height + 2), title, fill=_WHITE, font=font, spacing=1)
    entries = [(_BLUE, "reference"), (_ORANGE, "predicted")][0 if with_reference else 1 :]
    for x, (colour, name) in zip((4, width // 2), entries, strict=False):
        line = np.array([[x, height + 39.0], [x + 22, height + 39.0]])
        _line(pen, line, colour, dashed=colour == _ORANGE)
        pen.text((x + 28, height + 31), name, fill=_WHITE, font=font)


def _palette() -> list[int]:
    greys = [round(255 * k / (GREYS - 1)) for k in range(GREYS) for _ in range(3)]
    return greys + [
        part
        for name in (REFERENCE, PREDICTED, "white", "black")
        for part in ImageColor.getrgb(name)
    ]
