"""Patients drawn at random: anatomy, disease, view, and the cine study of each."""

from collections.abc import Iterator

import numpy as np

from cardiac_mtl.contracts import CineStudy
from cardiac_mtl.phantoms.heart import Array, Heart, contraction_curve
from cardiac_mtl.phantoms.render import (
    TISSUES,
    View,
    acquire,
    body_slice,
    bssfp,
    coil_shading,
    heart_slice,
    label_slice,
    smooth_field,
)

# ranges of EDV in ml, EF in %, wall in mm: textbook groups of cine MR
_GROUPS = {
    "normal": ((110, 180), (55, 68), (7.5, 10.0)),
    "heart_failure": ((190, 290), (18, 40), (7.0, 10.0)),
    "hypertrophy": ((90, 150), (60, 74), (13.0, 18.0)),
}
_MATRICES = ((256, 256), (208, 256), (224, 192), (256, 216))


def make_cohort(patients: int, phases: int = 20, seed: int = 0) -> Iterator[CineStudy]:
    """Make short-axis cine studies, one patient at a time.

    Args:
        patients: how many; patient i is the same whatever their number.
        phases: T; phase 0 is end-diastole.
        seed: the same seed gives the same cohort.

    Returns:
        Studies with closed-form truth; pathologies in turn.
    """
    names = list(_GROUPS)
    for number in range(patients):
        rng = np.random.default_rng([seed, number])
        pathology = names[number % len(names)]
        yield make_study(f"DET{number + 1:05d}01", pathology, phases, rng)


def make_study(patient_id: str, pathology: str, phases: int, rng: np.random.Generator) -> CineStudy:
    """Draw and render one patient.

    Args:
        patient_id: a pseudonym.
        pathology: `normal`, `heart_failure` or `hypertrophy`.
        phases: T.
        rng: random.
    """
    heart, view = _draw_heart(pathology, rng), _draw_view(rng)
    first = rng.uniform(-0.9, 0.1) * view.thickness  # the base lies before, or within, slice 0
    reach = heart.shells(0.0)[1].centre + heart.shells(0.0)[1].length
    depths = np.arange(first, reach + rng.uniform(-0.2, 1.2) * view.thickness, view.thickness)
    curve = contraction_curve(phases)
    mask = np.stack([[label_slice(heart, view, z, s) for z in depths] for s in curve])
    image = _render(heart, view, depths, curve, rng)
    return CineStudy(
        patient_id=patient_id,
        image=image,
        mask=mask,
        affine=_affine(view, rng),
        pathology=pathology,
        truth=_truth(heart, depths, curve),
    )


def _draw_heart(pathology: str, rng: np.random.Generator) -> Heart:
    volume, ejection, wall = (rng.uniform(*span) for span in _GROUPS[pathology])
    return Heart(
        edv_ml=volume,
        ef_percent=ejection,
        wall_mm=wall,
        length_mm=58 * (volume / 140) ** 0.25 * rng.uniform(0.92, 1.08),
        descent_mm=rng.uniform(0.16, 0.24) * ejection,
        twist_deg=rng.uniform(8, 16),
        harmonics={k: (rng.uniform(0, 0.08 / k), rng.uniform(0, 2 * np.pi)) for k in (2, 3, 4)},
    )


def _draw_view(rng: np.random.Generator) -> View:
    shape = _MATRICES[rng.integers(len(_MATRICES))]
    spacing = float(rng.uniform(300, 360) / max(shape))
    return View(
        shape=shape,
        spacing=(spacing, spacing),
        thickness=float(rng.choice([8.0, 9.0, 10.0])),
        centre=(float(rng.normal(0, 8)), float(rng.normal(6, 8))),
        drift=(float(rng.normal(0.03, 0.05)), float(rng.normal(0.05, 0.05))),
        septum_deg=float(rng.normal(200, 14)),
    )


def _render(
    heart: Heart, view: View, depths: Array, curve: Array, rng: np.random.Generator
) -> np.ndarray[tuple[int, ...], np.dtype[np.uint16]]:
    """Return uint16 (T, S, H, W)."""
    shading = coil_shading(view, rng)
    frames = np.empty((len(curve), len(depths), *view.shape))
    for k, z in enumerate(depths):
        background = body_slice(view, float(z), rng)
        textures = np.stack([smooth_field(view.shape, scale, rng) for scale in (1.5, 4.0)])
        for t, contraction in enumerate(curve):
            frames[t, k] = heart_slice(heart, view, float(z), contraction, background, textures)
    blood = bssfp(TISSUES["blood"])
    noisy = acquire(frames * shading, blood / rng.uniform(18, 32), rng)
    return np.clip(noisy / blood * rng.uniform(350, 700), 0, 4095).astype(np.uint16)


def _affine(view: View, rng: np.random.Generator) -> Array:
    """Return voxel (column, row, slice) to LPS mm of an oblique short axis."""
    normal = np.array([0.62, -0.52, -0.59]) + rng.normal(0, 0.06, 3)  # left, forward, down
    normal /= np.linalg.norm(normal)
    row_axis = np.cross(normal, [0.25, 0.35, -0.9])
    row_axis /= np.linalg.norm(row_axis)
    affine = np.eye(4)
    affine[:3, 0] = row_axis * view.spacing[1]
    affine[:3, 1] = np.cross(normal, row_axis) * view.spacing[0]
    affine[:3, 2] = normal * view.thickness
    centre = np.array([20.0, -30.0, 10.0]) + rng.normal(0, 15, 3)
    half = [(view.shape[1] - 1) / 2, (view.shape[0] - 1) / 2, 0]
    affine[:3, 3] = centre - affine[:3, :3] @ half
    return affine


def _truth(heart: Heart, depths: Array, curve: Array) -> dict[str, list[float]]:
    areas = {
        f"area_mm2_{k}": [float(heart.myocardial_area(float(z), s)) for s in curve]
        for k, z in enumerate(depths)
    }
    return {
        "cavity_ml": [heart.cavity_ml(s) for s in curve],
        "myocardium_ml": [heart.myocardium_ml] * len(curve),
        "ef_percent": [heart.ef_percent] * len(curve),
        **areas,
    }
