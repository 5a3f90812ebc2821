"""Threshold of a run: where none can be chosen."""

import json
from types import SimpleNamespace

import pandas as pd

from cardiac_mtl.training.thresholds import called, choose_threshold


def test_where_no_patient_validates_the_threshold_is_one_half(tmp_path, capsys):
    (tmp_path / "run.json").write_text(json.dumps({"fold": 2}))
    paper = SimpleNamespace(class_names=("healthy", "diseased"))
    choose_threshold(None, paper, SimpleNamespace(selection_part="none"), tmp_path)
    identity = json.loads((tmp_path / "run.json").read_text())
    assert identity["fold"] == 2
    assert (identity["threshold"]["value"], identity["threshold"]["chosen_on"]) == (0.5, "")
    assert "0.5: one half: no images of both classes" in capsys.readouterr().out


def test_images_are_called_at_the_threshold_of_the_run(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"threshold": {"value": 0.2}}))
    paper = SimpleNamespace(class_names=("healthy", "diseased"))
    images = {"case_id": ["a", "a"], "slice": 0, "class": ["0", "1"], "probability": [0.7, 0.3]}
    assert called(tmp_path, pd.DataFrame(images), paper)["called"].tolist() == [0, 1]
    (tmp_path / "run.json").write_text("{}")
    assert called(tmp_path, pd.DataFrame(images), paper)["called"].tolist() == [1, 0]
