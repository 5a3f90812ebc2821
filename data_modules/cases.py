"""The case table: one row a volume, whatever the data set. Checked before anything is read."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from cardiac_mtl.contracts import UNLABELLED
from cardiac_mtl.errors import UserError
from data_modules.findings import OnError, refuse


@dataclass(frozen=True)
class Case:
    """One volume: a patient, at one phase, in one sequence; or all phases of a cine together."""

    case_id: str
    """Unique and pseudonymous; it names output files."""
    patient_id: str
    """The group that never crosses a split; pseudonymous."""
    image: tuple[Path, ...]
    """One volume file, or one file a slice, base to apex; all files of a cine that is one case."""
    mask: tuple[Path | None, ...] = ()
    """As `image`; None where a slice has no annotation, empty where the case has none."""
    myocardium: tuple[Path, ...] = ()
    """The file of the myocardium, where the mask is of something within it."""
    frame: int | None = None
    """Phase number within a 4-D file, None for a 3-D one."""
    phase: str = ""
    """`ED`, `ES`, or the number of the phase."""
    sequence: str = ""
    pathology: str = ""
    centre: str = ""
    vendor: str = ""
    label: int = UNLABELLED
    transferred: str = ""
    """Sequence of the patient that the mask was carried over from, empty where it is its own."""
    source: tuple[Path, ...] = ()
    """Files of the volume that a carried over mask was drawn on."""
    crop: int | None = None
    """Which crop for training it is; None where it is cropped as an unseen image is."""
    withheld: bool = False
    """Whether the mask is a reference that no part but the test part may read."""
    other: Mapping[str, str] = field(default_factory=dict)
    """Further columns of the source's table: folds may be stratified by them."""


COLUMNS = (
    "case_id", "patient_id", "phase", "sequence", "pathology", "centre", "vendor", "label",
)  # fmt: skip
"""Columns of the case table."""


def case_table(cases: Sequence[Case]) -> pd.DataFrame:
    """Return the table that splits and evaluation read: row i is case i, no paths."""
    rows = [{c: getattr(case, c) for c in COLUMNS} | dict(case.other) for case in cases]
    others = dict.fromkeys(column for case in cases for column in case.other)
    return pd.DataFrame(rows, columns=[*COLUMNS, *others])


def check_cases(cases: Sequence[Case], root: Path, on_error: OnError = refuse) -> None:
    """Refuse a data set without cases, and two cases of one name.

    Args:
        cases: of the whole data set.
        root: where they were sought.
        on_error: what to do with a fault.

    Raises:
        UserError: see above, unless `on_error` does otherwise.
    """
    if not cases:
        on_error(UserError("no case found", where=str(root), fix="check `data.root`"))
    for case_id, count in Counter(case.case_id for case in cases).items():
        if count > 1:
            on_error(
                UserError(
                    f"case_id {case_id!r} occurs {count} times",
                    where=str(root),
                    fix="give every case its own",
                    code="doubled_case",
                )
            )


def name_of_phase(cine: str, phase: int) -> str:
    """Return the case id of one phase of a cine.

    Examples:
        >>> name_of_phase("p7", 3)
        'p7_ph03'
    """
    return f"{cine}_ph{phase:02d}"


def name_of_cine(case_id: str) -> str:
    """Return the name of the cine that a case is a phase of; that of any other case as it is.

    Examples:
        >>> name_of_cine("p7_ph03"), name_of_cine("p7")
        ('p7', 'p7')
    """
    return re.sub(r"_ph\d+$", "", case_id)
