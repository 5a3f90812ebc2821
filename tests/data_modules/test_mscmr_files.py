"""MS-CMRSeg on disk: reading is the inverse of writing, and each fault has its message."""

import json
import multiprocessing
import shutil

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk

from cardiac_mtl.contracts import SequenceStudy, SequenceVolume
from cardiac_mtl.errors import UserError
from cardiac_mtl.phantom_files import LAYOUTS, default_cohort, write_cohort
from data_modules.findings import noticed
from data_modules.mscmr_files import (
    SEQUENCES,
    find_cases,
    read_labels,
    roles,
    withheld_masks,
    write_layout,
)
from data_modules.readers import read_volume

AXES = np.array([[0.8, 0.0, 0.6], [0.36, -0.8, -0.48], [0.48, 0.6, -0.64]])
SHAPES = {"LGE": (5, 16, 18), "C0": (4, 12, 12), "T2": (3, 10, 11)}


def affine_of(shape):
    slices, rows, columns = shape
    affine = np.eye(4)
    affine[:3, :3] = AXES * (360 / columns, 360 / rows, 80 / slices)
    affine[:3, 3] = [-50.0, -120.0, 90.0]
    return affine


def study(number):
    rng = np.random.default_rng(number)
    volumes = {
        name: SequenceVolume(
            image=rng.integers(0, 900, shape).astype(np.int16),
            mask=rng.integers(0, 4, shape).astype(np.uint8),
            affine=affine_of(shape),
        )
        for name, shape in SHAPES.items()
    }
    return SequenceStudy(f"patient{number}", volumes, {"cavity_ml": 100.0 + number})


@pytest.fixture
def root(tmp_path):
    write_layout(tmp_path, map(study, (1, 2, 10)), labelled=1, with_sources=2)
    return tmp_path


def ids(cases):
    return [case.case_id for case in cases]


def test_reading_is_the_inverse_of_writing(root):
    cases, withheld = find_cases(root), withheld_masks(root)
    assert ids(cases) == [f"patient{n}_{s}" for n in (1, 2, 10) for s in SEQUENCES]
    for case in cases:
        number = int(case.patient_id.removeprefix("patient"))
        written = study(number).volumes[case.sequence]
        image = read_volume(case.image)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image), written.image)
        corner = image.TransformIndexToPhysicalPoint((7, 9, 2))
        np.testing.assert_allclose(corner, (written.affine @ [7, 9, 2, 1])[:3], atol=1e-3)
        (path,) = case.mask or (withheld[case.case_id],)
        labels = read_labels(path, image)
        assert labels.GetPixelID() == sitk.sitkInt16
        np.testing.assert_array_equal(sitk.GetArrayFromImage(labels), written.mask)


def test_files_hold_the_values_of_the_challenge(root):
    values = np.asarray(nib.load(root / "patient1_C0_manual.nii.gz").dataobj).T
    mask = study(1).volumes["C0"].mask
    assert values.dtype == np.int16
    for label, value in ((0, 0), (1, 500), (2, 200), (3, 600)):
        assert set(values[mask == label].tolist()) == {value}


def test_withheld_references_are_found_apart_and_never_attached(root):
    attached = [case.case_id for case in find_cases(root) if case.mask]
    withheld = withheld_masks(root)
    assert attached == ["patient1_LGE", "patient1_C0", "patient1_T2", "patient2_C0", "patient2_T2"]
    assert list(withheld) == ["patient2_LGE", "patient10_C0", "patient10_LGE", "patient10_T2"]
    assert withheld["patient2_LGE"] == root / "withheld" / "patient2_LGE_manual.nii.gz"


def test_archives_may_lie_as_they_unpack(root):
    expected = find_cases(root)
    folder = root / "C0LET2_nii45_for_challenge19"
    (folder / "c0t2lge").mkdir(parents=True)
    (folder / "gt").mkdir()
    for file in root.glob("*.nii.gz"):
        file.rename(folder / ("gt" if "manual" in file.name else "c0t2lge") / file.name)
    (root / "C0LET2_gt_for_challenge19").mkdir()
    (root / "withheld").rename(root / "C0LET2_gt_for_challenge19" / "LGE_manual_35_TestData")
    cases = find_cases(root)
    assert ids(cases) == ids(expected)
    assert [bool(case.mask) for case in cases] == [bool(case.mask) for case in expected]
    assert len(withheld_masks(root)) == 4


def test_two_writes_are_alike_byte_for_byte(tmp_path):
    for name in "ab":
        write_layout(tmp_path / name, [study(1), study(2)], labelled=1)
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*.*"))
    assert len(files) == 2 * 6 + 1
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_truth_stands_beside(root):
    truth = pd.read_csv(root / "truth.csv")
    assert truth.to_numpy().tolist()[-1] == ["patient10", "cavity_ml", 110.0]


@pytest.mark.parametrize(
    ("patients", "expected"), [(45, (5, 35)), (12, (5, 9)), (6, (3, 4)), (2, (1, 1)), (1, (1, 1))]
)
def test_small_cohorts_keep_roles_that_make_sense(patients, expected):
    assert roles(patients) == expected


def test_a_cohort_of_phantoms_has_them(tmp_path):
    write_cohort("mscmr", tmp_path / "hearts", patients=3, seed=0, scale=8)
    cases = find_cases(tmp_path / "hearts")
    assert len(cases) == 9
    assert [c.patient_id for c in cases if c.mask and c.sequence == "LGE"] == [
        "patient1",
        "patient2",
    ]
    assert len(withheld_masks(tmp_path / "hearts")) == 3


def test_the_default_cohort_is_small_and_said(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    few = LAYOUTS["mscmr"].kind._replace(default=(2, 8))
    monkeypatch.setitem(LAYOUTS, "mscmr", LAYOUTS["mscmr"]._replace(kind=few))
    folder = default_cohort("mscmr")
    assert "phantom cohort of 2 patients, made now" in capsys.readouterr().out
    assert len(find_cases(folder)) == 6
    assert json.loads((folder / "phantom.json").read_text())["scale"] == 8


def test_two_processes_that_want_the_default_cohort_make_it_once(tmp_path, monkeypatch):
    """As the first jobs of a study do."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    few = LAYOUTS["mscmr"].kind._replace(default=(2, 8))
    monkeypatch.setitem(LAYOUTS, "mscmr", LAYOUTS["mscmr"]._replace(kind=few))
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=default_cohort, args=("mscmr",)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]


@pytest.mark.parametrize(
    ("sequence", "left", "message"),
    [
        ("T2", ["patient2_LGE", "patient2_C0"], "patient2 has no T2"),
        ("LGE", [], "patient2 has no LGE; the patient is left out"),
    ],
)
def test_a_missing_sequence_is_noticed(root, sequence, left, message):
    (root / f"patient2_{sequence}.nii.gz").unlink()
    with noticed() as found:
        cases = find_cases(root)
    assert [case_id for case_id in ids(cases) if "patient2_" in case_id] == left
    assert len(cases) == 6 + len(left)
    (finding,) = (f for f in found if f.code == "missing_sequence")
    assert finding.message == message


def test_a_mask_without_an_image_is_noticed(root):
    (root / "patient1_T2.nii.gz").unlink()
    with noticed() as found:
        assert len(find_cases(root)) == 8
    assert [f.file.rpartition("/")[2] for f in found if f.code == "mask_without_image"] == [
        "patient1_T2_manual.nii.gz"
    ]


@pytest.mark.parametrize("name", ["patient1_DE.nii.gz", "pat1_LGE.nii.gz", "patient1_LGE_gd.nii"])
def test_a_name_of_another_layout_is_noticed_and_left_out(root, name):
    shutil.copy(root / "patient1_LGE.nii.gz", root / name)
    with noticed() as found:
        assert len(find_cases(root)) == 9
    (finding,) = found
    assert finding.code == "odd_name"
    assert finding.file.endswith(name)


def test_endings_in_capitals_are_those_of_the_layout(root):
    for path in list(root.glob("patient1_LGE*")):
        path.rename(path.with_name(path.name.replace(".nii.gz", ".NII.GZ")))
    with noticed() as found:
        cases = find_cases(root)
    assert (found, len(cases)) == ([], 9)
    assert cases[0].mask[0].name == "patient1_LGE_manual.NII.GZ"


def test_files_that_macos_leaves_in_archives_are_nothing(root):
    (root / "._patient1_LGE.nii.gz").write_bytes(b"Mac OS X")
    with noticed() as found:
        assert len(find_cases(root)) == 9
    assert found == []


def test_two_files_of_one_volume_are_one_line_and_the_rest_goes_on(root):
    (root / "copy").mkdir()
    shutil.copy(root / "patient2_T2.nii.gz", root / "copy")
    with pytest.raises(UserError, match=r"patient2_T2\.nii\.gz: is of the same volume as .*copy"):
        find_cases(root)
    faults = []
    assert len(find_cases(root, faults.append)) == 9
    assert [fault.code for fault in faults] == ["doubled_case"]


@pytest.mark.parametrize(
    ("folder", "message"), [("nowhere", "no such folder"), ("empty", "no patient<N>_LGE.nii.gz")]
)
def test_a_root_without_cases_says_what_to_do(tmp_path, folder, message):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=message) as caught:
        find_cases(tmp_path / folder)
    assert str(tmp_path) in str(caught.value)


def rewritten(root, name, voxels, affine=None):
    path = root / f"{name}.nii.gz"
    affine = nib.load(path).affine if affine is None else affine
    nib.nifti1.Nifti1Image(voxels, affine).to_filename(path)
    return path


def labels_of(root, name):
    return read_labels(root / f"{name}_manual.nii.gz", read_volume((root / f"{name}.nii.gz",)))


def test_an_unknown_value_is_named(root):
    voxels = np.asarray(nib.load(root / "patient1_LGE_manual.nii.gz").dataobj).copy()
    voxels[3, 4, 1] = 2221
    rewritten(root, "patient1_LGE_manual", voxels)
    with pytest.raises(UserError, match=r"LGE_manual\.nii\.gz: holds the values \[2221") as caught:
        labels_of(root, "patient1_LGE")
    assert "500 LV blood pool, 200 LV myocardium, 600 RV blood pool" in str(caught.value)


def test_classes_in_place_of_the_values_are_not_taken_for_them(root):
    rewritten(root, "patient1_C0_manual", study(1).volumes["C0"].mask.T)
    with pytest.raises(UserError, match=r"holds the values \[1"):
        labels_of(root, "patient1_C0")


def test_a_mask_of_another_geometry_is_refused(root):
    shutil.copy(root / "patient1_C0_manual.nii.gz", root / "patient1_T2_manual.nii.gz")
    with pytest.raises(UserError, match="the mask has 12 x 12 x 4 voxels, its image 11 x 10 x 3"):
        labels_of(root, "patient1_T2")
    mask = nib.load(root / "patient1_C0_manual.nii.gz")
    moved = mask.affine.copy()
    moved[:3, 3] += 2
    rewritten(root, "patient1_C0_manual", np.asarray(mask.dataobj), moved)
    with pytest.raises(UserError, match="the mask differs from its image in origin by 2"):
        labels_of(root, "patient1_C0")


def test_colours_and_further_dimensions_are_one_line(root):
    colours = np.zeros((5, 6, 3), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    rewritten(root, "patient1_LGE", colours)
    rewritten(root, "patient1_C0", np.zeros((5, 6, 3, 3), np.int16))
    cases = {case.case_id: case for case in find_cases(root)}
    with pytest.raises(UserError, match=r"patient1_LGE\.nii\.gz: holds .* give one number a voxel"):
        read_volume(cases["patient1_LGE"].image)
    with pytest.raises(UserError, match=r"patient1_C0\.nii\.gz: has 4 dimensions"):
        read_volume(cases["patient1_C0"].image)
