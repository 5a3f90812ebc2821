"""Training to a Dice on real hearts, on a CPU: seconds of ours against nnU-Net v2, same patients.

    python -m benchmarks training --data HEARTS --nnunet BIN [--fold 0] [--epochs 10]
        [--experiment mtn_uncertainty+cpu_small]

HEARTS holds a `cases.csv`; BIN is the folder of commands of an environment with nnunetv2. One fold,
one run of each: an hour of nnU-Net has no five repeats.

- Ours is `cardiac-mtl fit` as a user starts it, one callback added, on the training patients of the
  fold; its validation patients choose the checkpoint. nnU-Net, 2d as it plans it for all these
  files, trains on both: its choice of a checkpoint is not used here. Its learning rate falls over
  `--epochs` of its own 250 iterations, in place of its 1000.
- Both are scored on the test patients: Dice of each whole volume on the grid where the network
  predicts, without postprocessing, as each predicts for a user: nnU-Net's the mean of four mirrored
  predictions, ours of one, with the averaged weights that its validation uses. The curve measures
  speed: nothing is selected on it. Ours is scored at each of its validations, nnU-Net every 50
  iterations.
- Seconds are those of training, from the start of the first epoch, without any scoring, and of
  nnU-Net without validation, checkpoints and pictures. Ours are also given from before the command
  starts, with imports, preparation of the files and its own validation. The time to a level is that
  of the first score at or above it.

Ours computes in bfloat16 where its experiment says so and the processor can; nnU-Net has float32 on
a CPU. Both have the threads that torch takes here (`OMP_NUM_THREADS`); nnU-Net's workers, as many
as there are cores unless `nnUNet_n_proc_DA` says otherwise, come on top of them.

The two sides can be measured one after the other, each on a quiet machine: `--only nnunet` with
`--nnunet-curve FILE` writes FILE alone; FILE without `--nnunet` is read, and refused where it says
that it is of another machine or was stopped. It has a line of JSON for each score, with `epoch`,
`seconds`, `mean` and `cases`; other lines hold facts, such as `threads`.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import SimpleITK as sitk
import torch
from lightning import Callback, LightningModule, Trainer
from typing_extensions import override

from benchmarks.common import OURS, machine, options_of, positive, timed, write
from benchmarks.nnunet import NNUNet, check_comparable, lay_out
from cardiac_mtl.contracts import Batch
from cardiac_mtl.evaluation.collect import CaseCollector
from cardiac_mtl.metrics.overlap import dice
from cardiac_mtl.papers.base import Paper
from cardiac_mtl.runs import find_run, read_identity
from data_modules.base import CardiacDataModule
from data_modules.manifest import ManifestDataModule
from data_modules.readers import read_volume

TARGET = 0.82
LEVELS = (0.70, 0.75, 0.78, 0.80, TARGET)
ITERATIONS = 250
"""Of an epoch of nnU-Net."""


class Point(NamedTuple):
    """A score of the test patients."""

    epoch: int
    """Under way or just ended, from 0."""
    seconds: float
    """Of training until then."""
    mean: float
    """Dice."""
    worst: float
    command: float | None = None
    """Seconds since before the command started; None where nobody measured it."""


class Curve(NamedTuple):
    """All scores of a training, in the order of time."""

    points: list[Point]
    cases: frozenset[str]
    """That were scored."""
    facts: dict[str, Any]


def main() -> None:
    """Train, score, compare and write."""
    options = parsed()
    data = ManifestDataModule(options.data, fold=options.fold)
    data.find_and_split()
    theirs, ours = None, None
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        if options.nnunet is not None:
            kept = options.nnunet_curve or root / "nnunet.jsonl"
            train_nnunet(root / "nnunet", options.nnunet.absolute(), data, kept, options.epochs)
            theirs = read_curve(kept)
        elif options.nnunet_curve is not None:
            theirs = read_curve(options.nnunet_curve)
        if theirs is not None:
            check_cases(theirs, data)
            check_comparable(theirs.facts)
        if options.only == "nnunet":
            return
        ours = train_ours(root / "ours", options.experiment, data)
        check_cases(ours, data)
    said = {"experiment": options.experiment, "fold": options.fold, "hearts": described(data)}
    write("training", said | compared(ours, theirs), options, variant=options.experiment)


def parsed() -> argparse.Namespace:
    """Return the options, which say where nnU-Net's side comes from."""
    parser = options_of(__doc__, rounds=False)
    parser.add_argument("--data", type=Path, required=True, metavar="HEARTS")
    parser.add_argument("--nnunet", type=Path, metavar="BIN")
    parser.add_argument("--nnunet-curve", type=Path, metavar="FILE")
    parser.add_argument("--only", choices=["ours", "nnunet"])
    parser.add_argument("--experiment", default="mtn_uncertainty+cpu_small")
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--epochs", type=positive, default=10, help="of nnU-Net [10]")
    options = parser.parse_args()
    if options.only == "ours":
        options.nnunet = options.nnunet_curve = None
    elif options.nnunet is None and (options.nnunet_curve is None or options.only == "nnunet"):
        parser.error("give --nnunet BIN, or --nnunet-curve FILE, or --only ours")
    elif options.only == "nnunet" and options.nnunet_curve is None:
        parser.error("--only nnunet writes --nnunet-curve FILE: give it")
    if options.nnunet and options.nnunet_curve and options.nnunet_curve.exists():
        parser.error(f"{options.nnunet_curve} is there already: rename it, or leave out --nnunet")
    return options


class TestCurve(Callback):
    """Scores the test patients whenever `fit` validates, with the weights that it validates.

    Args:
        path: file that gets a line each time.
    """

    __test__ = False  # not a test of pytest's

    def __init__(self, path: Path) -> None:
        self.path = path

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data: CardiacDataModule = trainer.datamodule  # type: ignore[attr-defined]
        add_line(
            self.path,
            threads=torch.get_num_threads(),
            precision=trainer.precision,
            parameters=sum(p.numel() for p in pl_module.parameters()),
            batch=data.batch_size,
            patch=list(data.matrix),
            spacing_mm=data.spacing_mm,
            epochs=trainer.max_epochs,
        )
        self.started = time.monotonic()
        self.aside = self.scoring = 0.0

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.paused = time.monotonic()

    @override
    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        # by now every callback has put the weights that it wants validated in place
        if batch_idx or trainer.sanity_checking:
            return
        begun = time.monotonic()
        cases = score(trainer, pl_module)  # type: ignore[arg-type]
        add_line(
            self.path,
            epoch=trainer.current_epoch,
            seconds=self.paused - self.started - self.aside,
            clock=self.paused - self.scoring,
            mean=sum(cases.values()) / len(cases),
            cases=cases,
        )
        self.scoring += time.monotonic() - begun

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self.aside += time.monotonic() - self.paused


@torch.inference_mode()
def score(trainer: Trainer, paper: Paper) -> dict[str, float]:
    """Return the Dice of each test case by the network as it is, in the trainer's precision."""
    data: CardiacDataModule = trainer.datamodule  # type: ignore[attr-defined]
    collector = CaseCollector()
    for batch in data.test_dataloader():
        with trainer.precision_plugin.test_step_context():
            collector.update(batch, paper.test_step(batch, 0))
    names = data.case_table["case_id"]
    return {
        str(names.iloc[case.row]): dice(case.predicted == 1, case.reference == 1)
        for case in collector.cases()
    }


def train_ours(root: Path, experiment: str, data: ManifestDataModule) -> Curve:
    """Train on the fold of a data module, by the command; return the curve.

    Raises:
        SystemExit: the command fails, or dealt the patients otherwise.
    """
    root.mkdir()
    first, *overlays = experiment.split("+")
    words = [f"--config={name}" for name in (first, "manifest", *overlays)]
    words += [f"--data.root={data.root}", f"--data.fold={data.fold}", "--trainer.accelerator=cpu"]
    words += [f"--data.cache_dir={root / 'cache'}", f"--run_root={root / 'runs'}"]
    curve = root / "curve.jsonl"
    words += ["--trainer.callbacks+=benchmarks.training.TestCurve"]
    words += [f"--trainer.callbacks.path={curve}"]
    print("ours trains", flush=True)
    started = time.monotonic()  # one clock for all processes
    timed([*OURS, "fit", *words], root / "fit.log")
    if read_identity(find_run(root / "runs"))["split_sha256"] != data.split_sha256:
        raise SystemExit(f"{experiment} deals the patients to other folds")
    return read_curve(curve, started)


def train_nnunet(
    root: Path,
    commands: Path,
    data: ManifestDataModule,
    curve: Path,
    epochs: int,
    iterations: int = ITERATIONS,
) -> None:
    """Train nnU-Net on the patients of a fold that are not in its test part; write the curve."""
    nnunet = NNUNet(root, commands)
    write_raw(nnunet.raw, data)
    nnunet.plan()
    test, split = cases_of(data, data.split.test), nnunet.prepared / "splits_final.json"
    train = cases_of(data, (*data.split.train, *data.split.val))
    split.write_text(json.dumps([{"train": train, "val": test}]), encoding="utf-8")
    add_line(curve, machine=machine())
    print(f"nnU-Net trains: {curve.absolute()}", flush=True)
    nnunet.trainer("train", str(curve.absolute()), str(epochs), str(iterations))


def write_raw(raw: Path, data: ManifestDataModule) -> None:
    """Write all cases of a data module in nnU-Net's raw layout, voxels as they are."""
    places = lay_out(raw, [case.case_id for case in data.cases])
    for case, (image_file, mask_file) in zip(data.cases, places, strict=True):
        image = read_volume(case.image, case.frame)
        mask = sitk.Cast(data.read_mask(case, image) == data.labels["myocardium"], sitk.sitkUInt8)
        sitk.WriteImage(image, str(image_file))
        sitk.WriteImage(mask, str(mask_file))


def cases_of(data: ManifestDataModule, patients: Sequence[str]) -> list[str]:
    """Return the cases of some patients, sorted."""
    return sorted(case.case_id for case in data.cases if case.patient_id in patients)


def described(data: ManifestDataModule) -> dict[str, Any]:
    """Return how many patients there are in each part of the fold."""
    split = data.split
    return {
        "train": len(split.train),
        "validate": len(split.val),
        "test": len(split.test),
        "split_sha256": data.split_sha256,
    }


def add_line(path: Path, **line: object) -> None:
    """Add a line to a curve."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def read_curve(path: Path, started: float | None = None) -> Curve:
    """Read what either side wrote.

    Args:
        path: lines of JSON: scores have `epoch`, `seconds`, `mean`, `cases`, and ours `clock`.
        started: when the command was about to start, by the clock of `clock`.

    Raises:
        SystemExit: a line is no JSON or lacks something; no score is there; they do not belong
            to one training.
    """
    points, facts, scored = [], {}, set()
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            found = json.loads(line)
            if "epoch" not in found:
                facts |= found
                continue
            scored.add(frozenset(found["cases"]))
            command = None if started is None else found["clock"] - started
            worst = min(found["cases"].values())
            points.append(Point(found["epoch"], found["seconds"], found["mean"], worst, command))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SystemExit(f"{path} is no curve: {type(error).__name__} {error}") from error
    times = [point.seconds for point in points]
    if len(scored) != 1 or times != sorted(set(times)):
        raise SystemExit(f"{path} is not the curve of one training")
    return Curve(points, scored.pop(), facts)


def check_cases(curve: Curve, data: ManifestDataModule) -> None:
    """Compare what was scored with the test part of a fold.

    Raises:
        SystemExit: they differ.
    """
    if wrong := curve.cases ^ set(cases_of(data, data.split.test)):
        raise SystemExit(f"not the test cases of fold {data.fold}: {', '.join(sorted(wrong))}")


def reached(level: float, curve: Curve | None) -> Point | None:
    """Return the first score at or above a level."""
    points = curve.points if curve else []
    return next((point for point in points if point.mean >= level), None)


def compared(ours: Curve, theirs: Curve | None) -> dict[str, Any]:
    """Return the figures of both sides, and the ratio at each level that both reached."""
    return {
        "target": answer(ours, theirs),
        "levels": [at(level, ours, theirs) for level in LEVELS],
        "ours": shown(ours),
        "nnunet": shown(theirs) if theirs else None,
    }


def at(level: float, ours: Curve, theirs: Curve | None) -> dict[str, float | None]:
    """Return the seconds of both sides to a level, None where it was not reached, and the ratio."""
    mine, other = reached(level, ours), reached(level, theirs)
    both = mine is not None and other is not None
    return {
        "dice": level,
        "ours_s": mine and rounded(mine.seconds),
        "ours_from_command_s": mine and rounded(mine.command),
        "nnunet_s": other and rounded(other.seconds),
        "nnunet_over_ours": rounded(other.seconds / mine.seconds) if both else None,
    }


def answer(ours: Curve, theirs: Curve | None) -> str:
    """Return in words who reached the target when."""
    mine, other = reached(TARGET, ours), reached(TARGET, theirs)
    sides = [said("ours", ours, mine), said("nnU-Net", theirs, other)]
    if mine is not None and other is not None:
        sides.append(f"{other.seconds / mine.seconds:.3g} times sooner")
    return ", ".join([*sides, "one run of each"])


def said(name: str, curve: Curve | None, point: Point | None) -> str:
    """Return in words when one side reached the target."""
    if curve is None:
        return f"{name} not measured"
    if point is not None:
        return f"{name} {point.seconds:.0f} s"
    last = curve.points[-1]
    return f"{name} not in {last.seconds:.0f} s, then at {last.mean:.3f}"


def shown(curve: Curve) -> dict[str, Any]:
    """Return one side as the results file has it."""
    last = curve.points[-1]
    return {
        **{name: curve.facts.get(name) for name in ("threads", "parameters")},
        "final_dice": round(last.mean, 4),
        "final_worst": round(last.worst, 4),
        "final_s": rounded(last.seconds),
        **curve.facts,
        "curve": [
            {
                "epoch": point.epoch,
                "seconds": rounded(point.seconds),
                **({} if point.command is None else {"from_command_s": rounded(point.command)}),
                "mean": round(point.mean, 4),
                "worst": round(point.worst, 4),
            }
            for point in curve.points
        ],
    }


def rounded(value: float | None) -> float | None:
    """Return a number to four significant digits."""
    return None if value is None else float(f"{value:.4g}")
