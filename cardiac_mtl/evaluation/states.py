"""The four states of a structure, and what each scores: a miss is never dropped (P1)."""

import math
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cardiac_mtl.metrics.overlap import dice, jaccard
from cardiac_mtl.metrics.surface import surface_distances

State = Literal["ok", "missed", "false_positive", "both_empty"]


class Scores(NamedTuple):
    """What one structure scores in one slice or volume."""

    state: State
    dice: float
    jaccard: float
    msd_mm: float
    msd_voxels: float
    hd_mm: float


def state_of(predicted: NDArray[np.bool_], reference: NDArray[np.bool_]) -> State:
    """Say which of the two masks are there."""
    if reference.any():
        return "ok" if predicted.any() else "missed"
    return "false_positive" if predicted.any() else "both_empty"


def score_masks(
    predicted: NDArray[np.bool_], reference: NDArray[np.bool_], spacing: tuple[float, ...]
) -> Scores:
    """Score a predicted mask.

    Args:
        predicted: boolean (H, W) or (S, H, W).
        reference: boolean, same shape.
        spacing: mm between voxels, one a dimension.

    Returns:
        Measures where both masks are there. A miss and a false positive score the worst there
        is: overlap 0, and as distance the diagonal of the image. Where both masks are empty
        nothing is defined: NaN, which the tables leave out of means and count.
    """
    state = state_of(predicted, reference)
    if state == "both_empty":
        return Scores(state, *[math.nan] * 5)
    if state != "ok":
        diagonal = math.hypot(*(n * s for n, s in zip(predicted.shape, spacing, strict=True)))
        return Scores(state, 0.0, 0.0, diagonal, math.hypot(*predicted.shape), diagonal)
    distances = surface_distances(predicted, reference, spacing)
    in_voxels = surface_distances(predicted, reference, [1.0] * predicted.ndim)
    return Scores(
        state,
        dice(predicted, reference),
        jaccard(predicted, reference),
        distances.mean(),
        in_voxels.mean(),
        distances.hausdorff,
    )
