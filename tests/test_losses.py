"""Losses against hand-computed values, and blindness to what is not annotated."""

import math

import pytest
import torch

from cardiac_mtl.contracts import UNLABELLED
from cardiac_mtl.losses import masked_binary_cross_entropy, masked_dice_loss, masked_l1


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
    total = total + masked_l1(value, torch.full((1, 1), math.nan)).mean
    total.backward()
    assert float(total) == 0.0
    assert not logits.grad.any()
    assert not value.grad.any()
