"""Scoring masks: Dice, Jaccard, MSD, HD and HD95 of whole volumes, ours against MONAI's.

    python -m benchmarks scoring [--volumes 2191] [--rounds 5] [--sample 150]

Volumes of 12 x 192 x 192: rings with ragged borders, the prediction moved and thickened by chance,
one in a hundred missed, as many false. MONAI: `compute_dice`, `compute_iou`,
`compute_average_surface_distance` and `compute_hausdorff_distance` twice, one volume at a time, on
tensors made before. Ours: `score_masks`, which measures more (voxel units, surface Dice, pixel
measures), one volume a task on all processors. Rounds take turns on a sample; then both score
everything once, values are compared, and the rows that MONAI drops or answers with infinity are
listed. Last, all rows that `evaluate` writes (slices and function too) are timed.
"""

import time
import warnings
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from monai.metrics import (
    compute_average_surface_distance,
    compute_dice,
    compute_hausdorff_distance,
    compute_iou,
)
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks.common import options_of, paired, positive, ratios, write
from cardiac_mtl.evaluation.collect import CollectedCase
from cardiac_mtl.evaluation.rows import CaseRows, assemble, score_case
from cardiac_mtl.evaluation.states import score_masks
from cardiac_mtl.metrics.surface import surface_distances
from data_modules.parallel import parallel_map

SHAPE = (12, 192, 192)
SPACING = (8.0, 1.5625, 1.5625)
MEASURES = ("dice", "jaccard", "msd_mm", "hd_mm", "hd95_mm")


class Pair(NamedTuple):
    """Two masks of one heart."""

    predicted: NDArray[np.bool_]
    reference: NDArray[np.bool_]


def main() -> None:
    """Measure, compare and write."""
    parser = options_of(__doc__)
    parser.add_argument("--volumes", type=positive, default=2191)
    parser.add_argument("--sample", type=positive, default=150)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    pairs = list(parallel_map(make_pair, range(options.volumes), label="making volumes"))
    sample = pairs[: options.sample]
    tensors = as_tensors(sample)
    measured = paired(
        options.rounds,
        {"monai": lambda: seconds(monai, tensors), "ours": lambda: seconds(ours, sample)},
    )
    started = time.perf_counter()
    found = ours(pairs)
    whole_ours = time.perf_counter() - started
    started = time.perf_counter()
    theirs = np.concatenate(
        [monai(as_tensors(pairs[k : k + 100])) for k in range(0, len(pairs), 100)]
    )
    whole_monai = time.perf_counter() - started
    started = time.perf_counter()
    rows = list(parallel_map(partial(all_rows, pairs), range(len(pairs)), label="rows"))
    frames = assemble(rows, "honest")
    all_seconds = time.perf_counter() - started
    dropped = ~np.isfinite(theirs).all(axis=1)
    # MONAI measures between surfaces, SimpleITK and we between sets of voxels: see surface.py
    holes = np.zeros(len(pairs), bool)
    for k in np.flatnonzero(~dropped & (np.abs(found[:, 3] - theirs[:, 3]) > 1e-4)):
        between_surfaces = surface_distances(*pairs[k], SPACING).percentile(100)
        holes[k] = abs(between_surfaces - theirs[k, 3]) < 1e-4
        found[k, 3] = between_surfaces
    rounded = hd95_in_single_precision(pairs, found[:, 4], theirs[:, 4], dropped)
    write(
        "scoring",
        {
            "volumes": len(pairs),
            "shape": SHAPE,
            "sample": len(sample),
            "monai_over_ours": ratios(measured["monai"], measured["ours"]),
            "whole_seconds": {
                "monai": round(whole_monai, 1),
                "ours": round(whole_ours, 1),
                "ours_with_slices_and_function": round(all_seconds, 1),
            },
            "rows": {"slices": len(frames.slices), "cases": len(frames.cases)},
            "largest_difference": {
                name: float(np.abs(found[~dropped, k] - theirs[~dropped, k]).max())
                for k, name in enumerate(MEASURES)
            },
            "hd_measured_between_surfaces_where_a_mask_covers_a_hole": int(holes.sum()),
            "hd95_beyond_1e-4_is_the_rounding_of_monai": rounded,
            "rows_that_monai_drops": np.flatnonzero(dropped).tolist(),
        },
        options,
    )


def hd95_in_single_precision(
    pairs: Sequence[Pair],
    found: NDArray[np.float64],
    theirs: NDArray[np.float64],
    dropped: NDArray[np.bool_],
) -> list[dict[str, float]]:
    """List the HD95 that differ by more than 1e-4 mm, with ours once more in float32.

    `torch.quantile`, which MONAI calls, places the percentile among n distances in float32: at
    0.95 (n - 1) its steps are 1e-4 of a voxel wide, once n is above a thousand.
    """
    rows = []
    for k in np.flatnonzero(~dropped & (np.abs(found - theirs) > 1e-4)):
        directed = surface_distances(*pairs[k], SPACING)[:2]
        single = max(float(torch.quantile(torch.from_numpy(d).float(), 0.95)) for d in directed)
        rows.append(
            {"volume": int(k), "ours": found[k], "monai": theirs[k], "ours_in_float32": single}
        )
    return rows


def make_pair(seed: int) -> Pair:
    """Return the masks of one heart; every fiftieth is missed, or false."""
    rng = np.random.default_rng(seed)
    reference = ring(rng, *rng.uniform(80, 112, 2), rng.uniform(14, 24), rng.uniform(5, 9))
    moved = rng.normal(0, 1.0, 2)
    predicted = np.stack([ndimage.shift(image, moved, order=0) for image in reference])
    if rng.random() < 0.5:
        predicted = ndimage.binary_dilation(predicted, structure=np.ones((1, 3, 3)))
    predicted ^= (rng.random(SHAPE) < 0.02) & ndimage.binary_dilation(predicted)
    if seed % 50 == 1:
        (predicted if seed % 100 == 1 else reference)[:] = False
    return Pair(predicted, reference)


def ring(
    rng: np.random.Generator, row: float, column: float, inner: float, wall: float
) -> NDArray[np.bool_]:
    """Return a tapering ring with a ragged border in ten of twelve slices."""
    rows, columns = np.ogrid[: SHAPE[1], : SHAPE[2]]
    angle = np.arctan2(rows - row, columns - column)
    ragged = sum(rng.normal(0, 0.8) * np.cos(k * angle + rng.uniform(0, 6)) for k in range(2, 7))
    radius = np.hypot(rows - row, columns - column) + ragged
    mask = np.zeros(SHAPE, bool)
    for k in range(1, SHAPE[0] - 1):
        taper = 1 - 0.05 * k
        mask[k] = (radius >= inner * taper) & (radius < inner * taper + wall)
    return mask


def ours(pairs: Sequence[Pair]) -> NDArray[np.float64]:
    """Return (N, 5)."""
    return np.array(list(parallel_map(partial(our_row, pairs), range(len(pairs)))))


def our_row(pairs: Sequence[Pair], k: int) -> list[float]:
    """Return the five measures of one volume."""
    scores = score_masks(*pairs[k], SPACING)
    return [getattr(scores, name) for name in MEASURES]


def all_rows(pairs: Sequence[Pair], k: int) -> CaseRows:
    """Return what one volume adds to the tables."""
    case = CollectedCase(
        row=0,
        slices=np.arange(SHAPE[0]),
        image=np.zeros((0,), np.float32),
        reference=pairs[k].reference.astype(np.int8),
        predicted=pairs[k].predicted.astype(np.uint8),
        spacing=SPACING,
        indices=None,
        reference_indices=np.zeros((SHAPE[0], 0), np.float32),
    )
    info = {"case_id": str(k), "patient_id": str(k // 22), "phase": str(k % 22)}
    return score_case(case, info, {"myocardium": 1})


def as_tensors(pairs: Sequence[Pair]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return what MONAI wants: one-hot float (1, 1, S, H, W)."""
    return [tuple(torch.from_numpy(m)[None, None].float() for m in pair) for pair in pairs]  # type: ignore[misc]


def monai(tensors: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> NDArray[np.float64]:
    """Return (N, 5)."""
    found = []
    for predicted, reference in tensors:
        surface = {"include_background": True, "spacing": SPACING}
        found.append(
            [
                float(compute_dice(predicted, reference)),
                float(compute_iou(predicted, reference)),
                float(
                    compute_average_surface_distance(
                        predicted, reference, symmetric=True, **surface
                    )
                ),
                float(compute_hausdorff_distance(predicted, reference, **surface)),
                float(compute_hausdorff_distance(predicted, reference, percentile=95, **surface)),
            ]
        )
    return np.array(found)


def seconds(function, given) -> float:  # noqa: ANN001 - either of the two above
    """Return how long scoring takes."""
    started = time.perf_counter()
    function(given)
    return time.perf_counter() - started
