"""The seven indices of an infarct (eight numbers: the centroid has two), and their errors.

The names are those of regionprops: the ellipse with the same second central moments.
Source: Xu et al. (MuTGAN), the definitions of MATLAB's regionprops and scikit-image's `perimeter`;
where the two differ, orientation and the extent of a pixel, the functions say which is taken.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

INDEX_NAMES: tuple[str, ...] = (
    "size_mm2",
    "segment_percent",
    "perimeter_mm",
    "centroid_y_mm",
    "centroid_x_mm",
    "major_axis_mm",
    "minor_axis_mm",
    "orientation_deg",
)
"""Columns of `infarct_indices`."""

ORIENTATION = "orientation_deg"
HALF_CIRCLE_DEG = 180.0
"""After which an axis points where it did."""

ERROR_NAMES: tuple[str, ...] = (
    "size_mm2",
    "segment_percent",
    "perimeter_mm",
    "centroid_mm",
    "major_axis_mm",
    "minor_axis_mm",
    "orientation_deg",
)
"""Columns of `index_errors`."""

# Benkrid and Crookes give a border pixel the length 1, sqrt(2) or (1 + sqrt(2)) / 2, by the code
# 1 + 2 * (its face neighbours on the border) + 10 * (its corner neighbours on the border), else 0
_FACE_SHARE, _CORNER_SHARE = np.zeros((2, 50))
_FACE_SHARE[[5, 7, 15, 17, 25, 27]] = 1.0
_CORNER_SHARE[[21, 33]] = 1.0
_FACE_SHARE[[13, 23]] = _CORNER_SHARE[[13, 23]] = 0.5


def infarct_indices(
    mask: NDArray[np.bool_],
    spacing: Sequence[float] | NDArray[np.float64],
    myocardium: NDArray[np.bool_] | None = None,
    pixel_extent: float = 0.0,
) -> NDArray[np.float64]:
    """Measure the infarct in each of N slices; all its pieces count as one region.

    * size: pixels times the area of one.
    * segment percentage: pixels over those of the myocardium. Infarct outside the myocardium is
      counted, so a prediction may exceed 100.
    * perimeter: `skimage.measure.perimeter(neighborhood=4)` times the spacing. In pixels that are
      not square a step to a corner neighbour is hypot(sy, sx) long, and a step to a face neighbour
      the mean over the face neighbours that are on the border.
    * centroid: from the centre of the pixel at row 0 and column 0.
    * axes: 4 times the root of the eigenvalues of the covariance of the pixel centres (over N).
    * orientation: of the major axis to +x, counter-clockwise with y up, in (-90, 90] (MATLAB; not
      scikit-image, which measures from the rows). 0 where both axes are of one length.

    Args:
        mask: boolean (N, H, W).
        spacing: (sy, sx) in mm, or (N, 2).
        myocardium: boolean (N, H, W); without it the percentage is of the H * W pixels.
        pixel_extent: variance of one pixel of side 1 added to both variances: 0 treats pixels as
            points, as scikit-image does, 1/12 as squares, as MATLAB does.

    Returns:
        (N, 8), see `INDEX_NAMES`. An empty mask has size 0, percentage 0 and NaN for the others.
        The percentage is NaN where there is infarct but no myocardium.

    Raises:
        TypeError: a mask is not boolean.
        ValueError: shapes differ, or a spacing is not above 0.
    """
    steps = _check(mask, spacing, myocardium)
    count = mask.sum((1, 2))
    whole = mask.shape[1] * mask.shape[2] if myocardium is None else myocardium.sum((1, 2))
    with np.errstate(divide="ignore", invalid="ignore"):
        percent = np.where(count > 0, np.where(whole > 0, 100.0 * count / whole, np.nan), 0.0)
    shaped = np.stack([_perimeter(mask, steps), *_moments(mask, steps, pixel_extent)])
    shaped[:, count == 0] = np.nan
    return np.stack([count * steps.prod(1), percent, *shaped], axis=1)


def orientation_error(predicted_deg: ArrayLike, reference_deg: ArrayLike) -> NDArray[np.float64]:
    """Return the angle between two axes, min(|d|, 180 - |d|).

    Args:
        predicted_deg: degrees, any shape; a network's may lie outside (-90, 90] and is taken
            modulo 180.
        reference_deg: degrees, same shape.

    Returns:
        Degrees in [0, 90]; NaN where one is.
    """
    apart = np.abs(np.asarray(predicted_deg, float) - np.asarray(reference_deg, float)) % 180
    return np.minimum(apart, 180 - apart)


def centroid_error(predicted_mm: ArrayLike, reference_mm: ArrayLike) -> NDArray[np.float64]:
    """Return the Euclidean distance of two centroids.

    Args:
        predicted_mm: (..., 2), mm.
        reference_mm: same shape.

    Returns:
        (...), mm; NaN where one is.
    """
    gap = np.asarray(predicted_mm, float) - np.asarray(reference_mm, float)
    return np.hypot(gap[..., 0], gap[..., 1])


def index_errors(
    predicted: NDArray[np.float64], reference: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the absolute errors of the seven indices.

    Args:
        predicted: (N, 8), see `INDEX_NAMES`.
        reference: same shape.

    Returns:
        (N, 7), see `ERROR_NAMES`, in the units of the names; NaN where either is.

    Raises:
        ValueError: an array is not (N, 8), or they differ in N.
    """
    if predicted.shape != reference.shape or predicted.shape[1:] != (len(INDEX_NAMES),):
        raise ValueError(f"two arrays (N, 8), please, not {predicted.shape} and {reference.shape}")
    errors = np.abs(predicted - reference)
    centroid = centroid_error(predicted[:, 3:5], reference[:, 3:5])
    angle = orientation_error(predicted[:, 7], reference[:, 7])
    return np.column_stack([errors[:, :3], centroid, errors[:, 5:7], angle])


def _check(
    mask: NDArray[np.bool_],
    spacing: Sequence[float] | NDArray[np.float64],
    myocardium: NDArray[np.bool_] | None,
) -> NDArray[np.float64]:
    """Return the spacing as (N, 2)."""
    for given in (mask,) if myocardium is None else (mask, myocardium):
        if given.dtype != np.bool_:
            raise TypeError(f"boolean masks, please, not {given.dtype}")
        if given.ndim != 3 or given.shape != mask.shape:
            raise ValueError(f"masks are (N, H, W) of one shape, not {mask.shape}, {given.shape}")
    steps = np.asarray(spacing, dtype=float)
    if steps.shape not in {(2,), (len(mask), 2)}:
        raise ValueError(f"spacing is (2,) or ({len(mask)}, 2), not {steps.shape}")
    if not (steps > 0).all():
        raise ValueError(f"spacing {spacing} is not above 0 mm throughout")
    return np.broadcast_to(steps, (len(mask), 2))


def _perimeter(mask: NDArray[np.bool_], steps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (N,) in mm: the border is the mask less its erosion by the four face neighbours."""
    framed = np.pad(mask, ((0, 0), (1, 1), (1, 1)))
    inner = framed[:, :-2, 1:-1] & framed[:, 2:, 1:-1] & framed[:, 1:-1, :-2] & framed[:, 1:-1, 2:]
    border = np.pad(mask & ~inner, ((0, 0), (1, 1), (1, 1))).astype(np.uint8)
    beside = border[:, 1:-1, :-2] + border[:, 1:-1, 2:]
    above = border[:, :-2, 1:-1] + border[:, 2:, 1:-1]
    corners = (
        border[:, :-2, :-2] + border[:, :-2, 2:] + border[:, 2:, :-2] + border[:, 2:, 2:]
    )  # at most 4: no overflow
    code = border[:, 1:-1, 1:-1] * (1 + 2 * (beside + above) + 10 * corners)
    sy, sx = steps[:, 0, None, None], steps[:, 1, None, None]
    # every code that takes a share of a face has a face neighbour: the 1 is never used
    face = (beside * sx + above * sy) / np.maximum(beside + above, 1)
    return (_FACE_SHARE[code] * face + _CORNER_SHARE[code] * np.hypot(sy, sx)).sum((1, 2))


def _moments(
    mask: NDArray[np.bool_], steps: NDArray[np.float64], pixel_extent: float
) -> tuple[NDArray[np.float64], ...]:
    """Return centroid y and x, major and minor axis in mm and orientation in degrees, each (N,)."""
    # whole numbers: central moments are exact and do not depend on where the infarct lies
    rows, columns = np.arange(mask.shape[1]), np.arange(mask.shape[2])
    by_row, by_column = mask.sum(2), mask.sum(1)
    n = np.maximum(by_row.sum(1), 1)  # of an empty mask everything becomes NaN later
    y, x = by_row @ rows, by_column @ columns
    # of each row the sum of its columns, weighted by the row: the mixed moment in one product
    xy = (mask @ columns) @ rows
    sy, sx = steps.T
    var_y = ((n * (by_row @ rows**2) - y * y) / n**2 + pixel_extent) * sy**2
    var_x = ((n * (by_column @ columns**2) - x * x) / n**2 + pixel_extent) * sx**2
    cov = (x * y - n * xy) / n**2 * sx * sy  # y points up, rows run down
    middle, half = (var_x + var_y) / 2, np.hypot((var_x - var_y) / 2, cov)
    major, minor = (4 * np.sqrt(np.maximum(middle + sign * half, 0)) for sign in (1, -1))
    angle = np.degrees(np.arctan2(2 * cov, var_x - var_y)) / 2
    angle = np.where(angle <= -90, 90.0, angle)  # what rounding may leave at the open end
    return y / n * sy, x / n * sx, major, minor, angle
