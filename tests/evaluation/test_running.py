"""Scores during training: whole volumes, whatever the batches (P3, P4)."""

import math

import pytest
import torch

from cardiac_mtl.contracts import UNLABELLED
from cardiac_mtl.evaluation.running import RunningScores


def scores(*batches, labels=("myocardium",), indices=("area_mm2",), classes=()):
    metric = RunningScores(labels, indices, classes)
    for batch, prediction in batches:
        metric.update(batch, prediction)
    return {name: float(value) for name, value in metric.compute().items()}


def test_volume_dice_by_hand(make_batch):
    found = scores(make_batch(case=0, shift=2), make_batch(case=1))
    assert found["dice_vol"] == pytest.approx((0.6 + 1.0) / 2)
    assert found["dice_vol/myocardium"] == found["dice_vol"]
    assert found["mae/area_mm2"] == pytest.approx(10.0)


def test_how_slices_fall_into_batches_does_not_matter(make_batch):
    whole = scores(make_batch(shift=1))
    parts = scores(*(make_batch(slices=(k,), shift=1) for k in (2, 0, 1)))
    assert parts == pytest.approx(whole)


def test_a_slice_that_a_sampler_repeats_counts_once(make_batch):
    good, bad = make_batch(slices=(0,)), make_batch(slices=(1,), shift=5)
    assert scores(good, bad, bad) == pytest.approx(scores(good, bad))


def test_a_slice_that_two_ranks_see_a_little_differently_counts_once(make_batch):
    good, (batch, prediction) = make_batch(slices=(0,)), make_batch(slices=(1,), shift=5)
    other = {**prediction, "indices": prediction["indices"] + 1e-3}
    assert scores(good, (batch, prediction), (batch, other)) == scores(good, (batch, prediction))


def test_a_slice_without_index_that_is_repeated_counts_once(make_batch):
    batch, prediction = make_batch(slices=(0,), shift=3)
    batch["indices"][:] = torch.nan
    rest = make_batch(slices=(1,))
    found = scores((batch, prediction), rest, (batch, prediction))
    assert found == scores((batch, prediction), rest)


def test_slices_without_annotation_do_not_count(make_batch):
    batch, prediction = make_batch(slices=(0, 1), shift=3)
    batch["mask"][1] = UNLABELLED
    batch["indices"][1] = torch.nan
    alone = scores(make_batch(slices=(0,), shift=3))
    assert scores((batch, prediction)) == pytest.approx(alone)


def test_without_a_mask_there_is_no_dice(make_batch):
    batch, prediction = make_batch()
    del prediction["mask_prob"]
    assert set(scores((batch, prediction), labels=())) == {"mae/area_mm2"}


def test_an_orientation_errs_on_the_half_circle(make_batch):
    batch, prediction = make_batch(slices=(0, 1))
    batch["indices"] = torch.tensor([[89.0, 89.0], [0.0, torch.nan]])
    prediction["indices"] = torch.tensor([[-89.0, -89.0], [30.0, 0.0]])
    found = scores((batch, prediction), indices=("centroid_x_mm", "orientation_deg"))
    assert found["mae/centroid_x_mm"] == pytest.approx((178 + 30) / 2)
    assert found["mae/orientation_deg"] == pytest.approx(2.0)


def classified(make_batch, label, diseased, case=0):
    """Return a batch of one image a label, with P(diseased)."""
    batch, prediction = make_batch(case=case, slices=tuple(range(len(label))))
    diseased = torch.tensor(diseased)
    batch["label"] = torch.tensor(label)
    return batch, prediction | {"label_prob": torch.stack([1 - diseased, diseased], dim=1)}


def test_classes_are_scored_over_the_epoch(make_batch):
    parts = [
        classified(make_batch, [0, 0, 1], [0.1, 0.7, 0.6]),
        classified(make_batch, [1, UNLABELLED], [0.9, 0.2], case=1),
    ]
    found = scores(*parts, parts[0], classes=("healthy", "diseased"))
    assert found["auc"] == pytest.approx(3 / 4)
    assert found["balanced_accuracy"] == pytest.approx((1 + 1 / 2) / 2)
    assert "dice_vol" in found


@pytest.mark.parametrize(
    ("label", "diseased"), [([0, 0], [0.1, 0.2]), ([0, 1], [0.1, float("nan")])]
)
def test_classes_that_cannot_be_scored_are_undefined(make_batch, label, diseased):
    found = scores(classified(make_batch, label, diseased), classes=("healthy", "diseased"))
    assert math.isnan(found["auc"])
    assert math.isnan(found["balanced_accuracy"])
