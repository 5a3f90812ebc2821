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
from scipy.spatial import cKDTree


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

    def within(self, tolerance: float) -> float:
        """Return the share of surface voxels, of both masks, that lie within a tolerance.

        Args:
            tolerance: mm, inclusive.

        Source: the surface Dice of Nikolov et al. 2021, voxels counted as MONAI does.
        """
        pooled = np.concatenate(self[:2])
        return float((pooled <= tolerance).mean()) if len(pooled) else float("nan")

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
    box = bounding_box(predicted | reference)
    predicted, reference = predicted[box], reference[box]
    ours, theirs = _surface(predicted), _surface(reference)
    there = _directed(predicted, ours, reference, theirs, spacing)
    back = _directed(reference, theirs, predicted, ours, spacing)
    return SurfaceDistances(there.surface, back.surface, max(there.farthest, back.farthest))


def slice_surface_distances(
    predicted: NDArray[np.bool_], reference: NDArray[np.bool_], spacing: Sequence[float]
) -> list[SurfaceDistances]:
    """Measure every slice of a volume by itself, in plane.

    Args:
        predicted: boolean (S, H, W).
        reference: boolean, same shape.
        spacing: mm between rows and between columns.

    Returns:
        What `surface_distances` gives for each slice, several times faster: the slices are laid
        so far apart that the nearest voxel is always one of the same slice.

    Raises:
        TypeError: a mask is not boolean.
        ValueError: shapes differ, or a spacing is not above 0.
    """
    _check(predicted, reference, [1.0, *spacing])
    found = [SurfaceDistances(np.empty(0), np.empty(0), float("nan"))] * len(predicted)
    both = np.flatnonzero(predicted.any(axis=(1, 2)) & reference.any(axis=(1, 2)))
    if not len(both):
        return found
    predicted, reference = predicted[both], reference[both]
    box = bounding_box(predicted | reference)
    predicted, reference = predicted[box], reference[box]
    ours, theirs = (_surface(mask, in_plane=True) for mask in (predicted, reference))
    apart = 2 * float(np.hypot(*(n * s for n, s in zip(predicted.shape[1:], spacing, strict=True))))
    steps = [apart, *spacing]
    there = _directed(predicted, ours, reference, theirs, steps).split(len(both))
    back = _directed(reference, theirs, predicted, ours, steps).split(len(both))
    for k, ahead, behind in zip(both.tolist(), there, back, strict=True):
        farthest = max(ahead.farthest, behind.farthest)
        found[k] = SurfaceDistances(ahead.surface, behind.surface, farthest)
    return found


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


class _Directed(NamedTuple):
    """From one mask to the other."""

    surface: NDArray[np.float64]
    """Of each surface voxel, to the nearest one of the other surface, mm."""
    at: NDArray[np.intp]
    """First index of each surface voxel."""
    outside: NDArray[np.float64]
    """Of each voxel that the other mask lacks, mm."""
    outside_at: NDArray[np.intp]

    @property
    def farthest(self) -> float:
        return float(self.outside.max(initial=0.0))

    def split(self, count: int) -> list["_Directed"]:
        """Return one part for each value of the first index."""
        inner, outer = (np.searchsorted(at, range(1, count)) for at in (self.at, self.outside_at))
        parts = (
            np.split(array, where)
            for array, where in zip(self, (inner, inner, outer, outer), strict=True)
        )
        return [_Directed(*part) for part in zip(*parts, strict=True)]


def _directed(
    mask: NDArray[np.bool_],
    surface: NDArray[np.bool_],
    other: NDArray[np.bool_],
    other_surface: NDArray[np.bool_],
    spacing: Sequence[float],
) -> _Directed:
    """Ask a tree for what is not 0 by itself; two good masks share most of their voxels.

    Outside the other mask its nearest voxel is one of its surface: one tree serves both measures.
    """
    outside = mask & ~other
    asked = outside | (surface & ~other_surface)
    distances = np.zeros(mask.shape)
    if asked.any():
        # a balanced tree takes twice the time to build and answers no faster
        tree = cKDTree(
            np.argwhere(other_surface) * spacing, balanced_tree=False, compact_nodes=False
        )
        distances[asked] = tree.query(np.argwhere(asked) * spacing)[0]
    return _Directed(
        distances[surface], np.nonzero(surface)[0], distances[outside], np.nonzero(outside)[0]
    )


def _surface(mask: NDArray[np.bool_], *, in_plane: bool = False) -> NDArray[np.bool_]:
    """Return the voxels that touch the background; what lies beyond the image is background."""
    inner = mask.copy()
    for axis in range(1 if in_plane else 0, mask.ndim):
        ahead, behind = np.moveaxis(inner, axis, 0), np.moveaxis(mask, axis, 0)
        ahead[1:] &= behind[:-1]
        ahead[:-1] &= behind[1:]
        ahead[0] = ahead[-1] = False
    return mask & ~inner


def bounding_box(mask: NDArray[np.bool_]) -> tuple[slice, ...]:
    """Return the smallest box around what is true in a mask, which must not be empty."""
    box = []
    for axis in range(mask.ndim):
        held = np.flatnonzero(mask.any(axis=tuple(k for k in range(mask.ndim) if k != axis)))
        box.append(slice(int(held[0]), int(held[-1]) + 1))
    return tuple(box)
