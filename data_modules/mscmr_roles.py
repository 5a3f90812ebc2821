"""Who trains and who is tested in MS-CMRSeg, from which masks there are; and the cases of training.

Every LGE volume is a case as it is, for validation and test. Training reads cases of its own,
made of these: crops of labelled volumes, and volumes under masks of other sequences.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cardiac_mtl.errors import UserError
from data_modules.cases import Case
from data_modules.mscmr_files import TARGET
from data_modules.splits import Split

SOURCES = ("C0", "T2")
"""The sequences whose masks help."""
TESTED = 0.4
"""Share of the labelled patients that `table1` tests [paper: 2 of 5]."""
MASKS = "masks"
"""Column of the case table: `own`, `other sequences` or `none`."""


@dataclass(frozen=True)
class Roles:
    """Patients with an LGE volume, by the masks that they have."""

    own: tuple[str, ...]
    """With a mask of their LGE volume, by number."""
    carried: tuple[str, ...]
    """Without, but with one of another sequence."""
    none: tuple[str, ...]
    """With neither."""

    @property
    def others(self) -> tuple[str, ...]:
        """Patients whose LGE volume has no mask that may be trained on."""
        return self.carried + self.none

    def as_published(self, *, transfer: bool) -> Split:
        """Train on all labelled patients, test all others (Tables 2 and 3).

        Raises:
            UserError: there are no others.
        """
        if not self.others:
            raise UserError(
                f"all {len(self.own)} patients have an LGE mask: nobody is left to test",
                where="data.protocol",
                fix="choose `folds` or `table1`",
            )
        transductive = _sorted(self.carried) if transfer else ()
        return Split(0, _sorted(self.own), (), _sorted(self.others), transductive)

    def validation_experiment(self, *, transfer: bool) -> Split:
        """Train on the first labelled patients, test the last (Table 1); nobody is in both.

        Raises:
            UserError: there are fewer than two.
        """
        tested = max(1, round(TESTED * len(self.own)))
        train, test = self.own[:-tested], self.own[-tested:]
        if not train:
            raise UserError(
                f"{len(self.own)} patients have an LGE mask",
                where="data.protocol",
                fix="`table1` needs two: choose `roles`, or add masks",
            )
        return Split(0, _sorted(train + (self.carried if transfer else ())), (), _sorted(test))


def roles_of(lge: Sequence[Case]) -> Roles:
    """Sort the patients of some LGE volumes by the masks that they have, see `with_roles`."""
    patients = {
        kind: tuple(sorted((c.patient_id for c in lge if c.other[MASKS] == kind), key=_numbered))
        for kind in ("own", "other sequences", "none")
    }
    return Roles(patients["own"], patients["other sequences"], patients["none"])


def with_roles(cases: Sequence[Case], withheld: Mapping[str, Path]) -> list[Case]:
    """Say of every volume which masks its patient has, and add the withheld ones.

    Args:
        cases: every volume of the data set.
        withheld: case to a mask that is there for scoring alone; those of LGE count.
    """
    kinds = dict.fromkeys((case.patient_id for case in cases), "none")
    kinds |= {c.patient_id: "other sequences" for c in cases if c.sequence in SOURCES and _mask(c)}
    kinds |= {c.patient_id: "own" for c in cases if c.sequence == TARGET and _mask(c)}
    found = []
    for case in cases:
        one = replace(case, other={**case.other, MASKS: kinds[case.patient_id]})
        if case.sequence == TARGET and not _mask(case) and case.case_id in withheld:
            one = replace(one, mask=(withheld[case.case_id],), withheld=True)
        found.append(one)
    return found


def cases_of_training(cases: Sequence[Case], crop_groups: int, *, transfer: bool) -> list[Case]:
    """Return what training may read: no withheld mask, and no volume as it is.

    Args:
        cases: every volume, from `with_roles`.
        crop_groups: crops of each labelled LGE volume.
        transfer: whether LGE volumes without a mask of their own get those of other sequences.
    """
    made = []
    volumes = {(case.patient_id, case.sequence): case for case in cases}
    for lge in (case for case in cases if case.sequence == TARGET):
        if lge.other[MASKS] == "own":
            made += [
                replace(lge, case_id=f"{lge.case_id}_crop{k}", crop=k) for k in range(crop_groups)
            ]
        elif transfer:
            sources = (volumes.get((lge.patient_id, name)) for name in SOURCES)
            made += [_under_mask_of(lge, one) for one in sources if one and _mask(one)]
    return made


def _under_mask_of(lge: Case, source: Case) -> Case:
    return replace(
        lge,
        case_id=f"{lge.case_id}_from_{source.sequence}",
        mask=source.mask,
        source=source.image,
        transferred=source.sequence,
        crop=0,
        withheld=False,
    )


def _mask(case: Case) -> Path | None:
    return case.mask[0] if case.mask else None


def _numbered(patient: str) -> tuple[int, str]:
    """Sort `patient10` after `patient9`."""
    digits = re.findall(r"\d+", patient)
    return int(digits[-1]) if digits else 0, patient


def _sorted(patients: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted(patients))
