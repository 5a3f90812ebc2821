"""Components and cavities against SimpleITK and by hand."""

import numpy as np
import pytest
import SimpleITK as sitk

from cardiac_mtl.postprocessing import cavity, closed_then_opened, largest_component


@pytest.mark.parametrize("seed", range(5))
def test_largest_component_agrees_with_simpleitk(seed):
    mask = np.random.default_rng(seed).random((5, 12, 12)) > 0.72
    components = sitk.RelabelComponent(
        sitk.ConnectedComponent(sitk.GetImageFromArray(mask.astype(np.uint8)))
    )
    reference = sitk.GetArrayFromImage(components) == 1
    assert largest_component(mask).sum() == reference.sum()


def test_voxels_that_touch_by_a_corner_are_apart():
    mask = np.zeros((1, 3, 3), bool)
    mask[0, 0, 0] = mask[0, 1, 1] = mask[0, 1, 2] = True
    assert largest_component(mask).sum() == 2


def test_empty_and_whole_stay_as_they_are():
    empty = np.zeros((2, 3, 3), bool)
    assert not largest_component(empty).any()
    assert largest_component(~empty).all()


def test_cavity_is_what_a_closed_ring_encloses():
    ring = np.zeros((2, 7, 7), bool)
    ring[:, 1:6, 1:6] = True
    ring[:, 2:5, 2:5] = False
    ring[1, 1, 3] = False  # open at one side
    assert cavity(ring).sum(axis=(1, 2)).tolist() == [9, 0]


def test_the_first_of_two_of_one_size_stays():
    mask = np.zeros((1, 1, 5), bool)
    mask[..., [0, 1, 3, 4]] = True
    assert largest_component(mask).ravel().tolist() == [True, True, False, False, False]


def test_gaps_are_closed_before_islands_are_removed():
    mask = np.zeros((2, 11, 11), np.uint8)
    mask[0, 2:9, 2:9] = 1
    mask[0, 5, 5] = 0  # a gap
    mask[0, 0, 10] = 3  # an island, and in the other slice one that is as large as the square
    mask[1, 4:7, 4:7] = 3
    expected = mask.copy()
    expected[0, 5, 5], expected[0, 0, 10] = 1, 0
    np.testing.assert_array_equal(closed_then_opened(mask), expected)


def test_classes_are_grey_values_within_a_slice():
    mask = np.zeros((3, 9, 9), np.uint8)
    mask[0], mask[2] = 2, 2  # what is between is another slice
    mask[1, :, :3], mask[1, :, 4:6], mask[1, :, 6:] = 1, 3, 2
    found = closed_then_opened(mask)
    assert (found[[0, 2]] == 2).all()
    # the gap gets the lower of its neighbours, and so does the strip of two columns
    assert found[1, 4].tolist() == [1, 1, 1, 1, 2, 2, 2, 2, 2]


@pytest.mark.parametrize("seed", range(3))
def test_closing_and_opening_agree_with_simpleitk(seed):
    mask = np.random.default_rng(seed).integers(0, 4, (2, 20, 20)).astype(np.uint8)
    expected = []
    for image in mask:
        closed = sitk.GrayscaleMorphologicalClosing(
            sitk.GetImageFromArray(image), [1, 1], sitk.sitkBox
        )
        opened = sitk.GrayscaleMorphologicalOpening(closed, [1, 1], sitk.sitkBox)
        expected.append(sitk.GetArrayFromImage(opened))
    inside = np.s_[:, 4:-4, 4:-4]  # borders are each library's own
    np.testing.assert_array_equal(closed_then_opened(mask)[inside], np.stack(expected)[inside])
