"""Scores while training: volume Dice, index error and AUC of an epoch, exact on any rank count."""

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat
from typing_extensions import override

from cardiac_mtl.contracts import UNLABELLED, Batch, Prediction
from cardiac_mtl.losses import wrapped
from cardiac_mtl.metrics.classification import confusion, roc
from cardiac_mtl.metrics.shape import HALF_CIRCLE_DEG, ORIENTATION


class RunningScores(Metric):
    """Overlap by volume, mean absolute error of the indices, and classification, over one epoch.

    Counts of pixels are kept by slice and added up by case, so that a volume whose slices
    were spread over batches or ranks is scored once, and a slice seen twice counts once (P3, P4).

    Args:
        labels: names of the classes, in the order of `mask_prob` after the background.
        indices: names of the indices, in the order of the batch.
        classes: names of two classes, in the order of `label_prob`; empty where none is predicted.
    """

    full_state_update = False
    rows: list[Tensor]

    def __init__(
        self, labels: tuple[str, ...], indices: tuple[str, ...], classes: tuple[str, ...] = ()
    ) -> None:
        super().__init__()
        self.labels = labels
        self.indices = indices
        self.classes = classes
        self.add_state("rows", default=[], dist_reduce_fx="cat")

    @override
    def update(self, batch: Batch, prediction: Prediction) -> None:
        """Add one batch."""
        columns = [batch["case"][:, None].double(), batch["slice"][:, None].double()]
        if self.labels:
            predicted = prediction["mask_prob"].argmax(1)
            columns.append(_pixel_counts(predicted, batch["mask"], len(self.labels)))
        if self.indices:
            columns.append(self._errors(prediction["indices"], batch["indices"]))
        if self.classes:
            columns += [prediction["label_prob"][:, 1:], batch["label"][:, None]]
        self.rows.append(torch.cat(columns, dim=1))

    @override
    def compute(self) -> dict[str, Tensor]:
        """Return `dice_vol`, its `dice_vol/<label>`, `mae/<index>`, `auc`, `balanced_accuracy`.

        A label that is in neither reference nor prediction of a case is left out of its mean. The
        last two are NaN where a class is absent.
        """
        rows = _once(dim_zero_cat(self.rows))
        sizes = [2, 3 * len(self.labels), len(self.indices), 2 if self.classes else 0]
        cases, pixels, errors, classes = rows.split(sizes, dim=1)
        scores: dict[str, Tensor] = {}
        if self.labels:
            dice = _volume_dice(cases[:, 0], pixels.unflatten(1, (-1, 3))).float()
            scores["dice_vol"] = dice.nanmean()
            scores |= {f"dice_vol/{name}": dice[k] for k, name in enumerate(self.labels)}
        if self.classes:
            scores |= _classification(*classes.unbind(1))
        mean_error = errors.nanmean(0).float()
        return scores | {f"mae/{name}": mean_error[k] for k, name in enumerate(self.indices)}

    def _errors(self, predicted: Tensor, reference: Tensor) -> Tensor:
        """Return absolute errors (B, K), that of an orientation on the half circle."""
        gap = (predicted - reference).double()
        if ORIENTATION in self.indices:
            column = self.indices.index(ORIENTATION)
            gap[:, column] = wrapped(gap[:, column], HALF_CIRCLE_DEG)
        return gap.abs()


def _classification(probability: Tensor, label: Tensor) -> dict[str, Tensor]:
    """Score P(second class) (N,) against labels (N,); NaN where a probability is no number."""
    auc = balanced = float("nan")
    if probability.isfinite().all():
        pair = probability.cpu().numpy(), label.long().cpu().numpy()
        auc, balanced = roc(*pair).area, confusion(*pair).balanced_accuracy
    return {
        "auc": probability.new_tensor(auc).float(),
        "balanced_accuracy": probability.new_tensor(balanced).float(),
    }


def _once(rows: Tensor) -> Tensor:
    """Keep one row (N, 2 + ...) of each case and slice, in their order.

    Ranks that were given the same slice may differ in the last bit of it, and must agree on one.
    """
    case, number = rows[:, 0], rows[:, 1]
    place = case * (number.max() + 1) + number
    order = place.argsort(stable=True)
    first = place[order].diff(prepend=place.new_full((1,), -1.0)) != 0
    return rows[order[first]]


def _pixel_counts(predicted: Tensor, mask: Tensor, num_labels: int) -> Tensor:
    """Count by slice and label the pixels of overlap, prediction and reference.

    Args:
        predicted: int64 (B, H, W), class of each pixel.
        mask: int64 (B, H, W), `UNLABELLED` where not annotated.
        num_labels: K, classes besides the background.

    Returns:
        float64 (B, 3K); a slice without annotation counts nothing.
    """
    labels = torch.arange(1, num_labels + 1, device=mask.device)[:, None, None, None]
    found, true = (predicted == labels) & (mask != UNLABELLED), mask == labels
    counts = torch.stack([found & true, found, true], dim=1).sum((-1, -2))  # (K, 3, B)
    return counts.flatten(0, 1).T.double()


def _volume_dice(case: Tensor, pixels: Tensor) -> Tensor:
    """Add pixel counts (N, K, 3) up by case (N,), and average the Dice of the cases: (K,)."""
    _, row = torch.unique(case, return_inverse=True)
    volumes = pixels.new_zeros(int(row.max()) + 1, *pixels.shape[1:]).index_add_(0, row, pixels)
    overlap, predicted, reference = volumes.unbind(-1)
    return (2 * overlap / (predicted + reference)).nanmean(0)
