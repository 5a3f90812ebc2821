"""Both sides of the comparison with nnU-Net are given the same voxels, and masks are checked."""

import json
import sys
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from benchmarks.common import timed
from benchmarks.prediction import check, make_study, spacing_of, write_raw, write_study
from cardiac_mtl.contracts import CineStudy

AFFINE = np.array([[0, 1.5, 0, -7], [2.0, 0, 0, 5], [0, 0, 8, 11], [0, 0, 0, 1]])


@pytest.fixture
def study():
    """Three phases of four slices of 5 x 6, all voxels different."""
    voxels = np.arange(3 * 4 * 5 * 6, dtype=np.uint16).reshape(3, 4, 5, 6)
    return CineStudy("DET0000101", voxels, (voxels % 4).astype(np.uint8), AFFINE)


def test_the_study_has_the_size_that_the_target_names():
    study = make_study(phases=1)
    assert study.image.shape == (1, 12, 256, 256)
    between_slices, *in_plane = spacing_of(study)
    assert between_slices >= 8
    assert max(in_plane) < 1.3  # else nnU-Net needs four patches a slice


def test_one_file_and_the_files_of_nnunet_hold_the_same_voxels(study, tmp_path):
    files = write_study(tmp_path, study)
    cine = nib.load(files.cine)
    assert np.array_equal(np.asarray(cine.dataobj).T, study.image)
    names = [path.name for path in sorted(files.volumes.iterdir())]
    assert names == [f"case_00{t}_0000.nii.gz" for t in range(3)]
    for t, name in enumerate(names):
        volume = nib.load(files.volumes / name)
        assert np.array_equal(np.asarray(volume.dataobj).T, study.image[t])
        assert volume.affine == pytest.approx(cine.affine, abs=1e-4)


def test_nnunet_is_given_every_phase_with_its_myocardium(study, tmp_path):
    write_raw(tmp_path, [study, replace(study, patient_id="DET0000201")])
    images = sorted(path.name for path in (tmp_path / "imagesTr").iterdir())
    labels = sorted(path.name for path in (tmp_path / "labelsTr").iterdir())
    assert labels == [f"case_00{k}.nii.gz" for k in range(6)]
    assert images == [name.replace(".nii", "_0000.nii") for name in labels]
    assert json.loads((tmp_path / "dataset.json").read_text())["numTraining"] == 6
    mask = np.asarray(nib.load(tmp_path / "labelsTr/case_001.nii.gz").dataobj).T
    assert np.array_equal(mask, study.mask[1] == 1)


def test_masks_pass_as_one_file_and_as_one_a_phase(study, tmp_path):
    files = write_study(tmp_path, study)
    check([files.cine], files.cine)
    check(sorted(files.volumes.iterdir()), files.cine)


def test_a_missing_phase_is_found(study, tmp_path):
    files = write_study(tmp_path, study)
    with pytest.raises(SystemExit, match="masks of 2 volumes in place of 3"):
        check(sorted(files.volumes.iterdir())[1:], files.cine)


@pytest.mark.parametrize(("shape", "shift"), [((6, 5, 4), 0.1), ((5, 6, 4), 0.0)])
def test_another_geometry_is_found(study, tmp_path, shape, shift):
    files = write_study(tmp_path, study)
    first, *_ = volumes = sorted(files.volumes.iterdir())
    affine = nib.load(first).affine.copy()
    affine[0, 3] += shift
    nib.Nifti1Image(np.zeros(shape, np.uint8), affine).to_filename(first)
    with pytest.raises(SystemExit, match=r"case_000_0000\.nii\.gz has another geometry"):
        check(volumes, files.cine)


def test_a_command_that_fails_shows_what_it_said(tmp_path):
    words = [sys.executable, "-c", "import sys; print('no model'); sys.exit(3)"]
    with pytest.raises(SystemExit, match=r"no model\n\n.* ended with 3"):
        timed(words, tmp_path / "log")
