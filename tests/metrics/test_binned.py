"""Areas from bins against scikit-learn on the scores themselves, within their own bounds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import auc as area_under
from sklearn.metrics import average_precision_score, confusion_matrix, f1_score, roc_auc_score

from cardiac_mtl.metrics.binned import (
    LOG_ODDS,
    auc,
    auc_bounds,
    average_precision,
    average_precision_bounds,
    count_in_bins,
    precision_recall_of_bins,
    rates,
    roc_of_bins,
)


def scores(seed, count, spread, prevalence=0.2):
    """Return float32 probabilities as a network gives them, and the truth; both classes are there."""
    rng = np.random.default_rng(seed)
    truth = rng.random(count) < prevalence
    truth[:2] = True, False
    logits = spread * (rng.normal(size=count) + 1.5 * truth - 1)
    return (1 / (1 + np.exp(-logits))).astype(np.float32), truth


def within(bounds, value):
    return bounds.low - 1e-9 <= value <= bounds.high + 1e-9


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 400), st.floats(0.001, 40), st.booleans())
def test_the_areas_without_bins_lie_within_the_bounds(seed, count, spread, tied):
    probability, truth = scores(seed, count, spread)
    if tied:  # ties across and within bins
        probability = probability.round(2)
    counts = count_in_bins(probability, truth)
    assert counts.sum(axis=1).tolist() == [truth.sum(), (~truth).sum()]
    exact = roc_auc_score(truth, probability), average_precision_score(truth, probability)
    for value, binned, bounds in (
        (exact[0], auc(counts), auc_bounds(counts)),
        (exact[1], average_precision(counts), average_precision_bounds(counts)),
    ):
        assert within(bounds, value)
        assert within(bounds, binned)


def test_on_scores_of_a_network_the_bounds_are_tight():
    probability, truth = scores(0, 50_000, spread=3, prevalence=0.05)
    counts = count_in_bins(probability, truth)
    assert auc(counts) == pytest.approx(roc_auc_score(truth, probability), abs=1e-5)
    assert np.diff(auc_bounds(counts)) < 2e-3
    exact = average_precision_score(truth, probability)
    assert average_precision(counts) == pytest.approx(exact, abs=1e-3)
    assert np.diff(average_precision_bounds(counts)) < 1e-2


def test_scores_at_the_edges_of_bins_lose_nothing():
    edges = 1 / (1 + np.exp(-LOG_ODDS[:-1:40]))
    rng = np.random.default_rng(1)
    probability, truth = rng.choice(edges, 500), rng.random(500) < 0.3
    counts = count_in_bins(probability, truth)
    assert auc(counts) == pytest.approx(roc_auc_score(truth, probability))
    assert average_precision(counts) == pytest.approx(average_precision_score(truth, probability))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(1e-7, 1e-3))
def test_calls_at_one_half_are_exact(seed, spread):
    probability, truth = scores(seed, 300, spread)
    probability[5:50] = 0.5
    called = probability > 0.5
    accuracy, sensitivity, specificity, dice = rates(count_in_bins(probability, truth), LOG_ODDS)
    (tn, fp), (fn, tp) = confusion_matrix(truth, called, labels=[False, True])
    assert accuracy == pytest.approx((tp + tn) / 300)
    assert sensitivity == pytest.approx(tp / (tp + fn))
    assert specificity == pytest.approx(tn / (tn + fp))
    assert dice == pytest.approx(f1_score(truth, called, zero_division=0.0))


def test_many_cases_are_measured_in_one_go():
    each = np.stack([count_in_bins(*scores(seed, 200, 2)) for seed in range(3)])
    assert auc(each) == pytest.approx([float(auc(one)) for one in each])
    assert average_precision(each) == pytest.approx([float(average_precision(o)) for o in each])
    assert rates(each, LOG_ODDS)[1] == pytest.approx(rates(each[1], LOG_ODDS))


def test_the_curves_enclose_their_areas():
    probability, truth = scores(3, 2000, 2)
    probability[:8] = 0  # the lowest bin is of the curve too
    counts = count_in_bins(probability, truth)
    curve = roc_of_bins(counts)
    assert (curve.x[0], curve.y[0], curve.x[-1], curve.y[-1]) == (0, 0, 1, 1)
    assert area_under(curve.x, curve.y) == pytest.approx(curve.area)
    precise = precision_recall_of_bins(counts)
    assert precise.x[-1] == 1
    steps = np.diff(precise.x, prepend=0)
    assert (steps * precise.y).sum() == pytest.approx(precise.area)


def test_one_class_alone_has_no_curve():
    for truth in (True, False):
        counts = count_in_bins(np.array([0.2, 0.7]), np.full(2, truth))
        assert np.isnan(auc(counts))
        assert np.isnan(auc_bounds(counts)).all()
    assert np.isnan(average_precision(counts))
    assert np.isnan(average_precision_bounds(counts)).all()
    assert np.isnan(rates(counts, LOG_ODDS)[1])


@pytest.mark.parametrize("value", [np.nan, -0.1, 1.1])
def test_what_is_no_probability_is_refused(value):
    with pytest.raises(ValueError, match="outside"):
        count_in_bins(np.array([0.5, value]), np.array([True, False]))
