"""What a training step may cost: counted, never timed, so that no busy machine fails it.

The bounds are what torch 2.13 dispatches on a CPU, where RMSprop, of which it has no fused kernel,
takes some for each parameter. What raises one is a copy, an operation or a question to the device more in every step:
either it can be left out, or the bound is raised with the reason beside it.
"""

import gc
from typing import NamedTuple

import pytest
import torch
from lightning import Callback

from benchmarks.census import Census, CountOneStep
from benchmarks.steps import narrow, paper_and_batch, train
from cardiac_mtl.console import quiet_libraries

ALONE = {"pretrain_epochs": 99}
"""Weak transfer without adversary, as in its first epochs."""
PLAYING = {"pretrain_epochs": 0}


class Bound(NamedTuple):
    """The most that a step may take."""

    experiment: str
    model: dict
    precision: str
    operations: int
    copies: int
    waits: int = 0


BOUNDS = [
    # copies: the image into channels last, the target of the mask, what the log keeps
    Bound("mtn_uncertainty", {}, "32-true", 972, 4),
    # and each kernel to bf16, its gradient back, the images of each loss back
    Bound("mtn_uncertainty", {}, "bf16-mixed", 1077, 109),
    # copies: frames beside hidden states, and each of the four gates of each frame, in each of the
    # ConvLSTMs, and their gradients; a third of the operations are views
    Bound("mutgan", {}, "32-true", 4235, 366),
    # copies: masks to numbers for the discriminator, image into channels last
    Bound("weak_transfer_uadt", PLAYING, "32-true", 640, 10),
    Bound("weak_transfer_uadt", PLAYING, "bf16-mixed", 792, 162),
    # waits: how many slices are labelled is the shape of the batch; whether any pixel is, on any
    # process, decides whether there is a step
    Bound("weak_transfer_uadt", ALONE, "32-true", 319, 0, waits=2),
    Bound("weak_transfer_uadt", ALONE, "bf16-mixed", 406, 87, waits=2),
    # copies: the targets of both losses
    Bound("fpm_multitask", {}, "32-true", 1536, 4),
    Bound("fpm_multitask", {}, "bf16-mixed", 1657, 125),
]


@pytest.fixture(autouse=True)
def quiet():
    quiet_libraries()


def made(experiment, model=None):
    """Return a narrow network and a batch of four small images."""
    return paper_and_batch(narrow(experiment, **(model or {})))


def costs_of_step(paper, batch, precision="32-true"):
    """Count the second of three training steps."""
    counting = CountOneStep()
    train(paper, batch, 3, [counting], accelerator="cpu", precision=precision)
    return counting.costs


@pytest.mark.parametrize(
    "bound",
    BOUNDS,
    ids=lambda b: "-".join([b.experiment, *map(str, b.model.values()), b.precision]),
)
def test_a_step_costs_no_more_than_it_did(bound):
    paper, batch = made(bound.experiment, bound.model)
    costs = costs_of_step(paper, batch, bound.precision)
    assert costs.waits == bound.waits, "the host waits for the device in each step"
    assert costs.uploads == 0, "a value is sent to the device in each step"
    assert costs.copies <= bound.copies
    assert costs.operations <= bound.operations


FAULTS = {
    "item": lambda loss: loss.item(),
    "float": lambda loss: float(loss.detach()),
    "if": bool,
    "cpu": lambda loss: loss.detach().cpu(),
    "to cpu": lambda loss: loss.detach().to("cpu"),
    "numpy": lambda loss: loss.detach().numpy(),
    "tolist": lambda loss: loss[None].tolist(),
    "boolean index": lambda loss: loss[None][loss[None] > 0],
    "nonzero": lambda loss: loss[None].nonzero(),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_question_to_the_device_is_seen(monkeypatch, fault):
    paper, batch = made("mtn_uncertainty")
    losses = paper.losses

    def faulty(outputs, batch):
        found = losses(outputs, batch)
        FAULTS[fault](found["mask"].mean)
        return found

    monkeypatch.setattr(paper, "losses", faulty)
    assert costs_of_step(paper, batch).waits == 1


@pytest.mark.parametrize(
    ("fault", "counted"),
    [
        (lambda x: x.double(), "copies"),
        (lambda x: x.clone(), "copies"),
        (lambda x: x.mT.contiguous(), "copies"),
        (lambda x: x + 1, "operations"),
        (lambda x: torch.tensor(3.0, device=x.device), "uploads"),
    ],
    ids=["type", "clone", "layout", "sum", "value"],
)
def test_a_copy_or_operation_more_is_seen(fault, counted):
    image = torch.randn(2, 1, 8, 8)
    with Census() as census:
        image.float().contiguous()  # neither does anything
        before = getattr(census.costs(), counted)
        fault(image)
    assert before == 0
    assert getattr(census.costs(), counted) == 1


def test_the_counters_of_an_optimiser_are_on_the_host_anyway():
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.Adam([parameter])
    for _ in range(2):  # the first makes its state
        parameter.grad = torch.ones(2)
        with Census([optimizer]) as census:
            optimizer.step()
    assert census.costs().waits == 0


class LiveTensors(Callback):
    """Counts the tensors that are alive as each epoch but the first begins."""

    def __init__(self):
        self.counts = []

    def on_train_epoch_start(self, trainer, pl_module):  # noqa: ARG002
        gc.collect()
        # not `isinstance`, which has torch's lazy modules import what they stand for
        self.counts.append(sum(issubclass(type(one), torch.Tensor) for one in gc.get_objects()))


def alive(paper, batch):
    counting = LiveTensors()
    gc.collect()
    gc.freeze()  # what is imported need not be looked through again
    train(paper, batch, 10, [counting], accelerator="cpu", max_epochs=3)
    gc.unfreeze()
    return counting.counts[1:]


@pytest.mark.parametrize(
    ("experiment", "model"),
    [
        ("mtn_uncertainty", {}),
        ("mutgan", {}),
        ("weak_transfer_uadt", PLAYING),
        ("fpm_multitask", {}),
    ],
)
def test_thirty_steps_leave_no_tensor_behind(experiment, model):
    after_ten, after_twenty = alive(*made(experiment, model))
    assert after_twenty == after_ten


def test_a_tensor_that_is_kept_by_each_step_is_seen(monkeypatch):
    paper, batch = made("mtn_uncertainty")
    losses, kept = paper.losses, []

    def leaking(outputs, batch):
        found = losses(outputs, batch)
        kept.append(found["mask"].mean.detach())
        return found

    monkeypatch.setattr(paper, "losses", leaking)
    after_ten, after_twenty = alive(paper, batch)
    assert after_twenty == after_ten + 10


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("experiment", ["mtn_uncertainty", "mutgan", "fpm_multitask"])
def test_a_gpu_is_not_waited_for(experiment):
    """CUDA itself refuses what would wait, from the second step on."""

    class Refuse(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):  # noqa: ARG002
            torch.cuda.set_sync_debug_mode("error" if batch_idx == 1 else "default")

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):  # noqa: ARG002
            torch.cuda.set_sync_debug_mode("default")

    train(*made(experiment), 3, [Refuse()], accelerator="gpu", devices=1)
