"""MTN: myocardium and its area from cine MR, weighted by learned uncertainty.

Paper: Dangi, Yaniv, Linte, "Left ventricle segmentation and quantification from cardiac cine MR
images via multi-task learning", STACOM 2018.
Wants: short-axis cine slices with a myocardium mask; the area in mm2 follows from the mask.
Not public: code, width of the U-Net, batch size, scope of the normalisation. What is marked
[inferred] below is our reading; the reasons stand in docs/papers/mtn.md.
"""

from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer, RMSprop
from torch.optim.lr_scheduler import ExponentialLR, LRScheduler
from typing_extensions import override

from cardiac_mtl.contracts import Batch, Prediction
from cardiac_mtl.errors import UserError
from cardiac_mtl.losses import (
    TaskLoss,
    masked_binary_cross_entropy,
    masked_dice_loss,
    masked_l1,
)
from cardiac_mtl.networks.unet import (
    BranchPoint,
    RegressionHead,
    SegmentationHead,
    UNetTrunk,
    init_kaiming,
)
from cardiac_mtl.papers.base import (
    OptimizerFactory,
    Paper,
    SchedulerFactory,
    of_two_classes,
    refuse_other_tasks,
)
from cardiac_mtl.papers.fused import fused
from cardiac_mtl.postprocessing import largest_component
from cardiac_mtl.weighting import UncertaintyWeighting, Weighting

TASKS = {"mask", "area"}


class MTN(Paper):
    """Multi-task network: a U-Net that splits at its last concatenation.

    With `SingleTask("mask")` it is the paper's U-Net baseline, with `SingleTask("area")` the
    regression alone: only the branches of the weighting's tasks are built.

    Args:
        width: features at full resolution [inferred: 64; 32 and 16 are the lighter presets].
        image_size: rows and columns of the prepared image [paper: 192, 192].
        branch_at: where the regression branch leaves the trunk [paper: final].
        pool: side of the max pooling before the fully connected layer [paper: 4].
        area_unit: unit in which the area loss is taken; reports are in mm2 [inferred: mm2].
        area_start_mm2: bias that the regression starts from [inferred: 0]; short runs do better
            near a typical area, as the weights need not grow to reach it first.
        area_gradient: share of the regression branch's gradient that reaches the trunk [paper: 1].
            Cohorts of tens of patients do better with a few per cent: the gradient of an
            absolute error does not fade as the error does, and drowns that of the mask.
        mask_loss: cross-entropy [paper], or its sum with the Dice loss, which thin walls gain
            from.
        weighting: of the tasks `mask` and `area` [paper: learned uncertainty, eq. 5].
        optimizer: RMSprop, 1e-3 [paper].
        scheduler: after each epoch [paper: times 0.95].
        weighting_lr_factor: learning rate of the learned weights over that of the network
            [paper: 1]; short runs need more, as s moves by about one learning rate a step.
        channels_last: memory format of the convolutions; the numbers are the same, the CPU
            with bfloat16 and the GPU are faster.
    """

    title = "MTN"

    def __init__(
        self,
        width: int = 64,
        image_size: tuple[int, int] = (192, 192),
        branch_at: BranchPoint = "final",
        pool: int = 4,
        area_unit: Literal["mm2", "pixels"] = "mm2",
        area_start_mm2: float = 0.0,
        area_gradient: float = 1.0,
        mask_loss: Literal["cross_entropy", "cross_entropy_dice"] = "cross_entropy",
        weighting: Callable[[], Weighting] = lambda: UncertaintyWeighting(),  # noqa: PLW0108 - jsonargparse reads the call
        optimizer: OptimizerFactory = lambda params: RMSprop(params, lr=1e-3),
        scheduler: SchedulerFactory = lambda optimizer: ExponentialLR(optimizer, gamma=0.95),
        weighting_lr_factor: float = 1.0,
        channels_last: bool = True,
    ) -> None:
        super().__init__(weighting())
        self.save_hyperparameters()
        refuse_other_tasks(self.weighting, TASKS)
        _check_size(image_size)
        tasks = self.weighting.tasks
        self.trunk = UNetTrunk(in_channels=1, width=width)
        self.mask_head = SegmentationHead(width) if "mask" in tasks else None
        self.area_head = (
            RegressionHead(width, image_size, branch_at, pool) if "area" in tasks else None
        )
        init_kaiming(self)
        if self.area_head is not None:
            nn.init.constant_(self.area_head.linear.bias, area_start_mm2)
        self.label_names = ("myocardium",) if "mask" in tasks else ()
        self.index_names = ("area_mm2",) if "area" in tasks else ()
        self.branch_at: BranchPoint = branch_at
        self.area_unit = area_unit
        self.area_gradient = area_gradient
        self.mask_loss = mask_loss
        self.make_optimizer = optimizer
        self.make_scheduler = scheduler
        self.weighting_lr_factor = weighting_lr_factor
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.to(memory_format=self.memory_format)

    @override
    def forward(self, image: Tensor) -> dict[str, Tensor]:
        features = self.trunk(image.contiguous(memory_format=self.memory_format))
        outputs = {}
        if self.mask_head is not None:
            outputs["mask"] = self.mask_head(features.final).squeeze(1)
        if self.area_head is not None:
            branch = getattr(features, self.branch_at)
            outputs["area"] = self.area_head(branch.detach().lerp(branch, self.area_gradient))
        return outputs

    @override
    def losses(self, outputs: Mapping[str, Tensor], batch: Batch) -> dict[str, TaskLoss]:
        losses = {}
        if "mask" in outputs:
            losses["mask"] = masked_binary_cross_entropy(outputs["mask"], batch["mask"])
            if self.mask_loss == "cross_entropy_dice":
                dice = masked_dice_loss(outputs["mask"], batch["mask"])
                losses["mask"] = TaskLoss(losses["mask"].mean + dice.mean, dice.known)
        if "area" in outputs:
            unit = (
                batch["spacing"][:, 1:].prod(1, keepdim=True) if self.area_unit == "pixels" else 1.0
            )
            losses["area"] = masked_l1(outputs["area"] / unit, batch["indices"] / unit)
        return losses

    @override
    def predict(self, outputs: Mapping[str, Tensor]) -> Prediction:
        prediction: Prediction = {}
        if "mask" in outputs:
            prediction["mask_prob"] = of_two_classes(outputs["mask"])
        if "area" in outputs:
            prediction["indices"] = outputs["area"]
        return prediction

    @override
    def postprocess(self, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Keep the largest component of the volume [paper], 6-connected [inferred]."""
        return largest_component(mask > 0).astype(np.uint8)

    @override
    def configure_optimizers(self) -> tuple[list[Optimizer], list[LRScheduler]]:
        optimizer = fused(self.make_optimizer(self.groups()))
        for group in optimizer.param_groups[1:]:
            group["lr"] *= self.weighting_lr_factor
        return [optimizer], [self.make_scheduler(optimizer)]


def _check_size(image_size: tuple[int, int]) -> None:
    if any(side % 16 for side in image_size):
        raise UserError(
            f"image size {image_size[0]} x {image_size[1]} is not a multiple of 16",
            where="data.matrix",
            fix="four poolings halve it: choose for instance 192, 128 or 64",
        )
