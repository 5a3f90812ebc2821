"""Between the geometry of a file and the prepared grid: one resampling each way."""

from typing import Literal

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from cardiac_mtl.contracts import UNLABELLED

Normalise = Literal["volume", "slice"]
"""Over which voxels an image is brought to mean 0 and SD 1."""


def prepared_grid(image: sitk.Image, matrix: tuple[int, int], spacing_mm: float) -> sitk.Image:
    """Return an empty grid around the in-plane centre of a volume, its slices untouched.

    Args:
        image: volume whose first two axes lie in plane.
        matrix: rows and columns of the grid.
        spacing_mm: in-plane spacing of the grid.

    Returns:
        An image of zeros that serves as reference of a resampling: what lies outside the
        matrix is cropped, what the volume does not reach is padded.
    """
    columns, rows, slices = image.GetSize()
    grid = sitk.Image([matrix[1], matrix[0], slices], sitk.sitkUInt8)
    grid.SetDirection(image.GetDirection())
    grid.SetSpacing([spacing_mm, spacing_mm, image.GetSpacing()[2]])
    centre = image.TransformContinuousIndexToPhysicalPoint([(columns - 1) / 2, (rows - 1) / 2, 0.0])
    half = grid.TransformContinuousIndexToPhysicalPoint(
        [(matrix[1] - 1) / 2, (matrix[0] - 1) / 2, 0.0]
    )
    grid.SetOrigin([c - h for c, h in zip(centre, half, strict=True)])
    return grid


def prepare_image(
    image: sitk.Image,
    matrix: tuple[int, int],
    spacing_mm: float,
    normalise: Normalise = "volume",
) -> NDArray[np.float32]:
    """Normalise a volume to mean 0 and SD 1 and resample it linearly in plane.

    Args:
        image: volume, any intensity unit.
        matrix: rows and columns of the result.
        spacing_mm: in-plane spacing of the result.
        normalise: over the whole volume, or over each slice, where slices differ in brightness.

    Returns:
        (S, H, W); 0, the mean, where the volume does not reach.
    """
    voxels = sitk.GetArrayFromImage(image).astype(np.float32)
    axes = (1, 2) if normalise == "slice" else None
    mean = voxels.mean(axis=axes, keepdims=True, dtype=np.float64)
    deviation = voxels.std(axis=axes, keepdims=True, dtype=np.float64)
    normalised = sitk.GetImageFromArray(
        ((voxels - mean) / np.maximum(deviation, 1e-6)).astype(np.float32)
    )
    normalised.CopyInformation(image)
    return _resample(normalised, prepared_grid(image, matrix, spacing_mm), sitk.sitkLinear, 0.0)


def prepare_mask(mask: sitk.Image, matrix: tuple[int, int], spacing_mm: float) -> NDArray[np.int8]:
    """Resample a mask to the prepared grid by nearest neighbour.

    Args:
        mask: class of each voxel, `UNLABELLED` on slices without annotation.
        matrix: rows and columns of the result.
        spacing_mm: in-plane spacing of the result.

    Returns:
        (S, H, W); background where the volume does not reach, except on slices without
        annotation, which stay `UNLABELLED` throughout.
    """
    grid = prepared_grid(mask, matrix, spacing_mm)
    prepared = _resample(mask, grid, sitk.sitkNearestNeighbor, 0.0).astype(np.int8)
    unknown = (sitk.GetArrayViewFromImage(mask) == UNLABELLED).all(axis=(1, 2))
    prepared[unknown] = UNLABELLED
    return prepared


def restore(
    prepared: NDArray[np.float32], like: sitk.Image, spacing_mm: float
) -> NDArray[np.float32]:
    """Bring a map from the prepared grid back to the grid of the file, linearly.

    Args:
        prepared: (S, H, W), such as the probability of a class.
        like: the volume that was prepared.
        spacing_mm: in-plane spacing of the prepared grid.

    Returns:
        (S, rows, columns) of `like`; 0 where the prepared grid does not reach.
    """
    image = sitk.GetImageFromArray(prepared)
    rows, columns = prepared.shape[1:]
    image.CopyInformation(prepared_grid(like, (rows, columns), spacing_mm))
    return _resample(image, like, sitk.sitkLinear, 0.0)


def _resample(
    image: sitk.Image, grid: sitk.Image, interpolator: int, outside: float
) -> NDArray[np.float32]:
    resampled = sitk.Resample(image, grid, sitk.Transform(), interpolator, outside)
    # SimpleITK computes with Python numbers in double precision
    return np.asarray(sitk.GetArrayFromImage(resampled), dtype=np.float32)
