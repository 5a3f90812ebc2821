"""Tables of the infarct indices, and cines in the gallery."""

import numpy as np
import pandas as pd
import pytest

from cardiac_mtl.evaluation.collect import CollectedCase
from cardiac_mtl.evaluation.indices import INDEX_COLUMNS
from cardiac_mtl.report.methods import Method, Run
from cardiac_mtl.report.page import _exhibits
from cardiac_mtl.report.pictures.gallery import read, write_gallery
from cardiac_mtl.report.tables.fidelity import fidelity
from cardiac_mtl.report.tables.infarcts import (
    comparisons_shown,
    errors_shown,
    index_comparisons,
    index_errors_of,
)


@pytest.fixture
def method(tmp_path):
    """Return a maker of methods: name, and the error of the regressed size in each slice."""

    def make(name, errors, **names):
        rows = pd.DataFrame(columns=INDEX_COLUMNS, index=range(len(errors)))
        rows["patient_id"] = [f"p{k // 2}" for k in range(len(errors))]
        rows["case_id"], rows["slice"] = rows["patient_id"], [k % 2 for k in range(len(errors))]
        rows = rows.astype({c: float for c in rows if c.endswith("_error")})
        rows["regressed_size_mm2_error"] = errors
        cases = rows[["patient_id", "case_id"]].drop_duplicates(ignore_index=True)
        cases = cases.assign(label="infarct", dice=np.nan)
        identity = {"experiment": name, "protocol": "honest", "layout": "cine"}
        empty = pd.DataFrame({"patient_id": []})
        run = Run(tmp_path, identity, cases, cases, cases, empty, rows, empty, pd.DataFrame())
        return Method(name, [run], "hearts", **names)

    return make


def test_errors_are_averaged_over_slices_and_bounded_by_patients(method):
    table = index_errors_of([method("mutgan", [1.0, 3.0, 5.0, np.nan])])
    (row,) = table.to_dict("records")
    assert (row["index"], row["source"]) == ("size_mm2", "regressed")
    assert (row["slices"], row["patients"], row["mean"], row["median"]) == (3, 2, 3.0, 3.0)
    # either patient twice, or both
    assert (row["low"], row["high"]) == (2.0, 5.0)
    (shown,) = errors_shown(table).to_dict("records")
    assert shown["mutgan, regressed"] == "3.00 ± 2.00 [2.00, 5.00], n 3"


def test_errors_of_one_patient_have_no_interval(method):
    first, second = (method(name, [1.0, 3.0]) for name in ("mutgan", "mutgan_generator"))
    (shown,) = errors_shown(index_errors_of([first])).to_dict("records")
    assert shown["mutgan, regressed"] == "2.00 ± 1.41, n 2"
    (shown,) = comparisons_shown(index_comparisons([first, second])).to_dict("records")
    assert shown["difference of errors [95 %]"] == "+0.00"


def test_methods_are_compared_on_the_slices_that_both_have(method):
    first = method("mutgan", [1.0, 3.0, 5.0, np.nan])
    second = method("mutgan_generator", [2.0, 4.0, np.nan, 9.0])
    (row,) = index_comparisons([first, second]).to_dict("records")
    assert (row["slices"], row["difference"]) == (2, 1.0)
    assert index_comparisons([first]).empty
    assert comparisons_shown(index_comparisons([first])).empty
    (shown,) = comparisons_shown(index_comparisons([first, second])).to_dict("records")
    assert shown["second minus first"] == f"{row['second']} - {row['first']}"
    assert shown["difference of errors [95 %]"] == "+1.00"  # of one patient


def test_methods_of_several_seeds_are_compared_once_by_their_means(method):
    first = [
        method(f"mutgan, seed {k}", [1.0, 3.0, 5.0, np.nan], family="mutgan") for k in range(2)
    ]
    seeds = [
        method(f"mutgan_generator, seed {k}", errors, family="mutgan_generator")
        for k, errors in enumerate(([2.0, 4.0, 6.0, 9.0], [4.0, 6.0, np.nan, 9.0]))
    ]
    (row,) = index_comparisons([*first, *seeds]).to_dict("records")
    assert (row["second"], row["slices"]) == ("mutgan_generator", 3)
    assert row["difference"] == pytest.approx((2 + 2 + 1) / 3)
    assert row["p_holm"] == row["p_wilcoxon"]


def test_the_papers_values_stand_beside_ours(method):
    table = fidelity([method("mutgan", [1.0, 3.0, 5.0, 7.0])])
    sizes = table[table["quantity"] == "infarct size mean"]
    assert sizes["paper_value"].tolist() == [22.31, 22.31, 22.31]
    assert set(sizes["ours"]) == {4.0}
    assert set(sizes["comparable"]) == {"no: other patients"}


def test_a_cine_plays_in_the_gallery(tmp_path):
    frames = np.random.default_rng(0).normal(size=(5, 3, 40, 40)).astype(np.float16)
    reference = np.zeros((3, 40, 40), np.int8)
    reference[1, 10:20, 12:20] = 1
    case = CollectedCase(
        row=0, slices=np.arange(3), image=frames[0].astype(np.float32), reference=reference,
        predicted=reference.astype(np.uint8), spacing=(8.0, 1.5, 1.5), indices=None,
        reference_indices=np.zeros((3, 0), np.float32), frames=frames,
    )  # fmt: skip
    cases = pd.DataFrame(
        [{"case_id": "p0", "patient_id": "p0", "label": "infarct", "dice": 1.0, "phase": "",
          "cardiac_phase": ""}]
    )  # fmt: skip
    write_gallery(tmp_path / "gallery", cases, [("p0", case)])
    assert read(tmp_path / "gallery/p0.npz").image.shape[:2] == (5, 3)
    slices = pd.DataFrame({"case_id": ["p0"], "slice": [1], "dice": [1.0], "patient_id": ["p0"]})
    empty = pd.DataFrame({"patient_id": []})
    run = Run(tmp_path, {}, slices, cases, cases, empty, empty, empty, pd.DataFrame())
    (exhibit,) = _exhibits(Method("mutgan", [run]))
    assert [phase["name"] for phase in exhibit.loop["phases"]] == ["0", "1", "2", "3", "4"]
    assert exhibit.loop["start"] == [0, 1]
