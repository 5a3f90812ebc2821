"""One class against the rest, from probabilities. Undefined values are NaN.

A label of -1, `UNLABELLED`, is missing and its case left out; any other label that is not the
positive one is negative. Probabilities are P(positive), never logits.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics.functional.classification import (
    binary_auroc,
    binary_average_precision,
    binary_precision_recall_curve,
    binary_roc,
)

from cardiac_mtl.contracts import UNLABELLED
from cardiac_mtl.metrics.statistics import Interval, bootstrap_sums

Floats = NDArray[np.floating]
Drawn = NDArray[np.float64]
Labels = NDArray[np.integer]


class Confusion(NamedTuple):
    """Numbers of cases, and the rates made from them; NaN for 0/0."""

    tp: int
    fp: int
    fn: int
    tn: int

    @property
    def accuracy(self) -> float:
        """Of all cases, those that are right."""
        return _ratio(self.tp + self.tn, sum(self))

    @property
    def balanced_accuracy(self) -> float:
        """Mean of sensitivity and specificity: 0.5 where one class is always predicted."""
        return (self.sensitivity + self.specificity) / 2

    @property
    def sensitivity(self) -> float:
        """Of the positive cases, those that are found; also named recall."""
        return _ratio(self.tp, self.tp + self.fn)

    @property
    def specificity(self) -> float:
        """Of the negative cases, those that are left alone."""
        return _ratio(self.tn, self.tn + self.fp)

    @property
    def precision(self) -> float:
        """Of the cases called positive, those that are."""
        return _ratio(self.tp, self.tp + self.fp)


class Curve(NamedTuple):
    """A curve over all thresholds, and the area under it."""

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    area: float


class Reliability(NamedTuple):
    """Predicted against observed probability, one entry a bin that is not empty."""

    confidence: NDArray[np.float64]
    """Mean P(positive) of the cases in the bin."""
    frequency: NDArray[np.float64]
    """Share of positive cases among them."""
    counts: NDArray[np.int64]
    """Cases in the bin."""
    ece: float
    """Expected calibration error, in [0, 1]."""


def confusion(
    probability: Floats, label: Labels, positive: int = 1, threshold: float = 0.5
) -> Confusion:
    """Count right and wrong calls.

    Args:
        probability: (N,), P(positive).
        label: (N,), -1 where missing.
        positive: the label that counts as positive.
        threshold: a case is called positive above it; at it the case is negative.

    Returns:
        The four numbers.

    Raises:
        ValueError: a labelled case has a probability that is NaN or outside [0, 1].

    Examples:
        >>> confusion(np.array([0.9, 0.8, 0.2]), np.array([1, 0, -1]))
        Confusion(tp=1, fp=1, fn=0, tn=0)
    """
    score, truth = _labelled(probability, label, positive)
    called = score > threshold
    cells = (called & truth, called & ~truth, ~called & truth, ~called & ~truth)
    return Confusion(*(int(np.count_nonzero(cell)) for cell in cells))


def best_threshold(probability: Floats, label: Labels, positive: int = 1) -> float:
    """Find the threshold whose calls have the largest balanced accuracy, (1 + Youden's J) / 2.

    Args:
        probability: (N,), P(positive).
        label: (N,), -1 where missing.
        positive: the label that counts as positive.

    Returns:
        One half, or the middle between two neighbouring probabilities; of several that are as
        good as each other the nearest to one half. NaN where a class is absent.

    Raises:
        ValueError: a labelled case has a probability that is NaN or outside [0, 1].

    Examples:
        >>> best_threshold(np.array([0.125, 0.25, 0.375]), np.array([0, 0, 1]))
        0.3125
    """
    score, truth = _labelled(probability, label, positive)
    if not truth.any() or truth.all():
        return float("nan")
    seen = np.unique(score)
    candidates = np.append((seen[1:] + seen[:-1]) / 2, 0.5)
    called = score > candidates[:, None]
    balanced = (called[:, truth].mean(axis=1) + (~called[:, ~truth]).mean(axis=1)) / 2
    best = candidates[np.isclose(balanced, balanced.max(), rtol=0, atol=1e-9)]
    return float(best[np.abs(best - 0.5).argmin()])


def roc(probability: Floats, label: Labels, positive: int = 1) -> Curve:
    """Draw the receiver operating characteristic.

    Args:
        probability: (N,), P(positive).
        label: (N,), -1 where missing.
        positive: the label that counts as positive.

    Returns:
        False against true positive rate, from (0, 0) to (1, 1), and the area by trapezoids; no
        points and NaN where a class is absent.

    Raises:
        ValueError: a labelled case has a probability that is NaN or outside [0, 1].
    """
    pair = _both_classes(probability, label, positive)
    if pair is None:
        return _no_curve()
    false_rate, true_rate, _ = binary_roc(*pair)
    return _curve(false_rate, true_rate, binary_auroc(*pair))


def bootstrap_auc(
    probability: Floats, label: Labels, patients: NDArray[Any], positive: int = 1
) -> Interval:
    """Bound the area under the ROC by the percentile bootstrap over patients.

    Args:
        probability: (N,), P(positive).
        label: (N,), -1 where missing.
        patients: (N,), whose image each is; all images of a drawn patient enter, as often as the
            patient was drawn.
        positive: the label that counts as positive.

    Returns:
        The 95 % interval of 1000 draws, those without both classes left out; NaN where a class is
        absent.

    Raises:
        ValueError: a labelled case has a probability that is NaN or outside [0, 1].
    """
    score, truth = _labelled(probability, label, positive)
    if not truth.any() or truth.all():
        return Interval(float("nan"), float("nan"))
    names, line = np.unique(patients[label != UNLABELLED], return_inverse=True)
    (interval,) = bootstrap_sums(np.eye(len(names)), _areas_of_draws(score, truth, line))
    return interval


def bootstrap_auc_difference(
    first: Floats, second: Floats, label: Labels, patients: NDArray[Any], positive: int = 1
) -> Interval:
    """Bound the difference of two areas on the same images, second minus first.

    Args:
        first: (N,), P(positive) by one method.
        second: (N,), by another.
        label: (N,), -1 where missing.
        patients: (N,), whose image each is; both methods see the patients of a draw.
        positive: the label that counts as positive.

    Returns:
        As `bootstrap_auc`.

    Raises:
        ValueError: a labelled case has a probability that is NaN or outside [0, 1].
    """
    (one, truth), (two, _) = (_labelled(score, label, positive) for score in (first, second))
    if not truth.any() or truth.all():
        return Interval(float("nan"), float("nan"))
    names, line = np.unique(patients[label != UNLABELLED], return_inverse=True)
    before, after = (_areas_of_draws(score, truth, line) for score in (one, two))
    (interval,) = bootstrap_sums(np.eye(len(names)), lambda times: after(times) - before(times))
    return interval


def _areas_of_draws(
    score: Drawn, truth: NDArray[np.bool_], line: NDArray[np.int64]
) -> Callable[[Drawn], Drawn]:
    """Return what maps how often each patient was drawn (R, patients) to areas (R, 1)."""
    gaps = score[truth][:, None] - score[~truth]
    won = (gaps > 0) + 0.5 * (gaps == 0)  # the area is the share of pairs in the right order

    def areas(times: Drawn) -> Drawn:
        these, others = times[:, line[truth]], times[:, line[~truth]]
        with np.errstate(invalid="ignore"):
            pairs = these.sum(axis=1) * others.sum(axis=1)
            return (((these @ won) * others).sum(axis=1) / pairs)[:, None]

    return areas


def precision_recall(probability: Floats, label: Labels, positive: int = 1) -> Curve:
    """Draw precision against recall.

    Args:
        probability: (N,), P(positive).
        label: (N,), -1 where missing.
        positive: the label that counts as positive.

    Returns:
        Recall against precision, from recall 1 down to the point (0, 1), and the average precision,
        sum of (R_i - R_i-1) P_i without interpolation; no points and NaN where a class is absent.

    Raises:
        ValueError: a labelled case has a probability that is NaN or outside [0, 1].
    """
    pair = _both_classes(probability, label, positive)
    if pair is None:
        return _no_curve()
    precision, recall, _ = binary_precision_recall_curve(*pair)
    return _curve(recall, precision, binary_average_precision(*pair))


def reliability(
    probability: Floats, label: Labels, positive: int = 1, bins: int = 10
) -> Reliability:
    """Compare predicted with observed probability.

    The error is sum(counts / n * |frequency - confidence|) over bins of P(positive), from 0 to 1,
    not over the confidence in the class that was called (Guo et al. 2017). torchmetrics'
    binary_calibration_error is the same but for the last digit of its edges and for a probability
    of exactly 1, which it gives a bin of its own; here that falls into the last one.

    Args:
        probability: (N,), P(positive).
        label: (N,), -1 where missing.
        positive: the label that counts as positive.
        bins: of equal width over [0, 1], each with its lower edge, the last one with both.

    Returns:
        Bins in rising order, empty ones left out; without labelled cases no bins and NaN.

    Raises:
        ValueError: a labelled case has a probability that is NaN or outside [0, 1].
    """
    score, truth = _labelled(probability, label, positive)
    if not len(score):
        return Reliability(np.empty(0), np.empty(0), np.empty(0, np.int64), float("nan"))
    inner_edges = np.arange(1, bins) / bins  # linspace has 0.6000000000000001 for 3 / 5
    _, place, counts = np.unique(
        np.digitize(score, inner_edges), return_inverse=True, return_counts=True
    )
    confidence = np.bincount(place, score) / counts
    frequency = np.bincount(place, truth) / counts
    ece = float(np.average(np.abs(frequency - confidence), weights=counts))
    return Reliability(confidence, frequency, counts.astype(np.int64), ece)


def _both_classes(
    probability: Floats, label: Labels, positive: int
) -> tuple[Tensor, Tensor] | None:
    """Return scores and truth as torchmetrics wants them; None where a class is absent."""
    score, truth = _labelled(probability, label, positive)
    if not truth.any() or truth.all():
        return None
    return torch.from_numpy(score), torch.from_numpy(truth).long()


def _labelled(
    probability: Floats, label: Labels, positive: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return P(positive) and whether it is, of the cases with a label."""
    known = label != UNLABELLED
    score = probability[known].astype(np.float64)
    if not ((score >= 0) & (score <= 1)).all():
        # torchmetrics would take them for logits, without a word
        raise ValueError("a probability is NaN or outside [0, 1]")
    return score, label[known] == positive


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def _no_curve() -> Curve:
    return Curve(np.empty(0), np.empty(0), float("nan"))


def _curve(x: torch.Tensor, y: torch.Tensor, area: torch.Tensor) -> Curve:
    return Curve(x.double().numpy(), y.double().numpy(), float(area))
