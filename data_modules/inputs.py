"""What `predict` is given: a file, a folder or a table, as cases."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import pydicom
from pydicom.errors import InvalidDicomError

from cardiac_mtl.errors import UserError
from data_modules.cases import Case
from data_modules.dicom import order_by_position
from data_modules.manifest import TABLE, find_cases, split_frames
from data_modules.readers import NIFTI

_MASK_ENDS = ("_mask.nii", "_mask.nii.gz")


def find_inputs(path: Path) -> list[Case]:
    """Return the volumes to predict.

    Args:
        path: a `cases.csv`, a NIfTI or DICOM file, or a folder that holds a `cases.csv`, NIfTI
            files (masks are left aside) or the DICOM files of one short-axis cine.

    Returns:
        One case a volume, named after file or folder; a 4-D file gives one case a phase.

    Raises:
        UserError: there is nothing to read.
    """
    if path.suffix == ".csv" or (path / TABLE).is_file():
        return find_cases(path)
    if path.is_file():
        return _of_file(path)
    if not path.is_dir():
        raise UserError("no such file or folder", where=f"--input {path}", fix="correct the path")
    volumes = [
        file
        for file in sorted(path.iterdir())
        if file.name.endswith(NIFTI) and not file.name.endswith(_MASK_ENDS)
    ]
    if volumes:
        return [case for file in volumes for case in _of_file(file)]
    return _of_dicom_folder(path)


def _of_file(path: Path) -> list[Case]:
    name = path.name
    for ending in (".nii.gz", ".nii", ".dcm"):
        name = name.removesuffix(ending)
    case = Case(case_id=name, patient_id=name, image=(path,))
    return split_frames(case) if path.name.endswith(NIFTI) else [case]


def _of_dicom_folder(folder: Path) -> list[Case]:
    """Return one case a phase: files of one position follow one another by trigger time."""
    positions: dict[tuple[float, ...], list[tuple[float, int, Path]]] = defaultdict(list)
    for file in sorted(folder.iterdir()):
        header = _header(file)
        if header is not None:
            place = tuple(round(float(x), 2) for x in header.ImagePositionPatient)
            time = float(header.get("TriggerTime") or 0)
            positions[place].append((time, int(header.get("InstanceNumber") or 0), file))
    if not positions:
        raise UserError(
            "neither cases.csv, NIfTI nor DICOM in it", where=f"--input {folder}", fix="give images"
        )
    _refuse_uneven(list(positions.values()), folder)
    phases = zip(*(sorted(files) for files in positions.values()), strict=True)
    volumes = [order_by_position([file for _, _, file in phase]) for phase in phases]
    single = len(volumes) == 1
    return [
        Case(
            case_id=folder.resolve().name if single else f"{folder.resolve().name}_ph{t:02d}",
            patient_id=folder.resolve().name,
            image=tuple(files),
            phase="" if single else str(t),
        )
        for t, files in enumerate(volumes)
    ]


def _refuse_uneven(slices: Sequence[Sequence[object]], folder: Path) -> None:
    counts = sorted({len(files) for files in slices})
    if len(counts) > 1:
        raise UserError(
            f"some slices have {counts[0]} phases, others {counts[-1]}",
            where=f"--input {folder}",
            fix="give the folder of one complete short-axis series",
        )


def _header(file: Path) -> pydicom.Dataset | None:
    """Return the header of a DICOM image, None for any other file."""
    try:
        header = pydicom.dcmread(file, stop_before_pixels=True)
    except (InvalidDicomError, OSError):
        return None
    return header if "ImagePositionPatient" in header else None
