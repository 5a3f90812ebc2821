"""`check`: every row of "what goes wrong in real data", planted one at a time; nothing else found."""

import csv
import gzip
import json
import shutil

import nibabel as nib
import numpy as np
import pydicom
import pytest

from cardiac_mtl.cli import main
from data_modules import manifest, stacom

CASE = "p1_ph00"


@pytest.fixture(scope="module")
def hearts_folder(tmp_path_factory, make_study):
    root = tmp_path_factory.mktemp("clean") / "hearts"
    manifest.write_layout(root, [make_study(f"p{n}", phases=1, seed=n) for n in range(4)])
    return root


@pytest.fixture(scope="module")
def lvsc_folder(tmp_path_factory, make_study):
    root = tmp_path_factory.mktemp("clean") / "lvsc"
    stacom.write_layout(root, [make_study(f"DET000010{n}", phases=2, seed=n) for n in range(3)])
    return root


def image(root, name=CASE):
    return root / f"{name}_image.nii.gz"


def mask(root, name=CASE):
    return root / f"{name}_mask.nii.gz"


def rewrite(path, change_voxels=lambda v: v, change_affine=lambda a: a, **header):
    old = nib.load(path)
    new = nib.Nifti1Image(
        change_voxels(np.asanyarray(old.dataobj)), change_affine(old.affine.copy()), old.header
    )
    for key, value in header.items():
        new.header[key] = value
    nib.save(new, path)


def edit(root, change, encoding="utf-8", delimiter=","):
    table = root / "cases.csv"
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    change(rows)
    with table.open("w", newline="", encoding=encoding) as file:
        writer = csv.DictWriter(file, rows[0], delimiter=delimiter, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def put(rows, number, **values):
    rows[number].update(values)


def scaled(axis, by):
    def change(affine):
        affine[:3, axis] *= by
        return affine

    return change


def sheared(affine):
    affine[:3, 1] += 0.3 * affine[:3, 0]
    return affine


def with_nan(voxels):
    voxels = voxels.astype(np.float32)
    voxels[0, 0, 0] = np.nan
    return voxels


def truncate(path):
    path.write_bytes(path.read_bytes()[:-200])


def flip_bytes(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 8] = b"\0" * 8
    path.write_bytes(content)


def rename_with_umlaut(root):
    image(root).rename(root / "Bild zwölf.nii.gz")
    edit(root, lambda rows: put(rows, 1, image="Bild zwölf.nii.gz"))


def qform_off(root):
    file = nib.load(image(root))
    qform = file.affine.copy()
    qform[:3, 3] += 5
    file.set_qform(qform, 1)
    file.set_sform(file.affine, 1)
    nib.save(nib.Nifti1Image(np.asanyarray(file.dataobj), None, file.header), image(root))


def spacing_zero(root):
    file = nib.load(image(root))
    file.header["qform_code"], file.header["sform_code"] = 0, 2
    for row in ("srow_x", "srow_y", "srow_z"):
        file.header[row][2] = 0
    nib.save(nib.Nifti1Image(np.asanyarray(file.dataobj), None, file.header), image(root))


def lose_header(root):
    for path in (image(root), mask(root)):
        voxels = np.asanyarray(nib.load(path).dataobj)
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), path)


def ed_es_swapped(root):
    rewrite(mask(root, "p2_ph00"), lambda v: np.where(v, v, 0))
    small = np.zeros((24, 20, 4), np.uint8)
    small[10:15, 8:13] = 1
    small[11:14, 9:12] = 0
    rewrite(mask(root), lambda _: small)
    edit(root, lambda rows: [put(rows, 1, phase="ED"), put(rows, 2, phase="ES", patient_id="p1")])


def add_dimension(root):
    rewrite(mask(root), lambda v: np.stack([v, v], -1))


def same_image(root):
    voxels = np.asanyarray(nib.load(image(root, "p2_ph00")).dataobj)
    rewrite(image(root), lambda _: voxels)


FAULTS = {
    "mask of another size": (lambda r: rewrite(mask(r), lambda v: v[1:]), "mask_size"),
    "mask of another spacing": (
        lambda r: rewrite(mask(r), change_affine=scaled(0, 1.01)),
        "mask_geometry",
    ),
    "mask elsewhere": (
        lambda r: rewrite(mask(r), change_affine=lambda a: a + np.eye(4, k=3)),
        "mask_geometry",
    ),
    "qform and sform": (qform_off, "qform_sform"),
    "axes not at right angles": (lambda r: rewrite(image(r), change_affine=sheared), "axes"),
    "spacing zero": (spacing_zero, "spacing"),
    "lost header": (lose_header, "spacing_lost"),
    "NaN": (lambda r: rewrite(image(r), with_nan, datatype=16, bitpix=32), "not_finite"),
    "constant image": (lambda r: rewrite(image(r), lambda v: v * 0 + 7), "constant_image"),
    "undeclared label": (lambda r: rewrite(mask(r), lambda v: v * 3), "undeclared_label"),
    "empty mask": (lambda r: rewrite(mask(r), lambda v: v * 0), "empty_mask"),
    "full mask": (lambda r: rewrite(mask(r), lambda v: v * 0 + 1), "full_mask"),
    "4-D mask": (add_dimension, "dimensions"),
    "truncated": (lambda r: truncate(image(r)), "damaged"),
    "corrupt": (lambda r: flip_bytes(image(r)), "damaged"),
    "not gzip": (lambda r: image(r).write_bytes(b"not gzip"), "damaged"),
    "one image, two patients": (same_image, "same_image"),
    "ED smaller than ES": (ed_es_swapped, "ed_es_swapped"),
    "path out of the folder": (
        lambda r: edit(r, lambda rows: put(rows, 1, image="../x.nii.gz")),
        "path_outside",
    ),
    "missing file": (lambda r: mask(r).unlink(), "missing_file"),
    "name with space and umlaut": (rename_with_umlaut, "odd_name"),
    "byte-order mark": (lambda r: edit(r, lambda _: None, "utf-8-sig"), "csv_dialect"),
    "semicolons": (lambda r: edit(r, lambda _: None, delimiter=";"), "csv_dialect"),
    "case twice": (lambda r: edit(r, lambda rows: put(rows, 1, case_id="p2_ph00")), "doubled_case"),
}
MILD = {
    "qform_sform": "warning",
    "spacing_lost": "warning",
    "odd_name": "note",
    "csv_dialect": "note",
}


def check(root, capsys, config="data/manifest"):
    words = ["check", "--config", config, "--data.root", str(root), "--json"]
    status = main([*words, "--output", str(root.parent / "out")])
    return status, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found_and_nothing_else(name, hearts_folder, tmp_path, capsys):
    plant, code = FAULTS[name]
    root = shutil.copytree(hearts_folder, tmp_path / "hearts")
    plant(root)
    status, findings = check(root, capsys)
    assert [finding["code"] for finding in findings] == [code]
    severity = MILD.get(code, "error")
    assert findings[0]["severity"] == severity
    assert status == (1 if severity == "error" else 0)
    assert set(findings[0]) == {"severity", "code", "case", "file", "message"}


def dicom(root, slice_=1, phase=0):
    return root / "Training" / "DET0000101" / f"DET0000101_SA{slice_}_ph{phase}.dcm"


def change_dicom(file, **values):
    dataset = pydicom.dcmread(file)
    for key, value in values.items():
        setattr(dataset, key, value)
    dataset.save_as(file)


def crop_dicom(file):
    dataset = pydicom.dcmread(file)
    dataset.PixelData = dataset.pixel_array[:10].tobytes()
    dataset.Rows = 10
    dataset.save_as(file)


DICOM_FAULTS = {
    "missing slice": (lambda r: dicom(r).unlink(), "missing_slice", "warning"),
    "slice twice": (
        lambda r: shutil.copy(dicom(r), dicom(r, slice_=9)),
        "duplicate_slice",
        "error",
    ),
    "tilted slice": (
        lambda r: change_dicom(dicom(r), ImageOrientationPatient=[1, 0, 0, 0, 1, 0]),
        "tilted_slice",
        "error",
    ),
    "mixed sizes": (lambda r: crop_dicom(dicom(r)), "mixed_sizes", "error"),
    "multi-frame": (
        lambda r: change_dicom(dicom(r), NumberOfFrames=3),
        "multi_frame",
        "error",
    ),
    "inverted": (
        lambda r: change_dicom(dicom(r), PhotometricInterpretation="MONOCHROME1"),
        "inverted",
        "error",
    ),
    "not DICOM": (lambda r: dicom(r).write_bytes(b"GIF89a"), "damaged", "error"),
}


@pytest.mark.parametrize("name", DICOM_FAULTS)
def test_a_fault_of_a_dicom_series_is_found_and_nothing_else(name, lvsc_folder, tmp_path, capsys):
    plant, code, severity = DICOM_FAULTS[name]
    root = shutil.copytree(lvsc_folder, tmp_path / "lvsc")
    plant(root)
    _, findings = check(root, capsys, "data/lvsc")
    assert {(finding["code"], finding["severity"]) for finding in findings} == {(code, severity)}


def test_clean_data_is_clean(hearts_folder, lvsc_folder, capsys):
    assert check(hearts_folder, capsys) == (0, [])
    assert check(lvsc_folder, capsys, "data/lvsc") == (0, [])


def test_all_faults_together_are_all_found(hearts_folder, tmp_path, capsys):
    root = shutil.copytree(hearts_folder, tmp_path / "hearts")
    truncate(image(root, "p0_ph00"))
    rewrite(mask(root, "p1_ph00"), lambda v: v * 0)
    rewrite(image(root, "p1_ph00"), lambda v: v * 0 + 7)
    mask(root, "p2_ph00").unlink()
    _, findings = check(root, capsys)
    assert sorted((f["case"], f["code"]) for f in findings) == [
        ("", "missing_file"),
        ("p0_ph00", "damaged"),
        ("p1_ph00", "constant_image"),
        ("p1_ph00", "empty_mask"),
    ]


def test_patients_of_several_sequences_are_drawn_with_their_masks(sequences, tmp_path, capsys):
    words = ["check", "--config", "mscmr", "--data.root", str(sequences)]
    assert main([*words, "--output", str(tmp_path)]) == 0
    drawn = sorted(path.name for path in tmp_path.glob("sequences_*.png"))
    assert drawn == [f"sequences_patient{n}.png" for n in (1, 2, 3, 4)]
    assert f"picture         {tmp_path / drawn[0]}" in capsys.readouterr().out


def test_people_get_a_table_lines_and_a_contact_sheet(hearts_folder, tmp_path, capsys):
    root = shutil.copytree(hearts_folder, tmp_path / "hearts")
    rewrite(mask(root), lambda v: v * 0)
    arguments = ["check", "--config", "data/manifest", "--data.root", str(root)]
    assert main([*arguments, "--output", str(tmp_path / "out")]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "patients        4" in lines
    assert any(line.startswith(f"error: {CASE}, {mask(root)}: the mask has no") for line in lines)
    assert lines[-1] == "1 error, 0 warnings, 0 notes"
    assert (tmp_path / "out" / "contact_sheet.png").stat().st_size > 5000


def test_a_table_that_cannot_be_read_is_a_finding(tmp_path, capsys):
    (tmp_path / "hearts").mkdir()
    with gzip.open(tmp_path / "hearts" / "cases.csv", "wb") as file:
        file.write(b"case_id")
    status, (finding,) = check(tmp_path / "hearts", capsys)
    assert (status, finding["severity"]) == (1, "error")
