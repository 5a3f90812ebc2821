"""DICOM images to volumes: which belong together, their order, their phases."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.errors import InvalidDicomError

from cardiac_mtl.errors import UserError
from data_modules.damage import UNREADABLE, damaged
from data_modules.dicom import Frame, frames_of, pixels_of, read_dataset, read_frames
from data_modules.findings import notice

TOLERANCE = 1e-3
"""Largest difference of two slices that count as alike: mm, or units of a direction cosine."""
PLACE_MM = 0.05
"""Images nearer than this along the slice normal lie in one slice."""


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
    data, frames = _read_all(files)
    if len(frames) > len(files):
        frames = _phases(frames, files[0])[phase or 0]
    affine = _affine_of(frames)  # first: it refuses slices that cannot be stacked
    return _voxels_of([frames], data)[0], affine


def read_phases(
    files: Sequence[Path],
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Read all phases of one cine, each file once.

    Args:
        files: single-frame or enhanced multi-frame files, any order.

    Returns:
        Voxels (T, S, H, W), slices base to apex, and the affine (4, 4) from (column, row, slice)
        to LPS mm.

    Raises:
        UserError: as `read_slices`; slices are doubled or lack phases.
    """
    data, frames = _read_all(files)
    for other in frames:
        _refuse_other_slice(other, frames[0])
    phases = _phases(frames, files[0])
    return _voxels_of(phases, data), _affine_of(phases[0])


def size_of(files: Sequence[Path]) -> tuple[int, int]:
    """Return how many phases and slices `read_phases` will give, from headers alone."""
    phases = _phases([one for file in files for one in read_frames(file)], files[0])
    return len(phases), len(phases[0])


def _read_all(files: Sequence[Path]) -> tuple[dict[Path, pydicom.Dataset], list[Frame]]:
    data = {file: read_dataset(file, pixels=True) for file in files}
    return data, [one for file in files for one in frames_of(data[file], file)]


def _voxels_of(
    phases: Sequence[Sequence[Frame]], data: Mapping[Path, pydicom.Dataset]
) -> NDArray[np.float32]:
    """Return (T, S, H, W)."""
    pixels = {file: pixels_of(data[file], file) for file in data}
    return np.stack([np.stack([pixels[one.file][one.number] for one in p]) for p in phases])


def _affine_of(frames: Sequence[Frame]) -> NDArray[np.float64]:
    """Return the affine of the slices of one volume, which continue the first."""
    first = frames[0]
    for other in frames:
        _refuse_other_slice(other, first)
    _notice_shifted(frames)
    affine = np.eye(4)
    affine[:3, :2] = first.axes.T * first.spacing[::-1]
    affine[:3, 2] = first.normal * _slice_step(frames)
    affine[:3, 3] = first.position
    return affine


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
    _refuse_strangers(places, where)
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
    return frames_of(header, file) if "Rows" in header else []


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


def _notice_shifted(frames: Sequence[Frame]) -> None:
    """Say where slices do not lie straight behind the first: the stack is taken as straight."""
    first = frames[0]
    for one in frames[1:]:
        off = one.position - first.position
        aside = float(np.linalg.norm(off - (off @ first.normal) * first.normal))
        if aside > 0.5 * float(first.spacing.min()):
            notice(
                "shifted_slice",
                one.file,
                f"lies {aside:.4g} mm aside of the first slice: is it of another stack? "
                "all are taken as straight behind one another",
            )
            return


def _refuse_strangers(places: Sequence[Sequence[Frame]], where: Path) -> None:
    """Refuse images in one slice that are no phases of one another: copies, series, echoes."""
    for number, place in enumerate(places):
        images = Counter((one.uid, one.number) for one in place if one.uid)
        if twice := next((key for key, count in images.items() if count > 1), None):
            names = [one.file.name for one in place if (one.uid, one.number) == twice]
            raise UserError(
                f"slice {number} has one image twice, {' and '.join(names[:2])}",
                where=str(where),
                fix="keep one of them",
                code="duplicate_slice",
            )
        if (several := len({one.series for one in place})) > 1:
            raise UserError(
                f"slice {number} has images of {several} series or echoes",
                where=str(where),
                fix="give one series of one echo, in a folder of its own",
                code="mixed_series",
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
