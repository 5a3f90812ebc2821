"""Keras' update rules, written out by hand."""

import copy

import pytest
import torch

from cardiac_mtl.papers.keras_optimizers import KerasAdam, KerasRMSprop

GRADIENTS = [3.0, -0.5, 2.0]


def trained(optimizer, weight, gradients=GRADIENTS):
    for gradient in gradients:
        weight.grad = torch.tensor([gradient])
        optimizer.step()
    return float(weight.detach())


def test_rmsprop_by_hand():
    weight = torch.nn.Parameter(torch.ones(1))
    found = trained(KerasRMSprop([weight], lr=0.1, decay=0.5, clip_value=1.0), weight)
    expected, mean = 1.0, 0.0
    for t, gradient in enumerate(GRADIENTS):
        g = max(-1.0, min(1.0, gradient))
        mean = 0.9 * mean + 0.1 * g * g
        expected -= 0.1 / (1 + 0.5 * t) * g / (mean**0.5 + 1e-7)
    assert found == pytest.approx(expected, rel=1e-6)


def test_adam_by_hand():
    weight = torch.nn.Parameter(torch.ones(1))
    found = trained(KerasAdam([weight], lr=0.1, decay=0.5), weight)
    expected, first, second = 1.0, 0.0, 0.0
    for t, g in enumerate(GRADIENTS):
        first, second = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g * g
        unbiased = (second / (1 - 0.999 ** (t + 1))) ** 0.5
        expected -= 0.1 / (1 + 0.5 * t) * first / (1 - 0.9 ** (t + 1)) / (unbiased + 1e-7)
    assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("kind", [KerasAdam, KerasRMSprop])
def test_the_count_of_updates_is_kept_and_a_schedule_may_change_the_rate(kind):
    straight, stopped = (torch.nn.Parameter(torch.ones(1)) for _ in range(2))
    whole, before = kind([straight], lr=0.1, decay=0.5), kind([stopped], lr=0.1, decay=0.5)
    trained(whole, straight, GRADIENTS)
    trained(before, stopped, GRADIENTS[:2])
    after = kind([stopped], lr=0.1, decay=0.5)
    after.load_state_dict(copy.deepcopy(before.state_dict()))
    trained(after, stopped, GRADIENTS[2:])
    assert torch.equal(straight, stopped)
    assert after.param_groups[0]["lr"] == 0.1  # what a schedule reads and multiplies


def test_the_decay_by_updates_goes_with_a_schedule_by_epochs():
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = KerasRMSprop([weight], lr=0.1, decay=1.0)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    trained(optimizer, weight, [1.0])
    schedule.step()
    before = float(weight.detach())
    moved = before - trained(optimizer, weight, [1.0])
    assert moved == pytest.approx(0.1 * 0.5 / (1 + 1.0) / 0.19**0.5, rel=1e-5)
