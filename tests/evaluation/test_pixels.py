"""Counts of pixels by probability: which pixels, of which slices, in which place."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from cardiac_mtl.contracts import UNLABELLED
from cardiac_mtl.evaluation.collect import CaseCollector
from cardiac_mtl.evaluation.pixels import MYOCARDIUM, PIXEL_COLUMNS, REGION, pixel_rows


@pytest.fixture
def case(make_volume):
    """Two slices of a wall with an infarct in it, and one that is not annotated."""
    reference = np.zeros((3, 10, 10), np.int8)
    reference[:2, 2:8, 2:8] = 2
    reference[0, 3:5, 3:7] = 1
    reference[2] = UNLABELLED
    probability = np.full(reference.shape, 0.1, np.float32)
    probability[0, 3:5, 3:6] = 0.9
    probability[:, 0, 0] = 0.9
    return replace(make_volume(reference, reference == 1), probability=probability)


def counts(frame, place):
    rows = frame[frame["pixels"] == place]
    above = rows["log_odds"] > 0
    return rows[above][["positives", "negatives"]].sum().tolist(), rows[
        ["positives", "negatives"]
    ].sum().tolist()


def test_each_place_holds_its_pixels_of_annotated_slices(case):
    frame = pixel_rows(case, "c", "p", "infarct", 1, 2)
    assert list(frame.columns) == PIXEL_COLUMNS
    assert counts(frame, REGION) == ([6, 2], [8, 192])
    assert counts(frame, MYOCARDIUM) == ([6, 0], [8, 64])
    assert len(frame) == 4  # bins that hold a pixel
    # the bin of 0.9 ends at the next multiple of 0.02 above ln 9
    assert frame["log_odds"].max() == pytest.approx(np.ceil(np.log(9) * 50) / 50)


def test_without_a_myocardium_there_is_the_region_alone(case):
    assert set(pixel_rows(case, "c", "p", "infarct", 1, None)["pixels"]) == {REGION}
    bare = replace(case, reference=np.where(case.reference == 2, 0, case.reference))
    assert set(pixel_rows(bare, "c", "p", "infarct", 1, 2)["pixels"]) == {REGION}


def test_a_mask_stands_for_probabilities_of_0_and_1(case):
    frame = pixel_rows(replace(case, probability=None), "c", "p", "infarct", 1, 2)
    assert counts(frame, REGION) == ([8, 0], [8, 192])
    assert set(frame["log_odds"]) == {-10, np.inf}


def test_nothing_predicted_or_annotated_is_no_row(case):
    absent = replace(case, probability=None, predicted=None)
    unknown = replace(case, reference=np.full_like(case.reference, UNLABELLED))
    for one in (absent, unknown):
        assert pixel_rows(one, "c", "p", "infarct", 1, 2).empty


def test_rows_survive_the_way_through_a_file(case, tmp_path):
    frame = pixel_rows(replace(case, probability=None), "c", "p", "infarct", 1, 2)
    frame.to_csv(tmp_path / "pixels.csv", index=False, float_format="%.6g")
    pd.testing.assert_frame_equal(
        pd.read_csv(tmp_path / "pixels.csv"), frame.reset_index(drop=True), check_dtype=False
    )


def test_probabilities_are_kept_where_they_are_asked_for(make_batch):
    batch, prediction = make_batch(slices=(1, 0))
    prediction["mask_prob"] = torch.rand(2, 2, 12, 12)
    for asked in (False, True):
        collector = CaseCollector(probabilities=asked)
        collector.update(batch, prediction)
        (collected,) = collector.cases()
        if asked:
            expected = prediction["mask_prob"][[1, 0], 1].numpy()
            np.testing.assert_array_equal(collected.probability, expected)
        else:
            assert collected.probability is None
