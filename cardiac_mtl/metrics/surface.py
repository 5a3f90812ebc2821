"""Distances between the surfaces of two masks, in mm: spacing is never optional (P5).

A surface voxel is a foreground voxel with a background voxel, or the border of the image, among
its face neighbours (6 in 3-D, 4 in 2-D), as SimpleITK's LabelContour and MONAI have it.
Source: SimpleITK notebook 34 (Yaniv), after its corrections of 2019 and 2022.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


class SurfaceDistances(NamedTuple):
    """From every surface voxel of one mask to the nearest surface voxel of the other, in mm."""

    predicted_to_reference: NDArray[np.float64]
    reference_to_predicted: NDArray[np.float64]

    def mean(self) -> float:
        """Return the mean surface distance, pooled over both directions; NaN without surface."""
        pooled = np.concatenate(self)
        return float(pooled.mean()) if len(pooled) else float("nan")

    def percentile(self, percent: float) -> float:
        """Return the larger of the two directed percentiles; 95 gives HD95.

        Args:
            percent: in 0..100.
        """
        if not len(self.predicted_to_reference):
            return float("nan")
        return float(max(np.percentile(directed, percent) for directed in self))


def surface_distances(
    predicted: NDArray[np.bool_], reference: NDArray[np.bool_], spacing: Sequence[float]
) -> SurfaceDistances:
    """Measure the distances between two surfaces.

    Args:
        predicted: boolean, (H, W) or (S, H, W).
        reference: boolean, same shape.
        spacing: mm between voxels, one a dimension; ones give the legacy voxel units.

    Returns:
        Both directions; empty when one of the masks is.

    Raises:
        TypeError: a mask is not boolean: probabilities have no surface (P6).
        ValueError: shapes or the number of spacings differ.
    """
    _check(predicted, reference, spacing)
    if not predicted.any() or not reference.any():
        return SurfaceDistances(np.empty(0), np.empty(0))
    box = _bounding_box(predicted | reference)
    ours, theirs = _surface(predicted[box]), _surface(reference[box])
    to_theirs = ndimage.distance_transform_edt(~theirs, sampling=spacing)
    to_ours = ndimage.distance_transform_edt(~ours, sampling=spacing)
    return SurfaceDistances(to_theirs[ours], to_ours[theirs])


def hausdorff(
    predicted: NDArray[np.bool_], reference: NDArray[np.bool_], spacing: Sequence[float]
) -> float:
    """Measure the Hausdorff distance between two masks, as SimpleITK's filter does.

    The masks are taken as sets of voxels: a voxel inside the other mask is at distance 0. Between
    their surfaces it would be larger where one mask covers a hole of the other.

    Args:
        predicted: boolean, (H, W) or (S, H, W).
        reference: boolean, same shape.
        spacing: mm between voxels, one a dimension.

    Returns:
        mm; NaN when one of the masks is empty.

    Raises:
        TypeError: a mask is not boolean (P6).
        ValueError: shapes or the number of spacings differ.
    """
    _check(predicted, reference, spacing)
    if not predicted.any() or not reference.any():
        return float("nan")
    box = _bounding_box(predicted | reference)
    pairs = ((predicted[box], reference[box]), (reference[box], predicted[box]))
    return max(
        float(ndimage.distance_transform_edt(~to, sampling=spacing)[of].max()) for of, to in pairs
    )


def _check(
    predicted: NDArray[np.bool_], reference: NDArray[np.bool_], spacing: Sequence[float]
) -> None:
    if predicted.dtype != np.bool_ or reference.dtype != np.bool_:
        raise TypeError(f"boolean masks, please, not {predicted.dtype} and {reference.dtype}")
    if predicted.shape != reference.shape or len(spacing) != predicted.ndim:
        raise ValueError(f"{predicted.shape}, {reference.shape} and spacing {spacing} do not match")


def _surface(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return mask & ~ndimage.binary_erosion(mask)


def _bounding_box(mask: NDArray[np.bool_]) -> tuple[slice, ...]:
    (box,) = ndimage.find_objects(mask.astype(np.uint8))
    return box
