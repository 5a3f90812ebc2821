"""The prepared grid: constant spacing, true positions, and the way back."""

import numpy as np
import pytest
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from cardiac_mtl.contracts import UNLABELLED
from data_modules.geometry import (
    apex_first,
    cut_slices,
    prepare_image,
    prepare_mask,
    prepared_grid,
    restore,
    turn_against,
    usual_axes,
)

OBLIQUE = (0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, 1.0)


def volume(array, spacing=(1.2, 1.5, 8.0)):
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    image.SetOrigin((12.0, -40.0, 7.0))
    image.SetDirection(OBLIQUE)
    return image


def ball(shape=(3, 60, 70), radius_mm=20.0, spacing=(1.2, 1.5)):
    rows = (np.arange(shape[1]) - (shape[1] - 1) / 2) * spacing[1]
    columns = (np.arange(shape[2]) - (shape[2] - 1) / 2) * spacing[0]
    disc = rows[:, None] ** 2 + columns**2 <= radius_mm**2
    return np.repeat(disc[None], shape[0], axis=0).astype(np.int16)


def test_the_grid_shares_centre_axes_and_slices_with_the_volume():
    image = volume(np.zeros((3, 60, 70), np.float32))
    grid = prepared_grid(image, (64, 96), 1.5625)
    assert grid.GetSize() == (96, 64, 3)
    assert grid.GetSpacing() == (1.5625, 1.5625, 8.0)
    assert grid.GetDirection() == pytest.approx(OBLIQUE)
    ours = grid.TransformContinuousIndexToPhysicalPoint((47.5, 31.5, 2.0))
    theirs = image.TransformContinuousIndexToPhysicalPoint((34.5, 29.5, 2.0))
    assert ours == pytest.approx(theirs, abs=1e-6)


def test_area_survives_resampling():
    mask = prepare_mask(volume(ball()), (64, 64), 1.5625)
    area = mask[0].sum() * 1.5625**2
    assert area == pytest.approx(np.pi * 20**2, rel=0.02)


def test_normalised_over_the_volume_and_zero_outside_it():
    array = np.random.default_rng(0).normal(300, 50, (2, 64, 64)).astype(np.float32)
    image = volume(array, spacing=(1.5625, 1.5625, 8.0))
    prepared = prepare_image(image, (96, 96), 1.5625)
    inside = prepared[:, 16:-16, 16:-16]
    np.testing.assert_allclose(inside, (array - array.mean()) / array.std(), atol=1e-4)
    assert not prepared[:, :15].any()


def test_a_constant_image_becomes_zero_and_not_nan():
    prepared = prepare_image(volume(np.full((1, 8, 8), 7, np.float32)), (16, 16), 1.5)
    assert not prepared.any()


def test_slices_without_annotation_stay_so_beyond_the_volume():
    array = ball()
    array[1] = UNLABELLED
    mask = prepare_mask(volume(array), (128, 128), 1.5625)
    assert (mask[1] == UNLABELLED).all()
    assert (mask[[0, 2]] >= 0).all()


@pytest.mark.parametrize(
    ("side", "place", "cut"),
    [
        (32, (0, 9), [1]),
        (32, (-1, 9), [1]),
        (32, (9, 0), [1]),
        (32, (9, -1), [1]),
        (32, (1, 30), []),
        (96, (0, 0), []),  # the grid reaches beyond the image
    ],
)
def test_a_mask_at_the_border_of_the_grid_is_cut_where_the_image_goes_on(side, place, cut):
    mask = np.zeros((2, side, side), np.uint8)
    mask[1, place[0], place[1]] = 2
    assert cut_slices(mask, volume(ball((2, 60, 70))), 1.5) == cut


def test_a_turn_is_told_from_a_mirror_and_from_another_plane():
    def lying(turn=0.0, tilt=0.0, mirror=1.0):
        rotation = Rotation.from_euler("xz", [0.7, 0.5]) * Rotation.from_euler("zx", [turn, tilt])
        image = sitk.Image([4, 4, 2], sitk.sitkFloat32)
        image.SetDirection((rotation.as_matrix() * [mirror, 1, 1]).ravel().tolist())
        return image

    def axes(image):
        return np.reshape(image.GetDirection(), (3, 3)).T[:2]

    usual = usual_axes([axes(lying(turn)) for turn in (-0.4, 0.0, 0.4)])
    for turn in (-2.0, 0.3, 1.5):
        assert turn_against(lying(turn), usual) == (False, pytest.approx(np.degrees(abs(turn))))
    assert turn_against(lying(tilt=0.4), usual) == (False, pytest.approx(0, abs=1e-6))
    assert turn_against(lying(1.0, mirror=-1.0), usual)[0]
    assert turn_against(volume(np.zeros((1, 4, 4))), usual) is None  # along the body
    assert usual_axes([axes(lying(turn)) for turn in (0.0, 2.0)]) is None
    assert usual_axes([np.eye(3)[:2]]) is None


def test_there_and_back_keeps_the_mask():
    image = volume(ball())
    prepared = prepare_mask(image, (64, 64), 1.0).astype(np.float32)
    back = restore(prepared, image, 1.0) > 0.5
    truth = ball() > 0
    overlap = 2 * (back & truth).sum() / (back.sum() + truth.sum())
    assert back.shape == truth.shape
    assert overlap > 0.985


@pytest.mark.parametrize(
    ("normal", "expected"),
    [
        ((0.6, -0.48, -0.64), False),
        ((-0.6, 0.48, 0.64), True),
        ((0.0, 0.0, 1.0), False),  # along the body: no short axis, the file's order stands
        ((0.0, 0.0, -1.0), False),
    ],
)
def test_the_header_says_where_the_apex_is_unless_it_was_lost(normal, expected):
    row = np.cross(normal, [1.0, 0.0, 0.1])
    row /= np.linalg.norm(row)
    image = volume(np.zeros((3, 4, 5)))
    image.SetDirection(np.stack([row, np.cross(normal, row), normal], axis=1).ravel().tolist())
    assert apex_first(image) is expected
