"""Single-frame DICOM slices to a volume: their order, their geometry, their values."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray

from cardiac_mtl.errors import UserError
from data_modules.damage import UNREADABLE, damaged

TOLERANCE = 1e-3
"""Largest difference of two slices that count as alike: mm, or units of a direction cosine."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Slice:
    """The geometry of one DICOM slice in LPS mm, read without its pixels."""

    position: NDArray[np.float64]
    axes: NDArray[np.float64]
    """(2, 3), direction along a row and along a column."""
    spacing: NDArray[np.float64]
    """Of rows and of columns."""
    size: tuple[int, int]
    """Columns and rows."""
    thickness: float

    @property
    def normal(self) -> NDArray[np.float64]:
        return np.cross(*self.axes)


def read_slices(files: Sequence[Path]) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Stack single-frame slices in the order given.

    Args:
        files: one slice each.

    Returns:
        Voxels (S, H, W), rescaled as the headers say, and the affine (4, 4) from (column, row,
        slice) to LPS mm.

    Raises:
        UserError: a file is absent or damaged, or does not continue the first.
    """
    slices = [_dicom_slice(file) for file in files]
    first = slices[0]
    for file, other in zip(files, slices, strict=True):
        _refuse_other_slice(other, first, file)
    affine = np.eye(4)
    affine[:3, :2] = first.axes.T * first.spacing[::-1]
    affine[:3, 2] = first.normal * _slice_step(slices, files[0])
    affine[:3, 3] = first.position
    return np.stack([_dicom_pixels(file) for file in files]), affine


def order_by_position(files: Sequence[Path]) -> list[Path]:
    """Sort the DICOM slices of one volume from base to apex.

    The apex of a heart in its usual place lies left, in front of and below its base: of the two
    directions of the slice normal, the one nearer to LPS (1, -1, -1) points to it.

    Args:
        files: one slice each, any order.

    Returns:
        The same files.
    """
    slices = [_dicom_slice(file) for file in files]
    normal = slices[0].normal
    towards_apex = normal * (1.0 if normal @ np.array([1.0, -1.0, -1.0]) >= 0 else -1.0)
    positions = [float(one.position @ towards_apex) for one in slices]
    return [files[k] for k in np.argsort(positions, kind="stable")]


def _dicom(file: Path, pixels: bool) -> pydicom.Dataset:
    if not file.is_file():
        raise UserError("no such file", where=str(file), fix="restore it")
    try:
        return pydicom.dcmread(file, stop_before_pixels=not pixels)
    except UNREADABLE as error:
        raise damaged(file, "is damaged or not DICOM", error) from error


def _dicom_slice(file: Path) -> _Slice:
    header = _dicom(file, pixels=False)
    try:
        missing = [
            key
            for key in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
            if not header.get(key)
        ]
        if not missing:
            return _Slice(
                np.asarray(header.ImagePositionPatient, np.float64).reshape(3),
                np.asarray(header.ImageOrientationPatient, np.float64).reshape(2, 3),
                np.asarray(header.PixelSpacing, np.float64).reshape(2),
                (int(header.Columns), int(header.Rows)),
                float(header.get("SpacingBetweenSlices") or header.get("SliceThickness") or 1.0),
            )
    except UNREADABLE as error:
        raise damaged(file, "has a damaged header", error) from error
    raise UserError(
        f"lacks {', '.join(missing)}", where=str(file), fix="export it with its geometry"
    )


def _dicom_pixels(file: Path) -> NDArray[np.float32]:
    dataset = _dicom(file, pixels=True)
    try:
        pixels = dataset.pixel_array.astype(np.float32)
        slope = float(dataset.get("RescaleSlope", 1) or 1)
        intercept = float(dataset.get("RescaleIntercept", 0) or 0)
    except UNREADABLE as error:
        raise damaged(file, "has no readable pixels", error) from error
    if pixels.ndim != 2:
        raise UserError(
            f"has {pixels.shape[0]} frames or samples a pixel",
            where=str(file),
            fix="export one grey-scale file a slice and phase",
        )
    return pixels * slope + intercept


def _refuse_other_slice(other: _Slice, first: _Slice, file: Path) -> None:
    if other.size != first.size:
        raise UserError(
            f"has {other.size[0]} x {other.size[1]} pixels, the first slice "
            f"{first.size[0]} x {first.size[1]}",
            where=str(file),
            fix="remove it from the series",
        )
    fields = {"orientation": (other.axes, first.axes), "spacing": (other.spacing, first.spacing)}
    for name, (found, expected) in fields.items():
        off = float(np.abs(found - expected).max())
        if off > TOLERANCE:
            raise UserError(
                f"its {name} differs from that of the first slice by {off:.4g}",
                where=str(file),
                fix="remove it from the series",
            )


def _slice_step(slices: Sequence[_Slice], where: Path) -> float:
    """Return the distance from one slice to the next in mm, negative against the normal."""
    if len(slices) == 1:
        return slices[0].thickness
    steps = np.diff([one.position @ slices[0].normal for one in slices])
    if abs(np.sign(steps).sum()) < len(steps) or np.abs(steps).min() < TOLERANCE:
        raise UserError(
            "the slices of its series lie twice at one place or out of order",
            where=str(where),
            fix="keep one file a slice, sorted from base to apex",
        )
    usual = float(np.sign(steps[0]) * np.sort(np.abs(steps))[(len(steps) - 1) // 2])
    off = float(np.abs(steps - usual).max())
    if off > 0.01 * abs(usual):
        _log.warning(
            "%s: slices %.4g mm apart, one step is off by %.4g: is a slice missing?",
            where.name,
            abs(usual),
            off,
        )
    return usual
