"""Indices of an infarct in the rows: the table of shape.py, per annotated slice."""

import numpy as np
import pytest

from cardiac_mtl.contracts import UNLABELLED
from cardiac_mtl.evaluation.indices import INDEX_COLUMNS, index_rows


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
