"""`evaluate`: masks of any tool into our rows, and every way they fail to fit."""

import errno
import json
import shutil

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk

from cardiac_mtl.cli import main
from cardiac_mtl.commands.evaluate import read_labels
from cardiac_mtl.errors import UserError


def mask(shift=0, slices=5):
    array = np.zeros((slices, 30, 30), np.uint8)
    rows, columns = np.ogrid[:30, :30]
    radius = np.hypot(rows - 15, columns - 15 - shift)
    array[1:-1, (radius < 9) & (radius >= 5)] = 2
    array[1:-1, radius < 5] = 1
    return array


def save(path, array, spacing=(1.5, 1.5, 8.0), direction=None):
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    if direction is not None:
        image.SetDirection(direction)
    sitk.WriteImage(image, str(path))


@pytest.fixture
def folders(tmp_path):
    """Three references and three good predictions, under both names."""
    for name in ("reference", "prediction"):
        (tmp_path / name).mkdir()
    for k, ending in enumerate((".nii.gz", "_mask.nii.gz", ".nii")):
        save(tmp_path / "reference" / f"case{k}.nii.gz", mask())
        save(tmp_path / "prediction" / f"case{k}{ending}", mask(shift=k))
    return tmp_path


def evaluate(folder, *words, reference="reference"):
    return main([
        "evaluate", "--reference", str(folder / reference), "--prediction",
        str(folder / "prediction"), "--labels", "lv=1,myo=2", "--output", str(folder / "out"),
        *words,
    ])  # fmt: skip


def rows(folder, name="cases"):
    return pd.read_csv(folder / "out" / f"{name}.csv")


def test_good_masks_are_scored_as_simpleitk_scores_them(folders, capsys):
    assert evaluate(folders) == 0
    cases = rows(folders)
    assert cases["dice"][cases["case_id"] == "case0"].tolist() == [1.0, 1.0]
    overlap = sitk.LabelOverlapMeasuresImageFilter()
    overlap.Execute(sitk.GetImageFromArray(mask()), sitk.GetImageFromArray(mask(shift=2)))
    third = cases[cases["case_id"] == "case2"].set_index("label")
    for name, value in (("lv", 1), ("myo", 2)):
        assert third.loc[name, "dice"] == pytest.approx(overlap.GetDiceCoefficient(value), abs=1e-5)
    assert third.loc["lv", "hd_mm"] == pytest.approx(3.0)
    assert set(cases["protocol"]) == {"external"}
    assert "we do not know how" in capsys.readouterr().out
    assert json.loads((folders / "out/run.json").read_text())["experiment"] == "prediction"
    assert (folders / "out/gallery/case0.npz").is_file()


def test_rows_have_the_classes_in_the_order_of_their_numbers(folders):
    """The report knows from them which class of a kept mask is which."""
    assert evaluate(folders, "--labels", "myo=2,lv=1") == 0
    assert rows(folders)["label"].unique().tolist() == ["lv", "myo"]


@pytest.mark.parametrize("values", [(255, 200), (500, 200)])
def test_values_that_exceed_a_byte_are_classes_like_any(folders, values):
    for file in [*folders.glob("reference/*"), *folders.glob("prediction/*")]:
        array = sitk.GetArrayFromImage(sitk.ReadImage(str(file))).astype(np.int16)
        save(file, np.array([0, *values], np.int16)[array])
    lv, myo = values
    assert evaluate(folders, "--labels", f"lv={lv},myo={myo}", "--indices", "lv") == 0
    cases = rows(folders)
    assert cases["state"].tolist() == ["ok"] * 6
    assert cases["dice"][cases["case_id"] == "case0"].tolist() == [1.0, 1.0]
    area_mm2 = (mask()[2] == 1).sum() * 1.5**2
    assert rows(folders, "indices")["reference_size_mm2"].max() == pytest.approx(area_mm2)
    with np.load(folders / "out/gallery/case0.npz") as kept:
        np.testing.assert_array_equal(kept["reference"], kept["predicted"])
        assert np.unique(kept["reference"]).tolist() == [0, 1, 2]


def fault_missing(folder):
    (folder / "prediction/case1_mask.nii.gz").unlink()
    return "no_prediction", "case1"


def fault_extra(folder):
    save(folder / "prediction/stranger.nii.gz", mask())
    return "extra_prediction", "stranger.nii.gz"


def fault_size(folder):
    save(folder / "prediction/case1_mask.nii.gz", mask(slices=6))
    return "mask_size", "30 x 30 x 6"


def fault_geometry(folder):
    save(folder / "prediction/case1_mask.nii.gz", mask(), spacing=(1.5, 1.6, 8.0))
    return "mask_geometry", "spacing by 0.1"


def fault_label(folder):
    save(folder / "prediction/case1_mask.nii.gz", mask() * 3)
    return "undeclared_label", "[3, 6]"


def fault_damaged(folder):
    path = folder / "prediction/case1_mask.nii.gz"
    path.write_bytes(path.read_bytes()[:60])
    return "damaged", "case1_mask.nii.gz: "


def fault_twice(folder):
    shutil.copy(folder / "prediction/case1_mask.nii.gz", folder / "prediction/case1.nii.gz")
    return "two_predictions", "case1.nii.gz and case1_mask.nii.gz"


@pytest.mark.parametrize(
    "plant",
    [
        fault_missing, fault_extra, fault_size, fault_geometry, fault_label, fault_damaged,
        fault_twice,
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named_and_the_rest_is_scored(folders, capsys, plant):
    code, words = plant(folders)
    assert evaluate(folders) == 1
    output = capsys.readouterr().out
    assert words in output
    findings = rows(folders, "findings")
    assert findings["code"].tolist() == [code]
    assert (
        not findings["file"].astype(str).str.contains("/").any()
    )  # folders may be named after patients
    scored = set(rows(folders)["case_id"])
    expected = {"case0", "case1", "case2"} if plant is fault_extra else {"case0", "case2"}
    assert scored == expected


def test_what_macos_leaves_in_archives_is_neither_case_nor_prediction(folders):
    for folder in ("reference", "prediction"):
        for path in sorted((folders / folder).iterdir()):
            (path.parent / f"._{path.name}").write_bytes(b"\0\5\26\7")
    assert evaluate(folders) == 0
    assert sorted(set(rows(folders)["case_id"])) == ["case0", "case1", "case2"]


def test_endings_in_capitals_are_scored_and_two_of_one_case_named(folders, capsys):
    (folders / "prediction/case0.nii.gz").rename(folders / "prediction/case0.NII.GZ")
    (folders / "reference/case1.nii.gz").rename(folders / "reference/case1.NII.GZ")
    assert evaluate(folders) == 0
    shutil.copy(folders / "prediction/case0.NII.GZ", folders / "prediction/case0.nii.gz")
    assert evaluate(folders) == 1
    assert "has case0.NII.GZ and case0.nii.gz; keep one" in capsys.readouterr().out


def test_values_without_a_name_say_where_to_name_them(folders, capsys):
    assert evaluate(folders, "--labels", "myo=2") == 1
    told = "declared are 0 background, 2 myo: write the mask with these"
    assert f"{told}, or name all in --labels" in capsys.readouterr().out


def test_an_empty_folder_is_named(folders, capsys):
    for path in (folders / "prediction").iterdir():
        path.unlink()
    assert evaluate(folders) == 2
    assert "no mask of the 3 references in it, such as case0.nii.gz" in capsys.readouterr().err
    assert not (folders / "out").exists()


def test_a_table_of_the_user_is_never_written_over(folders, capsys):
    (folders / "out").mkdir()
    (folders / "out" / "cases.csv").write_text("case_id,patient_id,image\n")
    assert evaluate(folders) == 2
    assert "out: holds a cases.csv that `evaluate` did not write" in capsys.readouterr().err
    assert (folders / "out" / "cases.csv").read_text() == "case_id,patient_id,image\n"


def test_a_folder_that_cannot_be_is_told_before_anything_is_scored(folders, capsys, monkeypatch):
    (folders / "out").touch()
    monkeypatch.setattr("cardiac_mtl.commands.evaluate.parallel_map", None)
    assert evaluate(folders) == 2
    assert (
        f"cardiac-mtl: {folders / 'out'}: File exists; check this path" in capsys.readouterr().err
    )


def test_a_trained_run_is_never_written_over_and_rows_of_ours_are(folders, capsys):
    assert evaluate(folders) == 0
    assert evaluate(folders) == 0
    identity = folders / "out" / "run.json"
    identity.write_text(json.dumps({"protocol": "honest"}))
    assert evaluate(folders) == 2
    assert "that `evaluate` did not write" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["-1", "nan", "inf", "two"])
def test_a_tolerance_is_a_distance(folders, capsys, value):
    assert evaluate(folders, "--tolerance", value) == 2
    assert f"{value} is not a distance in mm" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: shutil.rmtree(f / "prediction"), "no such folder"),
        (lambda f: shutil.rmtree(f / "reference"), "neither cases.csv nor NIfTI masks"),
    ],
)
def test_no_folder_is_one_line(folders, capsys, change, message):
    change(folders)
    assert evaluate(folders) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert not (folders / "out").exists()


@pytest.mark.parametrize("text", ["lv", "lv=", "lv=0", "lv=x", "lv=1,lv=2", "lv=1,myo=1", ""])
def test_labels_that_say_nothing(text):
    with pytest.raises(UserError, match="--labels"):
        read_labels(text)


def test_phases_in_names_make_a_cine_with_a_function(tmp_path):
    for name in ("reference", "prediction"):
        (tmp_path / name).mkdir()
        for phase in ("ED", "ES"):
            array = mask()
            if phase == "ES":
                array[1] = 0
            save(tmp_path / name / f"patient001_{phase}.nii.gz", array)
    assert evaluate(tmp_path) == 0
    (patient,) = rows(tmp_path, "patients").to_dict("records")
    assert patient["patient_id"] == "patient001"
    assert patient["ef_percent"] == pytest.approx(100 / 3, abs=0.01)


def phases(folder, sizes, names=None):
    """Write phases of one patient as reference and prediction, cavities of so many rows."""
    for kind in ("reference", "prediction"):
        (folder / kind).mkdir(exist_ok=True)
        for name, rows in zip(names or range(len(sizes)), sizes, strict=True):
            array = np.zeros((3, 30, 30), np.uint8)
            array[:, 10 : 10 + rows, 10:20] = 1
            ending = name if names else f"frame{name:02d}"
            save(folder / kind / f"h_{ending}.nii.gz", array)


@pytest.mark.parametrize("lost", ["missing", "on another grid"])
def test_a_phase_without_prediction_is_still_ed_of_the_reference(tmp_path, lost):
    """The largest of the phases that were predicted would be ED: the EF of another heart."""
    phases(tmp_path, (10, 6, 4, 8))
    first = tmp_path / "prediction/h_frame00.nii.gz"
    first.unlink()
    if lost != "missing":
        save(first, mask(slices=6))
    assert evaluate(tmp_path) == 1
    assert len(rows(tmp_path, "findings")) == 1
    (patient,) = rows(tmp_path, "patients").to_dict("records")
    assert patient["reference_ef_percent"] == pytest.approx(60)
    assert patient["reference_ed_phase"] == 0
    assert np.isnan(patient["ef_percent"])
    assert patient["flags"] == "1 of 4 phases not predicted"
    cases = rows(tmp_path)[lambda table: table["label"] == "lv"]
    assert cases["phase"].tolist() == [1, 2, 3]  # it enters nothing else
    assert cases["cardiac_phase"].fillna("").tolist() == ["", "ES", ""]


def test_of_a_named_phase_without_prediction_the_other_is_kept(tmp_path):
    phases(tmp_path, (10, 4), ("ED", "ES"))
    (tmp_path / "prediction/h_ES.nii.gz").unlink()
    assert evaluate(tmp_path) == 1
    (patient,) = rows(tmp_path, "patients").to_dict("records")
    assert patient["edv_ml"] == patient["reference_edv_ml"]
    assert np.isnan(patient["ef_percent"])
    assert patient["reference_ef_percent"] == pytest.approx(60)
    assert patient["flags"].startswith("1 of 2 phases not predicted")


@pytest.mark.parametrize("reference", ["data/cases.csv", "data"])
def test_a_cine_of_one_file_is_paired_with_a_cine_or_with_its_phases(tmp_path, reference):
    array = np.stack([mask(), mask(shift=1)], axis=-1).transpose(2, 1, 0, 3)
    for name in ("data", "prediction"):
        (tmp_path / name).mkdir()
        nib.Nifti1Image(array, np.diag([1.5, 1.5, 8, 1])).to_filename(tmp_path / name / "h.nii.gz")
    if reference != "data":  # else a folder of masks
        table = "case_id,patient_id,image,mask\nh,h,h.nii.gz,h.nii.gz\n"
        (tmp_path / reference).write_text(table)
    assert evaluate(tmp_path, reference=reference) == 0
    assert rows(tmp_path)["case_id"].tolist() == ["h_ph00", "h_ph00", "h_ph01", "h_ph01"]
    assert set(rows(tmp_path)["dice"]) == {1.0}
    whole = nib.load(tmp_path / "prediction/h.nii.gz")
    phases = np.asarray(whole.dataobj)
    (tmp_path / "prediction/h.nii.gz").unlink()
    for t in range(2):
        one = nib.Nifti1Image(phases[..., t], whole.affine)
        one.to_filename(tmp_path / f"prediction/h_ph0{t}.nii.gz")
    assert evaluate(tmp_path, reference=reference) == 0
    assert set(rows(tmp_path)["dice"]) == {1.0}


@pytest.mark.parametrize("towards_apex", [True, False])
def test_regions_follow_the_header_from_base_to_apex(tmp_path, towards_apex):
    sign = 1.0 if towards_apex else -1.0
    normal = sign * np.array([0.6, -0.48, -0.64])
    row = np.cross(normal, [0, 0, 1])
    row /= np.linalg.norm(row)
    direction = np.stack([row, np.cross(normal, row), normal], axis=1).ravel().tolist()
    for name in ("reference", "prediction"):
        (tmp_path / name).mkdir()
        array = mask(slices=9)
        array[1, :15] = 0  # the first slice of the file is the smaller
        save(tmp_path / name / "a.nii.gz", array, direction=direction)
    assert evaluate(tmp_path) == 0
    slices = rows(tmp_path, "slices")
    smallest = slices.loc[slices["reference_area_mm2"].replace(0, np.inf).idxmin()]
    assert smallest["region"] == ("basal" if towards_apex else "apical")


def test_indices_of_a_label_on_request(folders):
    assert evaluate(folders, "--indices", "lv") == 0
    frame = rows(folders, "indices")
    third = frame[(frame["case_id"] == "case2") & (frame["reference_size_mm2"] > 0)]
    assert third["centroid_mm_error"].tolist() == pytest.approx([3.0] * 3)
    pixels = rows(folders, "pixels")
    assert set(pixels["case_id"]) == set(frame["case_id"])
    assert set(pixels["log_odds"]) == {-10, np.inf}
    assert evaluate(folders, "--indices", "scar") == 2


def test_one_mask_of_a_cine_is_one_case(tmp_path):
    infarct = (mask() == 1).astype(np.uint8)
    for name in ("reference", "prediction"):
        (tmp_path / name).mkdir()
    save(tmp_path / "reference" / "m.nii.gz", infarct)
    save(tmp_path / "prediction" / "a.nii.gz", infarct)
    frames = np.zeros((*infarct.shape[::-1], 4), np.int16)
    nib.save(nib.Nifti1Image(frames, np.eye(4)), tmp_path / "reference" / "cine.nii.gz")
    table = "case_id,patient_id,image,mask\na,a,cine.nii.gz,m.nii.gz\n"
    (tmp_path / "reference" / "cases.csv").write_text(table)
    assert evaluate(tmp_path, "--labels", "infarct=1", "--indices", "infarct") == 0
    assert rows(tmp_path)["case_id"].tolist() == ["a"]
    assert rows(tmp_path)["dice"].tolist() == [1.0]
    assert rows(tmp_path, "indices")["slice"].nunique() == 5


def test_rows_of_an_earlier_evaluation_do_not_stay(folders):
    assert evaluate(folders, "--indices", "lv") == 0
    assert evaluate(folders) == 0
    assert not (folders / "out/indices.csv").exists()
    assert not (folders / "out/pixels.csv").exists()


def test_an_evaluation_that_breaks_off_leaves_nothing_to_report(folders, capsys, monkeypatch):
    assert evaluate(folders, "--name", "first") == 0
    with monkeypatch.context() as patched:
        patched.setattr("cardiac_mtl.commands.evaluate.write_gallery", full_disk)
        assert evaluate(folders, "--name", "second") == 2
    assert main(["report", str(folders / "out"), "--output", str(folders / "page")]) == 2
    assert "no run with rows" in capsys.readouterr().err
    assert evaluate(folders, "--name", "second") == 0


def full_disk(*_):
    raise OSError(errno.ENOSPC, "No space left on device", "gallery")


@pytest.mark.usefixtures("undrawn")
def test_the_report_says_how_many_predictions_could_not_be_scored(folders, capsys):
    save(folders / "prediction" / "case0.nii.gz", mask(slices=6))
    (folders / "prediction" / "case1_mask.nii.gz").unlink()
    assert evaluate(folders) == 1
    assert main(["report", str(folders / "out"), "--output", str(folders / "page")]) == 0
    told = capsys.readouterr().out
    assert "1 cases have no prediction" in told
    assert "predictions of 1 cases could not be scored (mask_size) and are in no mean" in told
