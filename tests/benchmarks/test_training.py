"""Both curves are read and compared alike, and ours is that of the weights which are validated."""

import argparse
import itertools
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from lightning import Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging

from benchmarks import training
from benchmarks.catalogue import BENCHMARKS
from benchmarks.common import machine, write
from benchmarks.nnunet import check_comparable
from benchmarks.steps import configuration
from benchmarks.training import Curve, Point, TestCurve, at, compared, read_curve
from cardiac_mtl.configuration import build
from data_modules.manifest import ManifestDataModule


def line(epoch, seconds, *dice, **more):
    cases = {f"case{k}": value for k, value in enumerate(dice)}
    return {
        "epoch": epoch,
        "seconds": seconds,
        "mean": sum(dice) / len(dice),
        "cases": cases,
    } | more


@pytest.fixture
def curve_of(tmp_path):
    """Return what reads lines as a curve."""

    def read(*lines, started=None):
        path = tmp_path / "curve.jsonl"
        path.write_text("".join(json.dumps(one) + "\n" for one in lines))
        return read_curve(path, started)

    return read


def curve(*pairs, command=False, **facts):
    points = [
        Point(k, seconds, mean, mean - 0.1, seconds + 15 if command else None)
        for k, (seconds, mean) in enumerate(pairs)
    ]
    return Curve(points, frozenset({"a"}), facts)


OURS = curve((30.0, 0.71), (60.0, 0.76), (90.0, 0.74), (120.0, 0.83), command=True, threads=2)
THEIRS = curve((300.0, 0.76), (600.0, 0.79), (900.0, 0.82), threads=2, workers=2)


def test_a_curve_is_read_with_its_facts(curve_of):
    found = curve_of(
        {"threads": 1}, line(0, 350.5, 0.7, 0.8), line(1, 700.0, 0.5, 1.0), {"mirrored_dice": 0.8}
    )
    assert found.points == [Point(0, 350.5, 0.75, 0.7), Point(1, 700.0, 0.75, 0.5)]
    assert found.facts == {"threads": 1, "mirrored_dice": 0.8}
    assert found.cases == {"case0", "case1"}


def test_time_from_the_command_follows_from_the_clock_of_all_processes(curve_of):
    found = curve_of(line(3, 60.0, 0.7, clock=1085.0), started=1000.0)
    assert found.points[0].command == 85.0


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], "not the curve of one training"),
        ([line(0, 350.0, 0.7), line(1, 340.0, 0.7)], "not the curve of one training"),
        ([line(0, 350.0, 0.7), line(1, 700.0, 0.7, 0.8)], "not the curve of one training"),
        ([{"epoch": 0, "seconds": 3.0, "mean": 0.7}], "no curve: KeyError 'cases'"),
        (["epoch"], "no curve: "),
    ],
)
def test_what_is_no_curve_is_refused(curve_of, lines, said):
    with pytest.raises(SystemExit, match=said):
        curve_of(*lines)


@pytest.mark.parametrize(
    ("level", "ours", "theirs", "ratio"),
    [
        (0.70, 30.0, 300.0, 10.0),
        (0.75, 60.0, 300.0, 5.0),
        (0.82, 120.0, 900.0, 7.5),  # at the level is enough; what fell below counts no more
        (0.83, 120.0, None, None),
        (0.84, None, None, None),
    ],
)
def test_the_time_to_a_level_is_that_of_the_first_score_there(level, ours, theirs, ratio):
    assert at(level, OURS, THEIRS) == {
        "dice": level,
        "ours_s": ours,
        "ours_from_command_s": ours and ours + 15,
        "nnunet_s": theirs,
        "nnunet_over_ours": ratio,
    }


@pytest.mark.parametrize(
    ("ours", "theirs", "said"),
    [
        (OURS, THEIRS, "ours 120 s, nnU-Net 900 s, 7.5 times sooner, one run of each"),
        (OURS, None, "ours 120 s, nnU-Net not measured, one run of each"),
        (
            curve((60.0, 0.8)),
            THEIRS,
            "ours not in 60 s, then at 0.800, nnU-Net 900 s, one run of each",
        ),
    ],
)
def test_the_target_is_answered_in_words(ours, theirs, said):
    assert compared(ours, theirs)["target"] == said


def test_the_page_shows_both_and_what_was_never_reached():
    rows = BENCHMARKS["training"].shown(compared(curve((60.0, 0.81), threads=1), THEIRS))
    assert ("to a Dice of 0.80", "60", "never", "900", "15") in rows
    assert ("to a Dice of 0.82", "never", "never", "900", "") in rows
    assert ("threads", "1", "", "2") in rows
    assert ("workers besides", "", "", "2") in rows


def test_the_page_shows_ours_alone():
    rows = BENCHMARKS["training"].shown(compared(OURS, None))
    assert ("to a Dice of 0.70", "30", "45", "not measured", "") in rows


def test_a_curve_of_another_fold_is_refused(hearts):
    data = ManifestDataModule(hearts)
    data.find_and_split()
    test = training.cases_of(data, data.split.test)
    training.check_cases(Curve([], frozenset(test), {}), data)
    with pytest.raises(SystemExit, match=f"not the test cases of fold 0: {test[0]}"):
        training.check_cases(Curve([], frozenset(test[1:]), {}), data)


def test_a_curve_of_another_machine_or_of_half_a_training_is_refused():
    begun = {"machine": machine(), "epochs": 3}
    ended = begun | {"mirrored_dice": 0.8}
    check_comparable(json.loads(json.dumps(ended)))
    check_comparable({"threads": 2})
    with pytest.raises(SystemExit, match="of another machine"):
        check_comparable(ended | {"machine": machine() | {"cores": 999}})
    with pytest.raises(SystemExit, match="that was stopped"):
        check_comparable(begun)


def test_nnunet_is_given_every_voxel_and_the_myocardium(hearts, tmp_path):
    data = ManifestDataModule(hearts)
    data.find_and_split()
    training.write_raw(tmp_path / "raw", data)
    assert len([*(tmp_path / "raw/imagesTr").iterdir()]) == len(data.cases) == 12
    case = data.cases[7]
    pairs = [
        (case.image[0], f"imagesTr/{case.case_id}_0000.nii.gz", lambda voxels: voxels),
        (case.mask[0], f"labelsTr/{case.case_id}.nii.gz", lambda voxels: voxels == 1),
    ]
    for source, copy, kept in pairs:
        before, after = sitk.ReadImage(str(source)), sitk.ReadImage(str(tmp_path / "raw" / copy))
        assert after.GetSpacing() == pytest.approx(before.GetSpacing())
        voxels = kept(sitk.GetArrayFromImage(before))
        assert np.array_equal(sitk.GetArrayFromImage(after), voxels)
        assert voxels.any()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "give --nnunet BIN"),
        (["--only", "nnunet", "--nnunet-curve", "FILE"], "give --nnunet BIN"),
        (["--only", "nnunet", "--nnunet", "BIN"], "give it"),
        (["--nnunet", "BIN", "--nnunet-curve", __file__], "is there already"),
    ],
)
def test_sides_that_come_from_nowhere_are_refused(words, said, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["training", "--data", "HEARTS", *words])
    with pytest.raises(SystemExit):
        training.parsed()
    assert said in capsys.readouterr().err


def test_an_overlay_of_a_users_own_does_not_lose_the_figures(tmp_path):
    options = argparse.Namespace(results=tmp_path)
    path = write("training", {"a": 1}, options, variant="mtn_unet+presets/debug+/tmp/mine.yaml")
    assert path.parent == tmp_path
    assert path.name.startswith("training-mtn_unet+debug+mine-")


def test_the_clock_stops_for_validation_and_the_command_for_scoring(tmp_path, monkeypatch):
    begun, paused, scoring, scored, ended = 100.0, 160.0, 161.0, 171.0, 180.0
    ticks = itertools.chain([begun, paused, scoring, scored, ended], [240.0, 240.0, 255.0])
    monkeypatch.setattr(training.time, "monotonic", lambda: next(ticks))
    monkeypatch.setattr(training, "score", lambda *_: {"a": 0.5})
    data = SimpleNamespace(batch_size=4, matrix=(64, 64), spacing_mm=1.4)
    trainer = SimpleNamespace(
        datamodule=data, precision="32-true", max_epochs=2, current_epoch=0, sanity_checking=False
    )
    callback = TestCurve(tmp_path / "curve.jsonl")
    callback.on_train_start(trainer, torch.nn.Linear(2, 3))
    for _ in range(2):
        callback.on_validation_start(trainer, None)
        for number in range(3):
            callback.on_validation_batch_start(trainer, None, {}, number)
        if trainer.current_epoch == 0:
            callback.on_validation_end(trainer, None)
        trainer.current_epoch += 1
    found = read_curve(callback.path, started=90.0)
    assert [point.seconds for point in found.points] == [60.0, 120.0]
    assert [point.command for point in found.points] == [70.0, 140.0]
    assert found.facts["parameters"] == 9


def test_ours_is_scored_on_the_test_patients_with_averaged_weights(lvsc, tmp_path):
    """Of the average, which never leaves the weights of the first step; whoever comes first."""
    config = configuration("mtn_uncertainty+cpu_small", width=4)
    config["data"]["init_args"] |= {"root": str(lvsc), "spacing_mm": 4, "batch_size": 4}
    torch.manual_seed(1)
    paper, data = build(config)
    callback = TestCurve(tmp_path / "curve.jsonl")
    trainer = Trainer(
        accelerator="cpu", max_epochs=1, limit_train_batches=3, limit_val_batches=1,
        callbacks=[callback, EMAWeightAveraging(decay=1.0)], logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(paper, datamodule=data)
    lines = [json.loads(text) for text in callback.path.read_text().splitlines()]
    assert [one.get("epoch") for one in lines] == [None, 0]
    assert lines[1]["cases"] == pytest.approx(dice_of_test_part(paper.eval(), data))
    assert min(lines[1]["cases"].values()) > 0
    assert set(lines[1]["cases"]) == set(training.cases_of(data, data.split.test))


@torch.no_grad()
def dice_of_test_part(paper, data):
    """Return the Dice of each test volume, read from the store slice by slice."""
    found = {}
    for row in np.flatnonzero(data.case_table["patient_id"].isin(data.split.test)):
        image, mask = data.store.gather(data.store.slices_of([row]))
        predicted, true = paper(image[:, None])["mask"] > 0, mask == 1
        overlap = 2 * (predicted & true).sum() / (predicted.sum() + true.sum())
        found[data.cases[row].case_id] = float(overlap)
    return found
