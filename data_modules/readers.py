"""Files to volumes with a true geometry, and every way that can go wrong named in one line."""

import gzip
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from PIL import Image

from cardiac_mtl.contracts import UNLABELLED
from cardiac_mtl.errors import UserError
from data_modules.damage import UNREADABLE, damaged
from data_modules.dicom import read_frames
from data_modules.findings import notice
from data_modules.series import count_phases, phases_of_folder, read_slices

TOLERANCE = 1e-3
"""Largest difference of two geometries that count as one: mm, or units of a direction cosine."""
NIFTI = (".nii", ".nii.gz")
MOST_VOXELS = 1 << 26
"""Of one volume: 512 x 512 x 256. What claims more is a damaged header or an attack on memory."""
KEPT_BYTES = 1 << 29
"""A 4-D file up to this size stays in memory while its phases are read one after the other."""

_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


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
    if first.name.endswith(NIFTI):
        image = _read_nifti(first, frame)
    else:
        voxels, affine = read_slices(files, frame)
        image = _with_affine(sitk.GetImageFromArray(voxels), affine, first)
    _refuse_bad_numbers(image, first)
    floats = image.GetPixelID() == sitk.sitkFloat32
    return image if floats else sitk.Cast(image, sitk.sitkFloat32)


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
    if path.name.endswith(NIFTI):
        return tuple(int(n) for n in _load_nifti(path).shape)
    frames, phases = read_frames(path), count_phases(path)
    shape = (*frames[0].size, len(frames) // phases)
    return (*shape, phases) if phases > 1 else shape


def shape_of_volume(phases: Sequence[tuple[tuple[Path, ...], int | None]]) -> tuple[int, ...]:
    """Return the shape (column, row, slice) of a volume of a cine that `phases_in` described."""
    files, _ = phases[0]
    return (*shape_of(files[0])[:2], count_slices(files))


def count_slices(files: Sequence[Path]) -> int:
    """Return how many slices `read_volume` will give, from headers alone."""
    if len(files) > 1:
        return len(files)
    shape = shape_of(files[0])
    return shape[2] if len(shape) > 2 else 1


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
        header.extensions.clear()  # they, and the texts below, may name the patient
        header["descrip"] = header["aux_file"] = header["db_name"] = header["intent_name"] = b""
        voxels = stacked.reshape(source.shape).astype(np.uint8)
        nib.nifti1.Nifti1Image(voxels, source.affine, header).to_filename(temporary)
    else:
        (frame,) = frames
        sitk.WriteImage(sitk.Cast(frame, sitk.sitkUInt8), str(temporary))
    temporary.replace(path)


def _load_nifti(path: Path) -> nib.nifti1.Nifti1Image:
    if not path.is_file():
        raise UserError(
            "no such file",
            where=str(path),
            fix="restore it or correct its row",
            code="missing_file",
        )
    try:
        return nib.nifti1.Nifti1Image.from_filename(path)
    except UNREADABLE as error:
        raise damaged(path, "is damaged or not NIfTI", error) from error


def _read_nifti(path: Path, frame: int | None) -> sitk.Image:
    """Return a 3-D image; a 2-D file becomes one slice."""
    file = _load_nifti(path)
    _refuse_odd_shape(file, path, frame)
    if file.get_data_dtype().kind not in "biuf":
        raise UserError(
            f"holds {file.get_data_dtype()} voxels",
            where=str(path),
            fix="give one number a voxel",
            code="voxel_type",
        )
    try:
        with np.errstate(over="ignore"):  # what float32 cannot hold is refused as infinite
            voxels = _nifti_voxels(file, path, frame)
    except UNREADABLE as error:
        raise damaged(path, "is truncated or corrupt", error) from error
    if voxels.ndim == 2:
        voxels = voxels[..., None]
    image = sitk.GetImageFromArray(np.ascontiguousarray(voxels.transpose(2, 1, 0)))
    with np.errstate(invalid="ignore"):  # what is not finite is refused next
        affine = _RAS_TO_LPS @ _nifti_affine(file, path)
    return _with_affine(image, affine, path)


def _refuse_odd_shape(file: nib.nifti1.Nifti1Image, path: Path, frame: int | None) -> None:
    shape = file.shape
    if len(shape) not in {2, 3, 4} or (len(shape) == 4) != (frame is not None):
        raise UserError(
            f"has {len(shape)} dimensions",
            where=str(path),
            fix="give 3-D masks to 3-D images and 4-D masks, or none, to 4-D images",
            code="dimensions",
        )
    if math.prod(shape[:3]) > MOST_VOXELS or min(shape) < 1:
        raise UserError(
            f"claims {_times(shape)} voxels",
            where=str(path),
            fix=f"repair its header, or crop it to {MOST_VOXELS} voxels a volume",
            code="absurd_size",
        )


def _nifti_voxels(
    file: nib.nifti1.Nifti1Image, path: Path, frame: int | None
) -> NDArray[np.generic]:
    """Return the voxels of one volume, float32 or what integers the file holds."""
    status = path.stat()
    stamp = (status.st_size, status.st_mtime_ns)
    offset = int(getattr(file.dataobj, "offset", 352))  # extensions of the header come before
    size = offset + math.prod(file.shape) * file.get_data_dtype().itemsize
    if size <= KEPT_BYTES:
        whole = _voxels_of_file(path, stamp, size)
        return whole if frame is None else whole[..., frame]
    _verify_gzip(path, stamp, size)
    return _narrow(np.asanyarray(file.dataobj if frame is None else file.dataobj[..., frame]))


@lru_cache(maxsize=1)
def _voxels_of_file(path: Path, stamp: tuple[int, int], size: int) -> NDArray[np.generic]:  # noqa: ARG001 - part of the key
    """Read all voxels of a file, to its end: nibabel stops before the checksum of a gzip file."""
    if path.suffix != ".gz":
        return _narrow(np.asanyarray(nib.nifti1.Nifti1Image.from_filename(path).dataobj))
    with gzip.open(path) as opened:
        content = opened.read(size)
        _refuse_more(opened)
    return _narrow(np.asanyarray(nib.nifti1.Nifti1Image.from_bytes(content).dataobj))


@lru_cache(maxsize=1)
def _verify_gzip(path: Path, stamp: tuple[int, int], size: int) -> None:  # noqa: ARG001 - part of the key
    """Read a large file to its end, a little at a time."""
    if path.suffix == ".gz":
        with gzip.open(path) as opened:
            while size > 0 and (block := opened.read(min(size, 1 << 22))):
                size -= len(block)
            _refuse_more(opened)


def _refuse_more(opened: gzip.GzipFile) -> None:
    """Check the checksum; refuse what would unpack to more than the header promised."""
    if len(opened.read(1 << 16)) == 1 << 16:
        raise ValueError("more than the header promises")


def _narrow(voxels: NDArray[np.generic]) -> NDArray[np.generic]:
    wide = voxels.dtype.kind in "bf" or voxels.dtype.itemsize > 4
    return voxels.astype(np.float32 if wide else voxels.dtype.newbyteorder("="))


def _nifti_affine(file: nib.nifti1.Nifti1Image, path: Path) -> NDArray[np.float64]:
    """Return the affine in RAS, warning where the header holds two that disagree (P15)."""
    header = file.header
    if header["qform_code"] > 0 and header["sform_code"] > 0:
        try:
            off = float(np.abs(file.get_qform() - file.get_sform()).max())
        except ValueError:  # a quaternion longer than one
            off = float("nan")
        if not off <= TOLERANCE:
            notice("qform_sform", path, f"qform and sform differ by {off:.4g}; the sform is used")
    return np.asarray(file.affine, dtype=np.float64)


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


def _read_png(file: Path | None, shape: tuple[int, int]) -> NDArray[np.int16]:
    """Return class 1 where a PNG is not zero; `UNLABELLED` where there is none."""
    if file is None:
        return np.full(shape, UNLABELLED, dtype=np.int16)
    try:
        with Image.open(file) as picture:
            colours = [band != "A" for band in picture.getbands()]
            pixels = np.asarray(picture)
    except UNREADABLE as error:
        raise damaged(file, "is absent, damaged or not PNG", error) from error
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


def _refuse_bad_numbers(image: sitk.Image, where: Path) -> None:
    voxels = sitk.GetArrayViewFromImage(image)
    bad = ~np.isfinite(voxels)
    if bad.any():
        slices = np.flatnonzero(bad.any(axis=(1, 2))).tolist()
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
            fix=f"declared are 0 background, {declared}",
            code="undeclared_label",
        )


def _times(numbers: Sequence[float] | NDArray[np.float64]) -> str:
    return " x ".join(f"{number:g}" for number in numbers)
