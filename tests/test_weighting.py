"""Weightings: the paper's numbers, stationary points, and what a missing task costs."""

import math

import pytest
import torch

from cardiac_mtl.errors import UserError
from cardiac_mtl.losses import TaskLoss
from cardiac_mtl.weighting import LIMIT, FixedWeighting, SingleTask, UncertaintyWeighting


def task_losses(known=1, **means):
    return {
        task: TaskLoss(torch.tensor(float(mean)), torch.tensor(known))
        for task, mean in means.items()
    }


def test_the_papers_log_variances_give_its_weight_ratio():
    weighting = UncertaintyWeighting()
    weighting.s.data = torch.tensor([-3.9, 3.45])  # mask, area
    weights = weighting.weights()
    assert float(weights["mask"] / weights["area"]) == pytest.approx(1556.2, abs=0.1)


def test_equation_5_term_by_term():
    weighting = UncertaintyWeighting()
    weighting.s.data = torch.tensor([-1.0, 2.0])
    total = weighting(task_losses(mask=0.3, area=50))
    expected = math.exp(1) * 0.3 - 0.5 + math.exp(-2) * 50 + 2.0
    assert float(total) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("likelihood", "loss", "stationary"),
    [
        ("laplace", 31.5, math.log(31.5)),  # d/ds (e^-s L + s) = 0
        ("softmax", 0.0101, math.log(2 * 0.0101)),  # d/ds (e^-s L + s/2) = 0
        ("gaussian", 4.0, math.log(4.0)),  # d/ds (e^-s L/2 + s/2) = 0
    ],
)
def test_gradient_vanishes_at_the_closed_form_optimum(likelihood, loss, stationary):
    weighting = UncertaintyWeighting({"task": likelihood}, initial=stationary)
    weighting(task_losses(task=loss)).backward()
    assert float(weighting.s.grad) == pytest.approx(0.0, abs=1e-6)


def test_a_task_without_annotated_sample_contributes_neither_loss_nor_penalty():
    weighting = UncertaintyWeighting(initial=1.5)
    losses = task_losses(mask=0.4) | task_losses(known=0, area=0)
    total = weighting(losses)
    total.backward()
    assert float(total) == pytest.approx(math.exp(-1.5) * 0.4 + 0.75)
    assert float(weighting.s.grad[1]) == 0.0


def test_learned_values_stay_within_bounds_and_can_come_back():
    weighting = UncertaintyWeighting({"task": "laplace"}, initial=50.0)
    weighting(task_losses(task=1.0)).backward()
    assert float(weighting.s) == LIMIT
    assert float(weighting.s.grad) > 0  # the penalty pulls it back down


def test_fixed_weights_are_a_weighted_sum():
    weighting = FixedWeighting({"mask": 2.0, "area": 0.5})
    assert float(weighting(task_losses(mask=3, area=4))) == 8.0
    assert not list(weighting.parameters())


def test_single_task_reads_no_other_task():
    assert float(SingleTask("area")(task_losses(area=7))) == 7.0


def test_no_task_is_an_error():
    with pytest.raises(UserError, match="no task"):
        FixedWeighting({})
