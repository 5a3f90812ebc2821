"""Any data set behind a `cases.csv`, one row a volume, paths relative to it.

Layout: `<root>/cases.csv` with `case_id, patient_id, image` and, as far as known, `mask, phase,
sequence, pathology, centre, vendor, label`; further columns are kept, folds may be stratified by
them. Images are 2-D, 3-D or 4-D NIfTI, or DICOM files, or folders of the DICOM files of one stack
or cine; masks are NIfTI; slices base to apex. A cine is one case a phase.
"""

import csv
import io
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import SimpleITK as sitk
from typing_extensions import override

from cardiac_mtl.contracts import UNLABELLED, CineStudy
from cardiac_mtl.errors import UserError
from data_modules.base import CardiacDataModule
from data_modules.cases import Case, name_of_cine, name_of_phase
from data_modules.dicom import identifiers
from data_modules.findings import OnError, notice, refuse
from data_modules.labels import LABELS, label_cases
from data_modules.masks import read_mask
from data_modules.privacy import pseudonym
from data_modules.readers import named_nifti, phases_in, shape_of, shape_of_volume

TABLE = "cases.csv"
REQUIRED = ("case_id", "patient_id", "image")
_MARK = "\ufeff"
OPTIONAL = ("mask", "phase", "sequence", "pathology", "centre", "vendor", "label")


class ManifestDataModule(CardiacDataModule):
    """A data set behind a `cases.csv`.

    Args:
        root: folder of the data set; without it a phantom cohort is made and used.
        label_from: column that says who is healthy, such as `pathology`, in place of `label`.
        healthy: the values of that column that are healthy, separated by commas; others are
            diseased, nothing is unknown.
        settings: see `CardiacDataModule`.
    """

    layout = "manifest"

    def __init__(
        self,
        root: Path | None = None,
        label_from: str = "",
        healthy: str = "",
        **settings: Any,  # noqa: ANN401 - of the base, which names and checks them
    ) -> None:
        super().__init__(root=root, **settings)
        self.label_from = label_from
        self.healthy = healthy

    @override
    def find_cases(self, root: Path, on_error: OnError = refuse) -> list[Case]:
        return self.labelled(find_cases(root, on_error))

    def labelled(self, cases: list[Case]) -> list[Case]:
        """Return cases with the labels of the column that says who is healthy.

        Raises:
            UserError: there is no such column, or nobody is healthy.
        """
        return label_cases(cases, self.label_from, self.healthy) if self.label_from else cases

    @override
    def read_mask(self, case: Case, image: sitk.Image) -> sitk.Image | None:
        return read_mask(case.mask, image, self.labels, case.frame) if case.mask else None


def find_cases(root: Path, on_error: OnError = refuse) -> list[Case]:
    """Read the table.

    Args:
        root: the folder that holds `cases.csv`, or that file itself.
        on_error: what to do with a fault of one row.

    Returns:
        In the order of the table; a cine gives one case a phase.

    Raises:
        UserError: the table is absent, empty or damaged, a column is misspelt; a file is absent
            or outside the folder, unless `on_error` does otherwise.
    """
    return read_table(root, lambda row: split_frames(case_of(row)), on_error)


class Row(NamedTuple):
    """One row of a table, which may become several cases."""

    values: dict[str, str]
    """By column."""
    folder: Path
    """That paths are relative to."""
    where: str
    """Of the table and the row, for messages."""


def read_table(
    root: Path,
    cases_of: Callable[[Row], Sequence[Case]],
    on_error: OnError = refuse,
    optional: Collection[str] = OPTIONAL,
) -> list[Case]:
    """Read a table of any layout.

    Args:
        root: the folder that holds `cases.csv`, or that file itself.
        cases_of: makes the cases of a row.
        on_error: what to do with a fault of one row.
        optional: columns that are not required, but known: their misspelling is noticed.

    Returns:
        In the order of the table.

    Raises:
        UserError: see `find_cases`.
    """
    if not root.exists():
        raise UserError("no such file or folder", where=str(root), fix="correct the path")
    table = root / TABLE if root.is_dir() else root
    cases: list[Case] = []
    renamed: dict[str, str] = {}
    for number, values in _rows(table, optional):
        try:
            found = cases_of(Row(values, table.parent, f"{table}, row {number}"))
        except UserError as error:
            on_error(error)
            continue
        cases += found
        patient = values["patient_id"]
        if found and found[0].patient_id != patient:
            renamed[patient] = found[0].patient_id
    # the header of one row may name the patient where those of the others do not
    return [_renamed(case, renamed) for case in cases]


def _renamed(case: Case, renamed: Mapping[str, str]) -> Case:
    """Give a patient the one pseudonym in all rows: two names would be two patients."""
    if case.patient_id not in renamed:
        return case
    cine = name_of_cine(case.case_id)
    named = pseudonym(cine, [case.patient_id]) + case.case_id.removeprefix(cine)
    return replace(case, case_id=named, patient_id=renamed[case.patient_id])


def case_of(row: Row) -> Case:
    """Return the case of a row, with its image as the row names it."""
    values, _, where = row
    return Case(
        case_id=_file_name(values["case_id"], where),
        patient_id=_patient(values["patient_id"], where),
        image=file_of(row, "image"),
        mask=file_of(row, "mask") if values.get("mask") else (),
        phase=values.get("phase", ""),
        sequence=values.get("sequence", ""),
        pathology=values.get("pathology", ""),
        centre=values.get("centre", ""),
        vendor=values.get("vendor", ""),
        label=_label(values.get("label", ""), where),
        other={k: v for k, v in values.items() if k not in {*REQUIRED, *OPTIONAL}},
    )


def file_of(row: Row, column: str) -> tuple[Path]:
    """Return the path that a row names in a column.

    Raises:
        UserError: nothing is there, or it leads out of the folder of the table.
    """
    values, folder, where = row
    name = values[column]
    if not name:
        raise UserError(f"{column} is empty", where=where, fix="name the file", code="missing_file")
    if not name.isascii() or " " in name:
        what = f"{where.rpartition(', ')[2]}: the {column} name holds a space or is not ASCII"
        notice("odd_name", folder / TABLE, f"{what}; read as it is", "note")
    return (_inside(folder, name, where),)


def split_frames(case: Case) -> list[Case]:
    """Return one case a phase of a cine, the case with its files for a single volume.

    Raises:
        UserError: the folder holds no image; the mask of a cine has another shape than its image.
    """
    (path,) = case.image
    case, phases = with_phases(case)
    if len(phases) == 1:
        files, frame = phases[0]
        return [replace(case, image=files, frame=frame)]
    for mask in filter(None, case.mask):
        if (found := shape_of(mask)) != (wanted := (*shape_of_volume(phases), len(phases))):
            raise UserError(
                f"the mask of a cine has the shape {found}, its image {wanted}",
                where=str(mask),
                fix="give a mask of every phase, or one row a phase with 3-D files",
                code="dimensions",
            )
    if case.mask and phases[0][1] is None:
        raise UserError(
            "a cine of single DICOM files cannot have a 4-D mask here",
            where=str(path),
            fix="convert it to a 4-D NIfTI, or leave the mask out",
            code="dimensions",
        )
    return [
        replace(
            case, case_id=name_of_phase(case.case_id, t), image=files, frame=frame, phase=str(t)
        )
        for t, (files, frame) in enumerate(phases)
    ]


def one_volume(case: Case) -> list[Case]:
    """Return the case with its files.

    Raises:
        UserError: the folder holds no image; the image has phases.
    """
    case, phases = with_phases(case)
    if len(phases) > 1:
        raise UserError(
            f"holds {len(phases)} phases, not one volume",
            where=str(case.image[0]),
            fix="give the volume alone: of a map not the images that it was fitted to, no cine",
            code="dimensions",
        )
    ((files, frame),) = phases
    return [replace(case, image=files, frame=frame)]


def with_phases(case: Case) -> tuple[Case, list[tuple[tuple[Path, ...], int | None]]]:
    """Return a case and the files and frame of each phase of its image, see `phases_in`.

    Names that hold a part of what a DICOM header says of the patient become pseudonyms.

    Raises:
        UserError: the folder holds no image.
    """
    (path,) = case.image
    phases = phases_in(path)
    if not phases:
        raise UserError("holds no DICOM image", where=str(path), fix="correct the row")
    if not named_nifti(path):
        known = identifiers(phases[0][0][0])
        names = {key: pseudonym(getattr(case, key), known) for key in ("case_id", "patient_id")}
        case = replace(case, **names)  # type: ignore[arg-type]
    return case, phases


def write_layout(root: Path, studies: Iterable[CineStudy]) -> None:
    """Write studies as a manifest, one row a phase; the inverse of `find_cases`.

    Args:
        root: folder to fill.
        studies: the myocardium is kept, the other classes are background.
    """
    root.mkdir(parents=True, exist_ok=True)
    with (root / TABLE).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["case_id", "patient_id", "phase", "pathology", "image", "mask"])
        for study in studies:
            for phase, (image, mask) in enumerate(zip(study.image, study.mask, strict=True)):
                case_id = name_of_phase(study.patient_id, phase)
                names = f"{case_id}_image.nii.gz", f"{case_id}_mask.nii.gz"
                _write_nifti(root / names[0], image.astype(np.int16), study)
                _write_nifti(root / names[1], (mask == 1).astype(np.uint8), study)
                writer.writerow([case_id, study.patient_id, phase, study.pathology, *names])


def _write_nifti(path: Path, array: np.ndarray, study: CineStudy) -> None:
    image = sitk.GetImageFromArray(array)
    spacing = np.linalg.norm(study.affine[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(study.affine[:3, 3].tolist())
    image.SetDirection((study.affine[:3, :3] / spacing).ravel().tolist())
    sitk.WriteImage(image, str(path))


def _rows(table: Path, optional: Collection[str]) -> list[tuple[int, dict[str, str]]]:
    """Return the rows by column, each with its line in the file."""
    text = _text(table)
    head = text.partition("\n")[0]
    delimiter = max(",;\t", key=head.count)
    # strict: a quote that is never closed would swallow the rows after it
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows = []
    try:
        reader.fieldnames = columns = [name.strip() for name in reader.fieldnames or []]
        _check_columns(columns, table, optional)
        for row in reader:
            where = f"{table}, row {reader.line_num}"
            if any(row.pop(None, [])):
                raise UserError(
                    f"more than {len(columns)} values", where=where, fix="quote what holds a comma"
                )
            values = {k: (v or "").strip() for k, v in row.items()}
            if any(values.values()):  # spreadsheets leave rows of commas behind
                rows.append((reader.line_num, values))
    except csv.Error as error:
        where = f"{table}, row {reader.line_num + 1}"  # where the row that does not end begins
        raise UserError(f"is not CSV: {error}", where=where, fix="check its quotes") from error
    if not rows:
        raise UserError("the table has no row", where=str(table), fix="list at least one case")
    return rows


def _text(table: Path) -> str:
    try:
        text = table.read_bytes().decode("utf-8")
    except FileNotFoundError as error:
        raise UserError(
            f"no {TABLE} here", where=str(table.parent), fix="check `data.root`"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"cannot be read ({type(error).__name__})", where=str(table), fix="save it as UTF-8"
        ) from error
    _note_dialect(text, table)
    if "\0" in text:
        raise UserError("holds zero bytes", where=str(table), fix="save it as UTF-8")
    return text.removeprefix(_MARK)


def _note_dialect(text: str, table: Path) -> None:
    head = text.partition("\n")[0]
    found = [
        name
        for name, there in {
            "a byte-order mark": text.startswith(_MARK),
            "semicolons or tabs": max(",;\t", key=head.count) != ",",
        }.items()
        if there
    ]
    if found:
        notice("csv_dialect", table, f"has {', '.join(found)}; read as such", "note")


def _check_columns(columns: list[str], table: Path, optional: Collection[str]) -> None:
    others = [name for name in columns if name not in {*REQUIRED, *optional}]
    for wanted in REQUIRED:
        if columns.count(wanted) == 1:
            continue
        if wanted in columns:
            raise UserError(f"two columns {wanted!r}", where=str(table), fix="rename one")
        near = get_close_matches(wanted, others, n=1, cutoff=0.5)
        there = ", ".join(columns[:8]) + (", ..." if len(columns) > 8 else "")
        hint = f"rename {near[0]!r}" if near else f"the columns are {there or 'none'}"
        raise UserError(f"no column {wanted!r}", where=str(table), fix=hint)
    for name in others:
        if near := get_close_matches(name.lower(), set(optional) - set(columns), n=1, cutoff=0.8):
            notice("column", table, f"column {name!r} is not read as {near[0]!r}: misspelt?")


def _inside(folder: Path, name: str, where: str) -> Path:
    path = folder / name
    try:
        outside = not path.resolve().is_relative_to(folder.resolve())
        found = path.exists()
    except (OSError, RuntimeError, ValueError):  # links in a circle, absurd names
        outside, found = False, False
    if outside:
        raise UserError(
            f"{_short(name)} leads out of the data folder",
            where=where,
            fix="give a path below it",
            code="path_outside",
        )
    if not found:
        raise UserError(
            f"no file {_short(name)}",
            where=where,
            fix="restore it or correct the row",
            code="missing_file",
        )
    return path


def _short(name: str) -> str:
    return repr(name if len(name) <= 200 else f"{name[:200]}...")


def _file_name(case_id: str, where: str) -> str:
    if not case_id.isprintable() or case_id[:1] in {"", "."} or set(case_id) & set('/\\:*?"<>|'):
        raise UserError(
            f"case_id {_short(case_id)} cannot name a file",
            where=where,
            fix="use letters and digits",
        )
    return case_id


def _patient(patient_id: str, where: str) -> str:
    """Refuse an empty name: all rows without one would count as one patient."""
    if not patient_id:
        raise UserError("patient_id is empty", where=where, fix="name the patient")
    return patient_id


def _label(text: str, where: str) -> int:
    if not text:
        return UNLABELLED
    if text in LABELS:
        return LABELS[text]
    try:
        number = int(float(text))  # pandas writes 1.0 where other rows have no label
        if number != float(text):
            raise ValueError(text)
        return number
    except (ValueError, OverflowError) as error:
        raise UserError(
            f"label {text!r} is neither {' nor '.join(LABELS)} nor a whole number",
            where=where,
            fix="number the classes from 0",
        ) from error
