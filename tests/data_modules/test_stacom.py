"""LVSC: reading is the inverse of writing, and real oddities of the archive."""

import numpy as np
import pandas as pd
import pydicom
import pytest
import SimpleITK as sitk
from PIL import Image

from cardiac_mtl.contracts import UNLABELLED
from cardiac_mtl.errors import UserError
from data_modules.readers import read_volume
from data_modules.stacom import StacomDataModule, find_cases, write_layout


@pytest.fixture
def lvsc(tmp_path, studies):
    write_layout(tmp_path, studies)
    return tmp_path


def read(case):
    image = read_volume(case.image)
    return image, StacomDataModule().read_mask(case, image)


def test_reading_is_the_inverse_of_writing(lvsc, studies):
    cases = find_cases(lvsc)
    assert [case.case_id for case in cases[:4]] == [
        "DET0000101_ph00",
        "DET0000101_ph01",
        "DET0000101_ph02",
        "DET0000201_ph00",
    ]
    written = {study.patient_id: study for study in studies}
    for case in cases:
        study, phase = written[case.patient_id], int(case.phase)
        image, mask = read(case)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image), study.image[phase])
        np.testing.assert_array_equal(sitk.GetArrayFromImage(mask), study.mask[phase] == 1)
        corner = image.TransformIndexToPhysicalPoint((23, 19, 3))
        np.testing.assert_allclose(corner, (study.affine @ [23, 19, 3, 1])[:3], atol=1e-3)


def test_geometry_agrees_with_simpleitks_series_reader(lvsc):
    (case, *_) = find_cases(lvsc)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([str(file) for file in case.image])
    reference, ours = reader.Execute(), read_volume(case.image)
    np.testing.assert_allclose(ours.GetSpacing(), reference.GetSpacing(), atol=1e-3)
    np.testing.assert_allclose(ours.GetOrigin(), reference.GetOrigin(), atol=1e-3)
    np.testing.assert_array_equal(
        sitk.GetArrayFromImage(ours), sitk.GetArrayFromImage(reference).astype(np.float32)
    )


def test_two_writes_are_alike_byte_for_byte(tmp_path, studies):
    for name in "ab":
        write_layout(tmp_path / name, studies[:1])
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*.*"))
    assert len(files) == 2 * 3 * 4 + 1
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_slices_are_ordered_by_position_and_numbers_as_numbers(tmp_path, studies):
    write_layout(tmp_path, studies[:1])
    folder = tmp_path / "Training" / "DET0000201"
    for old, new in ((0, 12), (1, 3), (2, 10), (3, 9)):  # names that mislead
        for file in folder.glob(f"*_SA{old}_ph*"):
            file.rename(folder / file.name.replace(f"_SA{old}_", f"_S-A{new}_"))
    for file in folder.glob("*S-A*"):
        file.rename(folder / file.name.replace("S-A", "SA"))
    (case, *_) = find_cases(tmp_path)
    depths = [float(pydicom.dcmread(f).ImagePositionPatient[2]) for f in case.image]
    assert depths == sorted(depths, reverse=True)  # base first: the normal points down
    assert [f.name.split("_")[1] for f in case.image] == ["SA12", "SA3", "SA10", "SA9"]


def test_long_axis_is_left_aside_and_a_missing_png_is_not_annotated(lvsc):
    folder = lvsc / "Training" / "DET0000101"
    (folder / "DET0000101_LA1_ph0.dcm").write_bytes(b"")
    (folder / "DET0000101_SA2_ph0.png").unlink()
    case = find_cases(lvsc)[0]
    assert len(case.image) == 4
    _, mask = read(case)
    unknown = (sitk.GetArrayFromImage(mask) == UNLABELLED).all(axis=(1, 2))
    assert unknown.tolist() == [False, False, True, False]


def test_truth_stands_beside(lvsc):
    truth = pd.read_csv(lvsc / "truth.csv")
    assert truth.columns.tolist() == ["patient_id", "phase", "cavity_ml"]
    assert len(truth) == 6


@pytest.mark.parametrize(("folder", "message"), [("nowhere", "no such folder"), (".", "no <CASE>")])
def test_a_root_without_cases_says_what_to_do(tmp_path, folder, message):
    with pytest.raises(UserError, match=message) as caught:
        find_cases(tmp_path / folder)
    assert str(tmp_path) in str(caught.value)


def test_a_folder_with_a_table_says_which_overlay_reads_it(tmp_path):
    (tmp_path / "cases.csv").touch()
    with pytest.raises(UserError, match=r"holds Training or, as .* add --config manifest$"):
        find_cases(tmp_path)


def test_a_mask_of_another_size_names_its_file(lvsc):
    Image.new("L", (7, 9)).save(lvsc / "Training" / "DET0000101" / "DET0000101_SA1_ph0.png")
    with pytest.raises(
        UserError, match=r"SA1_ph0\.png: the mask has 7 x 9 pixels, its image 24 x 20"
    ):
        read(find_cases(lvsc)[0])


def test_a_slice_of_another_size_names_its_file(lvsc):
    file = lvsc / "Training" / "DET0000101" / "DET0000101_SA3_ph0.dcm"
    image = pydicom.dcmread(file)
    image.Rows = 10
    image.PixelData = image.PixelData[: 10 * 24 * 2]
    image.save_as(file)
    with pytest.raises(
        UserError, match=r"SA3_ph0\.dcm: has 24 x 10 pixels, the other slices 24 x 20"
    ):
        read(find_cases(lvsc)[0])


def test_a_file_that_is_not_dicom_names_itself(lvsc):
    (lvsc / "Training" / "DET0000101" / "DET0000101_SA3_ph0.dcm").write_bytes(b"not an image")
    with pytest.raises(UserError, match=r"SA3_ph0\.dcm: is damaged or not DICOM"):
        read(find_cases(lvsc)[0])


def test_files_that_macos_leaves_in_archives_do_not_shadow_images(lvsc):
    expected = find_cases(lvsc)
    for file in (lvsc / "Training" / "DET0000101").glob("*.dcm"):
        file.with_name(f"._{file.name}").write_bytes(b"Mac OS X")
    assert find_cases(lvsc) == expected


def test_a_missing_slice_leaves_the_spacing_and_is_named(lvsc, caplog):
    (lvsc / "Training" / "DET0000101" / "DET0000101_SA2_ph0.dcm").unlink()
    image, _ = read(find_cases(lvsc)[0])
    assert image.GetSize() == (24, 20, 3)
    assert image.GetSpacing() == pytest.approx((1.4, 1.6, 8.0))
    assert "the next slice is 16 mm away, others 8 mm: is a slice missing?" in caplog.text


@pytest.mark.parametrize("order", [[0, 0, 1, 2], [0, 2, 1, 3], [0, 0]])
def test_a_slice_twice_or_out_of_order_is_refused(lvsc, order):
    files = find_cases(lvsc)[0].image
    with pytest.raises(UserError, match=r"SA0_ph0\.dcm: .*twice at one place or out of order"):
        read_volume([files[k] for k in order])


def test_slices_against_their_normal_keep_their_positions(lvsc):
    files = find_cases(lvsc)[0].image[::-1]
    image = read_volume(files)
    for k, file in enumerate(files):
        position = pydicom.dcmread(file).ImagePositionPatient
        np.testing.assert_allclose(
            image.TransformIndexToPhysicalPoint((0, 0, k)), position, atol=1e-3
        )


def rewritten(lvsc, **values):
    file = lvsc / "Training" / "DET0000101" / "DET0000101_SA1_ph0.dcm"
    image = pydicom.dcmread(file)
    for key, value in values.items():
        setattr(image, key, value)
        if value is None:
            delattr(image, key)
    image.save_as(file)
    return find_cases(lvsc)[0]


def test_rescaling_is_applied(lvsc, studies):
    image, _ = read(rewritten(lvsc, RescaleSlope="2.5", RescaleIntercept="-7"))
    expected = studies[1].image[0, 1] * 2.5 - 7
    np.testing.assert_allclose(sitk.GetArrayFromImage(image)[1], expected)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"PixelSpacing": None}, "lacks PixelSpacing; export it with its geometry"),
        ({"PixelSpacing": [1.6, 1.5]}, "spacing differs from that of the other slices by 0.1;"),
        ({"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}, "its orientation differs"),
        ({"ImageOrientationPatient": [1, 0, 0]}, "has a damaged header"),
        ({"Rows": None}, "has a damaged header"),
        ({"PixelData": b"short"}, "has no readable pixels"),
    ],
)
def test_a_slice_that_does_not_fit_its_series_names_its_file(lvsc, values, message):
    with pytest.raises(UserError, match=rf"SA1_ph0\.dcm: .*{message}"):
        read_volume(rewritten(lvsc, **values).image)
