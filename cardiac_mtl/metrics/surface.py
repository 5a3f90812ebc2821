"""Distances between the surfaces of two masks, in mm: spacing is never optional (P5).

A surface voxel is a foreground voxel with a background voxel, or the border of the image, among
its face neighbours (6 in 3-D, 4 in 2-D), as MONAI has it. SimpleITK's LabelContour takes the same
voxels of a mask that keeps clear of the border, but none at the border itself: a heart that runs
through the whole stack would lose its first and last slice. Pad the image to have both agree.
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
    hausdorff: float
    """Between the masks as sets of voxels, see `hausdorff`."""

    def mean(self) -> float:
        """Return the mean surface distance, pooled over both directions; NaN without surface."""
        pooled = np.concatenate(self[:2])
        return float(pooled.mean()) if len(pooled) else float("nan")

    def percentile(self, percent: float) -> float:
        """Return the larger of the two directed percentiles between surfaces; 95 gives HD95.

        Args:
            percent: in 0..100.
        """
        if not len(self.predicted_to_reference):
            return float("nan")
        return float(max(np.percentile(directed, percent) for directed in self[:2]))


def surface_distances(
    predicted: NDArray[np.bool_], reference: NDArray[np.bool_], spacing: Sequence[float]
) -> SurfaceDistances:
    """Measure the distances between two surfaces.

    Args:
        predicted: boolean, (H, W) or (S, H, W).
        reference: boolean, same shape.
        spacing: mm between voxels, one a dimension; ones give the legacy voxel units.

    Returns:
        Both directions, empty when one of the masks is, and the Hausdorff distance.

    Raises:
        TypeError: a mask is not boolean: probabilities have no surface (P6).
        ValueError: shapes or the number of spacings differ, or a spacing is not above 0.
    """
    _check(predicted, reference, spacing)
    if not predicted.any() or not reference.any():
        return SurfaceDistances(np.empty(0), np.empty(0), float("nan"))
    box = _bounding_box(predicted | reference)
    predicted, reference = predicted[box], reference[box]
    ours, theirs = _surface(predicted), _surface(reference)
    to_theirs = ndimage.distance_transform_edt(~theirs, sampling=spacing)
    to_ours = ndimage.distance_transform_edt(~ours, sampling=spacing)
    # outside a mask its nearest voxel is one of its surface: the same maps serve both measures
    farthest = max(
        to_theirs[predicted & ~reference].max(initial=0.0),
        to_ours[reference & ~predicted].max(initial=0.0),
    )
    return SurfaceDistances(to_theirs[ours], to_ours[theirs], float(farthest))


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
        ValueError: shapes or the number of spacings differ, or a spacing is not above 0.
    """
    return surface_distances(predicted, reference, spacing).hausdorff


def _check(
    predicted: NDArray[np.bool_], reference: NDArray[np.bool_], spacing: Sequence[float]
) -> None:
    if predicted.dtype != np.bool_ or reference.dtype != np.bool_:
        raise TypeError(f"boolean masks, please, not {predicted.dtype} and {reference.dtype}")
    if predicted.shape != reference.shape or len(spacing) != predicted.ndim:
        raise ValueError(f"{predicted.shape}, {reference.shape} and spacing {spacing} do not match")
    if not all(step > 0 for step in spacing):
        raise ValueError(f"spacing {spacing} is not above 0 mm throughout")


def _surface(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return mask & ~ndimage.binary_erosion(mask)


def _bounding_box(mask: NDArray[np.bool_]) -> tuple[slice, ...]:
    (box,) = ndimage.find_objects(mask.astype(np.uint8))
    return box
