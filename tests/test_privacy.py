"""Planted names, numbers and dates of patients: none leaves the reader."""

import shutil
import unicodedata

import nibabel as nib
import numpy as np
import pydicom
import pytest

from cardiac_mtl.cli import main
from data_modules.manifest import find_cases
from data_modules.masks import write_mask
from data_modules.privacy import pseudonym
from data_modules.readers import read_volume

SECRETS = ("Mustermann", "Erika", "19560203", "4711-0815", "20190704")


@pytest.fixture(autouse=True)
def key(tmp_path, monkeypatch):
    """Keep the key of the pseudonyms out of the user's configuration."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.fixture
def clinic(lvsc, tmp_path):
    """An LVSC folder as a clinic may have it: the first patient's name in folder, files, headers."""
    root = shutil.copytree(lvsc, tmp_path / "lvsc")
    folder = min((root / "Training").iterdir())
    for file in folder.iterdir():
        new = file.rename(folder / file.name.replace(folder.name, "Mustermann_Erika"))
        if new.suffix == ".dcm":
            image = pydicom.dcmread(new)
            image.PatientName, image.PatientID = "Mustermann^Erika", "4711-0815"
            image.PatientBirthDate, image.StudyDate = "19560203", "20190704"
            image.save_as(new)
    folder.rename(folder.with_name("Mustermann_Erika"))
    return root


def leaks(folder):
    found = []
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        content = path.read_bytes() if path.is_file() else b""
        found += [
            (name, secret)
            for secret in SECRETS
            if secret.casefold() in name.casefold() or secret.encode() in content
        ]
    return found


def test_no_run_directory_no_report_no_log_and_no_wandb_file_names_a_patient(
    clinic, without_pictures, tmp_path, capfd, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    (
        clinic / "Training" / "Mustermann_Erika" / "Mustermann_Erika_SA2_ph0.dcm"
    ).unlink()  # a warning
    cache = ["--data.cache_dir", str(tmp_path / "cache")]
    words = ["fit", "--config", "mtn_uncertainty", "--config", "debug", "--config", "loggers/wandb"]
    words += ["--data.root", str(clinic), "--trainer.accelerator", "cpu", *cache]
    words += ["--data.num_folds", "2", "--run_root", str(tmp_path / "runs")]
    for fold in ("0", "1"):  # the patient is tested in one of them
        assert main([*words, "--data.fold", fold]) == 0
    for run in (tmp_path / "runs" / "mtn_uncertainty" / "lvsc").iterdir():
        with without_pictures():  # their names are there
            assert main(["test", "--run", str(run)]) == 0
        assert main(["audit", "--run", str(run)]) == 0
    report = tmp_path / "report"
    assert main(["report", str(tmp_path / "runs"), "--output", str(report)]) == 0
    study = clinic / "Training" / "Mustermann_Erika"
    out = tmp_path / "out"
    main(["predict", "--run", str(run), "--input", str(study), "--output", str(out)])
    shown = capfd.readouterr()
    assert "is a slice missing?" in shown.err
    assert [s for s in SECRETS if s in shown.out + shown.err.replace(str(study), "")] == []
    assert leaks(tmp_path / "runs") == []
    assert leaks(tmp_path / "cache") == []
    assert leaks(out) == []
    assert leaks(report) == []
    assert (report / "index.html").is_file()
    assert len(list((tmp_path / "runs").rglob("*.wandb"))) == 2  # one a fit


def test_a_nifti_mask_inherits_no_text_of_its_image(tmp_path):
    path = tmp_path / "a.nii.gz"
    voxels = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    image = nib.nifti1.Nifti1Image(voxels, np.diag([1.5, 1.5, 8, 1]))
    for field in ("descrip", "db_name", "aux_file", "intent_name", "data_type"):
        image.header[field] = b"Mustermann"
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"Mustermann^Erika"))
    nib.save(image, path)
    write_mask(tmp_path / "m.nii", [read_volume([path])], like=path)
    assert b"Mustermann" not in (tmp_path / "m.nii").read_bytes()


@pytest.mark.parametrize(
    ("name", "hidden"),
    [
        ("Mustermann_Erika", True),
        ("mustermann", True),
        ("study-4711-0815", True),
        ("scan_19560203", True),
        ("patient07", False),
        ("DET0000101", False),
    ],
)
def test_names_that_hold_a_part_of_the_header_are_hidden(name, hidden):
    header = ["Mustermann^Erika", "4711-0815", "19560203", "DET0000101", "E"]
    shown = pseudonym(name, header)
    assert (shown != name) is hidden
    assert pseudonym(name, header) == shown
    assert not hidden or (shown[0] == "p" and len(shown) == 11)


@pytest.mark.parametrize(
    ("name", "header"),
    [
        (unicodedata.normalize("NFD", "Müller_Jörg"), "Müller^Jörg"),  # as macOS names files
        ("王伟", "Wang^Wei=王^伟"),
        ("김철수", "Kim^Cheolsu=金^哲洙=김^철수"),
        ("SCD0000101_Smith", "Smith^John"),
        ("Mueller_1", "Müller^H"),
        ("Müller_1", "Mueller^H"),
        ("Soerensen", "Sørensen^A"),
        ("born 03.02.1956", "19560203"),
        ("02-03-1956", "19560203"),
    ],
)
def test_names_are_hidden_however_they_are_spelt_and_beside_a_published_number(name, header):
    assert pseudonym(name, [header]) != name


def test_a_patient_has_one_pseudonym_in_all_rows_of_a_table(clinic):
    study = clinic / "Training" / "Mustermann_Erika"
    other = clinic / "nothing.nii.gz"
    nib.save(nib.nifti1.Nifti1Image(np.zeros((4, 4, 2), np.uint8), np.eye(4)), other)
    table = clinic / "cases.csv"
    rows = f"erika_cine,erika,{study.relative_to(clinic)}\nerika_lge,erika,{other.name}\n"
    table.write_text(f"case_id,patient_id,image\n{rows}")
    cases = find_cases(clinic)
    assert len({case.patient_id for case in cases}) == 1
    assert not [case for case in cases if "erika" in case.case_id + case.patient_id]


def test_pseudonyms_need_the_key(monkeypatch, tmp_path):
    first = pseudonym("Erika", ["Erika"])
    assert (tmp_path / "config" / "cardiac-mtl" / "salt").stat().st_mode & 0o777 == 0o600
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "other"))
    assert pseudonym("Erika", ["Erika"]) != first


def test_a_dicom_folder_of_a_manifest_gets_pseudonyms_too(clinic):
    shutil.move(clinic / "Training" / "Mustermann_Erika", clinic / "a")
    (clinic / "cases.csv").write_text("case_id,patient_id,image\nerika1,p 4711-0815,a\n")
    cases = find_cases(clinic)
    assert len(cases) == 2
    assert not any(
        s.casefold() in str((c.case_id, c.patient_id)).casefold() for c in cases for s in SECRETS
    )
