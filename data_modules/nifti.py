"""One NIfTI file: its header, its affine, its voxels."""

import gzip
import math
from functools import lru_cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from cardiac_mtl.errors import UserError
from data_modules.damage import UNREADABLE, damaged
from data_modules.findings import notice

TOLERANCE = 1e-3
"""Largest difference of two affines that count as one."""
MOST_VOXELS = 1 << 26
"""Of one volume: 512 x 512 x 256. What claims more is a damaged header or an attack on memory."""
MOST_CINE_VOXELS = 1 << 28
"""Of all phases that are read at once: 512 x 512 x 25 of them, 40 times."""
KEPT_BYTES = 1 << 29
"""A 4-D file up to this size stays in memory while its phases are read one after the other."""

_NOT_MM = {1: "metres", 3: "micrometres"}
"""By the code of a header; 0, which many write, says nothing."""
_FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])
"""Between RAS, as NIfTI has it, and LPS, as DICOM and SimpleITK do."""


def load_nifti(path: Path) -> nib.nifti1.Nifti1Image:
    """Open a file, its voxels unread.

    Raises:
        UserError: it is absent, damaged or not NIfTI.
    """
    if not path.is_file():
        raise UserError(
            "no such file",
            where=str(path),
            fix="restore it or correct its row",
            code="missing_file",
        )
    try:
        return _open(path)
    except UNREADABLE as error:
        raise damaged(path, "is damaged or not NIfTI", error) from error


def _open(path: Path) -> nib.nifti1.Nifti1Image:
    # by its name nibabel looks for a.nii where there is a.Nii
    opened = nib.nifti1.Nifti1Image
    return opened.from_file_map(opened.make_file_map({"image": str(path)}))


def shape_of_nifti(file: nib.nifti1.Nifti1Image) -> tuple[int, ...]:
    """Return the shape of a file; a fourth axis of one phase is none, as converters write it."""
    shape = tuple(int(n) for n in file.shape)
    return shape[:3] if shape[3:] == (1,) else shape


def affine_of_nifti(file: nib.nifti1.Nifti1Image) -> NDArray[np.float64]:
    """Return the affine (4, 4) from (column, row, slice) to LPS mm, as it stands in the header."""
    return _FLIP @ np.asarray(file.affine, dtype=np.float64)


def read_nifti(path: Path, frame: int | None) -> tuple[NDArray[np.generic], NDArray[np.float64]]:
    """Read one volume; a 2-D file is one slice.

    Args:
        path: of the file.
        frame: phase within a 4-D file, None for one volume.

    Returns:
        Voxels (S, H, W), and the affine (4, 4) from (column, row, slice) to LPS mm.

    Raises:
        UserError: the file is absent, damaged, or has another number of dimensions.
    """
    file = load_nifti(path)
    if (len(shape_of_nifti(file)) == 4) != (frame is not None):
        raise _dimensions(file, path)
    return _read(file, path, frame)


def read_nifti_phases(path: Path) -> tuple[NDArray[np.generic], NDArray[np.float64]]:
    """Read all phases of a file at once; one volume is one phase.

    Args:
        path: of the file.

    Returns:
        Voxels (T, S, H, W), and the affine (4, 4) from (column, row, slice) to LPS mm.

    Raises:
        UserError: the file is absent, damaged, or larger than a cine can be.
    """
    file = load_nifti(path)
    if math.prod(file.shape) > MOST_CINE_VOXELS:
        raise _absurd(file, path, MOST_CINE_VOXELS)
    voxels, affine = _read(file, path, None)
    return voxels if voxels.ndim == 4 else voxels[None], affine


def write_nifti(
    path: Path, voxels: NDArray[np.integer[Any]], affine: NDArray[np.floating[Any]]
) -> None:
    """Write a volume or a cine, as (column, row, slice[, phase]).

    Args:
        path: `*.nii` or `*.nii.gz`.
        voxels: ([T,] S, H, W).
        affine: (4, 4), from (column, row, slice) to LPS mm.
    """
    nib.nifti1.Nifti1Image(voxels.T, _FLIP @ affine).to_filename(path)


def _read(
    file: nib.nifti1.Nifti1Image, path: Path, frame: int | None
) -> tuple[NDArray[np.generic], NDArray[np.float64]]:
    if len(file.shape) not in {2, 3, 4}:
        raise _dimensions(file, path)
    if math.prod(file.shape[:3]) > MOST_VOXELS or min(file.shape) < 1:
        raise _absurd(file, path, MOST_VOXELS)
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
    elif voxels.shape[3:] == (1,):
        voxels = voxels[..., 0]
    with np.errstate(invalid="ignore"):  # what is not finite is refused next
        affine = _FLIP @ _nifti_affine(file, path)
    return np.ascontiguousarray(voxels.T), affine


def _dimensions(file: nib.nifti1.Nifti1Image, path: Path) -> UserError:
    return UserError(
        f"has {len(file.shape)} dimensions",
        where=str(path),
        fix="give 3-D masks to 3-D images and 4-D masks, or none, to 4-D images",
        code="dimensions",
    )


def _absurd(file: nib.nifti1.Nifti1Image, path: Path, most: int) -> UserError:
    return UserError(
        f"claims {' x '.join(map(str, file.shape))} voxels",
        where=str(path),
        fix=f"repair its header, or crop it to {most} voxels a "
        + ("volume" if most == MOST_VOXELS else "cine"),
        code="absurd_size",
    )


def _nifti_voxels(
    file: nib.nifti1.Nifti1Image, path: Path, frame: int | None
) -> NDArray[np.generic]:
    """Return the voxels of one frame, or of the whole file: float32 or what integers it holds."""
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
    if path.suffix.lower() != ".gz":
        return _narrow(np.asanyarray(_open(path).dataobj))
    with gzip.open(path) as opened:
        content = opened.read(size)
        _refuse_more(opened)
    return _narrow(np.asanyarray(nib.nifti1.Nifti1Image.from_bytes(content).dataobj))


@lru_cache(maxsize=1)
def _verify_gzip(path: Path, stamp: tuple[int, int], size: int) -> None:  # noqa: ARG001 - part of the key
    """Read a large file to its end, a little at a time."""
    if path.suffix.lower() == ".gz":
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
    if unit := _NOT_MM.get(int(header["xyzt_units"]) & 7):
        notice("length_unit", path, f"its header says that lengths are in {unit}; taken as mm")
    return np.asarray(file.affine, dtype=np.float64)
