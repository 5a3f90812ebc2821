"""Components and cavities against SimpleITK and by hand."""

import numpy as np
import pytest
import SimpleITK as sitk

from cardiac_mtl.postprocessing import cavity, largest_component


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
