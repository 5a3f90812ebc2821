"""Function in closed form, every flag, and rings whose walls are known."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_fill_holes

from cardiac_mtl.metrics.clinical import MYOCARDIUM_DENSITY, flags, function, wall_thickness

volumes = st.floats(1, 400)
normal = (120.0, 48.0, 100.0)


def disc(radius, spacing, middle=(0.0, 0.0), extent=80.0):
    """Draw one; `middle` in mm from the middle of the image."""
    y, x = (
        (np.arange(n := round(extent / step)) - n / 2) * step - offset
        for step, offset in zip(spacing, middle, strict=True)
    )
    return y[:, None] ** 2 + x[None] ** 2 <= radius**2


def ring(inner, outer, spacing, middle=(0.0, 0.0), shift=(0.0, 0.0)):
    hole = disc(inner, spacing, np.add(middle, shift))
    return disc(outer, spacing, middle) & ~hole


def test_a_normal_ventricle():
    result = function(*normal)
    assert result == pytest.approx((120, 48, 72, 60, 105))
    assert MYOCARDIUM_DENSITY == 1.05
    assert flags(result) == []


@given(volumes, volumes, volumes, st.floats(0.1, 10))
@settings(max_examples=50)
def test_function_in_closed_form(edv, esv, myocardium, factor):
    result = function(edv, esv, myocardium)
    assert result.ef_percent == pytest.approx(100 - 100 * esv / edv)
    assert result.sv_ml + result.esv_ml == pytest.approx(result.edv_ml)
    larger = function(factor * edv, factor * esv, factor * myocardium)
    assert larger.ef_percent == pytest.approx(result.ef_percent, abs=1e-6)
    assert larger.mass_g == pytest.approx(factor * result.mass_g)


@pytest.mark.parametrize(
    ("volumes", "expected"),
    [
        ((math.nan, 48, 100), ["EDV missing"]),
        ((120, math.nan, 100), ["ESV missing"]),
        ((120, 48, math.nan), ["mass missing"]),
        ((math.inf, 48, 100), ["EDV missing"]),
        ((-120, -60, 100), ["EDV below 0", "ESV below 0", "ESV larger than EDV"]),  # EF 50 %
        ((120, -10, 100), ["ESV below 0", "EF above 100 %"]),
        ((120, 48, -1), ["mass below 0"]),
        ((48, 120, 100), ["ESV larger than EDV"]),
        ((0, 48, 100), ["ESV larger than EDV", "no cavity at ED"]),
        ((0, 0, 100), ["no cavity at ED", "no cavity at ES"]),
        ((120, 0, 100), ["no cavity at ES", "EF above 85 %, suspicious"]),
        ((120, 48, 0), ["no myocardium at ED"]),
        ((120, 12, 100), ["EF above 85 %, suspicious"]),
        ((120, 118, 100), ["EF below 5 %, suspicious"]),
        ((120, 120, 100), ["EF below 5 %, suspicious"]),
        ((100, 15, 100), []),
        ((100, 95, 100), []),
    ],
)
def test_every_flag(volumes, expected):
    assert flags(function(*volumes)) == expected


def test_nothing_is_clipped_and_nothing_unknown_becomes_0():
    assert function(50, 60, 100).ef_percent == pytest.approx(-20)
    assert function(50, -10, 100).ef_percent == pytest.approx(120)
    assert math.isnan(function(0, 0, 100).ef_percent)
    assert math.isnan(function(math.nan, 10, 100).ef_percent)
    assert math.isnan(function(math.nan, 10, 100).sv_ml)
    assert math.isnan(function(100, 40, math.nan).mass_g)
    assert function(100, 40, math.nan).ef_percent == pytest.approx(60)


@pytest.mark.parametrize("spacing", [(1.25, 1.25), (1.25, 1.8), (0.8, 1.6), (2.0, 1.25)])
@pytest.mark.parametrize("radii", [(10, 12), (12, 20), (20, 28), (25, 28), (25, 37)])
def test_the_wall_of_a_ring_is_the_difference_of_its_radii(radii, spacing):
    rng = np.random.default_rng(0)
    errors = []
    for middle in rng.uniform(-1, 1, (8, 2)):
        thickness = wall_thickness(ring(*radii, spacing, middle), spacing)
        wall = radii[1] - radii[0]
        errors.append(thickness.mean_mm - wall)
        assert thickness.least_mm == pytest.approx(wall, abs=max(spacing))
        assert thickness.largest_mm == pytest.approx(wall, abs=max(spacing))
    assert np.abs(errors).max() < 0.35
    assert abs(np.mean(errors)) < 0.15  # what is left is the drawing's, not a bias


def wall_of_equal_areas(mask, spacing):
    """The drawing itself is off by up to 0.7 mm: measure against the areas that were drawn."""
    hole = binary_fill_holes(mask) & ~mask
    radii = [math.sqrt(area.sum() * math.prod(spacing) / math.pi) for area in (mask | hole, hole)]
    return radii[0] - radii[1]


@given(st.floats(2, 25), st.floats(2, 12), st.floats(-1, 1), st.floats(-1, 1))
@settings(max_examples=100, deadline=None)
def test_the_documented_accuracy_of_the_mean(inner, wall, down, right):
    square = (1.25, 1.25)
    mask = ring(inner, inner + wall, square, (down, right))
    expected = wall_of_equal_areas(mask, square)
    assert wall_thickness(mask, square).mean_mm == pytest.approx(expected, abs=0.15)


def test_small_cavities_neither_vanish_nor_shrink():
    square = (1.25, 1.25)
    for middle in np.random.default_rng(1).uniform(-1, 1, (20, 2)):
        mask = ring(1.5, 7.5, square, middle)  # four or five pixels of cavity
        expected = wall_of_equal_areas(mask, square)
        assert wall_thickness(mask, square).mean_mm == pytest.approx(expected, abs=0.2)


@pytest.mark.parametrize("shift", [(4.0, 0.0), (0.0, 4.0), (-3.0, 3.0)])
@pytest.mark.parametrize("spacing", [(1.25, 1.25), (1.25, 2.0)])
def test_a_cavity_off_the_middle(shift, spacing):
    inner, outer = 20.0, 28.0
    turn = np.linspace(0, 2 * np.pi, 3600, endpoint=False)
    circle = np.stack([np.sin(turn), np.cos(turn)], axis=1)
    outward = outer - np.linalg.norm(inner * circle + shift, axis=1)
    inward = np.linalg.norm(outer * circle - shift, axis=1) - inner
    mean = (inner * outward.mean() + outer * inward.mean()) / (inner + outer)  # by arc length
    thickness = wall_thickness(ring(inner, outer, spacing, (0.3, 0.4), shift), spacing)
    assert thickness.mean_mm == pytest.approx(mean, abs=0.35)
    assert thickness.least_mm == pytest.approx(outward.min(), abs=0.9)
    assert thickness.largest_mm == pytest.approx(outward.max(), abs=0.9)


@given(st.floats(0.5, 3))
@settings(max_examples=20, deadline=None)
def test_thickness_scales_with_spacing_and_is_unmoved_by_turns(factor):
    mask, spacing = ring(12, 20, (1.25, 2.0), (0.2, 0.7), (2.0, 1.0)), (1.25, 2.0)
    thickness = np.array(wall_thickness(mask, spacing))
    wide = wall_thickness(mask, (factor * 1.25, factor * 2.0))
    np.testing.assert_allclose(wide, factor * thickness)
    np.testing.assert_allclose(wall_thickness(mask[::-1], spacing), thickness)
    np.testing.assert_allclose(wall_thickness(mask.T, spacing[::-1]), thickness)


def test_an_open_ring_has_no_thickness():
    square = (1.25, 1.25)
    closed = ring(15, 23, square)
    opened = closed.copy()
    opened[:32, 32] = False
    assert not np.isnan(wall_thickness(closed, square)).any()
    for mask in (opened, np.zeros((20, 20), bool), disc(20, square), closed[:, 20:]):
        assert np.isnan(wall_thickness(mask, square)).all()


def test_corners_close_a_ring():
    mask = np.zeros((7, 7), bool)
    mask[[1, 2, 3, 4, 5, 4, 3, 2], [3, 4, 5, 4, 3, 2, 1, 2]] = True
    thickness = wall_thickness(mask, (1.0, 1.0))
    assert 0.4 < thickness.least_mm <= thickness.largest_mm < 1.5


def test_pinholes_and_islands_are_no_wall():
    square = (1.25, 1.25)
    whole = ring(15, 23, square, (0.3, 0.1))
    marred = whole.copy()
    row, column = np.argwhere(disc(19.5, square) & ~disc(18.5, square))[0]
    assert marred[row, column]
    marred[row, column] = False  # a hole in the wall
    marred[1:5, 1:5] = True  # a speck far away
    marred[1:5, 50] = True
    assert wall_thickness(marred, square) == wall_thickness(whole, square)


def test_a_ring_cut_by_the_border_of_the_image_ends_there():
    mask = np.ones((20, 20), bool)
    mask[4:16, 4:16] = False
    assert wall_thickness(mask, (1.5, 1.5)).least_mm == pytest.approx(6, abs=0.2)


def test_a_slit_has_walls_too():
    mask = np.zeros((20, 50), bool)
    mask[5:14, 5:44] = True
    mask[9, 9:40] = False  # one pixel high: smoothed, it is nowhere above its level
    thickness = wall_thickness(mask, (2.0, 2.0))
    assert thickness.mean_mm == pytest.approx(8, abs=0.5)


def test_what_is_no_slice_is_refused():
    mask = ring(15, 23, (1.25, 1.25))
    with pytest.raises(TypeError, match="boolean"):
        wall_thickness(mask.astype(float), (1, 1))
    with pytest.raises(ValueError, match=r"\(H, W\)"):
        wall_thickness(mask[None], (1, 1))
    with pytest.raises(ValueError, match=r"\(H, W\)"):
        wall_thickness(mask, (8, 1, 1))
    for step in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="above 0"):
            wall_thickness(mask, (1.0, step))
