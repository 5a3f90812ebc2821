"""Volumes out of batches: each slice once, in its place, off the device and out of the graph."""

import numpy as np
import torch

from cardiac_mtl.contracts import UNLABELLED
from cardiac_mtl.evaluation.collect import CaseCollector


def collect(*batches):
    collector = CaseCollector()
    for batch, prediction in batches:
        collector.update(batch, prediction)
    return list(collector.cases())


def test_cases_come_in_the_order_of_the_table_and_slices_base_to_apex(make_batch):
    cases = collect(make_batch(case=5, slices=(1,)), make_batch(case=2), make_batch(5, (3, 0)))
    assert [case.row for case in cases] == [2, 5]
    assert cases[1].slices.tolist() == [0, 1, 3]


def test_each_slice_keeps_its_own_image_mask_and_index(make_batch):
    batch, prediction = make_batch(slices=(2, 0, 1))
    batch["image"] = torch.tensor([2.0, 0.0, 1.0])[:, None, None, None].expand(-1, 1, 12, 12)
    prediction["indices"] = torch.tensor([[20.0], [0.0], [10.0]])
    batch["mask"][0] = UNLABELLED
    (case,) = collect((batch, prediction))
    assert case.image[:, 0, 0].tolist() == [0.0, 1.0, 2.0]
    assert case.indices[:, 0].tolist() == [0.0, 10.0, 20.0]
    assert (case.reference == UNLABELLED).all(axis=(1, 2)).tolist() == [False, False, True]


def test_a_slice_that_comes_twice_counts_once(make_batch):
    (case,) = collect(make_batch(slices=(0, 1)), make_batch(slices=(1, 0)))
    assert case.slices.tolist() == [0, 1]
    assert case.predicted.shape == (2, 12, 12)


def test_types_are_those_promised(make_batch):
    batch, prediction = make_batch()
    prediction["indices"].requires_grad_()
    (case,) = collect((batch, prediction))
    assert case.image.dtype == np.float32
    assert case.reference.dtype == np.int8
    assert case.predicted.dtype == np.uint8
    assert case.spacing == (8.0, 1.5, 2.0)
    np.testing.assert_array_equal(case.predicted, batch["mask"])


def test_what_a_paper_does_not_predict_is_none(make_batch):
    batch, _ = make_batch()
    (case,) = collect((batch, {}))
    assert case.predicted is None
    assert case.indices is None
    assert case.reference_indices.shape == (3, 1)


def test_of_a_cine_the_first_phase_is_the_picture(make_batch):
    batch, prediction = make_batch(slices=(0, 1))
    phases = torch.arange(3.0).view(1, 1, 3, 1, 1).expand(2, 1, 3, 12, 12)
    batch["image"] = phases + 7
    (case,) = collect((batch, prediction))
    assert case.image.shape == (2, 12, 12)
    assert (case.image == 7).all()
