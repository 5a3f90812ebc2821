"""FPM: what is peculiar to it."""

import json
from shutil import copytree

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, roc_curve

from cardiac_mtl.cli import main
from cardiac_mtl.configuration import build
from cardiac_mtl.contracts import UNLABELLED
from cardiac_mtl.errors import UserError
from cardiac_mtl.metrics.classification import confusion
from cardiac_mtl.papers.fpm_multitask import (
    FPMMultiTask,
    JaccardAndCrossEntropy,
    T1Baseline,
)
from cardiac_mtl.runs import LAST
from cardiac_mtl.weighting import FixedWeighting, SingleTask, UncertaintyWeighting

BASELINES = {
    "mask": ["unet", "deeplabv3plus"],
    "label": ["vgg16", "resnet50", "inception_v3", "xception"],
}


def make_batch(size=(40, 36)):
    mask = torch.zeros(4, *size, dtype=torch.int64)
    mask[:, 8:20, 8:20] = 1
    label = torch.tensor([0, 0, 1, 1])
    image = mask.float() * (1 + label)[:, None, None]
    return {
        "image": image[:, None] + 0.1 * torch.randn(4, 1, *size),
        "mask": mask,
        "spacing": torch.tensor([[8.0, 1.2, 1.2]] * 4),
        "indices": torch.full((4, 1), torch.nan),
        "case": torch.arange(4),
        "slice": torch.zeros(4, dtype=torch.int64),
        "label": label,
        "transferred": torch.zeros(4, dtype=torch.bool),
        "sample": torch.arange(4),
    }


def test_prediction_is_in_probabilities_of_tissue_and_of_healthy_then_diseased():
    paper = FPMMultiTask(width=2)
    outputs = {"mask": torch.zeros(2, 5, 4), "label": torch.tensor([2.0, -30.0])}
    prediction = paper.predict(outputs)
    assert prediction["mask_prob"].shape == (2, 2, 5, 4)
    assert prediction["label_prob"].argmax(1).tolist() == [1, 0]
    assert paper.class_names == ("healthy", "diseased")
    torch.testing.assert_close(prediction["label_prob"].sum(1), torch.ones(2))


def test_the_loss_is_nine_parts_jaccard_and_one_part_cross_entropy():
    batch = make_batch(size=(32, 32))
    outputs = {"mask": torch.zeros(4, 32, 32), "label": torch.zeros(4)}
    paper = FPMMultiTask(width=2)
    losses = paper.losses(outputs, batch)
    jaccard = 1 - (72 + 1) / (512 + 144 - 72 + 1)
    nats = float(torch.tensor(2.0).log())
    assert float(losses["mask"].mean) == pytest.approx(jaccard)
    assert float(losses["label"].mean) == pytest.approx(nats)
    assert float(paper.weighting(losses)) == pytest.approx(0.9 * jaccard + 0.1 * nats)


def test_the_weights_of_figure_3_add_up_to_one():
    weights = JaccardAndCrossEntropy(mask=0.3).weights()
    assert {task: float(w) for task, w in weights.items()} == pytest.approx(
        {"mask": 0.3, "label": 0.7}
    )


@pytest.mark.parametrize("lacks", ["mask", "label"])
def test_samples_without_one_annotation_teach_the_other_task(lacks):
    torch.manual_seed(0)
    batch, paper = make_batch(), FPMMultiTask(width=2)
    batch[lacks] = torch.full_like(batch[lacks], UNLABELLED)
    losses = paper.losses(paper(batch["image"]), batch)
    paper.weighting(losses).backward()
    assert losses[lacks].mean.item() == 0.0
    head = {"mask": paper.network.decoder.full[2], "label": paper.network.classify}
    other = ({"mask", "label"} - {lacks}).pop()
    assert not head[lacks].weight.grad.any()
    assert head[other].weight.grad.any()


@pytest.mark.parametrize(
    ("task", "labels", "classes", "monitor"),
    [
        ("mask", ("myocardium",), (), ("val/dice_vol", "max")),
        ("label", (), ("healthy", "diseased"), ("val/loss/label", "min")),
    ],
)
def test_a_single_task_builds_no_other_branch(task, labels, classes, monitor):
    paper = FPMMultiTask(width=2, weighting=lambda: SingleTask(task))
    assert set(paper(make_batch()["image"])) == {task}
    assert (paper.label_names, paper.class_names, paper.monitor) == (labels, classes, monitor)
    assert (paper.network.decoder is None) == (task == "label")
    assert (paper.network.classify is None) == (task == "mask")


@pytest.mark.parametrize("task", BASELINES)
def test_baselines_do_one_task(task):
    batch = make_batch()
    for network in BASELINES[task]:
        paper = T1Baseline(network, width=4)
        losses = paper.losses(paper(batch["image"]), batch)
        assert set(losses) == {task} == set(paper.weighting.tasks)
        (prediction,) = paper.predict(paper(batch["image"])).values()
        assert prediction.shape == ((4, 2, 40, 36) if task == "mask" else (4, 2))


@pytest.mark.parametrize(
    "make", [FPMMultiTask, lambda **kw: T1Baseline("unet", **kw)], ids=["fpm", "baseline"]
)
def test_the_papers_optimiser_is_the_default(make):
    (optimizer,), _ = make(width=2).configure_optimizers()
    assert isinstance(optimizer, torch.optim.RMSprop)
    (group,) = optimizer.param_groups
    assert (group["lr"], group["alpha"], group["eps"]) == (0.003, 0.9, 1e-7)


def test_learned_weights_do_not_decay():
    likelihoods = {"mask": "softmax", "label": "softmax"}
    paper = FPMMultiTask(
        width=2,
        weighting=lambda: UncertaintyWeighting(likelihoods),
        optimizer=lambda params: torch.optim.AdamW(params, lr=0.01, weight_decay=0.1),
    )
    (optimizer,), _ = paper.configure_optimizers()
    network, learned = optimizer.param_groups
    assert [network["weight_decay"], learned["weight_decay"]] == [0.1, 0.0]
    assert [id(p) for p in learned["params"]] == [id(paper.weighting.s)]
    assert len(network["params"]) + 1 == len(list(paper.parameters()))


def test_losses_fall_on_one_batch():
    torch.manual_seed(0)
    paper, batch = FPMMultiTask(width=4), make_batch(size=(32, 32))
    (optimizer,), _ = paper.configure_optimizers()
    history = []
    for _ in range(25):
        losses = paper.losses(paper(batch["image"]), batch)
        history.append([losses[task].mean.item() for task in ("mask", "label")])
        optimizer.zero_grad()
        paper.weighting(losses).backward()
        optimizer.step()
    assert history[-1][0] < 0.9 * history[0][0]
    assert history[-1][1] < 0.1 * history[0][1]


def test_the_memory_format_changes_no_number():
    torch.manual_seed(0)
    paper = FPMMultiTask(width=2).eval()
    image = torch.randn(2, 1, 36, 40)
    found = paper(image)
    paper.to(memory_format=torch.contiguous_format)
    for task, expected in paper(image).items():
        torch.testing.assert_close(found[task], expected, rtol=1e-5, atol=1e-5)


def test_the_rates_reach_the_network():
    paper = FPMMultiTask(width=2, serial=(2, 2, 2), parallel=(6, 12, 18))
    first, second = (stage.pyramid for stage in paper.network.stages[:2])
    assert [c[0].dilation for c in first.serial] == [(2, 2)] * 3
    assert len(first.parallel) == 0
    assert [c[0].dilation for c in second.parallel] == [(6, 6), (12, 12), (18, 18)]


def test_a_yaml_may_say_everything():
    settings = {"width": 2, "serial": [5, 5, 5], "weighting": {"mask": 0.5}}
    described = {
        "model": {
            "class_path": "cardiac_mtl.papers.fpm_multitask.FPMMultiTask",
            "init_args": settings,
        },
        "data": {"class_path": "data_modules.manifest.ManifestDataModule"},
    }
    paper, _ = build(described)
    assert isinstance(paper.weighting, JaccardAndCrossEntropy)
    assert float(paper.weighting.weights()["label"]) == 0.5
    assert receptive(paper) == [5, 5, 5]


def receptive(paper):
    return [c[0].dilation[0] for c in paper.network.stages[0].pyramid.serial]


def test_a_network_that_calls_everything_healthy_has_the_values_of_vgg16_in_table_7():
    paper = T1Baseline("vgg16", width=4)
    found = paper.predict({"label": torch.full((654,), -3.0)})["label_prob"].numpy()
    label = torch.tensor([0] * 577 + [1] * 77).numpy()
    positive = confusion(found[:, 0], label, positive=0)
    assert 100 * positive.accuracy == pytest.approx(88.23, abs=0.005)
    assert (positive.sensitivity, positive.specificity) == (1.0, 0.0)
    diseased = confusion(found[:, 1], label, positive=1)
    assert (diseased.sensitivity, diseased.specificity) == (0.0, 1.0)


def test_predict_names_the_classes(maps, tmp_path):
    words = ["fit", "--config", "fpm_classification", "--config", "debug"]
    words += ["--data.root", str(maps), "--data.matrix", "[64, 64]", "--data.num_folds", "3"]
    assert main([*words, "--trainer.accelerator", "cpu", "--run_root", str(tmp_path)]) == 0
    source, out = min(maps.glob("*_image.nii.gz")), tmp_path / "out"
    words = ["predict", "--run", str(tmp_path), "--input", str(source), "--output", str(out)]
    assert main(words) == 0
    found = pd.read_csv(out / "predictions.csv")
    total = found["probability_healthy"] + found["probability_diseased"]
    np.testing.assert_allclose(total, 1.0, atol=1e-5)
    assert not list(out.glob("*.nii.gz"))


@pytest.mark.usefixtures("undrawn")
def test_the_threshold_is_chosen_on_validation_patients(maps, tmp_path, monkeypatch):
    # after two batches images differ in the sixth digit
    monkeypatch.setattr(
        "cardiac_mtl.training.outputs.write_csv", lambda path, rows: rows.to_csv(path, index=False)
    )
    data, runs = tmp_path / "maps", tmp_path / "runs"
    copytree(maps, data)
    table = pd.read_csv(data / "cases.csv")
    table["label"] = [0, 0, 0, 1, 1, 1]
    table.to_csv(data / "cases.csv", index=False)
    words = ["fit", "--config", "fpm_classification", "--config", "debug"]
    words += ["--data.root", str(data), "--data.matrix", "[64, 64]", "--data.num_folds", "3"]
    words += ["--data.val_fraction", "0.5", "--trainer.accelerator", "cpu"]
    assert main([*words, "--run_root", str(runs)]) == 0
    assert main(["test", "--run", str(runs), "--trainer.accelerator", "cpu"]) == 0
    run = next(runs.rglob("run.json")).parent
    facts = json.loads((run / "run.json").read_text())["threshold"]
    words = ["predict", "--run", str(run), "--input", str(data), "--device", "cpu"]
    assert main([*words, "--output", str(tmp_path / "out")]) == 0
    every = pd.read_csv(tmp_path / "out/predictions.csv").merge(table, on="case_id")
    split = json.loads((run / "splits.json").read_text())["folds"][0]
    above = every["probability_diseased"] > facts["value"]
    assert (every["called"] == np.where(above, "diseased", "healthy")).all()
    seen = every[every["patient_id"].isin(split["val"])]
    assert (facts["chosen_on"], facts["images"]) == ("val", len(seen))
    ours = balanced_accuracy_score(seen["label"], seen["probability_diseased"] > facts["value"])
    assert facts["balanced_accuracy"] == pytest.approx(ours)
    false_rate, true_rate, _ = roc_curve(seen["label"], seen["probability_diseased"])
    assert 2 * ours - 1 == pytest.approx((true_rate - false_rate).max())
    labels = pd.read_csv(run / "labels.csv")
    assert set(labels["patient_id"]) == set(split["test"])
    second = labels[labels["class"] == 1]
    np.testing.assert_allclose(second["threshold"], facts["value"], rtol=1e-5)
    assert (second["called"] == (second["probability"] > facts["value"])).all()
    assert set(labels["class_name"]) == {"healthy", "diseased"}
    assert list((run / "figures").glob("class_activation_*.png"))


def test_predict_calls_by_the_threshold_of_the_run(maps, tmp_path, capsys):
    words = ["fit", "--config", "fpm_classification", "--config", "debug", "--data.root", maps]
    words += ["--data.num_folds", "3", "--trainer.accelerator", "cpu", "--run_root", tmp_path]
    assert main([str(word) for word in [*words, "--data.spacing_mm", "null"]]) == 0
    run = next(tmp_path.rglob("run.json"))
    identity = json.loads(run.read_text())
    files = [maps / f"{patient}_image.nii.gz" for patient in identity["trained_on"]]
    sides = [nib.load(file).header.get_zooms()[:2] for file in files]
    np.testing.assert_allclose(identity["pixels_mm"], [np.min(sides), np.max(sides)], rtol=1e-4)
    words = ["predict", "--run", run.parent, "--input", maps, "--device", "cpu"]
    words = [str(word) for word in [*words, "--output", tmp_path / "out"]]
    assert main(words) == 0
    probability = pd.read_csv(tmp_path / "out/predictions.csv")["probability_diseased"]
    below, above = probability.min() / 2, (1 + probability.max()) / 2
    for threshold, call in ((below, "diseased"), (above, "healthy")):
        run.write_text(json.dumps(identity | {"threshold": {"value": threshold}}))
        assert main(words) == 0
        assert set(pd.read_csv(tmp_path / "out/predictions.csv")["called"]) == {call}
    # it was chosen for the best checkpoint
    assert main([*words, "--checkpoint", str(run.parent / LAST)]) == 0
    rows = pd.read_csv(tmp_path / "out/predictions.csv")
    half = np.where(rows["probability_diseased"] > 0.5, "diseased", "healthy")
    assert rows["called"].tolist() == half.tolist()
    said = capsys.readouterr().out
    assert "called diseased above a probability of 0.5: one half: `test` chose none for it" in said


def test_who_has_no_classes_has_no_activation():
    image = torch.zeros(1, 1, 64, 64)
    assert (
        FPMMultiTask(width=2, weighting=lambda: SingleTask("mask")).class_activation(image) is None
    )
    assert T1Baseline("unet", width=4).class_activation(image) is None
    for network in BASELINES["label"]:
        found = T1Baseline(network, width=4).class_activation(torch.randn(2, 1, 60, 50))
        assert found.shape == (2, 60, 50)


def test_a_training_that_diverges_ends_in_one_line(maps, tmp_path, capsys):
    words = ["fit", "--config", "fpm_classification", "--config", "debug"]
    words += ["--data.root", str(maps), "--data.matrix", "[64, 64]", "--data.num_folds", "3"]
    words += ["--model.optimizer", "torch.optim.SGD", "--model.optimizer.lr", "1e30"]
    assert main([*words, "--trainer.accelerator", "cpu", "--run_root", str(tmp_path)]) == 2
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("cardiac-mtl:")]
    assert "epoch 1: the loss of label is not finite" in line


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: JaccardAndCrossEntropy(mask=1.0), "choose fpm_segmentation for 1"),
        (lambda: JaccardAndCrossEntropy(mask=-0.1), "leaves one task, or none"),
        (
            lambda: FPMMultiTask(width=2, weighting=lambda: FixedWeighting({"area": 1.0})),
            "unknown task area; choose from label, mask",
        ),
        (lambda: FPMMultiTask(width=2, diseased_weight=0.0), "model.diseased_weight"),
    ],
)
def test_what_cannot_be_is_one_line(make, message):
    with pytest.raises(UserError, match=message):
        make()
