"""Every experiment trains, tests and leaves what its paper shows: a new YAML is run by itself."""

import json
import re
from contextlib import nullcontext
from functools import cache

import pandas as pd
import pytest
import torch

from cardiac_mtl.catalogue import experiments, read_yaml
from cardiac_mtl.cli import main
from cardiac_mtl.report.pictures.gallery import choose
from cardiac_mtl.runs import BEST, IDENTITY, PROVENANCE
from data_modules.splits import read_splits

QUICK = ["--config", "debug", "--trainer.accelerator", "cpu"]


def one_of_a_kind():
    """Return the first experiment of each kind: the others differ from it in numbers alone."""
    kinds = {}
    for path in experiments():
        config = read_yaml(path)
        described = json.dumps([config["model"], config["data"]])
        kinds.setdefault(re.sub(r"\b[\d.]+", "0", described), path.stem)
    return sorted(kinds.values())


@pytest.fixture(scope="module")
def tested(small_data, first_of_each_class, without_pictures, tmp_path_factory):
    """Return the maker of runs that were trained and tested, one an experiment.

    The first experiment of each LightningModule draws its pictures; those of the others show the
    same kinds of masks.
    """

    @cache
    def run(experiment):
        root = tmp_path_factory.mktemp("tested")
        words = ["fit", "--config", experiment, *QUICK, "--data.fold", "1", "--data.num_folds", "3"]
        assert main([*words, *small_data(experiment), "--run_root", str(root)]) == 0
        with nullcontext() if experiment in first_of_each_class else without_pictures():
            assert main(["test", "--run", str(root)]) == 0
        (identity,) = root.rglob(IDENTITY)
        return identity.parent

    return run


@pytest.mark.parametrize("experiment", one_of_a_kind())
def test_every_experiment_trains_and_tests(experiment, tested):
    run = tested(experiment)
    fold = torch.load(run / BEST, weights_only=True)[PROVENANCE]["fold"]
    split = read_splits(run / "splits.json", without_val=True)[fold]
    assert fold == (0 if "weak_transfer" in experiment else 1)
    assert len(split.test) > 1
    assert set(pd.read_csv(run / "cases.csv")["patient_id"]) == set(split.test)


def test_a_test_of_infarcts_leaves_pixels_loops_and_feature_maps(cines, tested, tmp_path):
    run = tested("mutgan")
    pixels, slices = (pd.read_csv(run / f"{name}.csv") for name in ("pixels", "slices"))
    # every pixel of every slice once; in the wall those that the reference has there
    region = pixels[pixels["pixels"] == "whole region"]
    assert region[["positives", "negatives"]].to_numpy().sum() == len(slices) * 32 * 32
    wall = pixels[pixels["pixels"] == "myocardium"]
    assert 0 < wall["negatives"].sum() < region["negatives"].sum()
    assert wall["positives"].sum() == region["positives"].sum()
    assert set(pixels["protocol"]) == {"honest"}
    shown = {path.stem for path in (run / "gallery").glob("*.npz")}
    loops = {path.name.removesuffix("_loop.gif") for path in run.glob("figures/*_loop.gif")}
    maps = {path.stem.removeprefix("feature_maps_") for path in run.glob("figures/feature_maps_*")}
    assert loops == set(choose(pd.read_csv(run / "cases.csv")).values())
    assert maps <= loops <= shown
    assert maps
    image = next(cines.glob("*_image.nii.gz"))
    words = ["predict", "--run", str(run), "--input", str(image), "--output", str(tmp_path)]
    assert main(words) == 0
    assert len(list(tmp_path.glob("*_loop.gif"))) == 1


def test_a_dry_run_of_every_experiment_ends_well_and_keeps_nothing(
    experiment_of_class, small_data, tmp_path, capsys
):
    words = ["fit", "--config", experiment_of_class, *QUICK, *small_data(experiment_of_class)]
    words += ["--data.num_folds", "3", "--trainer.fast_dev_run", "true"]
    assert main([*words, "--run_root", str(tmp_path)]) == 0
    assert "a dry run: nothing was kept" in capsys.readouterr().out
    assert not list(tmp_path.rglob("*.ckpt"))
