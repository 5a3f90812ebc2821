"""DICOM cine: single-frame folders and enhanced multi-frame files give one and the same volume."""

import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from cardiac_mtl.contracts import CineStudy
from cardiac_mtl.errors import UserError
from data_modules.dicom import pixels_of
from data_modules.findings import noticed
from data_modules.manifest import find_cases
from data_modules.readers import count_slices, phases_in, read_volume

REAL = Path(__file__).parents[3] / "shared" / "data" / "sunnybrook_dicom" / "SCD0000201"


def voxels_and_affine(image):
    affine = np.eye(4)
    axes = np.asarray(image.GetDirection()).reshape(3, 3)
    affine[:3, :3] = axes * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return sitk.GetArrayFromImage(image), affine


@pytest.mark.parametrize("times", [True, False], ids=["trigger time", "instance number"])
def test_a_folder_of_one_cine_is_assembled(tmp_path, make_study, times, flat_folder):
    study = make_study("DET0000101", phases=3, slices=4)
    phases = phases_in(flat_folder(tmp_path, study, times))
    assert len(phases) == 3
    for t, (files, frame) in enumerate(phases):
        voxels, affine = voxels_and_affine(read_volume(files, frame))
        np.testing.assert_array_equal(voxels, study.image[t])
        np.testing.assert_allclose(affine, study.affine, atol=1e-3)


@pytest.mark.parametrize("order", [range, lambda n: np.random.default_rng(1).permutation(n)])
def test_an_enhanced_file_is_the_same_volume(tmp_path, make_study, order, enhanced_file):
    study = make_study("DET0000101", phases=3, slices=4)
    phases = phases_in(enhanced_file(tmp_path, study, order))
    assert [frame for _, frame in phases] == [0, 1, 2]
    for t, (files, frame) in enumerate(phases):
        voxels, affine = voxels_and_affine(read_volume(files, frame))
        np.testing.assert_array_equal(voxels, study.image[t] * 2.0 - 7)
        np.testing.assert_allclose(affine, study.affine, atol=1e-3)


def test_a_frame_of_an_enhanced_file_may_have_a_slope_of_its_own(
    tmp_path, make_study, enhanced_file
):
    study = make_study("DET0000101", phases=3, slices=4)
    file = enhanced_file(tmp_path, study, range)
    whole = pydicom.dcmread(file)
    for number, group in enumerate(whole.PerFrameFunctionalGroupsSequence):
        own = Dataset()
        own.RescaleSlope, own.RescaleIntercept = str(1 + number % 2), "5"
        group.PixelValueTransformationSequence = Sequence([own])
    whole.save_as(file)
    stored = whole.pixel_array
    slopes = 1 + np.arange(len(stored)) % 2
    np.testing.assert_array_equal(pixels_of(whole, file), stored * slopes[:, None, None] + 5.0)


def test_a_slice_aside_of_the_others_is_noticed(tmp_path, make_study, flat_folder):
    series = flat_folder(tmp_path, make_study("DET0000101", phases=1, slices=4))
    last = max(series.glob("*.dcm"), key=lambda file: pydicom.dcmread(file).InstanceNumber)
    image = pydicom.dcmread(last)
    across = np.asarray(image.ImageOrientationPatient[:3], float)
    image.ImagePositionPatient = list(np.asarray(image.ImagePositionPatient, float) + 15 * across)
    image.save_as(last)
    ((files, frame),) = phases_in(series)
    with noticed() as findings:
        read_volume(files, frame)
    assert [finding.code for finding in findings] == ["shifted_slice"]


def test_one_enhanced_file_a_slice_in_a_folder(tmp_path, make_study, enhanced_file):
    study = make_study("DET0000101", phases=3, slices=4)
    (tmp_path / "all").mkdir()
    for k in range(4):
        part = CineStudy(
            study.patient_id,
            study.image[:, k : k + 1],
            study.mask[:, k : k + 1],
            study.affine @ np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, k], [0, 0, 0, 1]]),
        )
        (tmp_path / str(k)).mkdir()
        enhanced_file(tmp_path / str(k), part, range).rename(tmp_path / "all" / f"{9 - k}.dcm")
    phases = phases_in(tmp_path / "all")
    assert [frame for _, frame in phases] == [0, 1, 2]
    voxels, affine = voxels_and_affine(read_volume(*phases[1]))
    np.testing.assert_array_equal(voxels, study.image[1] * 2.0 - 7)
    np.testing.assert_allclose(affine, study.affine, atol=1e-3)


def test_slices_of_several_enhanced_files_are_counted(tmp_path, make_study, enhanced_file):
    """One file a half of the stack: the store is planned by this count."""
    study = make_study("DET0000101", phases=1, slices=4)
    (tmp_path / "all").mkdir()
    for k in range(2):
        half, there = slice(2 * k, 2 * k + 2), np.eye(4)
        there[2, 3] = 2 * k
        images = study.image[:, half], study.mask[:, half]
        part = CineStudy(study.patient_id, *images, study.affine @ there)
        (tmp_path / str(k)).mkdir()
        enhanced_file(tmp_path / str(k), part, range).rename(tmp_path / "all" / f"{k}.dcm")
    ((files, frame),) = phases_in(tmp_path / "all")
    assert count_slices(files) == read_volume(files, frame).GetSize()[2] == 4


def test_a_manifest_may_name_a_dicom_folder_or_file(tmp_path, make_study, enhanced_file):
    study = make_study("DET0000101", phases=2, slices=3)
    enhanced_file(tmp_path, study, range)
    (tmp_path / "cases.csv").write_text("case_id,patient_id,image\na,a,series\nb,b,enhanced.dcm\n")
    cases = find_cases(tmp_path)
    assert [case.case_id for case in cases] == ["a_ph00", "a_ph01", "b_ph00", "b_ph01"]
    one, other = (read_volume(cases[k].image, cases[k].frame) for k in (1, 3))
    np.testing.assert_array_equal(
        sitk.GetArrayFromImage(one) * 2 - 7, sitk.GetArrayFromImage(other)
    )


def break_series(series, how):
    files = sorted(series.glob("*.dcm"))
    image = pydicom.dcmread(files[5])
    if how == "missing":
        files[5].unlink()
    elif how == "doubled":
        shutil.copy(files[5], series / "copy.dcm")
    elif how == "copied":
        for file in files:
            shutil.copy(file, series / f"copy of {file.name}")
    elif how == "two series":
        image.SeriesInstanceUID = "1.2.3"
        image.save_as(files[5])
    elif how == "two echoes":
        image.EchoTime = 9
        image.save_as(files[5])
    elif how == "tilted":
        image.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        image.save_as(files[5])
    else:
        image.Rows, image.PixelData = 10, image.PixelData[: 10 * image.Columns * 2]
        image.save_as(files[5])
    return files[5].name


@pytest.mark.parametrize(
    ("how", "code", "message"),
    [
        ("missing", "missing_image", r"slice \d has 2 images, the others 3"),
        ("doubled", "duplicate_slice", r"slice \d has 4 images, the others 3, \S+ and \S+ at one"),
        ("copied", "duplicate_slice", r"slice 0 has one image twice, \S+ and copy of"),
        ("two series", "mixed_series", r"slice \d has images of 2 series or echoes"),
        ("two echoes", "mixed_series", r"slice \d has images of 2 series or echoes"),
        ("tilted", "tilted_slice", "its orientation differs from that of the other slices by"),
        ("cropped", "mixed_sizes", "has 24 x 10 pixels, the other slices 24 x 20"),
    ],
)
def test_a_broken_series_is_named(tmp_path, make_study, how, code, message, flat_folder):
    series = flat_folder(tmp_path, make_study("DET0000101", phases=3, slices=4))
    name = break_series(series, how)
    with pytest.raises(UserError, match=message) as caught:
        phases_in(series)
    assert caught.value.code == code
    assert name in str(caught.value) or how in {"missing", "copied", "two series", "two echoes"}


angles = st.floats(-3, 3)


@given(angles, angles, angles, st.booleans(), st.tuples(*[st.floats(0.4, 12)] * 3))
@settings(max_examples=25, deadline=None)
def test_any_geometry_survives_dicom_to_a_thousandth_of_a_millimetre(
    tmp_path_factory, flat_folder, a, b, c, mirrored, spacing
):
    root = tmp_path_factory.mktemp("geometry")
    axes = sitk.Euler3DTransform((0.0, 0.0, 0.0), a, b, c).GetMatrix()
    axes = np.asarray(axes).reshape(3, 3)
    towards_apex = axes[:, 2] @ [1.0, -1.0, -1.0] >= 0
    axes[:, 2] *= 1 if towards_apex else -1
    axes[:, 0] *= -1 if mirrored else 1
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = axes * spacing, [-80.5, 12.25, 300.0]
    image = np.arange(2 * 3 * 5 * 7, dtype=np.uint16).reshape(2, 3, 5, 7)
    study = CineStudy("DET0000101", image, np.zeros_like(image, np.uint8), affine)
    for t, (files, frame) in enumerate(phases_in(flat_folder(root, study))):
        voxels, found = voxels_and_affine(read_volume(files, frame))
        np.testing.assert_array_equal(voxels, image[t])
        corners = np.array([[0, 0, 0, 1], [6, 4, 2, 1], [6, 0, 2, 1]]).T
        np.testing.assert_allclose(found @ corners, affine @ corners, atol=1e-3)


@pytest.mark.skipif(not REAL.is_dir(), reason="the real cine is not beside this checkout")
def test_a_real_cine_of_thirteen_slices_and_twenty_phases():
    phases = phases_in(REAL)
    assert [len(files) for files, _ in phases] == [13] * 20
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([str(file) for file in phases[7][0]])
    theirs, ours = reader.Execute(), read_volume(*phases[7])
    assert ours.GetSpacing() == pytest.approx(theirs.GetSpacing(), abs=1e-3)
    assert ours.GetOrigin() == pytest.approx(theirs.GetOrigin(), abs=1e-3)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(ours), sitk.GetArrayFromImage(theirs))
    times = [float(pydicom.dcmread(files[0]).TriggerTime) for files, _ in phases]
    assert times == sorted(times)
