"""Files to volumes with a true geometry, and every way that can go wrong named in one line."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from cardiac_mtl.errors import UserError
from data_modules.dicom import read_frames
from data_modules.findings import notice
from data_modules.nifti import (
    affine_of_nifti,
    load_nifti,
    read_nifti,
    read_nifti_phases,
    shape_of_nifti,
)
from data_modules.series import count_phases, phases_of_folder, read_phases, read_slices, size_of

TOLERANCE = 1e-3
"""Largest difference of two geometries that count as one: mm, or units of a direction cosine."""
BETWEEN_SLICES = 2.5
"""By how much slices lie further apart than pixels, at least, to tell which axis counts them."""
_NIFTI = re.compile(r"\.nii(?:\.gz)?$", re.IGNORECASE)


def named_nifti(path: Path) -> bool:
    """Say whether the name ends as that of a NIfTI file, in capitals too, as Windows has them."""
    return _NIFTI.search(path.name) is not None


def is_nifti(path: Path) -> bool:
    """Say whether a file is a NIfTI file by its name; not `._*`, which macOS leaves in archives."""
    return named_nifti(path) and not path.name.startswith(".")


def stem_of(path: Path) -> str:
    """Return the name of a file without the ending of NIfTI.

    Examples:
        >>> stem_of(Path("p7_mask.nii.gz")), stem_of(Path("P7.NII"))
        ('p7_mask', 'P7')
    """
    return _NIFTI.sub("", path.name)


class Cine(NamedTuple):
    """All phases of a stack."""

    frames: NDArray[np.float32]
    """(T, S, H, W), slices in the order of the file."""
    volume: sitk.Image
    """Phase 0, float32; its geometry is that of all."""


def read_volume(files: Sequence[Path], frame: int | None = None) -> sitk.Image:
    """Read one volume.

    Args:
        files: one NIfTI or DICOM file, or one DICOM file a slice, in the order wanted.
        frame: phase within a 4-D NIfTI or multi-frame DICOM file, None where there is one.

    Returns:
        float32, axes column, row, slice; geometry in LPS mm.

    Raises:
        UserError: a file is absent, damaged or not what it should be; intensities are not finite.
    """
    first = files[0]
    if named_nifti(first):
        image = read_nifti_volume(first, frame)
    else:
        voxels, affine = read_slices(files, frame)
        image = _with_affine(sitk.GetImageFromArray(voxels), affine, first)
    _refuse_bad_numbers(sitk.GetArrayViewFromImage(image), first)
    floats = image.GetPixelID() == sitk.sitkFloat32
    return image if floats else sitk.Cast(image, sitk.sitkFloat32)


def read_nifti_volume(path: Path, frame: int | None = None) -> sitk.Image:
    """Read one volume of a NIfTI file, in the type of its voxels; its geometry in LPS mm."""
    voxels, affine = read_nifti(path, frame)
    return _with_affine(sitk.GetImageFromArray(voxels), affine, path)


def read_cine(files: Sequence[Path]) -> Cine:
    """Read all phases of a cine, each file once.

    Args:
        files: one 4-D NIfTI file; or all DICOM files of one cine, in any order.

    Raises:
        UserError: as `read_volume`; or there is one phase only, or nothing moves.
    """
    first = files[0]
    if named_nifti(first):
        voxels, affine = read_nifti_phases(first)
    else:
        voxels, affine = read_phases(files)
    refuse_still(len(voxels), first)
    frames = voxels.astype(np.float32, copy=False)
    _refuse_bad_numbers(frames, first)
    if (frames == frames[0]).all():
        raise UserError(
            "nothing moves: all its phases are alike",
            where=str(first),
            fix="give the phases of one heart beat",
            code="no_motion",
        )
    return Cine(frames, _with_affine(sitk.GetImageFromArray(frames[0]), affine, first))


def refuse_still(phases: int, where: Path) -> None:
    """Refuse what has no temporal axis, or one phase along it.

    Raises:
        UserError: there is one phase only.
    """
    if phases < 2:
        raise UserError(
            "holds one phase, not a cine of several",
            where=str(where),
            fix="give a 4-D NIfTI (x, y, z, t), or the folder of a DICOM cine",
            code="no_phases",
        )


def shape_of(path: Path) -> tuple[int, ...]:
    """Return the shape that the header of an image declares, without reading its voxels.

    Args:
        path: NIfTI, in its own order of axes; or DICOM, as (column, row, slice, phase).
    """
    if named_nifti(path):
        return shape_of_nifti(load_nifti(path))
    frames, phases = read_frames(path), count_phases(path)
    shape = (*frames[0].size, len(frames) // phases)
    return (*shape, phases) if phases > 1 else shape


def axes_of(path: Path) -> NDArray[np.float64]:
    """Return the directions along a row and along a column (2, 3) in LPS, from a header alone."""
    if not named_nifti(path):
        return read_frames(path)[0].axes
    axes = affine_of_nifti(load_nifti(path))[:3, :2].T
    return axes / np.linalg.norm(axes, axis=1, keepdims=True)


def shape_of_volume(phases: Sequence[tuple[tuple[Path, ...], int | None]]) -> tuple[int, ...]:
    """Return the shape (column, row, slice) of a volume of a cine that `phases_in` described."""
    files, _ = phases[0]
    return (*shape_of(files[0])[:2], count_slices(files))


def count_slices(files: Sequence[Path]) -> int:
    """Return how many slices `read_volume` will give, from headers alone."""
    if len(files) > 1:
        # single-frame files are one slice each; enhanced ones hold slices, phases or both
        return len(files) if len(read_frames(files[0])) == 1 else size_of(files)[1]
    shape = shape_of(files[0])
    return shape[2] if len(shape) > 2 else 1


def count_slices_of_cine(files: Sequence[Path]) -> int:
    """Return how many slices a phase of `read_cine` will have, from headers alone."""
    return count_slices(files) if named_nifti(files[0]) else size_of(files)[1]


def phases_in(path: Path) -> list[tuple[tuple[Path, ...], int | None]]:
    """Return the files and the frame of each phase that a path holds, for `read_volume`.

    Args:
        path: a NIfTI file, a DICOM file, or a folder of DICOM files of one stack or cine.

    Returns:
        One entry with frame None for a single volume; empty for a folder without DICOM.
    """
    if path.is_dir():
        phases = phases_of_folder(path)
        files = tuple(dict.fromkeys(file for phase in phases for file in phase))
        if len(files) == sum(map(len, phases)):
            return [(phase, None) for phase in phases]
        count = len(phases)  # enhanced files hold several frames each
    else:
        files, shape = (path,), shape_of(path)
        count = shape[3] if len(shape) == 4 else 1
    return [(files, t) for t in range(count)] if count > 1 else [(files, None)]


def _with_affine(image: sitk.Image, affine: NDArray[np.float64], path: Path) -> sitk.Image:
    """Set the geometry of an image from voxel (column, row, slice) to LPS mm."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or (spacing <= 0).any():
        raise UserError(
            f"has a spacing of {as_size(spacing.round(4))} mm",
            where=str(path),
            fix="repair the header",
            code="spacing",
        )
    if named_nifti(path):  # a frame of DICOM is a slice
        _refuse_slices_elsewhere(image.GetSize(), spacing, path)
    axes = affine[:3, :3] / spacing
    left, _, right = np.linalg.svd(axes)
    nearest = left @ right
    off = float(np.abs(axes - nearest).max())
    if off > 1e-2:
        raise UserError(
            f"has axes that are not at right angles, by {off:.3g}",
            where=str(path),
            fix="resample the image onto an orthogonal grid",
            code="axes",
        )
    if off > TOLERANCE:
        notice("axes", path, f"axes set at right angles, they were off by {off:.4g}")
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetDirection(nearest.ravel().tolist())
    return image


def _refuse_slices_elsewhere(size: Sequence[int], spacing: NDArray[np.float64], path: Path) -> None:
    """Refuse a stack whose slices follow one another along a row or a column of the file.

    Tools that turn a volume towards the axes of the body leave an oblique short axis so: its rows
    across the slices would pass for images.
    """
    coarse = int(spacing.argmax())
    if (
        size[2] > 1
        and coarse < 2
        and spacing[coarse] > BETWEEN_SLICES * np.delete(spacing, coarse).max()
    ):
        raise UserError(
            f"has voxels of {as_size(spacing.round(4))} mm: its slices lie along axis {coarse + 1}",
            where=str(path),
            fix="reorder the axes so that the third counts the slices, or give the file of before "
            "it was turned to the axes of the body",
            code="slice_axis",
        )


def _refuse_bad_numbers(voxels: NDArray[np.generic], where: Path) -> None:
    """Refuse a volume (S, H, W), or all its phases (T, S, H, W), with a number that is none."""
    bad = ~np.isfinite(voxels)
    if bad.any():
        slices = np.flatnonzero(bad.any(axis=(*range(bad.ndim - 3), -2, -1))).tolist()
        raise UserError(
            f"has {int(bad.sum())} voxels that are NaN or infinite, in slices {slices[:5]}",
            where=str(where),
            fix="repair the image or leave the case out",
            code="not_finite",
        )


def as_size(numbers: Sequence[float] | NDArray[np.float64]) -> str:
    """Return numbers along axes as text.

    Examples:
        >>> as_size((192, 256, 1.5))
        '192 x 256 x 1.5'
    """
    return " x ".join(f"{number:g}" for number in numbers)
