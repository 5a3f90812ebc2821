"""What every paper shares: the steps around `forward`, `losses` and `predict`."""

from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, ClassVar, cast

import numpy as np
import torch
from lightning import LightningModule, Trainer
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from typing_extensions import override

from cardiac_mtl.contracts import Batch, Prediction
from cardiac_mtl.errors import UserError, refuse_unfinished
from cardiac_mtl.evaluation.running import RunningScores
from cardiac_mtl.losses import TaskLoss, over_all_ranks
from cardiac_mtl.papers.promises import (
    refuse_no_probabilities,
    refuse_other_losses,
    refuse_other_prediction,
)
from cardiac_mtl.weighting import Weighting

OptimizerFactory = Callable[[Iterable[Any]], Optimizer]
"""Makes an optimiser of parameters or parameter groups."""
SchedulerFactory = Callable[[Optimizer], LRScheduler]
"""Makes the schedule of an optimiser, stepped once an epoch."""
_TRAINED = "cardiac_mtl_trained"
"""Key of a checkpoint: what the steps of an epoch under way kept for the log."""


def last_step(trainer: Trainer) -> int:
    """Return the step, from 0, at which Lightning logs the end of the epoch under way."""
    steps = -(-int(trainer.num_training_batches) // trainer.accumulate_grad_batches)
    return (trainer.current_epoch + 1) * steps - 1


def refuse_other_tasks(weighting: Weighting, known: Collection[str]) -> None:
    """Refuse a weighting of a task that a paper does not have.

    Raises:
        UserError: see above.
    """
    if unknown := set(weighting.tasks) - set(known):
        raise UserError(
            f"unknown task {', '.join(sorted(unknown))}",
            where="model.weighting",
            fix=f"choose from {', '.join(sorted(known))}",
        )


def of_two_classes(logits: Tensor) -> Tensor:
    """Turn logits of one class (B, ...) into the probabilities of both (B, 2, ...), it second."""
    second = logits.float().sigmoid()
    return torch.stack([1 - second, second], dim=1)


class Paper(LightningModule):
    """A system from one publication.

    Logged, with stage `train` or `val` (under the paper protocol `test` in place of `val`):
    `<stage>/loss/<task>`, `<stage>/loss`, `val/dice_vol`, `val/dice_vol/<label>`,
    `val/mae/<index>`, `val/auc` and `val/balanced_accuracy`; of the weighting `weight/<task>` and
    `s/<task>`; of the last step of an epoch `grad_norm`, before clipping, and `lr`.

    Args:
        weighting: makes one loss of the tasks' losses; it also says which tasks there are.
    """

    title: ClassVar[str]
    """Name of the system, as the tables write it."""
    label_names: tuple[str, ...] = ()
    """Classes of `mask_prob` after the background; empty when no mask is predicted."""
    index_names: tuple[str, ...] = ()
    """Columns of `indices`; empty when none is predicted."""
    class_names: tuple[str, ...] = ()
    """The two classes of `label_prob`, by the value of `label`; empty when none is predicted."""
    selection_stage: str = "val"
    """Part that the checkpoint is selected on; `test` only under the paper protocol, `none` where
    the number of epochs is fixed and no patient validates."""

    def __init__(self, weighting: Weighting) -> None:
        super().__init__()
        refuse_unfinished(self, "title")
        self.weighting = weighting
        self._trained: dict[str, list[Tensor]] = {}
        self._last_step: dict[str, float] = {}

    @abstractmethod
    @override
    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Map an image (B, C, H, W) to the raw outputs that `losses` and `predict` read."""

    @abstractmethod
    def losses(self, outputs: Mapping[str, Tensor], batch: Batch) -> dict[str, TaskLoss]:
        """Return the loss of every task of the weighting."""

    @abstractmethod
    def predict(self, outputs: Mapping[str, Tensor]) -> Prediction:
        """Return the prediction in physical units."""

    @abstractmethod
    @override
    def configure_optimizers(self) -> Any:
        """Return what Lightning takes: an optimiser, or optimisers and their schedules."""

    @property
    def monitor(self) -> tuple[str, str]:
        """What the best checkpoint is selected on, and whether `max` or `min` is best.

        Of classes alone the loss: few validation patients may all be of one class, and have no AUC.

        Raises:
            UserError: nothing is predicted.
        """
        if self.label_names:
            return f"{self.selection_stage}/dice_vol", "max"
        if self.class_names:
            return f"{self.selection_stage}/loss/label", "min"
        if self.index_names:
            return f"{self.selection_stage}/mae/{self.index_names[0]}", "min"
        raise UserError(
            "declares no label_names, index_names or class_names",
            where=type(self).__name__,
            fix="name what it predicts",
        )

    def refuse_trainer(self, trainer: Trainer) -> None:
        """Raise `UserError` where a trainer cannot train this paper; any can by default."""

    def remark(self, trainer: Trainer) -> str:  # noqa: ARG002 - of subclasses
        """Return what is odd about a training before it begins, in one line; mostly nothing."""
        return ""

    def feature_maps(self, image: Tensor) -> dict[str, Tensor]:  # noqa: ARG002 - of subclasses
        """Return maps inside the network to look at, layer by layer; none by default.

        Args:
            image: as of `forward`.

        Returns:
            By name of the layer (B, channels, rows, columns); of a cine those of the last time.
        """
        return {}

    def class_activation(self, image: Tensor) -> Tensor | None:  # noqa: ARG002 - of subclasses
        """Return where a network sees the second class; None where it cannot tell.

        Args:
            image: as of `forward`.

        Returns:
            (B, H, W), log-odds of the second class that each place speaks for; their mean over the
            network's own, coarser grid is the log-odds that are predicted.
        """
        return None

    def postprocess(self, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Clean the class of each voxel (S, H, W) of a whole volume; the identity by default."""
        return mask

    def groups(self, network: Iterable[nn.Parameter] | None = None) -> list[dict[str, object]]:
        """Return the groups of an optimiser: a network, and learned weights without decay.

        Args:
            network: all parameters but the learned weights unless it is given.
        """
        learned = list(self.weighting.parameters())
        if network is None:
            network = [p for p in self.parameters() if not any(p is s for s in learned)]
        groups: list[dict[str, object]] = [{"params": list(network)}]
        if learned:
            groups.append({"params": learned, "weight_decay": 0.0})
        return groups

    @override
    def setup(self, stage: str) -> None:
        if stage == "fit":
            self.refuse_trainer(self.trainer)
        self.scores = RunningScores(self.label_names, self.index_names, self.class_names)

    @override
    def on_train_epoch_start(self) -> None:
        self._trained, self._last_step = {}, {}

    @override
    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        losses = over_all_ranks(self.losses(self(batch["image"]), batch))
        total = self.weighting(losses)
        self.keep_for_log({f"loss/{task}": losses[task].mean for task in self.weighting.tasks})
        self.keep_for_log({"loss": total})
        return total

    def keep_for_log(self, values: Mapping[str, Tensor]) -> None:
        """Log the mean of scalars over the epoch, under `train/`.

        They stay on the device until it ends: a call of `log` costs more than a step of a small
        network does.
        """
        for name, value in values.items():
            self._trained.setdefault(name, []).append(value.detach())

    @override
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # of a run that is stopped in the middle of an epoch, from every process
        checkpoint[_TRAINED] = {
            name: cast("Tensor", self.all_gather(torch.stack(kept))).reshape(-1, len(kept))
            for name, kept in self._trained.items()
        }

    @override
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        rank = self.trainer.global_rank
        self._trained = {
            name: list(kept[rank % len(kept)]) for name, kept in checkpoint[_TRAINED].items()
        }

    @override
    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        if self.trainer.is_last_batch:  # of each epoch: the norm of every step would cost too much
            gradients = [p.grad for p in self.parameters() if p.grad is not None]
            self._last_step = {
                "grad_norm": float(torch.nn.utils.get_total_norm(gradients)),
                "lr": optimizer.param_groups[0]["lr"],
            }

    @override
    def on_train_epoch_end(self) -> None:
        means = {f"train/{name}": value for name, value in self._means_of_epoch().items()}
        self._trained = {}
        self.log_dict(means, logger=False)
        # Lightning would write them after the checkpoint of this epoch: a run that is killed
        # between the two, and goes on from there, would lack them
        row = {name: float(value) for name, value in means.items()} | self._last_step
        for logger in self.loggers:
            logger.log_metrics(row | {"epoch": self.current_epoch}, step=last_step(self.trainer))
        # P49: what follows a loss that is no number would be noise
        losses = {t: means.get(f"train/loss/{t}") for t in self.weighting.tasks}
        if lost := [t for t, loss in losses.items() if loss is not None and not loss.isfinite()]:
            raise UserError(
                f"the loss of {', '.join(lost)} is not finite",
                where=f"epoch {self.current_epoch + 1}",
                fix="lower the learning rate, or look at the data with `cardiac-mtl check`",
            )

    def _means_of_epoch(self) -> dict[str, Tensor]:
        here = [[value.to(self.device) for value in kept] for kept in self._trained.values()]
        means = torch.stack([torch.stack(kept).mean() for kept in here])
        over_ranks = self.trainer.strategy.reduce(means, reduce_op="mean")
        return dict(zip(self._trained, over_ranks, strict=True))

    @override
    def on_validation_epoch_start(self) -> None:
        self._val_losses: list[Tensor] = []

    @override
    def validation_step(self, batch: Batch, batch_idx: int) -> Prediction:
        outputs = self(batch["image"])
        losses = self.losses(outputs, batch)
        refuse_other_losses(losses, self.weighting.tasks, type(self).__name__)
        terms = [torch.stack([losses[t].mean, losses[t].known]) for t in self.weighting.tasks]
        self._val_losses.append(torch.stack(terms).double())
        prediction = self.predict(outputs)
        self._keep_promises(prediction, batch["image"], look=batch_idx == 0)
        self.scores.update(batch, prediction)
        return prediction

    def _keep_promises(self, prediction: Prediction, image: Tensor, *, look: bool) -> None:
        """Refuse a prediction that is not what the paper declares; `look` at its values too."""
        names = {of: getattr(self, of) for of in ("label_names", "index_names", "class_names")}
        refuse_other_prediction(prediction, names, image, type(self).__name__)
        if look:
            refuse_no_probabilities(prediction, type(self).__name__)

    @override
    def on_validation_epoch_end(self) -> None:
        scores = self.scores.compute() | self._mean_val_losses()
        scores = {f"{self.selection_stage}/{name}": value for name, value in scores.items()}
        self.scores.reset()
        if self.trainer.sanity_checking:
            return
        weights = {f"weight/{k}": v for k, v in self.weighting.weights().items()}
        learned = {f"s/{k}": v for k, v in self.weighting.log_variances().items()}
        shown = {self.monitor[0]: scores.pop(self.monitor[0])}
        self.log_dict(scores | weights | learned)
        self.log_dict(shown, prog_bar=True)

    def _mean_val_losses(self) -> dict[str, Tensor]:
        """Average the losses over all that is annotated, whatever the batches and ranks."""
        mean, known = torch.stack(self._val_losses).unbind(-1)  # (batches, tasks)
        sums = torch.stack([(mean * known).sum(0), known.sum(0)])
        total, count = self.trainer.strategy.reduce(sums, reduce_op="sum").float()
        means = zip(self.weighting.tasks, total / count.clamp(min=1), count, strict=True)
        losses = {task: TaskLoss(mean, known) for task, mean, known in means}
        terms = {f"loss/{task}": loss.mean for task, loss in losses.items()}
        return terms | {"loss": self.weighting(losses)}

    @override
    def test_step(self, batch: Batch, batch_idx: int) -> Prediction:
        return self.predict(self(batch["image"]))
