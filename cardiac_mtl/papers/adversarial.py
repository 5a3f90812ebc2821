"""What the adversarial papers share: two optimisers, stepped by hand.

What Lightning leaves out in manual optimisation is done here, once: schedulers are stepped (P18),
gradients are clipped after they were unscaled (P20), batches are counted (P16), several processes
wait for one player only (P25); what it would ignore is refused.
"""

import warnings
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor
from torch.optim import Adam, Optimizer
from typing_extensions import override

from cardiac_mtl.contracts import Batch
from cardiac_mtl.errors import UserError
from cardiac_mtl.losses import over_all_ranks
from cardiac_mtl.papers.base import Paper
from cardiac_mtl.weighting import Weighting

PLAYERS = ("generator", "discriminator")
"""In the order of the optimisers; a third optimiser is the generator's, for a later phase."""


class AdamOfGANs(Adam):
    """Adam that forgets sooner where the gradient pointed, as two players need it.

    Source: Radford et al., DCGAN, ICLR 2016: beta1 of 0.5 in place of 0.9.

    Args:
        params: parameters, or groups of them.
        lr: learning rate.
        beta1: share of the gradient before in the mean.
        beta2: share of the squared gradient before.
        weight_decay: factor of the squared norm, added to the loss.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-4,
        beta1: float = 0.5,
        beta2: float = 0.999,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr=lr, betas=(beta1, beta2), weight_decay=weight_decay)


class AdversarialPaper(Paper):
    """A paper with a generator and a discriminator, updated in turn on each batch.

    `configure_optimizers` returns their two optimisers, in this order, and a schedule for each. Who
    moves first, and how often, is said by `play`: the generator, then the discriminator, once each.
    Logged beside what every paper logs: `train/adversarial`, `train/discriminator` and, of the
    last step of an epoch, `grad_norm/<player>`, before clipping.

    Args:
        weighting: of the tasks' losses, which the generator minimises.
        clip_norm: largest norm of the gradient of either, 0 for none.
    """

    batches_seen: Tensor

    def __init__(self, weighting: Weighting, clip_norm: float = 0.0) -> None:
        super().__init__(weighting)
        self.automatic_optimization = False
        self.clip_norm = clip_norm
        self.register_buffer("batches_seen", torch.zeros((), dtype=torch.long))

    @abstractmethod
    def adversarial_loss(self, outputs: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """Return what the generator minimises beside the losses of its tasks."""

    @abstractmethod
    def discriminator_loss(self, outputs: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """Return what the discriminator minimises; the outputs are detached."""

    @override
    def setup(self, stage: str) -> None:
        super().setup(stage)
        strategy = self.trainer.strategy
        if isinstance(strategy, DDPStrategy):
            # P25: in each step the other player has no gradient, and DDP would wait for it
            strategy._ddp_kwargs["find_unused_parameters"] = True  # noqa: SLF001 - made before us

    @override
    def refuse_trainer(self, trainer: Trainer) -> None:
        # every step of either optimiser counts: training would end after half of them
        dry = trainer.fast_dev_run  # type: ignore[attr-defined]
        if trainer.max_steps != -1 and not dry:
            raise UserError(
                f"max_steps {trainer.max_steps} means half as many batches, with two players",
                where="trainer.max_steps",
                fix="give trainer.max_epochs",
            )
        for average in trainer.callbacks:  # type: ignore[attr-defined]
            # P22: it counts the steps of both players, and sees the count after the last of them
            if isinstance(average, EMAWeightAveraging) and average.update_every_n_steps != 1:
                raise UserError(
                    f"{average.update_every_n_steps}: with two players it might never be updated",
                    where="trainer.callbacks, EMAWeightAveraging.update_every_n_steps",
                    fix="give 1",
                )

    @override
    def training_step(self, batch: Batch, batch_idx: int) -> None:  # type: ignore[override]
        self.play(batch)
        self.batches_seen += 1

    def play(self, batch: Batch) -> None:
        """Have the players make their steps on one batch."""
        outputs = self.train_generator(batch)
        self.train_discriminator(outputs, batch)

    def train_generator(
        self, batch: Batch, outputs: Mapping[str, Tensor] | None = None
    ) -> Mapping[str, Tensor]:
        """Make a step of the generator.

        Args:
            batch: one.
            outputs: of the generator as it stands, where they are known already.

        Returns:
            The outputs before the step.
        """
        optimizer = self.generator_optimizer()
        with self.turn_of(optimizer):
            outputs = self(batch["image"]) if outputs is None else outputs
            losses = over_all_ranks(self.losses(outputs, batch))
            total, adversarial = self.weighting(losses), self.adversarial_loss(outputs, batch)
            self._step(optimizer, total + adversarial)
        self.keep_for_log({f"loss/{task}": losses[task].mean for task in self.weighting.tasks})
        self.keep_for_log({"loss": total, "adversarial": adversarial})
        return outputs

    def train_discriminator(self, outputs: Mapping[str, Tensor], batch: Batch) -> None:
        """Make a step of the discriminator on what the generator made of a batch."""
        optimizer = self.discriminator_optimizer()
        with self.turn_of(optimizer):
            judged = self.discriminator_loss(detached(outputs), batch)
            self._step(optimizer, judged)
        self.keep_for_log({"discriminator": judged})

    def generator_optimizer(self) -> LightningOptimizer:
        """Return the optimiser of the generator in the phase under way."""
        return self._optimizers()[0]

    def discriminator_optimizer(self) -> LightningOptimizer:
        """Return the optimiser of the discriminator."""
        return self._optimizers()[1]

    @contextmanager
    def turn_of(self, optimizer: LightningOptimizer) -> Iterator[None]:
        """Freeze, until the turn is over, what this optimiser does not own."""
        self.toggle_optimizer(optimizer)
        try:
            yield
        finally:
            self.untoggle_optimizer(optimizer)

    def _step(self, optimizer: LightningOptimizer, loss: Tensor) -> None:
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()

    @override
    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        owned = [p for group in optimizer.param_groups for p in group["params"]]
        gradients = [p.grad for p in owned if p.grad is not None]
        if not self.clip_norm and not self.trainer.is_last_batch:
            return
        norm = torch.nn.utils.get_total_norm(gradients)
        if self.clip_norm:
            torch.nn.utils.clip_grads_with_norm_(owned, self.clip_norm, norm)
        if self.trainer.is_last_batch:
            judge = self.discriminator_optimizer().optimizer
            player = PLAYERS[optimizer is judge]
            self._last_step |= {
                f"grad_norm/{player}": float(norm),
                f"lr/{player}": optimizer.param_groups[0]["lr"],
            }

    @override
    def on_train_epoch_end(self) -> None:
        super().on_train_epoch_end()
        schedulers = self.lr_schedulers() or []
        with warnings.catch_warnings():
            # the schedule of a player that waits for its phase goes on with the others
            warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
            for scheduler in schedulers if isinstance(schedulers, list) else [schedulers]:
                scheduler.step()  # type: ignore[call-arg]  # one by epoch, not by plateau

    def _optimizers(self) -> list[LightningOptimizer]:
        found = self.optimizers()
        if not isinstance(found, list):
            raise UserError(
                "one optimiser, and two players",
                where=f"{type(self).__name__}.configure_optimizers",
                fix=f"return one each, in the order {', '.join(PLAYERS)}",
            )
        return found


def detached(outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what the generator made, cut off from it."""
    return {name: value.detach() for name, value in outputs.items()}
