"""Threshold of a run, calls, and the cases that are looked at."""

import json

import numpy as np
import pandas as pd
import pytest

from cardiac_mtl.evaluation.calls import telling_cases, threshold_facts, with_calls

NAMES = ("healthy", "diseased")


def rows(probability, truth, cases):
    """Two rows an image, as `labels.csv` has them."""
    frames = [
        pd.DataFrame({"case_id": cases, "slice": 0, "class": c, "is_class": t, "probability": p})
        for c, t, p in (("0", 1 - truth, 1 - probability), ("1", truth, probability))
    ]
    return pd.concat(frames).sort_values("case_id", kind="stable", ignore_index=True)


def test_the_threshold_says_how_it_came_about():
    label = np.array([0, 0, 1, 1, -1])
    facts = threshold_facts(np.array([0.1, 0.2, 0.3, 0.4, 0.9]), label, "diseased", "val")
    assert facts["value"] == pytest.approx(0.25)
    assert (facts["chosen_on"], facts["class"]) == ("val", "diseased")
    assert (facts["images"], facts["of_diseased"], facts["balanced_accuracy"]) == (4, 2, 1.0)
    assert json.loads(json.dumps(facts)) == facts


@pytest.mark.parametrize("label", [[0, 0], [1, -1], []])
def test_without_both_classes_it_is_one_half_and_says_so(label):
    probability = np.linspace(0.2, 0.3, len(label))
    facts = threshold_facts(probability, np.array(label, int), "diseased", "val")
    assert (facts["value"], facts["chosen_on"]) == (0.5, "")
    assert "no images of both classes" in facts["rule"]


def test_every_image_is_called_one_class():
    probability = np.array([0.1, 0.3, 0.3000001, 1e-9])
    found = with_calls(rows(probability, np.zeros(4, int), list("abcd")), 0.3, NAMES)
    assert (found.groupby("case_id")["called"].sum() == 1).all()
    second = found[found["class"] == "1"].set_index("case_id")
    assert second["called"].tolist() == [0, 0, 1, 0]  # on the threshold it is the first
    assert (second["class_name"] == "diseased").all()
    np.testing.assert_allclose(found.loc[found["class"] == "0", "threshold"], 0.7)


def test_digits_that_the_first_class_loses_do_not_count():
    small = np.array([2e-9, 4e-9], np.float32)
    frame = rows(small, np.zeros(2, int), ["a", "b"])
    frame.loc[frame["class"] == "0", "probability"] = 1.0  # in float32
    found = with_calls(frame, 3e-9, NAMES)
    assert found.groupby("class")["called"].apply(list).to_dict() == {"0": [1, 0], "1": [0, 1]}


def test_without_classes_there_are_columns_and_no_rows():
    empty = pd.DataFrame({"case_id": [], "slice": [], "class": [], "probability": []})
    assert {"class_name", "threshold", "called"} <= set(with_calls(empty, 0.5, ()))


def test_a_case_of_each_outcome_is_looked_at_and_none_twice():
    truth = np.array([0, 0, 1, 1, 0, 1])
    probability = np.array([0.1, 0.9, 0.9, 0.1, 0.2, 0.2])
    found = with_calls(rows(probability, truth, list("abcdef")), 0.5, NAMES)
    chosen = telling_cases(found)
    assert chosen == {"missed": "d", "false alarm": "b", "found": "c", "left alone": "a"}
    of_one = found.assign(case_id="a", slice=np.repeat(range(6), 2))
    assert telling_cases(of_one) == {"missed": "a"}
    unknown = found.assign(is_class=-1)
    assert telling_cases(unknown) == {}
