"""Infarct indices against scikit-image, MATLAB's definitions, closed forms and their own laws."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage
from skimage.measure import perimeter, regionprops

from cardiac_mtl.metrics.shape import (
    ERROR_NAMES,
    INDEX_NAMES,
    centroid_error,
    index_errors,
    infarct_indices,
    orientation_error,
)

SIZE, PERCENT, PERIMETER, Y, X, MAJOR, MINOR, ANGLE = range(8)
masks = arrays(bool, (6, 7))
steps = st.floats(0.5, 4)


def blobs(seed, shape=(6, 24, 20)):
    noise = np.random.default_rng(seed).normal(size=shape)
    return ndimage.gaussian_filter(noise, (0, 1.5, 1.5)) > 0.05


def ellipse(degrees, half=(18.0, 7.0), spacing=(1.0, 1.0), middle=(25.0, 25.0), size=50.0):
    """Draw one, turned counter-clockwise as seen on the screen: x to the right, y up."""
    height, width = (round(size / step) for step in spacing)
    y = middle[0] - np.arange(height)[:, None] * spacing[0]
    x = np.arange(width)[None] * spacing[1] - middle[1]
    turn = math.radians(degrees)
    along, across = (
        x * math.cos(turn) + y * math.sin(turn),
        y * math.cos(turn) - x * math.sin(turn),
    )
    return (along / half[0]) ** 2 + (across / half[1]) ** 2 <= 1


def one(mask, spacing=(1.0, 1.0), **options):
    return infarct_indices(np.asarray(mask, bool)[None], spacing, **options)[0]


def test_names():
    assert len(INDEX_NAMES) == 8
    assert [n for n in INDEX_NAMES if "centroid" not in n] == [
        n for n in ERROR_NAMES if n != "centroid_mm"
    ]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("spacing", [(1.0, 1.0), (1.8, 1.8), (1.25, 2.0)])
def test_moments_agree_with_skimage(seed, spacing):
    mask = blobs(seed)
    ours = infarct_indices(mask, spacing)
    for image, row in zip(mask, ours, strict=True):
        (theirs,) = regionprops(image.astype(np.uint8), spacing=spacing)
        assert row[SIZE] == pytest.approx(theirs.area)
        np.testing.assert_allclose(row[[Y, X]], theirs.centroid)
        assert row[MAJOR] == pytest.approx(theirs.axis_major_length)
        assert row[MINOR] == pytest.approx(theirs.axis_minor_length)
        # theirs is from the rows, down, in [-90, 90]; ours from the columns, up
        assert orientation_error(row[ANGLE], math.degrees(theirs.orientation) + 90) < 1e-6


@pytest.mark.parametrize("seed", range(6))
def test_the_perimeter_is_that_of_skimage(seed):
    mask = blobs(seed)
    ours = infarct_indices(mask, (1.0, 1.0))[:, PERIMETER]
    np.testing.assert_allclose(ours, [perimeter(m, neighborhood=4) for m in mask], rtol=1e-13)
    np.testing.assert_allclose(infarct_indices(mask, (1.7, 1.7))[:, PERIMETER], 1.7 * ours)


@given(masks)
@settings(max_examples=200, deadline=None)
def test_the_perimeter_of_any_mask_is_that_of_skimage(mask):
    assume(mask.any())
    assert one(mask)[PERIMETER] == pytest.approx(perimeter(mask, neighborhood=4))


@pytest.mark.parametrize("degrees", [0, 30, 45, 90, -30, -60, 80])
@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.5, 1.25)])
def test_tilted_ellipses(degrees, spacing):
    row = one(ellipse(degrees, spacing=spacing), spacing)
    assert row[ANGLE] == pytest.approx(degrees, abs=0.7)
    assert row[MAJOR] == pytest.approx(36, abs=0.5)
    assert row[MINOR] == pytest.approx(14, abs=0.5)
    assert row[SIZE] == pytest.approx(math.pi * 18 * 7, rel=0.02)
    np.testing.assert_allclose(row[[Y, X]], 25, atol=0.1)


def test_a_bar_by_hand():
    mask = np.zeros((8, 9), bool)
    mask[2:5, 1:7] = True  # 3 rows, 6 columns
    row = one(mask, (2.0, 1.0))
    assert row[SIZE] == 36
    assert row[PERCENT] == 25  # 18 of 72 pixels
    # 14 border pixels; each counts its share of two steps: 2 x 5 wide, 2 x 2 high
    assert row[PERIMETER] == pytest.approx(2 * 5 * 1 + 2 * 2 * 2)
    assert row[Y] == 6
    assert row[X] == 3.5
    assert row[MAJOR] == pytest.approx(4 * math.sqrt(35 / 12))  # (6^2 - 1) / 12
    assert row[MINOR] == pytest.approx(4 * math.sqrt(8 / 12 * 4))  # (3^2 - 1) / 12, 2 mm
    assert row[ANGLE] == 0


def test_a_diamond_takes_diagonal_steps():
    mask = ndimage.iterate_structure(ndimage.generate_binary_structure(2, 1), 3)
    # 12 border pixels; the four tips and the eight between have corner neighbours only
    assert one(mask, (3.0, 4.0))[PERIMETER] == pytest.approx(12 * 5)


@pytest.mark.parametrize("row", range(3))
def test_a_pixel_has_the_extent_that_it_is_given(row):
    mask = np.zeros((3, 7), bool)
    mask[row, 1:6] = True
    point, square = one(mask, (2.0, 2.0)), one(mask, (2.0, 2.0), pixel_extent=1 / 12)
    np.testing.assert_allclose(point[[MAJOR, MINOR]], [8 * math.sqrt(2), 0], atol=1e-12)
    # MATLAB's regionprops of a line of five: 4 sqrt(2 + 1/12), 4 sqrt(1/12)
    np.testing.assert_allclose(
        square[[MAJOR, MINOR]], [8 * math.sqrt(2 + 1 / 12), 8 * math.sqrt(1 / 12)]
    )
    assert point[ANGLE] == square[ANGLE] == 0


def test_one_upright_line_is_at_plus_90():
    assert one(np.ones((5, 1)))[ANGLE] == 90
    # a hair past it, which rounding takes to the open end of the range
    assert one(np.eye(5), (1.0, 1e-17))[ANGLE] == 90


def test_diagonals():
    assert one(np.eye(5))[ANGLE] == -45  # rows run down
    assert one(np.eye(5)[::-1])[ANGLE] == 45


def test_no_infarct_has_no_shape():
    mask = np.zeros((2, 5, 5), bool)
    mask[1, 2, 1] = True
    empty, pixel = infarct_indices(mask, (1.5, 1.5))
    np.testing.assert_array_equal(empty[[SIZE, PERCENT]], 0)
    assert np.isnan(empty[PERIMETER:]).all()
    np.testing.assert_allclose(pixel, [2.25, 4, 0, 3, 1.5, 0, 0, 0])
    assert infarct_indices(mask[:0], (1.5, 1.5)).shape == (0, 8)


def test_the_percentage_is_of_the_myocardium():
    mask, myocardium = np.zeros((2, 4, 5, 5), bool)
    mask[:3, 0, :2] = True
    myocardium[0, 0] = True
    myocardium[1, 0, 0] = True
    percent = infarct_indices(mask, (1.0, 1.0), myocardium)[:, PERCENT]
    # 2 of 5; 2 of 1; 2 of none; none of none
    np.testing.assert_array_equal(percent, [40, 200, math.nan, 0])


def test_each_slice_has_its_own_spacing():
    mask = blobs(3, (2, 12, 12))
    spacing = np.array([[1.0, 2.0], [1.5, 0.7]])
    both = infarct_indices(mask, spacing)
    for image, pair, row in zip(mask, spacing, both, strict=True):
        np.testing.assert_allclose(row, one(image, tuple(pair)))
    # and two slices with one spacing are not taken for a table
    np.testing.assert_allclose(infarct_indices(mask, (1.0, 2.0))[0], both[0])
    assert not np.allclose(infarct_indices(mask, (1.0, 2.0))[1], both[1])


@given(masks, steps, steps, st.integers(0, 5), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_translation_moves_only_the_centroid(mask, sy, sx, down, right):
    assume(mask.any())
    rows = infarct_indices(
        np.stack(
            [
                np.pad(mask, ((0, 5), (0, 5))),
                np.pad(mask, ((down, 5 - down), (right, 5 - right))),
            ]
        ),
        (sy, sx),
    )
    moved = rows[1] - rows[0]
    np.testing.assert_allclose(moved[[Y, X]], [down * sy, right * sx], atol=1e-9)
    np.testing.assert_allclose(np.delete(moved, [Y, X]), 0, atol=1e-9)


@given(masks, steps, steps, st.floats(0.5, 3))
@settings(max_examples=60, deadline=None)
def test_wider_spacing_scales_lengths_and_areas(mask, sy, sx, factor):
    assume(mask.any())
    row, wide = one(mask, (sy, sx)), one(mask, (factor * sy, factor * sx))
    powers = np.array([2, 0, 1, 1, 1, 1, 1])
    np.testing.assert_allclose(wide[:ANGLE], row[:ANGLE] * factor**powers, atol=1e-6)
    assume(row[MAJOR] - row[MINOR] > 1e-3)  # no axis: its angle is rounding
    assert orientation_error(row[ANGLE], wide[ANGLE]) < 1e-3


@given(masks, steps, steps)
@settings(max_examples=60, deadline=None)
def test_a_mirror_turns_the_orientation_round(mask, sy, sx):
    assume(mask.any())
    row, mirrored = one(mask, (sy, sx)), one(mask[:, ::-1], (sy, sx))
    kept = [SIZE, PERCENT, PERIMETER, Y, MAJOR, MINOR]
    np.testing.assert_allclose(mirrored[kept], row[kept], atol=1e-9)
    assert mirrored[X] == pytest.approx((mask.shape[1] - 1) * sx - row[X])
    assert mirrored[ANGLE] == (row[ANGLE] if row[ANGLE] == 90 else -row[ANGLE])
    assert -90 < row[ANGLE] <= 90


@given(masks, steps, steps)
@settings(max_examples=60, deadline=None)
def test_a_transposed_mask_has_the_same_lengths(mask, sy, sx):
    assume(mask.any())
    row, turned = one(mask, (sy, sx)), one(mask.T, (sx, sy))
    order = [SIZE, PERCENT, PERIMETER, X, Y, MAJOR, MINOR]
    np.testing.assert_allclose(turned[order], row[:ANGLE], atol=1e-6)


def test_orientations_wrap():
    errors = orientation_error([89.0, 0.0, 30.0, 170.0, 400.0, math.nan], [-89, 90, 20, -5, 40, 0])
    np.testing.assert_allclose(errors, [2, 90, 10, 5, 0, math.nan])


def test_centroids_are_a_euclidean_distance_apart():
    np.testing.assert_array_equal(
        centroid_error([[3.0, 4.0], [1.0, math.nan]], np.zeros((2, 2))), [5, math.nan]
    )


def test_errors_by_hand():
    reference = np.array([[100, 10, 40, 10, 20, 30, 12, 85], [0, 0, *[math.nan] * 6]], float)
    predicted = np.array([[90, 12, 45, 13, 16, 29, 14, -85], [7, 2, 3, 4, 5, 6, 7, 8]], float)
    expected = [[10, 2, 5, 5, 1, 2, 10], [7, 2, *[math.nan] * 5]]
    np.testing.assert_allclose(index_errors(predicted, reference), expected)
    np.testing.assert_allclose(index_errors(reference, predicted), expected)


def test_what_is_no_mask_is_refused():
    mask = blobs(0)
    with pytest.raises(TypeError, match="boolean"):
        infarct_indices(mask.astype(float), (1, 1))
    with pytest.raises(TypeError, match="boolean"):
        infarct_indices(mask, (1, 1), mask.astype(np.uint8))
    with pytest.raises(ValueError, match="one shape"):
        infarct_indices(mask[0], (1, 1))
    with pytest.raises(ValueError, match="one shape"):
        infarct_indices(mask, (1, 1), mask[:2])
    with pytest.raises(ValueError, match="spacing is"):
        infarct_indices(mask, (1, 1, 1))
    with pytest.raises(ValueError, match=r"\(N, 8\)"):
        index_errors(np.zeros((2, 7)), np.zeros((2, 7)))


@pytest.mark.parametrize("step", [0.0, -1.0, math.nan])
def test_spacings_that_are_no_lengths_are_refused(step):
    with pytest.raises(ValueError, match="above 0"):
        infarct_indices(blobs(0), (1.0, step))
