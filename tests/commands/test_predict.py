"""What `predict` reads, and the masks that it writes: those that `test` scores, on the grid of the file."""

import json
import os
import re
import shutil

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
import torch

from cardiac_mtl.cli import main
from cardiac_mtl.commands.predict import _said_once as said_once
from cardiac_mtl.postprocessing import closed_then_opened
from cardiac_mtl.predictor import Predictor, _measured
from cardiac_mtl.runs import BEST, IDENTITY
from data_modules.augment import Augmentation
from data_modules.geometry import PreparedInput
from data_modules.inputs import find_inputs
from data_modules.readers import read_volume


@pytest.fixture(scope="module")
def run(lvsc, tmp_path_factory):
    """A run of the debug preset on the phantoms."""
    root = tmp_path_factory.mktemp("runs")
    words = ["fit", "--config", "mtn_uncertainty", "--config", "debug", "--data.num_folds", "3"]
    more = ["--trainer.accelerator", "cpu", "--data.root", str(lvsc), "--run_root", str(root)]
    assert main([*words, *more]) == 0
    (identity,) = root.rglob(IDENTITY)
    return identity.parent


def written(probability, kept, finer=1):
    """Return what is written on a grid whose pixels are as large, or some times smaller."""
    side = kept.shape[1] * finer
    volume = sitk.GetImageFromArray(np.zeros((len(kept), side, side), np.float32))
    volume.SetSpacing((1.2 / finer, 1.2 / finer, 8.0))
    centre = ((side - 1) / 2, (side - 1) / 2)
    prepared = PreparedInput(np.zeros(kept.shape, np.float32), volume, (1.2, 1.2), centre)
    return sitk.GetArrayFromImage(Predictor._mask(None, probability, kept, prepared))


def test_a_network_that_is_not_sure_writes_what_it_is_scored_for():
    odds = np.exp(np.random.default_rng(0).normal(0, 0.3, (3, 4, 24, 24)))
    odds[:, 1, 6:16, 6:16] *= 2.2
    odds[:, 2, 6:16, 16:20] *= 2.2
    probability = (odds / odds.sum(1, keepdims=True)).astype(np.float32)
    kept = closed_then_opened(probability.argmax(1).astype(np.uint8))
    assert (probability.max(1) < 0.5).any()
    assert (kept != probability.argmax(1)).any()
    np.testing.assert_array_equal(written(probability, kept), kept)


@pytest.mark.parametrize("finer", [2, 3])
def test_no_background_lies_between_classes_that_touch(finer):
    kept = np.zeros((1, 12, 12), np.uint8)
    kept[:, 3:9, 3:6], kept[:, 3:9, 6:9] = 1, 2
    probability = np.stack([kept == k for k in range(3)], axis=1).astype(np.float32)
    mask = written(probability, kept, finer)
    inside = mask[0, 4 * finer : 8 * finer, 4 * finer : 8 * finer]
    assert set(np.unique(inside)) == {1, 2}


@pytest.mark.parametrize("finer", [1, 2, 3])
def test_a_soft_border_keeps_its_place_in_finer_pixels(finer):
    row, column = np.mgrid[:80, :80] * 1.2 - 39.5 * 1.2
    radius = np.hypot(row - 0.3, column + 0.4)
    ring = 1 / (1 + np.exp(np.maximum(25 - radius, radius - 34) / 0.8))  # one half at 25 and 34 mm
    probability = np.stack([1 - ring, ring])[None].astype(np.float32)
    mask = written(probability, (ring > 0.5)[None].astype(np.uint8), finer)
    area = mask.sum() * (1.2 / finer) ** 2
    assert area == pytest.approx(np.pi * (34**2 - 25**2), rel=0.01)  # before, 0.94 of it


def test_what_postprocessing_took_away_does_not_draw_the_border_to_it():
    kept = np.zeros((1, 16, 16), np.uint8)
    kept[:, 4:12, 4:10] = 1
    probability = np.full((1, 2, 16, 16), 0.05, np.float32)
    probability[:, 1, 4:12, 4:12] = 0.9  # two columns more than are kept
    probability[:, 0] = 1 - probability[:, 1]
    mask = written(probability, kept, finer=4)
    np.testing.assert_array_equal(mask[0, 32, 4 * 4 : 4 * 12], [1] * 24 + [0] * 8)


def test_predict_writes_masks_in_the_geometry_of_the_input(run, hearts, tmp_path):
    assert (
        main(["predict", "--run", str(run), "--input", str(hearts), "--output", str(tmp_path)]) == 0
    )
    table = pd.read_csv(hearts / "cases.csv")
    rows = pd.read_csv(tmp_path / "predictions.csv")
    assert rows.columns.tolist() == ["case_id", "slice", "regressed_area_mm2", "segmented_area_mm2"]
    for _, case in table.iterrows():
        mask = nib.load(tmp_path / f"{case['case_id']}_mask.nii.gz")
        image = nib.load(hearts / case["image"])
        assert mask.shape == image.shape
        np.testing.assert_allclose(mask.affine, image.affine, atol=1e-6)
        pixel = np.prod(mask.header.get_zooms()[:2])
        areas = np.asarray(mask.dataobj).sum(axis=(0, 1)) * pixel
        ours = rows.loc[rows["case_id"] == case["case_id"], "segmented_area_mm2"]
        np.testing.assert_allclose(ours, areas, rtol=1e-4)


def test_the_area_of_a_mask_of_several_labels_is_that_of_the_myocardium():
    mask = sitk.GetImageFromArray(np.array([[[0, 1, 2, 2], [3, 3, 3, 3]]], np.uint8))
    mask.SetSpacing((2.0, 1.0, 8.0))
    assert _measured(mask, (), ("rv", "myocardium", "lv")) == {"segmented_area_mm2": [4.0]}
    assert _measured(mask, (), ("scar", "edema")) == {"segmented_area_mm2": [2.0]}


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_predict_computes_as_the_network_was_trained(run, tmp_path, monkeypatch, precision):
    monkeypatch.setattr("cardiac_mtl.training.precision.native_bf16", lambda: True)
    copied = shutil.copytree(run, tmp_path / "run")
    identity = json.loads((run / IDENTITY).read_text()) | {"precision": precision}
    (copied / IDENTITY).write_text(json.dumps(identity))
    predictor = Predictor(copied, copied / BEST, "cpu")
    lowered = []
    predictor.paper.register_forward_hook(
        lambda *_: lowered.append(torch.is_autocast_enabled("cpu"))
    )
    side = predictor.data.matrix[0]
    prediction = predictor._predict(np.zeros((2, side, side), np.float32))
    assert lowered == [precision == "bf16-mixed"]
    assert prediction["mask_prob"].dtype == torch.float32


SHAPES = {
    "2-D": lambda voxels: voxels[..., 3],
    "3-D": lambda voxels: voxels,
    "4-D of one phase": lambda voxels: voxels[..., None],
    "4-D": lambda voxels: np.stack([voxels, voxels], axis=-1),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_predict_keeps_the_dimensions_of_the_input(run, hearts, tmp_path, shape):
    source = nib.load(next(hearts.glob("*_ph00_image.nii.gz")))
    voxels = shape(np.asarray(source.dataobj))
    nib.Nifti1Image(voxels, source.affine).to_filename(tmp_path / "heart.nii.gz")
    out = tmp_path / "out"
    words = ["predict", "--run", str(run), "--input", str(tmp_path), "--output", str(out)]
    assert main(words) == 0
    mask = nib.load(out / "heart_mask.nii.gz")
    assert mask.shape == voxels.shape
    np.testing.assert_allclose(mask.affine, source.affine, atol=1e-6)
    if voxels.shape[3:] == (2,):
        np.testing.assert_array_equal(mask.dataobj[..., 0], mask.dataobj[..., 1])


def test_predict_reads_a_dicom_cine(run, lvsc, tmp_path):
    (patient, *_) = sorted((lvsc / "Training").iterdir())
    words = ["predict", "--run", str(run), "--input", str(patient), "--output", str(tmp_path)]
    assert main(words) == 0
    assert sorted(p.name for p in tmp_path.glob("*.nii.gz")) == [
        f"{patient.name}_ph0{t}_mask.nii.gz" for t in range(2)
    ]


def test_predict_writes_one_mask_for_single_frames_and_for_an_enhanced_file(
    run, make_study, enhanced_file, tmp_path
):
    file = enhanced_file(tmp_path, make_study("DET0000101", phases=2, slices=3), range)
    masks = []
    for source in (file, tmp_path / "series"):
        out = tmp_path / f"of {source.stem}"
        words = ["predict", "--run", str(run), "--input", str(source), "--output", str(out)]
        assert main(words) == 0
        masks.append([sitk.ReadImage(str(mask)) for mask in sorted(out.glob("*_mask.nii.gz"))])
        assert len(masks[-1]) == 2
    for one, other in zip(*masks, strict=True):
        assert one.GetSize() == other.GetSize()
        np.testing.assert_allclose(one.GetOrigin(), other.GetOrigin(), atol=1e-3)
        # the frames of the enhanced file are 2 v - 7: normalisation takes that away again
        np.testing.assert_array_equal(sitk.GetArrayFromImage(one), sitk.GetArrayFromImage(other))


def test_predict_takes_one_image_in_two_rows(run, hearts, tmp_path):
    data = shutil.copytree(hearts, tmp_path / "data")
    table = pd.read_csv(data / "cases.csv").iloc[[0, 0]].assign(case_id=["one", "other"])
    table.to_csv(data / "cases.csv", index=False)
    out = tmp_path / "out"
    assert main(["predict", "--run", str(run), "--input", str(data), "--output", str(out)]) == 0
    one, other = (nib.load(out / f"{name}_mask.nii.gz") for name in ("one", "other"))
    np.testing.assert_array_equal(one.dataobj, other.dataobj)


def test_predict_refuses_one_row_twice(run, hearts, tmp_path, capsys):
    data = shutil.copytree(hearts, tmp_path / "data")
    table = pd.read_csv(data / "cases.csv").iloc[[0, 0]]
    table.to_csv(data / "cases.csv", index=False)
    out = tmp_path / "out"
    assert main(["predict", "--run", str(run), "--input", str(data), "--output", str(out)]) == 2
    assert f"2 images are called {table['case_id'].iloc[0]}" in capsys.readouterr().err
    assert not out.exists()


def test_predict_leaves_a_table_beside_the_images_alone(run, hearts, tmp_path, capsys):
    shutil.copy(next(hearts.glob("*_ph00_image.nii.gz")), tmp_path / "a.nii.gz")
    (tmp_path / "predictions.csv").write_text("mine")
    words = ["predict", "--run", run, "--input", tmp_path, "--output", tmp_path]
    assert main([str(word) for word in words]) == 2
    assert "predictions.csv, which lies beside the images" in capsys.readouterr().err
    assert (tmp_path / "predictions.csv").read_text() == "mine"


def test_predict_leaves_out_a_name_that_is_no_text(run, hearts, tmp_path, capsys):
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    image = next(hearts.glob("*_ph00_image.nii.gz"))
    shutil.copy(image, data / "a.nii.gz")
    shutil.copy(image, data / os.fsdecode(b"M\xfcller.nii.gz"))  # an umlaut of Windows
    words = ["predict", "--run", run, "--input", data, "--output", out]
    assert main([str(word) for word in words]) == 1
    assert "left out: --input: 'M?ller' is no readable name" in capsys.readouterr().out
    assert sorted(file.name for file in out.iterdir()) == ["a_mask.nii.gz", "predictions.csv"]


def test_predict_never_writes_over_what_lies_beside_the_images(run, hearts, tmp_path, capsys):
    data = shutil.copytree(hearts, tmp_path / "data")
    masks = {file: file.read_bytes() for file in data.glob("*_mask.nii.gz")}
    assert masks
    assert main(["predict", "--run", str(run), "--input", str(data), "--output", str(data)]) == 2
    assert "_mask.nii.gz, which lies beside the images" in capsys.readouterr().err
    assert {file: file.read_bytes() for file in data.glob("*_mask.nii.gz")} == masks


def test_predict_refuses_two_masks_of_one_name(run, hearts, tmp_path, capsys):
    image = nib.load(next(hearts.glob("*_ph00_image.nii.gz")))
    for name in ("a.nii", "a.nii.gz"):
        nib.save(image, tmp_path / name)
    out = tmp_path / "out"
    assert main(["predict", "--run", str(run), "--input", str(tmp_path), "--output", str(out)]) == 2
    assert "2 images have the mask a_mask.nii.gz" in capsys.readouterr().err
    assert not out.exists()


def test_predict_leaves_out_what_it_cannot_read_and_says_so(run, hearts, tmp_path, capsys):
    image = nib.load(next(hearts.glob("*_ph00_image.nii.gz")))
    holes = np.asarray(image.dataobj).astype(np.float32)
    holes[0, 0, 0] = np.nan
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    nib.save(nib.Nifti1Image(holes, image.affine), data / "a.nii.gz")
    words = ["predict", "--run", str(run), "--input", str(data), "--output", str(out)]
    assert main(words) == 2  # nothing is left
    assert "a.nii.gz: has 1 voxels that are NaN" in capsys.readouterr().err
    assert not out.exists()
    nib.save(image, data / "b.nii.gz")
    (data / "c.nii.gz").write_bytes((data / "b.nii.gz").read_bytes()[:20])
    assert main(words) == 1
    shown = capsys.readouterr().out
    assert shown.count("left out: ") == 2
    assert "1 volumes: " in shown
    assert sorted(file.name for file in out.iterdir()) == ["b_mask.nii.gz", "predictions.csv"]


def test_predict_names_an_earlier_mask_of_what_it_leaves_out(run, hearts, tmp_path, capsys):
    image = nib.load(next(hearts.glob("*_ph00_image.nii.gz")))
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    for name in "ab":
        nib.save(image, data / f"{name}.nii.gz")
    assert main(words_of(run, data, out)) == 0
    assert "of an earlier" not in capsys.readouterr().out
    (data / "a.nii.gz").write_bytes((data / "b.nii.gz").read_bytes()[:20_000])
    assert main(words_of(run, data, out)) == 1
    assert "note: a_mask.nii.gz is of an earlier predict\n" in capsys.readouterr().out


def test_predict_leaves_out_a_row_whose_image_is_gone(run, hearts, tmp_path, capsys):
    shutil.copy(next(hearts.glob("*_ph00_image.nii.gz")), tmp_path / "a.nii.gz")
    rows = "".join(f"{name},{name},{name}.nii.gz\n" for name in "ab")
    (tmp_path / "cases.csv").write_text(f"case_id,patient_id,image\n{rows}")
    out = tmp_path / "out"
    words = ["predict", "--run", str(run), "--input", str(tmp_path), "--output", str(out)]
    assert main(words) == 1
    shown = capsys.readouterr().out
    assert "left out: " in shown
    assert "row 3: no file 'b.nii.gz'" in shown
    assert sorted(file.name for file in out.iterdir()) == ["a_mask.nii.gz", "predictions.csv"]


def words_of(run, *inputs):
    source, out = inputs
    return ["predict", "--run", str(run), "--input", str(source), "--output", str(out)]


def test_a_predict_that_is_stopped_leaves_no_table_of_an_earlier_one(
    run, hearts, tmp_path, monkeypatch
):
    image, data, out = next(hearts.glob("*_ph00_image.nii.gz")), tmp_path / "data", tmp_path / "out"
    data.mkdir()
    for name in ("a.nii.gz", "b.nii.gz"):
        shutil.copy(image, data / name)
    assert main(words_of(run, data, out)) == 0
    (out / "a_mask.nii.gz").unlink()
    first = Predictor.predict_file

    def stopped(self, source, *rest):
        if source.name == "b.nii.gz":
            raise KeyboardInterrupt
        return first(self, source, *rest)

    monkeypatch.setattr(Predictor, "predict_file", stopped)
    assert main(words_of(run, data, out)) == 130
    assert (out / "a_mask.nii.gz").is_file()
    assert not (out / "predictions.csv").exists()


def test_predict_says_once_a_file_why_not_to_trust_it(run, hearts, tmp_path, capsys):
    voxels = np.asarray(nib.load(next(hearts.glob("*_ph00_image.nii.gz"))).dataobj)
    data = tmp_path / "data"
    data.mkdir()
    lost = nib.Nifti1Image(np.stack([voxels] * 3, axis=-1), np.eye(4))
    lost.to_filename(data / "lost.nii.gz")
    flat = np.diag([1.4, 1.4, 8, 1])
    nib.Nifti1Image(np.full_like(voxels, 7), flat).to_filename(data / "flat.nii.gz")
    assert main(words_of(run, data, tmp_path / "out")) == 0
    said = capsys.readouterr()
    assert said.err.count("warning: lost: the spacing is 1 mm along every axis") == 1
    assert said.err.count("warning: flat: all voxels are 7") == 1
    assert "trained on phantom hearts: of patients its predictions mean nothing" in said.out


def test_predict_says_that_an_image_is_mirrored_or_turned(run, hearts, tmp_path, capsys):
    """As dcm2niix mirrors what another program does not."""
    image = nib.load(next(hearts.glob("*_ph00_image.nii.gz")))
    changes = {
        "same": image,
        "mirrored": image.slicer[:, ::-1],
        "turned": image.slicer[::-1, ::-1],
        "upended": image.slicer[:, :, ::-1],  # the order of slices mirrors none of them
    }
    data = tmp_path / "data"
    data.mkdir()
    for name, changed in changes.items():
        changed.to_filename(data / f"{name}.nii.gz")
    assert main(words_of(run, data, tmp_path / "out")) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "against the images" in line]
    assert [line.partition(" as against")[0] for line in said] == ["warning: mirrored: is mirrored"]
    predictor = Predictor(run, run / BEST, "cpu")
    predictor.data.augmentation = Augmentation(flip=True, rotation_deg=15.0)
    axes = np.asarray(predictor.axes_lps)
    told = {n: predictor._turned(read_volume([data / f"{n}.nii.gz"]), axes) for n in changes}
    assert {name for name, text in told.items() if text} == {"turned"}
    assert re.fullmatch(r"turned by 1[678]\d degrees", told["turned"])


def test_predict_says_whose_network_it_is_and_what_its_masks_hold(run, hearts, tmp_path, capsys):
    image = next(hearts.glob("*_ph00_image.nii.gz"))
    assert main(words_of(run.parents[3], image, tmp_path / "out")) == 0
    said = capsys.readouterr().out
    assert f"network of {run}\n" in said
    assert "values of the masks: 1 myocardium\n" in said
    assert "paper protocol" not in said
    copied = shutil.copytree(run, tmp_path / "run")
    identity = json.loads((run / IDENTITY).read_text()) | {"protocol": "paper_optimistic"}
    (copied / IDENTITY).write_text(json.dumps(identity))
    assert main(words_of(copied, image, tmp_path / "out")) == 0
    assert "chosen on its test patients (paper protocol)" in capsys.readouterr().out


def test_a_network_that_gives_no_numbers_is_one_line(run, hearts, tmp_path, monkeypatch, capsys):
    """All of an image without numbers is background, and what is no number is called healthy."""
    monkeypatch.setattr(
        "cardiac_mtl.papers.mtn.MTN.forward", lambda _, image: {"mask": image[:, 0] * torch.nan}
    )
    image, out = next(hearts.glob("*_ph00_image.nii.gz")), tmp_path / "out"
    assert main(words_of(run, image, out)) == 2
    assert f"{image}: the network gives values that are no numbers" in capsys.readouterr().err
    assert not out.exists()


def test_predict_says_where_the_window_of_the_network_cuts_a_mask(run, hearts, tmp_path, capsys):
    predictor = Predictor(run, run / BEST, "cpu")
    predictor.paper.postprocess = np.ones_like
    (case,) = find_inputs(next(hearts.glob("*_ph00_image.nii.gz")))
    with said_once([case]):
        predictor.predict_file(case.image[0], [case], tmp_path)
    slices = nib.load(case.image[0]).shape[2]
    cut = f"{case.case_id}: the mask of slices {list(range(slices))} ends where"
    assert f"warning: {cut} the network's view does" in capsys.readouterr().err


def test_predict_says_that_pixels_are_others_than_those_of_the_training(
    run, hearts, tmp_path, capsys
):
    image = next(hearts.glob("*_ph00_image.nii.gz"))
    identity = json.loads((run / IDENTITY).read_text())
    side = Predictor(run, run / BEST, "cpu").data.spacing_mm
    assert identity["pixels_mm"] == [side, side]
    assert main(words_of(run, image, tmp_path / "out")) == 0
    assert "hearts have another size" not in capsys.readouterr().err
    copied = shutil.copytree(run, tmp_path / "run")
    for factor, warnings in ((0.9, 0), (1.1, 0), (0.5, 1), (2.0, 1)):
        known = {"pixels_mm": [side * factor, side * factor]}
        (copied / IDENTITY).write_text(json.dumps(identity | known))
        assert main(words_of(copied, image, tmp_path / "out")) == 0
        said = capsys.readouterr().err
        assert said.count("hearts have another size than any it knows") == warnings
