"""Cases to look at: the best, the median and the worst, kept as small windows around the heart."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cardiac_mtl.contracts import UNLABELLED
from cardiac_mtl.evaluation.collect import CollectedCase
from cardiac_mtl.evaluation.function import without_function
from cardiac_mtl.files import whole
from cardiac_mtl.metrics.surface import bounding_box

FOLDER = "gallery"
MARGIN_MM = 20.0
FIRST = 4
"""Patients that every method keeps, as many as Fig. 4 of weak transfer shows."""
SMALLEST_MM = 90.0
"""Side of a window: around a small infarct one still sees the heart."""


@dataclass(frozen=True)
class Window:
    """One volume, cut to the heart."""

    image: NDArray[np.uint8]
    """(T, S, h, w), one phase unless the volume is a whole cine."""
    reference: NDArray[np.int8]
    """(S, h, w), -1 where a slice is not annotated."""
    predicted: NDArray[np.uint8]
    """(S, h, w)."""
    spacing: NDArray[np.float32]
    """Distance between slices, rows and columns in mm."""


def mean_dice(cases: pd.DataFrame) -> pd.Series:
    """Return the Dice of each case, averaged over labels; a case without any is left out."""
    return cases.groupby("case_id", sort=False)["dice"].mean().dropna()


def choose(cases: pd.DataFrame) -> dict[str, str]:
    """Choose the cases to show.

    Args:
        cases: rows of `cases.csv`, of one method.

    Returns:
        `best`, `median` and `worst` to their case ids; fewer where there are fewer cases.
    """
    ordered = mean_dice(cases).sort_values(ascending=False, kind="stable")
    places = {"best": 0, "median": (len(ordered) - 1) // 2, "worst": len(ordered) - 1}
    chosen: dict[str, str] = {}
    for name, place in places.items():
        if len(ordered) and str(ordered.index[place]) not in chosen.values():
            chosen[name] = str(ordered.index[place])
    return chosen


def to_keep(cases: pd.DataFrame) -> list[str]:
    """Return all cases of the patients of the chosen ones: their cines play.

    Where there are several labels, or one volume a patient, those of the first patients too, the
    same for every method: methods are put side by side on them.
    """
    patients = set(cases.loc[cases["case_id"].isin(choose(cases).values()), "patient_id"])
    one_each = cases["case_id"].nunique() == cases["patient_id"].nunique()
    if one_each or len(cases["label"].unique()) > 1:
        patients |= set(sorted(cases["patient_id"].unique())[:FIRST])
    return cases.loc[cases["patient_id"].isin(patients), "case_id"].unique().tolist()


def keep(folder: Path, phases: Sequence[tuple[str, CollectedCase]]) -> None:
    """Write the volumes of one patient, all cut by one window.

    Args:
        folder: `gallery`, which exists.
        phases: case id and volume, with image and predicted mask.
    """
    shown = [(name, case) for name, case in phases if case.predicted is not None]
    if not shown:
        return
    # sequences and phases of one matrix share their window, so that a cine does not jump
    by_shape: dict[tuple[int, ...], list[tuple[str, CollectedCase]]] = {}
    for name, case in shown:
        by_shape.setdefault(case.reference.shape[1:], []).append((name, case))
    for alike in by_shape.values():
        rows, columns = _window([case for _, case in alike])
        for name, case in alike:
            with whole(folder / f"{name}.npz") as temporary:
                np.savez_compressed(
                    temporary,
                    image=grey(_phases_of(case)[..., rows, columns]),
                    reference=case.reference[:, rows, columns],
                    predicted=np.asarray(case.predicted)[:, rows, columns],
                    spacing=np.asarray(case.spacing, dtype=np.float32),
                )


def read(path: Path) -> Window:
    """Read what `keep` wrote."""
    with np.load(path, allow_pickle=False) as found:
        image = found["image"]  # earlier versions kept (S, h, w)
        image = image if image.ndim == 4 else image[None]
        return Window(image, found["reference"], found["predicted"], found["spacing"])


def _window(cases: Sequence[CollectedCase]) -> tuple[slice, slice]:
    inside = np.logical_or.reduce(
        [
            np.logical_or((c.reference > 0).any(axis=0), (np.asarray(c.predicted) > 0).any(axis=0))
            for c in cases
        ]
    )
    if not inside.any():
        return slice(None), slice(None)
    rows, columns = (
        _around(found, length, mm)
        for found, length, mm in zip(
            bounding_box(inside), inside.shape, cases[0].spacing[1:], strict=True
        )
    )
    return rows, columns


def _around(found: slice, length: int, mm: float) -> slice:
    """Widen a range of rows or columns by the margin, and to the smallest side."""
    lacking = (SMALLEST_MM / mm - (found.stop - found.start)) / 2
    margin = round(max(MARGIN_MM / mm, lacking))
    return slice(max(0, found.start - margin), min(length, found.stop + margin))


def _phases_of(case: CollectedCase) -> NDArray[np.float32]:
    phases = case.image[None] if case.frames is None else case.frames
    return phases.astype(np.float32)


def grey(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Map an image or cine of any unit and shape to 0..255, the darkest and brightest 1 % cut."""
    low, high = np.percentile(image, [1, 99])
    return (255 * ((image - low) / max(high - low, 1e-6)).clip(0, 1)).astype(np.uint8)


def write_gallery(
    folder: Path, rows: pd.DataFrame, volumes: Iterable[tuple[str, CollectedCase]]
) -> None:
    """Keep the cases worth looking at.

    Args:
        folder: made where it is absent; what an earlier evaluation left there goes.
        rows: of `cases.csv`.
        volumes: case id and volume of at least the cases of `to_keep`.
    """
    wanted = set(to_keep(rows))
    by_patient: dict[str, list[tuple[str, CollectedCase]]] = {}
    patient_of = dict(zip(rows["case_id"], rows["patient_id"], strict=True))
    for name, case in volumes:
        if name in wanted:
            by_patient.setdefault(patient_of[name], []).append((name, case))
    if not by_patient:
        return
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.npz"):
        old.unlink()
    for phases in by_patient.values():
        keep(folder, phases)


def of_patient(
    case_id: str, rows: pd.DataFrame, files: Mapping[str, Path]
) -> list[tuple[dict[str, Any], Window]]:
    """Read what was kept of the patient of a case, one window a phase or sequence.

    Args:
        case_id: of a case that was kept.
        rows: of `cases.csv`.
        files: of the gallery, by case id.

    Returns:
        Row and window of each volume whose window has the shape of that of the case; of the case
        alone where phases come several times: those of two visits are no beat.
    """
    kept = rows[rows["case_id"].isin(list(files))]
    patient = kept.loc[kept["case_id"] == case_id, "patient_id"].iloc[0]
    volumes = kept[kept["patient_id"] == patient].drop_duplicates("case_id")
    if without_function(volumes):
        volumes = volumes[volumes["case_id"] == case_id]
    windows = [
        ({str(key): value for key, value in row.items()}, read(files[row["case_id"]]))
        for row in volumes.to_dict("records")
    ]
    shape = next(w.image.shape[1:] for row, w in windows if row["case_id"] == case_id)
    return [(row, window) for row, window in windows if window.image.shape[1:] == shape]


def fullest(window: Window) -> int:
    """Return the slice of which the masks hold most."""
    return int(((window.reference > 0) | (window.predicted > 0)).sum(axis=(1, 2)).argmax())


def annotated(window: Window) -> NDArray[np.bool_]:
    """Return which slices (S,) of a window have a reference."""
    known: NDArray[np.bool_] = (window.reference != UNLABELLED).any(axis=(1, 2))
    return known
