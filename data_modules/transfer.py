"""Carrying a mask of one sequence over to the LGE volume of the patient, as weak transfer does.

Chen et al. (STACOM 2019) give the i-th of m slices of bSSFP (C0) or T2 to the LGE slice
j = floor(i n / m) of n, both counted from 1, base to apex (eq. 1), and resize it in plane. That
ignores where the headers say that the slices lie; the other modes ask them.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from cardiac_mtl.contracts import UNLABELLED
from cardiac_mtl.errors import UserError
from data_modules.alignment import aligned
from data_modules.geometry import apex_first

TransferMode = Literal["slice_index", "matrix_resize", "position", "registration"]
"""How a mask gets onto the LGE volume.

`slice_index`: slices paired by number, in plane by the headers [paper eq. 1; in plane inferred: the
matrices cover fields of view of their own]. `matrix_resize`: slices paired by number, in plane
stretched from matrix to matrix [code]. `position`: by the headers in all directions.
`registration`: as `position`, after the images have been aligned.
"""
Rounding = Literal["floor", "round"]
"""Of the number of an LGE slice: `floor` as in eq. 1 [paper], `round` as released [code]."""

CROP_OFFSETS: Final[Mapping[str, tuple[int, int]]] = {"C0": (-4, -9), "T2": (-5, -5)}
"""Rows and columns of the LGE matrix by which the crop of a resized mask began before that of its
image, empirical [code: model/transfer.py]: the content of the mask moves by as much the other way,
4 pixels down and 9 to the right from C0."""


def transfer_mask(
    mask: sitk.Image,
    source: sitk.Image,
    target: sitk.Image,
    mode: TransferMode,
    rounding: Rounding = "floor",
    *,
    crop_offset: tuple[int, int] = (0, 0),
    case: str = "mask",
) -> sitk.Image:
    """Carry a mask over to another volume of the same patient.

    Args:
        mask: classes 0 to 3 on the grid of `source`, `UNLABELLED` on slices without annotation.
        source: image of the sequence that was annotated; only `registration` looks at its pixels.
        target: the LGE image.
        mode: see `TransferMode`.
        rounding: see `Rounding`; of the two modes that pair slices by number.
        crop_offset: of `matrix_resize`, the one of the sequence in `CROP_OFFSETS`.
        case: names the mask in what is said about it.

    Returns:
        int16 on the grid of `target`, the same classes. A slice of which the mask knows nothing is
        `UNLABELLED` throughout, which is not the same as background: one that no slice was paired
        with, or where a part of the heart in plane lies beyond the first or the last slice.

    Raises:
        UserError: nothing of the heart reaches the target, as when the slices of both lie in
            ranges apart (code `no_overlap`).
    """
    mask = sitk.Cast(mask, sitk.sitkInt16)  # which has room for UNLABELLED
    if mode == "slice_index":
        found = _by_number(mask, target, rounding)
    elif mode == "matrix_resize":
        found = _by_matrix(mask, target, rounding, crop_offset)
    else:
        found = _by_position(mask, target, sitk.Transform())
        _refuse_nothing(mask, found, mode, case)
        if mode == "registration":
            found = _by_position(mask, target, aligned(source, target, mask, case))
    _refuse_nothing(mask, found, mode, case)
    carried = sitk.GetImageFromArray(found.astype(np.int16))
    carried.CopyInformation(target)
    return carried


def paired_numbers(count: int, onto: int, rounding: Rounding = "floor") -> list[int]:
    """Give each slice of a volume a slice of another (eq. 1), all counted from 1.

    Args:
        count: m, slices of the source.
        onto: n, slices of the target.
        rounding: see `Rounding`.

    Returns:
        (m,) j of each i, within 1 and n.

    Examples:
        >>> paired_numbers(3, 15)
        [5, 10, 15]
    """
    numbers = [
        i * onto // count if rounding == "floor" else round(i * onto / count)
        for i in range(1, count + 1)
    ]
    return [min(max(number, 1), onto) for number in numbers]


def paired_slices(source: sitk.Image, target: sitk.Image, rounding: Rounding) -> dict[int, int]:
    """Pair slices by number from base to apex, wherever the files begin.

    Returns:
        Slice of the target to slice of the source, both as the files count them. Where two slices
        of the source fall on one of the target it takes the first [inferred: not stated].
    """
    sources, targets = _base_to_apex(source), _base_to_apex(target)
    pairs: dict[int, int] = {}
    numbers = paired_numbers(len(sources), len(targets), rounding)
    for one, number in zip(sources, numbers, strict=True):
        pairs.setdefault(targets[number - 1], one)
    return pairs


def _base_to_apex(volume: sitk.Image) -> range:
    count = volume.GetSize()[2]
    return range(count - 1, -1, -1) if apex_first(volume) else range(count)


def _by_number(mask: sitk.Image, target: sitk.Image, rounding: Rounding) -> NDArray[Any]:
    """Move each slice along the normal of its volume onto the slice that it is paired with."""
    labels, found = sitk.GetArrayFromImage(mask), _nothing_known(target)
    to_mask = np.linalg.inv(_affine(mask)) @ _affine(target)
    matrix = to_mask[1::-1, 1::-1]  # rows before columns, as arrays have them
    for k, paired in paired_slices(mask, target, rounding).items():
        found[k] = ndimage.affine_transform(
            labels[paired], matrix, to_mask[1::-1, 2] * k + to_mask[1::-1, 3], found[k].shape,
            order=0, mode="grid-constant",
        )  # fmt: skip
    return _whole_slices(found)


def _by_matrix(
    mask: sitk.Image, target: sitk.Image, rounding: Rounding, offset: tuple[int, int]
) -> NDArray[Any]:
    """Resize the map of each class to the matrix of the target, round it, and put them together."""
    labels, found = sitk.GetArrayFromImage(mask), _nothing_known(target)
    factors = np.divide(found.shape[1:], labels.shape[1:])
    for k, paired in paired_slices(mask, target, rounding).items():
        if (labels[paired] == UNLABELLED).any():
            continue
        resized = np.zeros_like(found[k])
        for value in np.unique(labels[paired]):
            binary = (labels[paired] == value).astype(np.float32)
            grown = ndimage.zoom(binary, factors, order=1, mode="mirror", grid_mode=True)
            resized[grown > 0.5] = value
        found[k] = ndimage.shift(resized, np.negative(offset), order=0)
    return found


def _by_position(mask: sitk.Image, target: sitk.Image, transform: sitk.Transform) -> NDArray[Any]:
    """Take the nearest voxel: each slice fills a slab as thick as the distance between slices."""
    padded = sitk.ConstantPad(mask, [1, 1, 1], [1, 1, 1], 0)
    labels = sitk.GetArrayFromImage(padded)
    # beyond the last slices the heart goes on, nobody knows how: such slices are found by this
    labels[[0, -1]] = np.where((labels > 0).any(axis=0), UNLABELLED, 0)
    marked = sitk.GetImageFromArray(labels)
    marked.CopyInformation(padded)
    extrapolated = True
    found = sitk.Resample(
        marked, target, transform, sitk.sitkNearestNeighbor, 0, marked.GetPixelID(), extrapolated
    )
    return _whole_slices(sitk.GetArrayFromImage(found))


def _whole_slices(found: NDArray[Any]) -> NDArray[Any]:
    """Forget slices that are known in part: half a ring would be taught as a whole heart."""
    found[(found == UNLABELLED).any(axis=(1, 2))] = UNLABELLED
    return found


def _nothing_known(target: sitk.Image) -> NDArray[np.int16]:
    return np.full(target.GetSize()[::-1], UNLABELLED, np.int16)


def _affine(image: sitk.Image) -> NDArray[np.float64]:
    """Return (4, 4), index (column, row, slice) to millimetres."""
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return affine


def _refuse_nothing(mask: sitk.Image, found: NDArray[Any], mode: str, case: str) -> None:
    if (found > 0).any() or not (sitk.GetArrayViewFromImage(mask) > 0).any():
        return
    by_number = mode in {"slice_index", "matrix_resize"}
    raise UserError(
        f"nothing of it reaches the LGE volume by `{mode}`: the headers place them apart",
        where=case,
        fix=f"set `transfer_mode` to `{'matrix_resize' if by_number else 'slice_index'}`",
        code="no_overlap",
    )
