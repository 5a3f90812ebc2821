"""The case table: one row a volume, whatever the data set. Checked before anything is read."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cardiac_mtl.contracts import UNLABELLED
from cardiac_mtl.errors import UserError


@dataclass(frozen=True)
class Case:
    """One volume: a patient, at one phase, in one sequence."""

    case_id: str
    """Unique and pseudonymous; it names output files."""
    patient_id: str
    """The group that never crosses a split; pseudonymous."""
    image: tuple[Path, ...]
    """One volume file, or one file a slice, base to apex."""
    mask: tuple[Path | None, ...] = ()
    """As `image`; None where a slice has no annotation, empty where the case has none."""
    frame: int | None = None
    """Phase number within a 4-D file, None for a 3-D one."""
    phase: str = ""
    """`ED`, `ES`, or the number of the phase."""
    sequence: str = ""
    pathology: str = ""
    centre: str = ""
    vendor: str = ""
    label: int = UNLABELLED


COLUMNS = (
    "case_id", "patient_id", "phase", "sequence", "pathology", "centre", "vendor", "label",
)  # fmt: skip
"""Columns of the case table."""


def case_table(cases: Sequence[Case]) -> pd.DataFrame:
    """Return the table that splits and evaluation read: row i is case i, no paths."""
    rows = [[getattr(case, column) for column in COLUMNS] for case in cases]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def check_cases(cases: Sequence[Case], root: Path) -> None:
    """Refuse a data set without cases, and two cases of one name.

    Args:
        cases: of the whole data set.
        root: where they were sought.

    Raises:
        UserError: see above.
    """
    if not cases:
        raise UserError("no case found", where=str(root), fix="check `data.root`")
    counts = Counter(case.case_id for case in cases)
    if doubled := [case_id for case_id, count in counts.items() if count > 1]:
        raise UserError(
            f"case_id {doubled[0]!r} occurs {counts[doubled[0]]} times",
            where=str(root),
            fix="give every case its own",
        )
