"""Table and figure of infarct pixels, against numbers by hand."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from cardiac_mtl.evaluation.pixels import MYOCARDIUM, REGION
from cardiac_mtl.metrics.binned import LOG_ODDS, count_in_bins
from cardiac_mtl.report.methods import Method, Run
from cardiac_mtl.report.pictures.pixel_plots import pixel_curves
from cardiac_mtl.report.tables.fidelity import fidelity, published_pixels
from cardiac_mtl.report.tables.pixels import BY_PATIENT, POOLED, pixel_measures, pixels_shown

CALLS = {"p0": (8, 2, 2, 88), "p1": (1, 0, 3, 16), "p2": (0, 5, 0, 95)}
"""True and false positives, false and true negatives; the last has no infarct."""


def rows_of(patient, tp, fp, fn, tn, place=REGION):
    truth = np.repeat([True, False, True, False], [tp, fp, fn, tn])
    probability = np.repeat([0.9, 0.8, 0.3, 0.2], [tp, fp, fn, tn])
    positives, negatives = count_in_bins(probability, truth)
    held = positives + negatives > 0
    return pd.DataFrame(
        {"case_id": patient, "patient_id": patient, "pixels": place, "log_odds": LOG_ODDS[held],
         "positives": positives[held], "negatives": negatives[held]}
    )  # fmt: skip


def a_method(tmp_path, *frames, name="mutgan"):
    empty = pd.DataFrame({"patient_id": [], "class": [], "label": []})
    identity = {"experiment": name, "protocol": "honest", "layout": "cine"}
    runs = [
        Run(tmp_path, identity, empty, empty, empty, empty, empty, frame, empty) for frame in frames
    ]
    return Method(name, runs, "hearts")


@pytest.fixture
def method(tmp_path):
    """A method of two folds, whose patients are few enough to count by hand."""
    return a_method(
        tmp_path,
        pd.concat([rows_of("p0", *CALLS["p0"]), rows_of("p1", *CALLS["p1"])]),
        pd.concat([rows_of("p2", *CALLS["p2"]), rows_of("p0", 3, 1, 1, 5, MYOCARDIUM)]),
    )


def test_pixels_are_pooled_over_folds_and_averaged_over_patients(method):
    table = pixel_measures([method])
    assert table["pixels"].tolist() == [REGION, REGION, MYOCARDIUM, MYOCARDIUM]
    pooled, means = table.iloc[0], table.iloc[1]
    assert (pooled["average"], means["average"]) == (POOLED, BY_PATIENT)
    tp, fp, fn, tn = np.sum(list(CALLS.values()), axis=0)
    assert pooled["sensitivity"] == pytest.approx(tp / (tp + fn))
    assert pooled["specificity"] == pytest.approx(tn / (tn + fp))
    assert pooled["dice"] == pytest.approx(2 * tp / (2 * tp + fp + fn))
    assert pooled["share_of_infarct"] == pytest.approx((tp + fn) / 220)
    assert means["accuracy"] == pytest.approx((96 / 100 + 17 / 20 + 95 / 100) / 3)
    assert means["sensitivity"] == pytest.approx((0.8 + 0.25) / 2)  # one has no infarct
    assert means["dice"] == pytest.approx((16 / 20 + 2 / 5 + 0) / 3)
    assert np.isnan(means["auc"])
    # pairs by score: 0.9 above all, 0.8 negatives above the 0.3 positives, those above 0.2
    pairs = tp * (fp + tn) + fn * tn
    assert pooled["auc"] == pytest.approx(pairs / ((tp + fn) * (fp + tn)))
    precision = (tp * 1.0 + fn * (tp + fn) / (tp + fp + fn)) / (tp + fn)
    assert pooled["average_precision"] == pytest.approx(precision)
    assert pooled["auc_bound"] == pytest.approx(0, abs=1e-12)  # no bin holds both
    assert pooled["auc_low"] <= pooled["auc"] <= pooled["auc_high"]
    assert pooled["sensitivity_low"] < pooled["sensitivity"] < pooled["sensitivity_high"]


def test_the_papers_rates_stand_below_and_beside(method):
    (row,) = published_pixels([method]).to_dict("records")
    assert (row["accuracy"], row["sensitivity"], row["specificity"]) == (0.9646, 0.9182, 0.9821)
    table = pd.concat([pixel_measures([method]), published_pixels([method])], ignore_index=True)
    shown = pixels_shown(table)
    assert shown["accuracy"].iloc[-1] == "0.965"
    assert shown["patients"].tolist() == ["3", "3", "1", "1", "—"]
    assert shown["infarct"].iloc[0] == "6.4%"
    ours = fidelity([method]).set_index("quantity")["ours"]
    assert ours["infarct sensitivity value"] == pytest.approx((0.8 + 0.25) / 2)


def test_both_curves_are_drawn_with_their_areas(method):
    (picture,) = pixel_curves([method])
    table = pixel_measures([method])
    assert (
        f"AUC {table['auc'].iloc[0]:.3f}, AP {table['average_precision'].iloc[0]:.3f}"
        in picture.alt
    )
    assert len(picture.figure.axes) == 4
    roc = picture.figure.axes[0].lines[0]
    assert (roc.get_xdata()[-1], roc.get_ydata()[-1]) == (1, 1)


def test_no_legend_hides_a_curve(method):
    (picture,) = pixel_curves([method])
    FigureCanvasAgg(picture.figure).draw()
    for ax in picture.figure.axes:
        legend = ax.get_legend().get_window_extent()
        assert not legend.overlaps(ax.get_window_extent())
        assert picture.figure.bbox.y0 <= legend.y0


def test_masks_have_rates_and_no_curve(tmp_path):
    frame = rows_of("p0", 5, 0, 0, 20)
    frame["log_odds"] = [-10.0, np.inf]
    masks = a_method(tmp_path, frame, name="another tool")
    table = pixel_measures([masks])
    assert table["accuracy"].tolist() == [1.0, 1.0]
    assert table["auc"].isna().all()
    assert list(pixel_curves([masks])) == []
    assert published_pixels([masks]).empty


def test_without_pixels_there_is_nothing(tmp_path):
    none = a_method(tmp_path, pd.DataFrame({"patient_id": []}))
    assert pixel_measures([none]).empty
    assert list(pixel_curves([none])) == []
