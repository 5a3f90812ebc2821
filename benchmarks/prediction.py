"""Prediction of a 4-D study on a CPU, from files to files: ours against nnU-Net v2.

    python -m benchmarks prediction --nnunet BIN [--experiment mtn_uncertainty]
        [--precision bf16-mixed] [--rounds 5]

BIN is the folder of commands of an environment that has nnunetv2; ours never needs it. The study is
a phantom of 12 slices of 256 x 256 and 25 phases: one 4-D file for `cardiac-mtl predict`, the same
voxels as 25 files for `nnUNetv2_predict`. Each time a new process, from before it starts to its
end: imports, weights, reading, resampling, network, masks on the grid of the files.

- Ours computes in the precision of its training, `--precision`, in bf16 only where the processor
  has it. It also keeps the largest component and writes `predictions.csv` with the areas of slices.
  It takes the window of its experiment, 192 x 192 pixels of 1.5625 mm, not the whole image.
- nnU-Net: configuration 2d as it plans it for six phantom hearts of one phase, one fold in place
  of its five, float32, which is all that it has on a CPU, one patch a slice. Its defaults, which
  mirror along both axes; and `--disable_tta`. `nnUNet_npp` and `nnUNet_nps` set the number of its
  worker processes, else 3 + 3.

Both have the threads that torch takes here (`OMP_NUM_THREADS` sets them); nnU-Net's own limit of
eight is lifted. Neither is trained: nnU-Net has its initial weights, ours took one step.
`--experiment` takes overlays too, as `mtn_uncertainty+cpu_small`.
"""

import csv
import json
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np

from benchmarks.common import OURS, options_of, paired, positive, ratios, spread, timed, write
from benchmarks.nnunet import NNUNet, channel_of, lay_out
from cardiac_mtl.contracts import CineStudy
from cardiac_mtl.phantom_files import write_cohort
from cardiac_mtl.phantoms.cohort import make_cohort
from cardiac_mtl.predictor import Predictor
from cardiac_mtl.runs import BEST, find_run, read_identity
from data_modules import manifest
from data_modules.nifti import TOLERANCE, load_nifti

SEED = 33
"""Of the study: 12 slices of 256 x 256, in pixels no larger than those that nnU-Net plans, so that
it needs one patch a slice; a heart of seed 14, 2 % coarser, would take it four."""
PATIENTS = 6
"""Of the cohort that nnU-Net plans for, and that ours takes its step on."""
_ONE_STEP = {
    "trainer.max_epochs": 1,
    "trainer.limit_train_batches": 1,
    "trainer.limit_val_batches": 1,
    "trainer.check_val_every_n_epoch": 1,
    "trainer.accelerator": "cpu",
    "data.batch_size": 2,
}


def main() -> None:
    """Make the study and both models, measure, check and write."""
    parser = options_of(__doc__)
    parser.add_argument("--nnunet", type=Path, required=True, metavar="BIN")
    parser.add_argument("--experiment", default="mtn_uncertainty")
    parser.add_argument("--precision", default="bf16-mixed", choices=["bf16-mixed", "32-true"])
    parser.add_argument("--phases", type=positive, default=25)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        study = make_study(options.phases)
        files = write_study(root / "study", study)
        theirs = Theirs(root / "nnunet", options.nnunet.absolute(), files)
        ours = Ours(root / "ours", options.experiment, options.precision, files.cine)
        measured = paired(
            options.rounds,
            {
                "ours": ours.predict,
                "nnunet": theirs.predict,
                "nnunet_without_mirroring": lambda: theirs.predict("--disable_tta"),
            },
        )
    write(
        "prediction",
        {
            "experiment": options.experiment,
            "study": {"shape": study.image.shape, "spacing_mm": spacing_of(study)},
            "nnunet_over_ours": ratios(measured["nnunet"], measured["ours"]),
            "nnunet_without_mirroring_over_ours": ratios(
                measured["nnunet_without_mirroring"], measured["ours"]
            ),
            **{f"{name}_s": spread(times) for name, times in measured.items()},
            "ours": ours.described,
            "nnunet": theirs.described,
        },
        options,
        variant=f"{options.experiment}+{ours.described['precision']}",
    )


class Files(NamedTuple):
    """One study, twice."""

    cine: Path
    """A 4-D file."""
    volumes: Path
    """A folder with a file for each phase, as nnU-Net names them."""


class Ours:
    """A run of one step.

    Args:
        root: folder to fill.
        experiment: one of `mtn_*`, with overlays after `+`.
        precision: of its step, and so of its predictions.
        cine: the 4-D file to predict.
    """

    def __init__(self, root: Path, experiment: str, precision: str, cine: Path) -> None:
        self.root, self.cine = root, cine
        root.mkdir()
        write_cohort("lvsc", root / "hearts", PATIENTS, seed=0, phases=1)
        given = {"data.root": root / "hearts", "data.cache_dir": root / "cache"}
        given |= {"trainer.precision": precision}
        words = [f"--config={name}" for name in experiment.split("+")]
        words += [f"--{key}={value}" for key, value in (_ONE_STEP | given).items()]
        timed([*OURS, "fit", *words, f"--run_root={root / 'runs'}"], root / "fit.log")
        self.run = find_run(root / "runs")
        predictor = Predictor(self.run, self.run / BEST, "cpu")
        self.described = {
            "parameters": sum(p.numel() for p in predictor.paper.parameters()),
            "window": list(predictor.data.matrix),
            "spacing_mm": predictor.data.spacing_mm,
            "precision": read_identity(self.run)["precision"],
        }

    def predict(self) -> float:
        """Return the seconds of one prediction."""
        with tempfile.TemporaryDirectory(dir=self.root) as out:
            words = ["--run", str(self.run), "--input", str(self.cine), "--output", out]
            log = self.root / "predict.log"
            seconds = timed([*OURS, "predict", *words, "--device", "cpu"], log)
            check([*Path(out).glob("*_mask.nii.gz")], self.cine)
        return seconds


class Theirs(NNUNet):
    """A model of nnU-Net with its initial weights.

    Args:
        root: folder to fill.
        commands: folder of nnU-Net's commands and of its Python.
        files: to predict.
    """

    def __init__(self, root: Path, commands: Path, files: Files) -> None:
        super().__init__(root, commands)
        self.files = files
        write_raw(self.raw, make_cohort(PATIENTS, phases=1, seed=0))
        self.plan()
        self.trainer("initial")
        self.described = json.loads(self.log.read_text(encoding="utf-8").splitlines()[-1])

    def predict(self, *words: str) -> float:
        """Return the seconds of one prediction."""
        with tempfile.TemporaryDirectory(dir=self.root) as out:
            files = ["-i", str(self.files.volumes), "-o", out]
            model = ["-d", "1", "-c", "2d", "-f", "0", "-device", "cpu"]
            seconds = self.timed("nnUNetv2_predict", *files, *model, *words)
            check([*Path(out).glob("*.nii.gz")], self.files.cine)
        return seconds


def make_study(phases: int) -> CineStudy:
    """Return the phantom to predict, (T, 12, 256, 256)."""
    (study,) = make_cohort(1, phases, SEED)
    return study


def spacing_of(study: CineStudy) -> list[float]:
    """Return the millimetres between slices, rows and columns."""
    return np.linalg.norm(study.affine[:3, :3], axis=0)[::-1].round(4).tolist()


def write_study(root: Path, study: CineStudy) -> Files:
    """Write a study as one 4-D file and as a file for each phase, without masks."""
    written = write_volumes(root, [study])
    volumes = root / "volumes"
    volumes.mkdir()
    for number, (image, _) in enumerate(written):
        image.rename(volumes / channel_of(case_of(number)))
    cine = root / "study.nii.gz"
    images = [load_nifti(path) for path in sorted(volumes.iterdir())]
    voxels = np.stack([np.asarray(image.dataobj) for image in images], axis=-1)
    nib.nifti1.Nifti1Image(voxels, images[0].affine).to_filename(cine)
    return Files(cine, volumes)


def write_raw(root: Path, studies: Iterable[CineStudy]) -> None:
    """Write studies as a data set in nnU-Net's raw layout, a case for each phase."""
    written = write_volumes(root, studies)
    places = lay_out(root, [case_of(number) for number in range(len(written))])
    for volume, place in zip(written, places, strict=True):
        for source, target in zip(volume, place, strict=True):
            source.rename(target)


def write_volumes(root: Path, studies: Iterable[CineStudy]) -> list[tuple[Path, Path]]:
    """Write image and mask of each phase, as the table of a manifest names them; return them."""
    manifest.write_layout(root, studies)
    with (root / manifest.TABLE).open(encoding="utf-8", newline="") as file:
        return [(root / row["image"], root / row["mask"]) for row in csv.DictReader(file)]


def case_of(number: int) -> str:
    """Return what a phase is called as a case of nnU-Net."""
    return f"case_{number:03d}"


def check(masks: Sequence[Path], cine: Path) -> None:
    """Compare masks with the file that they were predicted from.

    Args:
        masks: one 4-D file, or one file a phase.
        cine: the 4-D image.

    Raises:
        SystemExit: they are not one mask a phase in the geometry of the image.
    """
    image = load_nifti(cine)
    found = [load_nifti(path) for path in masks]
    volumes = sum(mask.shape[3] if len(mask.shape) == 4 else 1 for mask in found)
    if volumes != image.shape[3]:
        raise SystemExit(f"masks of {volumes} volumes in place of {image.shape[3]}")
    for path, mask in zip(masks, found, strict=True):
        if mask.shape[:3] != image.shape[:3] or not np.allclose(
            mask.affine, image.affine, atol=TOLERANCE
        ):
            raise SystemExit(f"{path.name} has another geometry than {cine.name}")
