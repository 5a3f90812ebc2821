"""Between the geometry of a file and the prepared grid: one resampling each way."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from cardiac_mtl.contracts import UNLABELLED

Normalise = Literal["volume", "slice"]
"""Over which voxels an image is brought to mean 0 and SD 1."""
Centre = tuple[float, float]
"""Row and column within a volume, in pixels; whole numbers are centres of pixels."""
ALIKE = 0.8
"""Least length of the mean of directions that count as alike; of 1 where they are the same."""
Spacing = float | tuple[float, float]
"""In plane, in mm: of square pixels, or of rows and columns."""


class PreparedInput(NamedTuple):
    """An image on the prepared grid, with what `restore` needs on the way back."""

    image: NDArray[np.float32]
    """(S, H, W), or (S, T, H, W) of a cine; slices in the order of the file."""
    volume: sitk.Image
    """As the file has it, phase 0 of a cine."""
    spacing: tuple[float, float]
    """Of rows and columns of the grid in mm."""
    centre: Centre | None = None
    """Of the grid, within the volume; None for the centre of the volume."""


def prepared_grid(
    image: sitk.Image, matrix: tuple[int, int], spacing_mm: Spacing, centre: Centre | None = None
) -> sitk.Image:
    """Return an empty grid around a place in a volume, its slices untouched.

    Args:
        image: volume whose first two axes lie in plane.
        matrix: rows and columns of the grid.
        spacing_mm: in-plane spacing of the grid.
        centre: the in-plane centre of the volume without it.

    Returns:
        An image of zeros that serves as reference of a resampling: what lies outside the
        matrix is cropped, what the volume does not reach is padded.
    """
    columns, rows, slices = image.GetSize()
    grid = sitk.Image([matrix[1], matrix[0], slices], sitk.sitkUInt8)
    grid.SetDirection(image.GetDirection())
    row_mm, column_mm = rows_and_columns(spacing_mm)
    grid.SetSpacing([column_mm, row_mm, image.GetSpacing()[2]])
    row, column = ((rows - 1) / 2, (columns - 1) / 2) if centre is None else centre
    middle = image.TransformContinuousIndexToPhysicalPoint([column, row, 0.0])
    half = grid.TransformContinuousIndexToPhysicalPoint(
        [(matrix[1] - 1) / 2, (matrix[0] - 1) / 2, 0.0]
    )
    grid.SetOrigin([m - h for m, h in zip(middle, half, strict=True)])
    return grid


def rows_and_columns(spacing_mm: Spacing) -> tuple[float, float]:
    """Return the spacing of rows and that of columns."""
    return spacing_mm if isinstance(spacing_mm, tuple) else (spacing_mm, spacing_mm)


def prepare_image(
    image: sitk.Image,
    matrix: tuple[int, int],
    spacing_mm: Spacing,
    normalise: Normalise | None = "volume",
    centre: Centre | None = None,
) -> NDArray[np.float32]:
    """Normalise a volume to mean 0 and SD 1 and resample it linearly in plane.

    Args:
        image: volume, any intensity unit.
        matrix: rows and columns of the result.
        spacing_mm: in-plane spacing of the result.
        normalise: over the whole volume, or over each slice, where slices differ in brightness;
            None leaves the values as they are.
        centre: of the result, within the image; that of the image without it.

    Returns:
        (S, H, W); 0, the mean, where the volume does not reach.
    """
    voxels = sitk.GetArrayFromImage(image).astype(np.float32, copy=False)
    whole = [voxels] if normalise else []
    for part in voxels if normalise == "slice" else whole:
        part -= part.mean(dtype=np.float64).astype(np.float32)  # noqa: PLW2901 - in place
        # of values about 0, so that a sum in single precision is exact enough
        part /= max(float(np.vdot(part, part) / part.size) ** 0.5, 1e-6)  # noqa: PLW2901
    rows, columns = _samples(image, prepared_grid(image, matrix, spacing_mm, centre))
    return _lerp(_lerp(voxels, rows, axis=1), columns, axis=2)


def prepare_foreground(
    image: sitk.Image,
    matrix: tuple[int, int],
    spacing_mm: Spacing,
    normalise: Normalise,
    centre: Centre | None = None,
) -> NDArray[np.float32]:
    """Resample a volume linearly in plane, then bring its foreground to mean 0 and SD 1.

    Air around the body, and what a scanner set to 0, count for neither mean nor SD.

    Args:
        image: volume, whole numbers as intensities.
        matrix: rows and columns of the result.
        spacing_mm: in-plane spacing of the result.
        normalise: over the foreground of the whole crop, or of each slice of it.
        centre: of the result, within the image; that of the image without it.

    Returns:
        (S, H, W); 0, the mean, where the volume does not reach.
    """
    voxels = sitk.GetArrayFromImage(image).astype(np.float32, copy=False)
    rows, columns = _samples(image, prepared_grid(image, matrix, spacing_mm, centre))
    prepared = _lerp(_lerp(voxels, rows, axis=1), columns, axis=2)
    reached = np.outer(rows.inside, columns.inside)
    for part in prepared if normalise == "slice" else [prepared]:
        held = part[_foreground(part) & reached]
        # intensities all below 1: nothing tells the body from the air
        seen = held if held.size else part[..., reached]
        part -= seen.mean(dtype=np.float64).astype(np.float32)  # noqa: PLW2901 - in place
        part /= max(float(seen.std(dtype=np.float64)), 1e-6)  # noqa: PLW2901
    prepared *= reached
    return prepared


def _foreground(image: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return where a slice, or each slice of a stack, is at least 1, its holes filled."""
    slices = image.reshape(-1, *image.shape[-2:])
    filled = np.stack([ndimage.binary_fill_holes(one >= 1) for one in slices])
    return filled.reshape(image.shape)


def prepare_frames(
    frames: NDArray[np.float32],
    image: sitk.Image,
    matrix: tuple[int, int],
    spacing_mm: Spacing,
    centre: Centre,
    count: int,
) -> NDArray[np.float32]:
    """Resample a cine linearly in plane and in time, then normalise each slice over its phases.

    Args:
        frames: (T, S, rows, columns), any intensity unit.
        image: gives their geometry.
        matrix: rows and columns of the result.
        spacing_mm: in-plane spacing of the result.
        centre: of the result, within the image.
        count: phases of the result, see `resample_beat`.

    Returns:
        (S, count, H, W): of each slice, what the image reaches has mean 0 and SD 1 over all
        phases; 0, the mean, is where it does not reach.
    """
    rows, columns = _samples(image, prepared_grid(image, matrix, spacing_mm, centre))
    in_plane = _lerp(_lerp(frames, rows, axis=-2), columns, axis=-1)
    prepared = np.ascontiguousarray(resample_beat(in_plane, count).swapaxes(0, 1))
    reached = np.outer(rows.inside, columns.inside)
    seen = prepared[..., reached]
    mean = seen.mean(axis=(1, 2), dtype=np.float64)
    sd = seen.std(axis=(1, 2), dtype=np.float64).clip(min=1e-6)
    prepared -= mean.astype(np.float32)[:, None, None, None]
    prepared /= sd.astype(np.float32)[:, None, None, None]
    prepared *= reached
    return prepared


def resample_beat(frames: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """Interpolate the phases of a heart beat linearly in time.

    A cine spreads its phases evenly over one beat, so that phase T would be phase 0 of the next:
    what lies after the last phase is interpolated between it and the first.

    Args:
        frames: (T, ...).
        count: of the phases wanted, the first of which is phase 0.

    Returns:
        (count, ...); the frames themselves where there are as many.
    """
    stored = len(frames)
    if stored == count:
        return frames
    # in whole numbers: where a phase meets a stored one, it is that one
    before, parts = np.divmod(np.arange(count) * stored, count)
    weight = (parts / count).astype(np.float32).reshape(-1, *[1] * (frames.ndim - 1))
    after = frames[(before + 1) % stored]
    return frames[before] * (1 - weight) + after * weight


def prepare_mask(
    mask: sitk.Image, matrix: tuple[int, int], spacing_mm: Spacing, centre: Centre | None = None
) -> NDArray[np.int8]:
    """Resample a mask to the prepared grid by nearest neighbour.

    Args:
        mask: class of each voxel, `UNLABELLED` on slices without annotation.
        matrix: rows and columns of the result.
        spacing_mm: in-plane spacing of the result.
        centre: of the result, within the mask; that of the mask without it.

    Returns:
        (S, H, W); background where the volume does not reach, except on slices without
        annotation, which stay `UNLABELLED` throughout.
    """
    voxels = sitk.GetArrayFromImage(mask).astype(np.int8)
    rows, columns = _samples(mask, prepared_grid(mask, matrix, spacing_mm, centre))
    prepared = voxels[:, rows.nearest][:, :, columns.nearest]
    prepared[:, ~rows.inside] = 0
    prepared[:, :, ~columns.inside] = 0
    prepared[(voxels == UNLABELLED).all(axis=(1, 2))] = UNLABELLED
    return prepared


class _Samples(NamedTuple):
    """Where the pixels of a grid lie along one axis of the volume that it was laid over."""

    lower: NDArray[np.intp]
    upper: NDArray[np.intp]
    weight: NDArray[np.float32]
    """Of `upper`."""
    nearest: NDArray[np.intp]
    inside: NDArray[np.bool_]


def _samples(image: sitk.Image, grid: sitk.Image) -> tuple[_Samples, _Samples]:
    """Return rows and columns. Both grids share axes and slices, so each axis stands alone.

    That is four times faster than a resampling filter, which follows every pixel through space.
    """
    first = image.TransformPhysicalPointToContinuousIndex(grid.GetOrigin())
    found = []
    for axis in (1, 0):
        step = grid.GetSpacing()[axis] / image.GetSpacing()[axis]
        place, last = (
            first[axis] + step * np.arange(grid.GetSize()[axis]),
            image.GetSize()[axis] - 1,
        )
        whole = np.rint(place)  # what lies on a pixel, but for rounding, takes its value exactly
        place = np.where(np.abs(place - whole) < 1e-6, whole, place)
        lower = np.floor(place)
        found.append(
            _Samples(
                lower=lower.clip(0, last).astype(np.intp),
                upper=(lower + 1).clip(0, last).astype(np.intp),
                weight=(place - lower).astype(np.float32),
                nearest=np.floor(place + 0.5).clip(0, last).astype(np.intp),
                inside=(place >= -0.5) & (place < last + 0.5),
            )
        )
    return found[0], found[1]


def _lerp(voxels: NDArray[np.float32], at: _Samples, axis: int) -> NDArray[np.float32]:
    """Interpolate linearly along one axis; 0 where the volume does not reach."""
    shape = [1] * voxels.ndim
    shape[axis] = -1
    lower, upper = voxels.take(at.lower, axis), voxels.take(at.upper, axis)
    upper -= lower
    upper *= at.weight.reshape(shape)
    lower += upper
    lower *= at.inside.reshape(shape)
    return lower


def first_pixel(
    image: sitk.Image, matrix: tuple[int, int], spacing_mm: Spacing, centre: Centre
) -> tuple[float, float]:
    """Return row and column of the first pixel of a prepared grid, in mm from that of the file.

    Args:
        image: the volume that is prepared.
        matrix: rows and columns of the grid.
        spacing_mm: in-plane spacing of the grid.
        centre: of the grid, row and column in pixels of the file.
    """
    column_mm, row_mm, _ = image.GetSpacing()
    grid = rows_and_columns(spacing_mm)
    row, column = (
        place * step - (count - 1) / 2 * of_grid
        for place, step, count, of_grid in zip(
            centre, (row_mm, column_mm), matrix, grid, strict=True
        )
    )
    return row, column


def cut_slices(
    mask: NDArray[np.uint8], image: sitk.Image, spacing_mm: Spacing, centre: Centre | None = None
) -> list[int]:
    """Return the slices whose mask ends where the prepared grid does, though the image goes on.

    Args:
        mask: (S, H, W), above 0 inside, on the prepared grid.
        image: the volume that was prepared.
        spacing_mm: in-plane spacing of the prepared grid.
        centre: of the prepared grid, as it was prepared.
    """
    height, width = mask.shape[1:]
    rows, columns = _samples(image, prepared_grid(image, (height, width), spacing_mm, centre))
    last_column, last_row, _ = (n - 1 for n in image.GetSize())
    borders = [
        (rows.nearest[0] > 0, mask[:, 0]),
        (rows.nearest[-1] < last_row, mask[:, -1]),
        (columns.nearest[0] > 0, mask[:, :, 0]),
        (columns.nearest[-1] < last_column, mask[:, :, -1]),
    ]
    cut = np.zeros(len(mask), bool)
    for goes_on, border in borders:
        if goes_on:
            cut |= border.any(axis=1)
    return np.flatnonzero(cut).tolist()


def apex_first(image: sitk.Image) -> bool:
    """Say whether the header of a volume has its first slice nearer to the apex than its last.

    The apex of a heart in its usual place lies left, in front of and below its base. A stack
    along an axis of the body is no short axis: its header was lost or made up, and the order of
    the file is taken as base to apex.
    """
    columns = np.asarray(image.GetDirection()).reshape(3, 3)
    normal = columns[:, 2]
    return bool(not _along_the_body(normal) and normal @ [1.0, -1.0, -1.0] < 0)


def _along_the_body(normal: NDArray[np.float64]) -> bool:
    return bool(np.abs(normal).max() > 0.99)


def usual_axes(axes: Sequence[NDArray[np.float64]]) -> NDArray[np.float64] | None:
    """Return how the images of a data set lie in the body, as a network comes to expect them.

    Args:
        axes: (2, 3) of each image, along a row and along a column, in LPS.

    Returns:
        Their mean (2, 3); None where they differ, or where the headers do not tell.
    """
    told = [one for one in axes if not _along_the_body(np.cross(*one))]
    if not told:
        return None
    mean = np.mean(told, axis=0)
    return mean if np.linalg.norm(mean, axis=1).min() > ALIKE else None


def turn_against(image: sitk.Image, axes: NDArray[np.float64]) -> tuple[bool, float] | None:
    """Compare how a volume lies in the body with how others do.

    Args:
        image: the volume.
        axes: of the others, see `usual_axes`.

    Returns:
        Whether it is mirrored, and if not by how many degrees it is turned in plane; None where
        the header does not tell.
    """
    columns = np.asarray(image.GetDirection()).reshape(3, 3)
    if _along_the_body(columns[:, 2]):
        return None
    shared = axes @ columns[:, :2]
    turn = np.arctan2(shared[1, 0] - shared[0, 1], shared[0, 0] + shared[1, 1])
    return bool(np.linalg.det(shared) < 0), abs(float(np.degrees(turn)))


def restore(
    prepared: NDArray[np.float32],
    like: sitk.Image,
    spacing_mm: Spacing,
    centre: Centre | None = None,
) -> NDArray[np.float32]:
    """Bring a map from the prepared grid back to the grid of the file, linearly.

    Args:
        prepared: (S, H, W), such as the probability of a class.
        like: the volume that was prepared.
        spacing_mm: in-plane spacing of the prepared grid.
        centre: of the prepared grid, as it was prepared.

    Returns:
        (S, rows, columns) of `like`; 0 where the prepared grid does not reach.
    """
    image = sitk.GetImageFromArray(prepared)
    rows, columns = prepared.shape[1:]
    image.CopyInformation(prepared_grid(like, (rows, columns), spacing_mm, centre))
    return _resample(image, like, sitk.sitkLinear, 0.0)


def _resample(
    image: sitk.Image, grid: sitk.Image, interpolator: int, outside: float
) -> NDArray[np.float32]:
    resampled = sitk.Resample(image, grid, sitk.Transform(), interpolator, outside)
    # SimpleITK computes with Python numbers in double precision
    return np.asarray(sitk.GetArrayFromImage(resampled), dtype=np.float32)
