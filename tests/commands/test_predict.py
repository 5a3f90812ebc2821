"""Masks that `predict` writes: those that `test` scores, brought back to the grid of the file."""

import numpy as np
import pytest
import SimpleITK as sitk

from cardiac_mtl.commands.predict import Predictor
from cardiac_mtl.postprocessing import closed_then_opened
from data_modules.geometry import PreparedInput


def written(probability, kept, finer=1):
    """Return what is written on a grid whose pixels are as large, or some times smaller."""
    side = kept.shape[1] * finer
    volume = sitk.GetImageFromArray(np.zeros((len(kept), side, side), np.float32))
    volume.SetSpacing((1.2 / finer, 1.2 / finer, 8.0))
    centre = ((side - 1) / 2, (side - 1) / 2)
    prepared = PreparedInput(np.zeros(kept.shape, np.float32), volume, (1.2, 1.2), centre)
    return sitk.GetArrayFromImage(Predictor._mask(None, probability, kept, prepared))


def test_a_network_that_is_not_sure_writes_what_it_is_scored_for():
    odds = np.exp(np.random.default_rng(0).normal(0, 0.3, (3, 4, 24, 24)))
    odds[:, 1, 6:16, 6:16] *= 2.2
    odds[:, 2, 6:16, 16:20] *= 2.2
    probability = (odds / odds.sum(1, keepdims=True)).astype(np.float32)
    kept = closed_then_opened(probability.argmax(1).astype(np.uint8))
    assert (probability.max(1) < 0.5).any()
    assert (kept != probability.argmax(1)).any()
    np.testing.assert_array_equal(written(probability, kept), kept)


@pytest.mark.parametrize("finer", [2, 3])
def test_no_background_lies_between_classes_that_touch(finer):
    kept = np.zeros((1, 12, 12), np.uint8)
    kept[:, 3:9, 3:6], kept[:, 3:9, 6:9] = 1, 2
    probability = np.stack([kept == k for k in range(3)], axis=1).astype(np.float32)
    mask = written(probability, kept, finer)
    inside = mask[0, 4 * finer : 8 * finer, 4 * finer : 8 * finer]
    assert set(np.unique(inside)) == {1, 2}
