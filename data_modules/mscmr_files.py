"""MS-CMRSeg 2019 on disk: three sequences of each patient, and the references of some.

Layout: `patient<N>_LGE.nii.gz`, `patient<N>_C0.nii.gz` (bSSFP) and `patient<N>_T2.nii.gz`, masks
`patient<N>_<sequence>_manual.nii.gz`, in the root or in folders below it, as the archives unpack:
500 LV blood pool, 200 LV myocardium, 600 RV blood pool. References that the challenge withheld
lie in a folder `withheld`, or in that of their archive, `C0LET2_gt_for_challenge19`.
Access: https://zmiclab.github.io/zxh/0/mscmrseg19, by registration.
"""

import csv
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import SimpleITK as sitk

from cardiac_mtl.contracts import SequenceStudy
from cardiac_mtl.errors import UserError
from data_modules.cases import Case
from data_modules.findings import OnError, notice, refuse
from data_modules.masks import read_mask
from data_modules.nifti import write_nifti
from data_modules.readers import is_nifti

SEQUENCES: Final = ("LGE", "C0", "T2")
"""The target first, whose segmentation is asked for."""
TARGET: Final = "LGE"
WITHHELD: Final = ("withheld", "C0LET2_gt_for_challenge19")
"""Folders of references to score with, never to train on; the first is the one we write."""
VALUES: Final = {"LV blood pool": 500, "LV myocardium": 200, "RV blood pool": 600}
"""In the files, in the order of the classes 1, 2 and 3."""
LABELLED, WITH_SOURCES, PATIENTS = 5, 35, 45
"""Patients with references of all sequences, of C0 and T2, and all."""

_CLASSES = {value: number for number, value in enumerate(VALUES.values(), start=1)}
_NAME = re.compile(rf"patient(\d+)_({'|'.join(SEQUENCES)})(_manual)?(?i:\.nii(?:\.gz)?)")


class _Named(NamedTuple):
    """A file whose name is of this layout."""

    patient: int
    sequence: str
    is_mask: bool
    path: Path

    @property
    def case_id(self) -> str:
        return f"patient{self.patient}_{self.sequence}"


def find_cases(root: Path, on_error: OnError = refuse) -> list[Case]:
    """Find every volume, each with its own reference where the challenge gives it.

    Args:
        root: folder of the data set.
        on_error: what to do with a fault of one volume.

    Returns:
        By the number of the patient, then in the order of `SEQUENCES`. Patients without LGE are
        left out with a notice; so are masks without an image.

    Raises:
        UserError: the folder is absent or holds no patient with LGE; unless `on_error` does
            otherwise, two files are of one volume.
    """
    if not root.is_dir():
        raise UserError("no such folder", where=str(root), fix="check `data.root`")
    images: dict[int, dict[str, Path]] = defaultdict(dict)
    masks: dict[str, Path] = {}
    for file in _files(root):
        if _is_withheld(file.path, root):
            continue
        try:
            if file.is_mask:
                _keep(masks, file.case_id, file.path)
            else:
                _keep(images[file.patient], file.sequence, file.path)
        except UserError as error:
            on_error(error)
    cases = [
        case
        for number in sorted(images)
        for case in _cases_of_patient(number, images[number], masks)
    ]
    known = {case.case_id for case in cases}
    for case_id in masks.keys() - known:
        notice("mask_without_image", masks[case_id], "belongs to no image; left out")
    if not cases:
        raise UserError(
            f"no patient<N>_{TARGET}.nii.gz in it or below it",
            where=str(root),
            fix="give the folder of the data set",
        )
    return cases


def withheld_masks(root: Path) -> dict[str, Path]:
    """Find the references to score with, which `find_cases` leaves aside.

    Args:
        root: folder of the data set.

    Returns:
        File by case id, by the number of the patient; empty where there is none.

    Raises:
        UserError: two files are of one volume.
    """
    found: dict[str, Path] = {}
    for file in _files(root):
        if file.is_mask and _is_withheld(file.path, root):
            _keep(found, file.case_id, file.path)
    return found


def sequence_of(name: str) -> str | None:
    """Return the sequence that the name of a file tells, None where it is not of this layout.

    Examples:
        >>> sequence_of("patient7_C0.nii.gz"), sequence_of("visit2.nii.gz")
        ('C0', None)
    """
    found = _NAME.fullmatch(name)
    return found[2] if found else None


def read_labels(path: Path, image: sitk.Image) -> sitk.Image:
    """Read a reference.

    Args:
        path: of the mask.
        image: the volume that it belongs to.

    Returns:
        int16 on the grid of `image`: 0 background, 1 LV blood pool, 2 LV myocardium with its scar,
        3 RV blood pool.

    Raises:
        UserError: the file is absent or damaged, its geometry is another, a value is not of this
            data set.
    """
    return sitk.ChangeLabel(read_mask((path,), image, VALUES), _CLASSES)


def roles(patients: int) -> tuple[int, int]:
    """Return how many patients of a cohort have references: of all sequences, of C0 and T2.

    Args:
        patients: 5 and 35 of the 45 of the challenge. In small cohorts the first is up to half of
            them, rather than one in nine, which would leave none to validate with.
    """
    labelled = min(LABELLED, (patients + 1) // 2)
    return labelled, max(labelled, patients * WITH_SOURCES // PATIENTS)


def write_layout(
    root: Path,
    studies: Iterable[SequenceStudy],
    labelled: int = LABELLED,
    with_sources: int = WITH_SOURCES,
) -> None:
    """Write studies as the challenge lays them out; the inverse of `find_cases`.

    Args:
        root: folder to fill, with `truth.csv`, one row an exact value.
        studies: `patient<N>`, N from 1.
        labelled: references of LGE are given up to this patient, and withheld from there on.
        with_sources: the same of C0 and T2.
    """
    (root / WITHHELD[0]).mkdir(parents=True, exist_ok=True)
    with (root / "truth.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["patient_id", "name", "value"])
        for study in studies:
            number = int(study.patient_id.removeprefix("patient"))
            for sequence, volume in study.volumes.items():
                given = number <= (labelled if sequence == TARGET else with_sources)
                folder = root if given else root / WITHHELD[0]
                name = f"{study.patient_id}_{sequence}"
                labels = np.array([0, *VALUES.values()], np.int16)[volume.mask]
                write_nifti(root / f"{name}.nii.gz", volume.image, volume.affine)
                write_nifti(folder / f"{name}_manual.nii.gz", labels, volume.affine)
            writer.writerows((study.patient_id, *item) for item in study.truth.items())


def _files(root: Path) -> Iterator[_Named]:
    """Yield what is named as in this layout, by number of the patient; notice other images."""
    named = []
    for path in sorted(root.rglob("*")):
        if not is_nifti(path):
            continue
        if found := _NAME.fullmatch(path.name):
            named.append(_Named(int(found[1]), found[2], bool(found[3]), path))
        else:
            what = "is not named patient<N>_<LGE, C0 or T2>[_manual]; left out"
            notice("odd_name", path, what)
    yield from sorted(named)


def _is_withheld(path: Path, root: Path) -> bool:
    return not set(WITHHELD).isdisjoint(path.relative_to(root).parts)


def _keep(files: dict[str, Path], key: str, path: Path) -> None:
    if key in files:
        raise UserError(
            f"is of the same volume as {files[key]}",
            where=str(path),
            fix="keep one of them",
            code="doubled_case",
        )
    files[key] = path


def _cases_of_patient(
    number: int, images: dict[str, Path], masks: dict[str, Path]
) -> Iterator[Case]:
    """Yield the volumes of a patient; none without the sequence that is to be segmented."""
    patient = f"patient{number}"
    first = next(iter(images.values()), None)
    missing = [sequence for sequence in SEQUENCES if sequence not in images]
    if missing and first is not None:
        left_out = "; the patient is left out" if TARGET in missing else ""
        notice("missing_sequence", first, f"{patient} has no {' and no '.join(missing)}{left_out}")
    if TARGET in missing:
        return
    for sequence in SEQUENCES:
        case_id = f"{patient}_{sequence}"
        if sequence in images:
            yield Case(
                case_id=case_id,
                patient_id=patient,
                image=(images[sequence],),
                mask=(masks[case_id],) if case_id in masks else (),
                sequence=sequence,
            )
