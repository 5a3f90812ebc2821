"""Which patients are in which part: the one place that knows all the ways to deal them."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cardiac_mtl.errors import UserError
from data_modules.splits import Split, leave_one_out, make_splits, read_splits, thin


@dataclass(frozen=True)
class Folds:
    """How patients are dealt to folds; see the arguments of `CardiacDataModule`."""

    num_folds: int
    seed: int
    val_fraction: float
    stratify_by: str
    leave_out: str
    splits_file: Path | None
    train_fraction: float

    def deal(self, table: pd.DataFrame) -> list[Split]:
        """Return the folds of a case table.

        Raises:
            UserError: a column is missing, a patient would be in two parts, or the file of folds
                is not of these patients.
        """
        strata = _by_patient(table, self.stratify_by, "stratify_by") if self.stratify_by else {}
        strata = strata or dict.fromkeys(table["patient_id"].astype(str), "")
        if self.splits_file is not None:
            splits = read_splits(self.splits_file, list(strata))
        elif self.leave_out:
            groups = _by_patient(table, self.leave_out, "leave_out")
            splits = leave_one_out(groups, strata, self.seed, self.val_fraction)
        else:
            splits = make_splits(strata, self.num_folds, self.seed, self.val_fraction)
        return [thin(split, self.train_fraction, strata, self.seed) for split in splits]


def _by_patient(table: pd.DataFrame, column: str, key: str) -> dict[str, str]:
    """Return the value of a column for each patient."""
    if column not in table:
        raise UserError(
            f"no column {column!r} in the case table",
            where=f"data.{key}",
            fix=f"choose from {', '.join(table.columns)}",
        )
    values = table[column].astype(str).groupby(table["patient_id"].astype(str))
    several = values.nunique()
    if key == "leave_out" and several.max() > 1:
        patient = str(several.idxmax())
        raise UserError(
            f"patient {patient!r} has more than one {column}, and would be in two parts",
            where=f"data.{key}",
            fix="choose a column that is the same for all cases of a patient",
        )
    # of several the first by name, not by row: the order of the table must not change the folds
    return {str(patient): _first_known(found) for patient, found in values}


def _first_known(values: Iterable[str]) -> str:
    """Return the first by name of the values that are not empty."""
    return min(filter(None, values), default="")
