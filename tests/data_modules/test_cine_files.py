"""Cine 2D+T on disk: what is read, where it is cropped, and what is refused."""

import dataclasses
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from cardiac_mtl.cli import main
from cardiac_mtl.contracts import UNLABELLED
from cardiac_mtl.errors import UserError
from data_modules import stacom
from data_modules.cine import CineDataModule, write_layout
from data_modules.cine_table import find_cases
from data_modules.geometry import resample_beat, restore
from data_modules.inputs import find_inputs
from data_modules.readers import count_slices_of_cine, phases_in, read_cine
from data_modules.roi import box_centre, moving_centre

REAL = Path(__file__).parents[3] / "shared" / "data" / "sunnybrook_dicom"
COLUMNS, PHASES = 40, 6  # of the studies that beat
STEP = (1.6, 1.4)  # rows, columns
CENTRE = (19.0, 24.0)


def test_reading_is_the_inverse_of_writing(tmp_path, beating):
    studies = [beating("p0"), dataclasses.replace(beating("p1", 1), infarct=None)]
    write_layout(tmp_path, studies)
    cases = find_cases(tmp_path)
    assert [(c.case_id, c.patient_id, c.pathology, c.frame) for c in cases] == [
        ("p0", "p0", "a", None),
        ("p1", "p1", "a", None),
    ]
    cine = read_cine(cases[0].image)
    np.testing.assert_array_equal(cine.frames, studies[0].image)
    corner = cine.volume.TransformIndexToPhysicalPoint((39, 47, 2))
    np.testing.assert_allclose(corner, (studies[0].affine @ [39, 47, 2, 1])[:3], atol=1e-3)
    data = CineDataModule()
    mask = sitk.GetArrayFromImage(data.read_mask(cases[0], cine.volume))
    expected = np.where(studies[0].infarct == 1, 1, 2 * (studies[0].mask[0] == 1))
    np.testing.assert_array_equal(mask, expected)
    assert set(np.unique(mask[0])) == {0, 2}
    assert data.read_mask(cases[1], cine.volume) is None
    assert (data.prepare_case(cases[1]).mask == UNLABELLED).all()


def test_a_folder_of_dicom_is_the_same_cine(tmp_path, beating, cine_folder):
    study = beating("DET0000101")
    stacom.write_layout(tmp_path, [study])
    write_layout(tmp_path, [study])
    cine_folder(tmp_path).edit(
        lambda rows: [rows[0], [*rows[1][:3], "Training/DET0000101", *rows[1][4:]]]
    )
    (case,) = find_cases(tmp_path)
    np.testing.assert_array_equal(read_cine(case.image).frames, study.image)
    assert count_slices_of_cine(case.image) == 3
    prepared = CineDataModule().prepare_case(case)
    assert prepared.image.shape == (3, 25, 64, 64)
    assert (prepared.mask == 1).any()


@pytest.mark.parametrize("noise", [0.0, 60.0])
@pytest.mark.parametrize("centre", [CENTRE, (26.0, 17.0)])
def test_the_region_is_around_what_beats(beating, centre, noise):
    frames = beating("p", centre=centre, noise=noise).image.astype(np.float32)
    rng = np.random.default_rng(1)
    frames[:, :, :2] += rng.uniform(0, 3000, (PHASES, 3, 2, COLUMNS))  # flickers at the rim
    row, column = moving_centre(frames, STEP)
    assert np.hypot((row - centre[0]) * STEP[0], (column - centre[1]) * STEP[1]) < 3


@pytest.mark.skipif(not REAL.is_dir(), reason="the real cine is not beside this checkout")
def test_the_region_of_a_real_cine_is_around_its_left_ventricle():
    files = [file for phase, _ in phases_in(REAL / "SCD0000201") for file in phase]
    cine = read_cine(files)
    assert cine.frames.shape == (20, 13, 256, 256)
    contours = (REAL / "contours" / "i-contours").glob("*.txt")
    column, row = np.mean([np.loadtxt(contour).mean(axis=0) for contour in contours], axis=0)
    found = moving_centre(cine.frames, cine.volume.GetSpacing()[1::-1])
    assert np.hypot(found[0] - row, found[1] - column) * 1.367 < 10


def test_the_region_around_the_myocardium_is_that_of_its_box():
    region = np.zeros((3, 20, 30), bool)
    region[0, 4:9, 3], region[2, 10, 12] = True, True
    assert box_centre(region) == (7.0, 7.5)
    assert box_centre(region & False) is None


def test_a_beat_is_interpolated_in_time_and_closes():
    time = np.arange(13) / 13
    frames = np.cos(2 * np.pi * time).astype(np.float32)[:, None]
    found = resample_beat(frames, 25)[:, 0]
    # a straight line between two phases misses a cosine by 1 - cos(pi / 13) at most
    np.testing.assert_allclose(found, np.cos(2 * np.pi * np.arange(25) / 25), atol=0.03)
    assert np.abs(found - np.cos(2 * np.pi * np.arange(25) / 25)).max() > 0.01
    assert found[24] == pytest.approx(frames[12, 0] * 13 / 25 + frames[0, 0] * 12 / 25, abs=1e-6)
    two = np.array([[1.0], [3.0]], np.float32)
    np.testing.assert_array_equal(resample_beat(two, 4)[:, 0], [1, 2, 3, 2])
    np.testing.assert_array_equal(resample_beat(resample_beat(frames, 26), 13), frames)


def test_as_many_phases_as_wanted_stay_what_they_are():
    frames = np.random.default_rng(0).normal(size=(25, 2, 3)).astype(np.float32)
    assert resample_beat(frames, 25) is frames


def test_a_mask_goes_back_to_where_it_was(clean_cine):
    data = clean_cine.module()
    case = data.cases[5]
    prepared, volume, spacing, centre = data.prepare_input(case)
    assert prepared.shape == (3, 25, 64, 64)
    stored = data.store.slices_of([5])
    np.testing.assert_allclose(prepared, data.store.image[stored], atol=2e-3)
    back = restore((data.store.mask[stored] > 0).astype(np.float32), volume, spacing, centre) > 0.5
    truth = sitk.GetArrayFromImage(data.read_mask(case, volume)) > 0
    assert 2 * (back & truth).sum() / (back.sum() + truth.sum()) > 0.95


def test_slices_run_from_base_to_apex(tmp_path, beating):
    one = beating("p")
    affine = one.affine.copy()
    affine[:3, 3] += affine[:3, 2] * 2
    affine[:3, 2] *= -1
    turned = dataclasses.replace(
        one,
        image=one.image[:, ::-1],
        mask=one.mask[:, ::-1],
        infarct=one.infarct[::-1],
        affine=affine,
    )
    prepared = []
    for name, study in (("as_is", one), ("turned", turned)):
        write_layout(tmp_path / name, [study])
        (case,) = find_cases(tmp_path / name)
        prepared.append(CineDataModule().prepare_case(case))
    np.testing.assert_array_equal(prepared[0].mask, prepared[1].mask)
    np.testing.assert_allclose(prepared[0].image, prepared[1].image, atol=1e-4)
    assert prepared[0].mask[0].max() == 2


def test_the_crop_around_the_reference_has_to_be_asked_for_and_is_said(cine, caplog):
    data = cine.module()
    assert (data.crop, data.crop_asks_reference) == ("113 x 113 mm around what beats", False)
    assert "cropped" not in caplog.text
    other = cine.module(roi="myocardium")
    assert other.crop_asks_reference
    assert "cropped 113 x 113 mm around the myocardium of the reference, in the test" in caplog.text
    assert other.store.folder != data.store.folder
    cine.rewrite("p0_myocardium", lambda v: np.roll(v, 3, axis=0))
    assert cine.module().store.folder != data.store.folder  # its bytes count
    cine.edit(lambda rows: [*rows[:2], [*rows[2][:5], ""], *rows[3:]])
    with pytest.raises(
        UserError, match=r"^data\.roi: case 'p1' has no myocardium to crop around;"
    ) as caught:
        cine.module(roi="myocardium")
    assert caught.value.code == "no_myocardium"


def test_images_to_predict_are_whole_cines(cine):
    for name in ("p0_image.nii.gz", "p1_image.nii.gz"):
        (cine.root / "new").mkdir(exist_ok=True)
        (cine.root / name).rename(cine.root / "new" / name)
    cases = find_inputs(cine.root / "new", whole_cines=True)
    assert [case.case_id for case in cases] == ["p0_image", "p1_image"]
    assert CineDataModule().prepare_input(cases[0]).image.shape == (3, 25, 64, 64)
    assert len(find_inputs(cine.root / "new")) == 2 * PHASES


def spacing_zero(path):
    file = nib.load(path)
    file.header["qform_code"], file.header["sform_code"] = 0, 2
    file.header["srow_x"][2] = file.header["srow_y"][2] = file.header["srow_z"][2] = 0
    nib.Nifti1Image(np.asanyarray(file.dataobj), None, file.header).to_filename(path)


FAULTS = {
    "3-D": (lambda r: r.rewrite("p1_image", lambda v: v[..., 0]), "no_phases", r"p1_image\.nii\.gz: holds one phase, not a cine of several; give"),
    "one phase": (lambda r: r.rewrite("p1_image", lambda v: v[..., :1]), "no_phases", "holds one phase, not a cine of several; give"),
    "mask with phases": (lambda r: r.rewrite("p1_mask", lambda v: np.stack([v] * 6, -1)), "dimensions", r"p1_mask\.nii\.gz: has the shape \(40, 48, 3, 6\), and belongs to all phases"),
    "mask of another size": (lambda r: r.rewrite("p1_mask", lambda v: v[1:]), "mask_size", "the mask has 39 x 48 x 3 voxels, its image 40 x 48 x 3"),
    "myocardium elsewhere": (lambda r: r.rewrite("p1_myocardium", affine=np.eye(4)), "mask_geometry", r"p1_myocardium\.nii\.gz: the mask differs from its image in spacing"),
    "two structures": (lambda r: r.rewrite("p1_myocardium", lambda v: v + (v > 0) * np.arange(3, dtype=np.uint8)), "undeclared_label", r"holds the values \[1\.0, 2\.0, 3\.0\]; keep one value"),
    "spacing zero": (lambda r: spacing_zero(r.root / "p1_image.nii.gz"), "spacing", "has a spacing of 1.4 x 1.6 x 0 mm"),
    "not finite": (lambda r: r.rewrite("p1_image", lambda v: np.where(np.arange(6) == 4, np.nan, v).astype(np.float32)), "not_finite", r"voxels that are NaN or infinite, in slices \[0, 1, 2\]"),
    "nothing moves": (lambda r: r.rewrite("p1_image", lambda v: v * 0 + v[..., :1]), "no_motion", "nothing moves: all its phases are alike; give the phases"),
    "missing file": (lambda r: (r.root / "p1_myocardium.nii.gz").unlink(), "missing_file", "row 3: no file 'p1_myocardium.nii.gz'"),
    "no number": (lambda r: r.one_slice(size_mm2="big"), "index_value", r"row 2: size_mm2 'big' is not a number; give"),
    "several slices": (lambda r: r.edit(lambda rows: [[*row, "size_mm2" if k == 0 else "7"] for k, row in enumerate(rows)]), "index_of_slices", "row 2: size_mm2 given for the 3 slices of its image; leave"),
    "no infarct": (lambda r: [r.rewrite(f"p{n}_mask", lambda v: v * 0) for n in range(4)], "no_infarct", "no infarct in any slice of the training part"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_what_cannot_be_used_is_named_in_one_line(name, cine):
    spoil, code, message = FAULTS[name]
    spoil(cine)
    with pytest.raises(UserError, match=message) as caught:
        cine.module()
    assert caught.value.code == code
    assert "\n" not in str(caught.value)


def test_a_misspelt_column_is_noticed(cine, caplog):
    cine.edit(lambda rows: [[*rows[0][:5], "wall"], *rows[1:]])
    find_cases(cine.root)
    assert not caplog.text
    cine.edit(lambda rows: [[*rows[0][:5], "myocardum"], *rows[1:]])
    find_cases(cine.root)
    assert "column 'myocardum' is not read as 'myocardium': misspelt?" in caplog.text


def test_check_reads_the_layout(cine, capsys):
    def check():
        words = ["check", "--config", "data/cine", "--data.root", str(cine.root), "--json"]
        status = main([*words, "--output", str(cine.root.parent / "out")])
        return status, [(f["code"], f["case"]) for f in json.loads(capsys.readouterr().out)]

    cine.rewrite("p2_mask", lambda v: v * 0)  # a heart without infarct is no fault
    cine.edit(lambda rows: [*rows[:3], [*rows[3][:5], ""], *rows[4:]])
    assert check() == (0, [])
    cine.rewrite("p0_mask", lambda v: v[1:])
    cine.rewrite("p1_image", lambda v: v[..., 0])
    status, found = check()
    assert status == 1
    assert sorted(found) == [("mask_size", "p0"), ("no_phases", "")]
