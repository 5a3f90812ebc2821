"""Tables of a classifier, right and wrong pixels, PSNR, and the sweep of a weight."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgba
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, roc_auc_score

from cardiac_mtl.cli import main
from cardiac_mtl.commands.report import read_methods, read_run, variants_of
from cardiac_mtl.errors import UserError
from cardiac_mtl.evaluation.calls import with_calls
from cardiac_mtl.report.caveats import caveats
from cardiac_mtl.report.methods import Method, Run
from cardiac_mtl.report.pictures.activations import activations_of
from cardiac_mtl.report.pictures.mask_errors import (
    FALSE,
    MISSED,
    RIGHT,
    painted,
    psnr_scatter,
    right_missed_false,
)
from cardiac_mtl.report.pictures.sweep import weight_curves
from cardiac_mtl.report.tables import diagnosis
from cardiac_mtl.report.tables.sweep import by_weight, sweep_shown

NAMES = ("healthy", "diseased")
NOTHING = pd.DataFrame({"patient_id": [], "label": [], "case_id": [], "dice": []})


def labels_of(seed, threshold, count=30):
    """Return rows of two images a patient, and their truth and probability."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, count)
    probability = np.clip(rng.normal(0.3 + 0.2 * truth, 0.15), 0, 1)
    images = {"case_id": [f"s{seed}c{k // 2}" for k in range(count)], "slice": np.arange(count) % 2}
    frames = [
        pd.DataFrame(images | {"class": c, "is_class": t, "probability": p})
        for c, t, p in (("0", 1 - truth, 1 - probability), ("1", truth, probability))
    ]
    rows = with_calls(pd.concat(frames), threshold, NAMES)
    return rows.assign(patient_id=rows["case_id"]), truth, probability


def facts(value, part="val"):
    return {"class": "diseased", "value": value, "chosen_on": part, "rule": "", "images": 9,
            "of_diseased": 2, "balanced_accuracy": 0.75}  # fmt: skip


def a_run(folder, labels=None, threshold=None, slices=NOTHING, fold=0, **settings):
    identity = {"experiment": "fpm_multitask", "protocol": "honest", "fold": fold, "seed": 0}
    if threshold is not None:
        identity["threshold"] = threshold
    none = pd.DataFrame({"class": []})
    rows = none if labels is None else labels
    empty = pd.DataFrame({"patient_id": []})
    return Run(folder, identity, slices, slices, empty, rows, empty, empty, empty, settings)


@pytest.fixture
def folds(tmp_path):
    """A method of two folds with thresholds of their own; truth, probability and calls."""
    runs, known = [], []
    for fold, threshold in enumerate((0.35, 0.45)):
        rows, truth, probability = labels_of(fold, threshold)
        runs.append(a_run(tmp_path / f"fold{fold}", rows, facts(threshold), fold=fold))
        known.append((truth, probability, probability > threshold))
    return Method("fpm", runs, "maps"), *(np.concatenate(k) for k in zip(*known, strict=True))


def test_calls_are_counted_over_folds_each_at_its_threshold(folds):
    method, truth, probability, called = folds
    table = diagnosis.operating_points([method]).set_index(["positive class", "threshold"])
    for threshold, calls in (("0.5", probability > 0.5), ("chosen", called)):
        row = table.loc["diseased", threshold]
        tn, fp, fn, tp = confusion_matrix(truth, calls).ravel()
        assert row[["tp", "fp", "fn", "tn"]].tolist() == [tp, fp, fn, tn]
        assert row["accuracy"] == pytest.approx(accuracy_score(truth, calls))
        assert row["balanced accuracy"] == pytest.approx(balanced_accuracy_score(truth, calls))
        healthy = table.loc["healthy", threshold]
        assert (healthy["sensitivity"], healthy["specificity"]) == (tn / (tn + fp), tp / (tp + fn))
    assert table.loc["diseased", "0.5"]["tp"] != table.loc["diseased", "chosen"]["tp"]


def test_intervals_are_those_of_drawn_patients(folds):
    method, truth, _, called = folds
    table = diagnosis.operating_points([method]).set_index(["positive class", "threshold"])
    row = table.loc["diseased", "chosen"]
    by_name = [f"s{seed}c{k}" for seed in (0, 1) for k in range(15)]
    line = [sorted(by_name).index(name) for name in np.repeat(by_name, 2)]
    drawn = np.random.default_rng(0).multinomial(30, np.full(30, 1 / 30), size=1000)
    rates = [balanced_accuracy_score(truth, called, sample_weight=times[line]) for times in drawn]
    bounds = row[["balanced accuracy_low", "balanced accuracy_high"]].to_numpy(float)
    np.testing.assert_allclose(bounds, np.quantile(rates, (0.025, 0.975)))


def test_the_matrix_has_true_rows_and_called_columns(folds):
    method, truth, _, called = folds
    table = diagnosis.confusions([method])
    table = table[table["threshold"] == "chosen"].set_index("truly")
    counts = table.loc[list(NAMES), ["called healthy", "called diseased"]].to_numpy()
    np.testing.assert_array_equal(counts, confusion_matrix(truth, called))


def test_images_without_a_true_class_are_counted_nowhere(tmp_path):
    rows, truth, _ = labels_of(0, 0.5)
    rows.loc[rows["slice"] == 1, "is_class"] = -1
    table = diagnosis.operating_points([Method("fpm", [a_run(tmp_path, rows)])])
    assert set(table["n"]) == {len(truth) // 2}


def test_the_threshold_of_each_fold_is_listed_with_its_part(folds, tmp_path):
    method, *_ = folds
    table = diagnosis.thresholds([method])
    assert table["threshold"].tolist() == [0.35, 0.45]
    assert table["run"].tolist() == ["fold 0, seed 0", "fold 1, seed 0"]
    assert set(table["chosen on"]) == {"validation"}
    on_test = a_run(tmp_path, labels_of(0, 0.5)[0], facts(0.5, "test"))
    assert diagnosis.thresholds([Method("fpm", [on_test])])["chosen on"].tolist() == [
        "TEST: optimistic"
    ]


def test_areas_need_no_threshold(folds):
    method, truth, probability, _ = folds
    table = diagnosis.curves_of([method])
    assert table["positive class"].tolist() == list(NAMES)
    expected = roc_auc_score(truth, probability)
    assert table["AUC"].tolist() == pytest.approx([expected] * 2, abs=1e-6)
    assert ((table["AUC_low"] < expected) & (expected < table["AUC_high"])).all()


def test_areas_are_compared_on_the_images_of_both(folds, tmp_path):
    method, truth, probability, _ = folds
    rows, *_ = labels_of(0, 0.5)
    other = rows.assign(probability=1 - rows["probability"])
    second = Method("fpm_vgg16", [a_run(tmp_path / "other", other)], "maps")
    (row,) = diagnosis.auc_comparisons([method, second]).to_dict("records")
    area = roc_auc_score(truth[:30], probability[:30])  # those of fold 0, which alone both have
    assert (row["images"], row["patients"]) == (30, 15)
    assert row["AUC_first"] == pytest.approx(area, abs=1e-6)
    assert row["difference"] == pytest.approx(1 - 2 * area, abs=1e-6)
    assert row["low"] < row["difference"] < row["high"]
    (shown,) = diagnosis.auc_comparisons_shown(pd.DataFrame([row])).to_dict("records")
    assert shown["second minus first"] == "fpm_vgg16 - fpm"


def test_seeds_and_methods_without_a_shared_image_are_not_compared(tmp_path):
    runs = [a_run(tmp_path / str(seed), labels_of(seed, 0.5)[0]) for seed in (0, 0, 1)]
    seeds = [Method(f"fpm, seed {k}", [run], family="fpm") for k, run in enumerate(runs[:2])]
    assert diagnosis.auc_comparisons(seeds).empty
    assert diagnosis.auc_comparisons([seeds[0], Method("elsewhere", [runs[2]])]).empty


def test_without_classes_there_is_no_table(tmp_path):
    none = [Method("fpm_unet", [a_run(tmp_path)])]
    for make in (diagnosis.operating_points, diagnosis.confusions, diagnosis.curves_of):
        assert make(none).empty
    assert diagnosis.curves_shown(diagnosis.curves_of(none)).empty
    assert diagnosis.thresholds_shown(diagnosis.thresholds(none)).empty
    assert activations_of(none) == []


def test_one_map_of_each_outcome_is_shown(folds):
    method, *_ = folds
    for run in method.runs:
        (run.folder / "figures").mkdir(parents=True)
        for case in run.labels["case_id"].unique():
            (run.folder / f"figures/class_activation_{case}.png").write_bytes(b"")
    photos = activations_of([method])
    assert [photo.title.partition(": ")[2] for photo in photos] == [
        "diseased, called healthy", "healthy, called diseased", "diseased, called diseased",
        "healthy, called healthy",
    ]  # fmt: skip
    assert {photo.file.parent.parent.name for photo in photos} == {"fold0"}


def test_every_wrong_pixel_is_missed_or_false():
    rng = np.random.default_rng(0)
    predicted, reference = rng.random((2, 9, 9)) < 0.4
    colours = painted(predicted, reference)
    assert colours[RIGHT].sum() + colours[MISSED].sum() == reference.sum()
    assert colours[RIGHT].sum() + colours[FALSE].sum() == predicted.sum()
    assert (sum(pixels.astype(int) for pixels in colours.values()) <= 1).all()


def test_masks_are_painted_a_row_a_method_and_a_column_a_case(write_run, tmp_path):
    for name in ("mtn_unet", "mtn_uncertainty"):
        write_run(tmp_path / name, name, 0, ["p1", "p2"], np.random.default_rng(len(name)))
    methods = read_methods([tmp_path])
    classifier = Method("fpm_resnet50", [a_run(tmp_path)])  # has no mask to show
    (picture,) = right_missed_false([*methods, classifier])
    panels = [ax for ax in picture.figure.axes if ax.images]
    assert len(panels) == 2 * 4
    assert [ax.get_ylabel() for ax in panels[::4]] == [m.name for m in methods]
    shown = {to_rgba(image.get_cmap()(0)) for ax in panels for image in ax.images[1:]}
    assert shown <= {to_rgba(colour) for colour in (RIGHT, MISSED, FALSE)}
    assert to_rgba(RIGHT) in shown
    several = methods[0].cases.assign(label="lv")
    object.__setattr__(methods[0], "cases", pd.concat([methods[0].cases, several]))
    assert list(right_missed_false(methods)) == []


def test_perfect_masks_are_counted_and_drawn_on_the_edge(tmp_path):
    slices = pd.DataFrame({"psnr_db": [24.0, 28.0, np.inf, np.nan, np.inf], "patient_id": "p"})
    (picture,) = psnr_scatter([Method("fpm", [a_run(tmp_path, slices=slices)])])
    (ax,) = picture.figure.axes
    faulty, perfect = (dots.get_offsets() for dots in ax.collections)
    assert faulty.tolist() == [[0, 24.0], [1, 28.0]]
    assert perfect[:, 0].tolist() == [2, 3]
    assert (perfect[:, 1] == ax.get_ylim()[1]).all()
    assert "n = 4" in ax.get_title()
    assert "2 perfect" in ax.get_title()
    none = slices.assign(psnr_db=np.nan)
    assert list(psnr_scatter([Method("fpm", [a_run(tmp_path, slices=none)])])) == []


@pytest.fixture
def swept(tmp_path):
    """Three weights, out of order, and the end at which the mask is alone."""
    methods = []
    for k, weight in enumerate((0.9, 0.1, 0.5)):
        slices = pd.DataFrame({"patient_id": ["a", "b", "b"], "dice": [0.8, 0.9, weight]})
        run = a_run(tmp_path, labels_of(k, 0.5)[0], slices=slices, **{"weighting.mask": weight})
        methods.append(Method(f"w {weight}", [run], "maps"))
    alone = a_run(tmp_path, slices=pd.DataFrame({"patient_id": ["a", "b"], "dice": [0.9, 1.0]}))
    alone.identity["experiment"] = "fpm_segmentation"
    return [*methods, Method("alone", [alone], "maps")]


def test_scores_are_laid_out_by_weight(swept):
    table = by_weight(swept)
    assert table["weight"].tolist() == [0.1, 0.5, 0.9, 1.0]
    np.testing.assert_allclose(table["dice"], [(1.7 + w) / 3 for w in (0.1, 0.5, 0.9)] + [0.95])
    areas = [roc_auc_score(*labels_of(k, 0.5)[1:]) for k in (1, 2, 0)]
    np.testing.assert_allclose(table["auc"][:3], areas, atol=1e-6)
    assert np.isnan(table["auc"][3])
    assert sweep_shown(table)["AUC"].iloc[3] == "—"
    (picture,) = weight_curves(table)
    dice, auc = picture.figure.axes
    assert dice.lines[0].get_xdata().tolist() == [0.1, 0.5, 0.9, 1.0]
    assert auc.lines[0].get_xdata().tolist() == [0.1, 0.5, 0.9]


def test_one_weight_is_no_sweep(swept):
    assert by_weight([swept[0], swept[3]]).empty
    assert list(weight_curves(by_weight([]))) == []


def test_runs_of_one_experiment_are_told_apart_by_their_settings(tmp_path):
    old = a_run(tmp_path, width=8, mask=0.9)
    runs = [
        old,
        a_run(tmp_path, width=8, mask=0.3, new=1),
        a_run(tmp_path, width=8, mask=0.9, new=2),
    ]
    assert variants_of(runs) == ["mask 0.9", "mask 0.3", "mask 0.9"]
    assert variants_of(runs[:1]) == [""]
    assert variants_of([runs[0], runs[2]]) == ["", ""]  # a setting that only one knows


def test_methods_of_several_weights_have_names_of_their_own(write_run, tmp_path):
    for weight in (0.3, 0.9):
        folder = tmp_path / str(weight)
        write_run(folder, "fpm_multitask", 0, ["p1"], np.random.default_rng(0))
        weighting = {"class_path": "X", "init_args": {"mask": weight}}
        model = {"class_path": "Y", "init_args": {"width": 8, "weighting": weighting}}
        (folder / "config.yaml").write_text(json.dumps({"model": model}))
    methods = read_methods([tmp_path])
    assert [method.name for method in methods] == [
        "fpm_multitask, weighting.mask 0.3", "fpm_multitask, weighting.mask 0.9"
    ]  # fmt: skip
    assert methods[0].runs[0].settings["weighting.mask"] == 0.3
    assert read_methods([tmp_path / "0.3"])[0].name == "fpm_multitask"


def test_an_optimizer_beside_none_is_a_setting(write_run, tmp_path):
    """As `--model.disc_optimizer null` is, of which a class and its arguments are the opposite."""
    adam = {"class_path": "Adam", "init_args": {"lr": 0.001}}
    for k, optimizer in enumerate((None, adam)):
        write_run(tmp_path / str(k), "weak_transfer_uadt", 0, ["p1"], np.random.default_rng(0))
        model = {"init_args": {"width": 8, "disc_optimizer": optimizer}}
        (tmp_path / f"{k}/config.yaml").write_text(json.dumps({"model": model}))
    names = [method.name for method in read_methods([tmp_path])]
    assert names == [f"weak_transfer_uadt, disc_optimizer {v}" for v in (None, "Adam")]


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"data": {"init_args": {"protocol": "table1"}}}, "data.protocol"),
        ({"trainer": {"max_epochs": 2}}, "trainer.max_epochs"),
        ({"data": {"init_args": {"protocol": "roles", "root": "/elsewhere", "fold": 1}}}, ""),
    ],
)
def test_patients_of_runs_that_were_trained_otherwise_are_not_pooled(
    write_run, tmp_path, changed, name
):
    config = {"data": {"init_args": {"protocol": "roles", "fold": 0}}, "trainer": {"max_epochs": 9}}
    for fold, settings in enumerate((config, config | changed)):
        folder = tmp_path / str(fold)
        write_run(folder, "weak_transfer_uadt", fold, [f"p{fold}"], np.random.default_rng(0))
        (folder / "config.yaml").write_text(json.dumps(settings))
    methods = read_methods([tmp_path])
    assert len(methods) == (2 if name else 1)
    assert all(f", {name} " in method.name for method in methods if name)


def test_runs_of_several_dealings_are_told(write_run, tmp_path):
    for fold in (0, 1):
        facts = {"split_sha256": f"{fold}" * 64}
        rng = np.random.default_rng(fold)
        write_run(tmp_path / str(fold), "mtn_unet", fold, [f"p{fold}"], rng, **facts)
    (told,) = (text for text in caveats(read_methods([tmp_path])) if "dealt" in text)
    assert told.startswith("mtn_unet: ")
    assert not any("dealt" in text for text in caveats(read_methods([tmp_path / "0"])))


def test_classes_of_an_earlier_version_are_to_be_scored_again(write_run, tmp_path):
    write_run(tmp_path / "run", "fpm_multitask", 0, ["p1"], np.random.default_rng(0))
    rows, *_ = labels_of(0, 0.5)
    rows.to_csv(tmp_path / "run/labels.csv", index=False)
    assert len(read_run(tmp_path / "run").labels)
    rows.drop(columns="called").to_csv(tmp_path / "run/labels.csv", index=False)
    with pytest.raises(UserError, match="lacks the column called"):
        read_run(tmp_path / "run")


def test_the_page_shows_calls_and_maps(write_run, tmp_path, monkeypatch):
    monkeypatch.setattr("cardiac_mtl.report.sections.pictures", lambda *_: iter(()))
    folder = tmp_path / "run"
    write_run(folder, "fpm_multitask", 0, ["p1"], np.random.default_rng(0), threshold=facts(0.35))
    rows, *_ = labels_of(0, 0.35)
    rows.to_csv(folder / "labels.csv", index=False)
    (folder / "figures").mkdir()
    for name in rows["case_id"].unique():
        (folder / f"figures/class_activation_{name}.png").write_bytes(b"PNG of " + name.encode())
    assert main(["report", str(folder), "--output", str(tmp_path / "out")]) == 0
    page = (tmp_path / "out/index.html").read_text()
    assert "diseased, called healthy" in page
    assert "data:image/png;base64," in page
    copied = list((tmp_path / "out/figures").glob("class_activation_*.png"))
    assert len(copied) == 4
    assert all(file.read_bytes().startswith(b"PNG of s0") for file in copied)
    assert {"confusion.csv", "operating_points.csv", "thresholds.csv"} <= {
        file.name for file in (tmp_path / "out/tables").iterdir()
    }


@pytest.mark.usefixtures("undrawn")
def test_a_classifier_is_reported_on_without_any_mask(write_run, tmp_path, capsys):
    """T1 maps with a diagnosis alone: `test` scores no volume, and writes labels.csv."""
    for fold in range(2):
        folder = tmp_path / f"runs/{fold}"
        write_run(
            folder, "fpm_vgg16", fold, ["p1"], np.random.default_rng(0), threshold=facts(0.35)
        )
        for name in ("cases", "slices", "patients"):
            path = folder / f"{name}.csv"
            path.write_text(path.read_text().splitlines()[0] + "\n")
        shutil.rmtree(folder / "gallery")
        labels_of(fold, 0.35)[0].to_csv(folder / "labels.csv", index=False)
    words = ["report", str(tmp_path / "runs"), "--output", str(tmp_path / "out")]
    assert main(words) == 0
    points = pd.read_csv(tmp_path / "out/tables/operating_points.csv")
    assert set(points["n"]) == {60}
    shutil.copy(tmp_path / "runs/0/labels.csv", tmp_path / "runs/1/labels.csv")
    assert main(words) == 2
    assert "scored by two runs" in capsys.readouterr().err


@pytest.mark.usefixtures("undrawn")
def test_maps_of_one_case_by_two_methods_are_two_files(write_run, tmp_path):
    for name in ("fpm_multitask", "fpm_classification"):
        folder = tmp_path / "runs" / name
        write_run(folder, name, 0, ["p1"], np.random.default_rng(0))
        rows, *_ = labels_of(0, 0.35)
        rows.to_csv(folder / "labels.csv", index=False)
        (folder / "figures").mkdir()
        for case in rows["case_id"].unique():
            (folder / f"figures/class_activation_{case}.png").write_bytes(name.encode())
    assert main(["report", str(tmp_path / "runs"), "--output", str(tmp_path / "out")]) == 0
    for name in ("fpm_multitask", "fpm_classification"):
        files = list((tmp_path / "out/figures").glob(f"class_activation_{name}_*.png"))
        assert len(files) == 4
        assert all(file.read_bytes() == name.encode() for file in files)
