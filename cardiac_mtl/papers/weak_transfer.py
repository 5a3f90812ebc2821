"""Weak domain transfer: LV, myocardium and RV from late enhancement with few masks of its own.

Paper: Chen, Li, Zhang, Menze, "Adversarial convolutional networks with weak domain-transfer for
multi-sequence cardiac MR images segmentation", STACOM 2019. Its code is public; where it departs
from the text, the text is the default and the preset `weak_transfer_released_code` the other.
Wants: LGE slices with a mask, and LGE slices whose mask was carried over from bSSFP or T2.
Not public: which weights were submitted, the challenge's test masks. What is marked [inferred]
below is our reading; the reasons stand in docs/papers/weak_transfer.md.
"""

from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
import torch
from lightning import Trainer
from lightning.pytorch.core.optimizer import LightningOptimizer
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ConstantLR, LRScheduler
from typing_extensions import override

from cardiac_mtl.contracts import UNLABELLED, Batch, Prediction
from cardiac_mtl.errors import UserError
from cardiac_mtl.losses import (
    DiceOver,
    TaskLoss,
    masked_binary_cross_entropy,
    masked_cross_entropy,
    masked_dice_loss_of_classes,
    one_hot,
    over_all_ranks,
)
from cardiac_mtl.networks.discriminators import DiscriminatorHead, MaskDiscriminator
from cardiac_mtl.networks.drunet import DILATIONS, DRUNet
from cardiac_mtl.papers.adversarial import AdversarialPaper, detached
from cardiac_mtl.papers.base import OptimizerFactory, SchedulerFactory
from cardiac_mtl.papers.fused import fused
from cardiac_mtl.papers.keras_optimizers import KerasAdam
from cardiac_mtl.postprocessing import closed_then_opened
from cardiac_mtl.weighting import FixedWeighting, Weighting

LABELLED, TRANSFERRED = "labelled", "transferred"
"""Tasks: slices with a mask of their own (L_ID), and with one of another sequence (L_DT)."""
Pair = Literal["true", "generated"]


class LabelledAndTransferred(FixedWeighting):
    """L_G = lambda L_ID + (1 - lambda) L_DT.

    Args:
        labelled: lambda, 0 to 1.
    """

    def __init__(self, labelled: float = 0.9) -> None:
        super().__init__({LABELLED: labelled, TRANSFERRED: 1 - labelled})


class WeakTransfer(AdversarialPaper):
    """Dilated residual U-shape, against a discriminator of which mask belongs to an image.

    Algorithm 1 in one `fit`: the first epochs train the generator alone, on labelled slices; then
    the discriminator moves first on each batch, on pairs of both kinds. With `pretrain_epochs` no
    smaller than the epochs it is the row U+D, with `labelled` as the only task U+A+D.

    Logged beside what adversarial papers log: `train/discriminator_accuracy`, the share of true and
    generated pairs that the discriminator knew before its step. While the generator trains alone,
    `train/loss/labelled` and `train/loss` are logged and nothing else.

    Args:
        width: features of the generator [code: 32].
        image_size: rows and columns of the prepared image [paper: 224, 224].
        dilations: of the generator's residual blocks [code; `DRUNet32fLD` has 2, 3, 4, 3, 2].
        pretrain_epochs: epochs of the generator alone [paper: j; code: 30].
        beta: share of the cross-entropy in a segmentation loss, the rest is the Dice [paper: 0.9].
        dice: what the Dice runs over [code: all classes, flattened with the whole batch].
        weighting: of the tasks `labelled` and `transferred` [paper: lambda 0.9 and 0.1].
        weight_adversarial: of the discriminator's verdict in the generator's loss [code: 1].
        g_steps: steps of the generator a batch [paper: 1; code: 2].
        disc_steps: the discriminator steps on true and generated pairs `together` [paper: eq. 5],
            or `apart`, on the true ones first [code].
        disc_head: `flatten` [code], or `pooled`.
        disc_weight_decay: of the discriminator's kernels [code: L2 of 0.01, whose gradient is that
            of a decay of 0.02].
        optimizer: of either player [paper: Adam, 2e-4, decay 1e-8].
        disc_optimizer: of the discriminator, if another [paper: the same; a slower one keeps it
            from winning against a narrow generator].
        adversarial_optimizer: of the generator once it has an adversary [paper: the same Adam goes
            on; code: RMSprop].
        scheduler: of each optimiser, after each epoch [paper: none but its decay].
        clip_norm: largest norm of the gradient of either player, 0 for none [paper].
        smoothing: after prediction, of the classes as grey values [code], or of `each_class`.
        channels_last: memory format of the generator, as of MTN.
    """

    title = "Weak transfer"
    label_names = ("lv", "myocardium", "rv")

    def __init__(
        self,
        width: int = 32,
        image_size: tuple[int, int] = (224, 224),
        dilations: tuple[int, int, int, int, int] = DILATIONS,
        pretrain_epochs: int = 30,
        beta: float = 0.9,
        dice: DiceOver = "all_classes",
        weighting: Callable[[], Weighting] = lambda: LabelledAndTransferred(labelled=0.9),
        weight_adversarial: float = 1.0,
        g_steps: int = 1,
        disc_steps: Literal["together", "apart"] = "together",
        disc_head: DiscriminatorHead = "flatten",
        disc_weight_decay: float = 0.02,
        optimizer: OptimizerFactory = lambda params: KerasAdam(params, lr=2e-4, decay=1e-8),
        disc_optimizer: OptimizerFactory | None = None,
        adversarial_optimizer: OptimizerFactory | None = None,
        scheduler: SchedulerFactory = lambda optimizer: ConstantLR(optimizer, factor=1.0),
        clip_norm: float = 0.0,
        smoothing: Literal["grey", "each_class"] = "grey",
        channels_last: bool = True,
    ) -> None:
        super().__init__(weighting(), clip_norm)
        self.save_hyperparameters()
        _check(self.weighting, image_size, beta, g_steps)
        classes = 1 + len(self.label_names)
        self.generator = DRUNet(width, classes, dilations)
        self.discriminator = MaskDiscriminator(classes, image_size, disc_head)
        self.pretrain_epochs = pretrain_epochs
        self.beta = beta
        self.dice = dice
        self.weight_adversarial = weight_adversarial
        self.g_steps = g_steps
        self.disc_steps = disc_steps
        self.disc_weight_decay = disc_weight_decay
        self.make_optimizer = optimizer
        self.make_disc_optimizer = optimizer if disc_optimizer is None else disc_optimizer
        self.make_adversarial_optimizer = adversarial_optimizer
        self.make_scheduler = scheduler
        self.smoothing = smoothing
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.to(memory_format=self.memory_format)

    @override
    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return {"mask": self.generator(image.contiguous(memory_format=self.memory_format))}

    @override
    def losses(self, outputs: Mapping[str, Tensor], batch: Batch) -> dict[str, TaskLoss]:
        return {
            task: self._segmentation_loss(outputs["mask"], mask_of_task(batch, task))
            for task in self.weighting.tasks
        }

    def _segmentation_loss(self, logits: Tensor, mask: Tensor) -> TaskLoss:
        pixels = masked_cross_entropy(logits, mask)
        dice = masked_dice_loss_of_classes(logits, mask, self.dice)
        return TaskLoss(self.beta * pixels.mean + (1 - self.beta) * dice.mean, pixels.known)

    @property
    def alone(self) -> bool:
        """Whether the generator has no adversary yet."""
        return self.current_epoch < self.pretrain_epochs

    @override
    def remark(self, trainer: Trainer) -> str:
        epochs = trainer.max_epochs or 0
        if not 0 < epochs <= self.pretrain_epochs:  # -1 has no end
            return ""
        return f"no adversary: the generator learns alone for all {epochs} epochs"

    @override
    def play(self, batch: Batch) -> None:
        if self.alone:
            self._train_alone(labelled_only(batch))
            return
        outputs = self(batch["image"])
        self.train_discriminator(outputs, batch)
        self.train_generator(batch, outputs)  # which the discriminator's step did not change
        for _ in range(1, self.g_steps):
            self.train_generator(batch)

    def _train_alone(self, batch: Batch) -> None:
        optimizer = self.generator_optimizer()
        with self.turn_of(optimizer):
            losses = over_all_ranks(self.losses(self(batch["image"]), batch))
            loss = losses[LABELLED]
            if loss.known:  # a step without gradient would still move by what Adam remembers
                self._step(optimizer, loss.mean)
        self.keep_for_log({f"loss/{LABELLED}": loss.mean, "loss": loss.mean})

    @override
    def train_discriminator(self, outputs: Mapping[str, Tensor], batch: Batch) -> None:
        if self.disc_steps == "together":
            super().train_discriminator(outputs, batch)
            return
        optimizer, made = self.discriminator_optimizer(), detached(outputs)
        judged = []
        with self.turn_of(optimizer):
            for pair in ("true", "generated"):
                judged.append(self._judged(pair, made, batch))
                self._step(optimizer, judged[-1])
        self.keep_for_log({"discriminator": torch.stack(judged).sum()})

    @override
    def discriminator_loss(self, outputs: Mapping[str, Tensor], batch: Batch) -> Tensor:
        true = self._judged("true", outputs, batch)
        return true + self._judged("generated", outputs, batch)

    def _judged(self, pair: Pair, outputs: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """Return the error of the discriminator on true or on generated pairs, a mean over them."""
        mask = self._mask(batch)
        shown = true_pair(mask) if pair == "true" else probability(outputs, mask)
        verdict = self.discriminator(shown, batch["image"])
        truth = self._verdict_on(mask, pair)
        right = ((verdict > 0) == (truth > 0)) & (truth != UNLABELLED)
        known = (truth != UNLABELLED).sum()
        shared = over_all_ranks(
            {
                "error": masked_binary_cross_entropy(verdict, truth),
                "right": TaskLoss(right.sum() / known.clamp(min=1), known),
            }
        )
        self.keep_for_log({"discriminator_accuracy": shared["right"].mean})
        return shared["error"].mean

    @override
    def adversarial_loss(self, outputs: Mapping[str, Tensor], batch: Batch) -> Tensor:
        mask = self._mask(batch)
        verdict = self.discriminator(probability(outputs, mask), batch["image"])
        error = masked_binary_cross_entropy(verdict, self._verdict_on(mask, "true"))
        return self.weight_adversarial * over_all_ranks({"error": error})["error"].mean

    def _mask(self, batch: Batch) -> Tensor:
        """Return the masks of the tasks that are trained."""
        both = TRANSFERRED in self.weighting.tasks
        return batch["mask"] if both else mask_of_task(batch, LABELLED)

    @staticmethod
    def _verdict_on(mask: Tensor, pair: Pair) -> Tensor:
        """Return what the verdicts (B,) should be, `UNLABELLED` where nothing is annotated."""
        given = (mask != UNLABELLED).flatten(1).any(1)
        return torch.where(given, int(pair == "true"), UNLABELLED)

    @override
    def predict(self, outputs: Mapping[str, Tensor]) -> Prediction:
        return {"mask_prob": outputs["mask"].float().softmax(1)}

    @override
    def postprocess(self, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Close and open each slice [code]; the class of a higher value has what two claim."""
        if self.smoothing == "grey":
            return closed_then_opened(mask)
        labels = range(1, 1 + len(self.label_names))
        each = [k * closed_then_opened((mask == k).astype(np.uint8)) for k in labels]
        return np.max(each, axis=0).astype(np.uint8)

    @override
    def generator_optimizer(self) -> LightningOptimizer:
        generator, _, *adversarial = self._optimizers()
        return adversarial[0] if adversarial and not self.alone else generator

    @override
    def configure_optimizers(self) -> tuple[list[Optimizer], list[LRScheduler]]:
        kernels = self.discriminator.kernels()
        others = [p for p in self.discriminator.parameters() if not any(p is k for k in kernels)]
        judge = [{"params": kernels, "weight_decay": self.disc_weight_decay}, {"params": others}]
        optimizers = [
            fused(self.make_optimizer(self.groups(self.generator.parameters()))),
            fused(self.make_disc_optimizer(judge)),
        ]
        if self.make_adversarial_optimizer is not None:
            groups = self.groups(self.generator.parameters())
            optimizers.append(fused(self.make_adversarial_optimizer(groups)))
        return optimizers, [self.make_scheduler(optimizer) for optimizer in optimizers]


def labelled_only(batch: Batch) -> Batch:
    """Return the samples of a batch whose mask is their own."""
    own = (~batch["transferred"]).nonzero().squeeze(1)  # once: a boolean would be asked by each key
    return {name: value[own] for name, value in batch.items()}  # type: ignore[index, return-value]


def mask_of_task(batch: Batch, task: str) -> Tensor:
    """Return the masks (B, H, W), `UNLABELLED` in the slices of the other task."""
    belongs = batch["transferred"] == (task == TRANSFERRED)
    return torch.where(belongs[:, None, None], batch["mask"], UNLABELLED)


def true_pair(mask: Tensor) -> Tensor:
    """Return a mask (B, H, W) as (B, 4, H, W), all 0 where it is not annotated."""
    return one_hot(mask, 1 + len(WeakTransfer.label_names)).float()


def probability(outputs: Mapping[str, Tensor], mask: Tensor) -> Tensor:
    """Return the generated mask (B, 4, H, W), 0 where the true one is not annotated.

    Else the discriminator would know the generated pairs by what true ones never hold.
    """
    return outputs["mask"].float().softmax(1) * (mask != UNLABELLED)[:, None]


def _check(weighting: Weighting, image_size: tuple[int, int], beta: float, g_steps: int) -> None:
    if set(weighting.tasks) not in ({LABELLED}, {LABELLED, TRANSFERRED}):
        raise UserError(
            f"the weighting names {', '.join(weighting.tasks)}",
            where="model.weighting",
            fix="give it labelled, or labelled and transferred",
        )
    if any(side % 8 or side < 16 for side in image_size):
        raise UserError(
            f"image size {image_size[0]} x {image_size[1]} is not a multiple of 8 from 16 on",
            where="data.matrix",
            fix="three poolings halve it: choose for instance 224, 128 or 112",
        )
    if not 0 <= beta <= 1:
        raise UserError(f"a share of {beta}", where="model.beta", fix="give a number from 0 to 1")
    if g_steps < 1:
        raise UserError(
            f"{g_steps} steps", where="model.g_steps", fix="give 1, as the paper, or 2, as its code"
        )
