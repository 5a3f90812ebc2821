"""Losses on tensors: one function a term, blind to what is not annotated, differentiable."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from cardiac_mtl.contracts import UNLABELLED


class TaskLoss(NamedTuple):
    """The loss of one task on one batch."""

    mean: Tensor
    """Scalar, over what is annotated; 0 with a gradient path when nothing is."""
    known: Tensor
    """Scalar, how many pixels or values were annotated."""


def over_all_ranks(losses: Mapping[str, TaskLoss]) -> dict[str, TaskLoss]:
    """Weigh the losses of this process by its share of what is annotated on all of them (P28).

    Gradients are averaged over processes, and a process may hold few annotated samples of a task,
    or none: the mean over processes of what is returned is the mean over all that is annotated.

    Args:
        losses: of this process, the same tasks on every one.

    Returns:
        The same tasks, with `known` counted over all processes; unchanged where there is one.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return dict(losses)
    ours = torch.stack([loss.known for loss in losses.values()]).double()
    all_of_them = ours.clone()
    dist.all_reduce(all_of_them)
    shares = ours * dist.get_world_size() / all_of_them.clamp(min=1)
    return {
        task: TaskLoss(loss.mean * shares[k].to(loss.mean.dtype), all_of_them[k])
        for k, (task, loss) in enumerate(losses.items())
    }


def masked_binary_cross_entropy(logits: Tensor, mask: Tensor) -> TaskLoss:
    """Binary cross-entropy over annotated pixels.

    Args:
        logits: (B, H, W), of foreground.
        mask: int64 (B, H, W), foreground above 0, `UNLABELLED` where not annotated.

    Returns:
        Nats a pixel, and the number of annotated pixels.
    """
    annotated = mask != UNLABELLED
    total = F.binary_cross_entropy_with_logits(
        logits.float(), (mask > 0).float(), weight=annotated.float(), reduction="sum"
    )
    known = annotated.sum()
    return TaskLoss(total / known.clamp(min=1), known)


def masked_dice_loss(logits: Tensor, mask: Tensor) -> TaskLoss:
    """One minus the soft Dice of the foreground, over all annotated pixels of the batch.

    Args:
        logits: (B, H, W), of foreground.
        mask: int64 (B, H, W), foreground above 0, `UNLABELLED` where not annotated.

    Returns:
        0 to 1, and the number of annotated pixels.

    Source: Milletari et al., 3DV 2016, with sums in place of squares.
    """
    annotated = mask != UNLABELLED
    probability = logits.float().sigmoid() * annotated
    truth = (mask > 0).float()
    overlap = (probability * truth).sum()
    known = annotated.sum()
    dice = (2 * overlap + 1) / (probability.sum() + truth.sum() + 1)
    return TaskLoss((1 - dice) * (known > 0), known)


def masked_l1(predicted: Tensor, target: Tensor) -> TaskLoss:
    """Mean absolute error over known targets.

    Args:
        predicted: (B, K), any unit.
        target: (B, K), same unit, NaN where missing.

    Returns:
        The mean in the same unit, and the number of known targets.
    """
    given = ~torch.isnan(target)
    error = (predicted.float() - torch.nan_to_num(target)).abs() * given
    known = given.sum()
    return TaskLoss(error.sum() / known.clamp(min=1), known)
