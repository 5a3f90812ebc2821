"""Looking at files for what may be wrong with them: one volume at a time, then all together.

What stops training is an error of the readers and becomes a finding here; the rest, which would
train and mislead, is looked for here.
"""

from collections import defaultdict
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from cardiac_mtl.contracts import UNLABELLED
from cardiac_mtl.errors import UserError
from data_modules.cases import Case
from data_modules.findings import Finding, Severity, noticed, of_error
from data_modules.offset import mask_offset, measurable, typical

_LEAST_HEARTS = 5
"""Patients whose masks lie alike before that is said."""
_LEAST_OFFSET, _SURE = 0.1, 4.0
"""Pixels, and standard errors, over which it is."""
_LEAST_SLICES = 6
"""Of a volume that holds the whole heart."""
_ADULT_WALL_ML = (40.0, 330.0)
"""Between these lies the median myocardium of any group of adults, hypertrophy and all."""

ReadImage = Callable[[Case], sitk.Image]
"""How a data module reads the image of a case."""
ReadMask = Callable[[Case, sitk.Image], sitk.Image | None]
"""How a data module reads the mask of a case on the grid of its image."""


@dataclass(frozen=True)
class Examined:
    """What is known of one volume after its files were read once."""

    case: Case
    findings: tuple[Finding, ...] = ()
    size: tuple[int, ...] = ()
    """Columns, rows, slices; empty when the image could not be read."""
    spacing: tuple[float, ...] = ()
    """mm, as `size`."""
    intensity: tuple[float, float] = (np.nan, np.nan)
    """Least and largest."""
    label_ml: Mapping[str, float] = field(default_factory=dict)
    """Volume of each class."""
    wall_ml: float = np.nan
    """Volume of the myocardium, infarcts and all."""
    cavity_ml: float = np.nan
    """What the myocardium encloses, slice by slice."""
    content: str = ""
    """Hash of the voxels, whatever the file that holds them."""
    offset: tuple[float, float] | None = None
    """Column and row in pixels by which the mask lies off the image, where that was measured."""
    middle: NDArray[np.float32] | None = None
    """The slice of the largest mask, or the middle one."""
    middle_mask: NDArray[np.int16] | None = None


def examine(
    read_image: ReadImage,
    read_mask: ReadMask,
    labels: Mapping[str, int],
    wall: Sequence[int],
    measured: Container[str],
    case: Case,
) -> Examined:
    """Read the files of one volume and say what is wrong with them.

    Args:
        read_image: of the data module.
        read_mask: of the data module.
        labels: value of each class.
        wall: values of the mask between blood and what is outside.
        measured: ids of the cases of which the offset of the mask is measured, which takes longer
            than reading them.
        case: its files.

    Returns:
        Findings, and the figures that the table and the comparison of cases need.
    """
    with noticed() as odd:
        try:
            image = read_image(case)
        except UserError as error:
            return Examined(case, (*_of_case(odd, case), of_error(error, case.case_id)))
        voxels = sitk.GetArrayFromImage(image)
        findings = image_findings(voxels, image, case)
        mask = None
        try:
            read = read_mask(case, image)
            mask = None if read is None else sitk.GetArrayFromImage(read)
        except UserError as error:
            findings.append(of_error(error, case.case_id))
    spacing = image.GetSpacing()
    volume_ml = float(np.prod(spacing)) / 1000
    if mask is not None:
        # every heart has a myocardium, and few an infarct
        findings += _mask_findings(mask, case, may_be_empty="myocardium" not in labels)
    shown = _shown_slice(voxels, mask)
    return Examined(
        case=case,
        findings=(*_of_case(odd, case), *findings),
        size=image.GetSize(),
        spacing=spacing,
        intensity=(float(voxels.min()), float(voxels.max())),
        label_ml={}
        if mask is None
        else {name: int((mask == value).sum()) * volume_ml for name, value in labels.items()},
        wall_ml=np.nan if mask is None else int(np.isin(mask, wall).sum()) * volume_ml,
        cavity_ml=np.nan
        if mask is None or "myocardium" not in labels
        else _enclosed(mask == labels["myocardium"]) * volume_ml,
        offset=None
        if mask is None or case.case_id not in measured
        else mask_offset(voxels.astype(np.float32), np.isin(mask, wall)),
        content=sha256(repr(voxels.shape).encode() + voxels.tobytes()).hexdigest(),
        middle=voxels[shown],
        middle_mask=None if mask is None else mask[shown],
    )


def examine_together(examined: Sequence[Examined]) -> list[Finding]:
    """Compare cases: one image under two patients, ED smaller than ES, masks off, wrong sizes."""
    return [
        *_shared_images(examined),
        *_ed_and_es(examined),
        *_off_the_images(examined),
        *_of_no_adults(examined),
    ]


def examiner(
    read_image: ReadImage,
    read_mask: ReadMask,
    labels: Mapping[str, int],
    wall: Sequence[int],
    cases: Sequence[Case],
) -> Callable[[Case], Examined]:
    """Return `examine` for one data set, ready for several processes."""
    # one volume of each patient tells how masks lie
    measured = frozenset(cases[row].case_id for row in measurable(cases).values())
    return partial(examine, read_image, read_mask, labels, wall, measured)


def _of_case(odd: Sequence[Finding], case: Case) -> list[Finding]:
    """Give the findings of the readers their case; one a file, however often it was read."""
    return [replace(finding, case=case.case_id) for finding in dict.fromkeys(odd)]


def image_findings(voxels: NDArray[np.float32], image: sitk.Image, case: Case) -> list[Finding]:
    """Say what is wrong with an image that was read all the same."""
    found = []
    if voxels.min() == voxels.max():
        message = f"all voxels are {voxels.flat[0]:g}; replace the image or leave the case out"
        found.append(_finding(case, "error", "constant_image", message))
    if np.allclose(image.GetSpacing(), 1.0, atol=1e-6):
        message = "the spacing is 1 mm along every axis, as where a header was lost; compare it"
        found.append(_finding(case, "warning", "spacing_lost", f"{message} with the source"))
    return found


def _mask_findings(mask: NDArray[np.int16], case: Case, *, may_be_empty: bool) -> list[Finding]:
    annotated = mask[(mask != UNLABELLED).any(axis=(1, 2))]
    if not len(annotated):
        return []
    file = next(file for file in case.mask if file)
    if not may_be_empty and not (annotated > 0).any():
        message = "the mask has no foreground; draw it or leave `mask` empty"
        return [_finding(case, "error", "empty_mask", message, file)]
    if (annotated > 0).all():
        message = "the mask is all foreground; draw it again or leave `mask` empty"
        return [_finding(case, "error", "full_mask", message, file)]
    return []


def _finding(
    case: Case, severity: Severity, code: str, message: str, file: Path | None = None
) -> Finding:
    return Finding(severity, code, case.case_id, str(file or case.image[0]), message)


def _shown_slice(voxels: NDArray[np.float32], mask: NDArray[np.int16] | None) -> int:
    if mask is None or not (mask > 0).any():
        return len(voxels) // 2
    return int((mask > 0).sum(axis=(1, 2)).argmax())


def _enclosed(myocardium: NDArray[np.bool_]) -> int:
    """Count the voxels that closed rings enclose."""
    filled = sum(int(ndimage.binary_fill_holes(one).sum()) for one in myocardium)
    return filled - int(myocardium.sum())


def _shared_images(examined: Sequence[Examined]) -> list[Finding]:
    owners: dict[str, list[Case]] = defaultdict(list)
    for one in examined:
        if one.content:
            owners[one.content].append(one.case)
    found = []
    for cases in owners.values():
        first, *others = cases
        for case in others:
            same = case.patient_id == first.patient_id
            whose = "the same patient" if same else f"patient {first.patient_id}"
            message = f"holds the same voxels as {first.case_id} of {whose}; keep one of the two"
            severity: Severity = "warning" if same else "error"
            found.append(_finding(case, severity, "same_image", message))
    return found


def _ed_and_es(examined: Sequence[Examined]) -> list[Finding]:
    cavities: dict[tuple[str, str], dict[str, Examined]] = defaultdict(dict)
    for one in examined:
        if one.cavity_ml > 0:
            cavities[one.case.patient_id, one.case.sequence][one.case.phase] = one
    found = []
    for phases in cavities.values():
        if {"ED", "ES"} <= set(phases) and phases["ED"].cavity_ml < phases["ES"].cavity_ml:
            ed, es = phases["ED"], phases["ES"]
            message = (
                f"its cavity at ED, {ed.cavity_ml:.1f} ml, is smaller than at ES, "
                f"{es.cavity_ml:.1f} ml; swap the phases in the table"
            )
            found.append(_finding(ed.case, "error", "ed_es_swapped", message))
    return found


def _off_the_images(examined: Sequence[Examined]) -> list[Finding]:
    """Find masks that lie beside their images by the same part of a pixel, whoever the patient."""
    masked = [one for one in examined if one.offset is not None]
    found = typical([one.offset for one in masked])
    if found is None or found.hearts < _LEAST_HEARTS:
        return []
    if not any(
        abs(place) > max(_LEAST_OFFSET, _SURE * error)
        for place, error in zip(found.place, found.error, strict=True)
    ):
        return []
    message = (
        f"masks lie {found}, as where a program counts pixels from their corners; write them anew "
        "from their contours, or train with `--data.augmentation.keep_offset true`"
    )
    folder = next(file for file in masked[0].case.mask if file).parent
    return [Finding("warning", "mask_offset", "", str(folder), message)]


def _of_no_adults(examined: Sequence[Examined]) -> list[Finding]:
    """Find hearts of a size that adults do not have, as where images lost pixels and kept mm."""
    whole = [one for one in examined if one.wall_ml > 0 and one.size[2] >= _LEAST_SLICES]
    walls = list({one.case.patient_id: one.wall_ml for one in whole}.values())
    least, most = _ADULT_WALL_ML
    if len(walls) < _LEAST_HEARTS or least <= (median := float(np.median(walls))) <= most:
        return []
    message = (
        f"the myocardium has {median:.0f} ml (median of {len(walls)} patients), where that of "
        "adults has 50 to 250: of other hearts than theirs this is nothing; else the spacing in "
        "the files is not that of the pixels, and no mm, mm2 or ml can be trusted"
    )
    folder = whole[0].case.image[0].parent
    return [Finding("warning", "heart_size", "", str(folder), message)]
