"""Files to volumes with a true geometry, and every way that can go wrong named in one line."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from PIL import Image

from cardiac_mtl.contracts import UNLABELLED
from cardiac_mtl.errors import UserError
from cardiac_mtl.files import whole
from data_modules.damage import UNREADABLE, damaged
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
        image = _nifti_volume(first, frame)
    else:
        voxels, affine = read_slices(files, frame)
        image = _with_affine(sitk.GetImageFromArray(voxels), affine, first)
    _refuse_bad_numbers(sitk.GetArrayViewFromImage(image), first)
    floats = image.GetPixelID() == sitk.sitkFloat32
    return image if floats else sitk.Cast(image, sitk.sitkFloat32)


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


def read_mask(
    files: Sequence[Path | None],
    like: sitk.Image,
    labels: Mapping[str, int],
    frame: int | None = None,
) -> sitk.Image:
    """Read the mask of a volume.

    Args:
        files: one NIfTI file, or one PNG a slice (not zero = class 1) with None where a slice has
            no annotation.
        like: the volume that it belongs to.
        labels: value of each class that may occur besides 0.
        frame: phase within a 4-D NIfTI.

    Returns:
        int16 on the grid of `like`; `UNLABELLED` throughout a slice without annotation.

    Raises:
        UserError: a file is absent or damaged, the geometry is another, a value is not declared.
    """
    first = files[0]
    if first is not None and named_nifti(first):
        mask = _nifti_volume(first, frame)
        check_geometry(like, mask, first)
        _refuse_undeclared(sitk.GetArrayViewFromImage(mask), labels, first)
        mask.CopyInformation(like)
        return sitk.Cast(mask, sitk.sitkInt16)
    columns, rows, slices = like.GetSize()
    if len(files) != slices:
        raise UserError(
            f"is one picture of {len(files)}, the mask of an image of {slices} slices",
            where=str(first),
            fix="give one NIfTI mask on the grid of the image",
            code="mask_size",
        )
    stacked = np.stack([_read_png(file, (rows, columns)) for file in files])
    mask = sitk.GetImageFromArray(stacked)
    mask.CopyInformation(like)
    return mask


def read_region(path: Path, like: sitk.Image, *, one_value: bool = False) -> NDArray[np.bool_]:
    """Read where a mask is above 0.

    Args:
        path: NIfTI, or anything else that `read_volume` reads.
        like: the volume, or the phase of a cine, that it belongs to.
        one_value: refuse a mask of several structures.

    Returns:
        (S, H, W).

    Raises:
        UserError: the file is absent or damaged, the geometry is another, there are phases.
    """
    if len(shape := shape_of(path)) > 3:
        raise UserError(
            f"has the shape {shape}, and belongs to all phases of a cine",
            where=str(path),
            fix="give one 3-D mask",
            code="dimensions",
        )
    mask = read_volume((path,))
    check_geometry(like, mask, path)
    voxels = sitk.GetArrayFromImage(mask)
    inside: NDArray[np.bool_] = voxels > 0
    if one_value and len(found := np.unique(voxels[inside])) > 1:
        raise UserError(
            f"holds the values {found[:5].tolist()}",
            where=str(path),
            fix="keep one value, that of the structure",
            code="undeclared_label",
        )
    return inside


def check_geometry(image: sitk.Image, mask: sitk.Image, where: Path) -> None:
    """Refuse a mask that does not lie where its image lies.

    Args:
        image: the volume.
        mask: its mask.
        where: file of the mask, for the message.

    Raises:
        UserError: size, spacing, origin or axes differ, with each field and by how much.
    """
    fix = "draw or resample the mask on the grid of its image"
    if image.GetSize() != mask.GetSize():
        raise UserError(
            f"the mask has {_times(mask.GetSize())} voxels, its image {_times(image.GetSize())}",
            where=str(where),
            fix=fix,
            code="mask_size",
        )
    fields = {
        "spacing": (image.GetSpacing(), mask.GetSpacing()),
        "origin": (image.GetOrigin(), mask.GetOrigin()),
        "direction": (image.GetDirection(), mask.GetDirection()),
    }
    off = {
        name: float(np.abs(np.subtract(expected, found)).max())
        for name, (expected, found) in fields.items()
    }
    if differing := [f"{name} by {by:.4g}" for name, by in off.items() if by > TOLERANCE]:
        raise UserError(
            f"the mask differs from its image in {', '.join(differing)}",
            where=str(where),
            fix=fix,
            code="mask_geometry",
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


def write_mask(path: Path, frames: Sequence[sitk.Image], like: Path) -> None:
    """Write a mask in the geometry of the file that it was predicted from, whole or not at all.

    Args:
        path: `*.nii.gz`.
        frames: class of each voxel, one image a phase, or one for all phases.
        like: the source: of a NIfTI file shape, affine and header are kept, whether it is 2-D, 3-D
            or 4-D.
    """
    with whole(path) as temporary:
        if named_nifti(like):
            _like_nifti(frames, load_nifti(like)).to_filename(temporary)
        else:
            (frame,) = frames
            sitk.WriteImage(sitk.Cast(frame, sitk.sitkUInt8), str(temporary))


def _like_nifti(
    frames: Sequence[sitk.Image], source: nib.nifti1.Nifti1Image
) -> nib.nifti1.Nifti1Image:
    """Return classes in the shape, the affine and the header of a file."""
    stacked = np.stack([sitk.GetArrayFromImage(frame).T for frame in frames], axis=-1)
    header = source.header.copy()
    header.set_data_dtype(np.uint8)
    header.set_slope_inter(1, 0)
    header.extensions.clear()  # they, and the texts below, may name the patient
    header["descrip"] = header["aux_file"] = header["db_name"] = header["intent_name"] = b""
    header["data_type"] = b""
    shape = source.shape if stacked.size == np.prod(source.shape) else stacked.shape[:3]
    voxels = stacked.reshape(shape).astype(np.uint8)
    return nib.nifti1.Nifti1Image(voxels, source.affine, header)


def _nifti_volume(path: Path, frame: int | None) -> sitk.Image:
    voxels, affine = read_nifti(path, frame)
    return _with_affine(sitk.GetImageFromArray(voxels), affine, path)


def _with_affine(image: sitk.Image, affine: NDArray[np.float64], path: Path) -> sitk.Image:
    """Set the geometry of an image from voxel (column, row, slice) to LPS mm."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or (spacing <= 0).any():
        raise UserError(
            f"has a spacing of {_times(spacing.round(4))} mm",
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
            f"has voxels of {_times(spacing.round(4))} mm: its slices lie along axis {coarse + 1}",
            where=str(path),
            fix="reorder the axes so that the third counts the slices, or give the file of before "
            "it was turned to the axes of the body",
            code="slice_axis",
        )


def _read_png(file: Path | None, shape: tuple[int, int]) -> NDArray[np.int16]:
    """Return class 1 where a PNG is not zero; `UNLABELLED` where there is none."""
    if file is None:
        return np.full(shape, UNLABELLED, dtype=np.int16)
    try:
        with Image.open(file) as picture:
            colours = [band != "A" for band in picture.getbands()]
            pixels = np.asarray(picture)
    except UNREADABLE as error:
        raise damaged(file, "is absent, damaged or neither NIfTI nor PNG", error) from error
    if pixels.ndim == 3:
        pixels = pixels[..., colours].max(axis=2)
    foreground = pixels > 0
    if foreground.shape != shape:
        raise UserError(
            f"the mask has {_times(foreground.shape[::-1])} pixels, "
            f"its image {_times(shape[::-1])}",
            where=str(file),
            fix="draw the mask on the grid of its image",
            code="mask_size",
        )
    return foreground.astype(np.int16)


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


def _refuse_undeclared(voxels: NDArray[np.generic], labels: Mapping[str, int], where: Path) -> None:
    found = set(np.unique(voxels).tolist())
    if undeclared := found - {0, *labels.values()}:
        declared = ", ".join(f"{value} {name}" for name, value in labels.items())
        raise UserError(
            f"holds the values {sorted(undeclared)[:5]}",
            where=str(where),
            fix=f"declared are 0 background, {declared}: write the mask with these",
            code="undeclared_label",
        )


def _times(numbers: Sequence[float] | NDArray[np.float64]) -> str:
    return " x ".join(f"{number:g}" for number in numbers)
