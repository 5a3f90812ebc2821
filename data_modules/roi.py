"""Where a cine is cropped: around what beats, or around the myocardium of the reference."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from data_modules.geometry import Centre

EDGE_MM = 2.0
"""SD of the smoothing of motion and edges [inferred: less than a wall]."""
RADII_MM = (10.0, 40.0)
"""From the walls of a ventricle to its axis [inferred: small and at systole, to dilated]."""
OUTLIERS = 0.05
"""Share of the pixels whose motion counts no more than that of the others [inferred: what moves
most is often bowel, a vessel or an artefact at the rim]."""
PEAK_MM = 5.0
"""SD of the smoothing of the votes [inferred: ventricles are not round]."""


def moving_centre(frames: NDArray[np.float32], spacing: tuple[float, float]) -> Centre:
    """Find the axis of what beats, over all slices together; no reference is asked.

    The heart repeats with the beat: the first harmonic in time, temporal variance but for what
    does not follow the beat, keeps it and loses most of the noise. The centroid of that motion
    lies in the right ventricle, or wherever an artefact flickers. The left one is bright and
    round: each moving place votes for the places that lie up its edge, towards the brighter
    side, at every radius that a ventricle has; the votes of a circle meet in its centre.

    Args:
        frames: (T, S, rows, columns), phases of one beat, not all alike.
        spacing: of rows and columns in mm.

    Returns:
        Row and column in pixels.
    """
    mean = frames.mean(axis=0)
    sigma = (0.0, EDGE_MM / spacing[0], EDGE_MM / spacing[1])
    motion = ndimage.gaussian_filter(_first_harmonic(frames - mean), sigma)
    motion = (motion - np.median(motion)).clip(0)  # less that of the noise
    most = max(np.quantile(motion, 1 - OUTLIERS), OUTLIERS * motion.max())
    moving = np.nonzero(motion > most / 2)
    uphill = np.stack(
        [
            ndimage.gaussian_filter(mean, sigma, order=order)[moving] / step
            for order, step in zip(((0, 1, 0), (0, 0, 1)), spacing, strict=True)
        ]
    )
    uphill /= np.hypot(*uphill) + np.finfo(np.float32).tiny
    votes = _votes(np.stack(moving[1:]), uphill, motion[moving].clip(max=most), mean.shape, spacing)
    votes = ndimage.gaussian_filter(votes, [PEAK_MM / s for s in spacing], mode="constant")
    row, column = np.unravel_index(votes.argmax(), votes.shape)
    return float(row), float(column)


def box_centre(region: NDArray[np.bool_]) -> Centre | None:
    """Return the in-plane centre of the box around a region.

    Args:
        region: (S, rows, columns).

    Returns:
        Row and column in pixels; None where the region is empty.
    """
    if not region.any():
        return None
    rows, columns = (np.flatnonzero(region.any(axis=axes)) for axes in ((0, 2), (0, 1)))
    return (float(rows[0]) + float(rows[-1])) / 2, (float(columns[0]) + float(columns[-1])) / 2


def _first_harmonic(frames: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the amplitude (S, rows, columns) of what repeats once in the phases (T, ...)."""
    angle = 2 * np.pi * np.arange(len(frames)) / len(frames)
    waves = np.stack([np.cos(angle), np.sin(angle)]).astype(np.float32)
    return np.hypot(*np.tensordot(waves, frames, axes=(1, 0)))


def _votes(
    places: NDArray[np.intp],
    uphill: NDArray[np.float32],
    weight: NDArray[np.float32],
    shape: tuple[int, ...],
    spacing: tuple[float, float],
) -> NDArray[np.float64]:
    """Count the votes of N moving places for the pixels of a stack (S, rows, columns).

    Args:
        places: (2, N), row and column.
        uphill: (2, N), direction towards the brighter side, of length 1 in mm.
        weight: (N,), of the votes of each.
        shape: of the stack.
        spacing: of rows and columns in mm.

    Returns:
        (rows, columns).
    """
    rows, columns = shape[1:]
    step = np.asarray(spacing)[:, None]
    votes = np.zeros(rows * columns)
    for radius in np.arange(RADII_MM[0], RADII_MM[1], min(spacing)):
        row, column = np.rint(places + uphill * radius / step).astype(np.intp)
        inside = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
        votes += np.bincount(
            (row * columns + column)[inside], weight[inside], minlength=rows * columns
        )
    return votes.reshape(rows, columns)
