"""The schedule against numbers by hand."""

import pytest
import torch

from cardiac_mtl.papers.schedules import WarmUpThenCosine


def test_the_rate_rises_then_falls_and_stays_at_the_end():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule, rates = WarmUpThenCosine(optimizer, warm_up=3, epochs=7), []
    for _ in range(9):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    half = 2**0.5 / 2
    assert rates == pytest.approx([0.5, 1.0, 1.5, 2.0, 1 + half, 1.0, 1 - half, 0.0, 0.0], abs=1e-6)


def test_it_goes_on_from_a_checkpoint():
    def made():
        return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)

    first = made()
    schedule = WarmUpThenCosine(first, warm_up=3, epochs=7)
    for _ in range(5):
        first.step()
        schedule.step()
    second = made()
    again = WarmUpThenCosine(second, warm_up=3, epochs=7)
    second.load_state_dict(first.state_dict())
    again.load_state_dict(schedule.state_dict())
    second.step()
    again.step()
    assert second.param_groups[0]["lr"] == pytest.approx(1 - 2**0.5 / 2)
