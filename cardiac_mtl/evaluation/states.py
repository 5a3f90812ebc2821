"""The four states of a structure, and what each scores: a miss is never dropped (P1)."""

import math
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cardiac_mtl.metrics.overlap import dice, jaccard, pixel_measures
from cardiac_mtl.metrics.surface import (
    SurfaceDistances,
    bounding_box,
    slice_surface_distances,
    surface_distances,
)

State = Literal["ok", "missed", "false_positive", "both_empty", "not_predicted"]
TOLERANCE_MM = 2.0
"""Of the surface Dice unless another is asked for: more than one pixel of cine, less than two."""


class Scores(NamedTuple):
    """What one structure scores in one slice or volume."""

    state: State
    dice: float
    jaccard: float
    accuracy: float
    sensitivity: float
    specificity: float
    precision: float
    msd_mm: float
    msd_voxels: float
    hd_mm: float
    hd95_mm: float
    surface_dice: float


def state_of(predicted: NDArray[np.bool_], reference: NDArray[np.bool_]) -> State:
    """Say which of the two masks are there."""
    if reference.any():
        return "ok" if predicted.any() else "missed"
    return "false_positive" if predicted.any() else "both_empty"


def score_masks(
    predicted: NDArray[np.bool_],
    reference: NDArray[np.bool_],
    spacing: tuple[float, ...],
    tolerance_mm: float = TOLERANCE_MM,
    known: NDArray[np.bool_] | None = None,
) -> Scores:
    """Score a predicted mask.

    Args:
        predicted: boolean (H, W) or (S, H, W).
        reference: boolean, same shape.
        spacing: mm between voxels, one a dimension.
        tolerance_mm: of the surface Dice.
        known: (S,), the slices that are annotated, at least one; the others hold nothing, and
            those between keep their place: distances reach across them. All without it.

    Returns:
        Measures where both masks are there. A miss and a false positive score the worst there
        is: 0 for what grows with agreement, and as distance the diagonal of the image; accuracy
        and specificity stay as counted. Where both masks are empty nothing is defined: NaN, which
        the tables leave out of means and count.
    """
    known = np.ones(len(predicted), bool) if known is None else known
    (span,) = bounding_box(known)
    seen = known[span].reshape(-1, *[1] * (predicted.ndim - 1))
    found, true = predicted[span] & seen, reference[span] & seen
    in_mm = surface_distances(found, true, spacing)
    in_voxels = surface_distances(found, true, [1.0] * predicted.ndim)
    diagonals = _diagonals(found.shape, spacing)
    return _scores(predicted[known], reference[known], diagonals, tolerance_mm, in_mm, in_voxels)


def score_slices(
    predicted: NDArray[np.bool_],
    reference: NDArray[np.bool_],
    spacing: tuple[float, float],
    tolerance_mm: float = TOLERANCE_MM,
) -> list[Scores]:
    """Score every slice of a volume by itself, as `score_masks` would, in one go.

    Args:
        predicted: boolean (S, H, W).
        reference: boolean, same shape.
        spacing: mm between rows and between columns.
        tolerance_mm: of the surface Dice.
    """
    in_mm = slice_surface_distances(predicted, reference, spacing)
    in_voxels = slice_surface_distances(predicted, reference, [1.0, 1.0])
    diagonals = _diagonals(predicted.shape[1:], spacing)
    return [
        _scores(predicted[k], reference[k], diagonals, tolerance_mm, in_mm[k], in_voxels[k])
        for k in range(len(predicted))
    ]


def _scores(
    predicted: NDArray[np.bool_],
    reference: NDArray[np.bool_],
    diagonals: tuple[float, float],
    tolerance_mm: float,
    in_mm: SurfaceDistances,
    in_voxels: SurfaceDistances,
) -> Scores:
    state = state_of(predicted, reference)
    if state == "both_empty":
        return NOT_SCORED._replace(state=state)
    pixels = pixel_measures(predicted, reference)
    if state != "ok":
        diagonal, in_steps = diagonals
        return Scores(
            state,
            dice=0.0,
            jaccard=0.0,
            accuracy=pixels.accuracy,
            sensitivity=0.0,
            specificity=pixels.specificity,
            precision=0.0,
            msd_mm=diagonal,
            msd_voxels=in_steps,
            hd_mm=diagonal,
            hd95_mm=diagonal,
            surface_dice=0.0,
        )
    return Scores(
        state,
        dice(predicted, reference),
        jaccard(predicted, reference),
        *pixels,
        msd_mm=in_mm.mean(),
        msd_voxels=in_voxels.mean(),
        hd_mm=in_mm.hausdorff,
        hd95_mm=in_mm.percentile(95),
        surface_dice=in_mm.within(tolerance_mm),
    )


def _diagonals(shape: tuple[int, ...], spacing: tuple[float, ...]) -> tuple[float, float]:
    """Return that of an image in mm, and in voxels."""
    return math.hypot(*(n * s for n, s in zip(shape, spacing, strict=True))), math.hypot(*shape)


NOT_SCORED = Scores("both_empty", *[math.nan] * (len(Scores._fields) - 1))
"""Every measure undefined."""
