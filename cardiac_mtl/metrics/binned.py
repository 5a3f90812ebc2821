"""Probabilities of many pixels, counted in bins: the curves of a cohort from small tables.

A bin is named by its upper edge in log-odds, which spreads what networks say near 0 and 1. Counts
of several cases are added up; what the binning can move is bounded by the counts themselves.
Undefined values are NaN.
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from cardiac_mtl.metrics.classification import Curve, Floats

Counts = NDArray[np.integer]
"""(..., 2, B), positive and negative pixels of each bin, bins in rising order."""

LOG_ODDS: Final = np.append(np.arange(-500, 501) / 50, np.inf)
"""Upper edge of each bin, which holds it. One edge is 0: calls at one half are counted exactly."""
_UPPER: Final = expit(LOG_ODDS[:-1])

RATES: Final = ("accuracy", "sensitivity", "specificity", "dice")


class Bounds(NamedTuple):
    """What an area may have been before binning."""

    low: float
    high: float


def count_in_bins(probability: Floats, positive: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Count pixels by their probability.

    Args:
        probability: (N,), P(positive).
        positive: (N,), whether each is.

    Returns:
        (2, B), positive and negative ones in each bin of `LOG_ODDS`.

    Raises:
        ValueError: a probability is NaN or outside [0, 1].
    """
    if not ((probability >= 0) & (probability <= 1)).all():
        raise ValueError("a probability is NaN or outside [0, 1]")
    place = np.searchsorted(_UPPER, probability, side="left")
    return np.stack(
        [np.bincount(place[of], minlength=len(LOG_ODDS)) for of in (positive, ~positive)]
    )


def rates(counts: Counts, log_odds: Floats) -> NDArray[np.float64]:
    """Measure the calls at a probability of one half, above which a pixel is positive.

    Args:
        counts: (..., 2, B).
        log_odds: (B,), upper edges; one of them is 0.

    Returns:
        (..., 4), in the order of `RATES`.
    """
    called, left = (counts[..., log_odds > 0].sum(-1), counts[..., log_odds <= 0].sum(-1))
    (tp, fp), (fn, tn) = np.moveaxis(called, -1, 0), np.moveaxis(left, -1, 0)
    parts = ((tp + tn, tp + fp + fn + tn), (tp, tp + fn), (tn, tn + fp), (2 * tp, 2 * tp + fp + fn))
    return np.stack([_ratio(part, whole) for part, whole in parts], axis=-1)


def auc(counts: Counts) -> NDArray[np.float64]:
    """Return the area (...,) under the ROC: pixels of one bin are ties, which count one half."""
    positive, negative = np.moveaxis(counts.astype(float), -2, 0)
    below = negative.cumsum(-1) - negative / 2
    return _ratio((positive * below).sum(-1), positive.sum(-1) * negative.sum(-1))


def auc_bounds(counts: Counts) -> Bounds:
    """Bound the area before binning: each pair within a bin counted wrong, or right."""
    positive, negative = counts.astype(float)
    ties = _ratio((positive * negative).sum(), positive.sum() * negative.sum())
    area = auc(counts)
    return Bounds(float(area - ties / 2), float(area + ties / 2))


def average_precision(counts: Counts) -> NDArray[np.float64]:
    """Return the sum (...,) of (R_i - R_i-1) P_i over thresholds at the edges of the bins."""
    positive, _ = np.moveaxis(counts.astype(float), -2, 0)
    found, false = np.moveaxis(_above(counts), -2, 0)
    precision = np.divide(found, found + false, out=np.zeros_like(found), where=found > 0)
    return _ratio((positive * precision).sum(-1), positive.sum(-1))


def average_precision_bounds(counts: Counts) -> Bounds:
    """Bound the average precision before binning.

    A positive pixel of a bin is called with no more false ones than all of the bin, and no fewer
    than those above it; and with no fewer positive ones than itself and those above it.
    """
    positive, negative = counts
    found, false = _above(counts)
    total = positive.sum()
    if not total:
        return Bounds(float("nan"), float("nan"))
    best = np.divide(found, found + false - negative, out=np.zeros(len(found)), where=positive > 0)
    rank = np.arange(1, total + 1)  # of each positive pixel from the top, bin by bin
    worst = rank / (rank + np.repeat(false[::-1], positive[::-1]))
    return Bounds(float(worst.mean()), float((positive * best).sum() / total))


def roc_of_bins(counts: Counts) -> Curve:
    """Draw the receiver operating characteristic (2, B), from (0, 0) to (1, 1)."""
    found, false = (np.append(0.0, sums[::-1]) for sums in _above(counts))
    x, y = _ratio(false, false[-1]), _ratio(found, found[-1])
    return _curve(x, y, auc(counts))


def precision_recall_of_bins(counts: Counts) -> Curve:
    """Draw recall against precision (2, B): steps that each reach from the recall before it.

    The first point, at recall 0, has the precision of the highest bin with a positive pixel.
    """
    found, false = (sums[::-1] for sums in _above(counts))
    held = found > 0
    x, y = _ratio(found, found[-1])[held], _ratio(found, found + false)[held]
    return _curve(np.append(0.0, x), np.append(y[:1], y), average_precision(counts))


def _above(counts: Counts) -> NDArray[np.float64]:
    """Return how many pixels (..., 2, B) each bin and those above it hold."""
    return counts[..., ::-1].cumsum(-1, dtype=float)[..., ::-1]


def _curve(x: NDArray[np.float64], y: NDArray[np.float64], area: NDArray[np.float64]) -> Curve:
    """Keep the points that differ from the one before: many bins are empty."""
    moved = np.append(True, (np.diff(x) != 0) | (np.diff(y) != 0))
    return Curve(x[moved], y[moved], float(area))


def _ratio(part: Floats, whole: Floats) -> NDArray[np.float64]:
    parts, wholes = np.broadcast_arrays(np.asarray(part, float), np.asarray(whole, float))
    return np.divide(parts, wholes, out=np.full(parts.shape, np.nan), where=wholes > 0)
