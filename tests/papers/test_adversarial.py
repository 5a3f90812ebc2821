"""Two optimisers by hand: what Lightning would leave out, reproduced and put right."""

import pytest
import torch
from lightning import LightningDataModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader

from cardiac_mtl.cli import main
from cardiac_mtl.errors import UserError
from cardiac_mtl.losses import TaskLoss
from cardiac_mtl.papers.adversarial import AdversarialPaper
from cardiac_mtl.weighting import SingleTask

BATCHES = 4


class Toy(AdversarialPaper):
    """One number that is to be 3, and a critic of it."""

    title = "toy"
    index_names = ("size",)

    def __init__(self, clip_norm=0.0):
        super().__init__(SingleTask("size"), clip_norm)
        self.generator, self.critic = nn.Linear(1, 1), nn.Linear(1, 1)
        self.norms = []

    def forward(self, image):
        return {"size": self.generator(image)}

    def losses(self, outputs, batch):
        error = (outputs["size"] - batch["indices"]).square()
        return {"size": TaskLoss(error.mean(), torch.tensor(error.numel()))}

    def predict(self, outputs):
        return {"indices": outputs["size"]}

    def adversarial_loss(self, outputs, batch):  # noqa: ARG002
        return 0.1 * self.critic(outputs["size"]).square().mean()

    def discriminator_loss(self, outputs, batch):
        assert not outputs["size"].requires_grad
        real, made = self.critic(batch["indices"]), self.critic(outputs["size"])
        return (1 - real).square().mean() + made.square().mean()

    def on_before_optimizer_step(self, optimizer):
        super().on_before_optimizer_step(optimizer)
        owned = [p.grad for group in optimizer.param_groups for p in group["params"]]
        self.norms.append(float(torch.nn.utils.get_total_norm(owned)))

    def configure_optimizers(self):
        optimizers = [SGD(m.parameters(), lr=0.1) for m in (self.generator, self.critic)]
        return optimizers, [StepLR(o, 1, 0.5) for o in optimizers]


class Data(LightningDataModule):
    """The same batch over and over."""

    def train_dataloader(self):
        torch.manual_seed(0)
        one = {
            "image": torch.ones(2, 1), "indices": torch.full((2, 1), 3.0),
            "case": torch.zeros(2), "slice": torch.arange(2.0),
        }  # fmt: skip
        return DataLoader([one] * BATCHES, batch_size=None)

    val_dataloader = train_dataloader


def trained(paper, tmp_path, epochs=2, **settings):
    kept = ModelCheckpoint(tmp_path, filename="kept", save_on_train_epoch_end=True)
    trainer = Trainer(
        accelerator="cpu", max_epochs=epochs, callbacks=[kept], logger=False,
        enable_progress_bar=False, enable_model_summary=False, **settings,
    )  # fmt: skip
    trainer.fit(paper, Data(), ckpt_path=settings.pop("ckpt_path", None))
    return trainer


def test_both_learn_and_every_batch_counts_once(tmp_path):
    torch.manual_seed(0)
    paper = Toy()
    before = [p.clone() for p in paper.parameters()]
    trainer = trained(paper, tmp_path)
    assert all(not torch.equal(a, b) for a, b in zip(before, paper.parameters(), strict=True))
    assert int(paper.batches_seen) == 2 * BATCHES
    assert trainer.global_step == 4 * BATCHES  # Lightning counts both: P16


def test_schedules_go_on_by_epoch(tmp_path):
    paper = Toy()
    trainer = trained(paper, tmp_path)
    assert [o.param_groups[0]["lr"] for o in trainer.optimizers] == [0.025, 0.025]


def test_a_checkpoint_is_there_and_holds_the_count_and_both_optimisers(tmp_path):
    trained(Toy(), tmp_path)
    kept = torch.load(tmp_path / "kept.ckpt", weights_only=True)
    assert int(kept["state_dict"]["batches_seen"]) == 2 * BATCHES
    assert len(kept["optimizer_states"]) == 2


def test_gradients_are_clipped_each_players_by_itself(tmp_path):
    torch.manual_seed(0)
    free, clipped = Toy(), Toy(clip_norm=0.5)
    trained(free, tmp_path, epochs=1)
    trained(clipped, tmp_path, epochs=1)
    assert max(free.norms) > 0.6
    assert max(clipped.norms) == pytest.approx(0.5, rel=1e-5)


def test_the_critic_stands_still_while_the_generator_learns(tmp_path):
    """Its gradients of the generator's step would be those of the wrong sign."""
    paper = Toy()
    seen = []
    step = paper._step

    def watched(optimizer, loss):
        step(optimizer, loss)
        seen.append(
            [p.grad is None for m in (paper.generator, paper.critic) for p in m.parameters()]
        )

    paper._step = watched
    trained(paper, tmp_path, epochs=1)
    assert seen[0] == [False, False, True, True]


def test_what_is_logged_is_of_the_epoch(tmp_path):
    trainer = trained(Toy(), tmp_path)
    names = {"train/loss/size", "train/loss", "train/adversarial", "train/discriminator"}
    assert names <= set(trainer.callback_metrics)


def test_a_number_of_steps_is_refused(tmp_path):
    with pytest.raises(UserError, match="max_steps 10 means half as many batches"):
        trained(Toy(), tmp_path, max_steps=10)


def test_a_failing_step_leaves_no_player_frozen(tmp_path):
    paper = Toy()
    paper.adversarial_loss = lambda *_: 1 / 0
    with pytest.raises(ZeroDivisionError):
        trained(paper, tmp_path, epochs=1)
    assert all(p.requires_grad for p in paper.parameters())


def test_several_processes_wait_for_one_player_only():
    """P25: plain DDP stops, as the other player has no gradient."""
    paper = Toy()
    paper.trainer = Trainer(accelerator="cpu", devices=2, strategy="ddp", logger=False)
    paper.setup("fit")
    assert paper.trainer.strategy._ddp_kwargs == {"find_unused_parameters": True}


def test_an_average_that_would_never_be_updated_is_refused():
    """P22: the count of steps is odd after every batch of two players."""
    average = EMAWeightAveraging(update_every_n_steps=2)
    trainer = Trainer(accelerator="cpu", callbacks=[average], logger=False, max_epochs=1)
    with pytest.raises(UserError, match="might never be updated"):
        trainer.fit(Toy(), Data())


def test_what_the_players_refuse_leaves_nothing_behind(cines, tmp_path, capsys):
    words = ["fit", "--config", "mutgan", "--config", "cine_small", "--data.num_folds", "3"]
    folders = ["--data.root", str(cines), "--run_root", str(tmp_path / "runs")]
    assert main([*words, *folders, "--trainer.max_steps", "5"]) == 2
    assert "trainer.max_steps: max_steps 5 means half as many" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
