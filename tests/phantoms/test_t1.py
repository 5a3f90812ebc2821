"""Phantom T1 maps: tissues as published, disease in T1 alone, cohorts that repeat."""

import numpy as np
import pytest
from scipy import ndimage

from cardiac_mtl.phantoms.t1 import MATRIX, TISSUES, make_t1_cohort, make_t1_study


def study(pathology, seed=0, tesla=3.0, scale=2):
    return make_t1_study("p", pathology, tesla, scale, np.random.default_rng(seed))


def core(one):
    """T1 of pixels that hold nothing but wall."""
    inner = [ndimage.binary_erosion(mask, np.ones((3, 3))) for mask in one.mask]
    return one.image[np.stack(inner)]


@pytest.fixture(scope="module")
def cohort():
    return list(make_t1_cohort(5, seed=3, diseased=0.4, scale=4))


def test_a_patient_does_not_depend_on_the_size_of_the_cohort(cohort):
    alone = next(make_t1_cohort(1, seed=3, diseased=0.4, scale=4))
    np.testing.assert_array_equal(alone.image, cohort[0].image)
    np.testing.assert_array_equal(alone.affine, cohort[0].affine)
    other = next(make_t1_cohort(1, seed=4, diseased=0.4, scale=4))
    assert other.image.shape != alone.image.shape or (other.image != alone.image).any()


@pytest.mark.parametrize("share", [0.12, 0.4])
def test_the_share_of_the_diseased_is_exact_at_every_size(share, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "cardiac_mtl.phantoms.t1.make_t1_study", lambda *drawn_with: drawn.append(drawn_with[1])
    )
    list(make_t1_cohort(200, diseased=share))
    ill = np.cumsum([pathology != "healthy" for pathology in drawn])
    assert (np.abs(ill - share * np.arange(1, 201)) <= 0.5 + 1e-9).all()
    assert drawn.count("diffuse_fibrosis") - drawn.count("focal_fibrosis") in {0, 1}


def test_labels_masks_and_shapes_are_of_the_contract(cohort):
    assert [one.label for one in cohort] == [int(one.pathology != "healthy") for one in cohort]
    assert sum(one.label for one in cohort) == 2
    for one in cohort:
        assert one.image.shape == one.mask.shape
        assert 1 <= len(one.image) <= 3
        assert one.image.shape[1:] == (MATRIX[0] // 4, MATRIX[1] // 4)
        assert one.image.dtype == np.uint16
        assert set(np.unique(one.mask)) == {0, 1}
        spacing = np.linalg.norm(one.affine[:3, :3], axis=0)
        assert 4 * 1.172 <= spacing[0] <= 4 * 1.406
        assert spacing[0] == pytest.approx(spacing[1])


@pytest.mark.parametrize("tesla", [1.5, 3.0])
def test_healthy_wall_has_the_t1_that_was_drawn_near_the_published_one(tesla):
    one = study("healthy", tesla=tesla)
    published = TISSUES["myocardium"].at_3_t if tesla == 3 else TISSUES["myocardium"].at_1_5_t
    assert one.truth["t1_ms"] == pytest.approx(published, rel=0.12)
    assert np.median(core(one)) == pytest.approx(one.truth["t1_ms"], rel=0.03)


def test_a_diffuse_fibrosis_raises_the_whole_wall_and_a_focal_one_a_part():
    healthy, diffuse, focal = (
        study(name, seed=5) for name in ("healthy", "diffuse_fibrosis", "focal_fibrosis")
    )
    raised = diffuse.truth["t1_ms"] - healthy.truth["t1_ms"]
    assert raised >= 45
    assert np.median(core(diffuse)) - np.median(core(healthy)) == pytest.approx(raised, abs=25)
    assert focal.truth["lesion_ms"] - focal.truth["t1_ms"] >= 150
    high = core(focal) > (focal.truth["t1_ms"] + focal.truth["lesion_ms"]) / 2
    assert 0.03 < high.mean() < 0.6


def test_blood_is_above_wall_above_fat_and_the_air_is_noise():
    one = study("healthy")
    inside = ndimage.binary_fill_holes(one.mask[0]) & (one.mask[0] == 0)
    assert np.median(one.image[0][inside]) > 1.25 * np.median(core(one))
    corner = one.image[:, :10, :10]
    assert corner.std() > 400
