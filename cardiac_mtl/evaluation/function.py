"""Function of the heart: volumes at ED and ES, ejection fraction, mass, wall thickness.

A chamber is what its label holds, or what a ring of myocardium encloses where the masks have no
label for the cavity. Phases are found by the volumes themselves, those of the prediction by the
prediction: nobody has a reference in the clinic.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cardiac_mtl.evaluation.collect import CollectedCase
from cardiac_mtl.evaluation.phases import name_phases
from cardiac_mtl.metrics.clinical import Function, flags, function, wall_thickness
from cardiac_mtl.metrics.surface import bounding_box
from cardiac_mtl.postprocessing import cavity

_CAVITY = {
    "lv": ("lv", "cavity", "blood_pool", "lv_cavity", "lv_blood_pool", "lvbp"),
    "rv": ("rv", "rv_cavity", "rv_blood_pool", "rvbp"),
}
MYOCARDIUM = ("myocardium", "myo", "lv_myocardium", "lvm", "lv_myo")
"""Names under which data sets have the muscle of the left ventricle."""

CHAMBER_COLUMNS = [
    "case_id",
    "patient_id",
    "phase",
    "pathology",
    "centre",
    "vendor",
    "chamber",
    "slices_annotated",
    "ml",
    "reference_ml",
    "myocardium_ml",
    "reference_myocardium_ml",
    "wall_mm",
    "reference_wall_mm",
]
_FUNCTION = [*Function._fields, "ed_wall_mm", "ed_phase", "es_phase", "flags"]
PATIENT_COLUMNS = [
    "patient_id",
    "pathology",
    "centre",
    "vendor",
    "chamber",
    "phases",
    *_FUNCTION,
    *(f"reference_{name}" for name in _FUNCTION),
]

Row = dict[str, Any]


def chambers_of(
    case: CollectedCase, known: NDArray[np.bool_], labels: Mapping[str, int]
) -> list[Row]:
    """Measure the chambers of one volume, ml, and the wall of the left one, mm.

    Args:
        case: collected and post-processed.
        known: (S,), slices that are annotated.
        labels: value of each class in the masks.

    Returns:
        One row for each chamber that the labels tell of.
    """
    lower = {name.lower(): value for name, value in labels.items()}
    muscle = next((lower[name] for name in MYOCARDIUM if name in lower), None)
    rows = []
    for chamber, names in _CAVITY.items():
        blood = next((lower[name] for name in names if name in lower), None)
        wall = muscle if chamber == "lv" else None
        if blood is None and wall is None:
            continue
        row: Row = {"chamber": chamber, "slices_annotated": int(known.sum())}
        for prefix, mask in (("", case.predicted), ("reference_", case.reference)):
            measured = _chamber(None if mask is None else mask[known], blood, wall, case.spacing)
            row |= {f"{prefix}{name}": value for name, value in measured.items()}
        rows.append(row)
    return rows


def patient_rows(heart: pd.DataFrame) -> pd.DataFrame:
    """Turn the chambers of all volumes into one row a patient and chamber.

    Args:
        heart: `CHAMBER_COLUMNS`.

    Returns:
        `PATIENT_COLUMNS`; no row for a patient of whom a single phase without a name is known,
        or whose phases have one name.
    """
    rows = []
    for (patient, chamber), phases in heart.groupby(["patient_id", "chamber"], sort=False):
        named = phases["phase"].isin(["ED", "ES"]).any()
        if phases["phase"].duplicated().any() or (len(phases) < 2 and not named):
            continue  # several sequences, or a phase that nobody has named
        first = phases.iloc[0]
        row: Row = {"patient_id": patient, "chamber": chamber, "phases": len(phases)}
        row |= {key: first[key] for key in ("pathology", "centre", "vendor")}
        true = _function(phases, "reference_")
        row |= _function(phases, "", (true["ed_phase"], true["es_phase"]))
        row |= {f"reference_{name}": value for name, value in true.items()}
        rows.append(row)
    return pd.DataFrame(rows, columns=PATIENT_COLUMNS)


def without_function(cases: pd.DataFrame) -> str:
    """Say of how many patients a phase comes several times, as where they were seen twice.

    Nobody can tell which ED belongs to which ES: `patient_rows` leaves these patients out.

    Args:
        cases: rows of `cases.csv`.

    Returns:
        A sentence without its end; empty where each phase comes once, or none has a name.
    """
    volumes = cases.drop_duplicates("case_id")
    named = volumes[volumes["phase"].notna() & (volumes["phase"] != "")]
    twice = named.loc[named.duplicated(["patient_id", "phase"]), "patient_id"]
    if twice.empty:
        return ""
    return (
        f"of {twice.nunique()} of {volumes['patient_id'].nunique()} patients a phase comes several "
        "times, as of several visits or sequences; they have no ejection fraction or mass"
    )


def _chamber(
    mask: NDArray[np.integer[Any]] | None,
    blood: int | None,
    muscle: int | None,
    spacing: tuple[float, float, float],
) -> dict[str, float]:
    names = ("ml", "myocardium_ml", "wall_mm")
    if mask is None:
        return dict.fromkeys(names, math.nan)
    voxel_ml = float(np.prod(spacing)) / 1000
    if mask.max(initial=0) > 0:  # far fewer pixels, and the same heart
        mask = mask[(slice(None), *bounding_box(mask > 0)[1:])]
    wall = None if muscle is None else mask == muscle
    held = cavity(wall) if blood is None and wall is not None else mask == blood
    return {
        "ml": float(held.sum()) * voxel_ml,
        "myocardium_ml": math.nan if wall is None else float(wall.sum()) * voxel_ml,
        "wall_mm": math.nan if wall is None else _wall(wall, spacing[1:]),
    }


def _wall(myocardium: NDArray[np.bool_], spacing: tuple[float, float]) -> float:
    """Return the mean thickness over the slices whose ring is closed; NaN without one."""
    found = [wall_thickness(ring, spacing).mean_mm for ring in myocardium if ring.any()]
    closed = [value for value in found if not math.isnan(value)]
    return math.fsum(closed) / len(closed) if closed else math.nan


def _function(phases: pd.DataFrame, prefix: str, otherwise: tuple[str, str] = ("", "")) -> Row:
    """Return the function by the volumes of one side, prediction or reference.

    Args:
        phases: of one patient and chamber.
        prefix: of the columns of that side.
        otherwise: ED and ES where the volumes do not tell: a prediction without any cavity has
            missed that of the reference, and must not drop out.
    """
    columns = {
        name: dict(
            zip(phases["phase"].astype(str), phases[f"{prefix}{name}"].tolist(), strict=True)
        )
        for name in ("ml", "myocardium_ml", "wall_mm")
    }
    names = name_phases(columns["ml"])
    lacking = sum(math.isnan(volume) for volume in columns["ml"].values())
    told = [f"{lacking} of {len(names)} phases not predicted"] if 0 < lacking < len(names) else []
    # any phase that is lacking may be the largest or the smallest, unless they have names
    if lacking == len(names) or (lacking and not {"ED", "ES"} & set(names)):
        unknown = {"ed_phase": "", "es_phase": "", "flags": "; ".join(told)}
        return dict.fromkeys(_FUNCTION, math.nan) | unknown
    ed, es = (
        next((phase for phase, name in names.items() if name == wanted), other)
        for wanted, other in zip(("ED", "ES"), otherwise, strict=True)
    )

    def at(phase: str, column: str) -> float:
        return columns[column].get(phase, math.nan)

    measured = function(at(ed, "ml"), at(es, "ml"), at(ed, "myocardium_ml"))
    # a phase that the data set has not cannot be held against a prediction, nor can the muscle of
    # a chamber whose muscle nobody draws
    found = told + [flag for flag in flags(measured) if "missing" not in flag]
    annotated = dict(zip(phases["phase"].astype(str), phases["slices_annotated"], strict=True))
    seen = [annotated[phase] for phase in (ed, es) if phase]
    if len(set(seen)) > 1:  # a slice less makes a cavity smaller than the heart does
        found.append(f"{seen[0]} and {seen[1]} slices annotated at ED and ES")
    return {
        **measured._asdict(),
        "ed_wall_mm": at(ed, "wall_mm"),
        "ed_phase": ed,
        "es_phase": es,
        "flags": "; ".join(found),
    }
