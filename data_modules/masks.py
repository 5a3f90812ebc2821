"""Masks from files, on the grid of their images, and back into the geometry of a file."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from PIL import Image

from cardiac_mtl.contracts import UNLABELLED
from cardiac_mtl.errors import UserError
from cardiac_mtl.files import whole
from data_modules.damage import UNREADABLE, damaged
from data_modules.nifti import load_nifti
from data_modules.readers import (
    TOLERANCE,
    as_size,
    named_nifti,
    read_nifti_volume,
    read_volume,
    shape_of,
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
        mask = read_nifti_volume(first, frame)
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
            f"the mask has {as_size(mask.GetSize())} voxels, its image {as_size(image.GetSize())}",
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
            f"the mask has {as_size(foreground.shape[::-1])} pixels, "
            f"its image {as_size(shape[::-1])}",
            where=str(file),
            fix="draw the mask on the grid of its image",
            code="mask_size",
        )
    return foreground.astype(np.int16)


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
