"""Carrying masks of C0 and T2 over to LGE: four modes under a growing breath-hold shift.

    python -m benchmarks transfer_modes [--patients 12] [--scale 2] [--shifts 0 2 5 10]

Phantoms of three sequences; each shift is that of LGE and of T2 away from C0, every one in a
direction of its own. Dice of each class over the volume, on the slices that the mode gives a mask
to, against the true mask of LGE; mean over patients and its 95 % bootstrap interval. Slices: how
many of the LGE slices get a mask. Seconds are of one processor, a volume. `as_released` is
`matrix_resize` with the crop offsets that were found for the real set, divided by the scale.
"""

import time
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple, get_args

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from benchmarks.common import options_of, positive, write
from cardiac_mtl.contracts import UNLABELLED, SequenceStudy
from cardiac_mtl.metrics.overlap import dice
from cardiac_mtl.metrics.statistics import bootstrap_mean
from cardiac_mtl.phantoms.sequences import make_sequence_cohort
from data_modules.findings import noticed
from data_modules.parallel import parallel_map
from data_modules.transfer import CROP_OFFSETS, TransferMode, transfer_mask

CLASSES = {"lv": 1, "myocardium": 2, "rv": 3}
AS_RELEASED = "as_released"


class Carried(NamedTuple):
    """One mask of one patient, carried over one way."""

    source: str
    mode: str
    dice: tuple[float, ...]
    slices: float
    """Share of the LGE slices with a mask."""
    seconds: float
    notices: int


def main() -> None:
    """Measure, print and write."""
    parser = options_of(__doc__, rounds=False)
    parser.add_argument("--patients", type=positive, default=12)
    parser.add_argument("--scale", type=positive, default=2)
    parser.add_argument("--shifts", type=float, nargs="+", default=[0.0, 2.0, 5.0, 10.0])
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for shift in options.shifts:
        studies = list(make_sequence_cohort(options.patients, 0, shift, options.scale))
        found = list(parallel_map(partial(carry_all, scale=options.scale), studies, "carrying"))
        rows += summaries(shift, [one for of_patient in found for one in of_patient])
    write(
        "transfer_modes",
        {"patients": options.patients, "scale": options.scale, "seed": 0, "rows": rows},
        options,
    )
    for row in rows:
        scores = "  ".join(
            f"{name} {row[name]['mean']:.3f} [{row[name]['low']:.3f}, {row[name]['high']:.3f}]"
            for name in CLASSES
        )
        print(
            f"{row['shift_mm']:4.0f} mm  {row['source']}  {row['mode']:13}  {scores}  "
            f"slices {row['slices']:.2f}  {row['seconds']:.3f} s  notices {row['notices']}"
        )


def carry_all(study: SequenceStudy, scale: int) -> list[Carried]:
    """Carry both masks of a patient over in every mode."""
    target = volume(study, "LGE", "image")
    truth = study.volumes["LGE"].mask
    found = []
    for source in ("C0", "T2"):
        mask, image = volume(study, source, "mask"), volume(study, source, "image")
        down, right = (round(pixels / scale) for pixels in CROP_OFFSETS[source])
        for mode in (*get_args(TransferMode), AS_RELEASED):
            how: TransferMode = "matrix_resize" if mode == AS_RELEASED else mode
            started = time.process_time()
            with noticed() as notices:
                carried = transfer_mask(
                    mask,
                    image,
                    target,
                    how,
                    crop_offset=(down, right) if mode == AS_RELEASED else (0, 0),
                )
            seconds = time.process_time() - started
            labels = sitk.GetArrayFromImage(carried)
            known = (labels != UNLABELLED).any(axis=(1, 2))
            scores = tuple(
                dice(labels[known] == value, truth[known] == value) for value in CLASSES.values()
            )
            found.append(Carried(source, mode, scores, known.mean(), seconds, len(notices)))
    return found


def volume(study: SequenceStudy, sequence: str, what: str) -> sitk.Image:
    """Return image or mask of a sequence in its geometry."""
    one = study.volumes[sequence]
    voxels: NDArray[Any] = getattr(one, what)
    image = sitk.GetImageFromArray(voxels.astype(np.int16))
    spacing = np.linalg.norm(one.affine[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((one.affine[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(one.affine[:3, 3].tolist())
    return image


def summaries(shift: float, found: Sequence[Carried]) -> list[dict[str, Any]]:
    """Average over patients, a row a source and mode."""
    rows = []
    for source, mode in dict.fromkeys((one.source, one.mode) for one in found):
        alike = [one for one in found if (one.source, one.mode) == (source, mode)]
        row: dict[str, Any] = {"shift_mm": shift, "source": source, "mode": mode}
        for k, name in enumerate(CLASSES):
            scores = np.array([one.dice[k] for one in alike])
            low, high = bootstrap_mean(scores)
            row[name] = {
                "mean": round(float(np.nanmean(scores)), 4),
                "low": round(low, 4),
                "high": round(high, 4),
            }
        row["slices"] = round(float(np.mean([one.slices for one in alike])), 3)
        row["seconds"] = round(float(np.mean([one.seconds for one in alike])), 4)
        row["notices"] = sum(one.notices for one in alike)
        rows.append(row)
    return rows
