"""LVSC, the STACOM 2011 left-ventricle segmentation set.

Layout: `<root>/Training/<CASE>/<CASE>_SA<slice>_ph<phase>.dcm`, the mask a same-stem `.png`, not
zero = myocardium. Numbers are not zero-padded; long-axis files (`LA`) are left aside; a slice or
phase without PNG is not annotated. A case is one phase of one patient.
Access: Cardiac Atlas Project, by registration.
"""

import csv
import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage
from typing_extensions import override

from cardiac_mtl.contracts import CineStudy
from cardiac_mtl.errors import UserError
from data_modules.base import CardiacDataModule
from data_modules.cases import Case, name_of_phase
from data_modules.dicom import identifiers
from data_modules.findings import OnError, refuse
from data_modules.masks import read_mask
from data_modules.privacy import pseudonym
from data_modules.series import order_by_position

_SHORT_AXIS = re.compile(r"_SA(\d+)_ph(\d+)\.dcm$")


class StacomDataModule(CardiacDataModule):
    """Short-axis cine with a myocardium mask on the phases and slices that have one."""

    layout = "lvsc"

    @override
    def find_cases(self, root: Path, on_error: OnError = refuse) -> list[Case]:
        return find_cases(root, on_error)

    @override
    def read_mask(self, case: Case, image: sitk.Image) -> sitk.Image | None:
        return read_mask(case.mask, image, self.labels)


def find_cases(root: Path, on_error: OnError = refuse) -> list[Case]:
    """Find every phase of every patient.

    Args:
        root: the folder that holds `Training`, or `Training` itself.
        on_error: what to do with a fault of one patient.

    Returns:
        By patient, then by phase as a number; slices base to apex.

    Raises:
        UserError: the folder is absent or holds no short-axis DICOM.
    """
    training = root / "Training" if (root / "Training").is_dir() else root
    if not training.is_dir():
        raise UserError("no such folder", where=str(root), fix="check `data.root`")
    cases: list[Case] = []
    for folder in sorted(path for path in training.iterdir() if path.is_dir()):
        try:
            cases += _cases_of_patient(folder)
        except UserError as error:
            on_error(error)
    if not cases:
        other = " or, as there is a cases.csv, add --config manifest"
        raise UserError(
            "no <CASE>/<CASE>_SA<slice>_ph<phase>.dcm below it",
            where=str(training),
            fix=f"give the folder that holds Training{other * (root / 'cases.csv').is_file()}",
        )
    return cases


def _cases_of_patient(folder: Path) -> list[Case]:
    files: dict[int, dict[int, Path]] = defaultdict(dict)  # phase -> slice -> file
    paths = {path.name: path for path in folder.iterdir()}
    for name, path in paths.items():
        if name.startswith("."):  # `._*`, which macOS leaves in archives, would shadow images
            continue
        if found := _SHORT_AXIS.search(name):
            files[int(found[2])][int(found[1])] = path
    if not files:
        return []
    order = _slice_order(files)
    patient = pseudonym(folder.name, identifiers(next(iter(next(iter(files.values())).values()))))
    return [
        Case(
            case_id=name_of_phase(patient, phase),
            patient_id=patient,
            image=(images := tuple(slices[n] for n in order if n in slices)),
            mask=tuple(paths.get(f"{image.name.removesuffix('.dcm')}.png") for image in images),
            phase=str(phase),
        )
        for phase, slices in sorted(files.items())
    ]


def _slice_order(files: dict[int, dict[int, Path]]) -> list[int]:
    """Return the slice numbers base to apex, from one header a slice: positions do not beat."""
    one_each = {number: file for slices in files.values() for number, file in slices.items()}
    numbers = {file: number for number, file in one_each.items()}
    return [numbers[file] for file in order_by_position(sorted(numbers))]


def write_layout(root: Path, studies: Iterable[CineStudy]) -> None:
    """Write studies as the published archive lays them out; the inverse of `find_cases`.

    Args:
        root: folder to fill, with `truth.csv` beside `Training`: the closed-form values.
        studies: the myocardium becomes the PNG, 255 on 0.
    """
    truth: list[dict[str, object]] = []
    for study in studies:
        folder = root / "Training" / study.patient_id
        folder.mkdir(parents=True)
        for phase, (volume, masks) in enumerate(zip(study.image, study.mask, strict=True)):
            for number, (pixels, mask) in enumerate(zip(volume, masks, strict=True)):
                stem = folder / f"{study.patient_id}_SA{number}_ph{phase}"
                _write_dicom(stem.with_suffix(".dcm"), pixels, study, number, phase)
                Image.fromarray((mask == 1).astype(np.uint8) * 255).save(stem.with_suffix(".png"))
            values = {key: v[phase] for key, v in study.truth.items() if phase < len(v)}
            truth.append({"patient_id": study.patient_id, "phase": phase, **values})
    columns = list(dict.fromkeys(key for row in truth for key in row))
    with (root / "truth.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(truth)


def _write_dicom(path: Path, pixels: np.ndarray, study: CineStudy, number: int, phase: int) -> None:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = MRImageStorage
    meta.MediaStorageSOPInstanceUID = _uid(study.patient_id, str(number), str(phase))
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image = FileDataset(path, {}, file_meta=meta, preamble=b"\0" * 128)
    image.SOPClassUID, image.SOPInstanceUID = MRImageStorage, meta.MediaStorageSOPInstanceUID
    image.StudyInstanceUID = _uid(study.patient_id)
    image.SeriesInstanceUID = _uid(study.patient_id, "SA")
    image.Modality, image.PatientID, image.PatientName = "MR", study.patient_id, study.patient_id
    image.InstanceNumber = number * len(study.image) + phase + 1
    image.TriggerTime = f"{800 * phase / len(study.image):.1f}"  # ms, 75 beats a minute
    spacing = np.linalg.norm(study.affine[:3, :3], axis=0)
    axes = study.affine[:3, :3] / spacing
    position = study.affine @ [0, 0, number, 1]
    image.ImagePositionPatient = [f"{x:.6f}" for x in position[:3]]
    image.ImageOrientationPatient = [f"{x:.9f}" for x in (*axes[:, 0], *axes[:, 1])]
    image.PixelSpacing = [f"{spacing[1]:.6f}", f"{spacing[0]:.6f}"]
    image.SliceThickness = image.SpacingBetweenSlices = f"{spacing[2]:.6f}"
    image.Rows, image.Columns = pixels.shape
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated = image.BitsStored = 16
    image.HighBit, image.PixelRepresentation = 15, 0
    image.PixelData = pixels.astype("<u2").tobytes()
    pydicom.dcmwrite(path, image)


def _uid(*parts: str) -> UID:
    """Return a UID that depends on the parts alone, so that two writes are alike byte for byte."""
    number = int.from_bytes(hashlib.sha256("/".join(parts).encode()).digest()[:16], "big")
    return UID(f"2.25.{number}")
