"""Surface distances against SimpleITK, MONAI, closed forms and their own laws."""

import math

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from monai.metrics import (
    compute_average_surface_distance,
    compute_hausdorff_distance,
    compute_surface_dice,
)
from scipy import ndimage

from cardiac_mtl.metrics.surface import (
    _surface,
    hausdorff,
    slice_surface_distances,
    surface_distances,
)

spacings = st.tuples(*[st.floats(0.5, 10)] * 3)


def blobs(seed, shape=(7, 24, 20)):
    rng = np.random.default_rng(seed)
    return (ndimage.gaussian_filter(rng.normal(size=(2, *shape)), (0, 1, 2, 2)) > 0.05).astype(bool)


def ball(radius, shape=(60, 60), spacing=(1.0, 1.0)):
    axes = [(np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, spacing, strict=True)]
    return sum(a**2 for a in np.meshgrid(*axes, indexing="ij")) <= radius**2


@pytest.mark.parametrize("seed", range(8))
def test_hausdorff_agrees_with_simpleitk(seed):
    a, b = blobs(seed)
    spacing = (8.0, 1.3, 1.7)
    images = [sitk.GetImageFromArray(m.astype(np.uint8)) for m in (a, b)]
    for image in images:
        image.SetSpacing(spacing[::-1])
    reference = sitk.HausdorffDistanceImageFilter()
    reference.Execute(*images)
    assert hausdorff(a, b, spacing) == pytest.approx(reference.GetHausdorffDistance(), abs=1e-4)


@pytest.mark.parametrize("seed", range(8))
def test_surface_distances_agree_with_monai(seed):
    a, b = blobs(seed)
    spacing = (6.0, 1.2, 1.9)
    ours = surface_distances(a, b, spacing)
    pair = [torch.tensor(m)[None, None].float() for m in (a, b)]
    mean = compute_average_surface_distance(
        *pair, include_background=True, symmetric=True, spacing=spacing
    )
    assert ours.mean() == pytest.approx(float(mean), abs=1e-4)
    for percent in (95, 100):
        theirs = compute_hausdorff_distance(
            *pair, include_background=True, percentile=percent, spacing=spacing
        )
        assert ours.percentile(percent) == pytest.approx(float(theirs), abs=1e-4)


def test_concentric_discs_are_the_difference_of_their_radii_apart():
    distances = surface_distances(
        ball(20, (200, 200), (0.25, 0.25)), ball(15, (200, 200), (0.25, 0.25)), (0.25, 0.25)
    )
    assert distances.mean() == pytest.approx(5.0, abs=0.1)
    assert distances.percentile(100) == pytest.approx(5.0, abs=0.3)


def test_concentric_balls_in_anisotropic_voxels():
    spacing, shape = (1.5, 0.75, 0.75), (30, 60, 60)
    distances = surface_distances(ball(18, shape, spacing), ball(12, shape, spacing), spacing)
    assert distances.mean() == pytest.approx(6.0, abs=0.5)


def test_a_known_shift_in_each_unit():
    a = np.zeros((5, 20, 20), bool)
    a[1:4, 5:10, 5:10] = True
    b = np.roll(a, 3, axis=2)
    assert hausdorff(a, b, (8, 2, 1.5)) == pytest.approx(4.5)
    assert surface_distances(a, b, (1, 1, 1)).percentile(100) == pytest.approx(3.0)


@given(arrays(bool, (3, 5, 5)), arrays(bool, (3, 5, 5)), spacings, st.floats(0.5, 4))
@settings(max_examples=60, deadline=None)
def test_symmetric_unmoved_by_flips_and_scaling_with_spacing(a, b, spacing, factor):
    assume(a.any() and b.any())
    wider = tuple(factor * s for s in spacing)
    for measure in (lambda *pair: surface_distances(*pair).mean(), hausdorff):
        value = measure(a, b, spacing)
        assert measure(b, a, spacing) == pytest.approx(value)
        assert measure(a[:, ::-1], b[:, ::-1], spacing) == pytest.approx(value)
        assert measure(a, b, wider) == pytest.approx(factor * value)
        assert measure(a, a, spacing) == 0


@given(st.integers(0, 99), st.integers(0, 3), st.integers(0, 3))
@settings(max_examples=20, deadline=None)
def test_unmoved_by_translation(seed, down, right):
    a, b = np.zeros((2, 4, 30, 30), bool)
    a[:, 3:15, 3:15], b[:, 3:15, 3:15] = blobs(seed, (4, 12, 12))
    assume(a.any() and b.any())
    moved = [np.roll(m, (down, right), axis=(1, 2)) for m in (a, b)]
    assert surface_distances(*moved, (8, 1, 2)).mean() == pytest.approx(
        surface_distances(a, b, (8, 1, 2)).mean()
    )


def test_an_empty_mask_has_no_distance():
    a = ball(5)
    assert math.isnan(surface_distances(a, np.zeros_like(a), (1, 1)).mean())
    assert math.isnan(surface_distances(a, np.zeros_like(a), (1, 1)).percentile(95))
    assert math.isnan(hausdorff(a, np.zeros_like(a), (1, 1)))


def test_probabilities_and_missing_spacings_are_refused():
    a = ball(5)
    with pytest.raises(TypeError, match="boolean masks"):
        surface_distances(a.astype(float), a, (1, 1))
    with pytest.raises(ValueError, match="do not match"):
        surface_distances(a, a, (1, 1, 1))
    with pytest.raises(TypeError, match="spacing"):
        surface_distances(a, a)


@pytest.mark.parametrize("factor", [0.0, -1.0, math.nan])
def test_spacings_that_are_no_lengths_are_refused(factor):
    with pytest.raises(ValueError, match="above 0"):
        surface_distances(ball(5), ball(5), (1.0, factor))


@pytest.mark.parametrize("seed", range(4))
def test_surfaces_are_those_of_simpleitk_away_from_the_border(seed):
    mask = np.pad(blobs(seed)[0], 1)
    contour = sitk.LabelContour(sitk.GetImageFromArray(mask.astype(np.uint8)), False)
    np.testing.assert_array_equal(_surface(mask), sitk.GetArrayFromImage(contour) > 0)


def test_a_mask_that_fills_the_image_has_its_border_as_surface():
    mask = np.ones((3, 5, 5), bool)
    contour = sitk.LabelContour(sitk.GetImageFromArray(mask.astype(np.uint8)), False)
    assert sitk.GetArrayFromImage(contour).sum() == 0  # what we do otherwise, as MONAI does
    assert _surface(mask).sum() == 75 - 3 * 3


@pytest.mark.parametrize("seed", range(3))
def test_slices_agree_with_monai(seed):
    a, b = blobs(seed)[:, 2]
    pair = [torch.tensor(m)[None, None].float() for m in (a, b)]
    mean = compute_average_surface_distance(
        *pair, include_background=True, symmetric=True, spacing=(1.2, 1.9)
    )
    assert surface_distances(a, b, (1.2, 1.9)).mean() == pytest.approx(float(mean), abs=1e-4)


def test_a_ring_that_grows_by_two_on_both_sides():
    shape, fine = (240, 240), (0.25, 0.25)
    inner, outer = ((12, 20), (14, 22))
    rings = [ball(big, shape, fine) & ~ball(small, shape, fine) for small, big in (inner, outer)]
    assert surface_distances(*rings, fine).mean() == pytest.approx(2.0, abs=0.1)


def test_hausdorff_sees_the_depth_of_a_filled_hole():
    whole = ball(25)
    ring = whole & ~ball(10)
    assert hausdorff(whole, ring, (1, 1)) == pytest.approx(10, abs=1)
    assert surface_distances(whole, ring, (1, 1)).percentile(100) == pytest.approx(15, abs=1)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("tolerance", [0.0, 1.5, 4.0])
def test_surface_dice_agrees_with_monai(seed, tolerance):
    a, b = blobs(seed)
    spacing = (6.0, 1.2, 1.9)
    pair = [torch.tensor(m)[None, None].float() for m in (a, b)]
    theirs = compute_surface_dice(*pair, [tolerance], include_background=True, spacing=spacing)
    assert surface_distances(a, b, spacing).within(tolerance) == pytest.approx(
        float(theirs), abs=1e-6
    )


@given(masks := arrays(bool, (4, 6, 5)), masks, st.tuples(*[st.floats(0.5, 10)] * 2))
def test_slices_together_are_what_each_is_alone(a, b, spacing):
    for k, together in enumerate(slice_surface_distances(a, b, spacing)):
        alone = surface_distances(a[k], b[k], spacing)
        np.testing.assert_allclose(together.hausdorff, alone.hausdorff)
        for one, other in zip(together[:2], alone[:2], strict=True):
            np.testing.assert_allclose(np.sort(one), np.sort(other))
