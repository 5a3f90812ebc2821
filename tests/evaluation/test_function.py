"""Function of the heart against closed form: cylinders whose volumes are known."""

import math

import numpy as np
import pandas as pd
import pytest

from cardiac_mtl.contracts import UNLABELLED
from cardiac_mtl.evaluation.function import (
    CHAMBER_COLUMNS,
    chambers_of,
    patient_rows,
    without_function,
)
from cardiac_mtl.evaluation.rows import assemble, score_case

RING = {"myocardium": 1}


def cylinder(inner, outer, cavity_value=0, slices=3, size=64):
    rows, columns = np.ogrid[:size, :size]
    radius = np.hypot(rows - size / 2, columns - size / 2)
    mask = np.where(radius < outer, 1, 0)
    mask[radius < inner] = cavity_value
    return np.broadcast_to(mask, (slices, size, size)).astype(np.int8)


def info(phase, patient="p"):
    return {
        "case_id": f"{patient}_{phase}", "patient_id": patient, "phase": phase,
        "pathology": "", "centre": "", "vendor": "",
    }  # fmt: skip


@pytest.fixture
def heart(make_volume):
    """Return a maker of the patients' frame of phases: name -> (reference, predicted)."""

    def make(pairs, labels=RING):
        rows = [score_case(make_volume(*p), info(phase), labels) for phase, p in pairs.items()]
        return assemble(rows, "honest").patients

    return make


def test_ed_and_es_of_a_cine_are_found_and_ef_is_that_of_the_radii(heart):
    phases = {str(t): (cylinder(r, 26), cylinder(r, 26)) for t, r in enumerate((20, 16, 10, 14))}
    row = heart(phases).iloc[0]
    assert (row["ed_phase"], row["es_phase"], row["phases"]) == ("0", "2", 4)
    assert row["edv_ml"] == pytest.approx(3 * 10 * math.pi * 20**2 / 1000, rel=0.01)
    assert row["ef_percent"] == pytest.approx(100 * (1 - 10**2 / 20**2), abs=1.0)
    assert row["mass_g"] == pytest.approx(
        1.05 * 3 * 10 * math.pi * (26**2 - 20**2) / 1000, rel=0.02
    )
    assert row["ed_wall_mm"] == pytest.approx(6.0, abs=0.4)
    assert row["reference_ef_percent"] == row["ef_percent"]
    assert row["flags"] == ""


def test_the_prediction_finds_its_own_phases(heart):
    phases = {
        "0": (cylinder(20, 26), cylinder(18, 26)),
        "1": (cylinder(12, 26), cylinder(10, 26)),
        "2": (cylinder(14, 26), cylinder(8, 26)),
    }
    row = heart(phases).iloc[0]
    assert (row["es_phase"], row["reference_es_phase"]) == ("2", "1")


def test_named_phases_are_believed_and_the_impossible_is_flagged_not_clipped(heart):
    phases = {
        "ED": (cylinder(20, 26), cylinder(10, 26)),
        "ES": (cylinder(10, 26), cylinder(20, 26)),
    }
    row = heart(phases).iloc[0]
    assert row["ef_percent"] == pytest.approx(-300, rel=0.05)
    assert "ESV larger than EDV" in row["flags"]
    assert row["reference_flags"] == ""


def test_a_cavity_that_is_never_found_is_no_patient_without_one(heart):
    opened = cylinder(20, 26).copy()
    opened[:, 32, :32] = 0
    row = heart({"0": (cylinder(20, 26), opened), "1": (cylinder(10, 26), opened)}).iloc[0]
    assert (row["ed_phase"], row["es_phase"]) == ("0", "1")
    assert row["edv_ml"] == row["esv_ml"] == 0
    assert math.isnan(row["ef_percent"])
    assert row["mass_g"] == pytest.approx(1.05 * opened.sum() * 10 / 1000)
    assert row["flags"] == "no cavity at ED; no cavity at ES"
    assert row["reference_edv_ml"] > 0


def test_where_no_reference_has_a_cavity_none_is_missed(heart):
    disc = cylinder(0, 20)
    row = heart({"0": (disc, disc), "1": (disc, disc)}).iloc[0]
    assert math.isnan(row["edv_ml"])
    assert row["flags"] == ""


def test_a_cavity_with_a_label_of_its_own_needs_no_ring(heart):
    labels = {"lv": 3, "myo": 1, "rv": 2}
    reference = cylinder(20, 26, cavity_value=3)
    half_open = reference.copy()
    half_open[:, :32][half_open[:, :32] == 1] = 2
    frame = heart({"ED": (reference, half_open), "ES": (reference, half_open)}, labels)
    left, right = (frame[frame["chamber"] == c].iloc[0] for c in ("lv", "rv"))
    assert left["edv_ml"] == left["reference_edv_ml"]
    assert right["edv_ml"] > 0
    assert math.isnan(right["mass_g"])
    assert "mass" not in right["flags"]


def test_a_lone_phase_has_a_volume_and_no_fraction(heart):
    row = heart({"ED": (cylinder(20, 26), cylinder(20, 26))}).iloc[0]
    assert row["edv_ml"] > 0
    assert math.isnan(row["ef_percent"])
    assert row["flags"] == ""


@pytest.mark.parametrize("phases", [{"": None}, {"7": None}])
def test_a_lone_phase_without_a_name_says_nothing(heart, phases):
    assert heart({p: (cylinder(20, 26), cylinder(20, 26)) for p in phases}).empty


def test_without_a_predicted_mask_the_reference_stands_alone(heart):
    row = heart({"ED": (cylinder(20, 26), None), "ES": (cylinder(10, 26), None)}).iloc[0]
    assert math.isnan(row["edv_ml"])
    assert row["reference_ef_percent"] == pytest.approx(75, abs=1.0)


def test_two_sequences_of_one_phase_are_no_cine(make_volume):
    known = np.ones(3, bool)
    chambers = [
        info("") | row
        for _ in range(2)
        for row in chambers_of(make_volume(cylinder(20, 26), cylinder(20, 26)), known, RING)
    ]
    assert patient_rows(pd.DataFrame(chambers, columns=CHAMBER_COLUMNS)).empty


def visits(make_volume, phases):
    """Score two visits of one patient and one of another, the second visit with a smaller heart."""
    volumes = {"p_1": ("p", 20), "p_2": ("p", 12), "q_1": ("q", 20)}
    rows = []
    for visit, (patient, radius) in volumes.items():
        for phase, inner in zip(phases, (radius, radius - 6), strict=True):
            mask = cylinder(inner, 26)
            named = info(phase, patient) | {"case_id": f"{visit}_{phase}"}
            rows.append(score_case(make_volume(mask, mask), named, RING))
    return assemble(rows, "honest")


@pytest.mark.parametrize("phases", [("ED", "ES"), ("0", "7")])
def test_a_patient_seen_twice_has_no_function_and_that_is_said(make_volume, phases):
    frames = visits(make_volume, phases)
    assert frames.patients["patient_id"].tolist() == ["q"]
    assert without_function(frames.cases).startswith("of 1 of 2 patients a phase comes several")
    assert not without_function(frames.cases[frames.cases["patient_id"] == "q"])


def test_volumes_without_a_phase_lack_no_function(make_volume):
    cases = visits(make_volume, ("ED", "ES")).cases.assign(phase="")
    assert not without_function(cases)


def test_no_phase_of_a_patient_seen_twice_is_named_by_the_other_visit(make_volume):
    cases = visits(make_volume, ("0", "7")).cases
    assert cases["cardiac_phase"].tolist() == ["", "", "", "", "ED", "ES"]


def test_slices_without_annotation_are_in_no_volume(heart):
    reference = cylinder(20, 26).copy()
    reference[2] = UNLABELLED
    row = heart({"ED": (reference, cylinder(20, 26))}).iloc[0]
    assert row["edv_ml"] == pytest.approx(2 * 10 * math.pi * 20**2 / 1000, rel=0.01)


def test_a_phase_with_fewer_slices_than_the_other_is_flagged(heart):
    part = cylinder(19, 26).copy()
    part[1:] = UNLABELLED
    phases = {
        str(t): (mask, cylinder(r, 26))
        for t, (r, mask) in enumerate([(20, cylinder(20, 26)), (14, cylinder(14, 26)), (19, part)])
    }
    row = heart(phases).iloc[0]
    assert row["flags"] == row["reference_flags"] == "3 and 1 slices annotated at ED and ES"
    assert heart({k: phases[k] for k in "01"}).iloc[0]["flags"] == ""


def test_labels_that_are_no_heart_have_no_chamber(heart):
    assert heart({"ED": (cylinder(20, 26), cylinder(20, 26))}, {"infarct": 1}).empty
