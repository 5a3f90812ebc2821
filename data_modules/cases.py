"""The case table: one row a volume, whatever the data set. Checked before anything is read."""

from dataclasses import dataclass
from pathlib import Path

from cardiac_mtl.contracts import UNLABELLED


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
