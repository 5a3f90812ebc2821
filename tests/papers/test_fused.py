"""Optimisers that update all weights at once, against torch's loop over them."""

import copy

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, RMSprop

from benchmarks.steps import PAPERS, PRESETS, narrow, paper_and_batch, train
from cardiac_mtl.papers.adversarial import AdamOfGANs
from cardiac_mtl.papers.fused import fused
from cardiac_mtl.papers.keras_optimizers import KerasAdam

STEPS = 4


def network():
    """Return weights in both memory formats, some of them in a group without decay."""
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(1, 8, 3), nn.Tanh(), nn.Conv2d(8, 4, 3))
    return nn.ModuleList([body.to(memory_format=torch.channels_last), nn.Linear(4 * 4 * 4, 2)])


def trained(optimizer, parts):
    """Train on one batch of 8 x 8 pixels; return the weights."""
    body, linear = parts
    image = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    for _ in range(STEPS):
        optimizer.zero_grad()
        linear(body(image).flatten(1)).square().mean().backward()
        optimizer.step()
    return list(parts.parameters())


def groups(parts):
    body, linear = parts
    return [{"params": list(body.parameters())}, {"params": linear.parameters(), "weight_decay": 0}]


@pytest.mark.parametrize(
    "make",
    [
        lambda p: AdamW(p, lr=0.01, weight_decay=0.05),
        lambda p: Adam(p, lr=0.01, amsgrad=True),
        lambda p: AdamOfGANs(p, lr=0.01),
        lambda p: KerasAdam(p, lr=0.01, decay=0.5, clip_value=0.1),
        lambda p: SGD(p, lr=0.01, momentum=0.9, nesterov=True, weight_decay=0.01),
    ],
    ids=["AdamW", "Adam", "AdamOfGANs", "KerasAdam", "SGD"],
)
def test_the_steps_are_those_of_the_loop(make):
    parts = network()
    alone = copy.deepcopy(parts)
    together = fused(make(groups(parts)))
    assert all(group["fused"] for group in together.param_groups)
    expected = trained(make(groups(alone)), alone)
    torch.testing.assert_close(trained(together, parts), expected, rtol=1e-6, atol=1e-7)


def test_what_was_chosen_stays_and_what_has_no_such_kernel():
    weights = [nn.Parameter(torch.ones(2))]
    assert fused(Adam(weights, fused=False)).param_groups[0]["fused"] is False
    assert fused(Adam(weights, foreach=True)).param_groups[0]["fused"] is None
    assert fused(Adam(weights, differentiable=True)).param_groups[0]["fused"] is None
    assert "fused" not in fused(RMSprop(weights)).param_groups[0]


def test_it_goes_on_from_a_checkpoint():
    parts = network()
    optimizer = fused(AdamW(parts.parameters(), lr=0.01))
    trained(optimizer, parts)
    again = copy.deepcopy(parts)
    resumed = fused(AdamW(again.parameters(), lr=0.01))
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for found, expected in zip(trained(resumed, again), trained(optimizer, parts), strict=True):
        assert torch.equal(found, expected)


def test_gradients_of_half_precision_are_unscaled_before_they_are_clipped():
    """P20: the constructor's own flag leaves unscaling to the step, and clips scaled ones."""
    weights = [nn.Parameter(torch.ones(2))]
    optimizer = fused(SGD(weights, lr=1.0))
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale(3 * weights[0].sum()).backward()
    assert not getattr(optimizer, "_step_supports_amp_scaling", False)  # what Lightning looks at
    scaler.unscale_(optimizer)
    nn.utils.clip_grad_norm_(weights, 1.0)
    scaler.step(optimizer)
    torch.testing.assert_close(weights[0].detach(), torch.full((2,), 1 - 0.5**0.5))


@pytest.mark.parametrize("setting", [f"{p}+{q}" for p, q in zip(PAPERS, PRESETS, strict=True)])
def test_every_paper_trains_so_on_a_cpu(setting):
    paper, batch = paper_and_batch(narrow(setting))
    train(paper, batch, 1, [], accelerator="cpu")
    optimizers = paper.optimizers(use_pl_optimizer=False)
    for optimizer in optimizers if isinstance(optimizers, list) else [optimizers]:
        assert all(group["fused"] for group in optimizer.param_groups)
