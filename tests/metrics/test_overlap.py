"""Overlap against the algebra of sets and SimpleITK."""

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis.extra.numpy import arrays
from skimage.metrics import peak_signal_noise_ratio
from sklearn.metrics import accuracy_score, precision_score, recall_score

from cardiac_mtl.metrics.overlap import dice, jaccard, pixel_measures, psnr_db

masks = arrays(bool, (3, 4, 4))


@given(masks, masks)
def test_symmetric_bounded_and_tied_to_each_other(a, b):
    value = dice(a, b)
    np.testing.assert_equal(value, dice(b, a))
    if np.isnan(value):
        assert not a.any()
        assert not b.any()
        assert np.isnan(jaccard(a, b))
    else:
        assert 0 <= value <= 1
        assert jaccard(a, b) == pytest.approx(value / (2 - value))


@given(masks, masks)
def test_unmoved_by_translation_and_flips(a, b):
    np.testing.assert_equal(dice(np.roll(a, 1, 1), np.roll(b, 1, 1)), dice(a, b))
    np.testing.assert_equal(jaccard(a[:, ::-1], b[:, ::-1]), jaccard(a, b))


@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_simpleitk(seed):
    a, b = np.random.default_rng(seed).random((2, 4, 9, 8)) > 0.6
    overlap = sitk.LabelOverlapMeasuresImageFilter()
    overlap.Execute(*(sitk.GetImageFromArray(m.astype(np.uint8)) for m in (a, b)))
    assert dice(a, b) == pytest.approx(overlap.GetDiceCoefficient(), abs=1e-9)
    assert jaccard(a, b) == pytest.approx(overlap.GetJaccardCoefficient(), abs=1e-9)


def test_a_missed_structure_scores_zero():
    assert dice(np.zeros(4, bool), np.ones(4, bool)) == 0.0


@pytest.mark.parametrize("seed", range(5))
def test_pixel_measures_agree_with_scikit_learn(seed):
    a, b = np.random.default_rng(seed).random((2, 3, 5, 6)) > 0.6
    found, true = a.ravel(), b.ravel()
    assert pixel_measures(a, b) == pytest.approx(
        (
            accuracy_score(true, found),
            recall_score(true, found),
            recall_score(~true, ~found),
            precision_score(true, found),
        )
    )


def test_pixel_measures_without_anything_to_count():
    nothing, everything = np.zeros(4, bool), np.ones(4, bool)
    assert np.isnan(pixel_measures(nothing, everything).precision)
    assert np.isnan(pixel_measures(everything, nothing).sensitivity)
    assert np.isnan(pixel_measures(nothing, everything).specificity)


@given(masks, masks)
def test_psnr_agrees_with_scikit_image(a, b):
    if (a == b).all():
        assert psnr_db(a, b) == np.inf
    else:
        theirs = peak_signal_noise_ratio(b.astype(float), a.astype(float), data_range=1)
        assert psnr_db(a, b) == pytest.approx(theirs)


def test_psnr_of_a_tenth_of_a_percent_is_30_db():
    wrong = np.arange(1000) == 7
    assert psnr_db(wrong, np.zeros(1000, bool)) == pytest.approx(30)
    assert psnr_db(np.ones(9, bool), np.zeros(9, bool)) == 0
