"""Which patients train, validate and test: grouped, stratified, hashed, saved."""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from cardiac_mtl.errors import UserError
from cardiac_mtl.files import whole


@dataclass(frozen=True)
class Split:
    """The patients of each part of one fold; no patient is in two parts."""

    fold: int
    train: tuple[str, ...]
    val: tuple[str, ...]
    """Empty where nobody is left to choose the epoch on."""
    test: tuple[str, ...]
    transductive: tuple[str, ...] = ()
    """Patients of the test part whose images are trained on, with masks carried over from their
    other sequences; never with masks of their own."""


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


def leave_one_out(
    groups: Mapping[str, str], strata: Mapping[str, str], seed: int = 0, val_fraction: float = 0.1
) -> list[Split]:
    """Make one fold of each group, such as a centre or a vendor, which is then the test part.

    Args:
        groups: patient to group.
        strata: patient to stratum; the validation part takes its share of each.
        seed: another seed, other validation patients.
        val_fraction: share of the patients outside the test part, at least one patient.

    Returns:
        One split a group, in the order of their names.

    Raises:
        UserError: fewer than two groups, or nobody is left to train on.
    """
    names = sorted(set(groups.values()))
    if len(names) < 2 or "" in names:
        raise UserError(
            f"{len(names)} groups: {', '.join(map(repr, names))}",
            where="data.leave_out",
            fix="name a column with two values or more, filled for every patient",
        )
    splits = []
    for fold, name in enumerate(names):
        rest = [patient for patient in sorted(groups) if groups[patient] != name]
        val = _every_stratum(rest, strata, val_fraction, f"{seed}:{name}")
        train = [patient for patient in rest if patient not in set(val)]
        if not train:
            raise UserError(
                f"no patient is left to train on without {name!r}",
                where="data.leave_out",
                fix="choose another column, or k folds",
            )
        test = [patient for patient in sorted(groups) if groups[patient] == name]
        splits.append(Split(fold, tuple(train), tuple(sorted(val)), tuple(test)))
    return splits


def thin(split: Split, fraction: float, strata: Mapping[str, str], seed: int = 0) -> Split:
    """Keep a share of the training patients, for learning curves.

    Args:
        split: of one fold; validation and test stay whole.
        fraction: of each stratum, rounded up; a smaller share is part of every larger one.
        strata: patient to stratum.
        seed: another seed, another choice.

    Raises:
        UserError: the fraction is not above 0 and at most 1.
    """
    if not 0 < fraction <= 1:
        raise UserError(
            f"{fraction:g}", where="data.train_fraction", fix="give a number above 0, at most 1"
        )
    kept: list[str] = []
    for patients in _shuffled({p: strata[p] for p in split.train}, seed):
        kept += patients[: math.ceil(fraction * len(patients) - 1e-9)]
    return replace(split, train=tuple(sorted(kept)))


def read_splits(
    path: Path, patients: Sequence[str] | None = None, *, without_val: bool = False
) -> list[Split]:
    """Read folds that somebody else made.

    Args:
        path: JSON as `save_splits` writes it, or a bare list of folds, each with lists of patients
            under `train`, `val` and `test`.
        patients: all that there are; None when only the file is looked at.
        without_val: accept an empty validation part.

    Returns:
        In the order of the file.

    Raises:
        UserError: it is not such a file, a patient is in two parts of one fold or unknown, a part
            is empty, or the folds are not those that the hash in the file stands for.
    """
    content = _json(path)
    folds = content.get("folds") if isinstance(content, dict) else content
    if not isinstance(folds, list) or not folds:
        raise _unfit(path, "holds no folds")
    empty = {"val"} if without_val else set()
    splits = [_split(fold, number, path, empty) for number, fold in enumerate(folds)]
    if isinstance(content, dict) and content.get("sha256") not in {None, digest(splits)}:
        raise UserError(
            "the folds are not those of its sha256",
            where=str(path),
            fix="restore the file, or remove the line `sha256` if the change is meant",
            code="splits_changed",
        )
    for split in splits:
        check_disjoint(split, str(path))
        named = {*split.train, *split.val, *split.test}
        if patients is not None and (unknown := sorted(named - set(patients))):
            raise UserError(
                f"fold {split.fold} names {len(unknown)} patients that are not in the data, "
                f"such as {unknown[0]!r}",
                where=str(path),
                fix="correct the names; they are those of the column patient_id",
            )
    return splits


def check_disjoint(split: Split, where: str) -> None:
    """Refuse a fold that has one patient in two parts, but for those it declares transductive.

    Raises:
        UserError: see above.
    """
    counts = Counter([*split.train, *split.val, *split.test])
    if doubled := sorted(patient for patient, count in counts.items() if count > 1):
        raise UserError(
            f"patient {doubled[0]!r} is in two parts of fold {split.fold}"
            + (f", and {len(doubled) - 1} others" if len(doubled) > 1 else ""),
            where=where,
            fix="give every patient to one part",
            code="patient_in_two_parts",
        )
    if others := sorted(set(split.transductive) - set(split.test)):
        raise UserError(
            f"patient {others[0]!r} is transductive and not in the test part of fold {split.fold}",
            where=where,
            fix="list there patients of the test part alone",
        )


def take_validation(split: Split, candidates: Sequence[str], count: int, seed: int = 0) -> Split:
    """Move some training patients to the validation part, and what was there to training.

    Args:
        split: of one fold.
        candidates: who may validate; those in the test part do not.
        count: of the validation patients; 0 leaves the part empty.
        seed: another seed, another choice.

    Raises:
        UserError: nobody of the candidates would be left to train on.
    """
    rest = [*split.train, *split.val]
    able = sorted(set(candidates) & set(rest), key=lambda p: _hash(f"{seed}:{split.fold}:{p}"))
    if not 0 <= count < max(len(able), 1):
        raise UserError(
            f"{count} of {len(able)} labelled patients of fold {split.fold} to validate",
            where="data.val_patients",
            fix="leave at least one to train on",
        )
    val = able[:count]
    train = sorted(patient for patient in rest if patient not in set(val))
    return replace(split, train=tuple(train), val=tuple(sorted(val)))


def _json(path: Path) -> Any:  # noqa: ANN401 - whatever is in there
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"cannot be read ({type(error).__name__})", where=str(path), fix="give a JSON of folds"
        ) from error


def _split(fold: Any, number: int, path: Path, empty: Collection[str]) -> Split:  # noqa: ANN401 - whatever is in there
    given = fold if isinstance(fold, dict) else {}
    parts = {name: given.get(name) for name in ("train", "val", "test")}
    parts["transductive"] = given.get("transductive", [])
    for name, part in parts.items():
        may_be_empty = name == "transductive" or name in empty
        listed = isinstance(part, list) and all(isinstance(p, str) for p in part)
        if not listed or not (part or may_be_empty):
            raise _unfit(path, f"fold {number} has no list of patients under {name!r}")
    named = {name: tuple(sorted(part or [])) for name, part in parts.items()}
    return Split(number, **named)


def _unfit(path: Path, what: str) -> UserError:
    fix = 'write [{"train": [...], "val": [...], "test": [...]}, ...] with patient_ids'
    return UserError(what, where=str(path), fix=fix)


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
    text = json.dumps([_plain(split) for split in splits], sort_keys=True, separators=(",", ":"))
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
        "folds": [_plain(split) for split in splits],
    }
    with whole(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _plain(split: Split) -> dict[str, Any]:
    """Return a fold as JSON has it; nothing under `transductive` where nobody is."""
    plain = asdict(split)
    if not split.transductive:
        del plain["transductive"]  # the hashes of all other folds stay what they were
    return plain


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
