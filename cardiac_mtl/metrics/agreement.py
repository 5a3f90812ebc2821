"""Agreement of a predicted index with its reference: same cases, same unit, NaN pairs left out."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from cardiac_mtl.metrics.statistics import Interval

Floats = NDArray[np.float64]

_LIMIT = 1.96  # standard deviations to a limit of agreement, by definition
_NAN = float("nan")
_UNDEFINED = Interval(_NAN, _NAN)


class Line(NamedTuple):
    """Least squares line predicted = slope * reference + intercept."""

    r: float
    """Pearson's correlation, in [-1, 1]."""
    slope: float
    intercept: float
    """In the unit of the index."""
    n: int
    """Pairs without a NaN."""


class BlandAltman(NamedTuple):
    """Differences predicted - reference, in the unit of the index."""

    n: int
    """Pairs without a NaN."""
    bias: float
    sd: float
    """Of the differences, with n - 1."""
    lower: float
    """Limit of agreement, bias - 1.96 sd."""
    upper: float
    """Limit of agreement, bias + 1.96 sd."""
    bias_ci: Interval
    lower_ci: Interval
    upper_ci: Interval


class Icc(NamedTuple):
    """An intraclass correlation: 1 where raters agree, 0 and below where cases tell nothing."""

    value: float
    interval: Interval


def pearson(reference: Floats, predicted: Floats) -> Line:
    """Correlate two measurements and fit a line.

    Args:
        reference: (N,), any unit.
        predicted: (N,), same unit.

    Returns:
        NaN with fewer than 3 pairs, or where one of the two is constant.

    Raises:
        ValueError: the shapes differ.
    """
    x, y = _complete(reference, predicted).T
    if len(x) < 3 or not np.ptp(x) or not np.ptp(y):
        return Line(_NAN, _NAN, _NAN, len(x))
    fit = stats.linregress(x, y)
    return Line(float(fit.rvalue), float(fit.slope), float(fit.intercept), len(x))


def bland_altman(reference: Floats, predicted: Floats, confidence: float = 0.95) -> BlandAltman:
    """Measure bias and limits of agreement (Bland and Altman, Lancet 1986).

    The standard error of a limit is sd * sqrt(1/n + 1.96^2 / (2 (n - 1))), as in their paper of
    1999 (Stat Methods Med Res 8:135); the sqrt(3/n) sd of 1986 rounds it.

    Args:
        reference: (N,), any unit.
        predicted: (N,), same unit.
        confidence: of the three intervals, in (0, 1). The limits stay at 1.96 sd.

    Returns:
        In the unit of the measurements; NaN with fewer than 2 pairs.

    Raises:
        ValueError: the shapes differ.
    """
    pairs = _complete(reference, predicted)
    n = len(pairs)
    if n < 2:
        return BlandAltman(n, _NAN, _NAN, _NAN, _NAN, _UNDEFINED, _UNDEFINED, _UNDEFINED)
    differences = pairs[:, 1] - pairs[:, 0]
    bias, sd = float(differences.mean()), float(differences.std(ddof=1))
    t = float(stats.t.ppf((1 + confidence) / 2, n - 1))
    lower, upper = bias - _LIMIT * sd, bias + _LIMIT * sd
    of_bias = t * sd / n**0.5
    of_limit = t * sd * (1 / n + _LIMIT**2 / (2 * (n - 1))) ** 0.5
    return BlandAltman(
        n,
        bias,
        sd,
        lower,
        upper,
        Interval(bias - of_bias, bias + of_bias),
        Interval(lower - of_limit, lower + of_limit),
        Interval(upper - of_limit, upper + of_limit),
    )


def icc(reference: Floats, predicted: Floats, *others: Floats, confidence: float = 0.95) -> Icc:
    """Measure the intraclass correlation ICC(2,1), also named ICC(A,1).

    Two-way random effects, absolute agreement, single measure: an offset between the raters counts
    as disagreement. Shrout and Fleiss (1979); interval of McGraw and Wong (1996), table 7.

    Args:
        reference: (N,), any unit.
        predicted: (N,), same unit.
        *others: (N,) each, further raters of the same cases.
        confidence: of the interval, in (0, 1).

    Returns:
        At most 1; NaN with fewer than 2 complete cases, or where all values are the same.

    Raises:
        ValueError: the shapes differ.
    """
    table = _complete(reference, predicted, *others)
    n, k = table.shape
    if n < 2 or not np.ptp(table):
        return Icc(_NAN, _UNDEFINED)
    cases, raters, rest = _mean_squares(table)
    value = (cases - rest) / (cases + (k - 1) * rest + k / n * (raters - rest))
    # degrees of freedom after Satterthwaite; a and b here are n (1 - value) times theirs, which
    # cancels and leaves perfect agreement defined
    a = k * value * raters
    b = (n * (1 - value) + k * value * (n - 1)) * rest
    spread = a**2 / (k - 1) + b**2 / ((n - 1) * (k - 1))
    freedom = (a + b) ** 2 / spread if spread else 1.0
    within = k * raters + (k * n - k - n) * rest
    # their 1 / F(n - 1, v) at the upper tail is F(v, n - 1) at the lower one
    low, high = (
        n * (f * cases - rest) / (within + n * f * cases)
        for f in stats.f.ppf([(1 - confidence) / 2, (1 + confidence) / 2], freedom, n - 1)
    )
    return Icc(float(value), Interval(float(low), float(high)))


def _mean_squares(table: Floats) -> tuple[float, float, float]:
    """Return the mean squares between cases, between raters and of the rest, of (N, raters)."""
    n, k = table.shape
    by_case = table.mean(axis=1, keepdims=True) - table.mean()
    by_rater = table.mean(axis=0, keepdims=True) - table.mean()
    rest = table - table.mean() - by_case - by_rater
    return (
        float(k * (by_case**2).sum() / (n - 1)),
        float(n * (by_rater**2).sum() / (k - 1)),
        float((rest**2).sum() / ((n - 1) * (k - 1))),
    )


def _complete(*raters: Floats) -> Floats:
    """Return (N, raters): the cases that every rater has measured."""
    table = np.stack(raters, axis=1)
    return table[~np.isnan(table).any(axis=1)]
