"""STAND-IN of the branch that writes this file: take that one. Resamples by position."""

from collections.abc import Mapping
from typing import Final, Literal

import SimpleITK as sitk

from cardiac_mtl.errors import UserError

TransferMode = Literal["slice_index", "matrix_resize", "position", "registration"]
Rounding = Literal["floor", "round"]
CROP_OFFSETS: Final[Mapping[str, tuple[int, int]]] = {"C0": (-4, -9), "T2": (-5, -5)}


def transfer_mask(
    mask: sitk.Image,
    source: sitk.Image,  # noqa: ARG001 - stand-in
    target: sitk.Image,
    mode: TransferMode,  # noqa: ARG001 - stand-in
    rounding: Rounding = "floor",  # noqa: ARG001 - stand-in
    *,
    crop_offset: tuple[int, int] = (0, 0),  # noqa: ARG001 - stand-in
    case: str = "mask",
) -> sitk.Image:
    """Return the mask on the grid of the target."""
    found = sitk.Resample(mask, target, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
    if (sitk.GetArrayViewFromImage(mask) > 0).any() and not sitk.GetArrayViewFromImage(found).any():
        raise UserError("nothing of it reaches the LGE volume", where=case, fix="see its header")
    return found
