"""MuTGAN: infarct mask and seven indices of it from cine MR without contrast agent.

Paper: Xu, Xu, Brahm, Zhang, Li, "MuTGAN: simultaneous segmentation and quantification of myocardial
infarction without contrast agents via joint adversarial learning", MICCAI 2018.
Wants: short-axis cine, each slice with a mask of the infarct as late enhancement shows it.
Not public: code, optimiser, learning rate, batch size, width of the discriminator, lambda, eta, the
localisation of the heart. What is marked [inferred] below is our reading; the reasons stand in
docs/papers/mutgan.md.
"""

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ConstantLR, LRScheduler
from typing_extensions import override

from cardiac_mtl.contracts import UNLABELLED, Batch
from cardiac_mtl.losses import TaskLoss, mean_over_ranks, over_all_ranks, reconstruction_error
from cardiac_mtl.metrics.shape import ERROR_NAMES
from cardiac_mtl.networks.discriminators import TaskRelatedness
from cardiac_mtl.networks.extractors import ExtractorName, make_extractor
from cardiac_mtl.networks.sfen import Generator, SingleTaskSFEN, last_maps
from cardiac_mtl.papers.adversarial import AdamOfGANs, AdversarialPaper
from cardiac_mtl.papers.base import OptimizerFactory, SchedulerFactory
from cardiac_mtl.papers.fused import fused
from cardiac_mtl.papers.infarct import (
    INDEX_SIZES,
    Exponent,
    InfarctTasks,
    MaskLoss,
    SumOfTasks,
    infarct_of,
)
from cardiac_mtl.weighting import Weighting


class MuTGAN(InfarctTasks, AdversarialPaper):
    """Generator of mask and indices, against a discriminator of how the tasks belong together.

    Logged beside what adversarial papers log: `train/lambda` and `train/convergence`, the measure M
    of BEGAN, which falls as both players get better.

    Args:
        width: features of Conv1-4, half the size of the Bi-LSTM [paper: 64; of the LSTM inferred].
        image_size: rows and columns of the prepared image [paper: 64, 64].
        extractor: what finds the features: SFEN [paper], a row of Table 2, or `single_frame`.
        exponent: eta of eq. 3 and 5 [paper: 1 or 2; inferred: 1].
        mask_loss: Dice [paper], or its sum with the cross-entropy: where most slices are healthy,
            the Dice alone finds that predicting none is good, and has no gradient left there.
        empty_pixels: false pixels that cost half a Dice in a slice without infarct [inferred: 100,
            about an infarct, so that a false pixel weighs alike with and without one].
        weight_adversarial: of R(generated) in the generator's loss [inferred: 0.1; eq. 3 has none].
        disc_mode: `began`: minimise R(true) - lambda R(generated), eq. 1 [inferred]; `eq5`: write
            the truth from what is generated, as eq. 5 stands.
        lambda_start: lambda of eq. 1 at the start [paper: 0 to 1; inferred: 0, as BEGAN].
        lambda_rate: of its steps towards the balance [inferred: 0.001, as BEGAN]; 0 keeps it.
        gamma: R(generated) over R(true) at the balance [inferred: 0.5].
        weighting: of the tasks `mask` and `indices` [paper: their sum, eq. 3].
        optimizer: of either player [inferred: Adam, 1e-4, betas 0.5 and 0.999].
        scheduler: of either player, after each epoch [inferred: none].
        clip_norm: largest norm of the gradient of either player [inferred: 1].
    """

    title = "MuTGAN"
    balance: Tensor

    def __init__(
        self,
        width: int = 64,
        image_size: tuple[int, int] = (64, 64),
        extractor: ExtractorName = "sfen",
        exponent: Exponent = 1,
        mask_loss: MaskLoss = "dice",
        empty_pixels: float = 100.0,
        weight_adversarial: float = 0.1,
        disc_mode: Literal["began", "eq5"] = "began",
        lambda_start: float = 0.0,
        lambda_rate: float = 0.001,
        gamma: float = 0.5,
        weighting: Callable[[], Weighting] = lambda: SumOfTasks(mask=1.0, indices=1.0),
        optimizer: OptimizerFactory = lambda params: AdamOfGANs(params, lr=1e-4),
        scheduler: SchedulerFactory = lambda optimizer: ConstantLR(optimizer, factor=1.0),
        clip_norm: float = 1.0,
    ) -> None:
        super().__init__(weighting(), clip_norm)
        self.save_hyperparameters()
        self.set_tasks(image_size, exponent, mask_loss, empty_pixels)
        self.generator = Generator(width, make_extractor(extractor, width, image_size))
        pixels = image_size[0] * image_size[1]
        self.discriminator = TaskRelatedness((pixels, *INDEX_SIZES), hidden=2 * width)
        self.register_buffer("balance", torch.tensor(float(lambda_start)))
        self.weight_adversarial = weight_adversarial
        self.disc_mode = disc_mode
        self.lambda_rate = lambda_rate
        self.gamma = gamma
        self.make_optimizer = optimizer
        self.make_scheduler = scheduler

    @override
    def forward(self, image: Tensor) -> dict[str, Tensor]:
        self.check_image(image)
        outputs = self.generator(image)
        return {"mask": outputs.mask, "indices": self.scale.bounded(outputs.scalars)}

    @override
    def feature_maps(self, image: Tensor) -> dict[str, Tensor]:
        return self.generator.feature_maps(image)

    @override
    def adversarial_loss(self, outputs: Mapping[str, Tensor], batch: Batch) -> Tensor:
        made = self._generated(outputs, batch)
        aim = made if self.disc_mode == "began" else self._true(batch)
        error = over_all_ranks({"made": self._error(aim, made, batch)})["made"]
        return self.weight_adversarial * error.mean

    @override
    def discriminator_loss(self, outputs: Mapping[str, Tensor], batch: Batch) -> Tensor:
        made, true = self._generated(outputs, batch), self._true(batch)
        if self.disc_mode == "eq5":
            return over_all_ranks({"true": self._error(true, made, batch)})["true"].mean
        errors = {"true": self._error(true, true, batch), "made": self._error(made, made, batch)}
        shared = over_all_ranks(errors)
        # a copy: the gradient needs this value, and the buffer moves on
        loss = shared["true"].mean - self.balance.clone() * shared["made"].mean
        self._move_balance(*(mean_over_ranks(shared[of].mean.detach()) for of in ("true", "made")))
        return loss

    def _move_balance(self, on_true: Tensor, on_made: Tensor) -> None:
        """Move lambda by how far R(generated) is below gamma R(true) (Berthelot et al., BEGAN)."""
        gap = self.gamma * on_true - on_made
        self.balance.add_(self.lambda_rate * gap).clamp_(0, 1)
        self.keep_for_log({"lambda": self.balance.clone(), "convergence": on_true + gap.abs()})

    def _error(self, aim: list[Tensor], read: list[Tensor], batch: Batch) -> TaskLoss:
        """Compare what the discriminator writes of the tasks that it `read` with an `aim`."""
        written = self.discriminator(read)
        return reconstruction_error(aim, written, self._given(batch), self.exponent)

    def _true(self, batch: Batch) -> list[Tensor]:
        """Return the annotated values of each task (B, size), 0 where there is none."""
        mask = (infarct_of(batch["mask"]) == 1).flatten(1).float()
        indices = self.scale.standardised(batch["indices"]).nan_to_num()
        return [mask, *indices.split(INDEX_SIZES, dim=1)]

    def _generated(self, outputs: Mapping[str, Tensor], batch: Batch) -> list[Tensor]:
        """Return the generated values of each task (B, size), 0 where none is annotated.

        Else the discriminator would know the generated slices by what true ones never hold.
        """
        mask, *indices = self._given(batch)
        probability = outputs["mask"].float().sigmoid().flatten(1)
        scalars = outputs["indices"].split(INDEX_SIZES, dim=1)
        return [probability * mask, *(s * known for s, known in zip(scalars, indices, strict=True))]

    def _given(self, batch: Batch) -> list[Tensor]:
        """Return which values of each task are annotated: bool (B, size)."""
        mask = (batch["mask"] != UNLABELLED).flatten(1)
        return [mask, *(~batch["indices"].isnan()).split(INDEX_SIZES, dim=1)]

    @override
    def configure_optimizers(self) -> tuple[list[Optimizer], list[LRScheduler]]:
        optimizers = [
            fused(self.make_optimizer(self.groups(self.generator.parameters()))),
            fused(self.make_optimizer(self.discriminator.parameters())),
        ]
        return optimizers, [self.make_scheduler(optimizer) for optimizer in optimizers]


class _WithoutDiscriminator(InfarctTasks):
    """The rows that one optimiser trains.

    A subclass has `networks`, each of which is clipped by itself, `clip_norm`, and the makers of
    optimiser and schedule.
    """

    networks: nn.ModuleDict
    clip_norm: float
    make_optimizer: OptimizerFactory
    make_scheduler: SchedulerFactory

    @override
    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)
        if self.clip_norm:
            for network in self.networks.values():
                nn.utils.clip_grad_norm_(network.parameters(), self.clip_norm)

    @override
    def configure_optimizers(self) -> tuple[list[Optimizer], list[LRScheduler]]:
        optimizer = fused(self.make_optimizer(self.groups(self.networks.parameters())))
        return [optimizer], [self.make_scheduler(optimizer)]


class MuTGANGenerator(_WithoutDiscriminator):
    """The generator alone: Table 1, row Generator.

    Args:
        width: as of MuTGAN, and so are all the others.
        image_size: rows and columns of the prepared image.
        extractor: what finds the features.
        exponent: eta of eq. 3.
        mask_loss: Dice, or its sum with the cross-entropy.
        empty_pixels: false pixels that cost half a Dice in a slice without infarct.
        weighting: of the tasks `mask` and `indices`.
        optimizer: Adam, 1e-4, betas 0.5 and 0.999 [inferred].
        scheduler: after each epoch [inferred: none].
        clip_norm: largest norm of the gradient, 0 for none [inferred: 1].
    """

    title = "Generator"

    def __init__(
        self,
        width: int = 64,
        image_size: tuple[int, int] = (64, 64),
        extractor: ExtractorName = "sfen",
        exponent: Exponent = 1,
        mask_loss: MaskLoss = "dice",
        empty_pixels: float = 100.0,
        weighting: Callable[[], Weighting] = lambda: SumOfTasks(mask=1.0, indices=1.0),
        optimizer: OptimizerFactory = lambda params: AdamOfGANs(params, lr=1e-4),
        scheduler: SchedulerFactory = lambda optimizer: ConstantLR(optimizer, factor=1.0),
        clip_norm: float = 1.0,
    ) -> None:
        super().__init__(weighting())
        self.save_hyperparameters()
        self.set_tasks(image_size, exponent, mask_loss, empty_pixels)
        generator = Generator(width, make_extractor(extractor, width, image_size))
        self.networks = nn.ModuleDict({"generator": generator})
        self.clip_norm = clip_norm
        self.make_optimizer = optimizer
        self.make_scheduler = scheduler

    @override
    def forward(self, image: Tensor) -> dict[str, Tensor]:
        self.check_image(image)
        outputs = self.networks["generator"](image)
        return {"mask": outputs.mask, "indices": self.scale.bounded(outputs.scalars)}

    @override
    def feature_maps(self, image: Tensor) -> dict[str, Tensor]:
        return self.networks["generator"].feature_maps(image)  # type: ignore[operator]


class MuTGANSeparate(_WithoutDiscriminator):
    """Eight networks, one a task, that share nothing: Table 1, row SFEN.

    They are trained side by side and scored as one. Sums of their losses have the gradients of each
    by itself; each is clipped by itself, and Adam knows no neighbours.

    Args:
        width: as of MuTGAN, and so are all the others.
        image_size: rows and columns of the prepared image.
        exponent: eta of eq. 3.
        mask_loss: Dice, or its sum with the cross-entropy.
        empty_pixels: false pixels that cost half a Dice in a slice without infarct.
        weighting: of the tasks `mask` and `indices`.
        optimizer: Adam, 1e-4, betas 0.5 and 0.999 [inferred].
        scheduler: after each epoch [inferred: none].
        clip_norm: largest norm of the gradient of each network, 0 for none [inferred: 1].
    """

    title = "SFEN"

    def __init__(
        self,
        width: int = 64,
        image_size: tuple[int, int] = (64, 64),
        exponent: Exponent = 1,
        mask_loss: MaskLoss = "dice",
        empty_pixels: float = 100.0,
        weighting: Callable[[], Weighting] = lambda: SumOfTasks(mask=1.0, indices=1.0),
        optimizer: OptimizerFactory = lambda params: AdamOfGANs(params, lr=1e-4),
        scheduler: SchedulerFactory = lambda optimizer: ConstantLR(optimizer, factor=1.0),
        clip_norm: float = 1.0,
    ) -> None:
        super().__init__(weighting())
        self.save_hyperparameters()
        self.set_tasks(image_size, exponent, mask_loss, empty_pixels)
        sizes = (image_size[0] * image_size[1], *INDEX_SIZES)
        self.networks = nn.ModuleDict(
            {
                task: SingleTaskSFEN(width, image_size, size)
                for task, size in zip(("mask", *ERROR_NAMES), sizes, strict=True)
            }
        )
        self.clip_norm = clip_norm
        self.make_optimizer = optimizer
        self.make_scheduler = scheduler

    @override
    def forward(self, image: Tensor) -> dict[str, Tensor]:
        self.check_image(image)
        mask, *indices = (network(image) for network in self.networks.values())
        return {
            "mask": mask.unflatten(1, self.image_size),
            "indices": self.scale.bounded(torch.cat(indices, dim=1)),
        }

    @override
    def feature_maps(self, image: Tensor) -> dict[str, Tensor]:
        return last_maps(self.networks["mask"].sfen(image))  # type: ignore[operator]
