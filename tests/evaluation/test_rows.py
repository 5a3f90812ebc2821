"""Rows: slices put together, failures kept, units right, CSV whole."""

import math

import numpy as np
import pandas as pd
import pytest
import torch

from cardiac_mtl.contracts import UNLABELLED
from cardiac_mtl.evaluation.collect import CaseCollector
from cardiac_mtl.evaluation.function import PATIENT_COLUMNS
from cardiac_mtl.evaluation.rows import (
    CASE_COLUMNS,
    LABEL_COLUMNS,
    SLICE_COLUMNS,
    score,
    write_csv,
)
from cardiac_mtl.metrics.classification import roc

LABELS = {"myocardium": 1}
AREA = 6 * 5 * 1.5 * 2.0


def collect(*batches):
    collector = CaseCollector()
    for batch, prediction in batches:
        collector.update(batch, prediction)
    return list(collector.cases())


def scored(table, *batches):
    return score(collect(*batches), table, LABELS, ("area_mm2",), "honest")


def test_slices_in_any_order_and_twice_become_one_volume(table, make_batch):
    first, second = make_batch(slices=(2, 0)), make_batch(slices=(0, 1))
    (case,) = collect(first, second)
    assert case.slices.tolist() == [0, 1, 2]
    assert case.image.shape == (3, 12, 12)
    assert case.spacing == (8.0, 1.5, 2.0)
    slices, *_ = scored(table, first, second)
    assert slices["slice"].tolist() == [0, 1, 2]


def test_the_regressed_area_stands_beside_the_myocardium_wherever_it_is_named(table, make_batch):
    batch, prediction = make_batch()
    batch["mask"] = 2 * batch["mask"]
    nothing = torch.zeros_like(prediction["mask_prob"][:, :1])
    prediction["mask_prob"] = torch.cat(  # background, right ventricle, myocardium
        [prediction["mask_prob"][:, :1], nothing, prediction["mask_prob"][:, 1:]], dim=1
    )
    labels = {"rv": 1, "myocardium": 2}
    rows = score(collect((batch, prediction)), table, labels, ("area_mm2",), "honest").slices
    regressed = rows.groupby("label")["regressed_area_mm2"]
    assert regressed.count().to_dict() == {"myocardium": 3, "rv": 0}  # it was of the first label
    assert regressed.max()["myocardium"] == pytest.approx(AREA + 10)


def test_a_perfect_prediction(table, make_batch):
    slices, cases, *_ = scored(table, make_batch())
    row = cases.iloc[0]
    assert (row["dice"], row["hd_mm"], row["state"]) == (1.0, 0.0, "ok")
    assert row["volume_ml"] == pytest.approx(3 * AREA * 8 / 1000)
    assert slices["area_mm2"].tolist() == pytest.approx([AREA] * 3)
    assert slices["area_error_mm2"].tolist() == [0.0] * 3
    assert slices["regressed_area_error_mm2"].tolist() == pytest.approx([10.0] * 3)
    assert row["area_error_mm2"] == 0.0
    assert row["regressed_area_error_mm2"] == pytest.approx(10.0)
    assert slices["region"].tolist() == ["basal", "mid", "apical"]
    assert set(slices["protocol"]) == {"honest"}


def test_a_shift_by_two_columns_is_four_millimetres(table, make_batch):
    _, cases, *_ = scored(table, make_batch(shift=2))
    assert cases["hd_mm"].iloc[0] == pytest.approx(4.0)
    assert cases["dice"].iloc[0] == pytest.approx(2 * 3 / (5 + 5))


def test_a_missed_volume_stays_in_the_rows(table, make_batch):
    batch, prediction = make_batch()
    prediction["mask_prob"] = (
        prediction["mask_prob"].flip(1) * 0 + torch.tensor([1.0, 0.0])[None, :, None, None]
    )
    _, cases, *_ = scored(table, (batch, prediction))
    assert cases[["state", "dice"]].iloc[0].tolist() == ["missed", 0.0]
    assert cases["hd_mm"].iloc[0] == pytest.approx(math.hypot(3 * 8, 12 * 1.5, 12 * 2))


def test_slices_without_annotation_are_scored_nowhere(table, make_batch):
    batch, prediction = make_batch()
    batch["mask"][1] = UNLABELLED
    batch["indices"][1] = torch.nan
    slices, cases, *_ = scored(table, (batch, prediction))
    assert slices["slice"].tolist() == [0, 2]
    assert cases[["slices", "slices_annotated"]].iloc[0].tolist() == [3, 2]
    assert cases["dice"].iloc[0] == 1.0


def test_volume_dice_is_not_the_mean_of_slice_dice(table, make_batch):
    batch, prediction = make_batch()
    batch["mask"][0] = 0
    batch["mask"][0, 5, 5] = 1
    slices, cases, *_ = scored(table, (batch, prediction))
    pooled = 2 * (1 + 30 + 30) / (30 * 3 + 61)
    assert cases["dice"].iloc[0] == pytest.approx(pooled)
    assert slices["dice"].mean() == pytest.approx((2 / 31 + 1 + 1) / 3)


def test_phases_are_named_by_the_cavity(table, make_batch):
    ring = [make_batch(case=0), make_batch(case=1)]
    for (batch, _), inside in zip(ring, (6, 5), strict=True):
        batch["mask"][:, 5:inside, 5:6] = 0  # a cavity of one pixel at phase 0, none at phase 1
    _, cases, *_ = scored(table, *ring)
    assert cases["cardiac_phase"].tolist() == ["ED", "ES"]


def test_a_paper_without_mask_has_areas_and_no_overlap(table, make_batch):
    batch, prediction = make_batch()
    del prediction["mask_prob"]
    slices, cases, *_ = scored(table, (batch, prediction))
    assert cases["state"].tolist() == ["not_predicted"]
    assert np.isnan(cases["dice"].iloc[0])
    assert slices["regressed_area_error_mm2"].notna().all()


def test_psnr_counts_the_wrong_pixels_of_a_slice(table, make_batch):
    slices, *_ = scored(table, make_batch(shift=1))
    wrong = (1 - slices["accuracy"]) * 144
    np.testing.assert_allclose(slices["psnr_db"], -10 * np.log10(wrong / 144))
    perfect, *_ = scored(table, make_batch())
    assert np.isinf(perfect["psnr_db"]).all()
    batch, prediction = make_batch()
    batch["mask"][:] = 0
    prediction["mask_prob"][:, 0] = 1
    prediction["mask_prob"][:, 1:] = 0
    nothing, *_ = scored(table, (batch, prediction))
    assert nothing["psnr_db"].isna().all()
    del prediction["mask_prob"]
    unpredicted, *_ = scored(table, (batch, prediction))
    assert unpredicted["psnr_db"].isna().all()


def test_csv_is_written_whole_and_reads_back(tmp_path, table, make_batch):
    slices, *_ = scored(table, make_batch(shift=1))
    write_csv(tmp_path / "slices.csv", slices)
    back = pd.read_csv(tmp_path / "slices.csv", keep_default_na=False, na_values=["nan"])
    assert back.columns.tolist() == slices.columns.tolist()
    np.testing.assert_allclose(back["dice"], slices["dice"], rtol=1e-5)
    assert [p.name for p in tmp_path.iterdir()] == ["slices.csv"]


def test_without_annotation_there_are_columns_and_no_rows(table, make_batch):
    batch, prediction = make_batch()
    batch["mask"][:] = UNLABELLED
    for frames in (scored(table), scored(table, (batch, prediction))):
        assert [list(frame.columns) for frame in frames] == [
            SLICE_COLUMNS,
            CASE_COLUMNS,
            [*PATIENT_COLUMNS, "protocol"],
            LABEL_COLUMNS,
        ]
        assert all(frame.empty for frame in frames)
    slices, cases, *_ = scored(table, make_batch())
    assert list(slices.columns) == SLICE_COLUMNS
    assert list(cases.columns) == CASE_COLUMNS


def test_a_table_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "cases.csv"
    write_csv(path, pd.DataFrame({"dice": [0.123456789]}))
    assert path.read_text() == "dice\n0.123457\n"

    def fail_half_way(_frame, file, **_options):
        file.write_text("dice\n0.")
        raise OSError("disk full")

    monkeypatch.setattr(pd.DataFrame, "to_csv", fail_half_way)
    with pytest.raises(OSError, match="disk full"):
        write_csv(path, pd.DataFrame({"dice": [0.5]}))
    assert path.read_text() == "dice\n0.123457\n"


def test_mask_and_regression_disagree_by_what_the_regression_is_off(table, make_batch):
    slices, cases, *_ = scored(table, make_batch())
    assert slices["area_disagreement_mm2"].tolist() == pytest.approx([10.0] * 3)
    assert cases["area_disagreement_mm2"].iloc[0] == pytest.approx(10.0)


def test_the_disagreement_of_a_case_is_of_all_slices_and_its_errors_of_those_with_the_label(
    table, make_batch
):
    """Without a reference nobody knows which slices hold it; the disagreement is for these."""
    batch, prediction = make_batch()
    batch["mask"][2], batch["indices"][2] = 0, 0
    prediction["indices"][2] += 60
    case = scored(table, (batch, prediction)).cases.iloc[0]
    assert case["area_disagreement_mm2"] == pytest.approx((10 + 10 + 70) / 3)
    assert case["regressed_area_error_mm2"] == pytest.approx(10)


def test_predicted_classes_have_rows_of_their_own(table, make_batch):
    batch, prediction = make_batch()
    batch["label"][:] = 1
    prediction["label_prob"] = torch.tensor([[0.2, 0.8]] * 3)
    labels = scored(table, (batch, prediction)).labels
    assert labels["is_class"].tolist() == [0, 1] * 3
    assert labels["probability"].tolist() == pytest.approx([0.2, 0.8] * 3)
    batch["label"][:] = UNLABELLED
    batch["mask"][:] = UNLABELLED
    unknown = scored(table, (batch, prediction))
    assert unknown.cases.empty
    assert set(unknown.labels["is_class"]) == {UNLABELLED}


def test_either_class_has_one_area_however_sure_a_network_is(tmp_path, table, make_batch):
    rng = np.random.default_rng(0)
    truth = np.arange(200) % 5 == 0
    logit = torch.from_numpy(rng.normal(-14 + 2 * truth, 1)).float()
    second = logit.sigmoid()  # all below 1e-4, and so 1 in six digits of the first class
    batch, prediction = make_batch(slices=tuple(range(200)), size=2)
    prediction["label_prob"] = torch.stack([1 - second, second], dim=1)
    rows = scored(table, (batch, prediction)).labels
    write_csv(tmp_path / "labels.csv", rows)
    read = pd.read_csv(tmp_path / "labels.csv")
    areas = {
        value: roc(of["probability"].to_numpy(float), (truth == value).astype(int)).area
        for value, of in read.groupby("class")
    }
    assert areas[0] == pytest.approx(areas[1], abs=1e-6)
    assert areas[1] == pytest.approx(roc(second.numpy(), truth.astype(int)).area, abs=1e-6)
    assert 0.5 < areas[1] < 1


@pytest.mark.parametrize("column", ["probability", "probability_diseased"])
def test_probabilities_keep_all_digits(tmp_path, column):
    """Those of a sure network would tie, and one above the threshold would be written as at it."""
    sure = pd.DataFrame({column: [0.99999984, 0.99999996]})
    write_csv(tmp_path / "a.csv", sure)
    assert pd.read_csv(tmp_path / "a.csv").equals(sure)
