"""The manifest: reading is the inverse of writing, and every fault of a table has its line."""

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from cardiac_mtl.errors import UserError
from data_modules.manifest import ManifestDataModule, find_cases, write_layout
from data_modules.readers import read_volume


@pytest.fixture
def root(tmp_path, studies):
    write_layout(tmp_path, studies)
    return tmp_path


def edit(root, old, new):
    table = root / "cases.csv"
    table.write_text(table.read_text().replace(old, new))


def test_reading_is_the_inverse_of_writing(root, studies):
    cases = find_cases(root)
    assert [c.case_id for c in cases] == [
        f"{s.patient_id}_ph{t:02d}" for s in studies for t in range(3)
    ]
    assert {c.pathology for c in cases} == {"normal"}
    image = read_volume(cases[4].image)
    mask = ManifestDataModule().read_mask(cases[4], image)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), studies[1].image[1])
    np.testing.assert_array_equal(sitk.GetArrayFromImage(mask), studies[1].mask[1] == 1)
    corner = image.TransformIndexToPhysicalPoint((23, 19, 3))
    np.testing.assert_allclose(corner, (studies[1].affine @ [23, 19, 3, 1])[:3], atol=1e-3)


@pytest.mark.parametrize(
    "rewrite",
    [
        lambda text: "\ufeff" + text,
        lambda text: text.replace(",", ";"),
        lambda text: text.replace("\r\n", "\n").replace("\n", "\r\n"),
        lambda text: text.replace(",image", ", image "),
    ],
    ids=["BOM", "semicolons", "CRLF", "spaces"],
)
def test_tables_as_spreadsheets_write_them(root, rewrite):
    expected = find_cases(root)
    table = root / "cases.csv"
    table.write_bytes(rewrite(table.read_bytes().decode()).encode())
    assert find_cases(root) == expected
    assert find_cases(table) == expected


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("patient_id", "pateint_id", r"no column 'patient_id'; rename 'pateint_id'"),
        ("DET0000201_ph01_image.nii.gz", "", r"row 3: image is empty; name the file"),
        ("DET0000201_ph01_mask", "gone_mask", r"row 3: no file 'gone_mask\.nii\.gz'"),
        ("DET0000201_ph01_mask", "../x", r"row 3: '\.\./x\.nii\.gz' leads out of the data folder"),
        ("ph01,DET0000201,", "ph01,,", r"row 3: patient_id is empty; name the patient"),
        ("normal,DET0000201_ph01", "a,b,DET0000201_ph01", r"row 3: more than 6 values; quote"),
        ("normal,DET0000201_ph01", '"normal,DET0000201_ph01', r"row 3: is not CSV: .*quotes"),
        ("phase,", "image,", r"two columns 'image'; rename one"),
        ("normal", "a\0b", r"holds zero bytes; save it as UTF-8"),
        ("DET0000201_ph02,", "a/b,", r"row 4: case_id 'a/b' cannot name a file"),
    ],
)
def test_a_fault_of_the_table_is_named_with_its_row(root, old, new, message):
    edit(root, old, new)
    with pytest.raises(UserError, match=message):
        find_cases(root)


def test_an_empty_table_and_a_missing_one(root):
    table = root / "cases.csv"
    table.write_text(table.read_text().splitlines()[0] + "\n")
    with pytest.raises(UserError, match=r"cases\.csv: the table has no row"):
        find_cases(root)
    table.unlink()
    with pytest.raises(UserError, match=r"no cases\.csv here; check `data\.root`"):
        find_cases(root)


@pytest.mark.parametrize("name", ["gone", "gone/cases.csv"])
def test_a_path_that_is_not_there_is_named_as_it_was_given(root, name):
    with pytest.raises(UserError, match=rf"{name}: no such file or folder; correct the path"):
        find_cases(root / name)


def test_rows_of_commas_that_spreadsheets_leave_are_no_cases(root):
    expected = find_cases(root)
    table = root / "cases.csv"
    table.write_text(table.read_text() + ",,,,,\n , ,,,,\n")
    assert find_cases(root) == expected


def test_rows_are_counted_as_the_file_has_them(root):
    edit(root, "DET0000201_ph01,DET", "\nDET0000201_ph01,DET")  # a blank line before it
    edit(root, "DET0000201_ph01_mask", "gone_mask")
    with pytest.raises(UserError, match="row 4: no file 'gone_mask"):
        find_cases(root)


@pytest.mark.parametrize("name", ["Mask", "masks"])
def test_an_optional_column_that_is_misspelt_is_named(root, caplog, name):
    edit(root, ",mask", f",{name}")
    assert {case.mask for case in find_cases(root)} == {()}
    assert f"column '{name}' is not read as 'mask': misspelt?" in caplog.text


def test_other_columns_are_left_alone(root, caplog):
    edit(root, "pathology", "n_slices")
    find_cases(root)
    assert not caplog.text


def test_labels_as_pandas_writes_them(root):
    edit(root, "pathology", "label")
    edit(root, "normal", "1.0")
    assert {case.label for case in find_cases(root)} == {1}


def test_a_label_must_be_a_number(root):
    edit(root, "pathology", "label")
    with pytest.raises(
        UserError, match=r"row 2: label 'normal' is neither healthy nor diseased nor a whole"
    ):
        find_cases(root)


def test_a_cine_file_is_one_case_a_phase(tmp_path, studies):
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ studies[0].affine
    for name, array in (("image", studies[0].image), ("mask", (studies[0].mask == 1) * 1)):
        voxels = array.transpose(3, 2, 1, 0).astype(np.int16)
        nib.Nifti1Image(voxels, affine).to_filename(tmp_path / f"{name}.nii.gz")
    (tmp_path / "cases.csv").write_text(
        "case_id,patient_id,image,mask\nc1,p1,image.nii.gz,mask.nii.gz\n"
    )
    cases = find_cases(tmp_path)
    assert [(c.case_id, c.frame, c.phase) for c in cases] == [
        ("c1_ph00", 0, "0"),
        ("c1_ph01", 1, "1"),
        ("c1_ph02", 2, "2"),
    ]
    image = read_volume(cases[2].image, cases[2].frame)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), studies[0].image[2])


@pytest.mark.parametrize("shape", [(5, 4, 2), (5, 4, 2, 2)], ids=["3-D", "fewer phases"])
def test_the_mask_of_a_cine_has_its_shape(tmp_path, shape):
    nib.Nifti1Image(np.ones((5, 4, 2, 3), np.int16), np.eye(4)).to_filename(tmp_path / "i.nii")
    nib.Nifti1Image(np.ones(shape, np.uint8), np.eye(4)).to_filename(tmp_path / "m.nii")
    (tmp_path / "cases.csv").write_text("case_id,patient_id,image,mask\nc,p,i.nii,m.nii\n")
    with pytest.raises(UserError, match=r"m\.nii: the mask of a cine has the shape .*; give a"):
        find_cases(tmp_path)
