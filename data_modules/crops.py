"""Where a crop of native pixels lies: starts by matrix size, shifted crops, labels kept inside."""

from collections.abc import Mapping
from typing import Final

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from data_modules.geometry import Centre

SIDE: Final = 224
"""Rows and columns that the starts below are for [code: model/cut.py]."""
STARTS: Final[Mapping[str, Mapping[int, int]]] = {
    "LGE": {480: 136, 512: 136, 400: 88, 432: 104, 224: 0},
    "T2": {256: 16, 288: 32, 240: 8, 224: 0},
    "C0": {320: 64, 288: 32, 256: 16, 240: 8, 224: 0},
}
"""First row or column of the crop, by sequence and size of the matrix [code: cut.py, cutlge.py]."""
SHIFT: Final = 16
"""Pixels by which the further crops of an LGE image are shifted [code: cut.py]."""
CROP_GROUPS: Final = 5
"""Crops of an image that there are at most [paper]."""

Size = tuple[int, int]
"""Rows and columns."""
Box = tuple[Size, Size]
"""First and last row, first and last column."""


def crop_start(sequence: str, matrix_size: Size, crop: Size = (SIDE, SIDE)) -> Size:
    """Return the first row and column of the crop of an image.

    Args:
        sequence: `LGE`, `C0` or `T2`.
        matrix_size: rows and columns of the image.
        crop: rows and columns of the crop.

    Returns:
        What the released code takes where it names the size, else that of the central crop
        [inferred]; negative where the image is smaller than the crop.

    Examples:
        >>> crop_start("LGE", (480, 400)), crop_start("LGE", (200, 301))
        ((136, 88), (-12, 38))
    """
    known = STARTS.get(sequence, {})
    row, column = (
        known[size] if side == SIDE and size in known else central
        for size, side, central in zip(
            matrix_size, crop, central_start(matrix_size, crop), strict=True
        )
    )
    return row, column


def central_start(matrix_size: Size, crop: Size) -> Size:
    """Return the first row and column of the crop in the middle, negative where it reaches out."""
    return (matrix_size[0] - crop[0]) // 2, (matrix_size[1] - crop[1]) // 2


def crop_shift(group: int, start: Size, central: Size, crop: Size = (SIDE, SIDE)) -> Size:
    """Return by how many rows and columns a crop of an LGE image is shifted.

    Args:
        group: 0, the base, to 4.
        start: first row and column of the base.
        central: those of the crop in the middle, which is the last group, or, where that is the
            base, the one opposite to the others [inferred].
        crop: rows and columns; the shift of smaller crops is smaller in proportion.
    """
    down, right = (round(SHIFT * side / SIDE) for side in crop)
    opposite = (central[0] - start[0], central[1] - start[1])
    if opposite == (0, 0):
        opposite = (down, right)
    return ((0, 0), (-down, -right), (-down, 0), (0, -right), opposite)[group]


def centre_of_crop(start: Size, crop: Size) -> Centre:
    """Return the centre of a crop of native pixels from its first row and column."""
    return start[0] + (crop[0] - 1) / 2, start[1] + (crop[1] - 1) / 2


def label_box(mask: sitk.Image) -> Box | None:
    """Return the box around all that is labelled in a mask; None where nothing is."""
    inside = sitk.GetArrayViewFromImage(mask) > 0
    rows, columns = (np.flatnonzero(inside.any(axis=axes)) for axes in ((0, 2), (0, 1)))
    return (_ends(rows), _ends(columns)) if len(rows) else None


def enclose(centre: Centre, half: tuple[float, float], box: Box) -> Centre:
    """Move a crop as little as needed to hold a box; not at all along a side that is too short.

    Args:
        centre: of the crop.
        half: from the centre of its first row and column to its own, in pixels of the image.
        box: to enclose.
    """
    row, column = (
        place if last - first > 2 * reach else min(max(place, last - reach), first + reach)
        for place, reach, (first, last) in zip(centre, half, box, strict=True)
    )
    return row, column


def cuts(centre: Centre, half: tuple[float, float], box: Box) -> bool:
    """Say whether a crop leaves a part of a box out; arguments as of `enclose`."""
    return any(
        first < place - reach - 0.5 or last > place + reach + 0.5
        for place, reach, (first, last) in zip(centre, half, box, strict=True)
    )


def _ends(places: NDArray[np.intp]) -> Size:
    return int(places[0]), int(places[-1])
