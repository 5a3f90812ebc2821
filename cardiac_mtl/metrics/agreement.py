"""Agreement of a predicted index with its reference: same cases, same unit, NaN pairs left out.

Slices and phases of one patient are not independent: give the patient of each pair as `clusters`
and, where a patient has several, the intervals are those of the percentile bootstrap over patients.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from cardiac_mtl.metrics.statistics import Interval, bootstrap_sums

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


def bland_altman(
    reference: Floats,
    predicted: Floats,
    confidence: float = 0.95,
    clusters: NDArray[Any] | None = None,
) -> BlandAltman:
    """Measure bias and limits of agreement (Bland and Altman, Lancet 1986).

    The standard error of a limit is sd * sqrt(1/n + 1.96^2 / (2 (n - 1))), as in their paper of
    1999 (Stat Methods Med Res 8:135); the sqrt(3/n) sd of 1986 rounds it.

    Args:
        reference: (N,), any unit.
        predicted: (N,), same unit.
        confidence: of the three intervals, in (0, 1). The limits stay at 1.96 sd.
        clusters: (N,), the patient of each pair.

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
    lower, upper = bias - _LIMIT * sd, bias + _LIMIT * sd
    if (drawn := _repeated(clusters, reference, predicted)) is not None:
        bounds = _bootstrap(pairs, drawn, _limits_of, confidence)
        return BlandAltman(n, bias, sd, lower, upper, *bounds)
    t = float(stats.t.ppf((1 + confidence) / 2, n - 1))
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


def icc(
    reference: Floats,
    predicted: Floats,
    *others: Floats,
    confidence: float = 0.95,
    clusters: NDArray[Any] | None = None,
) -> Icc:
    """Measure the intraclass correlation ICC(2,1), also named ICC(A,1).

    Two-way random effects, absolute agreement, single measure: an offset between the raters counts
    as disagreement. Shrout and Fleiss (1979); interval of McGraw and Wong (1996), table 7.

    Args:
        reference: (N,), any unit.
        predicted: (N,), same unit.
        *others: (N,) each, further raters of the same cases.
        confidence: of the interval, in (0, 1).
        clusters: (N,), the patient of each case; of two raters alone.

    Returns:
        At most 1; NaN with fewer than 2 complete cases, or where all values are the same.

    Raises:
        ValueError: the shapes differ, or clusters are given beside further raters.
    """
    if others and clusters is not None:
        raise ValueError("clusters are for two raters")
    table = _complete(reference, predicted, *others)
    n, k = table.shape
    if n < 2 or not np.ptp(table):
        return Icc(_NAN, _UNDEFINED)
    cases, raters, rest = _mean_squares(table)
    value = (cases - rest) / (cases + (k - 1) * rest + k / n * (raters - rest))
    if (drawn := _repeated(clusters, reference, predicted)) is not None:
        (interval,) = _bootstrap(table, drawn, _icc_of, confidence)
        return Icc(float(value), interval)
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


def _repeated(clusters: NDArray[Any] | None, *raters: Floats) -> NDArray[np.intp] | None:
    """Return the number of the patient of each complete case; None where each has but one."""
    if clusters is None:
        return None
    names, line = np.unique(clusters[_known(*raters)], return_inverse=True)
    return line if len(names) < len(line) else None


def _bootstrap(
    pairs: Floats,
    patient: NDArray[np.intp],
    statistic: Callable[[Floats], Floats],
    confidence: float,
) -> list[Interval]:
    """Bound what follows from the number of pairs, their sums and differences, and the squares.

    Args:
        pairs: (N, 2).
        patient: (N,), from 0; all pairs of a drawn patient enter.
        statistic: maps these five, added up (R, 5), to (R, M).
        confidence: of the M intervals.
    """
    both, gap = pairs.sum(axis=1) - 2 * pairs.mean(), pairs[:, 1] - pairs[:, 0]
    terms = (np.ones(len(pairs)), both, gap, both**2, gap**2)
    sums = np.stack([np.bincount(patient, term) for term in terms], axis=1).astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return bootstrap_sums(sums, statistic, confidence)


def _limits_of(sums: Floats) -> Floats:
    """Return bias, lower and upper limit (R, 3) of sums (R, 5)."""
    n, _, gap, _, gaps = sums.T
    bias = gap / n
    reach = _LIMIT * np.sqrt(np.maximum(gaps - n * bias**2, 0) / (n - 1))
    return np.stack([bias, bias - reach, bias + reach], axis=1)


def _icc_of(sums: Floats) -> Floats:
    """Return ICC(2,1) of two raters (R, 1) of sums (R, 5)."""
    n, both, gap, boths, gaps = sums.T
    cases, rest = (
        (square - one**2 / n) / (2 * (n - 1)) for one, square in ((both, boths), (gap, gaps))
    )
    raters = gap**2 / (2 * n)
    return ((cases - rest) / (cases + rest + 2 / n * (raters - rest)))[:, None]


def _known(*raters: Floats) -> NDArray[np.bool_]:
    """Return which cases (N,) every rater has measured."""
    known: NDArray[np.bool_] = np.isnan(np.stack(raters)).sum(axis=0) == 0
    return known


def _complete(*raters: Floats) -> Floats:
    """Return (N, raters): the cases that every rater has measured."""
    return np.stack(raters, axis=1)[_known(*raters)]
