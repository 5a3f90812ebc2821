"""Which cases are shown, and that their windows hold the heart."""

import numpy as np
import pandas as pd
import pytest

from cardiac_mtl.evaluation.collect import CollectedCase
from cardiac_mtl.report.pictures.gallery import _window, choose, of_patient, read, to_keep
from cardiac_mtl.report.pictures.loops import contours


def cases(*dice):
    return pd.DataFrame(
        {
            "case_id": [f"c{k}" for k in range(len(dice))],
            "patient_id": [f"p{k // 2}" for k in range(len(dice))],
            "dice": dice,
            "label": "myocardium",
        }
    )


@pytest.mark.parametrize(
    ("dice", "expected"),
    [
        ((0.5, 0.9, 0.7, 0.8, 0.1), {"best": "c1", "median": "c2", "worst": "c4"}),
        ((0.5, 0.9), {"best": "c1", "worst": "c0"}),
        ((0.5,), {"best": "c0"}),
        ((), {}),
        ((np.nan, 0.4, 0.0), {"best": "c1", "worst": "c2"}),
    ],
)
def test_best_median_and_worst(dice, expected):
    assert choose(cases(*dice)) == expected


def test_all_phases_of_a_chosen_patient_are_kept():
    assert to_keep(cases(0.9, 0.8, 0.7, 0.6, 0.5, 0.1, 0.55, 0.56)) == [
        "c0", "c1", "c2", "c3", "c4", "c5"
    ]  # fmt: skip


def test_with_several_labels_every_method_keeps_the_first_patients():
    one = cases(*np.linspace(0.2, 0.9, 20))
    assert to_keep(one) == ["c0", "c1", "c10", "c11", "c18", "c19"]
    both = pd.concat([one, one.assign(label="rv")])
    assert to_keep(both) == [f"c{k}" for k in (*range(8), 10, 11, 18, 19)]


def test_of_one_volume_a_patient_every_method_keeps_the_first():
    one = cases(*np.linspace(0.2, 0.9, 20))
    one["patient_id"] = [f"q{k:02d}" for k in range(20)]
    assert to_keep(one) == ["c0", "c1", "c2", "c3", "c10", "c19"]


def test_windows_of_one_patient_are_alike_and_hold_both_masks(runs):
    folder = runs / "mtn_unet/fold0/gallery"
    windows = [read(path) for path in sorted(folder.glob("*.npz"))]
    assert {w.image.dtype for w in windows} == {np.dtype(np.uint8)}
    patients = {path.name.partition("_")[0] for path in folder.glob("*.npz")}
    for patient in patients:
        shapes = {read(path).image.shape for path in folder.glob(f"{patient}_*.npz")}
        assert len(shapes) == 1
    for window in windows:
        assert (window.reference > 0).any()
        assert (window.predicted > 0).any()
        assert not (window.reference[:, 0] > 0).any()
    assert [p.name for p in folder.iterdir() if p.name.startswith(".")] == []


def test_visits_of_one_patient_are_no_beat(runs):
    folder = runs / "mtn_unet/fold0"
    rows = pd.read_csv(folder / "cases.csv")
    files = {path.stem: path for path in (folder / "gallery").glob("*.npz")}
    name = next(iter(files))
    alone = [row["case_id"] for row, _ in of_patient(name, rows.assign(phase="ED"), files)]
    assert alone == [name]
    assert len(of_patient(name, rows, files)) > 1


def test_around_a_small_infarct_one_sees_the_heart():
    found = np.zeros((1, 100, 100), np.int8)
    found[0, 50:52, 10:12] = 1
    case = CollectedCase(
        row=0, slices=np.arange(1), image=found.astype(np.float32), reference=found,
        predicted=found.astype(np.uint8), spacing=(8.0, 1.5, 2.0), indices=None,
        reference_indices=np.zeros((1, 0), np.float32),
    )  # fmt: skip
    rows, columns = _window([case])
    assert (rows.stop - rows.start) * 1.5 == pytest.approx(90, abs=3)
    assert (columns.start, columns.stop * 2.0) == (0, pytest.approx(24 + 43, abs=3))  # the border


def test_contours_run_around_the_pixels_in_halves():
    mask = np.zeros((5, 6), int)
    mask[1:3, 2:5] = 1
    (line,) = contours(mask)
    x, y = line.T / 2
    assert (x.min(), x.max(), y.min(), y.max()) == (2.0, 5.0, 1.0, 3.0)
    assert len(x) <= 9  # straight stretches keep their ends alone
