"""One process or two: the same weights, scores and rows. gloo on the CPU."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from cardiac_mtl.runs import BEST, IDENTITY, LAST

HELPER = Path(__file__).with_name("without_batch_norm.py")


def words(root, run_root, *more):
    return [
        "fit", "--config", "mtn_uncertainty", "--config", "manifest", "--config", "debug",
        "--data.root", str(root), "--run_root", str(run_root), "--trainer.accelerator", "cpu",
        "--trainer.max_epochs", "3", "--trainer.limit_train_batches", "1.0",
        "--trainer.limit_val_batches", "1.0", "--data.num_folds", "3",
        # RMSprop would make a whole step of the rounding of a gradient that is zero
        "--model.optimizer", "torch.optim.SGD", "--model.optimizer.lr", "0.02",
        "--trainer.gradient_clip_val", "1.0", *more,
    ]  # fmt: skip


TWO = ("--trainer.devices", "2", "--trainer.strategy", "ddp", "--data.batch_size", "4")


def trained(given):
    subprocess.run([sys.executable, str(HELPER), *given], check=True, timeout=300)
    run_root = Path(given[given.index("--run_root") + 1])
    (identity,) = run_root.rglob(IDENTITY)
    return identity.parent


@pytest.fixture(scope="module")
def partly(hearts, tmp_path_factory):
    """Phantoms of whom a third has no annotation."""
    root = tmp_path_factory.mktemp("partly") / "hearts"
    shutil.copytree(hearts, root)
    with (root / "cases.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows[::3]:
        row["mask"] = ""
    with (root / "cases.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return root


@pytest.fixture(scope="module")
def runs(partly, tmp_path_factory):
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    alone = trained(words(partly, one, "--data.batch_size", "8"))
    return alone, trained(words(partly, two, *TWO))


def state(run):
    return torch.load(run / LAST, weights_only=True)["state_dict"]


@pytest.mark.cluster
def test_two_processes_end_in_the_weights_of_one(runs):
    one, two = map(state, runs)
    assert one.keys() == two.keys()
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=0, atol=1e-5, msg=name)


@pytest.mark.cluster
def test_two_processes_log_what_one_does(runs):
    one, two = (pd.read_csv(run / "metrics.csv") for run in runs)
    assert len(two) == len(one)
    for column in ("train/loss", "train/loss/mask", "train/loss/area", "val/dice_vol", "val/loss"):
        assert two[column].dropna().tolist() == pytest.approx(one[column].dropna().tolist(), 1e-4)
    one, two = (json.loads((run / IDENTITY).read_text()) for run in runs)
    for key in ("trained_on", "validated_on", "status", "epochs"):
        assert two[key] == one[key]


@pytest.mark.cluster
def test_a_signal_to_one_of_two_processes_stops_both_in_the_middle_of_an_epoch(
    runs, partly, tmp_path
):
    given = words(partly, tmp_path, *TWO)
    stopped = subprocess.run(
        [sys.executable, str(HELPER), *given],
        env=os.environ | {"STOP_AT": "10"},
        check=False,
        timeout=300,
    )
    assert stopped.returncode == 128 + signal.SIGTERM
    run = trained(given)
    assert [one["batches"] > 0 for one in json.loads((run / IDENTITY).read_text())["resumed"]] == [
        True
    ]
    for name, weight in state(runs[1]).items():
        assert torch.equal(state(run)[name], weight), name
    assert (run / "metrics.csv").read_text() == (runs[1] / "metrics.csv").read_text()


@pytest.mark.cluster
def test_two_players_on_two_processes_end_in_the_weights_of_one(cines, tmp_path):
    """P25: the player whose turn it is not has no gradient; lambda is the same everywhere."""
    given = [
        "fit", "--config", "mutgan", "--config", "debug", "--data.root", str(cines),
        "--data.matrix", "[32, 32]", "--data.frames", "3", "--data.num_folds", "3",
        "--trainer.accelerator", "cpu", "--trainer.max_epochs", "2",
        "--trainer.limit_train_batches", "1.0", "--model.lambda_start", "0.5",
        "--model.optimizer", "torch.optim.SGD", "--model.optimizer.lr", "0.01",
    ]  # fmt: skip
    one = trained([*given, "--run_root", str(tmp_path / "one"), "--data.batch_size", "8"])
    two = trained([*given, "--run_root", str(tmp_path / "two"), *TWO])
    for name, weight in state(one).items():
        torch.testing.assert_close(state(two)[name], weight, rtol=0, atol=1e-5, msg=name)
    logs = [pd.read_csv(run / "metrics.csv") for run in (one, two)]
    for column in ("train/lambda", "train/convergence", "train/loss", "val/loss"):
        alone, both = (log[column].dropna().tolist() for log in logs)
        assert both == pytest.approx(alone, rel=1e-3)


@pytest.mark.cluster
def test_a_run_of_two_processes_is_tested_by_one(runs, tmp_path):
    """The rows of its checkpoint are those that the same checkpoint has in a run of one."""
    copies = []
    for run in runs:
        copies.append(tmp_path / run.parts[-2] / str(len(copies)))
        shutil.copytree(run, copies[-1])
    shutil.copy(runs[1] / BEST, copies[0] / BEST)
    for copy in copies:  # the configuration of the second says two processes
        command = [sys.executable, str(HELPER), "test", "--run", str(copy)]
        subprocess.run(command, check=True, timeout=300)
    for name in ("cases.csv", "slices.csv"):
        assert (copies[0] / name).read_text() == (copies[1] / name).read_text()
