"""From configuration to run directory, on phantoms: fit, validate, test, predict, and refusals."""

import json
import shlex
import shutil

import pandas as pd
import pytest
import torch
import yaml
from filelock import FileLock

from cardiac_mtl.cli import main
from cardiac_mtl.phantom_files import LAYOUTS
from cardiac_mtl.runs import BEST, CONFIG, IDENTITY, LAST, PROVENANCE
from data_modules.stacom import StacomDataModule

QUICK = ["--config", "debug", "--trainer.accelerator", "cpu"]


def fit(root, run_root, *more, experiment="mtn_uncertainty"):
    words = ["fit", "--config", experiment, *QUICK, "--data.root", root, "--data.num_folds", "3"]
    return main([str(word) for word in [*words, "--run_root", run_root, *more]])


@pytest.fixture(scope="module")
def run(lvsc, tmp_path_factory):
    """A run of the debug preset on the phantoms."""
    root = tmp_path_factory.mktemp("runs")
    assert fit(lvsc, root) == 0
    (identity,) = root.rglob(IDENTITY)
    return identity.parent


def test_the_run_directory_holds_what_is_promised(run):
    assert run.parts[-4:-1] == ("mtn_uncertainty", "lvsc", "fold0-seed0")
    for name in (CONFIG, IDENTITY, "metrics.csv", "splits.json", BEST, LAST):
        assert (run / name).is_file(), name
    identity = json.loads((run / IDENTITY).read_text())
    assert identity["status"] == "finished"
    assert identity["selected_on"] == "val"
    assert identity["protocol"] == "honest"
    assert identity["command"].startswith(
        "cardiac-mtl fit --config mtn_uncertainty --config debug "
    )
    assert identity["monitor"] == "val/dice_vol"
    assert identity["split_sha256"] == json.loads((run / "splits.json").read_text())["sha256"]
    assert {"train/loss/mask", "val/dice_vol", "s/area"} <= set(pd.read_csv(run / "metrics.csv"))


def test_the_configuration_is_whole_and_runs_again(run, tmp_path):
    config = yaml.safe_load((run / CONFIG).read_text())
    assert "ckpt_path" not in config
    assert config["model"]["init_args"]["optimizer"]["init_args"]["lr"] == 1e-3
    assert config["model"]["init_args"]["image_size"] == config["data"]["init_args"]["matrix"]
    assert main(["fit", "--config", str(run / CONFIG), "--run_root", str(tmp_path)]) == 0
    (again,) = tmp_path.rglob(BEST)
    first, second = (torch.load(p, weights_only=True)["state_dict"] for p in (run / BEST, again))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_checkpoint_overrides_no_setting_and_is_not_kept_in_the_configuration(run, tmp_path):
    words = ["fit", "--config", str(run / CONFIG), "--ckpt_path", str(run / LAST)]
    more = ["--model.weighting_lr_factor", "7", "--trainer.max_epochs", "2"]
    assert main([*words, *more, "--run_root", str(tmp_path)]) == 0
    (kept,) = tmp_path.rglob(CONFIG)
    again = yaml.safe_load(kept.read_text())
    assert again["model"]["init_args"]["weighting_lr_factor"] == 7
    assert "ckpt_path" not in again
    assert json.loads((kept.parent / IDENTITY).read_text())["epochs"] == 2


def test_last_is_the_last_epoch_and_best_the_best(hearts, tmp_path):
    more = ["--config", "manifest", "--trainer.max_epochs", "4", "--model.optimizer.lr", "0.02"]
    assert fit(hearts, tmp_path, *more) == 0
    (identity,) = tmp_path.rglob(IDENTITY)
    run = identity.parent
    scores = pd.read_csv(run / "metrics.csv").groupby("epoch")["val/dice_vol"].mean()
    epochs = [torch.load(run / name, weights_only=True)["epoch"] for name in (BEST, LAST)]
    assert epochs == [scores.idxmax(), 3]


def test_the_checkpoint_holds_plain_values_and_its_origin(run):
    checkpoint = torch.load(run / BEST, weights_only=True)
    assert checkpoint[PROVENANCE]["selected_on"] == "val"
    assert checkpoint[PROVENANCE]["fold"] == 0
    assert checkpoint["hyper_parameters"]["width"] == 4


def test_the_line_of_an_epoch_tells_its_own_losses(hearts, tmp_path, capsys):
    words = ["--config", "manifest", "--trainer.max_epochs", "2", "--trainer.accelerator", "cpu"]
    assert fit(hearts, tmp_path, *words) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch ")]
    (metrics,) = tmp_path.rglob("metrics.csv")
    losses = pd.read_csv(metrics)["train/loss"].dropna()
    assert len(lines) == len(losses) == 2
    for line, loss in zip(lines, losses, strict=True):
        assert f"train/loss {loss:.4g}  " in line


def test_test_writes_rows_table_and_pictures(run, capsys):
    figures = run / "figures"
    figures.mkdir()
    earlier, own = figures / "feature_maps_gone.png", figures / "notes.png"
    for file in (earlier, own):
        file.touch()
    with FileLock(run / ".lock"):
        assert main(["test", "--run", str(run)]) == 2
    assert "another process trains or tests this run" in capsys.readouterr().err
    assert main(["test", "--run", str(run.parents[2])]) == 0
    shown = capsys.readouterr().out
    cases, slices = (pd.read_csv(run / f"{name}.csv") for name in ("cases", "slices"))
    assert cases.columns[:3].tolist() == ["case_id", "patient_id", "phase"]
    assert {"label", "state", "dice", "jaccard", "msd_mm", "hd_mm"} <= set(cases)
    assert set(cases["cardiac_phase"]) == {"ED", "ES"}
    tested = json.loads((run / "splits.json").read_text())["folds"][0]["test"]
    assert set(cases["patient_id"]) == set(tested)
    assert set(slices["protocol"]) == {"honest"}
    for case in cases["case_id"]:
        assert str(figures / f"{case}.png") in shown
        assert (figures / f"{case}.png").stat().st_size > 10_000
    assert own.is_file()
    assert not earlier.exists()
    assert (run / "figures" / "curves.png").is_file()
    assert "n (missed/false/empty)" in shown


@pytest.mark.usefixtures("undrawn")
def test_what_to_do_next_can_be_pasted_and_pictures_hide_no_table(
    hearts, tmp_path, capsys, monkeypatch
):
    assert fit(hearts, tmp_path / "my runs", "--config", "manifest") == 0
    words = shlex.split(capsys.readouterr().out.splitlines()[-1])
    assert words[:3] == ["next:", "cardiac-mtl", "test"]
    monkeypatch.setattr("cardiac_mtl.training.outputs._MOST_NAMED", 1)
    assert main(words[2:]) == 0
    *_, pictures, last = capsys.readouterr().out.splitlines()
    assert pictures.endswith(f"pictures in {words[-1]}/figures")
    assert shlex.split(last)[2:4] == ["report", words[-1]]


@pytest.mark.usefixtures("undrawn")
def test_test_twice_gives_the_same_rows(run):
    tables = []
    for batch_size in ("4", "7"):
        assert main(["test", "--run", str(run), "--data.batch_size", batch_size]) == 0
        tables.append(pd.read_csv(run / "cases.csv"))
    pd.testing.assert_frame_equal(*tables, rtol=1e-4)


def test_validate_prints_the_selected_value(run, capsys):
    assert main(["validate", "--run", str(run)]) == 0
    shown = capsys.readouterr().out
    best = json.loads((run / IDENTITY).read_text())["best_value"]
    (line,) = (line for line in shown.splitlines() if line.startswith("val/dice_vol "))
    assert float(line.split()[-1]) == pytest.approx(best, abs=1e-4)


@pytest.mark.usefixtures("undrawn")
def test_the_paper_protocol_selects_on_test_and_says_so_everywhere(hearts, tmp_path, capsys):
    more = ["--config", "manifest", "--data.paper_protocol", "true"]
    assert fit(hearts, tmp_path, *more) == 0
    assert main(["test", "--run", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "selected on the test patients; optimistic" in shown
    assert "OPTIMISTIC" in shown
    (run,) = (path.parent for path in tmp_path.rglob(IDENTITY))
    assert json.loads((run / IDENTITY).read_text())["selected_on"] == "test"
    assert torch.load(run / BEST, weights_only=True)[PROVENANCE]["monitor"] == "test/dice_vol"
    assert set(pd.read_csv(run / "slices.csv")["protocol"]) == {"paper_optimistic"}


@pytest.mark.usefixtures("undrawn")
def test_without_validation_patients_the_last_epoch_is_kept_and_said(
    lvsc, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(StacomDataModule, "selection_part", "none")
    assert fit(lvsc, tmp_path, "--trainer.max_epochs", "2") == 0
    assert "kept: the last of 2 epochs; no patient chose it" in capsys.readouterr().out
    (run,) = (path.parent for path in tmp_path.rglob(IDENTITY))
    identity = json.loads((run / IDENTITY).read_text())
    assert (identity["selected_on"], identity["monitor"]) == ("none", None)
    assert identity["validated_on"] == []
    assert not [c for c in pd.read_csv(run / "metrics.csv") if c.startswith("val/")]
    best, last = (torch.load(run / name, weights_only=True) for name in (BEST, LAST))
    assert best["epoch"] == last["epoch"] == 1
    assert all(torch.equal(best["state_dict"][k], v) for k, v in last["state_dict"].items())
    assert main(["validate", "--run", str(run)]) == 2
    assert "no patient validates" in capsys.readouterr().err
    assert main(["test", "--run", str(run)]) == 0
    assert main(["audit", "--run", str(run)]) == 0
    assert "the last of 2 epochs; no patient chose it" in capsys.readouterr().out


def test_without_a_root_the_phantom_cohort_is_made_once_and_said(tmp_path, capsys, monkeypatch):
    few = LAYOUTS["lvsc"].kind._replace(default=(5, 1))
    monkeypatch.setitem(LAYOUTS, "lvsc", LAYOUTS["lvsc"]._replace(kind=few))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    words = ["fit", "--config", "mtn_unet", *QUICK, "--run_root", str(tmp_path)]
    for made in ("made now", "already made"):
        assert main(words) == 0
        (line,) = (x for x in capsys.readouterr().out.splitlines() if "no --data.root" in x)
        assert made in line


CALLBACK = "--trainer.callbacks+=lightning.pytorch.callbacks.EarlyStopping"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--data.fold", "7"], r"fold 7 of 3"),
        (["--data.fodl", "1"], r"data: Option 'fodl' is not accepted; did you mean 'fold'?"),
        (["--model.widht", "1"], r"did you mean 'width'?"),
        (["--config", "mtn_uncertanty"], r"did you mean 'mtn_uncertainty'?"),
        (
            ["--data.augmentation", "null"],
            r"null stands where settings are expected; leave that key",
        ),
        (["--data.root", "nowhere"], r"nowhere: no such folder; check `data.root`"),
        (["--data.batch_size", "0"], "data.batch_size: 0; give 1 or more"),
        (["--data.num_workers", "-1"], "data.num_workers: -1; give 0 or more"),
        (["--data.spacing_mm", "-1"], "data.spacing_mm: -1.0; give 0.001 or more"),
        (["--data.augmentation.probability", "3"], "data.augmentation.probability: 3.0; give 0 to"),
        (["--data.augmentation.zoom", "-2"], "data.augmentation.zoom: -2.0; give 0 or more"),
        (["--model.pool", "100"], "model.pool: 100; give 1 to"),
        (["--model.width", "0"], "model.width: 0; give 1 to"),
        (["--model.width", "-2"], "model.width: -2; give 1 to"),
        (["--model.optimizer.init_args.lr", "-1"], "model: Invalid learning rate: -1.0; see the"),
        (["--seed_everything", "-1"], "seed_everything: -1; give 0 to"),
        (["--trainer.max_epochs", "0"], "trainer.max_epochs: 0; give 1 or more"),
        (["--ckpt_path", "gone.ckpt"], "gone.ckpt: no such checkpoint"),
        (["--trainer.devices", "0"], "trainer: `Trainer(devices='0')` value is not a valid input"),
        (["--data.matrix", "[100, 96]"], r"data.matrix: image size 100 x 96 is not a multiple"),
        (["--data.stratify_by", "colour"], r"no column 'colour' in the case table"),
        (
            [CALLBACK, "--trainer.callbacks.monitor=test/dice"],
            r"monitor 'test/dice' is not measured",
        ),
    ],
)
def test_what_the_user_can_mend_is_one_line_and_leaves_nothing(
    lvsc, tmp_path, capsys, more, message
):
    assert fit(lvsc, tmp_path / "runs", *more) == 2
    error = capsys.readouterr().err
    assert message in error
    (line,) = [x for x in error.splitlines() if x.startswith("cardiac-mtl: ")]
    assert error.count("Traceback") == 0
    assert "usage:" not in error
    assert not (tmp_path / "runs").exists()
    assert line


@pytest.mark.parametrize("words", [[], ["--config", "debug"], ["--config", "manifest"]])
def test_a_fit_without_experiment_says_so(capsys, words):
    assert main(["fit", *words]) == 2
    assert "cardiac-mtl: fit: no experiment; give one as the first" in capsys.readouterr().err


def test_help_asks_for_no_experiment(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["fit", "--data.help", "data_modules.stacom.StacomDataModule"])
    assert ended.value.code == 0
    assert "--data.batch_size" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["validate", "test"])
def test_help_names_the_run_that_is_asked_for(capsys, command):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert "--run RUN " in capsys.readouterr().out


def test_help_says_what_is_taken_of_other_weights(capsys):
    with pytest.raises(SystemExit):
        main(["fit", "--help"])
    shown = " ".join(capsys.readouterr().out.partition("  --ckpt_path")[2].split())
    assert "whose weights a run of its own starts from" in shown
    assert "resumed" not in shown


@pytest.mark.parametrize(
    ("experiment", "missing"), [("mtn_unet", "mask"), ("fpm_classification", "label")]
)
def test_nothing_to_learn_from_is_refused(hearts, tmp_path, capsys, experiment, missing):
    data = shutil.copytree(hearts, tmp_path / "data")
    table = pd.read_csv(data / "cases.csv").drop(columns="mask")
    table.to_csv(data / "cases.csv", index=False)
    words = ["--config", "manifest", "--data.matrix", "[64, 64]"]
    assert fit(data, tmp_path / "runs", *words, experiment=experiment) == 2
    assert f"no training patient of fold 0 has a {missing}; give" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_class_that_the_paper_does_not_know_is_refused(hearts, tmp_path, capsys):
    data = shutil.copytree(hearts, tmp_path / "data")
    table = pd.read_csv(data / "cases.csv").assign(label=[0, 2] * 6)
    table.to_csv(data / "cases.csv", index=False)
    words = ["--config", "manifest", "--data.matrix", "[64, 64]"]
    assert fit(data, tmp_path / "runs", *words, experiment="fpm_classification") == 2
    assert "label 2, FPM" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_loss_that_is_no_number_stops_the_run_and_says_which(hearts, tmp_path, capsys):
    more = ["--config", "manifest", "--model.optimizer.lr", "1e30"]
    assert fit(hearts, tmp_path, *more, "--trainer.limit_train_batches", "6") == 2
    assert "the loss of" in capsys.readouterr().err
    (identity,) = tmp_path.rglob(IDENTITY)
    assert json.loads(identity.read_text())["status"] == "failed"


@pytest.mark.parametrize("logger", ["wandb", "tensorboard"])
def test_other_loggers_write_into_the_run_directory(hearts, tmp_path, monkeypatch, logger):
    monkeypatch.chdir(tmp_path)
    more = ["--config", "manifest", "--config", f"loggers/{logger}"]
    assert fit(hearts, tmp_path / "runs", *more) == 0
    (identity,) = tmp_path.rglob(IDENTITY)
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    assert (identity.parent / "metrics.csv").is_file()
    assert list(identity.parent.rglob("offline-run-*" if logger == "wandb" else "events.out.*"))
    kept = yaml.safe_load((identity.parent / CONFIG).read_text())
    assert kept["trainer"]["logger"]["init_args"]["save_dir"] in {None, "."}


def test_a_test_without_run_and_of_a_damaged_checkpoint(run, tmp_path, capsys):
    for words in (["test"], ["test", "--run"], ["test", "--run="]):
        assert main(words) == 2
        assert "give `cardiac-mtl test --run DIR`" in capsys.readouterr().err
    broken = tmp_path / "run"
    (broken / "checkpoints").mkdir(parents=True)
    for name in (CONFIG, IDENTITY):
        (broken / name).write_bytes((run / name).read_bytes())
    (broken / BEST).write_bytes((run / BEST).read_bytes()[:1000])
    assert main(["test", "--run", str(broken)]) == 2
    assert "best.ckpt: is not a readable checkpoint" in capsys.readouterr().err


@pytest.mark.usefixtures("undrawn")
def test_a_run_that_lost_what_it_is_is_one_line(run, tmp_path, capsys):
    assert main(["test", "--run", str(run)]) == 0
    broken, out = shutil.copytree(run, tmp_path / "run"), str(tmp_path / "out")
    (broken / IDENTITY).write_text("{}")
    for words in (
        ["test", "--run", str(broken)],
        ["audit", "--run", str(broken)],
        ["report", str(broken), "--output", out],
    ):
        capsys.readouterr()
        assert main(words) == 2, words
        assert "run.json: says nothing of '" in capsys.readouterr().err, words


@pytest.mark.parametrize("other", [["--data.split_seed", "5"], ["--data.fold", "1"]])
def test_another_fold_than_that_of_training_is_refused(run, capsys, other):
    assert main(["test", "--run", str(run), *other]) == 2
    assert "the fold is not that of its training" in capsys.readouterr().err


def test_a_start_from_other_weights_takes_the_weights_alone(run, lvsc, tmp_path):
    more = ["--ckpt_path", run / LAST, "--model.optimizer.lr", "0.5"]
    assert fit(lvsc, tmp_path, *more) == 0
    (identity,) = tmp_path.rglob(IDENTITY)
    found = json.loads(identity.read_text())
    rows = pd.read_csv(identity.with_name("metrics.csv"))
    assert rows["lr"].dropna().tolist() == [0.5]
    assert rows["epoch"].tolist() == [0, 0]
    assert found["best_value"] == pytest.approx(rows["val/dice_vol"].max())
    assert (identity.parent / BEST).is_file()


def test_a_start_from_other_weights_is_another_run(run, lvsc, capsys):
    assert fit(lvsc, run.parents[3], "--ckpt_path", run / LAST) == 0
    assert "trained already" not in capsys.readouterr().out
    (other,) = {path.parent for path in run.parent.parent.rglob(IDENTITY)} - {run}
    shutil.rmtree(other)


@pytest.mark.parametrize("other", [["--data.split_seed", "5"], ["--data.fold", "1"]])
def test_a_start_from_weights_of_another_fold_is_refused(run, lvsc, tmp_path, capsys, other):
    assert fit(lvsc, tmp_path / "runs", "--ckpt_path", run / LAST, *other) == 2
    assert "test patients may have trained it" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_start_from_weights_of_another_network_leaves_nothing(run, lvsc, tmp_path, capsys):
    assert fit(lvsc, tmp_path / "runs", "--ckpt_path", run / LAST, "--model.width", "6") == 2
    assert "its weights are of another network" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_run_is_not_tested_under_another_protocol(run, capsys):
    assert main(["test", "--run", str(run), "--data.paper_protocol", "true"]) == 2
    assert "was selected by the honest protocol" in capsys.readouterr().err


def test_a_run_that_would_validate_no_epoch_is_refused(lvsc, tmp_path, capsys):
    more = ["--trainer.max_epochs", "3", "--trainer.check_val_every_n_epoch", "4"]
    assert fit(lvsc, tmp_path / "runs", *more) == 2
    assert "4, of 3 epochs: none would be validated" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_run_that_validated_no_epoch_has_failed(lvsc, tmp_path, capsys):
    assert fit(lvsc, tmp_path, "--trainer.max_steps", "1") == 2
    assert "no epoch was validated" in capsys.readouterr().err
    (identity,) = tmp_path.rglob(IDENTITY)
    assert json.loads(identity.read_text())["status"] == "failed"


@pytest.mark.parametrize("key", ["accumulate_grad_batches", "check_val_every_n_epoch"])
def test_a_trainer_that_cannot_count_is_refused(lvsc, tmp_path, capsys, key):
    assert fit(lvsc, tmp_path / "runs", f"--trainer.{key}", "0") == 2
    assert f"trainer.{key}: 0; give 1 or more" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--trainer.val_check_interval", "500"], "trainer: `val_check_interval` (500) must be"),
        (["--trainer.strategy", "foo"], "trainer: You selected an invalid strategy name"),
        (
            [CALLBACK, "--trainer.callbacks.monitor=val/foo"],
            "trainer: Early stopping conditioned on metric",
        ),
    ],
)
def test_what_lightning_refuses_is_one_line(lvsc, tmp_path, capsys, more, message):
    assert fit(lvsc, tmp_path, *more) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_each_seed_has_an_order_of_its_own_in_every_epoch(lvsc):
    orders = set()
    for seed in range(3):
        torch.manual_seed(seed)
        data = StacomDataModule(root=lvsc, matrix=(16, 16), spacing_mm=16.0, num_folds=3)
        data.setup("test")
        sampler = data.train_dataloader().sampler
        for epoch in range(3):
            sampler.set_epoch(epoch)
            orders.add(tuple(sampler))
    assert len(orders) == 9
