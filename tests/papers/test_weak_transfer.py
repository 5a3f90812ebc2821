"""Weak domain transfer: phases, players and losses against numbers by hand."""

import math

import numpy as np
import pytest
import torch
from lightning import LightningDataModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch.optim import SGD, Adam
from torch.utils.data import DataLoader

from cardiac_mtl.catalogue import find_config, read_yaml
from cardiac_mtl.configuration import build
from cardiac_mtl.contracts import UNLABELLED
from cardiac_mtl.errors import UserError
from cardiac_mtl.losses import masked_cross_entropy, masked_dice_loss_of_classes
from cardiac_mtl.papers.keras_optimizers import KerasAdam, KerasRMSprop
from cardiac_mtl.papers.weak_transfer import WeakTransfer
from cardiac_mtl.weighting import FixedWeighting, SingleTask, UncertaintyWeighting

SIDE = 32
SMALL = {"width": 2, "image_size": (SIDE, SIDE)}
BOTH, OWN, CARRIED = (False, True, False, True), (False, False), (True, True)


def make_batch(transferred=BOTH, seed=0):
    generator = torch.Generator().manual_seed(seed)
    count = len(transferred)
    image = torch.randn(count, 1, SIDE, SIDE, generator=generator)
    mask = torch.zeros(count, SIDE, SIDE, dtype=torch.int64)
    mask[:, 4:20, 4:20], mask[:, 8:16, 8:16], mask[:, 22:28, 6:18] = 2, 1, 3
    return {
        "image": image + mask[:, None],
        "mask": mask,
        "spacing": torch.ones(count, 3),
        "indices": torch.zeros(count, 0),
        "case": torch.arange(count),
        "slice": torch.zeros(count, dtype=torch.int64),
        "label": torch.full((count,), UNLABELLED),
        "transferred": torch.tensor(transferred),
        "sample": torch.arange(count),
    }


class Data(LightningDataModule):
    """Some batches in order; there are no validation patients."""

    def __init__(self, batches):
        super().__init__()
        self.batches = batches

    def train_dataloader(self):
        return DataLoader(self.batches, batch_size=None)


class Steps(Callback):
    """What each step moved: a set of `generator` and `discriminator`."""

    def __init__(self, paper):
        self.moved, self.optimizers = [], []
        step = paper._step

        def watched(optimizer, loss):
            before = weights(paper)
            step(optimizer, loss)
            self.moved.append({name.split(".")[0] for name in changed(before, weights(paper))})
            self.optimizers.append(optimizer.optimizer)

        paper._step = watched


def weights(paper):
    return {name: value.detach().clone() for name, value in paper.named_parameters()}


def changed(before, after):
    return {name for name, value in after.items() if not torch.equal(before[name], value)}


def made(**settings):
    torch.manual_seed(0)
    return WeakTransfer(**(SMALL | settings))


def trained(paper, batches, epochs=1, ckpt_path=None, **settings):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    settings = {"enable_checkpointing": "callbacks" in settings} | settings
    trainer = Trainer(accelerator="cpu", max_epochs=epochs, **quiet, **settings)
    trainer.fit(paper, Data(batches), ckpt_path=ckpt_path)
    return trainer


class Recorder(torch.nn.Module):
    """A discriminator that gives every pair the same verdict, and keeps what it was shown."""

    def __init__(self, verdict):
        super().__init__()
        self.verdict, self.shown = verdict, []

    def forward(self, mask, image):
        self.shown.append((mask, image))
        return torch.full((len(mask),), self.verdict) + 0 * mask.sum((1, 2, 3))


# the losses


@pytest.mark.parametrize("beta", [0.9, 0.0])
def test_each_task_is_the_loss_of_its_slices_alone(beta):
    batch = make_batch()
    paper = made(beta=beta)
    outputs = paper(batch["image"])
    losses = paper.losses(outputs, batch)
    for task, own in (("labelled", [0, 2]), ("transferred", [1, 3])):
        logits, mask = outputs["mask"][own], batch["mask"][own]
        pixels = masked_cross_entropy(logits, mask).mean
        dice = masked_dice_loss_of_classes(logits, mask, "all_classes").mean
        torch.testing.assert_close(losses[task].mean, beta * pixels + (1 - beta) * dice)
        assert int(losses[task].known) == 2 * SIDE * SIDE
    expected = 0.9 * losses["labelled"].mean + 0.1 * losses["transferred"].mean
    torch.testing.assert_close(paper.weighting(losses), expected)


@pytest.mark.parametrize(("kinds", "silent"), [(OWN, "transferred"), (CARRIED, "labelled")])
def test_a_task_without_slices_costs_nothing(kinds, silent):
    batch, paper = make_batch(kinds), made()
    loss = paper.losses(paper(batch["image"]), batch)[silent]
    assert (float(loss.mean), int(loss.known)) == (0.0, 0)


def test_the_discriminator_wants_true_pairs_high_and_generated_ones_low():
    paper, batch = made(), make_batch()
    paper.discriminator = Recorder(verdict := 1.5)
    outputs = {"mask": torch.randn(4, 4, SIDE, SIDE)}
    loss = float(paper.discriminator_loss(outputs, batch))
    probability = 1 / (1 + math.exp(-verdict))
    assert loss == pytest.approx(-math.log(probability) - math.log(1 - probability), rel=1e-5)
    (true, image), (generated, same) = paper.discriminator.shown
    torch.testing.assert_close(true.argmax(1), batch["mask"])
    assert true.sum(1).eq(1).all()
    assert true.max(1).values.eq(1).all()
    torch.testing.assert_close(generated, outputs["mask"].softmax(1))
    assert image is batch["image"]
    assert same is batch["image"]
    assert [float(share) for share in paper._trained["discriminator_accuracy"]] == [1.0, 0.0]


def test_the_generator_wants_its_pairs_to_be_taken_for_true():
    paper, batch = made(weight_adversarial=0.5), make_batch()
    paper.discriminator = Recorder(1.5)
    loss = paper.adversarial_loss(paper(batch["image"]), batch)
    assert float(loss) == pytest.approx(0.5 * math.log(1 + math.exp(-1.5)), rel=1e-5)


def test_what_is_not_annotated_is_judged_by_nobody():
    paper, batch = made(), make_batch()
    batch["mask"][0], batch["mask"][1, 0] = UNLABELLED, UNLABELLED
    paper.discriminator = Recorder(0.0)
    outputs = {"mask": torch.randn(4, 4, SIDE, SIDE)}
    paper.discriminator_loss(outputs, batch)
    for shown, _ in paper.discriminator.shown:
        assert not shown[0].any()
        assert not shown[1, :, 0].any()
        torch.testing.assert_close(shown[1, :, 1:].sum(0), torch.ones(SIDE - 1, SIDE))
    assert paper._verdict_on(batch["mask"], "true").tolist() == [UNLABELLED, 1, 1, 1]
    alone = made(weighting=lambda: SingleTask("labelled"))
    assert alone._verdict_on(alone._mask(batch), "generated").tolist() == [
        UNLABELLED, UNLABELLED, 0, UNLABELLED,
    ]  # fmt: skip


# the phases


def test_alone_the_generator_learns_from_labelled_slices_only():
    both, own = made(), made()
    steps = Steps(both)
    before = weights(both)
    trainer = trained(both, [make_batch(), make_batch(CARRIED), make_batch(seed=1)])
    picked = [make_batch(), make_batch(seed=1)]
    for batch in picked:
        for name, value in batch.items():
            batch[name] = value[[0, 2]]
    trained(own, picked)
    assert steps.moved == [{"generator"}] * 2
    after = weights(both)
    assert not any(name.startswith("discriminator") for name in changed(before, after))
    for name, value in weights(own).items():
        torch.testing.assert_close(after[name], value, rtol=0, atol=1e-7)
    logged = {name for name in trainer.callback_metrics if name.startswith("train/")}
    assert logged == {"train/loss", "train/loss/labelled"}
    assert both.batches_seen == 3


@pytest.mark.parametrize("kinds", [BOTH, OWN, CARRIED])
def test_the_discriminator_moves_first(kinds):
    paper = made(pretrain_epochs=0)
    steps = Steps(paper)
    trainer = trained(paper, [make_batch(kinds)])
    assert steps.moved == [{"discriminator"}, {"generator"}]
    names = ("loss", "loss/labelled", "loss/transferred", "adversarial", "discriminator")
    assert {f"train/{name}" for name in (*names, "discriminator_accuracy")} <= set(
        trainer.callback_metrics
    )
    assert 0 <= trainer.callback_metrics["train/discriminator_accuracy"] <= 1


def test_the_released_code_steps_apart_and_twice():
    paper = made(pretrain_epochs=0, disc_steps="apart", g_steps=2)
    steps = Steps(paper)
    trained(paper, [make_batch()])
    assert steps.moved == [{"discriminator"}] * 2 + [{"generator"}] * 2


def test_the_phases_follow_each_other_in_one_fit():
    paper = made(pretrain_epochs=2, adversarial_optimizer=lambda params: SGD(params, lr=0.01))
    steps = Steps(paper)
    trained(paper, [make_batch()], epochs=3)
    assert steps.moved == [{"generator"}, {"generator"}, {"discriminator"}, {"generator"}]
    assert [type(optimizer) for optimizer in steps.optimizers] == [KerasAdam] * 3 + [SGD]


@pytest.mark.parametrize(
    ("alone", "epochs", "told"), [(3, 3, True), (50, 3, True), (2, 3, False), (5, -1, False)]
)
def test_a_training_that_never_meets_its_adversary_is_told(alone, epochs, told):
    remark = made(pretrain_epochs=alone).remark(Trainer(max_epochs=epochs, logger=False))
    assert remark == ("no adversary: the generator learns alone for all 3 epochs" if told else "")


def test_the_second_step_of_the_generator_starts_from_the_first():
    """A cache of autocast would keep the weights of the first forward; Lightning has it off."""
    paper = made(pretrain_epochs=0, g_steps=2, optimizer=lambda params: Adam(params, lr=0.01))
    batch, seen, forward = make_batch(), [], paper.generator.forward

    def watched(image):
        given = forward(image)
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
            seen.append(torch.equal(given, forward(image)))
        return given

    paper.generator.forward = watched
    trained(paper, [batch], precision="bf16-mixed")
    assert seen == [True, True]


@pytest.mark.parametrize("disc_steps", ["together", "apart"])
def test_the_first_step_of_the_generator_is_that_of_its_whole_loss(disc_steps):
    """Its outputs are computed before the discriminator's step, and are still its own."""
    sgd = {"optimizer": lambda params: SGD(params, lr=0.1), "disc_steps": disc_steps}
    paper, other = made(pretrain_epochs=0, **sgd), made(**sgd)
    batch = make_batch()
    trained(paper, [batch])
    other.discriminator.load_state_dict(paper.discriminator.state_dict())
    outputs = other(batch["image"])
    total = other.weighting(other.losses(outputs, batch))
    total = total + other.adversarial_loss(outputs, batch)
    gradients = torch.autograd.grad(total, list(other.generator.parameters()))
    pairs = zip(other.generator.parameters(), paper.generator.parameters(), gradients, strict=True)
    for before, after, gradient in pairs:
        torch.testing.assert_close(after, before - 0.1 * gradient, rtol=1e-4, atol=1e-6)


def test_every_parameter_learns_from_either_side():
    paper, batch = made(width=8), make_batch()  # of two features one may be dead
    paper.adversarial_loss(paper(batch["image"]), batch).backward()
    assert all(p.grad.any() for p in paper.generator.parameters())
    paper.zero_grad()
    paper.discriminator_loss(paper(batch["image"]), batch).backward()
    idle = [n for n, p in paper.discriminator.named_parameters() if not p.grad.any()]
    assert not idle


@pytest.mark.parametrize("settings", [{}, {"g_steps": 2, "disc_steps": "apart"}])
def test_a_run_goes_on_bit_for_bit_in_either_phase(tmp_path, settings):
    def new():
        rms = lambda params: KerasRMSprop(params, clip_value=1.0)  # noqa: E731
        return made(pretrain_epochs=2, adversarial_optimizer=rms, **settings)

    batches = [make_batch(), make_batch(OWN, 1), make_batch(CARRIED, 2)]
    keep = {"save_top_k": -1, "save_on_train_epoch_end": True, "filename": "{epoch}"}
    straight = new()
    whole = trained(straight, batches, 4, callbacks=[ModelCheckpoint(tmp_path, **keep)])
    for epoch in range(3):
        again = new()
        place = tmp_path / f"epoch={epoch}.ckpt"
        assert torch.load(place, weights_only=True)
        gone_on = trained(again, batches, 4, ckpt_path=place)
        for name, value in straight.state_dict().items():
            assert torch.equal(again.state_dict()[name], value), (epoch, name)
        for one, other in zip(whole.optimizers, gone_on.optimizers, strict=True):
            counts = [group["updates"] for o in (one, other) for group in o.param_groups]
            assert len(set(counts)) == 1


# what is built


def test_only_the_kernels_of_the_discriminator_decay():
    paper = made()
    generator, discriminator = paper.configure_optimizers()[0]
    decays = {id(p): g["weight_decay"] for g in discriminator.param_groups for p in g["params"]}
    kernels = {
        id(m.weight) for m in paper.discriminator.modules() if isinstance(m, torch.nn.Conv2d)
    }
    assert len(kernels) == 4
    assert decays == {
        id(p): 0.02 if id(p) in kernels else 0.0 for p in paper.discriminator.parameters()
    }
    assert [group["weight_decay"] for group in generator.param_groups] == [0.0]


def test_the_papers_optimiser_is_the_default():
    for optimizer in made().configure_optimizers()[0]:
        assert isinstance(optimizer, KerasAdam)
        assert optimizer.param_groups[0]["lr"] == 2e-4
        assert optimizer.decay == 1e-8
    weights = made().weighting.weights()
    assert weights == {"labelled": pytest.approx(0.9), "transferred": pytest.approx(0.1)}


def test_the_discriminator_may_have_an_optimiser_of_its_own():
    paper = made(disc_optimizer=lambda params: SGD(params, lr=0.01))
    generator, discriminator = paper.configure_optimizers()[0]
    assert (type(generator), type(discriminator)) == (KerasAdam, SGD)
    owned = {id(p) for group in discriminator.param_groups for p in group["params"]}
    assert owned == {id(p) for p in paper.discriminator.parameters()}


def test_the_preset_of_the_released_code_builds_its_optimisers():
    preset = read_yaml(find_config("weak_transfer_released_code"))["model"]["init_args"]
    kind = "cardiac_mtl.papers.weak_transfer.WeakTransfer"
    model = {"class_path": kind, "init_args": SMALL | preset}
    data = {"class_path": "data_modules.manifest.ManifestDataModule"}
    paper = build({"model": model, "data": data})[0]
    alone, discriminator, adversarial = paper.configure_optimizers()[0]
    assert isinstance(alone, KerasAdam)
    assert isinstance(discriminator, KerasAdam)
    assert isinstance(adversarial, KerasRMSprop)
    assert (adversarial.clip_value, adversarial.decay) == (1.0, 1e-8)
    group = adversarial.param_groups[0]
    assert (group["lr"], group["alpha"], group["eps"]) == (2e-4, 0.9, 1e-7)
    assert (paper.g_steps, paper.disc_steps) == (2, "apart")


def test_learned_weights_go_with_the_generator():
    likelihoods = {"labelled": "softmax", "transferred": "softmax"}
    paper = made(weighting=lambda: UncertaintyWeighting(likelihoods))
    generator, _ = paper.configure_optimizers()[0]
    assert generator.param_groups[1]["params"] == [paper.weighting.s]


def test_parameters_at_the_papers_width():
    with torch.device("meta"):
        paper = WeakTransfer()
    assert sum(p.numel() for p in paper.parameters()) == 155_652 + 296_577


def test_predictions_are_probabilities_of_four_classes():
    paper = made()
    found = paper.predict(paper(make_batch()["image"]))["mask_prob"]
    assert found.shape == (4, 4, SIDE, SIDE)
    torch.testing.assert_close(found.sum(1), torch.ones(4, SIDE, SIDE))
    assert paper.monitor == ("val/dice_vol", "max")


def test_smoothing_each_class_lets_the_higher_have_what_two_claim():
    mask = np.zeros((1, 9, 12), np.uint8)
    mask[0, :, :6], mask[0, :, 6:] = 1, 2
    mask[0, 4, 5] = 2  # a corner that closing gives to the LV too, and opening takes from neither
    mask[0, 1, 10] = 0  # a gap
    mask[0, 7, 2] = 3  # an island in the LV
    by_class = made(smoothing="each_class").postprocess(mask)
    expected = np.where(np.arange(12) < 6, 1, 2)[None, None].repeat(9, 1)
    np.testing.assert_array_equal(by_class, expected)
    assert by_class.dtype == np.uint8
    np.testing.assert_array_equal(made().postprocess(mask), expected)


def test_a_thin_wall_is_lost_to_grey_values_and_kept_by_none():
    """Two columns of myocardium between LV and background: the square of 3 x 3 does not fit."""
    mask = np.zeros((1, 9, 12), np.uint8)
    mask[0, :, :5], mask[0, :, 5:7] = 1, 2
    assert made().postprocess(mask)[0, 4].tolist() == [1] * 7 + [0] * 5
    assert made(smoothing="each_class").postprocess(mask)[0, 4].tolist() == [1] * 5 + [0] * 7


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_size": (100, 96)}, "data.matrix: image size 100 x 96 is not a multiple of 8"),
        ({"image_size": (8, 8)}, "8 x 8 is not a multiple of 8 from 16 on"),
        ({"weighting": lambda: FixedWeighting({"mask": 1})}, "the weighting names mask; give it labelled"),
        ({"weighting": lambda: SingleTask("transferred")}, "the weighting names transferred"),
        ({"beta": 1.5}, "model.beta: a share of 1.5"),
        ({"g_steps": 0}, "model.g_steps: 0 steps"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line(settings, message):
    with pytest.raises(UserError, match=message):
        made(**settings)
