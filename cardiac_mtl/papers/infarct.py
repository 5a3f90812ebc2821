"""What all rows of MuTGAN share: an infarct mask and its indices, standardised for the losses."""

import math
from collections.abc import Mapping
from typing import Final, Literal

import torch
from torch import Tensor, nn
from typing_extensions import override

from cardiac_mtl.contracts import UNLABELLED, Batch, Prediction, TargetScale
from cardiac_mtl.errors import UserError
from cardiac_mtl.losses import (
    TaskLoss,
    masked_binary_cross_entropy,
    masked_dice_loss_by_slice,
    masked_sum_of_errors,
    wrapped,
)
from cardiac_mtl.metrics.shape import HALF_CIRCLE_DEG, INDEX_NAMES, ORIENTATION
from cardiac_mtl.papers.base import Paper, of_two_classes
from cardiac_mtl.weighting import FixedWeighting, Weighting

INFARCT: Final = 1
"""Value of `mask`; 2 is the rest of the myocardium."""
TASKS = {"mask", "indices"}
INDEX_SIZES = (1, 1, 1, 2, 1, 1, 1)
"""Numbers of each of the seven indices, in the order of `INDEX_NAMES`: the centroid has two."""
Exponent = Literal[1, 2]
MaskLoss = Literal["dice", "dice_cross_entropy"]


class IndexScale(nn.Module):
    """Between indices in physical units and the numbers that a network learns.

    Mean and SD are buffers: a checkpoint predicts without the data that it was trained on.
    """

    mean: Tensor
    sd: Tensor
    circular: Tensor

    def __init__(self) -> None:
        super().__init__()
        circular = torch.tensor([name == ORIENTATION for name in INDEX_NAMES])
        self.register_buffer("mean", torch.zeros(len(INDEX_NAMES)))
        self.register_buffer("sd", torch.where(circular, HALF_CIRCLE_DEG / 2, 1.0))
        self.register_buffer("circular", circular, persistent=False)

    def fit(self, scale: TargetScale) -> None:
        """Take over the mean and SD of the training patients."""
        self.mean.copy_(scale.mean)
        self.sd.copy_(scale.sd)

    def standardised(self, indices: Tensor) -> Tensor:
        """Map physical units (B, 8) to SDs from the mean; NaN stays."""
        return (indices - self.mean) / self.sd

    def physical(self, scalars: Tensor) -> Tensor:
        """Map SDs from the mean (B, 8) to mm2, %, mm and degrees in (-90, 90]."""
        indices = scalars.float() * self.sd + self.mean
        return torch.where(self.circular, wrapped(indices, HALF_CIRCLE_DEG), indices)

    def bounded(self, scalars: Tensor) -> Tensor:
        """Keep regressed orientations (B, 8) within half a turn.

        Else they wind around the circle: where a loss falls on one side of the jump and falls again
        beyond it, as the discriminator's does, they never stop, and drown the other gradients.
        """
        return torch.where(self.circular, scalars.tanh(), scalars)

    def on_half_circle(self, values: Tensor) -> Tensor:
        """Bring standardised orientations, or errors of such, into half a turn around 0."""
        turned = wrapped(values.float(), HALF_CIRCLE_DEG / self.sd)
        return torch.where(self.circular, turned, values.float())


class SumOfTasks(FixedWeighting):
    """The sum of eq. 3: one minus the Dice, and the errors of all indices.

    Args:
        mask: factor of the first.
        indices: factor of the second, itself a sum over the indices.
    """

    def __init__(self, mask: float = 1.0, indices: float = 1.0) -> None:
        super().__init__({"mask": mask, "indices": indices})


class InfarctTasks(Paper):
    """The tasks `mask` and `indices` of eq. 3; the networks are the subclass's.

    `forward` returns `mask`, logits (B, H, W), and `indices`, standardised (B, 8). A subclass
    calls `set_tasks` once its constructor has called that of its other parent.
    """

    label_names = ("infarct",)
    index_names = INDEX_NAMES

    def set_tasks(
        self,
        image_size: tuple[int, int],
        exponent: Exponent,
        mask_loss: MaskLoss,
        empty_pixels: float,
    ) -> None:
        """Keep what the losses need; refuse what cannot be learned.

        Args:
            image_size: rows and columns of the prepared image.
            exponent: eta of eq. 3.
            mask_loss: `dice`, or its sum with the cross-entropy.
            empty_pixels: of `masked_dice_loss_by_slice`.
        """
        check_tasks(self.weighting)
        check_size(image_size)
        if not 0 < empty_pixels < math.inf:
            raise UserError(
                f"{empty_pixels} pixels cannot be weighed",
                where="model.empty_pixels",
                fix="give a number above 0; 1e9 turns the term off",
            )
        self.image_size = tuple(image_size)
        self.exponent = exponent
        self.mask_loss = mask_loss
        self.empty_pixels = empty_pixels
        self.scale = IndexScale()

    @property
    @override
    def monitor(self) -> tuple[str, str]:
        """What the best checkpoint is selected on: the loss, of all tasks and every slice.

        The Dice leaves the indices out, and one find in a control takes a whole patient off its
        mean: among five patients that chose the epoch (docs/papers/mutgan.md).
        """
        return f"{self.selection_stage}/loss", "min"

    def check_image(self, image: Tensor) -> None:
        """Refuse what is no cine (B, 1, T, H, W) of the size that the networks were made for."""
        if image.ndim != 5 or image.shape[1] != 1:
            raise UserError(
                f"{self.title} wants cine, and was given images of shape {list(image.shape[1:])}",
                where="data",
                fix="choose data_modules.cine.CineDataModule",
            )
        if tuple(image.shape[3:]) != self.image_size:
            rows, columns = self.image_size
            raise UserError(
                f"images of {image.shape[3]} x {image.shape[4]}, but the network was made for "
                f"{rows} x {columns}",
                where="model.image_size",
                fix="give the rows and columns of data.matrix",
            )

    @override
    def on_fit_start(self) -> None:
        super().on_fit_start()
        self.scale.fit(self.trainer.datamodule.target_scale())  # type: ignore[attr-defined]

    @override
    def losses(self, outputs: Mapping[str, Tensor], batch: Batch) -> dict[str, TaskLoss]:
        targets = self.scale.standardised(batch["indices"])
        given = ~targets.isnan()
        gap = outputs["indices"].float() - targets.nan_to_num()
        error = self.scale.on_half_circle(gap)
        truth = infarct_of(batch["mask"])
        mask = masked_dice_loss_by_slice(outputs["mask"], truth, self.empty_pixels)
        if self.mask_loss == "dice_cross_entropy":
            pixels = masked_binary_cross_entropy(outputs["mask"], truth)
            mask = TaskLoss(mask.mean + pixels.mean, mask.known)
        return {"mask": mask, "indices": masked_sum_of_errors(error, given, self.exponent)}

    @override
    def predict(self, outputs: Mapping[str, Tensor]) -> Prediction:
        return {
            "mask_prob": of_two_classes(outputs["mask"]),
            "indices": self.scale.physical(outputs["indices"]),
        }


def infarct_of(mask: Tensor) -> Tensor:
    """Return 1 in infarcts, 0 elsewhere, `UNLABELLED` where not annotated: int64, same shape."""
    return torch.where(mask == UNLABELLED, mask, (mask == INFARCT).long())


def check_tasks(weighting: Weighting) -> None:
    """Refuse a weighting of other tasks than mask and indices."""
    if set(weighting.tasks) != TASKS:
        raise UserError(
            f"the weighting names {', '.join(weighting.tasks)}",
            where="model.weighting",
            fix="give it mask and indices, both; mutgan_sfen learns them apart",
        )


def check_size(image_size: tuple[int, int]) -> None:
    """Refuse rows or columns that four strides of two do not divide."""
    if any(side % 16 or side < 16 for side in image_size):
        raise UserError(
            f"image size {image_size[0]} x {image_size[1]} is not a multiple of 16",
            where="data.matrix",
            fix="four strides halve it: choose for instance 64 or 80",
        )
