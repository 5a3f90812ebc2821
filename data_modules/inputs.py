"""What `predict` is given: a file, a folder or a table, as cases."""

from pathlib import Path

from cardiac_mtl.errors import UserError
from data_modules.cases import Case
from data_modules.manifest import TABLE, find_cases, split_frames
from data_modules.readers import NIFTI, phases_in

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
    return split_frames(Case(case_id=name, patient_id=name, image=(path,)))


def _of_dicom_folder(folder: Path) -> list[Case]:
    name = folder.resolve().name
    if not phases_in(folder):
        raise UserError(
            "neither cases.csv, NIfTI nor DICOM in it", where=f"--input {folder}", fix="give images"
        )
    return split_frames(Case(case_id=name, patient_id=name, image=(folder,)))
