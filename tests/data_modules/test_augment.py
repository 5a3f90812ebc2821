"""Augmentation: chance apart from arithmetic, and arithmetic that scipy agrees with."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from cardiac_mtl.contracts import UNLABELLED
from cardiac_mtl.metrics.shape import infarct_indices
from data_modules.augment import Augmentation, Draws, draw, transform


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def only(theta=((1, 0, 0), (0, 1, 0)), gamma=1.0, bias=0.0, noise=0.0):
    return Draws(
        torch.tensor([theta], dtype=torch.float32),
        torch.tensor([gamma]),
        torch.full((1, 1, 3, 3), bias),
        torch.tensor([noise]),
        torch.tensor([7]),
    )


def test_identity_changes_nothing():
    image, mask = torch.randn(3, 1, 20, 24), torch.randint(0, 3, (3, 20, 24))
    draws = draw(
        Augmentation(probability=0.0, noise=1.0, gamma=1.0, bias=1.0, shear_deg=20),
        3,
        (20, 24),
        generator(),
    )
    moved, moved_mask = transform(image, mask, draws, num_classes=3)
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
        only(theta),
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
    moved, moved_mask = transform(image, mask, only(theta))
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


def test_nothing_that_is_drawn_tells_of_another():
    ranges = Augmentation(
        probability=1, rotation_deg=30, translation=0.1, zoom=0.3, shear_deg=10, flip=True,
        gamma=0.5, bias=0.2, noise=0.1,
    )  # fmt: skip
    draws = draw(ranges, 4000, (48, 64), generator())
    linear, moved = draws.theta[:, :, :2], draws.theta[:, :, 2:]
    mirror = linear.det().sign()
    cos, sin = (linear[:, :, 0] * mirror[:, None]).T
    scale, angle = torch.hypot(cos, sin), torch.atan2(sin, cos)
    shear = (linear[:, 0, 1] * cos + linear[:, 1, 1] * sin) / scale**2
    shift = torch.linalg.solve(linear, moved)[:, :, 0]
    drawn = [angle, scale.log(), mirror, shear, *shift.T, draws.gamma.log(), draws.noise]
    together = np.corrcoef(torch.stack([*drawn, *draws.bias.flatten(1).T]))
    assert len(together) == 8 + 9
    assert np.abs(together - np.eye(17)).max() < 0.08  # five times what chance leaves


def test_pixels_that_are_not_square_leave_a_turned_heart_round():
    row, column = np.mgrid[:120, :80]
    radius = np.hypot((row - 59.5) * 1.0, (column - 39.5) * 1.6)  # mm
    mask = torch.from_numpy((radius < 30) & (radius > 20)).long().repeat(6, 1, 1)
    spacing = torch.tensor([[8.0, 1.0, 1.6]]).repeat(6, 1)
    draws = draw(Augmentation(1.0, translation=0.1), 6, (120, 80), generator())
    _, moved = transform(torch.zeros(6, 1, 120, 80), mask, draws.in_mm(spacing), num_classes=2)
    major, minor = infarct_indices(moved.numpy() > 0, (1.0, 1.6))[:, 5:7].T
    np.testing.assert_allclose(major, 4 * math.hypot(20, 30) / 2, rtol=0.03)  # before, up to 1.56
    np.testing.assert_allclose(minor, major, rtol=0.03)


def test_a_shift_is_a_share_of_the_sides_whatever_the_pixels():
    ranges = Augmentation(1.0, rotation_deg=0, translation=0.25, flip=True)
    draws = draw(ranges, 8, (32, 64), generator())
    torch.testing.assert_close(draws.in_mm(torch.tensor([[8.0, 1.0, 2.0]])).theta, draws.theta)
    assert draws.in_mm(torch.tensor([[8.0, 1.5, 1.5]])) is draws


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
    mask = torch.zeros(1, 2, 2, dtype=torch.int64)
    moved, _ = transform(image, mask, only(gamma=0.5))
    torch.testing.assert_close(moved.flatten(), torch.tensor([-2.0, -1.0, 1.0, 2.0]))
    blank, mask = torch.zeros(1, 1, 64, 64), torch.zeros(1, 64, 64, dtype=torch.int64)
    noisy, _ = transform(blank, mask, only(noise=0.3))
    assert float(noisy.std()) == pytest.approx(0.3, rel=0.05)


def test_shading_multiplies_by_a_smooth_field():
    image = torch.full((1, 1, 16, 16), 2.0)
    mask = torch.zeros(1, 16, 16, dtype=torch.int64)
    shaded, _ = transform(image, mask, only(bias=math.log(1.5)))
    torch.testing.assert_close(shaded, torch.full((1, 1, 16, 16), 3.0))
    ranges = Augmentation(probability=1.0, rotation_deg=0, translation=0, bias=0.5)
    shaded, _ = transform(image, mask, draw(ranges, 1, (16, 16), generator()))
    assert 0.01 < float(shaded.std()) < 1.0
    assert float(shaded.diff(dim=3).abs().max()) < 0.25 * float(shaded.max())


def test_shear_tilts_columns_and_keeps_areas():
    ranges = Augmentation(probability=1.0, rotation_deg=0, translation=0, shear_deg=20)
    linear = draw(ranges, 2000, (8, 8), generator()).theta[:, :, :2]
    torch.testing.assert_close(torch.linalg.det(linear), torch.ones(2000))
    angles = torch.rad2deg(torch.atan(linear[:, 0, 1]))
    assert 19 < float(angles.abs().max()) <= 20.001
    assert float(angles.mean()) == pytest.approx(0, abs=1)


def test_the_border_of_a_thin_ring_is_truer_than_by_nearest_neighbour():
    axis = torch.arange(64) - 31.5
    radius = (axis[:, None] ** 2 + axis**2).sqrt()
    truth = ((radius > 15) & (radius < 18.5)).long()
    ours = nearest = 0
    for angle in torch.linspace(0.1, 1.5, 15).tolist():
        theta = [[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0]]
        _, turned = transform(torch.zeros(1, 1, 64, 64), truth[None], only(theta))
        turn = np.array(theta)[:, :2]
        other = ndimage.affine_transform(
            truth.numpy(), turn, 31.5 * (1 - turn.sum(1)), order=0, mode="constant"
        )
        ours += int((turned[0] != truth).sum())
        nearest += int((other != truth.numpy()).sum())
    assert ours < 0.9 * nearest


def test_unlabelled_pixels_of_an_annotated_slice_move_with_it():
    mask = torch.ones(1, 8, 8, dtype=torch.int64)
    mask[..., :2] = UNLABELLED
    _, moved = transform(torch.zeros(1, 1, 8, 8), mask, only([[1, 0, -3], [0, 1, 0]]))
    assert moved[0, 0].tolist() == [0, 0, 0, UNLABELLED, UNLABELLED, 1, 1, 1]


def test_the_draws_of_a_batch_are_those_of_its_samples():
    draws = draw(Augmentation(noise=1.0), 10, (8, 8), generator())
    some = draws[torch.tensor([7, 2])]
    assert torch.equal(some.theta, draws.theta[[7, 2]])
    assert some.noise_seed.tolist() == draws.noise_seed[[7, 2]].tolist()
