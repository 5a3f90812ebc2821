"""MuTGAN: losses and players against numbers by hand; the layers are in tests/networks."""

import pytest
import torch
from lightning import LightningDataModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from cardiac_mtl.contracts import UNLABELLED, TargetScale
from cardiac_mtl.errors import UserError
from cardiac_mtl.metrics.shape import INDEX_NAMES
from cardiac_mtl.networks.regression import Float32Linear
from cardiac_mtl.papers.infarct import IndexScale, SumOfTasks
from cardiac_mtl.papers.mutgan import MuTGAN, MuTGANGenerator, MuTGANSeparate
from cardiac_mtl.weighting import SingleTask, UncertaintyWeighting

SIDE = 16
SMALL = {"width": 2, "image_size": (SIDE, SIDE)}
SCALE = TargetScale(
    torch.tensor([100.0, 10, 40, 50, 60, 20, 8, 0]), torch.tensor([50.0, 5, 20, 10, 12, 6, 2, 90])
)


def make_batch(infarcts=(True, True, False)):
    """Two slices with an infarct and one without, as many phases as SFEN has a use for."""
    torch.manual_seed(0)
    count = len(infarcts)
    mask = torch.zeros(count, SIDE, SIDE, dtype=torch.int64)
    mask[:, 2:10, 2:10] = 2
    indices = torch.full((count, 8), torch.nan)
    indices[:, :2] = 0
    for k, held in enumerate(infarcts):
        if held:
            mask[k, 4:8, 4:7] = 1
            indices[k] = SCALE.mean + SCALE.sd * torch.linspace(-0.9, 0.9, 8)
    return {
        "image": torch.randn(count, 1, 10, SIDE, SIDE),
        "mask": mask,
        "indices": indices,
        "spacing": torch.ones(count, 3),
        "case": torch.zeros(count, dtype=torch.int64),
        "slice": torch.arange(count),
        "label": torch.full((count,), UNLABELLED),
        "transferred": torch.zeros(count, dtype=torch.bool),
    }


class Data(LightningDataModule):
    """The same batch over and over."""

    def train_dataloader(self):
        return DataLoader([make_batch()] * 2, batch_size=None)

    val_dataloader = train_dataloader

    def target_scale(self):
        return SCALE


def quick_trainer(**settings):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    settings = {"enable_checkpointing": "callbacks" in settings} | settings
    return Trainer(accelerator="cpu", max_epochs=1, **quiet, **settings)


def scaled(cls=MuTGAN, **settings):
    torch.manual_seed(0)
    paper = cls(**SMALL, **settings)
    paper.scale.fit(SCALE)
    paper.keep_for_log = lambda values: paper.__dict__.setdefault("kept", {}).update(values)
    return paper


def outputs_at(paper, batch, offset=0.0):
    """Return outputs whose mask is the truth and whose indices are `offset` SDs beside it."""
    truth = paper.scale.standardised(batch["indices"]).nan_to_num()
    return {"mask": torch.where(batch["mask"] == 1, 50.0, -50.0), "indices": truth + offset}


@pytest.mark.parametrize(("exponent", "loss"), [(1, 0.25), (2, 0.0625)])
def test_the_index_loss_is_the_sum_of_eq_3(exponent, loss):
    """Eight numbers in two slices, two in the third; the mean over the slices."""
    paper, batch = scaled(exponent=exponent), make_batch()
    losses = paper.losses(outputs_at(paper, batch, offset=0.25), batch)
    assert float(losses["indices"].mean) == pytest.approx(loss * (8 + 8 + 2) / 3, rel=1e-5)
    assert float(losses["mask"].mean) == pytest.approx(0.0, abs=1e-5)
    assert int(losses["indices"].known) == int(losses["mask"].known) == 3
    total = float(paper.weighting(losses))
    assert total == pytest.approx(float(losses["mask"].mean + losses["indices"].mean))


def test_the_rest_of_the_myocardium_is_no_infarct():
    paper, batch = scaled(), make_batch()
    outputs = outputs_at(paper, batch)
    outputs["mask"] = torch.where(batch["mask"] > 0, 50.0, -50.0)
    held = 1 - 2 * 12 / (64 + 12)
    empty = 64 / (64 + 100)
    loss = paper.losses(outputs, batch)["mask"].mean
    assert float(loss) == pytest.approx((2 * held + empty) / 3, abs=1e-5)


def test_the_cross_entropy_tells_what_the_dice_does_not():
    batch = make_batch(infarcts=(True, False))
    silent = {"mask": torch.full((2, SIDE, SIDE), -4.0), "indices": torch.zeros(2, 8)}
    alone, both = (
        scaled(mask_loss=loss, empty_pixels=1e9).losses(silent, batch)["mask"]
        for loss in ("dice", "dice_cross_entropy")
    )
    probability = torch.tensor(-4.0).sigmoid()
    pixels = (12 * -probability.log() - (512 - 12) * (1 - probability).log()) / 512
    assert float(both.mean - alone.mean) == pytest.approx(float(pixels), rel=1e-4)
    assert both.known == alone.known


def test_the_mask_starts_from_the_share_of_infarcts():
    bias = scaled().generator.joint.mask.bias
    assert float(bias.sigmoid()) == pytest.approx(0.02)


def test_an_orientation_errs_on_the_half_circle():
    paper, batch = scaled(), make_batch((True,))
    batch["indices"][0, -1] = 89.0
    outputs = outputs_at(paper, batch)
    outputs["indices"][0, -1] = -89.0 / 90
    assert float(paper.losses(outputs, batch)["indices"].mean) == pytest.approx(2 / 90, rel=1e-3)


@pytest.mark.parametrize("cls", [MuTGAN, MuTGANGenerator, MuTGANSeparate])
def test_the_checkpoint_is_selected_on_all_tasks(cls):
    assert scaled(cls).monitor == ("val/loss", "min")


@pytest.mark.parametrize("cls", [MuTGAN, MuTGANGenerator, MuTGANSeparate])
def test_indices_are_float32_and_orientations_cannot_wind_around_the_circle(cls):
    """One that a discriminator drove on for twenty epochs stood at 290 turns."""
    paper = scaled(cls)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        heads = [m for m in paper.modules() if isinstance(m, Float32Linear)]
        for head in heads:
            head.bias.fill_(50.0)
        indices = paper(make_batch()["image"])["indices"]
    assert heads
    assert indices.dtype == torch.float32
    assert (indices[:, :7] > 2).all()
    assert (indices[:, 7] <= 1).all()


def test_slices_without_infarct_teach_their_size_and_nothing_of_a_shape():
    paper, batch = scaled(), make_batch((False, False))
    outputs = {"mask": torch.zeros(2, SIDE, SIDE), "indices": torch.ones(2, 8)}
    outputs = {name: value.requires_grad_() for name, value in outputs.items()}
    losses = paper.losses(outputs, batch)
    (losses["mask"].mean + losses["indices"].mean).backward()
    assert (outputs["indices"].grad != 0).tolist() == [[True] * 2 + [False] * 6] * 2
    assert (outputs["mask"].grad > 0).all()


def test_predictions_are_in_physical_units():
    paper = scaled()
    scalars = torch.tensor([[0.0] * 7 + [0.5], [1.0] * 7 + [1.25], [-1.0] * 7 + [-1.0]])
    prediction = paper.predict({"mask": torch.zeros(3, SIDE, SIDE), "indices": scalars})
    torch.testing.assert_close(
        prediction["indices"],
        torch.stack([
            torch.cat([SCALE.mean[:7], torch.tensor([45.0])]),
            torch.cat([(SCALE.mean + SCALE.sd)[:7], torch.tensor([-67.5])]),
            torch.cat([(SCALE.mean - SCALE.sd)[:7], torch.tensor([90.0])]),
        ]),
    )  # fmt: skip
    assert prediction["mask_prob"].shape == (3, 2, SIDE, SIDE)
    assert (prediction["mask_prob"] == 0.5).all()


def test_standardising_is_undone_and_keeps_what_is_not_known():
    scale = IndexScale()
    scale.fit(SCALE)
    indices = make_batch()["indices"]
    back = scale.physical(scale.standardised(indices))
    torch.testing.assert_close(back, indices, equal_nan=True)


@pytest.mark.parametrize("mode", ["began", "eq5"])
def test_every_parameter_learns_in_the_step_of_its_player_alone(mode):
    torch.manual_seed(0)
    paper, learned = MuTGAN(**SMALL, disc_mode=mode, lambda_start=0.5), []
    step = paper._step

    def watched(optimizer, loss):
        paper.zero_grad()
        step(optimizer, loss)
        named = paper.named_parameters()
        learned.append({n for n, p in named if p.grad is not None and p.grad.any()})

    paper._step = watched
    quick_trainer(limit_train_batches=1, limit_val_batches=0).fit(paper, Data())
    names = {name for name, _ in paper.named_parameters()}
    discriminator = {name for name in names if name.startswith("discriminator.")}
    undone = {name for name in names if name.endswith("convolution.bias")}  # by norm
    assert [found - undone for found in learned] == [names - discriminator - undone, discriminator]


def test_the_discriminator_teaches_the_generator():
    """The adversarial term alone reaches every parameter of it."""
    paper, batch = scaled(), make_batch()
    paper.adversarial_loss(paper(batch["image"]), batch).backward()
    idle = [n for n, p in paper.generator.named_parameters() if p.grad is None or not p.grad.any()]
    assert not [n for n in idle if not n.endswith("convolution.bias")]  # norm undoes it


def test_lambda_moves_by_hand_and_stays_between_0_and_1():
    paper, batch = scaled(lambda_start=0.3, lambda_rate=0.1, gamma=0.5), make_batch()
    true, made = paper._true(batch), paper._generated(outputs_at(paper, batch, 1.0), batch)
    with torch.no_grad():
        on_true, on_made = (float(paper._error(v, v, batch).mean) for v in (true, made))
        loss = paper.discriminator_loss(outputs_at(paper, batch, 1.0), batch)
    assert float(loss) == pytest.approx(on_true - 0.3 * on_made, rel=1e-4)
    gap = 0.5 * on_true - on_made
    assert float(paper.balance) == pytest.approx(0.3 + 0.1 * gap, rel=1e-4)
    assert float(paper.kept["lambda"]) == float(paper.balance)
    assert float(paper.kept["convergence"]) == pytest.approx(on_true + abs(gap), rel=1e-4)
    for on_true, bound in ((1e6, 1.0), (-1e6, 0.0)):
        paper._move_balance(torch.tensor(on_true), torch.tensor(0.0))
        assert float(paper.balance) == bound


def test_a_rate_of_0_keeps_lambda():
    paper, batch = scaled(lambda_start=0.7, lambda_rate=0.0), make_batch()
    paper.discriminator_loss(outputs_at(paper, batch, 1.0), batch)
    assert float(paper.balance) == pytest.approx(0.7)


def test_by_eq_5_the_discriminator_writes_the_truth_from_what_is_generated():
    paper, batch = scaled(disc_mode="eq5", lambda_start=0.3), make_batch()
    outputs = outputs_at(paper, batch, 1.0)
    expected = paper._error(paper._true(batch), paper._generated(outputs, batch), batch).mean
    torch.testing.assert_close(paper.discriminator_loss(outputs, batch), expected)
    torch.testing.assert_close(paper.adversarial_loss(outputs, batch), 0.1 * expected)
    assert float(paper.balance) == pytest.approx(0.3)
    assert not hasattr(paper, "kept")


def test_what_is_not_known_is_0_on_both_sides_and_counts_for_nothing():
    paper, batch = scaled(), make_batch()
    batch["mask"][0, 0] = UNLABELLED
    other = outputs_at(paper, batch, 1.0)
    given, true, made = (
        torch.cat(sequence, 1)
        for sequence in (paper._given(batch), paper._true(batch), paper._generated(other, batch))
    )
    assert (~given).sum() == SIDE + 6
    assert not true[~given].any()
    assert not made[~given].any()
    alike = paper._generated(outputs_at(paper, batch), batch)
    torch.testing.assert_close(torch.cat(alike, 1), true)


@pytest.mark.parametrize(
    ("cls", "millions"), [(MuTGAN, 54.357), (MuTGANGenerator, 52.116), (MuTGANSeparate, 197.385)]
)
def test_parameters_at_the_papers_width(cls, millions):
    with torch.device("meta"):
        found = sum(p.numel() for p in cls().parameters()) / 1e6
    assert found == pytest.approx(millions, abs=1e-3)


def test_the_separate_networks_share_nothing_and_are_clipped_by_themselves():
    paper, batch = scaled(MuTGANSeparate, clip_norm=0.01), make_batch()
    assert len(paper.networks) == 8
    outputs = paper(batch["image"])
    outputs["indices"][:, 0].sum().backward()
    learning = {
        n.split(".")[1] for n, p in paper.named_parameters() if p.grad is not None and p.grad.any()
    }
    assert learning == {"size_mm2"}
    paper.zero_grad()
    paper.weighting(paper.losses(paper(batch["image"]), batch)).backward()
    paper.trainer = quick_trainer()
    paper.configure_gradient_clipping(paper.configure_optimizers()[0][0])
    norms = [
        float(torch.nn.utils.get_total_norm([p.grad for p in network.parameters()]))
        for network in paper.networks.values()
    ]
    assert norms == pytest.approx([0.01] * 8, rel=1e-3)


@pytest.mark.parametrize("cls", [MuTGAN, MuTGANGenerator])
def test_a_checkpoint_predicts_without_the_data_that_it_was_trained_on(cls, tmp_path):
    paper = cls(**SMALL)
    kept = ModelCheckpoint(tmp_path, filename="kept", save_on_train_epoch_end=True)
    trainer = quick_trainer(callbacks=[kept], precision="bf16-mixed")
    trainer.fit(paper, Data())
    again = cls(**SMALL)
    again.load_state_dict(torch.load(tmp_path / "kept.ckpt", weights_only=True)["state_dict"])
    torch.testing.assert_close(again.scale.mean, SCALE.mean)
    torch.testing.assert_close(again.scale.sd, SCALE.sd)
    assert {f"val/mae/{name}" for name in INDEX_NAMES} <= set(trainer.callback_metrics)
    if cls is MuTGAN:
        assert float(again.balance) == float(paper.balance)
        assert {"train/lambda", "train/convergence"} <= set(trainer.callback_metrics)


def test_defaults_are_those_of_the_docs():
    optimizers, _ = MuTGAN(**SMALL).configure_optimizers()
    for optimizer in optimizers:
        assert isinstance(optimizer, torch.optim.Adam)
        assert optimizer.param_groups[0]["lr"] == 1e-4
        assert optimizer.param_groups[0]["betas"] == (0.5, 0.999)
    assert isinstance(MuTGAN(**SMALL).weighting, SumOfTasks)


def test_learned_weights_go_with_the_generator_and_do_not_decay():
    likelihoods = {"mask": "laplace", "indices": "laplace"}
    paper = MuTGAN(**SMALL, weighting=lambda: UncertaintyWeighting(likelihoods))
    generator, discriminator = paper.configure_optimizers()[0]
    assert generator.param_groups[1]["params"] == [paper.weighting.s]
    assert generator.param_groups[1]["weight_decay"] == 0
    assert len(discriminator.param_groups) == 1


@pytest.mark.parametrize("cls", [MuTGAN, MuTGANGenerator, MuTGANSeparate])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_size": (72, 64)}, "data.matrix: image size 72 x 64 is not a multiple of 16"),
        ({"weighting": lambda: SingleTask("mask")}, "the weighting names mask; give it mask and indices"),
        ({"empty_pixels": float("inf")}, "model.empty_pixels: inf pixels cannot be weighed"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line(cls, settings, message):
    with pytest.raises(UserError, match=message):
        cls(**(SMALL | settings))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 1, 16, 16), r"MuTGAN wants cine, and was given images of shape \[1, 16, 16\]"),
        ((1, 1, 3, 32, 32), "images of 32 x 32, but the network was made for 16 x 16"),
    ],
)
def test_images_that_it_was_not_made_for_are_refused(shape, message):
    with pytest.raises(UserError, match=message):
        MuTGAN(**SMALL)(torch.zeros(shape))


@pytest.mark.parametrize("extractor", ["sfen", "convlstms", "3dconvs", "cnns", "lstms"])
def test_feature_maps_are_those_of_the_stages_whatever_the_extractor(extractor):
    batch, paper = make_batch(), scaled(extractor=extractor).eval()
    with torch.no_grad():
        maps = paper.feature_maps(batch["image"])
        outputs = paper(batch["image"])
    sizes = {name: tuple(held.shape[1:]) for name, held in maps.items()}
    assert sizes == {
        "Conv4": (2, 8, 8), "Conv8": (4, 4, 4), "Conv12": (8, 2, 2), "Conv13": (16, 1, 1),
        "Conv17": (16, 1, 1), "Conv21": (8, 4, 4), "Conv25": (4, 8, 8), "Conv29": (2, 16, 16),
    }  # fmt: skip
    # what Conv30 makes of the last of them is the mask
    torch.testing.assert_close(
        paper.generator.joint.mask(maps["Conv29"]).squeeze(1), outputs["mask"]
    )


def test_feature_maps_of_the_rows_without_discriminator():
    batch = make_batch()
    assert "Conv29" in scaled(MuTGANGenerator).feature_maps(batch["image"])
    separate = scaled(MuTGANSeparate).eval()
    maps = separate.feature_maps(batch["image"])
    assert list(maps) == ["Conv4", "Conv8", "Conv12", "Conv13"]
    mask = separate.networks["mask"].linear(maps["Conv13"].flatten(1))
    torch.testing.assert_close(mask, separate(batch["image"])["mask"].flatten(1))
