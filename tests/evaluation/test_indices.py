"""Indices of an infarct in the rows: the table of shape.py, per annotated slice."""

from dataclasses import replace

import numpy as np
import pytest

from cardiac_mtl.contracts import UNLABELLED
from cardiac_mtl.evaluation.indices import INDEX_COLUMNS, index_rows
from cardiac_mtl.report.tables.summary import index_summary


def test_sizes_errors_and_slices_without_annotation(make_volume):
    reference = np.zeros((3, 20, 20), np.int8)
    reference[:, 4:12, 4:12] = 1
    reference[0, 5:7, 5:9] = 2
    reference[2] = UNLABELLED
    predicted = np.roll(np.maximum(reference, 0), 3, axis=2)
    frame = index_rows(make_volume(reference, predicted), "c", "p", "infarct", 2, 1)
    assert list(frame.columns) == INDEX_COLUMNS
    assert frame["slice"].tolist() == [0, 1]
    first = frame.iloc[0]
    assert first["reference_size_mm2"] == first["size_mm2"] == 8.0
    assert first["reference_segment_percent"] == pytest.approx(100 * 8 / 64)
    assert first["centroid_mm_error"] == pytest.approx(3.0)
    assert frame["size_mm2"].iloc[1] == 0.0
    assert np.isnan(frame["perimeter_mm_error"].iloc[1])
    assert frame.filter(like="regressed_").isna().all(axis=None)


def test_regressed_indices_stand_beside_those_of_the_mask(make_volume):
    reference = np.full((2, 20, 20), 2, np.int8)
    reference[0, 4:12, 4:12] = 1
    predicted = np.zeros_like(reference)
    predicted[0, 4:8, 4:12] = 1
    case = replace(
        make_volume(reference, predicted),
        indices=np.tile(np.array([[60, 10, 30, 8, 8, 9, 9, 80]], np.float32), (2, 1)),
        reference_indices=np.array([[64, 16, 28, 7.5, 7.5, 9, 9, -80], [0, 0, *[np.nan] * 6]]),
    )
    frame = index_rows(case, "c", "p", "infarct", 1, 2, wall_of_reference=True)
    infarcted, healthy = frame.to_dict("records")
    assert infarcted["segment_percent"] == pytest.approx(100 * 32 / 400)
    assert infarcted["regressed_size_mm2_error"] == 4
    assert infarcted["regressed_orientation_deg_error"] == 20
    assert infarcted["regressed_centroid_mm_error"] == pytest.approx(0.5 * np.sqrt(2))
    assert infarcted["reference_orientation_deg"] == -80
    assert healthy["regressed_size_mm2_error"] == 60
    assert np.isnan(healthy["regressed_centroid_mm_error"])
    errors = index_summary(frame).set_index("index")
    assert errors.loc["size_mm2", "regressed"] == "32.00±39.60"
    assert errors.loc["centroid_mm", "regressed, slices"] == "1"


def test_the_percentage_is_unknown_where_nobody_drew_the_myocardium(make_volume):
    reference = np.zeros((2, 20, 20), np.int8)
    reference[0, 4:8, 4:8] = 1
    predicted = np.zeros_like(reference)
    predicted[0, 4:8, 4:6] = 1
    given = [[16, np.nan, 12, 5.5, 5.5, 4, 4, 0], [0, *[np.nan] * 7]]
    case = replace(
        make_volume(reference, predicted),
        indices=np.full((2, 8), 12, np.float32),
        reference_indices=np.array(given),
    )
    frame = index_rows(case, "c", "p", "infarct", 1, 2, wall_of_reference=True)
    percents = [f"{side}segment_percent" for side in ("", "reference_")]
    percents += ["segment_percent_error", "regressed_segment_percent_error"]
    assert frame.loc[0, percents].isna().all()
    assert frame.loc[0, ["reference_size_mm2", "size_mm2"]].tolist() == [16, 8]


def test_an_infarct_in_no_predicted_myocardium_has_no_percentage(make_volume):
    reference = np.zeros((1, 20, 20), np.int8)
    reference[:, 4:12, 4:12] = 1
    reference[0, 5:7, 5:9] = 2
    predicted = np.where(reference == 2, 2, 0)
    (row,) = index_rows(make_volume(reference, predicted), "c", "p", "infarct", 2, 1).to_dict(
        "records"
    )
    assert row["size_mm2_error"] == 0.0
    assert np.isnan(row["segment_percent"])
    assert np.isnan(row["segment_percent_error"])
