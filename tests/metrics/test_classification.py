"""Classification against scikit-learn and torchmetrics."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics
from sklearn.calibration import calibration_curve
from torchmetrics.functional.classification import binary_calibration_error

from cardiac_mtl.metrics.classification import (
    best_threshold,
    bootstrap_auc,
    bootstrap_auc_difference,
    confusion,
    precision_recall,
    reliability,
    roc,
)

MEASURES = [confusion, roc, precision_recall, reliability]


def cases(seed, n=200, dtype=np.float64):
    """Return probabilities with ties, and labels that they tell something about."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, n)
    probability = np.clip(rng.normal(0.4 + 0.2 * label, 0.2), 0, 1).round(2)
    return probability.astype(dtype), label


def same(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("seed", range(4))
def test_confusion_agrees_with_scikit_learn(seed):
    probability, label = cases(seed)
    ours, called = confusion(probability, label), (probability > 0.5).astype(int)
    tn, fp, fn, tp = metrics.confusion_matrix(label, called).ravel()
    assert ours == (tp, fp, fn, tn)
    assert ours.accuracy == pytest.approx(metrics.accuracy_score(label, called))
    assert ours.balanced_accuracy == pytest.approx(metrics.balanced_accuracy_score(label, called))
    assert ours.sensitivity == pytest.approx(metrics.recall_score(label, called))
    assert ours.specificity == pytest.approx(metrics.recall_score(label, called, pos_label=0))
    assert ours.precision == pytest.approx(metrics.precision_score(label, called))


def test_a_network_that_collapsed_to_one_class():
    # VGG16 in Peng et al. 2021: 577 patients, 77 controls, every case called a patient
    collapsed = confusion(np.full(654, 0.9), np.repeat([1, 0], [577, 77]))
    assert collapsed == (577, 77, 0, 0)
    assert 100 * collapsed.accuracy == pytest.approx(88.23, abs=0.005)
    assert collapsed.sensitivity == 1
    assert collapsed.specificity == 0
    assert collapsed.balanced_accuracy == 0.5


def test_rates_of_nothing_are_undefined():
    healthy = confusion(np.array([0.1, 0.2]), np.array([0, 0]))
    assert healthy.specificity == 1
    for rate in (healthy.sensitivity, healthy.precision, healthy.balanced_accuracy):
        assert math.isnan(rate)
    assert math.isnan(confusion(np.array([0.1]), np.array([-1])).accuracy)


def test_at_the_threshold_a_case_is_negative():
    pair = np.array([0.3, 0.31]), np.array([1, 1])
    assert confusion(*pair, threshold=0.3) == (1, 0, 1, 0)


@pytest.mark.parametrize("measure", MEASURES)
def test_missing_labels_are_left_out(measure):
    probability, label = cases(0)
    gaps = np.append(probability, [0.99, np.nan]), np.append(label, [-1, -1])
    same(measure(*gaps), measure(probability, label))


@pytest.mark.parametrize("measure", MEASURES)
def test_any_class_can_be_the_positive_one(measure):
    probability, label = cases(1)
    renamed = np.where(label == 1, 3, np.arange(len(label)) % 3)  # 0, 1 and 2 are the rest
    same(measure(probability, renamed, positive=3), measure(probability, label))


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("wrong", [np.nan, -0.1, 1.1])
def test_what_is_no_probability_is_refused(measure, wrong):
    with pytest.raises(ValueError, match="outside"):
        measure(np.array([0.5, wrong]), np.array([0, 1]))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("seed", range(3))
def test_curves_agree_with_scikit_learn(seed, dtype):
    probability, label = cases(seed, dtype=dtype)
    curve = roc(probability, label)
    x, y, _ = metrics.roc_curve(label, probability, drop_intermediate=False)
    np.testing.assert_allclose(curve.x, x, atol=1e-6)
    np.testing.assert_allclose(curve.y, y, atol=1e-6)
    assert curve.area == pytest.approx(metrics.roc_auc_score(label, probability), abs=1e-6)
    curve = precision_recall(probability, label)
    precision, recall, _ = metrics.precision_recall_curve(label, probability)
    np.testing.assert_allclose(curve.x, recall, atol=1e-6)
    np.testing.assert_allclose(curve.y, precision, atol=1e-6)
    area = metrics.average_precision_score(label, probability)
    assert curve.area == pytest.approx(area, abs=1e-6)


@given(st.integers(0, 999), st.integers(2, 60))
@settings(max_examples=30, deadline=None)
def test_the_area_is_the_chance_to_order_a_pair(seed, n):
    probability, label = cases(seed, n)
    label[:2] = 0, 1
    sick, healthy = probability[label == 1][:, None], probability[label == 0]
    expected = ((sick > healthy) + 0.5 * (sick == healthy)).mean()
    assert roc(probability, label).area == pytest.approx(expected, abs=1e-6)
    turned = roc(1 - probability, label, positive=0).area
    assert turned == pytest.approx(expected, abs=1e-6)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("measure", [roc, precision_recall])
@pytest.mark.parametrize("label", [[1, 1, -1], [0, 0, -1], [-1, -1, -1]])
def test_no_curve_without_both_classes(measure, label):
    curve = measure(np.array([0.1, 0.2, 0.3]), np.array(label))
    assert len(curve.x) == len(curve.y) == 0
    assert math.isnan(curve.area)


@pytest.mark.parametrize("bins", [5, 10])
def test_reliability_agrees_with_scikit_learn(bins):
    rng = np.random.default_rng(4)
    probability = 0.2 + 0.6 * rng.random(300)  # the outer bins stay empty, no value on an edge
    label = (rng.random(300) < probability**2).astype(int)
    ours = reliability(probability, label, bins=bins)
    frequency, confidence = calibration_curve(label, probability, n_bins=bins)
    np.testing.assert_allclose(ours.frequency, frequency)
    np.testing.assert_allclose(ours.confidence, confidence)
    assert ours.counts.sum() == 300


@given(st.integers(0, 999), st.integers(1, 300), st.integers(1, 20))
@settings(max_examples=40, deadline=None)
def test_the_calibration_error_is_that_of_torchmetrics(seed, n, bins):
    probability = np.random.default_rng(seed).random(n)  # no value on an edge, none at 1
    _, label = cases(seed, n)
    theirs = binary_calibration_error(torch.tensor(probability), torch.tensor(label), n_bins=bins)
    assert reliability(probability, label, bins=bins).ece == pytest.approx(float(theirs), abs=1e-6)


def test_reliability_by_hand():
    probability = np.array([0.0, 0.1, 0.5, 0.75, 0.95, 1.0])
    result = reliability(probability, np.array([0, 1, 1, 0, 1, 1]), bins=4)
    np.testing.assert_array_equal(result.counts, [2, 1, 3])  # 0.5 and 0.75 open their bins
    np.testing.assert_allclose(result.confidence, [0.05, 0.5, 0.9])
    np.testing.assert_allclose(result.frequency, [0.5, 1, 2 / 3])
    assert result.ece == pytest.approx((0.9 + 0.5 + 0.7) / 6)


@pytest.mark.parametrize("bins", [5, 7, 10])
def test_an_edge_opens_its_bin(bins):
    edges = np.arange(bins) / bins
    result = reliability(edges, np.zeros(bins, int), bins=bins)
    np.testing.assert_array_equal(result.confidence, edges)  # each alone in a bin


def test_certainty_shares_the_last_bin():
    probability, label = np.array([0.95, 1.0]), np.array([1, 0])
    assert reliability(probability, label).ece == pytest.approx(0.475)
    theirs = binary_calibration_error(torch.tensor(probability), torch.tensor(label), n_bins=10)
    assert float(theirs) == pytest.approx(0.525)  # 1.0 alone in an eleventh bin


def test_reliability_of_nothing_is_undefined():
    result = reliability(np.array([0.5]), np.array([-1]))
    assert len(result.confidence) == len(result.frequency) == len(result.counts) == 0
    assert math.isnan(result.ece)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("positive", [0, 1])
def test_no_threshold_has_a_larger_youden_than_the_best(seed, positive):
    probability, label = cases(seed)
    probability = probability if positive else 1 - probability
    value = best_threshold(probability, label, positive)
    ours = confusion(probability, label, positive, value)
    false_rate, true_rate, _ = metrics.roc_curve(label == positive, probability)
    assert 2 * ours.balanced_accuracy - 1 == pytest.approx((true_rate - false_rate).max())
    assert not np.isin(value, probability)


@pytest.mark.parametrize(
    ("probability", "label", "expected"),
    [
        ([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1], 0.5),  # anything between 0.2 and 0.8 is as good
        ([0.1, 0.2, 0.3, 0.4], [0, 0, 1, 1], 0.25),
        ([0.6, 0.7, 0.8, 0.9], [0, 1, 0, 1], 0.65),  # as good as 0.85, and nearer to one half
        ([0.9, 0.9], [0, 1], 0.5),  # nothing tells them apart
        ([0.1, 0.3, 0.25], [0, 1, -1], 0.2),  # the one without a label moves nothing
    ],
)
def test_of_equal_thresholds_the_nearest_to_one_half_is_best(probability, label, expected):
    assert best_threshold(np.array(probability), np.array(label)) == pytest.approx(expected)


def test_without_both_classes_there_is_no_best_threshold():
    assert math.isnan(best_threshold(np.array([0.2, 0.7]), np.array([1, 1])))
    assert math.isnan(best_threshold(np.array([0.2, 0.7]), np.array([0, -1])))
    assert math.isnan(best_threshold(np.empty(0), np.empty(0, int)))


def test_the_interval_of_the_auc_is_that_of_drawn_patients():
    """Against scikit-learn, which weighs images by how often their patient was drawn."""
    probability, label = cases(3, n=60)
    patients = np.repeat(np.arange(20), 3)
    low, high = bootstrap_auc(probability, label, patients)
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(20, np.full(20, 1 / 20), size=1000)
    areas = [metrics.roc_auc_score(label, probability, sample_weight=t[patients]) for t in drawn]
    np.testing.assert_allclose((low, high), np.quantile(areas, (0.025, 0.975)))


def test_without_both_classes_the_auc_has_no_interval():
    assert np.isnan(
        bootstrap_auc(np.array([0.2, 0.7]), np.array([1, 1]), np.array(["a", "b"]))
    ).all()


def test_the_interval_of_a_difference_draws_the_same_patients_for_both():
    """Against scikit-learn, as above."""
    (first, label), (second, _) = cases(3, n=60), cases(4, n=60)
    second = (second + first) / 2
    patients = np.repeat(np.arange(20), 3)
    interval = bootstrap_auc_difference(first, second, label, patients)
    drawn = np.random.default_rng(0).multinomial(20, np.full(20, 1 / 20), size=1000)
    gaps = [
        metrics.roc_auc_score(label, second, sample_weight=times[patients])
        - metrics.roc_auc_score(label, first, sample_weight=times[patients])
        for times in drawn
    ]
    np.testing.assert_allclose(interval, np.quantile(gaps, (0.025, 0.975)), atol=1e-12)
    assert bootstrap_auc_difference(first, first, label, patients) == (0, 0)
    assert np.isnan(bootstrap_auc_difference(first, second, np.ones(60, int), patients)).all()
