"""DICOM images to volumes: their order, their geometry, their values, their phases."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.errors import InvalidDicomError
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from cardiac_mtl.errors import UserError
from data_modules.damage import UNREADABLE, damaged
from data_modules.findings import notice

_TIMES = ("NominalCardiacTriggerDelayTime", "TriggerTime", "TemporalPositionIndex")
_PLAIN = ("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "Rows", "Columns")
_UNCOMPRESSED = {ExplicitVRLittleEndian, ImplicitVRLittleEndian}
TOLERANCE = 1e-3
"""Largest difference of two slices that count as alike: mm, or units of a direction cosine."""
PLACE_MM = 0.05
"""Images nearer than this along the slice normal lie in one slice."""

_IDENTIFIERS = (
    "PatientName", "PatientID", "OtherPatientIDs", "OtherPatientNames", "PatientBirthDate",
    "AccessionNumber", "StudyDate",
)  # fmt: skip
_GEOMETRY = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")


@dataclass(frozen=True)
class Frame:
    """One image in one slice: a single-frame file, or a frame of an enhanced multi-frame one."""

    file: Path
    number: int
    """Of the frame within its file, from 0."""
    position: NDArray[np.float64]
    """Of the first pixel, LPS mm."""
    axes: NDArray[np.float64]
    """(2, 3), direction along a row and along a column."""
    spacing: NDArray[np.float64]
    """Of rows and of columns, mm."""
    size: tuple[int, int]
    """Columns and rows."""
    thickness: float
    """Distance to the next slice as the header says, mm."""
    time: float
    """After the R wave, ms; or the number of the phase."""
    instance: int

    @property
    def normal(self) -> NDArray[np.float64]:
        """Return the direction across the slice."""
        return np.cross(*self.axes)


def read_slices(
    files: Sequence[Path], phase: int | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Stack slices to a volume.

    Args:
        files: one slice each, in the order wanted; or enhanced multi-frame files of one stack or
            cine, whose slices are then ordered from base to apex.
        phase: of multi-frame files that hold several.

    Returns:
        Voxels (S, H, W), rescaled as the headers say, and the affine (4, 4) from (column, row,
        slice) to LPS mm.

    Raises:
        UserError: a file is absent or damaged, or does not continue the first.
    """
    data = [_dicom(file, pixels=True) for file in files]
    frames = [
        one for file, dataset in zip(files, data, strict=True) for one in _frames(dataset, file)
    ]
    if len(frames) > len(files):
        frames = _phases(frames, files[0])[phase or 0]
    first = frames[0]
    for other in frames:
        _refuse_other_slice(other, first)
    affine = np.eye(4)
    affine[:3, :2] = first.axes.T * first.spacing[::-1]
    affine[:3, 2] = first.normal * _slice_step(frames)
    affine[:3, 3] = first.position
    pixels = {file: _pixels(dataset, file) for file, dataset in zip(files, data, strict=True)}
    return np.stack([pixels[one.file][one.number] for one in frames]), affine


def read_frames(file: Path) -> list[Frame]:
    """Read the headers of all images of a file.

    Raises:
        UserError: it is absent, damaged, or has no geometry.
    """
    return _frames(_dicom(file, pixels=False), file)


def identifiers(file: Path) -> list[str]:
    """Return what the header of a file says of who the patient is; for `pseudonym` alone."""
    header = _dicom(file, pixels=False)
    try:
        values = [str(header.get(keyword) or "") for keyword in _IDENTIFIERS]
    except UNREADABLE:
        return []
    return [value for value in values if value]


def order_by_position(files: Sequence[Path]) -> list[Path]:
    """Sort the DICOM slices of one volume from base to apex.

    Args:
        files: one slice each, any order.

    Returns:
        The same files.
    """
    return [one.file for one in _base_to_apex([read_frames(file)[0] for file in files])]


def phases_of_folder(folder: Path) -> list[tuple[Path, ...]]:
    """Assemble the single-frame files of one cine, or of one stack, that a folder holds.

    Images of one position follow one another by trigger time, then by instance number.

    Args:
        folder: other files than DICOM images are left aside.

    Returns:
        For each phase its files from base to apex; none when the folder holds no DICOM image.

    Raises:
        UserError: slices are tilted, missing or doubled.
    """
    frames = [one for file in sorted(folder.iterdir()) for one in _frames_if_dicom(file)]
    if not frames:
        return []
    usual = _usual_orientation(frames)
    for other in frames:
        _refuse_other_slice(other, usual)
    return [tuple(one.file for one in phase) for phase in _phases(frames, folder)]


def count_phases(file: Path) -> int:
    """Return how many phases a DICOM file holds: one, unless it is multi-frame."""
    frames = read_frames(file)
    return len(frames) // len(_places(frames))


def _phases(frames: Sequence[Frame], where: Path) -> list[list[Frame]]:
    """Return the frames of each phase, base to apex."""
    places = _places(frames)
    _refuse_uneven(places, where)
    for place in places:
        place.sort(key=lambda one: (one.time, one.instance, one.number))
    return [_base_to_apex(phase) for phase in zip(*places, strict=True)]


def _places(frames: Sequence[Frame]) -> list[list[Frame]]:
    """Group frames by their position along the slice normal."""
    normal = frames[0].normal
    along = {id(one): float(one.position @ normal) for one in frames}
    ordered = sorted(frames, key=lambda one: along[id(one)])
    places = [[ordered[0]]]
    for one in ordered[1:]:
        if along[id(one)] - along[id(places[-1][0])] < PLACE_MM:
            places[-1].append(one)
        else:
            places.append([one])
    return places


def _base_to_apex(frames: Sequence[Frame]) -> list[Frame]:
    """Sort the slices of one volume.

    The apex of a heart in its usual place lies left, in front of and below its base: of the two
    directions of the slice normal, the one nearer to LPS (1, -1, -1) points to it.
    """
    normal = frames[0].normal
    towards_apex = normal * (1.0 if normal @ np.array([1.0, -1.0, -1.0]) >= 0 else -1.0)
    return sorted(frames, key=lambda one: float(one.position @ towards_apex))


def _dicom(file: Path, *, pixels: bool) -> pydicom.Dataset:
    if not file.is_file():
        raise UserError("no such file", where=str(file), fix="restore it", code="missing_file")
    try:
        return pydicom.dcmread(file, stop_before_pixels=not pixels)
    except UNREADABLE as error:
        raise damaged(file, "is damaged or not DICOM", error) from error


def _frames_if_dicom(file: Path) -> list[Frame]:
    """Return the frames of a DICOM image, none for any other file."""
    if not file.is_file():
        return []
    try:
        header = pydicom.dcmread(file, stop_before_pixels=True)
    except InvalidDicomError:
        return []
    except UNREADABLE as error:
        raise damaged(file, "is damaged or not DICOM", error) from error
    return _frames(header, file) if "Rows" in header else []


def _frames(dataset: pydicom.Dataset, file: Path) -> list[Frame]:
    try:
        if "PerFrameFunctionalGroupsSequence" not in dataset:
            if int(dataset.get("NumberOfFrames") or 1) > 1:
                raise UserError(
                    f"has {dataset.NumberOfFrames} frames without a position each",
                    where=str(file),
                    fix="export one grey-scale file a slice and phase",
                    code="multi_frame",
                )
            return [_frame([dataset], file, 0)]
        shared = _first(dataset, "SharedFunctionalGroupsSequence")
        groups = dataset.PerFrameFunctionalGroupsSequence
        if len(groups) != int(dataset.get("NumberOfFrames") or 1):
            raise UserError(
                f"has {dataset.NumberOfFrames} frames, {len(groups)} with a position",
                where=str(file),
                fix="export it again from its source",
                code="multi_frame",
            )
        return [
            _frame([*_inner(group), *_inner(shared), dataset], file, n)
            for n, group in enumerate(groups)
        ]
    except UNREADABLE as error:
        raise damaged(file, "has a damaged header", error) from error


def _inner(group: pydicom.Dataset) -> list[pydicom.Dataset]:
    """Return the items of a functional group, where an enhanced image keeps its values."""
    return [item for element in group if element.VR == "SQ" for item in element.value]


def _frame(places: Sequence[pydicom.Dataset], file: Path, number: int) -> Frame:
    """Read one frame from the first of some places that has each value."""
    found = [_numbers(places, keyword) for keyword in _GEOMETRY]
    if missing := [k for k, value in zip(_GEOMETRY, found, strict=True) if not value]:
        raise UserError(
            f"lacks {', '.join(missing)}",
            where=str(file),
            fix="export it with its geometry",
            code="dicom_header",
        )
    thickness = _numbers(places, "SpacingBetweenSlices") or _numbers(places, "SliceThickness")
    time = next((t for keyword in _TIMES if (t := _numbers(places, keyword))), [0.0])
    rows, columns, instance = (
        _numbers(places[-1:], k) for k in ("Rows", "Columns", "InstanceNumber")
    )
    return Frame(
        file=file,
        number=number,
        position=np.asarray(found[0], np.float64).reshape(3),
        axes=np.asarray(found[1], np.float64).reshape(2, 3),
        spacing=np.asarray(found[2], np.float64).reshape(2),
        size=(int(columns[0]), int(rows[0])),
        thickness=(thickness or [1.0])[0] or 1.0,
        time=time[0],
        instance=int((instance or [0.0])[0]),
    )


def _numbers(places: Sequence[pydicom.Dataset], keyword: str) -> list[float]:
    """Return the numbers of an element from the first place that has it, none where none has."""
    for place in places:
        if keyword not in place:
            continue
        element = place.get_item(keyword)
        value = element.value
        if isinstance(value, bytes) and element.VR in {"DS", "IS"}:
            # as it stands in the file: a third of the time of pydicom's own numbers
            parts = value.strip(b" \0").split(b"\\")
            return [float(part) for part in parts if part.strip()]
        if isinstance(value, bytes) and element.VR == "US":
            return [float(int.from_bytes(value, "little"))]
        value = place[keyword].value
        if value is None or value == "":
            continue
        return [float(x) for x in (value if isinstance(value, Iterable) else [value])]
    return []


def _first(dataset: pydicom.Dataset, sequence: str) -> pydicom.Dataset:
    items = dataset.get(sequence)
    return items[0] if items else pydicom.Dataset()


def _pixels(dataset: pydicom.Dataset, file: Path) -> NDArray[np.float32]:
    """Return (frames, H, W), rescaled."""
    try:
        samples = int(dataset.get("SamplesPerPixel", 1))
        pixels = _plain_pixels(dataset) if samples == 1 else None
        if pixels is None:
            pixels = dataset.pixel_array.astype(np.float32)
        places = [*_inner(_first(dataset, "SharedFunctionalGroupsSequence")), dataset]
        slope = (_numbers(places, "RescaleSlope") or [1.0])[0] or 1.0
        intercept = (_numbers(places, "RescaleIntercept") or [0.0])[0]
    except UNREADABLE as error:
        raise damaged(file, "has no readable pixels", error) from error
    if samples != 1:
        raise UserError(
            f"has {samples} samples a pixel",
            where=str(file),
            fix="export one grey-scale file a slice and phase",
            code="colour",
        )
    if (slope, intercept) != (1.0, 0.0):
        pixels = pixels * np.float32(slope) + np.float32(intercept)
    return pixels if pixels.ndim == 3 else pixels[None]


def _plain_pixels(dataset: pydicom.Dataset) -> NDArray[np.float32] | None:
    """Return uncompressed 16-bit pixels at a fifth of pydicom's time, None where it must decode."""
    values = [dataset.get_item(keyword) for keyword in _PLAIN]
    syntax = dataset.file_meta.get("TransferSyntaxUID", "")
    if syntax not in _UNCOMPRESSED or not all(e and isinstance(e.value, bytes) for e in values):
        return None
    bits, stored, high, signed, rows, columns = (
        int.from_bytes(element.value, "little") for element in values
    )
    if (bits, stored, high) != (16, 16, 15):
        return None
    frames = int(dataset.get("NumberOfFrames") or 1)
    shape = (frames, rows, columns)
    content = dataset.get_item("PixelData").value
    if len(content) != 2 * math.prod(shape):
        return None
    kind = "<i2" if signed else "<u2"
    return np.frombuffer(content, kind).reshape(shape).astype(np.float32)


def _usual_orientation(frames: Sequence[Frame]) -> Frame:
    """Return a frame whose orientation most others share, so that the odd one out is named."""
    keys = [(one.axes.round(2).tobytes(), one.size) for one in frames]
    usual = Counter(keys).most_common(1)[0][0]
    return frames[keys.index(usual)]


def _refuse_other_slice(other: Frame, first: Frame) -> None:
    if other.size != first.size:
        raise UserError(
            f"has {other.size[0]} x {other.size[1]} pixels, the other slices "
            f"{first.size[0]} x {first.size[1]}",
            where=str(other.file),
            fix="remove it from the series",
            code="mixed_sizes",
        )
    fields = {"orientation": (other.axes, first.axes), "spacing": (other.spacing, first.spacing)}
    for name, (found, expected) in fields.items():
        off = float(np.abs(found - expected).max())
        if not off <= TOLERANCE:
            raise UserError(
                f"its {name} differs from that of the other slices by {off:.4g}",
                where=str(other.file),
                fix="remove it from the series",
                code="tilted_slice" if name == "orientation" else "mixed_spacing",
            )


def _refuse_uneven(places: Sequence[Sequence[Frame]], where: Path) -> None:
    """Refuse a cine whose slices have different numbers of phases, naming the odd ones out."""
    usual, _ = Counter(len(place) for place in places).most_common(1)[0]
    for number, place in enumerate(places):
        if len(place) == usual:
            continue
        times: dict[float, list[str]] = defaultdict(list)
        for one in place:
            times[one.time].append(one.file.name)
        twice = [names for names in times.values() if len(names) > 1]
        known = f", {' and '.join(twice[0][:2])} at one time" if twice and len(times) > 1 else ""
        raise UserError(
            f"slice {number} has {len(place)} images, the others {usual}{known}",
            where=str(where),
            fix="give one complete short-axis series, one image a slice and phase",
            code="duplicate_slice" if len(place) > usual else "missing_image",
        )


def _slice_step(frames: Sequence[Frame]) -> float:
    """Return the distance from one slice to the next in mm, negative against the normal."""
    if len(frames) == 1:
        return frames[0].thickness
    steps = np.diff([one.position @ frames[0].normal for one in frames])
    if abs(np.sign(steps).sum()) < len(steps) or np.abs(steps).min() < TOLERANCE:
        raise UserError(
            "the slices of its series lie twice at one place or out of order",
            where=str(frames[0].file),
            fix="keep one file a slice, sorted from base to apex",
            code="duplicate_slice",
        )
    usual = float(np.sign(steps[0]) * np.sort(np.abs(steps))[(len(steps) - 1) // 2])
    odd = int(np.abs(steps - usual).argmax())
    off = float(abs(steps[odd] - usual))
    if off > 0.01 * abs(usual):
        notice(
            "missing_slice",
            frames[odd].file,
            f"the next slice is {abs(steps[odd]):.4g} mm away, others {abs(usual):.4g} mm: "
            "is a slice missing? all are taken as evenly spaced",
        )
    return usual
