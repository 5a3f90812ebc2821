"""What flows between data modules, papers and evaluation. Imports torch, numpy and nothing of ours.

B batch, C channels, S slices, H rows, W columns, T phases, K classes or indices. Lengths in mm.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypedDict

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import NotRequired

UNLABELLED: Final = -1
"""Value of `mask` pixels and of `label` where nothing is known; `indices` use NaN."""


HONEST: Final = "honest"
OPTIMISTIC: Final = "paper_optimistic"
EXTERNAL: Final = "external"
"""How a checkpoint was chosen: without test patients, on test patients as some papers did, or
by another tool, which we cannot vouch for."""


class Batch(TypedDict):
    """One batch on one device. Every key is there; any target may be missing for any sample."""

    image: Tensor
    """float32 (B, C, H, W), or (B, C, T, H, W) for cine."""
    spacing: Tensor
    """float32 (B, 3), distance between slices, rows and columns in mm."""
    case: Tensor
    """int64 (B,), row of the case table."""
    slice: Tensor
    """int64 (B,), slice within the volume, base to apex."""
    mask: Tensor
    """int64 (B, H, W), `UNLABELLED` where not annotated."""
    indices: Tensor
    """float32 (B, K), physical units, NaN where missing."""
    label: Tensor
    """int64 (B,), `UNLABELLED` where missing."""
    transferred: Tensor
    """bool (B,), True where the mask was carried over from another sequence of the patient."""
    sample: Tensor
    """int64 (B,), place in the data set of its part, copies counted apart; seeds its chance."""
    position: NotRequired[Tensor]
    """int64 (B,), slices of the store: what a loader gives in place of image and mask where they
    are on the device already. It is gone once the batch is there."""


class Prediction(TypedDict, total=False):
    """What a paper predicts; only the keys it has."""

    mask_prob: Tensor
    """float32 (B, K, H, W), background first, sums to one over K."""
    indices: Tensor
    """float32 (B, K), physical units."""
    label_prob: Tensor
    """float32 (B, K), sums to one over K."""


def label_of_area(labels: Iterable[str]) -> str:
    """Return the label that the index `area_mm2` measures: the myocardium, else the first.

    Examples:
        >>> label_of_area(["rv", "myocardium", "lv"]), label_of_area(["infarct"])
        ('myocardium', 'infarct')
    """
    names = list(labels)
    return "myocardium" if "myocardium" in names else names[0]


class TargetScale(NamedTuple):
    """Mean and SD of each index over the training patients, which standardise its targets."""

    mean: Tensor
    """float32 (K,)."""
    sd: Tensor
    """float32 (K,), above 0."""


@dataclass(frozen=True)
class CineStudy:
    """One short-axis cine study in memory: what the phantoms make and the data modules write."""

    patient_id: str
    """A pseudonym, such as `DET0000101`."""
    image: NDArray[np.uint16]
    """(T, S, H, W), slices base to apex."""
    mask: NDArray[np.uint8]
    """(T, S, H, W): 0 background, 1 LV myocardium, 2 LV blood pool, 3 RV blood pool."""
    affine: NDArray[np.floating[Any]]
    """(4, 4), voxel (column, row, slice) to LPS millimetres, as DICOM and SimpleITK have it."""
    pathology: str = ""
    infarct: NDArray[np.uint8] | None = None
    """(S, H, W), 1 where the myocardium of phase 0 is infarcted; None where nobody looked."""
    truth: dict[str, list[float]] = field(default_factory=dict)
    """Exact values, one a phase: `cavity_ml`, `myocardium_ml`, `area_mm2_<slice>` and, of phase 0
    alone, `infarct_<index>_<slice>`; each only where it is known."""


@dataclass(frozen=True)
class SequenceVolume:
    """One volume of one sequence of a patient."""

    image: NDArray[np.int16]
    """(S, H, W), slices base to apex."""
    mask: NDArray[np.uint8]
    """(S, H, W), classes of `SequenceStudy`."""
    affine: NDArray[np.floating[Any]]
    """(4, 4), as of `CineStudy`."""


@dataclass(frozen=True)
class SequenceStudy:
    """The same heart seen by several sequences, each in a geometry of its own.

    Masks hold 0 background, 1 LV blood pool, 2 LV myocardium with its scar, 3 RV blood pool.
    """

    patient_id: str
    volumes: dict[str, SequenceVolume]
    """By name of the sequence: `LGE`, `C0` (bSSFP) and `T2`."""
    truth: dict[str, float] = field(default_factory=dict)
    """Exact values of the heart, such as volumes in ml; each only where it is known."""


@dataclass(frozen=True)
class T1Study:
    """The native T1 maps of one patient."""

    patient_id: str
    image: NDArray[np.uint16]
    """(S, H, W), T1 in ms, slices base to apex; 0 where nothing could be fitted."""
    mask: NDArray[np.uint8]
    """(S, H, W), 1 in the LV myocardium."""
    affine: NDArray[np.floating[Any]]
    """(4, 4), as of `CineStudy`."""
    label: int
    """0 healthy, 1 diseased."""
    pathology: str = ""
    truth: dict[str, float] = field(default_factory=dict)
    """Exact values, such as `t1_ms`, the mean T1 of healthy wall; each only where it is known."""
