"""A run that is stopped, however, ends as one that was not: weights, state, curves and rows."""

import json
import multiprocessing
import os
import runpy
import shutil
import signal
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from filelock import FileLock

from cardiac_mtl.cli import main
from cardiac_mtl.papers.base import Paper
from cardiac_mtl.runs import BEST, IDENTITY, LAST, METRICS, PROVENANCE
from cardiac_mtl.training.fit import CardiacCLI
from cardiac_mtl.training.metrics_csv import RunMetrics

# killed processes are forked from one that has imported everything and computed nothing
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["cardiac_mtl.training.fit"])

EPOCHS = 3
SOME = ["--config", "debug", "--trainer.accelerator", "cpu", "--data.num_folds", "3"]
SOME += ["--data.copies", "1", "--data.augmentation.noise", "0.1", "--trainer.max_epochs"]
HELPER = Path(__file__).with_name("killed_run.py")
MOMENTS = sorted(runpy.run_path(str(HELPER))["MOMENTS"])


def words(root, run_root, *more, experiment="mtn_uncertainty", epochs=EPOCHS):
    data = ["--config", "manifest", "--data.root", str(root)] if root else []
    some = [*data, *SOME, str(epochs), "--run_root", str(run_root)]
    return ["fit", "--config", experiment, *some, *map(str, more)]


def the_run(run_root):
    (identity,) = run_root.rglob(IDENTITY)
    return identity.parent


def outcome(run):
    """Return all that a run ends in, but for times and places."""
    last, best = (torch.load(run / name, weights_only=True) for name in (LAST, BEST))
    keys = ("state_dict", "optimizer_states", "lr_schedulers", "current_model_state", PROVENANCE)
    parts = {key: last[key] for key in keys if key in last}
    identity = json.loads((run / IDENTITY).read_text())
    facts = ("status", "epochs", "best_value", "trained_on", "validated_on")
    kept = {key: identity[key] for key in facts}
    return parts, best["state_dict"], (run / METRICS).read_text(), kept


def same(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def killed(moment, given):
    """Run until the moment at which it kills itself; return the exit status."""
    given = {"MOMENT": moment, "WORDS": given}
    process = processes.Process(target=runpy.run_path, args=(str(HELPER), given, "die"))
    process.start()
    process.join(120)
    return process.exitcode


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Sums depend on the number of threads that share them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def straight(hearts, tmp_path_factory):
    """Runs that nobody stopped, by further words."""
    made = {}

    def run(*more):
        if more not in made:
            root = tmp_path_factory.mktemp("straight")
            assert main(words(hearts, root, *more)) == 0
            made[more] = the_run(root)
        return made[more]

    return run


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_run_that_is_killed_goes_on_as_if_it_was_not(straight, hearts, tmp_path, capsys, moment):
    given = words(hearts, tmp_path)
    assert killed(moment, given) == -signal.SIGKILL
    assert main(given) == 0
    began = moment == "before anything was kept"
    assert ("going on after epoch" in capsys.readouterr().out) is not began
    assert same(outcome(the_run(tmp_path)), outcome(straight()))
    left = {path.name for path in the_run(tmp_path).rglob(".*")} - {".lock"}
    assert not left


@pytest.mark.usefixtures("undrawn")
def test_every_experiment_goes_on_bit_for_bit(experiment_of_class, small_data, tmp_path):
    more = [*small_data(experiment_of_class), "--data.augmentation.probability", "0.5"]
    given, calm = (
        words(None, tmp_path / name, *more, experiment=experiment_of_class) for name in "ab"
    )
    assert killed("in a step", given) == -signal.SIGKILL
    assert main(given) == main(calm) == 0
    ours, theirs = the_run(tmp_path / "a"), the_run(tmp_path / "b")
    assert resumed(ours) == [(1, 0)]
    assert same(outcome(ours), outcome(theirs))
    for run in (ours, theirs):
        assert main(["test", "--run", str(run)]) == 0
    for name in ("cases.csv", "slices.csv"):
        assert (ours / name).read_text() == (theirs / name).read_text()


def stopped(monkeypatch, given, number, call, times=1):
    """Run with a signal, or several, within a step, counted from 1; return the exit status."""
    step, calls = Paper.training_step, []

    def interrupted(*args):
        calls.append(1)
        if len(calls) == call:
            for _ in range(times):
                os.kill(os.getpid(), number)
        return step(*args)

    with monkeypatch.context() as patch:
        patch.setattr(Paper, "training_step", interrupted)
        return main(given)


def resumed(run):
    """Return where a run went on: the epoch before, the batches done of the next."""
    found = json.loads((run / IDENTITY).read_text())["resumed"]
    return [(one["after_epoch"], one["batches"]) for one in found]


def test_an_averaged_run_goes_on_with_its_average(straight, hearts, tmp_path, monkeypatch):
    ema = "--trainer.callbacks+=lightning.pytorch.callbacks.EMAWeightAveraging"
    given = words(hearts, tmp_path, ema)
    assert stopped(monkeypatch, given, signal.SIGTERM, call=3) == 128 + signal.SIGTERM
    assert main(given) == 0
    assert resumed(the_run(tmp_path)) == [(0, 1)]
    found = outcome(the_run(tmp_path))
    assert "current_model_state" in found[0]
    assert same(found, outcome(straight(ema)))


def test_what_is_finished_is_not_trained_again(straight, capsys):
    run = straight()
    before = (run / LAST).stat().st_mtime_ns
    config = str(run / "config.yaml")
    assert main(["fit", "--config", config]) == 0
    assert "trained already" in capsys.readouterr().out
    assert (run / LAST).stat().st_mtime_ns == before


def test_another_configuration_is_another_run(straight, hearts):
    root = straight().parents[3]
    assert main(words(hearts, root, "--model.width", "5", epochs=1)) == 0
    runs = {path.parent for path in root.rglob(IDENTITY)} - {straight()}
    (other,) = runs
    assert json.loads((other / IDENTITY).read_text()).get("resumed") is None
    assert json.loads((other / IDENTITY).read_text())["epochs"] == 1


def test_a_logger_or_another_place_makes_no_other_run(straight, hearts, tmp_path):
    given = words(hearts, tmp_path, "--trainer.logger", "false")
    assert killed("before anything was kept", given) == -signal.SIGKILL
    assert the_run(tmp_path).name == straight().name


@pytest.mark.parametrize(
    ("number", "call", "times", "place"),
    [
        pytest.param(signal.SIGINT, 1, 1, (-1, 1), id="within the first epoch"),
        pytest.param(signal.SIGUSR1, 3, 1, (0, 1), id="within another epoch"),
        pytest.param(signal.SIGTERM, 4, 1, (1, 0), id="in the last step of an epoch"),
        pytest.param(signal.SIGINT, 4, 2, (0, 0), id="twice: at once"),
    ],
)
def test_a_signal_leaves_a_checkpoint_and_the_same_command_goes_on(
    straight, hearts, tmp_path, capsys, monkeypatch, number, call, times, place
):
    given = words(hearts, tmp_path)
    assert stopped(monkeypatch, given, number, call, times) == 128 + number
    assert f"stopped by {number.name}; the same command goes on" in capsys.readouterr().err
    assert json.loads((the_run(tmp_path) / IDENTITY).read_text())["status"] == "interrupted"
    assert main(given) == 0
    assert resumed(the_run(tmp_path)) == [place]
    within = f"within epoch {place[0] + 2}, after 1 of its batches"
    assert f"going on {within if place[1] else f'after epoch {place[0] + 1}'}" in (
        capsys.readouterr().out
    )
    assert same(outcome(the_run(tmp_path)), outcome(straight()))


def test_a_signal_waits_for_the_gradients_that_are_being_gathered(
    straight, hearts, tmp_path, monkeypatch
):
    more = ("--trainer.limit_train_batches", "4", "--trainer.accumulate_grad_batches", "2")
    given = words(hearts, tmp_path, *more)
    assert stopped(monkeypatch, given, signal.SIGUSR1, call=5) == 128 + signal.SIGUSR1
    assert main(given) == 0
    assert resumed(the_run(tmp_path)) == [(0, 2)]
    assert same(outcome(the_run(tmp_path)), outcome(straight(*more)))


def test_what_was_validated_within_an_epoch_stays_in_the_curves(
    straight, hearts, tmp_path, monkeypatch
):
    """The value that chose the checkpoint was gone: it lay before the stop, in the same epoch."""
    more = ("--trainer.limit_train_batches", "4", "--trainer.val_check_interval", "2")
    given = words(hearts, tmp_path, *more)
    assert stopped(monkeypatch, given, signal.SIGTERM, call=7) == 128 + signal.SIGTERM
    assert main(given) == 0
    assert resumed(the_run(tmp_path)) == [(0, 3)]
    assert same(outcome(the_run(tmp_path)), outcome(straight(*more)))


def test_two_at_one_run_are_one_too_many(hearts, tmp_path, capsys):
    given = words(hearts, tmp_path)
    assert killed("in a step", given) == -signal.SIGKILL
    with FileLock(the_run(tmp_path) / ".lock"):
        assert main(given) == 2
    assert "another process trains or tests this run" in capsys.readouterr().err


def test_a_run_does_not_go_on_with_other_data(hearts, tmp_path, capsys):
    root = shutil.copytree(hearts, tmp_path / "hearts")
    given = words(root, tmp_path / "runs")
    assert killed("in a step", given) == -signal.SIGKILL
    image = nib.load(min(root.glob("*_image.nii.gz")))
    brighter = np.asarray(image.dataobj) + np.int16(1)
    nib.Nifti1Image(brighter, image.affine).to_filename(image.get_filename())
    assert main(given) == 2
    assert "the data changed since it was trained (prepared)" in capsys.readouterr().err


def test_strangers_checkpoints_are_left_alone(straight, hearts, tmp_path, monkeypatch, capsys):
    """P40: under SLURM Lightning would load the one in the working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLURM_NTASKS", "1")
    monkeypatch.setenv("SLURM_JOB_NAME", "study")
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.setenv("SLURM_LOCALID", "0")
    monkeypatch.setenv("SLURM_NODEID", "0")
    (tmp_path / "hpc_ckpt_1.ckpt").write_bytes((straight() / LAST).read_bytes())
    given = words(hearts, tmp_path / "runs", epochs=1)
    assert main(given) == 0
    run = the_run(tmp_path / "runs")
    assert json.loads((run / IDENTITY).read_text())["epochs"] == 1
    (run / "hpc_ckpt_1.ckpt").write_bytes(b"")
    assert main(given) == 2
    assert "hpc_ckpt_1.ckpt" in capsys.readouterr().err


def test_a_run_that_was_moved_keeps_its_best_checkpoint(straight, hearts, tmp_path):
    assert killed("in a step", words(hearts, tmp_path / "here")) == -signal.SIGKILL
    best = torch.load(the_run(tmp_path / "here") / BEST, weights_only=True)
    (tmp_path / "here").rename(tmp_path / "there")
    assert main(words(hearts, tmp_path / "there")) == 0
    assert same(outcome(the_run(tmp_path / "there")), outcome(straight()))
    kept = torch.load(the_run(tmp_path / "there") / LAST, weights_only=True)["callbacks"]
    (scores,) = [c for c in kept.values() if c.get("monitor")]
    assert (
        scores["best_model_score"]
        >= best["callbacks"][
            next(iter(k for k, c in best["callbacks"].items() if c.get("monitor")))
        ]["best_model_score"]
    )


def test_what_stopped_early_stays_stopped(hearts, tmp_path, monkeypatch):
    stop = "--trainer.callbacks+=lightning.pytorch.callbacks.EarlyStopping"
    given = words(
        hearts,
        tmp_path,
        stop,
        "--trainer.callbacks.monitor",
        "val/loss",
        "--trainer.callbacks.mode",
        "max",
        "--trainer.callbacks.patience",
        "1",
        epochs=9,
    )

    def dies(*_):
        raise RuntimeError("the power failed")

    with monkeypatch.context() as patch:
        patch.setattr(CardiacCLI, "after_fit", dies)
        with pytest.raises(RuntimeError, match="the power failed"):
            main(given)
    run = the_run(tmp_path)
    epochs = torch.load(run / LAST, weights_only=True)["epoch"]
    assert epochs < 8
    (run / ".lock").unlink()
    assert main(given) == 0
    assert torch.load(run / LAST, weights_only=True)["epoch"] == epochs


def test_rows_without_an_epoch_are_kept_as_far_as_the_run_goes_on(tmp_path):
    """LearningRateMonitor logs such rows."""
    metrics = RunMetrics(tmp_path)
    for epoch in range(3):
        metrics.log_metrics({"lr-SGD": 0.1}, step=2 * epoch)
        metrics.log_metrics({"loss": 1.0, "epoch": epoch}, step=2 * epoch + 1)
    again = RunMetrics(tmp_path)
    again.go_on_after(3)
    assert [row["step"] for row in again.rows] == ["0", "1", "2", "3"]
    again.go_on_after(None)
    assert again.rows == []


def test_a_step_asks_the_same_chance_where_a_run_goes_on(hearts, tmp_path):
    drawn = {}

    def draws(run_root, kill):
        step, seen = Paper.training_step, []

        def watched(self, batch, batch_idx):
            if kill and len(seen) == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            seen.append((self.current_epoch, float(torch.rand(()))))
            return step(self, batch, batch_idx)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Paper, "training_step", watched)
            assert main(words(hearts, run_root)) == (128 + signal.SIGTERM if kill else 0)
        return seen

    drawn["straight"] = draws(tmp_path / "a", kill=False)
    draws(tmp_path / "b", kill=True)
    drawn["resumed"] = draws(tmp_path / "b", kill=False)
    assert len(drawn["resumed"]) == 2 * EPOCHS - 3
    assert drawn["resumed"] == drawn["straight"][-len(drawn["resumed"]) :]
