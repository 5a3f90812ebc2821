"""Agreement against published tables, NumPy and its own laws."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cardiac_mtl.metrics.agreement import bland_altman, icc, pearson
from cardiac_mtl.metrics.statistics import Interval

NAN = float("nan")
# Bland and Altman 1986, table 1: peak expiratory flow in l/min, first readings
WRIGHT = "494 395 516 434 476 557 413 442 650 433 417 656 267 478 178 423 427"
MINI_WRIGHT = "512 430 520 428 500 600 364 380 658 445 432 626 260 477 259 350 451"
# Shrout and Fleiss 1979, table 2: six targets, four judges
JUDGES = "9 2 5 8 6 1 3 2 8 4 6 8 7 1 2 6 10 5 6 9 6 2 4 7"


def numbers(text):
    return np.array(text.split(), float)


def measured(seed, n=40):
    """Return a reference and a prediction that follows it."""
    rng = np.random.default_rng(seed)
    reference = rng.normal(100, 20, n)
    return reference, 0.8 * reference + 15 + rng.normal(0, 8, n)


@pytest.mark.parametrize("measure", [pearson, bland_altman, icc])
def test_pairs_with_a_gap_are_left_out(measure):
    reference, predicted = measured(0)
    gaps = np.append(reference, [NAN, 1]), np.append(predicted, [1, NAN])
    assert measure(*gaps) == measure(reference, predicted)


@pytest.mark.parametrize("measure", [pearson, bland_altman, icc])
def test_columns_of_other_lengths_are_no_pairs(measure):
    with pytest.raises(ValueError, match="same shape"):
        measure(np.zeros(5), np.zeros(1))


def test_the_line_of_numpy():
    reference, predicted = measured(1)
    line = pearson(reference, predicted)
    slope, intercept = np.polyfit(reference, predicted, 1)
    assert line == pytest.approx(
        (np.corrcoef(reference, predicted)[0, 1], slope, intercept, len(reference))
    )


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("reference", "predicted"),
    [
        ([1, 1, 1], [1, 2, 3]),
        ([1, 2, 3], [0.1, 0.1, 0.1]),
        ([1, 2, NAN], [1, 2, 3]),
        ([], []),
    ],
)
def test_no_line_through_a_constant_or_two_points(reference, predicted):
    line = pearson(np.array(reference, float), np.array(predicted, float))
    assert all(map(math.isnan, line[:3]))
    assert line.n == np.count_nonzero(~np.isnan(reference))


def test_three_points_have_a_line():
    line = pearson(np.array([1.0, 2, 3]), np.array([3.0, 5, 7]))
    assert line == pytest.approx((1, 2, 1, 3))


def test_of_several_pairs_a_patient_patients_are_drawn():
    reference, predicted = measured(2)
    reference[3] = NAN
    patients = np.array([f"p{k}" for k in range(40)])
    patients[:20] = ["p0", "p1", "p2", "p3", "p4"] * 4
    known = ~np.isnan(reference)
    names, line = np.unique(patients[known], return_inverse=True)
    count = len(names)
    drawn = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), size=1000)
    values = []
    for times in drawn[:, line]:
        pair = np.repeat(reference[known], times), np.repeat(predicted[known], times)
        limits = bland_altman(*pair)
        values.append((limits.bias, limits.lower, limits.upper, icc(*pair).value))
    expected = np.quantile(values, (0.025, 0.975), axis=0).T
    limits = bland_altman(reference, predicted, clusters=patients)
    single = icc(reference, predicted, clusters=patients)
    found = [limits.bias_ci, limits.lower_ci, limits.upper_ci, single.interval]
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    assert limits[:5] == bland_altman(reference, predicted)[:5]
    assert single.value == icc(reference, predicted).value


@pytest.mark.parametrize("measure", [bland_altman, icc])
def test_patients_of_one_pair_change_nothing(measure):
    reference, predicted = measured(3)
    assert measure(reference, predicted, clusters=np.arange(40)) == measure(reference, predicted)


def test_phases_that_are_alike_do_not_narrow_an_interval():
    reference, predicted = measured(4, n=10)
    once = np.ptp(bland_altman(reference, predicted).bias_ci)
    pair = np.repeat(reference, 25), np.repeat(predicted, 25)
    assert np.ptp(bland_altman(*pair).bias_ci) < 0.3 * once
    by_patient = bland_altman(*pair, clusters=np.repeat(np.arange(10), 25))
    assert np.ptp(by_patient.bias_ci) > 0.6 * once


def test_further_raters_have_no_clusters():
    reference, predicted = measured(5)
    with pytest.raises(ValueError, match="two raters"):
        icc(reference, predicted, predicted, clusters=np.arange(40))


def test_bland_and_altman_1986():
    result = bland_altman(numbers(MINI_WRIGHT), numbers(WRIGHT))
    assert result.n == 17
    assert result.bias == pytest.approx(-2.1, abs=0.05)
    assert result.sd == pytest.approx(38.8, abs=0.05)
    assert result.bias_ci == pytest.approx((-22.0, 17.8), abs=0.05)
    # they round 1.96 to 2 (limits -79.7 and 75.5), and the error of a limit to sqrt(3/n) sd
    assert result.lower == pytest.approx(-79.7, abs=2)
    assert result.upper == pytest.approx(75.5, abs=2)
    assert result.lower_ci == pytest.approx((-114.3, -45.1), abs=2)
    assert result.upper_ci == pytest.approx((40.9, 110.1), abs=2)


def test_bland_altman_by_hand():
    result = bland_altman(np.array([10.0, 20.0, 30.0]), np.array([11.0, 22.0, 33.0]))
    assert result[:5] == pytest.approx((3, 2.0, 1.0, 0.04, 3.96))
    t = 4.302653  # 0.975 quantile with 2 degrees of freedom
    half = t * math.sqrt(1 / 3 + 1.96**2 / 4)
    assert result.bias_ci == pytest.approx((2 - t / math.sqrt(3), 2 + t / math.sqrt(3)))
    assert result.lower_ci == pytest.approx((0.04 - half, 0.04 + half))
    assert result.upper_ci == pytest.approx((3.96 - half, 3.96 + half))


def test_the_intervals_hold_what_they_promise():
    rng = np.random.default_rng(2)
    held = np.zeros(3)
    for _ in range(400):
        result = bland_altman(np.zeros(25), rng.normal(1, 2, 25), confidence=0.9)
        truth = (1, 1 - 1.96 * 2, 1 + 1.96 * 2)
        held += [ci.low < value < ci.high for ci, value in zip(result[5:], truth, strict=True)]
    assert held / 400 == pytest.approx(np.full(3, 0.9), abs=0.05)


def test_one_pair_has_no_limits():
    result = bland_altman(np.array([1.0, NAN]), np.array([2.0, 2.0]))
    assert result.n == 1
    assert all(map(math.isnan, (*result[1:5], *result.bias_ci, *result.lower_ci, *result.upper_ci)))


def test_shrout_and_fleiss_1979():
    value, interval = icc(*numbers(JUDGES).reshape(6, 4).T)
    assert value == pytest.approx(0.29, abs=0.005)
    assert interval == pytest.approx((0.019, 0.761), abs=0.0005)  # as R's psych and irr print it


@pytest.mark.parametrize("seed", range(4))
def test_two_raters_by_variances(seed):
    a, b = measured(seed)
    n = len(a)
    cases = 2 * np.var((a + b) / 2, ddof=1)
    rest = np.var(a - b, ddof=1) / 2
    raters = n * (a.mean() - b.mean()) ** 2 / 2
    expected = (cases - rest) / (cases + rest + 2 / n * (raters - rest))
    value, interval = icc(a, b)
    assert value == pytest.approx(expected)
    assert interval.low < value < interval.high


def test_the_interval_of_icc_holds_what_it_promises():
    # variances of cases, raters and rest: 4, 1, 1, so that the truth is 4 / 6
    rng = np.random.default_rng(3)
    held = 0
    for _ in range(400):
        table = rng.normal(0, 2, (30, 1)) + rng.normal(0, 1, 5) + rng.normal(0, 1, (30, 5))
        low, high = icc(*table.T, confidence=0.9).interval
        held += low < 4 / 6 < high
    assert held / 400 == pytest.approx(0.9, abs=0.05)


@given(st.integers(0, 99), st.floats(0.1, 10), st.floats(-50, 50))
@settings(max_examples=30, deadline=None)
def test_icc_is_symmetric_without_unit_and_at_most_r(seed, factor, shift):
    a, b = measured(seed)
    value, interval = icc(a, b)
    assert value == pytest.approx(icc(b, a).value)
    moved = icc(factor * a + shift, factor * b + shift)
    assert moved.value == pytest.approx(value)
    assert moved.interval == pytest.approx(tuple(interval))
    assert value <= pearson(a, b).r


def test_an_offset_lowers_icc_but_not_r():
    a, b = measured(5)
    assert icc(a, b + 50).value < icc(a, b).value - 0.2
    assert pearson(a, b + 50).r == pytest.approx(pearson(a, b).r)


@pytest.mark.filterwarnings("error")
def test_perfect_agreement():
    a, _ = measured(6)
    value, interval = icc(a, a)
    assert value == pytest.approx(1)
    assert interval == pytest.approx((1, 1))


@pytest.mark.filterwarnings("error")
def test_raters_that_contradict_each_other():
    rising = np.arange(8.0)
    value, interval = icc(rising, rising[::-1])
    assert value < 0
    assert interval.low <= value <= interval.high


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("values", [[], [1.0], [0.1, 0.1, 0.1]])
def test_icc_needs_cases_that_differ(values):
    value, interval = icc(np.array(values), np.array(values))
    assert math.isnan(value)
    np.testing.assert_equal(interval, Interval(NAN, NAN))
