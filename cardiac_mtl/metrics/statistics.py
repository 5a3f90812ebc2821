"""Intervals and tests for columns of measurements. What is not measured is NaN and left out.

Slices and phases of one patient are not independent: give the patient of each row as `clusters`
and the patient becomes the unit that is drawn or tested.
"""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]

_CELLS = 1_000_000  # drawn values held at once: 8 MB an array, whatever the number of cases


class Interval(NamedTuple):
    """A confidence interval, in the unit of what it was made from; NaN where undefined."""

    low: float
    high: float


class PairedTest(NamedTuple):
    """Two methods on the same cases, two-sided."""

    n: int
    """Pairs tested: patients where clusters were given."""
    mean_difference: float
    """Of first - second, over the n pairs."""
    p_wilcoxon: float
    """Signed rank test; pairs without a difference carry no rank (Wilcoxon 1945)."""
    p_t: float
    """NaN where all differences are the same and not 0: there is no spread to compare with."""


def bootstrap_mean(
    values: Floats,
    confidence: float = 0.95,
    clusters: NDArray[Any] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Bound the mean by the percentile bootstrap (Efron 1979).

    Args:
        values: (N,), any unit; NaN left out.
        confidence: of the interval, in (0, 1); MTN reports 0.99.
        clusters: (N,), the patient of each value. Patients are then drawn, with replacement, and
            every row of a drawn patient enters the mean, as often as the patient was drawn.
        resamples: how often to draw.
        seed: of the draws: the same seed gives the same interval.

    Returns:
        In the unit of the values; NaN with fewer than 2 values, or 2 clusters.

    Examples:
        >>> bootstrap_mean(np.array([0.5, 0.5, float("nan")]))
        Interval(low=0.5, high=0.5)
    """
    known = ~np.isnan(values)
    sums, counts = values[known], np.ones(np.count_nonzero(known))
    if clusters is not None:
        sums, counts = _by_cluster(sums, clusters[known])
    if len(sums) < 2:
        return Interval(float("nan"), float("nan"))
    result = stats.bootstrap(
        (sums, counts),
        _mean,
        paired=True,
        vectorized=True,
        n_resamples=resamples,
        batch=max(1, _CELLS // len(sums)),
        confidence_level=confidence,
        method="percentile",
        random_state=np.random.default_rng(seed),  # named `rng` only since SciPy 1.15
    )
    low, high = result.confidence_interval
    return Interval(float(low), float(high))


def bootstrap_sums(
    sums: Floats,
    statistic: Callable[[Floats], Floats],
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> list[Interval]:
    """Bound what is computed from sums over patients, such as the area under a pooled curve.

    Args:
        sums: (N, K), what each patient adds.
        statistic: maps sums over drawn patients (R, K) to M numbers of each draw (R, M).
        confidence: of the intervals, in (0, 1).
        resamples: how often N patients are drawn, with replacement.
        seed: of the draws: the same seed gives the same intervals.

    Returns:
        M intervals; draws of which a number is NaN are left out of its interval. NaN with fewer
        than 2 patients.
    """
    count = len(sums)
    rng = np.random.default_rng(seed)
    times = rng.multinomial(count, np.full(count, 1 / max(count, 1)), size=resamples)
    ends = (0.5 - confidence / 2, 0.5 + confidence / 2)
    intervals = []
    for drawn in statistic(times @ sums).T:
        known = drawn[~np.isnan(drawn)]
        usable = count > 1 and len(known) > 0
        low, high = np.quantile(known, ends) if usable else (float("nan"), float("nan"))
        intervals.append(Interval(float(low), float(high)))
    return intervals


def paired_test(first: Floats, second: Floats, clusters: NDArray[Any] | None = None) -> PairedTest:
    """Test whether two methods differ on the same cases, by rank and by mean.

    Args:
        first: (N,), any unit.
        second: (N,), same cases and unit; a pair with a NaN is left out.
        clusters: (N,), the patient of each pair. The differences are then averaged by patient
            first, so that a patient counts once, however many slices it has.

    Returns:
        All NaN with fewer than 2 pairs; both p are 1 where nothing differs.

    Raises:
        ValueError: the shapes differ.
    """
    if first.shape != second.shape:
        raise ValueError(f"{first.shape} and {second.shape} are not pairs")
    differences = first - second
    known = ~np.isnan(differences)
    differences = differences[known]
    if clusters is not None:
        sums, counts = _by_cluster(differences, clusters[known])
        differences = sums / counts
    n = len(differences)
    if n < 2:
        return PairedTest(n, float("nan"), float("nan"), float("nan"))
    if not differences.any():
        return PairedTest(n, 0.0, 1.0, 1.0)
    # 0.9 - 0.8 is not 0.8 - 0.7: what differs by rounding alone is a tie, or no difference
    ranked = np.round(differences / np.abs(differences).max(), 9)
    p_wilcoxon = float(stats.wilcoxon(ranked).pvalue)
    # the spread that rounding leaves behind is none: R's t.test refuses such data too
    same = np.allclose(differences, differences[0], rtol=1e-12, atol=0)
    p_t = float("nan") if same else float(stats.ttest_1samp(differences, 0).pvalue)
    return PairedTest(n, float(differences.mean()), p_wilcoxon, p_t)


def holm(p_values: Floats) -> Floats:
    """Adjust p values for the number of tests, by Holm's step-down method (1979).

    Args:
        p_values: (N,), in [0, 1]; NaN is no test.

    Returns:
        (N,), in [0, 1], in the order given, to be compared with the level itself; NaN stays NaN.

    Examples:
        >>> holm(np.array([0.5, 0.25, 0.125])).tolist()
        [0.5, 0.5, 0.375]
    """
    adjusted = np.full(len(p_values), np.nan)
    known = np.flatnonzero(~np.isnan(p_values))
    order = known[np.argsort(p_values[known])]
    stepped = p_values[order] * np.arange(len(order), 0, -1)
    # a test cannot become surer than the one before it
    adjusted[order] = np.minimum(np.maximum.accumulate(stepped), 1)
    return adjusted


def ks(first: Floats, second: Floats) -> float:
    """Test whether two samples have one distribution: Kolmogorov-Smirnov, two-sided.

    Args:
        first: (N,), any unit; NaN left out.
        second: (M,), same unit; NaN left out.

    Returns:
        p in [0, 1]; NaN where a sample is empty.
    """
    first, second = (sample[~np.isnan(sample)] for sample in (first, second))
    if not len(first) or not len(second):
        return float("nan")
    with warnings.catch_warnings():  # where the exact p overflows it takes the asymptotic one
        warnings.filterwarnings("ignore", "ks_2samp: Exact calculation", RuntimeWarning)
        return float(stats.ks_2samp(first, second).pvalue)


def _by_cluster(values: Floats, clusters: NDArray[Any]) -> tuple[Floats, Floats]:
    """Return the sum and the number of the values of each cluster, in sorted order."""
    _, rows = np.unique(clusters, return_inverse=True)
    return np.bincount(rows, values).astype(np.float64), np.bincount(rows).astype(np.float64)


def _mean(sums: Floats, counts: Floats, axis: int) -> Floats:
    return sums.sum(axis) / counts.sum(axis)
