"""Crops of native pixels: where they start, and that they go back to the voxel."""

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from data_modules.crops import (
    SHIFT,
    STARTS,
    central_start,
    centre_of_crop,
    crop_shift,
    crop_start,
    cuts,
    enclose,
    label_box,
)
from data_modules.geometry import prepare_foreground, prepare_mask, restore

SIDES = st.sampled_from(sorted({n for of in STARTS.values() for n in of} | {223, 225, 301, 511}))


def volume(array, spacing=(1.37, 0.71, 8.0)):
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    image.SetOrigin((31.7, -112.3, 7.1))
    image.SetDirection((0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, 1.0))
    return image


@pytest.mark.parametrize(
    ("sequence", "size", "start"),
    [
        ("LGE", (480, 480), (136, 136)), ("LGE", (512, 512), (136, 136)),
        ("LGE", (400, 400), (88, 88)), ("LGE", (432, 432), (104, 104)),
        ("LGE", (224, 224), (0, 0)), ("T2", (256, 256), (16, 16)), ("T2", (288, 288), (32, 32)),
        ("T2", (240, 240), (8, 8)), ("C0", (320, 320), (64, 64)), ("C0", (288, 288), (32, 32)),
        ("C0", (256, 240), (16, 8)), ("LGE", (256, 256), (16, 16)), ("LGE", (480, 301), (136, 38)),
        ("LGE", (200, 223), (-12, -1)), ("", (512, 512), (144, 144)),
    ],
)  # fmt: skip
def test_crops_start_where_the_released_code_starts_them_else_in_the_middle(sequence, size, start):
    assert crop_start(sequence, size) == start


def test_a_crop_of_another_size_is_in_the_middle():
    assert crop_start("LGE", (480, 512), (192, 224)) == (144, 136)


@given(SIDES, SIDES, st.integers(0, 4), st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_a_mask_that_was_cropped_goes_back_to_the_voxel(rows, columns, group, seed):
    labels = np.random.default_rng(seed).integers(0, 4, (2, rows, columns)).astype(np.int16)
    crop, size = (224, 224), (rows, columns)
    start = crop_start("LGE", size)
    down, right = crop_shift(group, start, central_start(size, crop))
    first = start[0] + down, start[1] + right
    image = volume(labels)
    spacing = image.GetSpacing()[1::-1]
    centre = centre_of_crop(first, crop)
    prepared = prepare_mask(image, crop, spacing, centre)
    back = restore(prepared.astype(np.float32), image, spacing, centre)
    held = tuple(slice(max(f, 0), max(f + 224, 0)) for f in first)
    expected = np.zeros_like(labels)
    expected[(slice(None), *held)] = labels[(slice(None), *held)]
    np.testing.assert_allclose(back, expected, atol=1e-4)
    whole = np.zeros((2, *crop), np.int16)
    inside = tuple(
        slice(max(-f, 0), max(-f, 0) + min(f + 224, n) - max(f, 0))
        for f, n in zip(first, size, strict=True)
    )
    whole[(slice(None), *inside)] = labels[(slice(None), *held)]
    np.testing.assert_array_equal(prepared, whole)


@given(
    st.tuples(SIDES, SIDES),
    st.tuples(st.floats(0, 1), st.floats(0, 1)),
    st.tuples(st.integers(1, 224), st.integers(1, 224)),
)
def test_a_crop_moves_to_enclose_labels_and_no_further(size, place, extent):
    box = tuple(
        (first := round(p * max(n - e, 0)), min(first + e, n) - 1)
        for n, p, e in zip(size, place, extent, strict=True)
    )
    centre, half = centre_of_crop(crop_start("LGE", size), (224, 224)), (111.5, 111.5)
    moved = enclose(centre, half, box)
    assert not cuts(moved, half, box)
    assert all((m - h).is_integer() for m, h in zip(moved, half, strict=True))
    if not cuts(centre, half, box):
        assert moved == centre
    else:  # it touches the box: one pixel back would cut
        assert any(m - h == a or m + h == b for m, h, (a, b) in zip(moved, half, box, strict=True))


def test_a_box_larger_than_the_crop_is_cut():
    box = (0, 229), (10, 20)
    assert enclose((115.0, 50.0), (111.5, 111.5), box)[0] == 115.0
    assert cuts((115.0, 50.0), (111.5, 111.5), box)


def test_one_pixel_beyond_the_crop_is_cut_and_none_is_not():
    centre, half = centre_of_crop((10, 20), (4, 6)), (1.5, 2.5)
    assert not cuts(centre, half, ((10, 13), (20, 25)))
    for box in (
        ((9, 13), (20, 25)),
        ((10, 14), (20, 25)),
        ((10, 13), (19, 25)),
        ((10, 13), (20, 26)),
    ):
        assert cuts(centre, half, box)


def test_five_crops_of_one_image_differ():
    for size in ((480, 480), (400, 400), (512, 432)):
        start = crop_start("LGE", size)
        shifts = [crop_shift(k, start, central_start(size, (224, 224))) for k in range(5)]
        assert shifts[:4] == [(0, 0), (-SHIFT, -SHIFT), (-SHIFT, 0), (0, -SHIFT)]
        assert len(set(shifts)) == 5
    assert crop_shift(4, (136, 136), (128, 128)) == (-8, -8)
    assert crop_shift(4, (88, 88), (88, 88)) == (SHIFT, SHIFT)


def test_a_box_is_around_all_slices():
    mask = np.zeros((3, 20, 30), np.int16)
    mask[0, 4, 7], mask[2, 9, 5], mask[1] = 1, 3, -1
    assert label_box(volume(mask)) == ((4, 9), (5, 7))
    assert label_box(volume(np.zeros((1, 4, 4), np.int16))) is None


@pytest.mark.parametrize("normalise", ["slice", "volume"])
def test_only_the_foreground_and_its_holes_count_for_mean_and_sd(normalise):
    rng = np.random.default_rng(0)
    array = np.zeros((3, 40, 50), np.float32)
    array[:, 8:30, 10:40] = (
        rng.normal(200, 30, (3, 22, 30)).clip(1) + 50 * np.arange(3)[:, None, None]
    )
    array[:, 15, 20] = 0  # a hole
    body = np.zeros(array.shape, bool)
    body[:, 8:30, 10:40] = True
    prepared = prepare_foreground(volume(array), (40, 50), (0.71, 1.37), normalise)
    axes = {"slice": (1, 2), "volume": (0, 1, 2)}[normalise]
    seen = np.where(body, prepared, np.nan)
    np.testing.assert_allclose(np.nanmean(seen, axes), 0, atol=1e-4)
    np.testing.assert_allclose(np.nanstd(seen, axes), 1, atol=1e-4)
    assert prepared[0, 0, 0] < -3  # air stays darker than the body


def test_air_alone_and_intensities_below_1_make_no_nan():
    array = np.random.default_rng(0).random((2, 8, 8)).astype(np.float32)
    array[1] = 0
    prepared = prepare_foreground(volume(array), (12, 12), (0.71, 1.37), "slice")
    assert np.isfinite(prepared).all()
    assert not prepared[1].any()
    np.testing.assert_allclose(prepared[0, 2:10, 2:10].std(), 1, atol=1e-5)
