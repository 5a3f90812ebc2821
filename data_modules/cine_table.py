"""The table of cine data: one row a patient, all phases together; see `data_modules.cine`."""

import math
from dataclasses import replace
from pathlib import Path

from cardiac_mtl.errors import UserError
from cardiac_mtl.metrics.shape import INDEX_NAMES
from data_modules.cases import Case
from data_modules.findings import OnError, refuse
from data_modules.manifest import OPTIONAL, Row, case_of, file_of, read_table, with_phases
from data_modules.readers import count_slices_of_cine, refuse_still

WALL = "myocardium"
"""Column of the file that the manifest does not have."""
KNOWN = (*OPTIONAL, WALL, *INDEX_NAMES)
"""Columns that are not required."""


def find_cases(root: Path, on_error: OnError = refuse) -> list[Case]:
    """Read the table.

    Args:
        root: the folder that holds `cases.csv`, or that file itself.
        on_error: what to do with a fault of one row.

    Returns:
        One case a row, in the order of the table, with all files of its cine.

    Raises:
        UserError: as `manifest.find_cases`; an image has one phase; an index is not a number, or is
            given for several slices.
    """
    return read_table(root, cases_of, on_error, KNOWN)


def whole_cine(case: Case) -> list[Case]:
    """Return the case with all files of the cine that its image, a file or a folder, holds.

    Raises:
        UserError: it holds one phase only.
    """
    (path,) = case.image
    case, phases = with_phases(case)
    refuse_still(len(phases), path)
    files = dict.fromkeys(file for of_phase, _ in phases for file in of_phase)
    return [replace(case, image=tuple(files))]


def cases_of(row: Row) -> list[Case]:
    """Return the one case of a row.

    Raises:
        UserError: as `find_cases`.
    """
    case = case_of(row)
    other = {name: text for name, text in case.other.items() if name != WALL}
    case = replace(case, other=other, myocardium=file_of(row, WALL) if row.values.get(WALL) else ())
    (case,) = whole_cine(case)
    given = [name for name in INDEX_NAMES if row.values.get(name)]
    for name in given:
        _refuse_no_number(name, row)
    if given and (slices := count_slices_of_cine(case.image)) > 1:
        raise UserError(
            f"{', '.join(given)} given for the {slices} slices of its image",
            where=row.where,
            fix="leave them out, or give one row and one image a slice",
            code="index_of_slices",
        )
    return [case]


def _refuse_no_number(name: str, row: Row) -> None:
    text = row.values[name]
    try:
        known = math.isfinite(float(text))
    except ValueError:
        known = False
    if not known:
        raise UserError(
            f"{name} {text!r} is not a number",
            where=row.where,
            fix="give a number, or leave it empty",
            code="index_value",
        )
