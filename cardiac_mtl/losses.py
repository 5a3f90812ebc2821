"""Losses on tensors: one function a term, blind to what is not annotated, differentiable."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from cardiac_mtl.contracts import UNLABELLED

DiceOver = Literal["all_classes", "foreground"]
"""What the Dice loss of several classes runs over."""


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


def mean_over_ranks(value: Tensor) -> Tensor:
    """Return the mean of a detached value over processes, the same bits on every one."""
    if not (dist.is_available() and dist.is_initialized()):
        return value
    total = value.clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()


def wrapped(value: Tensor, period: Tensor | float) -> Tensor:
    """Bring values into (-period / 2, period / 2] by whole periods; the gradient stays 1.

    Examples:
        >>> wrapped(torch.tensor([91.0, -90.0, 90.0, 360.0]), 180.0)
        tensor([-89.,  90.,  90.,   0.])
    """
    return value - period * torch.ceil(value / period - 0.5)


def one_hot(mask: Tensor, classes: int) -> Tensor:
    """Return of which class each pixel is.

    torch's own asks for the largest and the least value of a mask on the CPU, and makes 8 bytes of
    each answer.

    Args:
        mask: (B, H, W), 0 to K - 1, `UNLABELLED` where not annotated.
        classes: K.

    Returns:
        bool (B, K, H, W), the classes last in memory; of no class where not annotated.
    """
    return (mask[..., None] == torch.arange(classes, device=mask.device)).movedim(-1, 1)


def masked_binary_cross_entropy(logits: Tensor, mask: Tensor) -> TaskLoss:
    """Binary cross-entropy over annotated pixels.

    Args:
        logits: (B, H, W), of foreground; or any other shape.
        mask: int64, same shape, foreground above 0, `UNLABELLED` where not annotated.

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


def masked_cross_entropy(logits: Tensor, mask: Tensor) -> TaskLoss:
    """Cross-entropy of several classes over annotated pixels.

    Args:
        logits: (B, K, H, W), background first.
        mask: int64 (B, H, W), 0 to K - 1, `UNLABELLED` where not annotated.

    Returns:
        Nats a pixel, and the number of annotated pixels.
    """
    total = F.cross_entropy(logits.float(), mask, ignore_index=UNLABELLED, reduction="sum")
    known = (mask != UNLABELLED).sum()
    return TaskLoss(total / known.clamp(min=1), known)


def masked_dice_loss_of_classes(logits: Tensor, mask: Tensor, over: DiceOver) -> TaskLoss:
    """One minus the soft Dice of several classes, over all annotated pixels of the batch.

    It does not add up over the slices of a batch, and so neither over processes: where there are
    several, each has the Dice of its own share of the batch, and `over_all_ranks` weighs these.

    Args:
        logits: (B, K, H, W), background first.
        mask: int64 (B, H, W), 0 to K - 1, `UNLABELLED` where not annotated.
        over: `all_classes`: overlap and sizes are added up over all K, as if pixel and class were
            one axis; `foreground`: the mean of the losses of each class but the background.

    Returns:
        0 to 1, and the number of annotated pixels.

    Source: Chen et al., weak domain transfer, released code, `run_train.py`: smooth 1.
    """
    annotated = mask != UNLABELLED
    truth = one_hot(mask, logits.shape[1])
    probability = logits.float().softmax(1) * annotated[:, None]
    overlap, found, held = (a.sum((0, 2, 3)) for a in (probability * truth, probability, truth))
    if over == "all_classes":
        overlap, found, held = (a.sum(0, keepdim=True) for a in (overlap, found, held))
    else:
        overlap, found, held = (a[1:] for a in (overlap, found, held))
    dice = (2 * overlap + 1) / (found + held + 1)
    return TaskLoss((1 - dice).mean(), annotated.sum())


def masked_dice_loss_by_slice(logits: Tensor, mask: Tensor, empty_pixels: float) -> TaskLoss:
    """One minus the soft Dice of the foreground, of each slice; the mean over annotated slices.

    Where the truth is empty, the Dice is 0 whatever is predicted, and nothing would be learned.
    There the loss is S / (S + c), with S the sum of the probabilities: 0 when nothing is found,
    1/2 when c pixels are, and its slope at S is that of a Dice in a slice that holds about c.

    Args:
        logits: (B, H, W), of foreground.
        mask: int64 (B, H, W), foreground above 0, `UNLABELLED` where not annotated.
        empty_pixels: c, above 0.

    Returns:
        0 to 1, and the number of slices of which anything is annotated.
    """
    annotated = mask != UNLABELLED
    probability = logits.float().sigmoid() * annotated
    truth = (mask > 0).float()
    overlap, found, held = (a.sum((1, 2)) for a in (probability * truth, probability, truth))
    smooth = torch.where(held > 0, 1e-6, empty_pixels)
    dice = (2 * overlap + smooth) / (found + held + smooth)
    given = annotated.any(2).any(1)
    known = given.sum()
    return TaskLoss(((1 - dice) * given).sum() / known.clamp(min=1), known)


def masked_jaccard_loss_by_image(logits: Tensor, mask: Tensor) -> TaskLoss:
    """One minus the soft Jaccard index of the foreground, of each image; the mean over images.

    Both counts, of what is shared and of the union, are one pixel more than they are: an image
    without foreground in which nothing is found costs nothing.

    Args:
        logits: (B, H, W), of foreground.
        mask: int64 (B, H, W), foreground above 0, `UNLABELLED` where not annotated.

    Returns:
        0 to 1, and the number of images of which anything is annotated.

    Source: Peng et al., 2021, eq. 3; [inferred] the pixel more.
    """
    annotated = mask != UNLABELLED
    probability = logits.float().sigmoid() * annotated
    truth = (mask > 0).float()
    shared, found, held = (a.sum((1, 2)) for a in (probability * truth, probability, truth))
    jaccard = (shared + 1) / (found + held - shared + 1)
    given = annotated.any(2).any(1)
    known = given.sum()
    return TaskLoss(((1 - jaccard) * given).sum() / known.clamp(min=1), known)


def masked_label_cross_entropy(
    logits: Tensor, label: Tensor, positive_weight: float = 1.0
) -> TaskLoss:
    """Binary cross-entropy over labelled images.

    Args:
        logits: (B,), of label 1.
        label: int64 (B,), 0 or 1, `UNLABELLED` where missing.
        positive_weight: how many images of label 0 one of label 1 counts as.

    Returns:
        Nats an image, and the number of labelled images.
    """
    labelled = label != UNLABELLED
    total = F.binary_cross_entropy_with_logits(
        logits.float(),
        (label > 0).float(),
        weight=labelled.float(),
        reduction="sum",
        # filled on the device: a value made on the host would have to be fetched from there
        pos_weight=logits.new_full((), positive_weight, dtype=torch.float32),
    )
    known = labelled.sum()
    return TaskLoss(total / known.clamp(min=1), known)


def masked_sum_of_errors(error: Tensor, given: Tensor, exponent: int) -> TaskLoss:
    """Sum the powers of the errors of a sample; the mean over samples of which any is known.

    Args:
        error: (B, K), finite.
        given: bool (B, K), whether there is a target.
        exponent: 1 or 2.

    Returns:
        Mean of the sums, and the number of samples with a target.
    """
    known = given.any(1).sum()
    total = (error.float().abs() ** exponent * given).sum()
    return TaskLoss(total / known.clamp(min=1), known)


def reconstruction_error(
    values: Sequence[Tensor], rebuilt: Sequence[Tensor], given: Sequence[Tensor], exponent: int
) -> TaskLoss:
    """How far the tasks of a sample are from what a discriminator wrote, each task alike.

    Args:
        values: of each task (B, size).
        rebuilt: same shapes.
        given: bool, same shapes, what counts.
        exponent: 1 or 2.

    Returns:
        The mean over the values of a task, over the tasks of a sample that have any, and over the
        samples that have any; and the number of these.

    Source: Xu et al., MuTGAN, eq. 5; [inferred] that each task counts alike.
    """
    errors, shares = [], []
    for value, other, known in zip(values, rebuilt, given, strict=True):
        error = (value.float() - other.float()).abs() ** exponent * known
        errors.append(error.sum(1) / known.sum(1).clamp(min=1))
        shares.append(known.any(1))
    tasks = torch.stack(shares).sum(0)  # (B,)
    of_sample = torch.stack(errors).sum(0) / tasks.clamp(min=1)
    samples = (tasks > 0).sum()
    return TaskLoss(of_sample.sum() / samples.clamp(min=1), samples)


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
