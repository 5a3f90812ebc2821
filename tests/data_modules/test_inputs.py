"""What `predict` takes of a file or a folder."""

import re

import nibabel as nib
import numpy as np
import pytest

from cardiac_mtl.errors import UserError
from data_modules.inputs import find_inputs
from data_modules.manifest import ManifestDataModule
from data_modules.mscmr import MSCMRDataModule
from data_modules.t1 import T1DataModule


@pytest.fixture
def folder(tmp_path):
    def make(*names):
        for name in names:
            nib.Nifti1Image(np.zeros((4, 4, 2), np.int16), np.eye(4)).to_filename(tmp_path / name)
        return tmp_path

    return make


def found(path, data):
    cases = find_inputs(path, one_phase=data.one_phase, takes=data.takes)
    return [case.case_id for case in cases]


def test_what_macos_leaves_in_archives_is_no_image(folder):
    path = folder("a.nii.gz")
    (path / "._a.nii.gz").write_bytes(b"\0\5\26\7")
    assert found(path, ManifestDataModule()) == ["a"]


def test_endings_in_capitals_are_those_of_images_too(folder):
    path = folder("a.NII.GZ", "a_mask.NII.GZ", "b.Nii", "patient7_C0.NII")
    assert found(path, ManifestDataModule()) == ["a", "b", "patient7_C0"]
    assert found(path, MSCMRDataModule()) == ["a", "b"]
    assert found(path / "a.NII.GZ", ManifestDataModule()) == ["a"]


@pytest.mark.parametrize("table", [False, True])
@pytest.mark.parametrize("module", [T1DataModule, MSCMRDataModule])
def test_what_has_phases_is_no_map_and_no_late_enhancement(tmp_path, module, table):
    """Images that a map is fitted to may pass for maps: they have values as T1 has them."""
    nib.Nifti1Image(np.ones((4, 4, 2, 8), np.int16), np.eye(4)).to_filename(tmp_path / "a.nii")
    if table:
        (tmp_path / "cases.csv").write_text("case_id,patient_id,image\na,a,a.nii\n")
    assert len(found(tmp_path, ManifestDataModule())) == 8
    with pytest.raises(UserError, match=r"a\.nii: holds 8 phases, not one volume"):
        found(tmp_path, module())


@pytest.mark.parametrize("ending", ["mask", "manual", "gt", "seg", "GT", "Mask"])
def test_masks_beside_images_are_left_aside(folder, ending):
    path = folder("a.nii", f"a_{ending}.nii", "b_image.nii.gz", f"b_{ending}.nii.gz")
    assert found(path, ManifestDataModule()) == ["a", "b_image"]


def test_of_the_sequences_of_a_patient_the_late_enhancement_is_predicted(folder):
    names = "patient7_LGE", "patient7_C0", "patient7_T2", "patient7_C0_manual", "visit2"
    path = folder(*(f"{name}.nii.gz" for name in names))
    assert found(path, MSCMRDataModule()) == ["patient7_LGE", "visit2"]
    assert len(found(path, ManifestDataModule())) == 4
    assert found(path / "patient7_C0.nii.gz", MSCMRDataModule()) == ["patient7_C0"]  # asked for


def test_a_folder_without_an_image_of_the_kind_is_one_line(folder):
    path = folder("patient7_C0.nii.gz", "patient7_T2.nii.gz")
    what = "2 NIfTI files, and none is an image that this run was trained for; give the images"
    with pytest.raises(UserError, match=re.escape(f"--input {path}: {what}")):
        found(path, MSCMRDataModule())


@pytest.mark.parametrize("mask", ["gone.nii", "flat.nii", "../elsewhere.nii"])
@pytest.mark.parametrize("whole_cines", [False, True])
def test_a_mask_that_does_not_fit_costs_no_row_its_prediction(tmp_path, mask, whole_cines):
    nib.Nifti1Image(np.ones((4, 4, 2, 3), np.int16), np.eye(4)).to_filename(tmp_path / "a.nii")
    nib.Nifti1Image(np.ones((4, 4), np.int16), np.eye(4)).to_filename(tmp_path / "flat.nii")
    (tmp_path / "cases.csv").write_text(f"case_id,patient_id,image,mask\na,a,a.nii,{mask}\n")
    cases = find_inputs(tmp_path, whole_cines=whole_cines)
    assert [case.phase for case in cases] == ([""] if whole_cines else ["0", "1", "2"])
    assert {case.mask for case in cases} == {(tmp_path / mask,)}
