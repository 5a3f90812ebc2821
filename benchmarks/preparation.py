"""Preparing an LVSC-sized data set: slices per second, reopening, memory while training.

    cardiac-mtl phantom --layout lvsc --patients 97 --phases 25 --out LVSC
    python -m benchmarks preparation LVSC [--patients 12] [--rounds 5]

Rate: ours (find, digest, read, check, resample, normalise, write) against the straight loop that
one would write (sort by position, pydicom, SimpleITK, numpy; SimpleITK has threads), on the same
patients, taking turns. Ours works on all processors, a process each; the loop is one process.
Then the whole folder is prepared once, reopened, and trained from for 300 batches in a process of
its own, whose largest resident memory is read.
"""

import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from PIL import Image

from benchmarks.common import options_of, paired, positive, ratios, write
from cardiac_mtl.console import quiet_libraries
from cardiac_mtl.memory import leave_imports_to_rest
from data_modules.stacom import StacomDataModule
from data_modules.store import PreparedStore

SIZE, SPACING = 192, 1.5625

_TRAIN = """
import sys
from cardiac_mtl.cli import main
status = main(sys.argv[1:])
from benchmarks.common import largest_resident
print("PEAK", largest_resident() / 1e9)
sys.exit(status)
"""


def main() -> None:
    """Measure and write everything."""
    parser = options_of(__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("--patients", type=positive, default=12)
    options = parser.parse_args()
    quiet_libraries()
    leave_imports_to_rest()  # as `fit` does
    with tempfile.TemporaryDirectory() as folder:
        some, cache = Path(folder) / "some", Path(folder) / "cache"
        for patient in sorted((options.root / "Training").iterdir())[: options.patients]:
            shutil.copytree(patient, some / "Training" / patient.name)
        count = len(list(some.rglob("*.dcm")))
        measured = paired(
            options.rounds,
            {
                "straight": lambda: straight_loop(some, Path(folder) / "straight"),
                "ours": lambda: prepare(some, Path(folder) / "ours", fresh=True),
            },
        )
        rates = {name: round(count / float(np.median(v)), 1) for name, v in measured.items()}
        whole = prepare(options.root, cache, fresh=True)
        slices = len(list(options.root.rglob("*.dcm")))
        reopen = [prepare(options.root, cache, fresh=False) for _ in range(5)]
        (store,) = (cache / "prepared").glob("[!.]*")
        opened = [seconds(PreparedStore, store) for _ in range(5)]
        peak = peak_memory(options.root, cache, Path(folder) / "runs")
    write(
        "preparation",
        {
            "slices_compared": count,
            "slices_per_second": rates,
            "ours_over_straight": ratios(measured["straight"], measured["ours"]),
            "whole_slices": slices,
            "whole_slices_per_second": round(slices / whole, 1),
            "open_store_s": round(float(np.median(opened)), 3),
            "find_compare_and_open_s": round(float(np.median(reopen)), 2),
            "peak_resident_gb_while_training": peak,
        },
        options,
    )


def prepare(root: Path, cache: Path, *, fresh: bool) -> float:
    """Return the seconds until our store is open."""
    if fresh:
        shutil.rmtree(cache, ignore_errors=True)
    started = time.perf_counter()
    data = StacomDataModule(root, matrix=(SIZE, SIZE), spacing_mm=SPACING, cache_dir=cache)
    data.setup("fit")
    return time.perf_counter() - started


def seconds(function: Callable[[Path], object], path: Path) -> float:
    """Return how long a call takes."""
    started = time.perf_counter()
    function(path)
    return time.perf_counter() - started


def straight_loop(root: Path, out: Path) -> float:
    """Return the seconds of the plain loop over the same files."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    started = time.perf_counter()
    for folder in sorted((root / "Training").iterdir()):
        phases: dict[int, list[Path]] = defaultdict(list)
        for file in folder.glob("*SA*.dcm"):
            phases[int(re.findall(r"_ph(\d+)", file.name)[0])].append(file)
        for phase, files in phases.items():
            slices = [(pydicom.dcmread(file), file) for file in files]
            slices.sort(key=lambda pair: float(pair[0].ImagePositionPatient[2]), reverse=True)
            pixels = np.stack([d.pixel_array for d, _ in slices]).astype(np.float32)
            masks = np.stack(
                [np.asarray(Image.open(f.with_suffix(".png"))) > 0 for _, f in slices]
            ).astype(np.uint8)
            pixels = (pixels - pixels.mean()) / pixels.std()
            first = slices[0][0]
            row, column = map(float, first.PixelSpacing)
            image = resampled(pixels, (column, row), sitk.sitkLinear)
            mask = resampled(masks, (column, row), sitk.sitkNearestNeighbor)
            np.save(out / f"{folder.name}_{phase}.npy", image.astype(np.float16))
            np.save(out / f"{folder.name}_{phase}_mask.npy", mask.astype(np.int8))
    return time.perf_counter() - started


def resampled(array: np.ndarray, spacing: tuple[float, float], interpolator: int) -> np.ndarray:
    """Resample (S, H, W) around its centre."""
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((*spacing, 8.0))
    columns, rows, slices = image.GetSize()
    half = (SIZE - 1) / 2 * SPACING
    origin = ((columns - 1) / 2 * spacing[0] - half, (rows - 1) / 2 * spacing[1] - half, 0.0)
    return sitk.GetArrayFromImage(
        sitk.Resample(
            image,
            (SIZE, SIZE, slices),
            sitk.Transform(),
            interpolator,
            origin,
            (SPACING, SPACING, 8.0),
            image.GetDirection(),
            0.0,
        )
    )


def peak_memory(root: Path, cache: Path, runs: Path) -> float:
    """Return the largest resident memory, GB, of a process that trains from the store."""
    words = ["fit", "--config", "mtn_uncertainty", "--data.root", root, "--data.cache_dir", cache]
    words += ["--run_root", runs, "--model.width", "4", "--trainer.max_epochs", "1"]
    words += ["--trainer.limit_train_batches", "300", "--trainer.limit_val_batches", "20"]
    command = [sys.executable, "-c", _TRAIN, *map(str, words)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)  # noqa: S603
    return round(float(done.stdout.partition("PEAK")[2]), 2)
