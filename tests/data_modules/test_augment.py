"""Augmentation: chance apart from arithmetic, and arithmetic that scipy agrees with."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from cardiac_mtl.contracts import UNLABELLED
from data_modules.augment import Augmentation, Draws, draw, transform


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def affine(theta):
    return Draws(torch.tensor([theta]), torch.ones(1), torch.zeros(1))


def test_identity_changes_nothing():
    image, mask = torch.randn(3, 1, 20, 24), torch.randint(0, 3, (3, 20, 24))
    draws = draw(Augmentation(probability=0.0, noise=1.0, gamma=1.0), 3, (20, 24), generator())
    moved, moved_mask = transform(image, mask, draws)
    torch.testing.assert_close(moved, image, atol=1e-5, rtol=0)
    assert torch.equal(moved_mask, mask)


def test_rotation_translation_and_zoom_agree_with_scipy():
    image = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(40, 48)), 2)
    angle, scale, shift = 0.4, 1.1, np.array([3.0, -5.0])  # column, row
    turn = scale * np.array(
        [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    )
    theta = np.column_stack([turn, -turn @ shift]).tolist()
    ours, _ = transform(
        torch.tensor(image, dtype=torch.float32)[None, None],
        torch.zeros(1, 40, 48, dtype=torch.int64),
        affine(theta),
    )
    swap = np.array([[0, 1], [1, 0]])  # scipy works in rows and columns about the corner
    matrix = swap @ turn @ swap
    centre = np.array([19.5, 23.5])
    offset = centre - matrix @ (centre + shift[::-1])
    reference = ndimage.affine_transform(image, matrix, offset, order=1, mode="constant")
    inside = np.s_[13:-13, 15:-15]
    np.testing.assert_allclose(ours[0, 0].numpy()[inside], reference[inside], atol=1e-4)


def test_a_whole_pixel_shift_moves_image_and_mask_alike_and_fills_with_background():
    image, mask = torch.rand(1, 1, 8, 8) + 1, torch.ones(1, 8, 8, dtype=torch.int64)
    theta = [[1.0, 0.0, -2.0], [0.0, 1.0, 0.0]]  # content moves two columns to the right
    moved, moved_mask = transform(image, mask, affine(theta))
    torch.testing.assert_close(moved[..., 2:], image[..., :-2], atol=1e-4, rtol=0)
    assert not moved[..., :2].any()
    assert moved_mask[0, :, :2].sum() == 0
    assert bool((moved_mask[0, :, 2:] == 1).all())


def test_slices_without_annotation_stay_without():
    mask = torch.full((2, 8, 8), UNLABELLED)
    mask[1] = 1
    draws = draw(Augmentation(probability=1.0), 2, (8, 8), generator(3))
    _, moved = transform(torch.zeros(2, 1, 8, 8), mask, draws)
    assert bool((moved[0] == UNLABELLED).all())
    assert not bool((moved[1] == UNLABELLED).any())


def test_draws_keep_to_their_ranges_and_share():
    ranges = Augmentation(rotation_deg=30, translation=0.25, zoom=0.2, gamma=0.5, noise=0.1)
    draws = draw(ranges, 4000, (32, 64), generator())
    a, b = draws.theta[:, 0, 0], draws.theta[:, 1, 0]
    scale = (a**2 + b**2).sqrt()
    angle = torch.rad2deg(torch.atan2(b, a)).abs()
    assert float(angle.max()) <= 30.001
    assert 1 / 1.2001 <= float(scale.min()) < 0.86
    assert 1.16 < float(scale.max()) <= 1.2001
    changed = float((scale != 1).float().mean())
    assert changed == pytest.approx(2 / 3, abs=0.03)
    assert float(draws.noise.max()) <= 0.1
    assert float(draws.gamma.max()) <= 1.5001


def test_mirror_reverses_orientation():
    draws = draw(Augmentation(probability=1.0, flip=True), 1000, (8, 8), generator())
    mirrored = (torch.linalg.det(draws.theta[:, :, :2]) < 0).float().mean()
    assert float(mirrored) == pytest.approx(0.5, abs=0.06)


def test_the_same_seed_draws_the_same_and_another_does_not():
    first, again, other = (
        draw(Augmentation(), 16, (8, 8), generator(seed)).theta for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_contrast_keeps_sign_and_unit_and_noise_has_its_deviation():
    image = torch.tensor([[[[-4.0, -1.0], [1.0, 4.0]]]])
    still = torch.eye(2, 3)[None]
    mask = torch.zeros(1, 2, 2, dtype=torch.int64)
    moved, _ = transform(image, mask, Draws(still, torch.tensor([0.5]), torch.zeros(1)))
    torch.testing.assert_close(moved.flatten(), torch.tensor([-2.0, -1.0, 1.0, 2.0]))
    blank, mask = torch.zeros(1, 1, 64, 64), torch.zeros(1, 64, 64, dtype=torch.int64)
    noisy, _ = transform(blank, mask, Draws(still, torch.ones(1), torch.tensor([0.3])))
    assert float(noisy.std()) == pytest.approx(0.3, rel=0.05)
