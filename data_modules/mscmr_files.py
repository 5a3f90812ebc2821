"""STAND-IN of the branch that writes this file: take that one. It finds files, no more."""

import re
from dataclasses import replace
from pathlib import Path

import SimpleITK as sitk

from data_modules.cases import Case
from data_modules.findings import OnError, refuse
from data_modules.readers import read_mask

TARGET = "LGE"
_VOLUME = re.compile(r"(patient\d+)_(LGE|C0|T2)\.nii\.gz")
_VALUES = {1: 500, 2: 200, 3: 600}


def find_cases(root: Path, on_error: OnError = refuse) -> list[Case]:  # noqa: ARG001 - stand-in
    """Return one case a volume."""
    found = []
    for path in sorted(root.glob("patient*.nii.gz")):
        if named := _VOLUME.fullmatch(path.name):
            case = Case(f"{named[1]}_{named[2]}", named[1], (path,), sequence=named[2])
            mask = path.with_name(f"{case.case_id}_manual.nii.gz")
            found.append(replace(case, mask=(mask,)) if mask.is_file() else case)
    return found


def withheld_masks(root: Path) -> dict[str, Path]:
    """Return the withheld mask of each case that has one."""
    paths = sorted((root / "withheld").glob("*_LGE_manual.nii.gz"))
    return {path.name.removesuffix("_manual.nii.gz"): path for path in paths}


def read_labels(path: Path, image: sitk.Image) -> sitk.Image:
    """Return classes 1 to 3."""
    read = read_mask((path,), image, {str(value): value for value in _VALUES.values()})
    return sitk.ChangeLabel(read, {value: k for k, value in _VALUES.items()})
