"""Losses against hand-computed values, and blindness to what is not annotated."""

import math

import pytest
import torch

from cardiac_mtl.contracts import UNLABELLED
from cardiac_mtl.losses import (
    masked_binary_cross_entropy,
    masked_cross_entropy,
    masked_dice_loss,
    masked_dice_loss_by_slice,
    masked_dice_loss_of_classes,
    masked_jaccard_loss_by_image,
    masked_l1,
    masked_label_cross_entropy,
    masked_sum_of_errors,
    one_hot,
    reconstruction_error,
    wrapped,
)


def test_cross_entropy_by_hand():
    logits = torch.tensor([[[0.0, math.log(3.0)]]])  # probabilities 1/2 and 3/4
    loss = masked_binary_cross_entropy(logits, torch.tensor([[[1, 0]]]))
    assert float(loss.mean) == pytest.approx((math.log(2) + math.log(4)) / 2)
    assert int(loss.known) == 2


def test_unlabelled_pixels_change_nothing():
    logits = torch.randn(2, 4, 4)
    mask = (torch.rand(2, 4, 4) > 0.5).long()
    mask[1] = UNLABELLED
    alone = masked_binary_cross_entropy(logits[:1], mask[:1])
    torch.testing.assert_close(masked_binary_cross_entropy(logits, mask).mean, alone.mean)


def test_dice_loss_by_hand_over_what_is_annotated():
    logits = torch.tensor([[[0.0, math.log(3.0)], [9.0, 9.0]]])  # probabilities 1/2 and 3/4
    loss = masked_dice_loss(logits, torch.tensor([[[1, 0], [UNLABELLED, UNLABELLED]]]))
    assert float(loss.mean) == pytest.approx(1 - (2 * 0.5 + 1) / (1.25 + 1 + 1))
    assert int(loss.known) == 2


def test_l1_by_hand_leaves_missing_targets_out():
    loss = masked_l1(torch.tensor([[1.0], [5.0]]), torch.tensor([[4.0], [math.nan]]))
    assert (float(loss.mean), int(loss.known)) == (3.0, 1)


def test_nothing_annotated_costs_nothing_and_still_has_a_gradient_path():
    logits = torch.randn(1, 2, 2, requires_grad=True)
    value = torch.randn(1, 1, requires_grad=True)
    mask = torch.full((1, 2, 2), UNLABELLED)
    total = masked_binary_cross_entropy(logits, mask).mean
    total = total + masked_dice_loss(logits, mask).mean
    scores = logits[:, None].repeat(1, 3, 1, 1)
    total = total + masked_cross_entropy(scores, mask).mean
    for over in ("all_classes", "foreground"):
        total = total + masked_dice_loss_of_classes(scores, mask, over).mean
    total = total + masked_l1(value, torch.full((1, 1), math.nan)).mean
    total.backward()
    assert float(total) == 0.0
    assert not logits.grad.any()
    assert not value.grad.any()


def test_dice_loss_by_slice_by_hand():
    """Two slices, one of them empty; a third is not annotated."""
    logits = torch.tensor([[[0.0, math.log(3.0)]], [[0.0, math.log(3.0)]], [[9.0, 9.0]]])
    mask = torch.tensor([[[1, 0]], [[0, 0]], [[UNLABELLED, UNLABELLED]]])
    loss = masked_dice_loss_by_slice(logits, mask, empty_pixels=5.0)
    held, empty = 1 - 2 * 0.5 / (1.25 + 1), 1.25 / (1.25 + 5)
    assert float(loss.mean) == pytest.approx((held + empty) / 2, abs=1e-6)
    assert int(loss.known) == 2


def test_a_slice_without_foreground_teaches_to_find_none():
    logits = torch.zeros(1, 64, 64, requires_grad=True)
    empty = torch.zeros(1, 64, 64, dtype=torch.int64)
    masked_dice_loss_by_slice(logits, empty, 100.0).mean.backward()
    small, held = torch.zeros_like(logits, requires_grad=True), empty.clone()
    held[:, :10, :10] = 1
    masked_dice_loss_by_slice(small, held, 100.0).mean.backward()
    # a false pixel weighs about as much as in a slice with foreground
    assert 0.5 < float(logits.grad[0, 40, 40] / small.grad[0, 40, 40]) < 2


def test_errors_are_summed_over_a_sample_and_averaged_over_samples():
    error = torch.tensor([[1.0, -2.0, 9.0], [3.0, 9.0, 9.0], [9.0, 9.0, 9.0]])
    given = torch.tensor([[True, True, False], [True, False, False], [False] * 3])
    for exponent, mean in ((1, (3 + 3) / 2), (2, (5 + 9) / 2)):
        loss = masked_sum_of_errors(error, given, exponent)
        assert (float(loss.mean), int(loss.known)) == (mean, 2)


def test_each_task_counts_alike_in_what_is_rebuilt():
    values = [torch.tensor([[0.0, 1.0], [0.0, 0.0]]), torch.tensor([[2.0], [7.0]])]
    rebuilt = [torch.tensor([[0.5, 0.5], [1.0, 0.0]]), torch.tensor([[-1.0], [0.0]])]
    given = [torch.ones(2, 2, dtype=torch.bool), torch.tensor([[True], [False]])]
    first, second = (0.5 + 3.0) / 2, 0.5
    loss = reconstruction_error(values, rebuilt, given, 1)
    assert float(loss.mean) == pytest.approx((first + second) / 2)
    squared = reconstruction_error(values, rebuilt, given, 2)
    assert float(squared.mean) == pytest.approx(((0.25 + 9.0) / 2 + 0.5) / 2)


def test_wrapping_leaves_the_gradient_alone():
    value = torch.tensor([0.9, 1.0, 1.1, -1.0, -3.2], requires_grad=True)
    found = wrapped(value, 2.0)
    torch.testing.assert_close(found.detach(), torch.tensor([0.9, 1.0, -0.9, 1.0, 0.8]))
    found.sum().backward()
    assert value.grad.tolist() == [1.0] * 5


def of_classes():
    """Two slices of one row: probabilities 1/4, 1/2, 1/4 of three classes, and equal ones."""
    one = torch.tensor([math.log(1.0), math.log(2.0), 0.0])
    logits = torch.stack([one, torch.zeros(3)])[:, :, None, None].repeat(1, 1, 1, 2)
    return logits, torch.tensor([[[1, 2]], [[0, UNLABELLED]]])


def test_cross_entropy_of_classes_by_hand():
    loss = masked_cross_entropy(*of_classes())
    assert float(loss.mean) == pytest.approx((math.log(2) + math.log(4) + math.log(3)) / 3)
    assert int(loss.known) == 3


def test_dice_of_classes_by_hand():
    """Overlap by class: 1/3 background, 1/2 and 1/4; sizes found: 5/6, 4/3, 5/6; held: 1 each."""
    logits, mask = of_classes()
    flat = masked_dice_loss_of_classes(logits, mask, "all_classes")
    overlap = 1 / 3 + 1 / 2 + 1 / 4
    assert float(flat.mean) == pytest.approx(1 - (2 * overlap + 1) / (3 + 3 + 1))
    assert int(flat.known) == 3
    each = masked_dice_loss_of_classes(logits, mask, "foreground")
    first, second = (2 * 0.5 + 1) / (4 / 3 + 1 + 1), (2 * 0.25 + 1) / (5 / 6 + 1 + 1)
    assert float(each.mean) == pytest.approx(1 - (first + second) / 2)


def test_unlabelled_slices_change_no_loss_of_classes():
    torch.manual_seed(0)
    logits, mask = torch.randn(3, 4, 5, 5), torch.randint(0, 4, (3, 5, 5))
    mask[2] = UNLABELLED
    for loss in (
        masked_cross_entropy,
        lambda *given: masked_dice_loss_of_classes(*given, "all_classes"),
        lambda *given: masked_dice_loss_of_classes(*given, "foreground"),
    ):
        torch.testing.assert_close(loss(logits, mask).mean, loss(logits[:2], mask[:2]).mean)


def test_jaccard_loss_by_image_by_hand():
    half, three_quarters = 0.0, math.log(3.0)
    logits = torch.tensor([[[half, three_quarters]], [[half, half]], [[9.0, 9.0]]])
    mask = torch.tensor([[[1, 0]], [[1, UNLABELLED]], [[UNLABELLED, UNLABELLED]]])
    loss = masked_jaccard_loss_by_image(logits, mask)
    first = 1 - (0.5 + 1) / (1.25 + 1 - 0.5 + 1)
    second = 1 - (0.5 + 1) / (0.5 + 1 - 0.5 + 1)
    assert float(loss.mean) == pytest.approx((first + second) / 2)
    assert int(loss.known) == 2


def test_jaccard_loss_is_that_of_each_image_not_of_the_batch():
    logits = torch.full((2, 8, 8), -20.0)
    mask = torch.zeros(2, 8, 8, dtype=torch.int64)
    mask[0, :6] = 1
    logits[0, :6] = 20.0
    mask[1, 0, :2] = 1  # missed
    loss = masked_jaccard_loss_by_image(logits, mask).mean
    assert float(loss) == pytest.approx((0 + (1 - 1 / 3)) / 2, abs=1e-5)


def test_an_image_without_foreground_costs_nothing_where_nothing_is_found():
    logits = torch.full((1, 4, 4), -20.0)
    empty = torch.zeros(1, 4, 4, dtype=torch.int64)
    assert float(masked_jaccard_loss_by_image(logits, empty).mean) == pytest.approx(0, abs=1e-6)
    assert float(masked_jaccard_loss_by_image(-logits, empty).mean) == pytest.approx(16 / 17)


def test_label_cross_entropy_by_hand():
    logits = torch.tensor([0.0, math.log(3.0), 9.0])  # probabilities 1/2, 3/4, and nobody knows
    label = torch.tensor([1, 0, UNLABELLED])
    loss = masked_label_cross_entropy(logits, label)
    assert float(loss.mean) == pytest.approx((math.log(2) + math.log(4)) / 2)
    assert int(loss.known) == 2
    weighted = masked_label_cross_entropy(logits, label, positive_weight=3.0)
    assert float(weighted.mean) == pytest.approx((3 * math.log(2) + math.log(4)) / 2)


def test_images_without_mask_or_label_leave_a_gradient_path():
    logits, one = torch.randn(1, 2, 2, requires_grad=True), torch.randn(1, requires_grad=True)
    nothing = torch.full((1, 2, 2), UNLABELLED)
    total = masked_jaccard_loss_by_image(logits, nothing).mean
    total = total + masked_label_cross_entropy(one, nothing[:, 0, 0]).mean
    total.backward()
    assert float(total) == 0.0
    assert not logits.grad.any()
    assert not one.grad.any()


def test_one_hot_is_that_of_torch_and_nothing_where_nothing_is_annotated():
    mask = torch.randint(-1, 4, (2, 5, 6))
    annotated = mask >= 0
    expected = torch.nn.functional.one_hot(mask.clamp(min=0), 4).movedim(-1, 1) * annotated[:, None]
    found = one_hot(mask, 4)
    assert torch.equal(found.long(), expected)
    assert found.stride() == expected.stride()
