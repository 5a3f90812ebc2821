"""Masks of other sequences on the LGE volume: which slice, which place, and what is not known."""

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.transform import resize

from cardiac_mtl.contracts import UNLABELLED
from cardiac_mtl.errors import UserError
from data_modules.findings import noticed
from data_modules.transfer import CROP_OFFSETS, paired_numbers, paired_slices, transfer_mask

SHORT_AXIS = (0.62, -0.52, -0.59)
BY_NUMBER = ("slice_index", "matrix_resize")


def grid(shape, spacing, centre=(0.0, 0.0, 0.0), normal=SHORT_AXIS, spin=0.0):
    """An empty volume (S, H, W) around a point, its rows turned by `spin` degrees in plane."""
    normal = np.array(normal) / np.linalg.norm(normal)
    first = np.cross(normal, [0.25, 0.35, -0.9])
    first /= np.linalg.norm(first)
    second = np.cross(normal, first)
    turn = np.deg2rad(spin)
    first, second = (
        np.cos(turn) * first + np.sin(turn) * second,
        np.cos(turn) * second - np.sin(turn) * first,
    )
    image = sitk.Image(shape[::-1], sitk.sitkInt16)
    image.SetSpacing(spacing[::-1])
    image.SetDirection(np.stack([first, second, normal], axis=1).ravel().tolist())
    middle = image.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in image.GetSize()])
    image.SetOrigin(np.subtract(centre, middle).tolist())
    return image


def filled(array, like):
    image = sitk.GetImageFromArray(array)
    image.CopyInformation(like)
    return image


def points(image):
    """Millimetres of every voxel, (S, H, W, 3)."""
    found = [
        image.TransformIndexToPhysicalPoint((c, r, k)) for k, r, c in np.ndindex(array(image).shape)
    ]
    return np.reshape(found, (*array(image).shape, 3))


def array(image):
    return sitk.GetArrayFromImage(image)


def blobs(like, seed=0):
    """A mask of all three classes in every slice, without any symmetry."""
    columns, rows, slices = like.GetSize()
    mask = np.zeros((slices, rows, columns), np.int16)
    rng = np.random.default_rng(seed)
    for k in range(slices):
        row, column = rng.integers(rows // 4, rows // 2), rng.integers(columns // 4, columns // 2)
        mask[k, row : row + 4 + k % 2, column : column + 3] = 1
        mask[k, row : row + 2, column + 3 : column + 6] = 2
        mask[k, row + 4 : row + 6, column - 2 : column] = 3
    return filled(mask, like)


def backwards(image):
    """The same volume with its slices stored the other way round."""
    flipped = filled(array(image)[::-1], image)
    flipped.SetOrigin(image.TransformIndexToPhysicalPoint((0, 0, image.GetSize()[2] - 1)))
    turned = np.reshape(image.GetDirection(), (3, 3)) * [1, 1, -1]
    flipped.SetDirection(turned.ravel().tolist())
    return flipped


def carry(mask, target, mode, rounding="floor", source=None, **options):
    found = transfer_mask(
        mask, mask if source is None else source, target, mode, rounding, **options
    )
    assert found.GetSize() == target.GetSize()
    assert found.GetOrigin() == target.GetOrigin()
    assert found.GetDirection() == target.GetDirection()
    assert found.GetPixelID() == sitk.sitkInt16
    return array(found)


@pytest.mark.parametrize(
    ("count", "onto", "rounding", "numbers"),
    [
        (3, 15, "floor", [5, 10, 15]),  # T2 onto LGE, as released
        (3, 15, "round", [5, 10, 15]),
        (4, 14, "floor", [3, 7, 10, 14]),
        (4, 14, "round", [4, 7, 10, 14]),  # 3.5 to the even, as Python rounds in the code
        (5, 3, "floor", [1, 1, 1, 2, 3]),  # 0.6 would be slice 0
    ],
)
def test_numbers_of_the_slices(count, onto, rounding, numbers):
    assert paired_numbers(count, onto, rounding) == numbers


def test_slices_without_a_partner_are_not_background():
    source, target = grid((3, 20, 20), (16.0, 2.0, 2.0)), grid((15, 20, 20), (5.0, 2.0, 2.0))
    mask = blobs(source)
    for mode in BY_NUMBER:
        found = carry(mask, target, mode)
        assert np.flatnonzero((found != UNLABELLED).any(axis=(1, 2))).tolist() == [4, 9, 14]
        assert (found[[0, 5, 13]] == UNLABELLED).all()
        np.testing.assert_array_equal(found[[4, 9, 14]], array(mask))


def test_of_two_slices_for_one_the_first_is_taken():
    source, target = grid((4, 4, 4), (8.0, 2.0, 2.0)), grid((2, 4, 4), (8.0, 2.0, 2.0))
    assert paired_slices(source, target, "floor") == {0: 0, 1: 3}


@pytest.mark.parametrize("mode", ["slice_index", "matrix_resize", "position"])
@given(
    spin=st.floats(-30, 30),
    normal=st.tuples(st.floats(0.3, 1), st.floats(-1, -0.3), st.floats(-1, -0.3)),
    seed=st.integers(0, 99),
)
@settings(max_examples=15, deadline=None)
def test_on_its_own_grid_a_mask_stays_as_it_is(mode, spin, normal, seed):
    like = grid((4, 18, 22), (9.0, 1.7, 1.3), (5.0, -20.0, 3.0), normal, spin)
    mask = blobs(like, seed)
    np.testing.assert_array_equal(carry(mask, like, mode), array(mask))


@pytest.mark.parametrize("mode", ["slice_index", "matrix_resize", "position"])
@pytest.mark.parametrize(("of_source", "of_target"), [(True, False), (False, True), (True, True)])
def test_the_order_of_slices_in_the_files_does_not_matter(mode, of_source, of_target):
    source = grid((5, 20, 24), (9.0, 1.7, 1.7), (3.0, 1.0, 0.0))
    target = grid((8, 30, 30), (6.0, 1.2, 1.3), spin=7.0)
    mask = blobs(source)
    straight = carry(mask, target, mode)
    assert (straight > 0).any()
    turned = carry(
        backwards(mask) if of_source else mask, backwards(target) if of_target else target, mode
    )
    np.testing.assert_array_equal(turned[::-1] if of_target else turned, straight)


def test_in_plane_coordinates_of_the_patient_are_kept():
    """Each pixel of a slice has the class of the nearest pixel of its partner, along the normal."""
    source = grid((3, 22, 26), (12.0, 1.9, 1.7), (3.0, 4.0, -2.0), spin=-4.0)
    target = grid((5, 32, 30), (6.0, 1.1, 1.3), (-1.0, 2.0, 3.0), spin=9.0)
    mask = blobs(source)
    found, places, held = carry(mask, target, "slice_index"), points(target), points(source)
    normal = np.array(SHORT_AXIS) / np.linalg.norm(SHORT_AXIS)
    across = held - (held @ normal)[..., None] * normal
    for number, k in ((1, 1), (2, 3), (3, 5)):
        place = places[k - 1] - (places[k - 1] @ normal)[..., None] * normal
        off = np.linalg.norm(place[:, :, None, None] - across[number - 1], axis=-1)
        nearest = off.reshape(*place.shape[:2], -1).argmin(-1)
        expected = array(mask)[number - 1].ravel()[nearest]
        assert (expected > 0).any()
        # beyond the source there is nothing; the mask ends before its border
        np.testing.assert_array_equal(found[k - 1], expected)


def test_matrices_are_stretched_onto_each_other_wherever_they_lie():
    source = grid((3, 40, 32), (10.0, 2.0, 2.0), (50.0, 0.0, 0.0))
    target = grid((3, 72, 60), (10.0, 1.0, 1.0))
    mask = blobs(source)
    expected = np.zeros((3, 72, 60), int)
    for value in (1, 2, 3):
        for k, plane in enumerate(array(mask)):
            grown = resize((plane == value).astype(float), (72, 60), order=1, anti_aliasing=False)
            expected[k] += value * np.around(grown).astype(int)
    np.testing.assert_array_equal(carry(mask, target, "matrix_resize"), expected)
    for sequence, (down, right) in {"C0": (4, 9), "T2": (5, 5)}.items():
        moved = carry(mask, target, "matrix_resize", crop_offset=CROP_OFFSETS[sequence])
        np.testing.assert_array_equal(moved[:, down:, right:], expected[:, :-down, :-right])
        assert not moved[:, :down].any()
        assert not moved[:, :, :right].any()


def test_by_position_each_slice_fills_a_slab():
    source, target = grid((3, 20, 20), (8.0, 2.0, 2.0)), grid((9, 20, 20), (4.0, 2.0, 2.0))
    mask = array(blobs(source))
    mask[:, 8:12, 8:12] = 1  # the heart goes on through all slices
    # mid-planes at -16, -12, ..., 16 mm against slabs from -12 to 12
    found = carry(filled(mask.astype(np.uint8), source), target, "position")
    for k, slab in {2: 0, 4: 1, 6: 2}.items():
        np.testing.assert_array_equal(found[k], mask[slab])
    assert (found[[0, 8]] == UNLABELLED).all()


def test_by_position_the_nearest_voxel_counts():
    source = grid((4, 14, 16), (9.0, 1.9, 1.7), (1.0, 2.0, -2.0), spin=-4.0)
    target = grid((5, 16, 15), (5.0, 1.4, 1.3), (-1.0, 2.0, 1.0), np.add(SHORT_AXIS, 0.05), 9.0)
    mask, held = blobs(source), points(source).reshape(-1, 3)
    found = carry(mask, target, "position")
    off = np.linalg.norm(points(target)[..., None, :] - held, axis=-1)
    known = found != UNLABELLED
    assert known[1:4].all()
    assert (found > 0).sum() > 50
    np.testing.assert_array_equal(found[known], array(mask).ravel()[off.argmin(-1)][known])


def test_a_slice_that_is_known_in_part_is_not_known():
    like = grid((4, 40, 40), (8.0, 2.0, 2.0))
    tilted = grid((4, 40, 40), (8.0, 2.0, 2.0), normal=np.add(SHORT_AXIS, [0.0, 0.0, 0.25]))
    mask = np.zeros((4, 40, 40), np.int16)
    mask[:, 5:35, 5:35] = 2
    found = carry(filled(mask, like), tilted, "position")
    known = (found != UNLABELLED).all(axis=(1, 2))
    assert known.tolist() == [False, True, True, False]
    assert (found[~known] == UNLABELLED).all()


@pytest.mark.parametrize("mode", ["slice_index", "matrix_resize", "position"])
def test_a_slice_that_nobody_annotated_stays_so(mode):
    like = grid((4, 20, 20), (8.0, 2.0, 2.0))
    mask = array(blobs(like))
    mask[2] = UNLABELLED
    np.testing.assert_array_equal(carry(filled(mask, like), like, mode), mask)


@pytest.mark.parametrize("mode", ["position", "registration"])
def test_slices_in_ranges_apart_are_refused(mode):
    normal = np.array(SHORT_AXIS) / np.linalg.norm(SHORT_AXIS)
    source, target = (
        grid((4, 20, 20), (8.0, 2.0, 2.0)),
        grid((4, 20, 20), (8.0, 2.0, 2.0), 60 * normal),
    )
    with pytest.raises(UserError, match=r"patient7_T2: .*slice_index") as caught:
        carry(blobs(source), target, mode, case="patient7_T2")
    assert caught.value.code == "no_overlap"
    assert (carry(blobs(source), target, "slice_index") > 0).any()


def test_fields_of_view_apart_are_refused_with_another_way_out():
    source = grid((4, 20, 20), (8.0, 2.0, 2.0))
    across = np.reshape(source.GetDirection(), (3, 3))[:, 0]
    target = grid((4, 20, 20), (8.0, 2.0, 2.0), 300 * across)
    with pytest.raises(UserError, match="matrix_resize"):
        carry(blobs(source), target, "slice_index")


def heart(like, shift=(0.0, 0.0, 0.0), signal=(1.0, 0.3, 0.9, 0.5), seed=0):
    """Image and mask of two ellipsoids and a right ventricle beside them, moved by `shift` mm."""
    axes = np.reshape(grid((1, 1, 1), (1.0, 1.0, 1.0)).GetDirection(), (3, 3))
    x, y, z = np.moveaxis((points(like) - shift) @ axes, -1, 0)
    mask = np.zeros(x.shape, np.int16)
    mask[(x + 30) ** 2 / 26**2 + (y - 5) ** 2 / 32**2 + z**2 / 40**2 < 1] = 3
    mask[x**2 / 30**2 + y**2 / 28**2 + z**2 / 48**2 < 1] = 2
    mask[x**2 / 21**2 + y**2 / 19**2 + z**2 / 40**2 < 1] = 1
    image = np.choose(mask, [signal[3], *signal[:3]])
    image = image + np.random.default_rng(seed).normal(0, 0.04, x.shape)
    return filled((1000 * image).astype(np.int16), like), filled(mask, like)


def dice(found, truth, value):
    known = found != UNLABELLED
    one, two = (found == value) & known, (truth == value) & known
    return 2 * (one & two).sum() / (one.sum() + two.sum())


@pytest.fixture(scope="module")
def shifted():
    """LGE and its mask, and a bSSFP for which the heart lay 10 mm away."""
    lge = heart(grid((10, 60, 60), (8.0, 2.4, 2.4)), signal=(0.7, 0.1, 0.6, 0.4))
    away = np.reshape(lge[0].GetDirection(), (3, 3)) @ [6.0, -7.0, 3.5]
    cine = heart(grid((8, 52, 52), (9.5, 2.8, 2.8), (2.0, 3.0, 1.0), spin=3.0), away, seed=1)
    return lge, cine


def test_registration_finds_a_shift_that_no_header_tells(shifted):
    (image, truth), (source, mask) = shifted
    with noticed() as found:
        placed = carry(mask, image, "position", source=source)
        aligned = carry(mask, image, "registration", source=source)
    assert not found
    for value in (1, 2, 3):
        assert dice(placed, array(truth), value) < 0.85
        assert dice(aligned, array(truth), value) > max(
            0.85, dice(placed, array(truth), value) + 0.1
        )
    again = carry(mask, image, "registration", source=source)
    np.testing.assert_array_equal(again, aligned)


def test_without_anything_to_align_the_headers_count(shifted):
    (image, _), (source, mask) = shifted
    blank = filled(np.zeros_like(array(source)), source)
    with noticed() as found:
        aligned = carry(mask, image, "registration", source=blank, case="patient7_C0")
    assert [(one.code, one.file) for one in found] == [("registration", "patient7_C0")]
    np.testing.assert_array_equal(aligned, carry(mask, image, "position"))
