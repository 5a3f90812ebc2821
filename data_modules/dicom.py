"""One DICOM file: its frames, their geometry, their values."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.tag import BaseTag, Tag
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from cardiac_mtl.errors import UserError
from data_modules.damage import UNREADABLE, damaged

_TIMES = ("NominalCardiacTriggerDelayTime", "TriggerTime", "TemporalPositionIndex")
_PLAIN = ("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "Rows", "Columns")
_UNCOMPRESSED = {ExplicitVRLittleEndian, ImplicitVRLittleEndian}
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
    series: tuple[str, str] = ("", "")
    """Its series and its echo: what is of another one is no phase of the same cine."""
    uid: str = ""
    """Of the image: a copy of a file has the same."""

    @property
    def normal(self) -> NDArray[np.float64]:
        """Return the direction across the slice."""
        return np.cross(*self.axes)


def read_frames(file: Path) -> list[Frame]:
    """Read the headers of all images of a file.

    Raises:
        UserError: it is absent, damaged, or has no geometry.
    """
    return frames_of(read_dataset(file, pixels=False), file)


def identifiers(file: Path) -> list[str]:
    """Return what the header of a file says of who the patient is; for `pseudonym` alone."""
    header = read_dataset(file, pixels=False)
    try:
        values = [str(header.get(keyword) or "") for keyword in _IDENTIFIERS]
    except UNREADABLE:
        return []
    return [value for value in values if value]


def read_dataset(file: Path, *, pixels: bool) -> pydicom.Dataset:
    """Read a file, with its pixels or without.

    Raises:
        UserError: it is absent, damaged or not DICOM.
    """
    if not file.is_file():
        raise UserError("no such file", where=str(file), fix="restore it", code="missing_file")
    try:
        return pydicom.dcmread(file, stop_before_pixels=not pixels)
    except UNREADABLE as error:
        raise damaged(file, "is damaged or not DICOM", error) from error


def frames_of(dataset: pydicom.Dataset, file: Path) -> list[Frame]:
    """Return the frames of a dataset that was read from a file.

    Raises:
        UserError: the header is damaged or has no geometry.
    """
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
        series=(
            str(places[-1].get("SeriesInstanceUID", "")),
            str(_numbers(places, "EchoTime") or _numbers(places, "EffectiveEchoTime")),
        ),
        uid=str(places[-1].get("SOPInstanceUID", "")),
    )


@cache
def _tag(keyword: str) -> BaseTag:
    """Return the tag of a keyword; pydicom would look it up for each file and element."""
    return Tag(keyword)


def _numbers(places: Sequence[pydicom.Dataset], keyword: str) -> list[float]:
    """Return the numbers of an element from the first place that has it, none where none has."""
    for place in places:
        if (tag := _tag(keyword)) not in place:
            continue
        element = place.get_item(tag)
        value = element.value
        if isinstance(value, bytes) and element.VR in {"DS", "IS"}:
            # as it stands in the file: a third of the time of pydicom's own numbers
            parts = value.strip(b" \0").split(b"\\")
            return [float(part) for part in parts if part.strip()]
        if isinstance(value, bytes) and element.VR == "US":
            return [float(int.from_bytes(value, "little"))]
        value = place[tag].value
        if value is None or value == "":
            continue
        return [float(x) for x in (value if isinstance(value, Iterable) else [value])]
    return []


def _first(dataset: pydicom.Dataset, sequence: str) -> pydicom.Dataset:
    items = dataset.get(sequence)
    return items[0] if items else pydicom.Dataset()


def pixels_of(dataset: pydicom.Dataset, file: Path) -> NDArray[np.float32]:
    """Return the pixels (frames, H, W) of a dataset, rescaled as its header says.

    Raises:
        UserError: they are damaged, have colours, or are inverted.
    """
    try:
        samples = int(dataset.get("SamplesPerPixel", 1))
        pixels = _plain_pixels(dataset) if samples == 1 else None
        if pixels is None:
            pixels = dataset.pixel_array.astype(np.float32)
        shared = [*_inner(_first(dataset, "SharedFunctionalGroupsSequence")), dataset]
        frames = dataset.get("PerFrameFunctionalGroupsSequence") or [pydicom.Dataset()]
        slope, intercept = np.asarray(
            [_rescale([*_inner(frame), *shared]) for frame in frames], np.float32
        ).T[:, :, None, None]
        pixels = pixels if pixels.ndim == 3 else pixels[None]
        if (slope != 1).any() or intercept.any():
            pixels = pixels * slope + intercept
    except UNREADABLE as error:
        raise damaged(file, "has no readable pixels", error) from error
    if samples != 1:
        raise UserError(
            f"has {samples} samples a pixel",
            where=str(file),
            fix="export one grey-scale file a slice and phase",
            code="colour",
        )
    if dataset.get("PhotometricInterpretation") == "MONOCHROME1":
        raise UserError(
            "has dark for bright (MONOCHROME1), as an inverted screen is exported",
            where=str(file),
            fix="export it as MONOCHROME2, as the scanner made it",
            code="inverted",
        )
    return pixels


def _rescale(places: Sequence[pydicom.Dataset]) -> tuple[float, float]:
    """Return slope and intercept of a frame, whose own come before those of all frames."""
    slope = (_numbers(places, "RescaleSlope") or [1.0])[0] or 1.0
    return slope, (_numbers(places, "RescaleIntercept") or [0.0])[0]


def _plain_pixels(dataset: pydicom.Dataset) -> NDArray[np.float32] | None:
    """Return uncompressed 16-bit pixels at a fifth of pydicom's time, None where it must decode."""
    values = [dataset.get_item(_tag(keyword)) for keyword in _PLAIN]
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
