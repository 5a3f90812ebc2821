"""MTN: what is peculiar to it."""

import pytest
import torch

from cardiac_mtl.contracts import UNLABELLED
from cardiac_mtl.errors import UserError
from cardiac_mtl.papers.mtn import MTN
from cardiac_mtl.weighting import FixedWeighting, SingleTask

SMALL = {"width": 4, "image_size": (32, 32)}


def make_batch(size=32):
    mask = torch.zeros(2, size, size, dtype=torch.int64)
    mask[:, 8:20, 8:20] = 1
    return {
        "image": mask[:, None].float() + 0.1 * torch.randn(2, 1, size, size),
        "mask": mask,
        "spacing": torch.tensor([[8.0, 1.5, 2.0]] * 2),
        "indices": torch.full((2, 1), 144 * 3.0),
        "case": torch.zeros(2, dtype=torch.int64),
        "slice": torch.arange(2),
        "label": torch.full((2,), UNLABELLED),
        "transferred": torch.zeros(2, dtype=torch.bool),
    }


def test_prediction_is_in_probabilities_and_square_millimetres():
    paper = MTN(**SMALL, area_start_mm2=500.0).eval()
    prediction = paper.predict(paper(make_batch()["image"]))
    assert prediction["mask_prob"].shape == (2, 2, 32, 32)
    torch.testing.assert_close(prediction["mask_prob"].sum(1), torch.ones(2, 32, 32))
    assert prediction["indices"].shape == (2, 1)
    assert (prediction["indices"] - 500).abs().max() < 400


def test_the_area_loss_is_in_the_unit_asked_for():
    batch = make_batch()
    outputs = {"area": torch.full((2, 1), 432.0 + 30.0)}
    in_mm2 = MTN(**SMALL).losses(outputs, batch)["area"]
    in_pixels = MTN(**SMALL, area_unit="pixels").losses(outputs, batch)["area"]
    assert float(in_mm2.mean) == pytest.approx(30.0)
    assert float(in_pixels.mean) == pytest.approx(10.0)


@pytest.mark.parametrize(
    ("task", "labels", "indices", "monitor"),
    [
        ("mask", ("myocardium",), (), ("val/dice_vol", "max")),
        ("area", (), ("area_mm2",), ("val/mae/area_mm2", "min")),
    ],
)
def test_a_single_task_builds_no_other_branch(task, labels, indices, monitor):
    paper = MTN(**SMALL, weighting=lambda: SingleTask(task))
    assert set(paper(make_batch()["image"])) == {task}
    assert (paper.label_names, paper.index_names) == (labels, indices)
    assert paper.monitor == monitor


def test_every_parameter_learns():
    paper = MTN(**SMALL)
    batch = make_batch()
    paper.weighting(paper.losses(paper(batch["image"]), batch)).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in paper.parameters())


def test_the_trunk_feels_the_share_of_the_area_branch_that_is_asked_for():
    def gradient(share):
        torch.manual_seed(0)
        paper = MTN(**SMALL, weighting=lambda: SingleTask("area"), area_gradient=share)
        batch = make_batch()
        torch.manual_seed(1)
        paper.losses(paper(batch["image"]), batch)["area"].mean.backward()
        return paper.trunk.encoders[0][0].weight.grad, paper.area_head.linear.weight.grad

    (trunk, head), (damped, same) = gradient(1.0), gradient(0.25)
    torch.testing.assert_close(damped, 0.25 * trunk)
    torch.testing.assert_close(same, head)


def test_the_mask_loss_may_hold_the_dice_loss():
    batch, outputs = make_batch(), {"mask": torch.zeros(2, 32, 32)}
    plain = MTN(**SMALL).losses(outputs, batch)["mask"].mean
    both = MTN(**SMALL, mask_loss="cross_entropy_dice").losses(outputs, batch)["mask"].mean
    half, ring = 0.5 * 2 * 1024, 2 * 144
    assert float(both - plain) == pytest.approx(1 - (ring + 1) / (half + ring + 1), abs=1e-5)


def test_losses_fall_on_one_batch():
    torch.manual_seed(0)
    paper = MTN(**SMALL, weighting=lambda: FixedWeighting({"mask": 1, "area": 0.01}))
    batch = make_batch()
    (optimizer,), _ = paper.configure_optimizers()
    history = []
    for _ in range(40):
        losses = paper.losses(paper(batch["image"]), batch)
        history.append([losses[task].mean.item() for task in ("mask", "area")])
        optimizer.zero_grad()
        paper.weighting(losses).backward()
        optimizer.step()
    assert history[-1][0] < 0.5 * history[0][0]
    assert history[-1][1] < 0.7 * history[0][1]


def test_learned_weights_have_their_own_rate_and_no_decay():
    paper = MTN(
        **SMALL,
        optimizer=lambda params: torch.optim.AdamW(params, lr=0.01, weight_decay=0.1),
        weighting_lr_factor=5.0,
    )
    (optimizer,), (scheduler,) = paper.configure_optimizers()
    network, weights = optimizer.param_groups
    assert [weights["lr"], weights["weight_decay"]] == [pytest.approx(0.05), 0.0]
    assert [network["lr"], network["weight_decay"]] == [pytest.approx(0.01), 0.1]
    assert [id(p) for p in weights["params"]] == [id(paper.weighting.s)]
    optimizer.step()
    scheduler.step()
    assert network["lr"] == pytest.approx(0.01 * 0.95)


def test_the_papers_optimiser_is_the_default():
    (optimizer,), _ = MTN(**SMALL).configure_optimizers()
    assert isinstance(optimizer, torch.optim.RMSprop)
    assert optimizer.param_groups[0]["lr"] == 1e-3


def test_postprocessing_keeps_the_largest_component():
    mask = torch.zeros(3, 8, 8, dtype=torch.uint8).numpy()
    mask[:, 1:4, 1:4] = 1
    mask[0, 6, 6] = 1
    assert MTN(**SMALL).postprocess(mask).sum() == 27


def test_two_papers_share_no_weights():
    assert MTN(**SMALL).weighting.s is not MTN(**SMALL).weighting.s


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_size": (100, 96)}, "data.matrix: image size 100 x 96 is not a multiple of 16"),
        (
            {"weighting": lambda: SingleTask("volume")},
            "unknown task volume; choose from area, mask",
        ),
    ],
)
def test_what_cannot_be_is_one_line(settings, message):
    with pytest.raises(UserError, match=message):
        MTN(**(SMALL | settings))
