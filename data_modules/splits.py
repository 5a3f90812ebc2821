"""Which patients train, validate and test: grouped, stratified, hashed, saved."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path

from cardiac_mtl.errors import UserError


@dataclass(frozen=True)
class Split:
    """The patients of each part of one fold; no patient is in two parts."""

    fold: int
    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]


def make_splits(
    strata: Mapping[str, str], num_folds: int, seed: int = 0, val_fraction: float = 0.1
) -> list[Split]:
    """Deal patients to the folds of a cross-validation.

    Patients are shuffled within their stratum by a hash of seed and name, so that the order of
    the input and the machine do not matter, and dealt in turn, going on from stratum to stratum:
    every stratum and the whole are balanced within one patient. The validation part takes its
    share of every stratum of what is left.

    Args:
        strata: patient to stratum, such as the pathology.
        num_folds: at least 2.
        seed: another seed, another dealing.
        val_fraction: share of the patients outside the test part, at least one patient.

    Returns:
        One split a fold; each patient is tested exactly once.

    Raises:
        UserError: fewer patients than a fold needs, or a fraction outside 0..1.
    """
    if num_folds < 2 or len(strata) < num_folds or not 0 < val_fraction < 1:
        raise UserError(
            f"{len(strata)} patients in {num_folds} folds, {val_fraction:g} of them to validate",
            where="data.num_folds",
            fix="give at least 2 folds, a patient or more each, and a fraction between 0 and 1",
        )
    dealt = list(chain.from_iterable(_shuffled(strata, seed)))
    splits = []
    for fold in range(num_folds):
        test = dealt[fold::num_folds]
        rest = [patient for patient in dealt if patient not in set(test)]
        val = _every_stratum(rest, strata, val_fraction, f"{seed}:{fold}")
        if len(val) == len(rest):
            raise UserError(
                f"no patient is left to train on in fold {fold}",
                where="data.num_folds",
                fix="give more patients",
            )
        train = [patient for patient in rest if patient not in set(val)]
        splits.append(Split(fold, *(tuple(sorted(part)) for part in (train, val, test))))
    return splits


def check_fold(fold: int, num_folds: int) -> None:
    """Refuse a fold that does not exist; -1 would quietly be the last one.

    Raises:
        UserError: see above.
    """
    if not 0 <= fold < num_folds:
        raise UserError(
            f"fold {fold} of {num_folds}",
            where="data.fold",
            fix=f"choose from 0 to {num_folds - 1}",
        )


def digest(splits: Sequence[Split]) -> str:
    """Return the sha256 of all folds, the same on every machine."""
    text = json.dumps([asdict(split) for split in splits], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def save_splits(path: Path, name: str, splits: Sequence[Split], seed: int) -> None:
    """Write all folds with their hash as JSON, whole or not at all.

    Args:
        path: `*.json`.
        name: of the data set.
        splits: all folds.
        seed: that dealt them.
    """
    content = {
        "name": name,
        "num_folds": len(splits),
        "seed": seed,
        "sha256": digest(splits),
        "folds": [asdict(split) for split in splits],
    }
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)


def _shuffled(strata: Mapping[str, str], seed: int) -> list[list[str]]:
    """Return the patients of each stratum in an order that only the seed decides."""
    names = sorted(set(strata.values()))
    return [
        sorted((p for p, s in strata.items() if s == name), key=lambda p: _hash(f"{seed}:{p}"))
        for name in names
    ]


def _every_stratum(
    patients: Sequence[str], strata: Mapping[str, str], fraction: float, seed: str
) -> list[str]:
    """Choose a share of the patients, at even distances along the sorted strata."""
    ordered = sorted(patients, key=lambda p: (strata[p], _hash(f"{seed}:{p}")))
    count = max(1, round(fraction * len(ordered)))
    return [ordered[int((k + 0.5) * len(ordered) / count)] for k in range(count)]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
