"""Intervals and tests against SciPy, R's published values and their own laws."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from cardiac_mtl.metrics.statistics import (
    bootstrap_mean,
    bootstrap_sums,
    holm,
    ks,
    paired_test,
)

NAN = float("nan")
probabilities = arrays(float, st.integers(0, 12), elements=st.floats(0, 1))


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def width(interval):
    return interval.high - interval.low


def test_the_mean_is_bounded_as_scipy_does():
    values = normal(0, 80)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=1000, confidence_level=0.99, method="percentile", rng=3
    ).confidence_interval
    assert bootstrap_mean(values, 0.99, seed=3) == pytest.approx(tuple(theirs))


def test_the_mean_is_bounded_as_the_normal_law_has_it():
    values = normal(1, 26_000)
    half = 1.96 * values.std() / 26_000**0.5
    low, high = bootstrap_mean(values)
    assert low == pytest.approx(values.mean() - half, abs=half / 5)
    assert high == pytest.approx(values.mean() + half, abs=half / 5)


def test_values_that_are_not_measured_are_left_out():
    values = normal(2, 40)
    gaps = np.insert(values, [0, 7, 40], NAN)
    assert bootstrap_mean(gaps) == bootstrap_mean(values)
    patients = np.arange(40) // 4
    gaps_too = np.insert(patients, [0, 7, 40], [99, 1, 0])
    assert bootstrap_mean(gaps, clusters=gaps_too) == bootstrap_mean(values, clusters=patients)


def test_a_ratio_of_sums_is_bounded_as_the_mean_of_clusters_is():
    """The mean over rows of drawn patients is the ratio of two sums."""
    values, patients = normal(8, 4000), np.arange(4000) // 8
    sums = np.stack([np.bincount(patients, values), np.bincount(patients)], axis=1)
    (found,) = bootstrap_sums(sums, lambda s: s[:, :1] / s[:, 1:])
    expected = bootstrap_mean(values, clusters=patients)
    assert found == pytest.approx(tuple(expected), abs=0.1 * width(expected))


def test_draws_in_which_nothing_is_known_are_left_out():
    sums = np.array([[1.0, 1.0], [0.0, 0.0], [0.0, 0.0]])  # one patient alone has the structure
    with np.errstate(invalid="ignore"):
        (ratio, never) = bootstrap_sums(
            sums, lambda s: np.stack([s[:, 0] / s[:, 1], s[:, 0] * NAN]).T
        )
        (alone,) = bootstrap_sums(sums[:1], lambda s: s[:, :1])
    assert ratio == (1.0, 1.0)
    assert np.isnan([*never, *alone]).all()


def test_the_seed_decides():
    values = normal(3, 40)
    assert bootstrap_mean(values, seed=5) == bootstrap_mean(values, seed=5)
    assert bootstrap_mean(values, seed=5) != bootstrap_mean(values, seed=6)


def test_patients_of_one_row_are_cases():
    values = normal(4, 50)
    assert bootstrap_mean(values, clusters=np.arange(50)) == bootstrap_mean(values)


def test_patients_are_drawn_with_all_their_rows():
    rng = np.random.default_rng(5)
    patients = np.array([f"p{i:02}" for i in rng.integers(0, 12, 90)])
    values = normal(5, 90)
    by_patient = [values[patients == name] for name in np.unique(patients)]
    draws = np.random.default_rng(8).integers(0, len(by_patient), (1000, len(by_patient)))
    means = [np.concatenate([by_patient[i] for i in drawn]).mean() for drawn in draws]
    expected = np.percentile(means, [5, 95])
    assert bootstrap_mean(values, 0.9, patients, seed=8) == pytest.approx(tuple(expected))


def test_rows_that_repeat_their_patient_make_nothing_surer():
    by_patient = normal(6, 30)
    patients = np.repeat(np.arange(30), 9)
    rows = by_patient[patients]
    aware = bootstrap_mean(rows, clusters=patients)
    assert aware == pytest.approx(tuple(bootstrap_mean(by_patient)))
    assert width(aware) == pytest.approx(3 * width(bootstrap_mean(rows)), rel=0.1)  # sqrt(9)


@pytest.mark.parametrize("values", [[], [1.0], [1.0, NAN]])
def test_one_value_has_no_interval(values):
    assert all(map(math.isnan, bootstrap_mean(np.array(values, float))))


def test_two_values_or_patients_have_one():
    assert bootstrap_mean(np.array([1.0, 2.0])) == (1, 2)
    assert bootstrap_mean(np.array([1.0, 1, 2, 2]), clusters=np.array([0, 0, 1, 1])) == (1, 2)


def test_one_patient_has_no_interval():
    assert all(map(math.isnan, bootstrap_mean(normal(7, 20), clusters=np.zeros(20, int))))


def test_pairs_are_tested_as_scipy_does():
    first, second = normal(8, 2, 35)
    result = paired_test(first, second)
    assert result.n == 35
    assert result.mean_difference == pytest.approx(first.mean() - second.mean())
    assert result.p_wilcoxon == pytest.approx(stats.wilcoxon(first, second).pvalue)
    assert result.p_t == pytest.approx(stats.ttest_rel(first, second).pvalue)


def test_a_pair_with_a_gap_is_left_out():
    first, second = normal(9, 2, 20)
    gaps = np.append(first, [NAN, 1]), np.append(second, [1, NAN])
    assert paired_test(*gaps) == paired_test(first, second)
    patients = np.arange(20) // 3
    aware = paired_test(first, second, patients)
    assert paired_test(*gaps, np.append(patients, [0, 99])) == aware


def test_a_patient_counts_once():
    first, second = normal(10, 2, 12)
    patients = np.repeat(np.arange(12), np.arange(1, 13))
    aware = paired_test(first[patients], second[patients], patients)
    assert aware == pytest.approx(tuple(paired_test(first, second)))
    assert paired_test(first[patients], second[patients]).p_t < aware.p_t


def test_differences_are_averaged_within_patients():
    first, second = np.array([1.0, 3.0, 4.0, 8.0]), np.zeros(4)
    by_patient = paired_test(first, second, np.array(["b", "b", "a", "c"]))
    assert by_patient == pytest.approx(tuple(paired_test(np.array([4.0, 2.0, 8.0]), np.zeros(3))))


def test_methods_that_are_the_same_do_not_differ():
    values = normal(11, 9)
    assert paired_test(values, values) == (9, 0.0, 1.0, 1.0)


@pytest.mark.filterwarnings("error")
def test_a_constant_shift_has_a_rank_but_no_spread():
    values = np.array([0.3, 0.4, 0.7, 0.1, 0.9])
    result = paired_test(values + 0.1, values)  # differences differ in their last digits
    assert result.p_wilcoxon == pytest.approx(2 / 2**5)
    assert math.isnan(result.p_t)


def test_one_pair_is_no_test():
    result = paired_test(np.array([1.0, NAN]), np.array([0.0, 2.0]))
    assert result.n == 1
    assert all(map(math.isnan, result[1:]))
    assert paired_test(np.array([1.0, 3.0]), np.zeros(2))[:3] == (2, 2, 0.5)
    two_rows = paired_test(np.array([1.0, 2.0]), np.array([0.0, 0.0]), np.array(["a", "a"]))
    assert math.isnan(two_rows.p_wilcoxon)


def test_columns_of_other_lengths_are_no_pairs():
    with pytest.raises(ValueError, match="not pairs"):
        paired_test(np.zeros(5), np.zeros(1))


def test_holm_by_hand():
    raw = np.array([0.04, 0.01, NAN, 0.03, 0.02])
    np.testing.assert_allclose(holm(raw), [0.06, 0.04, NAN, 0.06, 0.06])


@given(probabilities)
def test_holm_lies_between_the_raw_value_and_bonferroni_and_keeps_the_order(raw):
    adjusted = holm(raw)
    assert (adjusted >= raw).all()
    assert (adjusted <= np.minimum(raw * len(raw), 1)).all()
    assert (np.diff(adjusted[np.argsort(raw)]) >= 0).all()
    if len(raw):
        assert adjusted.min() == min(raw.min() * len(raw), 1)


@given(probabilities, st.integers(0, 99))
def test_holm_does_not_mind_the_order(raw, seed):
    shuffled = np.random.default_rng(seed).permutation(len(raw))
    np.testing.assert_array_equal(holm(raw[shuffled]), holm(raw)[shuffled])


@given(st.integers(3, 30), st.integers(3, 30), st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_ks_agrees_with_scipy_and_is_symmetric(n, m, seed):
    first, second = normal(seed, n), normal(seed + 100, m) + 0.5
    gaps = np.append(first, NAN)
    assert ks(gaps, second) == pytest.approx(stats.ks_2samp(first, second).pvalue)
    assert ks(second, first) == pytest.approx(ks(first, second))


def test_ks_by_hand():
    # 2 of the 6-choose-3 orders keep two samples of 3 apart
    assert ks(np.array([1.0, 2.0, 3.0]), np.array([4.0, 5.0, 6.0])) == pytest.approx(2 / 20)
    assert ks(np.array([1.0, 2.0]), np.array([1.0, 2.0])) == 1.0


def test_ks_of_nothing_is_undefined():
    assert math.isnan(ks(np.array([NAN]), np.array([1.0])))


def test_differences_that_rounding_alone_tells_apart_are_ties_and_none():
    one = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    for k in range(6):  # 0.9 - 0.8 is not 0.8 - 0.7
        two = np.round(one + np.where(np.arange(6) == k, 0.1, -0.1), 6)
        assert paired_test(one, two).p_wilcoxon == stats.wilcoxon([1] * 5 + [-1]).pvalue
    first, second = np.array([0.9, 0.7, *one]), np.array([0.8, 0.8, *one - 0.1])
    patients = np.array(list("aabcdefg"))  # of the first the differences cancel
    expected = stats.wilcoxon([0] + [1] * 6).pvalue
    assert paired_test(first, second, patients).p_wilcoxon == expected
