"""What W&B and TensorBoard are told: who, what, which pictures; and nothing of where or whom."""

import io
import json
import os
import shutil
import signal
import socket
import struct
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import wandb
import yaml
from jsonargparse import Namespace
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.proto.wandb_internal_pb2 import Record
from wandb.sdk.launch.sweeps.utils import (
    create_sweep_command,
    create_sweep_command_args,
    load_sweep_config,
)

from cardiac_mtl.catalogue import sweeps
from cardiac_mtl.cli import main
from cardiac_mtl.papers.base import Paper
from cardiac_mtl.runs import IDENTITY
from cardiac_mtl.training.dashboard import Examples, public, settle_loggers, write_offline_run

BLOCK = 32768


def records(path):
    """Read a file of W&B's: a log of LevelDB, each record one of W&B's own messages."""
    data, place, part = path.read_bytes(), 7, b""
    assert data[:4] == b":W&B"
    while place < len(data):
        if BLOCK - place % BLOCK < 7:
            place += BLOCK - place % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + 7])
        part += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in {1, 4}:  # whole, or the last part
            record = Record()
            record.ParseFromString(part)
            part = b""
            yield record


def fit(hearts, run_root, *more):
    return main([
        "fit", "--config", "mtn_uncertainty", "--config", "manifest", "--config", "debug",
        "--data.root", str(hearts), "--data.num_folds", "3", "--trainer.accelerator", "cpu",
        "--run_root", str(run_root), "--trainer.max_epochs", "2", *more,
    ])  # fmt: skip


@pytest.fixture(scope="module")
def told(hearts, without_pictures, tmp_path_factory):
    """The W&B file of a run of a study that was trained and tested, and what is in it."""
    root = tmp_path_factory.mktemp("told")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("WANDB_API_KEY", raising=False)
        patch.setenv("HOME", str(root))
        patch.setenv("WANDB_RUN_GROUP", "mtn_uncertainty-12345678")
        assert fit(hearts, root / "runs", "--config", "loggers/wandb") == 0
        patch.delenv("WANDB_RUN_GROUP")
        with without_pictures():
            assert main(["test", "--run", str(root / "runs")]) == 0
    (path,) = root.rglob("*.wandb")  # one, though it was fitted and tested
    return path, list(records(path))


def run_of(told):
    return told[1][next(k for k, r in enumerate(told[1]) if r.HasField("run"))].run


def test_a_run_is_named_grouped_and_keeps_its_id(told):
    run = run_of(told)
    assert run.display_name == "mtn_uncertainty-fold0-seed0"
    assert (run.project, run.run_group, run.job_type) == (
        "cardiac-mtl", "mtn_uncertainty-12345678", "fold0"
    )  # fmt: skip
    assert set(run.tags) == {"mtn_uncertainty", "hearts", "seed0"}
    assert len(run.run_id) == 8


@pytest.mark.parametrize(("every", "drawn"), [(1, [0, 5, 10, 15, 20, 23]), (4, [3, 7, 11, 15, 23])])
def test_pictures_come_where_not_every_epoch_is_validated(tmp_path, every, drawn):
    examples, found = Examples(tmp_path), []
    for epoch in range(every - 1, 24, every):
        trainer = SimpleNamespace(
            current_epoch=epoch, max_epochs=24, check_val_every_n_epoch=every,
            is_global_zero=True, sanity_checking=False,
        )  # fmt: skip
        examples.on_validation_epoch_start(trainer, None)
        found += [epoch] * (examples._collector is not None)
    assert found == drawn


def test_it_holds_every_number_of_the_csv(told):
    metrics = pd.read_csv(next(told[0].parents[2].glob("metrics.csv")))
    rows = [
        {
            item.key or ".".join(item.nested_key): json.loads(item.value_json)
            for item in r.history.item
        }
        for r in told[1]
        if r.HasField("history")
    ]
    by_step = {row["_step"]: row for row in rows}
    keys = set(metrics) - {"step", "epoch"}
    assert {"grad_norm", "lr", "s/area", "weight/mask", "val/dice_vol", "train/loss/area"} <= keys
    for row in metrics.to_dict("records"):
        for key in keys:
            if not pd.isna(row[key]):
                assert by_step[row["step"]][key] == pytest.approx(row[key]), key


def test_it_holds_pictures_the_test_table_and_where_it_comes_from(told):
    keys = {
        item.key or ".".join(item.nested_key)
        for r in told[1]
        if r.HasField("history")
        for item in r.history.item
    }
    pictures = {key.partition(".")[0] for key in keys if key.startswith("examples/")}
    drawn = {path.stem.partition("_")[2] for path in told[0].parents[2].glob("examples/*.png")}
    assert pictures == {f"examples/{name}" for name in drawn} != set()
    assert any(key.startswith("test") for key in keys)
    config = {update.key: update.value_json for update in run_of(told).config.update}
    assert {"model", "data", "trainer", "seed_everything", "run"} <= set(config)
    assert json.loads(config["run"])["split_sha256"]


def test_it_tells_nothing_of_places_and_people(told, hearts):
    content = told[0].read_bytes()
    for secret in (str(hearts), str(hearts.parent), "argv", socket.gethostname() + '"'):
        assert secret.encode() not in content
    assert not list(told[0].parent.rglob("wandb-metadata.json"))
    assert run_of(told).host in {"", "-"}


def test_a_run_without_key_is_offline_and_one_with_a_key_is_not(monkeypatch, tmp_path):
    def offline():
        settings = Namespace(save_dir=".", id=None, name=None, offline=False)
        settle_loggers(Namespace(init_args=settings), tmp_path / "mtn/lvsc/fold0-seed0/abc")
        assert settings.save_dir == str(tmp_path / "mtn/lvsc/fold0-seed0/abc")
        return settings.offline

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    assert offline()
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    assert not offline()
    monkeypatch.delenv("WANDB_API_KEY")
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine api.wandb.ai login user password " + "0" * 40 + "\n")
    netrc.chmod(0o600)
    assert not offline()


def test_runs_in_one_folder_of_tensorboard_stay_apart(tmp_path):
    """A folder of one's own for all runs: their curves were written into one another."""

    def place(given, run):
        settings = Namespace(save_dir=given, name="lightning_logs", version=None, sub_dir=None)
        settle_loggers(Namespace(init_args=settings), tmp_path / run)
        return TensorBoardLogger(**settings).log_dir

    runs = [f"mtn/lvsc/fold{k}-seed0/abc" for k in range(2)]
    board = str(tmp_path / "board")
    assert [place(board, run) for run in runs] == [f"{board}/{run}/tensorboard" for run in runs]
    assert place(".", runs[0]) == str(tmp_path / runs[0] / "tensorboard")


def test_a_dashboard_that_cannot_be_reached_is_one_line_and_no_run(
    hearts, tmp_path, monkeypatch, capsys
):
    """A node of a cluster has the user's key and no network; `run.json` said `running` for ever."""

    def times_out(**_):
        raise wandb.errors.CommError("Run initialization\nhas timed out after 90 sec")

    monkeypatch.setattr(wandb, "init", times_out)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    assert fit(hearts, tmp_path, "--config", "loggers/wandb") == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "has timed out after 90 sec; set WANDB_MODE=offline" in line
    assert not list(tmp_path.rglob(IDENTITY))


def test_places_are_no_part_of_what_is_shown():
    config = {"run_root": "a", "data": {"class_path": "x", "init_args": {"root": "b", "fold": 1}}}
    shown = public(config, {"command": "cardiac-mtl fit --data.root b", "seed": 0})
    assert shown == {
        "data": {"class_path": "x", "init_args": {"fold": 1}},
        "run": {"seed": 0},
    }


def test_tensorboard_is_told_the_same(hearts, tmp_path):
    assert fit(hearts, tmp_path, "--config", "loggers/tensorboard") == 0
    (identity,) = tmp_path.rglob(IDENTITY)
    events = EventAccumulator(str(identity.parent / "tensorboard"), size_guidance={"images": 0})
    events.Reload()
    metrics = pd.read_csv(identity.parent / "metrics.csv")
    for key in set(metrics) - {"step"}:
        found = [event.value for event in events.Scalars(key)]
        assert found == pytest.approx(metrics[key].dropna().tolist(), rel=1e-5), key
    (tag, *_) = [tag for tag in events.Tags()["images"] if tag.startswith("examples/")]
    picture = Image.open(io.BytesIO(events.Images(tag)[0].encoded_image_string))
    (drawn, *_) = sorted((identity.parent / "examples").glob("epoch0000_*.png"))
    assert np.array_equal(np.asarray(picture), np.asarray(Image.open(drawn).convert("RGB")))


def test_an_offline_run_that_was_requeued_ends_as_one(hearts, tmp_path, monkeypatch):
    """P44: each start leaves a segment, and syncing several loses what one of them holds."""
    monkeypatch.setenv("HOME", str(tmp_path))
    step, calls = Paper.training_step, []

    def interrupted(*args):
        calls.append(1)
        if len(calls) == 4:
            os.kill(os.getpid(), signal.SIGUSR1)
        return step(*args)

    monkeypatch.setattr(Paper, "training_step", interrupted)
    more = ("--config", "loggers/wandb")
    assert fit(hearts, tmp_path / "runs", *more) == 128 + signal.SIGUSR1
    (first,) = tmp_path.rglob("*.wandb")
    monkeypatch.undo()
    assert fit(hearts, tmp_path / "runs", *more) == 0
    (path,) = tmp_path.rglob("*.wandb")
    assert path != first
    assert path.name == first.name  # the id
    epochs = [
        json.loads(item.value_json)
        for r in records(path)
        if r.HasField("history")
        for item in r.history.item
        if (item.key or item.nested_key[0]) == "epoch"
    ]
    assert sorted(set(epochs)) == [0, 1]


@pytest.mark.parametrize("sweep", sweeps(), ids=lambda path: path.stem)
def test_the_commands_of_a_sweep_are_ours_and_select_on_validation(sweep, capsys):
    """P38: what the agent of W&B makes of a file is what our command line takes."""
    described = load_sweep_config(str(sweep))
    assert described["metric"]["name"].startswith("val/")
    assert described["method"] in {"grid", "random", "bayes"}
    drawn = {
        name: {"value": p["values"][0] if "values" in p else p["min"]}
        for name, p in described["parameters"].items()
    }
    made = create_sweep_command(described["command"])
    given = create_sweep_command_args({"args": drawn})["args"]
    words = [w for word in made for w in (given if word == "${args}" else [word])]
    (start,) = [k for k, word in enumerate(words) if word == "fit"]
    with pytest.raises(SystemExit) as end:
        main([*words[start:], "--print_config"])
    assert end.value.code in {0, None}
    shown = yaml.safe_load(capsys.readouterr().out)
    for name, one in drawn.items():
        part, *rest = name.split(".")
        place = shown[part]["init_args"]
        for key in rest:
            place = place["init_args"][key] if "init_args" in place else place[key]
        assert place == one["value"], name


def test_a_rewriting_that_was_killed_loses_nothing(told, tmp_path):
    """The old segments come back where the new one had not taken their place."""
    run = tmp_path / "mtn_uncertainty/hearts/fold0-seed0/abc"
    shutil.copytree(told[0].parents[2], run)
    (run / ".wandb-whole").mkdir()
    (run / "wandb").rename(run / ".wandb-whole/before")
    write_offline_run(run)
    assert len(list(run.rglob("*.wandb"))) == 1
    assert not (run / ".wandb-whole").exists()


def test_several_loggers_and_a_project_of_ones_own(hearts, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    overlay = tmp_path / "loggers.yaml"
    overlay.write_text(yaml.safe_dump({"trainer": {"logger": [
        {"class_path": "lightning.pytorch.loggers.WandbLogger", "init_args": {"project": "mine"}},
        {"class_path": "lightning.pytorch.loggers.TensorBoardLogger", "init_args": {"save_dir": "."}},
    ]}}))  # fmt: skip
    assert fit(hearts, tmp_path / "runs", "--config", str(overlay)) == 0
    (path,) = tmp_path.rglob("*.wandb")
    assert next(r.run for r in records(path) if r.HasField("run")).project == "mine"
