"""`audit`: prove or refute the protocol of a run or of a file of folds, one line a claim."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from cardiac_mtl.catalogue import read_yaml
from cardiac_mtl.configuration import build, build_data
from cardiac_mtl.console import quiet_libraries, say
from cardiac_mtl.contracts import HONEST
from cardiac_mtl.errors import UserError
from cardiac_mtl.options import OptionParser
from cardiac_mtl.runs import BEST, CONFIG, PROVENANCE, find_run, read_checkpoint, read_identity
from data_modules.base import CardiacDataModule
from data_modules.splits import Split, check_disjoint, digest, read_splits

PARTS = ("train", "val", "test")
_NEAR = 0.05
"""Distance of coarse pictures that float16 leaves between two that are the same, at most."""
_SAME = 0.9995
"""Least correlation, pixel by pixel, of one picture that was rounded twice."""


class Claim(NamedTuple):
    """One thing that an honest study can say of itself."""

    name: str
    verdict: Literal["holds", "FAILS", "unknown"]
    evidence: str


def run(arguments: Sequence[str]) -> int:
    """Audit a run or a file of folds; status 1 when a claim fails."""
    quiet_libraries()
    parser = OptionParser(
        prog="cardiac-mtl audit",
        description="Prove or refute that test patients stayed out of training and of choices.",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--run", type=Path, help="run directory that `fit` made")
    what.add_argument("--splits", type=Path, help="JSON of folds")
    parser.add_argument("--config", action="append", help="with --splits: overlay of the data")
    parser.add_argument("--data.root", dest="root", type=Path, help="folder of the data")
    options = parser.parse_args(arguments[1:])
    claims = (
        audit_run(find_run(options.run), options.root)
        if options.run
        else audit_splits(options.splits, options.config, options.root)
    )
    failed = 0
    for claim in claims:
        say(f"{claim.verdict:<8} {claim.name}: {claim.evidence}")
        failed += claim.verdict == "FAILS"
    return 1 if failed else 0


def audit_splits(path: Path, configs: Sequence[str] | None, root: Path | None) -> Iterator[Claim]:
    """Judge a file of folds, and the images behind it where they are given."""
    splits, claims = _folds(path)
    yield from claims
    if not configs or root is None:
        yield Claim("images", "unknown", "give --config and --data.root to compare them")
        return
    data = build_data(configs)
    data.root = root
    if root.exists() and splits:
        data.find_and_split(splits)
        data.store = data.open_store()
    for split in splits:
        yield _images(data, split)


def audit_run(run: Path, root: Path | None) -> Iterator[Claim]:
    """Judge a run by its files, its checkpoint and its images."""
    identity = read_identity(run)
    splits, claims = _folds(run / "splits.json")
    yield from claims
    if not splits:
        return
    if identity["fold"] not in range(len(splits)):
        yield Claim("fold", "FAILS", f"run.json has fold {identity['fold']} of {len(splits)}")
        return
    split = splits[identity["fold"]]
    checkpoint = read_checkpoint(run / BEST)
    origin = checkpoint[PROVENANCE]
    yield _same_folds(splits, identity, origin)
    _, data = build(read_yaml(run / CONFIG))
    data.root = root or data.root
    yield _images(data, split)
    yield _seen(identity, split)
    if split.transductive:
        yield _transductive(identity, split)
    yield _fitted(data, checkpoint["state_dict"])
    yield _selected(identity, origin, split)
    if data.crop_asks_reference:
        yield Claim("crop", "FAILS", f"{data.crop}, which an unseen image does not have")
    else:
        yield Claim("crop", "holds", f"{data.crop}; no reference mask is asked")
    yield _tested(run, split)


def _folds(path: Path) -> tuple[list[Split], list[Claim]]:
    try:
        splits = read_splits(path, without_val=True)
    except UserError as error:
        if error.code not in {"patient_in_two_parts", "splits_changed"}:
            raise
        name = "patients" if error.code == "patient_in_two_parts" else "folds"
        return [], [Claim(name, "FAILS", error.what)]
    for split in splits:
        check_disjoint(split, str(path))
    counts = ", ".join("/".join(str(len(getattr(s, part))) for part in PARTS) for s in splits)
    tested = [patient for split in splits for patient in split.test]
    twice = len(tested) - len(set(tested))
    once = "each tested once" if not twice else f"{twice} tested in more than one fold"
    return splits, [
        Claim("patients", "holds", f"none is in two parts of a fold (train/val/test {counts})"),
        Claim("folds", "FAILS" if twice else "holds", f"{len(set(tested))} patients, {once}"),
    ]


def _same_folds(splits: Sequence[Split], identity: Any, origin: Any) -> Claim:  # noqa: ANN401 - JSON
    here = digest(splits)
    others = {"run.json": identity["split_sha256"], "the checkpoint": origin["split_sha256"]}
    differing = [name for name, sha256 in others.items() if sha256 != here]
    if differing or identity["fold"] != origin["fold"]:
        return Claim("hash", "FAILS", f"splits.json is not that of {' and '.join(differing)}")
    return Claim("hash", "holds", f"splits.json, run.json and checkpoint say {here[:12]}")


def _images(data: CardiacDataModule, split: Split) -> Claim:
    """Compare every prepared slice of every part with those of the others."""
    name = "images"
    if data.root is None or not data.root.exists():
        return Claim(name, "unknown", f"no data at {data.root}; give --data.root")
    data.fold = split.fold
    if not hasattr(data, "store"):
        data.setup("test")
    patients = data.case_table["patient_id"].astype(str).to_numpy()[data.store.case]
    part_of = {p: part for part in PARTS for p in getattr(split, part)}
    if absent := sorted(part_of.keys() - set(patients)):
        evidence = f"{len(absent)} patients are not in {data.root}, such as {absent[0]}"
        return Claim(name, "unknown", f"fold {split.fold}: {evidence}")
    parts = np.array([part_of.get(patient, "") for patient in patients])
    if alike := [
        (one, other) for one, other in _alike(data.store.image) if parts[one] != parts[other]
    ]:
        whose = (f"{patients[k]} ({parts[k] or 'no part'})" for k in alike[0])
        count = len({one for one, _ in alike})
        return Claim(
            name,
            "FAILS",
            f"fold {split.fold}: {count} slices are the same in two parts, such as one of "
            + " and ".join(whose),
        )
    return Claim(name, "holds", f"fold {split.fold}: {len(patients)} slices, none in two parts")


def _alike(images: NDArray[np.float16]) -> Iterator[tuple[int, int]]:
    """Yield the pairs of slices that are the same picture, of whatever brightness and contrast.

    The store brings volumes to mean 0 and SD 1: one slice in two volumes has other values there,
    other rounding and another contrast to its padding, so digests would not find it.

    Args:
        images: (N, ..., H, W).
    """
    varied = [k for k in range(len(images)) if images[k].min() != images[k].max()]
    if not varied:
        return
    signatures = np.stack([_coarse(images[k]) for k in varied])
    for near in sorted(cKDTree(signatures).query_pairs(_NEAR)):
        one, other = sorted(varied[k] for k in near)
        if float((_standardised(images[one]) * _standardised(images[other])).mean()) > _SAME:
            yield one, other


def _standardised(image: NDArray[np.float16]) -> NDArray[np.float32]:
    """Bring a picture to mean 0 and mean square 1; what pads it, the value of a corner, to 0."""
    inside = image != image.flat[0]
    pixels = np.where(inside, image.astype(np.float32), 0)
    centred = np.where(inside, pixels - pixels.sum() / inside.sum(), 0)
    standardised: NDArray[np.float32] = centred / np.sqrt(np.square(centred).mean() or 1)
    return standardised


def _coarse(image: NDArray[np.float16]) -> NDArray[np.float32]:
    """Return the means of a picture (..., H, W) over 8 x 8 blocks, all frames together."""
    picture = _standardised(image).reshape(-1, *image.shape[-2:]).mean(axis=0)
    rows, columns = (np.linspace(0, side, 9).astype(int)[:-1] for side in picture.shape)
    sums = np.add.reduceat(np.add.reduceat(picture, rows, axis=0), columns, axis=1)
    return sums.ravel() / (picture.size / sums.size)


def _seen(identity: Any, split: Split) -> Claim:  # noqa: ANN401 - JSON
    """Compare the patients that went through the training loop with the training part."""
    if "trained_on" not in identity:
        return Claim("training", "unknown", "the run did not record whom it saw")
    # with masks of their own, or of another sequence where the folds do not declare it
    carried = set(identity.get("transferred_on", [])) - set(split.transductive)
    found = sorted({*identity["trained_on"], *carried})
    return _within("training", found, split.train, "the training part")


def _transductive(identity: Any, split: Split) -> Claim:  # noqa: ANN401 - JSON
    """State which test patients were seen in training, as the folds declare it."""
    name = "transductive"
    if "transferred_on" not in identity:
        return Claim(name, "unknown", "the run did not record whose masks were carried over")
    seen = set(split.transductive) & set(identity["transferred_on"])
    evidence = (
        f"images of {len(seen)} test patients were trained on with masks of their other sequences, "
        "as the paper does; no mask of these images was"
    )
    return Claim(name, "holds", evidence)


def _fitted(data: CardiacDataModule, weights: Mapping[str, Any]) -> Claim:
    """Fit again what was fitted to the targets, on the training patients alone, and compare."""
    how = f"{data.intensities}, the threshold is fixed"
    if "scale.mean" not in weights:
        return Claim("fitted", "holds", f"weights alone; {how}, targets are not scaled")
    if not hasattr(data, "store"):
        return Claim("fitted", "unknown", "targets are scaled; give --data.root to fit it again")
    again = data.target_scale()
    kept = weights["scale.mean"], weights["scale.sd"]
    if all(bool((one == other).all()) for one, other in zip(kept, again, strict=True)):
        evidence = f"weights, and the scale of the targets on the training part alone; {how}"
        return Claim("fitted", "holds", evidence)
    return Claim("fitted", "FAILS", "the scale of the targets is not that of the training part")


def _selected(identity: Any, origin: Any, split: Split) -> Claim:  # noqa: ANN401 - JSON
    monitor, protocol = origin["monitor"], origin["protocol"]
    if protocol != HONEST or not (monitor is None or monitor.startswith("val/")):
        return Claim("selection", "FAILS", f"best.ckpt was chosen by {monitor}: {protocol}")
    if "validated_on" not in identity:
        return Claim("selection", "unknown", "the run did not record whom it validated on")
    if monitor is None:
        if seen := identity["validated_on"]:
            what = f"{len(seen)} patients were looked at while training, such as {seen[0]}"
            return Claim("selection", "FAILS", what)
        epochs = identity.get("epochs", "a fixed number of")
        return Claim("selection", "holds", f"the last of {epochs} epochs; no patient chose it")
    claim = _within("selection", identity["validated_on"], split.val, "the validation part")
    return claim._replace(evidence=f"best.ckpt was chosen by {monitor}; {claim.evidence}")


def _tested(run: Path, split: Split) -> Claim:
    if not (run / "cases.csv").is_file():
        return Claim("test rows", "unknown", "no cases.csv yet; run `cardiac-mtl test`")
    patients: set[str] = set()
    for name in ("cases", "labels"):  # a paper that classifies alone has no rows of masks
        if (file := run / f"{name}.csv").is_file():
            rows = pd.read_csv(file, dtype=str, keep_default_na=False)
            patients |= set(rows["patient_id"])
    if not patients:
        return Claim("test rows", "unknown", "cases.csv and labels.csv hold no row")
    return _within("test rows", sorted(patients), split.test, "the test part")


def _within(name: str, found: Sequence[str], allowed: Sequence[str], part: str) -> Claim:
    if outside := sorted(set(found) - set(allowed)):
        return Claim(name, "FAILS", f"{len(outside)} patients outside {part}, such as {outside[0]}")
    return Claim(name, "holds", f"{len(set(found))} patients, all of {part}")
