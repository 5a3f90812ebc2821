"""Rows of runs that are kept: enough for a report, nothing of people, no folder of this machine."""

import json
import sys

import pytest

from benchmarks import keep
from cardiac_mtl.cli import main
from cardiac_mtl.runs import CONFIG, IDENTITY


@pytest.fixture(scope="module")
def runs(hearts, tmp_path_factory):
    """Two tested runs, as `fit` and `test` leave them, on phantoms that say what they are."""
    root = tmp_path_factory.mktemp("my runs")
    for name in ("mtn_unet", "mtn_uncertainty"):
        words = ["fit", "--config", name, "--config", "manifest", "--config", "debug"]
        words += ["--data.root", str(hearts), "--data.num_folds", "3", "--run_root", str(root)]
        assert main([*words, "--trainer.accelerator", "cpu"]) == 0
        assert main(["test", "--run", str(root / name)]) == 0
    return root


def packed(monkeypatch, tmp_path, *folders):
    words = ["keep", *map(str, folders), "--name", "x", "--results", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", words)
    keep.main()
    return tmp_path / "x.tar.xz"


@pytest.mark.usefixtures("undrawn")
def test_what_is_kept_is_enough_for_a_report(runs, tmp_path, monkeypatch):
    packed(monkeypatch, tmp_path, runs / "mtn_unet")
    archive = packed(monkeypatch, tmp_path, runs / "mtn_uncertainty")  # beside the other
    members = keep.read(archive)
    assert not any(str(runs).encode() in content for content in members.values())
    first = archive.read_bytes()
    assert packed(monkeypatch, tmp_path, runs / "mtn_unet").read_bytes() == first
    for name, content in members.items():
        (tmp_path / "kept" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "kept" / name).write_bytes(content)
    for source, out in ((tmp_path / "kept", "one"), (runs, "two")):
        words = ["report", str(source / "mtn_unet"), str(source / "mtn_uncertainty")]
        assert main([*words, "--output", str(tmp_path / out)]) == 0
    tables = [(tmp_path / out / "tables/comparisons.csv").read_text() for out in ("one", "two")]
    assert tables[0] == tables[1]


def test_a_relative_folder_is_left_as_it_is(tmp_path):
    """Its name may be a word of the files, such as that which marks a run on phantoms."""
    run = tmp_path / "mtn_unet/set/fold0-seed0/1"
    run.mkdir(parents=True)
    (run / "cases.csv").write_text("case_id\n")
    places = "{init_args: {root: phantom, cache_dir: /home/me/cache}}"
    (run / CONFIG).write_text(f"run_root: runs\ndata: {places}\n")
    identity = {"phantom": True, "command": "fit --data.cache_dir /home/me/cache"}
    (run / IDENTITY).write_text(json.dumps(identity))
    kept = keep.rows_of(tmp_path / "mtn_unet")
    held = json.loads(kept[f"mtn_unet/set/fold0-seed0/1/{IDENTITY}"])
    assert held == {"phantom": True, "command": "fit --data.cache_dir CACHE"}


def test_rows_of_people_are_not_kept(tmp_path):
    run = tmp_path / "mtn_unet/set/fold0-seed0/1"
    run.mkdir(parents=True)
    (run / "cases.csv").write_text("case_id\n")
    (run / CONFIG).write_text("run_root: runs\n")
    (run / IDENTITY).write_text(json.dumps({"phantom": False}))
    with pytest.raises(SystemExit, match="rows of people are not kept"):
        keep.rows_of(tmp_path / "mtn_unet")


def test_a_folder_without_tested_runs_is_refused(tmp_path):
    with pytest.raises(SystemExit, match="no tested run"):
        keep.rows_of(tmp_path)
