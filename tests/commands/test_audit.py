"""`audit`: an honest run holds; each way of cheating is refuted by name."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

from cardiac_mtl.cli import main
from cardiac_mtl.commands import audit as audits
from cardiac_mtl.runs import BEST, IDENTITY
from data_modules import manifest
from data_modules.splits import Split

QUICK = ["--config", "debug", "--trainer.accelerator", "cpu", "--data.num_folds", "3"]


def fit(root, run_root, *more):
    words = ["fit", "--config", "mtn_unet", "--config", "data/manifest", *QUICK]
    words += ["--data.root", root, "--run_root", run_root, *more]
    assert main([str(word) for word in words]) == 0
    (identity,) = run_root.rglob(IDENTITY)
    return identity.parent


@pytest.fixture(scope="module")
def run(hearts, without_pictures, tmp_path_factory):
    run = fit(hearts, tmp_path_factory.mktemp("runs"))
    with without_pictures():
        assert main(["test", "--run", str(run)]) == 0
    return run


def audit(capsys, *words):
    capsys.readouterr()
    status = main(["audit", *map(str, words)])
    lines = capsys.readouterr().out.splitlines()
    claims = {line[9:].partition(":")[0]: line.partition(" ")[0] for line in lines}
    return status, claims, lines


def failing(claims):
    return [name for name, verdict in claims.items() if verdict == "FAILS"]


def test_an_honest_run_holds(run, capsys):
    status, claims, _ = audit(capsys, "--run", run)
    assert status == 0
    assert set(claims) == {
        "patients", "folds", "hash", "images", "training", "fitted", "selection", "crop",
        "test rows",
    }  # fmt: skip
    assert set(claims.values()) == {"holds"}


@pytest.mark.parametrize(
    ("cheat", "claim"),
    [
        (lambda i, s: i["trained_on"].append(s["test"][0]), "training"),
        (lambda i, s: i["validated_on"].append(s["test"][0]), "selection"),
        (lambda i, s: i.update(split_sha256="0" * 64), "hash"),  # noqa: ARG005
        (lambda i, s: i.update(fold=7), "fold"),  # noqa: ARG005
    ],
)
def test_a_run_that_saw_test_patients_is_refuted(run, tmp_path, capsys, cheat, claim):
    copy = shutil.copytree(run, tmp_path / "run")
    identity = json.loads((copy / IDENTITY).read_text())
    cheat(identity, json.loads((copy / "splits.json").read_text())["folds"][0])
    (copy / IDENTITY).write_text(json.dumps(identity))
    status, claims, _ = audit(capsys, "--run", copy)
    assert (status, failing(claims)) == (1, [claim])


def test_what_was_not_recorded_proves_nothing(run, tmp_path, capsys):
    """A run that was killed, or is under way: nobody is not all of the validation part."""
    copy = shutil.copytree(run, tmp_path / "run")
    identity = json.loads((copy / IDENTITY).read_text())
    del identity["validated_on"]
    (copy / IDENTITY).write_text(json.dumps(identity))
    rows = pd.read_csv(copy / "cases.csv")
    rows[:0].to_csv(copy / "cases.csv", index=False)
    status, claims, _ = audit(capsys, "--run", copy)
    assert (status, claims["selection"], claims["test rows"]) == (0, "unknown", "unknown")


def test_rows_of_a_paper_that_classifies_alone_are_looked_at(run, tmp_path, capsys):
    copy = shutil.copytree(run, tmp_path / "run")
    rows = pd.read_csv(copy / "cases.csv")
    rows[:0].to_csv(copy / "cases.csv", index=False)
    rows.assign(patient_id="somebody").to_csv(copy / "labels.csv", index=False)
    status, claims, _ = audit(capsys, "--run", copy)
    assert (status, failing(claims)) == (1, ["test rows"])


def test_rows_of_other_patients_are_refuted(run, tmp_path, capsys):
    copy = shutil.copytree(run, tmp_path / "run")
    rows = pd.read_csv(copy / "cases.csv")
    rows.loc[0, "patient_id"] = "somebody"
    rows.to_csv(copy / "cases.csv", index=False)
    status, claims, _ = audit(capsys, "--run", copy)
    assert (status, failing(claims)) == (1, ["test rows"])


def test_the_paper_protocol_is_refuted(hearts, tmp_path, capsys):
    run = fit(hearts, tmp_path, "--data.paper_protocol", "true")
    status, claims, lines = audit(capsys, "--run", run)
    assert status == 1
    assert "selection" in failing(claims)
    assert any("chosen by test/dice_vol: paper_optimistic" in line for line in lines)


def test_a_slice_in_two_parts_is_refuted(tmp_path, make_study, capsys):
    studies = [make_study(f"p{n}", phases=1, seed=n) for n in range(6)]
    studies[4].image[0, 2] = studies[1].image[0, 2]  # one slice; the volumes differ
    for study in studies:  # alike in mean and deviation, so that it stays the same slice
        study.image[0, 0] = np.where(study.image[0, 0] > 450, 900, 0)
    manifest.write_layout(tmp_path / "hearts", studies)
    folds = [{"train": ["p0", "p1", "p2"], "val": ["p3"], "test": ["p4", "p5"]}]
    (tmp_path / "folds.json").write_text(json.dumps(folds))
    data = tmp_path / "slicewise.yaml"
    data.write_text(
        "data:\n  class_path: data_modules.manifest.ManifestDataModule\n"
        "  init_args: {normalise: slice, matrix: [32, 32]}\n"
    )
    words = ["--splits", tmp_path / "folds.json", "--config", data]
    status, claims, lines = audit(capsys, *words, "--data.root", tmp_path / "hearts")
    assert (status, failing(claims)) == (1, ["images"])
    assert any(
        "1 slices are the same" in line and "p1 (train) and p4 (test)" in line for line in lines
    )
    status, claims, _ = audit(capsys, "--splits", tmp_path / "folds.json")
    assert (status, claims["images"]) == (0, "unknown")


def test_folds_of_other_patients_prove_nothing_of_images(hearts, tmp_path, capsys):
    folds = tmp_path / "folds.json"
    folds.write_text('[{"train": ["NOBODY"], "val": ["DET0000201"], "test": ["DET0000101"]}]')
    words = ["--config", "manifest", "--data.root", str(hearts)]
    main(["audit", "--splits", str(folds), *words])
    shown = capsys.readouterr().out
    assert f"unknown  images: fold 0: 1 patients are not in {hearts}, such as NOBODY" in shown


@pytest.mark.parametrize(("data", "fixture"), [("cine", "cines"), ("mscmr", "sequences")])
def test_folds_of_another_number_than_ours_are_audited(request, tmp_path, capsys, data, fixture):
    """Ours are ten and one: ten cannot be dealt to six patients, and one has no second."""
    root = request.getfixturevalue(fixture)
    names = {file.name.partition("_")[0] for file in root.glob("*.nii.gz")}
    one, two, three, *_ = sorted(names)
    folds = [{"train": [one], "val": [two], "test": [three]}]
    folds += [{"train": [three], "val": [two], "test": [one]}]
    (tmp_path / "folds.json").write_text(json.dumps(folds))
    words = ["--splits", tmp_path / "folds.json", "--config", data, "--data.root", root]
    status, claims, lines = audit(capsys, *words)
    assert (status, claims["images"]) == (0, "holds")
    assert sum("slices, none in two parts" in line for line in lines) == 2


def test_a_patient_in_two_parts_and_changed_folds_are_refuted(run, tmp_path, capsys):
    folds = [{"train": ["a", "b"], "val": ["c"], "test": ["a"]}]
    (tmp_path / "folds.json").write_text(json.dumps(folds))
    status, claims, lines = audit(capsys, "--splits", tmp_path / "folds.json")
    assert (status, failing(claims)) == (1, ["patients"])
    assert "patient 'a' is in two parts of fold 0" in lines[0]
    copy = shutil.copytree(run, tmp_path / "run")
    content = json.loads((copy / "splits.json").read_text())
    content["folds"][0]["test"].append(content["folds"][0]["val"].pop())
    content["folds"][0]["val"].append(content["folds"][0]["train"].pop())
    (copy / "splits.json").write_text(json.dumps(content))
    status, claims, _ = audit(capsys, "--run", copy)
    assert (status, failing(claims)) == (1, ["folds"])


def test_a_scale_of_targets_is_fitted_again_and_compared(small_data, tmp_path, capsys):
    words = ["fit", "--config", "mutgan_generator", *QUICK, *small_data("mutgan_generator")]
    assert main([*words, "--run_root", str(tmp_path)]) == 0
    (identity,) = tmp_path.rglob(IDENTITY)
    run = identity.parent
    _, claims, lines = audit(capsys, "--run", run)
    assert claims["fitted"] == "holds"
    assert any("scale of the targets on the training part alone" in line for line in lines)
    checkpoint = torch.load(run / BEST, weights_only=True)
    checkpoint["state_dict"]["scale.mean"][0] += 1
    torch.save(checkpoint, run / BEST)
    assert failing(audit(capsys, "--run", run)[1]) == ["fitted"]


@pytest.mark.parametrize(
    ("trained", "transferred", "declared", "verdict"),
    [
        (["a"], ["c"], ("c",), "holds"),
        (["a"], ["b"], ("c",), "holds"),  # of the training part: no declaration is needed
        (["a", "c"], ["c"], ("c",), "FAILS"),  # with a mask of its own
        (["a"], ["c", "d"], ("c",), "FAILS"),  # not declared
        (["a"], ["c"], (), "FAILS"),
    ],
)
def test_only_declared_test_patients_may_train_and_under_other_masks_alone(
    trained, transferred, declared, verdict
):
    split = Split(0, ("a", "b"), (), ("c", "d"), declared)
    identity = {"trained_on": trained, "transferred_on": transferred}
    assert audits._seen(identity, split).verdict == verdict
    claim = audits._transductive(identity, split)
    of_test = len(set(transferred) & set(declared))
    assert (
        f"images of {of_test} test patients were trained on with masks of their" in claim.evidence
    )


@pytest.mark.parametrize("normalise", ["volume", "slice"])
def test_slices_of_another_patient_are_found_in_an_otherwise_different_volume(
    make_study, tmp_path, capsys, normalise
):
    studies = [make_study(f"p{n}", phases=1, seed=n) for n in range(6)]
    folds = [{"train": ["p0", "p1", "p2"], "val": ["p3"], "test": ["p4", "p5"]}]
    (tmp_path / "folds.json").write_text(json.dumps(folds))
    words = ["audit", "--splits", str(tmp_path / "folds.json"), "--config", "manifest"]
    (tmp_path / "overlay.yaml").write_text(f"data: {{init_args: {{normalise: {normalise}}}}}")
    words += ["--config", str(tmp_path / "overlay.yaml")]
    manifest.write_layout(tmp_path / "apart", studies)
    assert main([*words, "--data.root", str(tmp_path / "apart")]) == 0
    assert "24 slices, none in two parts" in capsys.readouterr().out
    studies[4].image[0, 1:] = studies[1].image[0, 1:] // 2  # and another gain
    manifest.write_layout(tmp_path / "shared", studies)
    assert main([*words, "--data.root", str(tmp_path / "shared")]) == 1
    shown = capsys.readouterr().out
    assert "3 slices are the same in two parts, such as one of p1 (train) and p4 (test)" in shown


def test_a_run_without_validation_chose_nothing_or_fails():
    split = Split(0, ("a",), (), ("c",))
    last = {"monitor": None, "protocol": "honest"}
    assert audits._selected({"validated_on": []}, last, split).verdict == "holds"
    assert audits._selected({}, last, split).verdict == "unknown"
    assert audits._selected({"validated_on": ["c"]}, last, split).verdict == "FAILS"
    chosen = {"monitor": "val/dice_vol", "protocol": "honest"}
    assert audits._selected({"validated_on": ["c"]}, chosen, split).verdict == "FAILS"
