"""Files to volumes with a true geometry, and every way that can go wrong named in one line."""

import gzip
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from PIL import Image

from cardiac_mtl.contracts import UNLABELLED
from cardiac_mtl.errors import UserError
from data_modules.damage import UNREADABLE, damaged
from data_modules.dicom import read_slices

TOLERANCE = 1e-3
"""Largest difference of two geometries that count as one: mm, or units of a direction cosine."""
NIFTI = (".nii", ".nii.gz")

_log = logging.getLogger(__name__)
_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def read_volume(files: Sequence[Path], frame: int | None = None) -> sitk.Image:
    """Read one volume.

    Args:
        files: one NIfTI or DICOM file, or one DICOM file a slice, in the order wanted.
        frame: phase within a 4-D NIfTI, None for a 3-D or 2-D one.

    Returns:
        float32, axes column, row, slice; geometry in LPS mm.

    Raises:
        UserError: a file is absent, damaged or not what it should be; intensities are not finite.
    """
    first = files[0]
    if first.name.endswith(NIFTI):
        image = _read_nifti(first, frame)
    else:
        voxels, affine = read_slices(files)
        image = _with_affine(sitk.GetImageFromArray(voxels), affine, first)
    _refuse_bad_numbers(image, first)
    return sitk.Cast(image, sitk.sitkFloat32)


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
    if first is not None and first.name.endswith(NIFTI):
        mask = _read_nifti(first, frame)
        check_geometry(like, mask, first)
        _refuse_undeclared(sitk.GetArrayViewFromImage(mask), labels, first)
        mask.CopyInformation(like)
        return sitk.Cast(mask, sitk.sitkInt16)
    columns, rows, _ = like.GetSize()
    stacked = np.stack([_read_png(file, (rows, columns)) for file in files])
    mask = sitk.GetImageFromArray(stacked)
    mask.CopyInformation(like)
    return mask


def check_geometry(image: sitk.Image, mask: sitk.Image, where: Path) -> None:
    """Refuse a mask that does not lie where its image lies.

    Args:
        image: the volume.
        mask: its mask.
        where: file of the mask, for the message.

    Raises:
        UserError: size, spacing, origin or axes differ, with the field and by how much.
    """
    fix = "draw or resample the mask on the grid of its image"
    if image.GetSize() != mask.GetSize():
        raise UserError(
            f"the mask has {_times(mask.GetSize())} voxels, its image {_times(image.GetSize())}",
            where=str(where),
            fix=fix,
        )
    fields = {
        "spacing": (image.GetSpacing(), mask.GetSpacing()),
        "origin": (image.GetOrigin(), mask.GetOrigin()),
        "direction": (image.GetDirection(), mask.GetDirection()),
    }
    for name, (expected, found) in fields.items():
        off = float(np.abs(np.subtract(expected, found)).max())
        if off > TOLERANCE:
            raise UserError(
                f"the {name} of the mask differs from that of its image by {off:.4g}",
                where=str(where),
                fix=fix,
            )


def nifti_shape(path: Path) -> tuple[int, ...]:
    """Return the shape that the header of a NIfTI file declares, without reading its voxels."""
    return tuple(int(n) for n in _load_nifti(path).shape)


def write_mask(path: Path, frames: Sequence[sitk.Image], like: Path) -> None:
    """Write a mask in the geometry of the file that it was predicted from, whole or not at all.

    Args:
        path: `*.nii.gz`.
        frames: class of each voxel, one image a phase.
        like: the source: of a NIfTI file shape, affine and header are kept, whether it is 2-D, 3-D
            or 4-D.
    """
    temporary = path.with_name(f".{path.name}")
    if like.name.endswith(NIFTI):
        source = _load_nifti(like)
        stacked = np.stack([sitk.GetArrayFromImage(frame).T for frame in frames], axis=-1)
        header = source.header.copy()
        header.set_data_dtype(np.uint8)
        header.set_slope_inter(1, 0)
        voxels = stacked.reshape(source.shape).astype(np.uint8)
        nib.nifti1.Nifti1Image(voxels, source.affine, header).to_filename(temporary)
    else:
        (frame,) = frames
        sitk.WriteImage(sitk.Cast(frame, sitk.sitkUInt8), str(temporary))
    temporary.replace(path)


def _load_nifti(path: Path) -> nib.nifti1.Nifti1Image:
    if not path.is_file():
        raise UserError("no such file", where=str(path), fix="restore it or correct its row")
    try:
        return nib.nifti1.Nifti1Image.from_filename(path)
    except UNREADABLE as error:
        raise damaged(path, "is damaged or not NIfTI", error) from error


def _read_nifti(path: Path, frame: int | None) -> sitk.Image:
    """Return a 3-D image; a 2-D file becomes one slice."""
    file = _load_nifti(path)
    dimensions = len(file.shape)
    if dimensions not in {2, 3, 4} or (dimensions == 4) != (frame is not None):
        raise UserError(
            f"has {dimensions} dimensions",
            where=str(path),
            fix="give 3-D masks to 3-D images and 4-D masks, or none, to 4-D images",
        )
    try:
        _verify_gzip(path)
        voxels = np.asanyarray(file.dataobj if frame is None else file.dataobj[..., frame])
    except UNREADABLE as error:
        raise damaged(path, "is truncated or corrupt", error) from error
    if voxels.dtype.kind not in "biuf":
        raise UserError(
            f"holds {file.get_data_dtype()} voxels", where=str(path), fix="give one number a voxel"
        )
    if voxels.ndim == 2:
        voxels = voxels[..., None]
    wide = voxels.dtype.kind in "bf" or voxels.dtype.itemsize > 4
    with np.errstate(over="ignore"):  # what float32 cannot hold is refused as infinite
        voxels = voxels.astype(np.float32 if wide else voxels.dtype.newbyteorder("="))
    image = sitk.GetImageFromArray(np.ascontiguousarray(voxels.transpose(2, 1, 0)))
    return _with_affine(image, _RAS_TO_LPS @ _nifti_affine(file, path), path)


def _verify_gzip(path: Path) -> None:
    """Read to the end: nibabel stops before the checksum and would pass damaged voxels on."""
    if path.suffix == ".gz":
        with gzip.open(path) as file:
            while file.read(1 << 22):
                pass


def _nifti_affine(file: nib.nifti1.Nifti1Image, path: Path) -> NDArray[np.float64]:
    """Return the affine in RAS, warning where the header holds two that disagree (P15)."""
    header = file.header
    if header["qform_code"] > 0 and header["sform_code"] > 0:
        try:
            off = float(np.abs(file.get_qform() - file.get_sform()).max())
        except ValueError:  # a quaternion longer than one
            off = float("nan")
        if not off <= TOLERANCE:
            _log.warning("%s: qform and sform differ by %.4g; the sform is used", path.name, off)
    return np.asarray(file.affine, dtype=np.float64)


def _with_affine(image: sitk.Image, affine: NDArray[np.float64], path: Path) -> sitk.Image:
    """Set the geometry of an image from voxel (column, row, slice) to LPS mm."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or (spacing <= 0).any():
        raise UserError(
            f"has a spacing of {_times(spacing.round(4))} mm",
            where=str(path),
            fix="repair the header",
        )
    axes = affine[:3, :3] / spacing
    left, _, right = np.linalg.svd(axes)
    nearest = left @ right
    off = float(np.abs(axes - nearest).max())
    if off > 1e-2:
        raise UserError(
            f"has axes that are not at right angles, by {off:.3g}",
            where=str(path),
            fix="resample the image onto an orthogonal grid",
        )
    if off > TOLERANCE:
        _log.warning("%s: axes set at right angles, they were off by %.4g", path.name, off)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetDirection(nearest.ravel().tolist())
    return image


def _read_png(file: Path | None, shape: tuple[int, int]) -> NDArray[np.int16]:
    """Return class 1 where a PNG is not zero; `UNLABELLED` where there is none."""
    if file is None:
        return np.full(shape, UNLABELLED, dtype=np.int16)
    try:
        with Image.open(file) as picture:
            colours = [band != "A" for band in picture.getbands()]
            pixels = np.atleast_3d(np.asarray(picture))
    except UNREADABLE as error:
        raise damaged(file, "is absent, damaged or not PNG", error) from error
    foreground = (pixels[..., colours] > 0).any(axis=2)
    if foreground.shape != shape:
        raise UserError(
            f"the mask has {_times(foreground.shape[::-1])} pixels, "
            f"its image {_times(shape[::-1])}",
            where=str(file),
            fix="draw the mask on the grid of its image",
        )
    return foreground.astype(np.int16)


def _refuse_bad_numbers(image: sitk.Image, where: Path) -> None:
    voxels = sitk.GetArrayViewFromImage(image)
    bad = ~np.isfinite(voxels)
    if bad.any():
        slices = np.flatnonzero(bad.any(axis=(1, 2))).tolist()
        raise UserError(
            f"has {int(bad.sum())} voxels that are NaN or infinite, in slices {slices[:5]}",
            where=str(where),
            fix="repair the image or leave the case out",
        )


def _refuse_undeclared(voxels: NDArray[np.generic], labels: Mapping[str, int], where: Path) -> None:
    found = set(np.unique(voxels).tolist())
    if undeclared := found - {0, *labels.values()}:
        declared = ", ".join(f"{value} {name}" for name, value in labels.items())
        raise UserError(
            f"holds the values {sorted(undeclared)[:5]}",
            where=str(where),
            fix=f"declared are 0 background, {declared}",
        )


def _times(numbers: Sequence[float] | NDArray[np.float64]) -> str:
    return " x ".join(f"{number:g}" for number in numbers)
