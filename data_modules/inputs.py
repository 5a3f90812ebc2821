"""What `predict` is given: a file, a folder or a table, as cases."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from cardiac_mtl.errors import UserError
from data_modules import cine_table
from data_modules.cases import Case, name_of_phase
from data_modules.findings import OnError, refuse
from data_modules.manifest import (
    OPTIONAL,
    TABLE,
    Row,
    case_of,
    one_volume,
    read_table,
    split_frames,
    with_phases,
)
from data_modules.readers import is_nifti, named_nifti, phases_in, shape_of, stem_of

_PHASE = re.compile(r"(.+)_(?:(ED|ES)|(?:ph|frame)(\d+))")
_MASK = re.compile(r".+_(?:mask|manual|gt|seg)", re.IGNORECASE)


def find_inputs(
    path: Path,
    *,
    whole_cines: bool = False,
    one_phase: bool = False,
    takes: Callable[[str], bool] = lambda _: True,
    on_error: OnError = refuse,
) -> list[Case]:
    """Return the volumes, or the cines, to predict.

    Args:
        path: a `cases.csv`, a NIfTI or DICOM file, or a folder that holds a `cases.csv`, NIfTI
            files (masks are left aside) or the DICOM files of one short-axis cine.
        whole_cines: one case a cine, as `CineDataModule` takes it.
        one_phase: refuse what has phases, as `T1DataModule` does.
        takes: whether an image in a folder is of the kind that is predicted, by its file name.
        on_error: of a row of the table, or of a NIfTI file in a folder, which is then left out.

    Returns:
        One case a volume, named after file or folder; else a 4-D file gives one case a phase.

    Raises:
        UserError: there is nothing to read; a cine is wanted and there is one phase, or one volume
            and there are several.
    """
    of_volume = one_volume if one_phase else split_frames
    if path.suffix == ".csv" or (path / TABLE).is_file():
        of_row = cine_table.cases_of if whole_cines else lambda row: of_volume(case_of(row))
        known = cine_table.KNOWN if whole_cines else OPTIONAL
        return read_table(path, lambda row: _but_for_the_mask(row, of_row), on_error, known)
    of_image = cine_table.whole_cine if whole_cines else of_volume
    if path.is_file():
        return of_image(_of_file(path))
    if not path.is_dir():
        raise UserError("no such file or folder", where=f"--input {path}", fix="correct the path")
    files = sorted(file for file in path.iterdir() if is_nifti(file))
    if not files:
        return of_image(_of_dicom_folder(path))
    images = [file for file in files if not _MASK.fullmatch(stem_of(file)) and takes(file.name)]
    if not images:
        raise UserError(
            f"{len(files)} NIfTI files, and none is an image that this run was trained for",
            where=f"--input {path}",
            fix="give the images, or one file by its name",
        )
    return _of_files(images, of_image, on_error)


def _but_for_the_mask(row: Row, of_row: Callable[[Row], list[Case]]) -> list[Case]:
    """Return the cases of a row whose mask may be absent, or of another shape.

    It has no part in a prediction; it is named so that nothing is written over it.
    """
    named = row.values.get("mask")
    lies = (row.folder / named,) if named else ()
    image = row._replace(values={**row.values, "mask": ""})
    return [replace(case, mask=lies) for case in of_row(image)]


def _of_files(
    images: Sequence[Path], of_image: Callable[[Case], list[Case]], on_error: OnError
) -> list[Case]:
    cases: list[Case] = []
    for file in images:
        try:
            cases += of_image(_of_file(file))
        except UserError as error:
            on_error(error)
    return cases


def find_masks(path: Path) -> list[Case]:
    """Return the cases whose masks are references.

    Args:
        path: a `cases.csv`, or a folder that holds one, or a folder of masks `<case_id>.nii.gz`
            or `<case_id>_mask.nii.gz`; there `<patient>_ED`, `<patient>_ES`, `<patient>_ph<n>`
            and `<patient>_frame<n>` are phases of one patient, and so are those of a 4-D file.

    Returns:
        Cases with masks; without images where a folder of masks was given.

    Raises:
        UserError: there is nothing to read.
    """
    if path.suffix == ".csv" or (path / TABLE).is_file():
        return read_table(path, lambda row: _references(case_of(row)))
    files = sorted(f for f in path.iterdir() if is_nifti(f)) if path.is_dir() else []
    if not files:
        raise UserError(
            "neither cases.csv nor NIfTI masks", where=f"--reference {path}", fix="correct the path"
        )
    return [case for file in files for case in _of_mask(file)]


def _references(case: Case) -> list[Case]:
    """Return one case a phase, or one of a whole cine that has one mask, as of an infarct."""
    if case.mask[:1] and case.mask[0] is not None and named_nifti(case.mask[0]):
        named, phases = with_phases(case)
        if len(phases) > 1 and len(shape_of(case.mask[0])) == 3:
            return [replace(named, image=())]
    return split_frames(case)


def _of_mask(file: Path) -> list[Case]:
    """Return the case of a mask, or one a phase of a 4-D file."""
    name = stem_of(file).removesuffix("_mask").removesuffix("_gt")
    found = _PHASE.fullmatch(name)
    patient, phase = (found[1], found[2] or found[3]) if found else (name, "")
    if phase.isdigit():
        phase = str(int(phase))
    case = Case(case_id=name, patient_id=patient, image=(), mask=(file,), phase=phase)
    try:
        count = len(phases_in(file))
    except UserError:  # a damaged file is a finding, once it is scored
        return [case]
    if count < 2:
        return [case]
    return [
        replace(case, case_id=name_of_phase(name, t), frame=t, phase=str(t)) for t in range(count)
    ]


def _of_file(path: Path) -> Case:
    name = re.sub(r"\.dcm$", "", stem_of(path), flags=re.IGNORECASE)
    _refuse_unreadable(name)
    return Case(case_id=name, patient_id=name, image=(path,))


def _of_dicom_folder(folder: Path) -> Case:
    name = folder.resolve().name
    if not phases_in(folder):
        raise UserError(
            "neither cases.csv, NIfTI nor DICOM in it", where=f"--input {folder}", fix="give images"
        )
    _refuse_unreadable(name)
    return Case(case_id=name, patient_id=name, image=(folder,))


def _refuse_unreadable(name: str) -> None:
    """Refuse a name whose bytes are no text, as archives of other systems unpack umlauts.

    No table and no picture could hold it.
    """
    if not name.isprintable():
        shown = name.encode("utf-8", "replace").decode("utf-8")
        raise UserError(f"{shown!r} is no readable name", where="--input", fix="rename the file")
