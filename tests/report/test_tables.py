"""The table of results: failures stand beside every mean."""

import math

import pandas as pd
import pytest

from cardiac_mtl.contracts import UNLABELLED
from cardiac_mtl.report.tables.summary import class_summary, summary, to_markdown, to_text


@pytest.fixture
def rows():
    cases = pd.DataFrame(
        {
            "case_id": ["a", "b", "c", "d"],
            "label": ["myocardium"] * 4,
            "cardiac_phase": ["ED", "ES", "ED", "ED"],
            "state": ["ok", "ok", "missed", "both_empty"],
            "dice": [0.9, 0.7, 0.0, math.nan],
            "jaccard": [0.8, 0.5, 0.0, math.nan],
            "msd_mm": [1.0, 2.0, 300.0, math.nan],
            "hd_mm": [5.0, 9.0, 300.0, math.nan],
            "protocol": ["honest"] * 4,
        }
    )
    slices = pd.DataFrame(
        {
            "case_id": ["a", "a", "b"],
            "label": ["myocardium"] * 3,
            "reference_area_mm2": [100.0, 0.0, 200.0],
            "area_error_mm2": [10.0, 999.0, 30.0],
            "regressed_area_error_mm2": [math.nan] * 3,
        }
    )
    return cases, slices


def test_means_include_misses_and_leave_out_what_is_empty_in_both(rows):
    table = summary(*rows).set_index("phase")
    whole = table.loc["all"]
    assert (whole["n"], whole["n_missed"], whole["n_both_empty"]) == (4, 1, 1)
    assert whole["dice_mean"] == pytest.approx(1.6 / 3)
    assert whole["dice_mean_without_misses"] == pytest.approx(0.8)
    assert whole["hd_mm_worst"] == 300.0
    assert table.index.tolist() == ["ED", "ES", "all"]


def test_areas_are_averaged_over_slices_that_hold_the_label(rows):
    row = summary(*rows).set_index("phase").loc["all"]
    assert row["n_slices"] == 2
    assert row["segmented_area_error_mm2_mean"] == pytest.approx(20.0)
    assert math.isnan(row["regressed_area_error_mm2_mean"])


def test_both_layouts_show_counts_and_no_empty_column(rows):
    for layout in (to_text, to_markdown):
        shown = layout(summary(*rows))
        assert "4 (1/0/1)" in shown
        assert "0.533" in shown
        assert "regr" not in shown
        assert "chosen without test patients" in shown


def test_an_optimistic_run_says_so(rows):
    cases, slices = rows
    assert "OPTIMISTIC" in to_text(summary(cases.assign(protocol="paper_optimistic"), slices))


def test_one_optimistic_run_makes_the_pooled_table_optimistic(rows):
    cases, slices = rows
    cases.loc[3, "protocol"] = "paper_optimistic"
    pooled = summary(cases, slices)
    assert "OPTIMISTIC" in to_text(pooled)
    assert "validation" not in to_text(pooled)
    assert pooled.set_index("phase").loc["all", "protocol"] == "paper_optimistic"


def test_the_mean_without_failures_is_printed_beside_the_mean(rows):
    for layout in (to_text, to_markdown):
        assert "myocardium, all: 0.800" in layout(summary(*rows))
        assert "where both are there" not in layout(summary(rows[0][:2], rows[1]))


def test_the_table_fits_a_hundred_columns(rows):
    cases, slices = rows
    cases = cases.assign(label="rv blood pool", msd_mm=12.34, hd_mm=123.4)
    slices = slices.assign(label="rv blood pool", regressed_area_error_mm2=[1.0, 2.0, 450.0])
    assert max(map(len, to_text(summary(cases, slices)).splitlines())) <= 100


def test_where_nothing_was_scored_the_table_says_so(rows):
    cases, slices = rows
    for layout in (to_text, to_markdown):
        assert "No mask was scored" in layout(summary(cases[:0], slices[:0]))


def test_regressed_areas_have_their_column_where_there_are_some(rows):
    cases, slices = rows
    slices["regressed_area_error_mm2"] = [4.0, 999.0, 6.0]
    assert "regr. mm2" in to_text(summary(cases, slices))
    assert "5±1" in to_text(summary(cases, slices))


def images(**columns):
    """Five images, the last without a true class; both classes' rows of `labels.csv`."""
    second = pd.DataFrame(
        {
            "class": "1",
            "class_name": "diseased",
            "is_class": [1, 1, 0, 0, UNLABELLED],
            "probability": [0.9, 0.3, 0.4, 0.1, 0.5],
            "threshold": 0.2,
            "called": [1, 1, 1, 0, 1],
        }
    ).assign(**columns)
    first = second.assign(
        **{"class": "0"},
        class_name="healthy",
        is_class=[0, 0, 1, 1, UNLABELLED],
        probability=1 - second["probability"],
        threshold=1 - second["threshold"],
        called=1 - second["called"],
    )
    return pd.concat([first, second])


def test_the_calls_of_either_class_are_rated_at_one_half_and_at_the_threshold_of_the_run():
    table = class_summary(images()).set_index(["positive class", "above"])
    assert set(table["images (of it)"]) == {"4 (2)"}
    assert set(table["AUC"]) == {"0.750"}  # of four pairs the one of 0.3 and 0.4 is wrong
    rates = ["accuracy", "sensitivity", "specificity"]
    assert table.loc[("diseased", "0.5"), rates].tolist() == ["0.750", "0.500", "1.000"]
    assert table.loc[("diseased", "0.2, chosen"), rates].tolist() == ["0.750", "1.000", "0.500"]
    assert table.loc[("healthy", "0.8, chosen"), rates].tolist() == ["0.750", "0.500", "1.000"]


def test_a_run_that_calls_at_one_half_has_one_row_a_class_and_a_run_without_classes_none():
    table = class_summary(images(threshold=0.5, called=[1, 0, 0, 0, 0]))
    assert table["above"].tolist() == ["0.5", "0.5"]
    assert class_summary(images().head(0)).empty
