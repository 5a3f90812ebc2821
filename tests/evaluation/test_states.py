"""A miss is counted and costs the most there is (P1, P2)."""

import math

import numpy as np
import pytest
import torch
from monai.metrics import HausdorffDistanceMetric, compute_hausdorff_distance

from cardiac_mtl.evaluation.states import score_masks, score_slices, state_of


def pairs():
    there = np.zeros((4, 8, 6), bool)
    there[1:3, 2:6, 2:5] = True
    none = np.zeros_like(there)
    return {
        "ok": (there, there),
        "missed": (none, there),
        "false_positive": (there, none),
        "both_empty": (none, none),
    }


@pytest.mark.parametrize("name", ["ok", "missed", "false_positive", "both_empty"])
def test_each_state(name):
    assert state_of(*pairs()[name]) == name


@pytest.mark.parametrize("name", ["missed", "false_positive"])
def test_a_failure_scores_the_worst_there_is(name):
    scores = score_masks(*pairs()[name], (8.0, 1.5, 2.0))
    diagonal = math.sqrt((4 * 8) ** 2 + (8 * 1.5) ** 2 + (6 * 2) ** 2)
    assert (scores.dice, scores.jaccard) == (0.0, 0.0)
    assert scores.hd_mm == pytest.approx(diagonal)
    assert scores.msd_mm == pytest.approx(diagonal)
    assert scores.msd_voxels == pytest.approx(math.sqrt(16 + 64 + 36))


def test_distances_reach_across_slices_without_annotation():
    found, true = np.zeros((2, 6, 8, 6), bool)
    found[1, 2:6, 2:5] = true[5, 2:6, 2:5] = True
    found[3] = True  # nobody knows whether it is right
    known = np.array([False, True, False, False, True, True])
    scores = score_masks(found, true, (8.0, 1.5, 2.0), known=known)
    assert scores.hd_mm == scores.msd_mm == scores.hd95_mm == 4 * 8.0
    assert scores.msd_voxels == 4
    assert scores.accuracy == 1 - 2 * 12 / (3 * 48)
    missed = score_masks(found & False, true, (8.0, 1.5, 2.0), known=known)
    assert missed.hd_mm == pytest.approx(math.hypot(5 * 8, 8 * 1.5, 6 * 2))


@pytest.mark.parametrize("name", ["ok", "missed"])
def test_slices_without_annotation_at_the_ends_change_nothing(name):
    found, true = (np.pad(mask, ((1, 2), (0, 0), (0, 0))) for mask in pairs()[name])
    found[0] = True
    known = np.isin(np.arange(7), range(1, 5))
    scores = score_masks(found, true, (8.0, 1.5, 2.0), known=known)
    assert scores == score_masks(*pairs()[name], (8.0, 1.5, 2.0))


def test_nothing_is_defined_where_both_are_empty():
    scores = score_masks(*pairs()["both_empty"], (1.0, 1.0, 1.0))
    assert all(math.isnan(value) for value in scores[1:])


def test_monai_forgets_the_misses_that_we_count():
    everything = list(pairs().values())
    metric = HausdorffDistanceMetric(include_background=True, percentile=95, reduction="mean")
    predicted, reference = (
        torch.tensor(np.stack([pair[k] for pair in everything]))[:, None].float() for k in (0, 1)
    )
    metric(predicted, reference)
    assert float(metric.aggregate()) == 0.0  # the one case that went well
    ours = [score_masks(*pair, (1.0, 1.0, 1.0)).hd_mm for pair in everything]
    assert np.nanmean(ours) > 5


@pytest.mark.parametrize(("name", "percentile"), [("hd95_mm", 95), ("hd_mm", None)])
def test_the_columns_of_distances_are_those_of_monai(name, percentile):
    a, b = np.random.default_rng(1).random((2, 6, 12, 9)) > 0.9
    pair = (torch.tensor(mask)[None, None].float() for mask in (a, b))
    options = {"include_background": True, "percentile": percentile, "spacing": (8.0, 1.5, 2.0)}
    theirs = float(compute_hausdorff_distance(*pair, **options))
    assert getattr(score_masks(a, b, (8.0, 1.5, 2.0)), name) == pytest.approx(theirs, abs=1e-4)


def test_slices_score_as_they_would_alone():
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 5, 9, 8)) > 0.6
    a[1] = b[2] = a[3] = b[3] = False
    for k, together in enumerate(score_slices(a, b, (1.5, 2.0), 3.0)):
        assert together == pytest.approx(score_masks(a[k], b[k], (1.5, 2.0), 3.0), nan_ok=True)


def test_a_failure_keeps_the_background_it_counted_right():
    missed = score_masks(*pairs()["missed"], (1.0, 1.0, 1.0))
    assert (missed.specificity, missed.sensitivity, missed.surface_dice) == (1.0, 0.0, 0.0)
    assert missed.accuracy == pytest.approx(1 - 24 / (4 * 8 * 6))
