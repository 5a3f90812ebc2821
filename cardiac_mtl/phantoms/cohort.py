"""Patients drawn at random: anatomy, disease, view, and the cine study of each."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cardiac_mtl.contracts import CineStudy
from cardiac_mtl.phantoms.heart import Array, Heart, contraction_curve
from cardiac_mtl.phantoms.infarct import Infarct, section_indices
from cardiac_mtl.phantoms.render import (
    TISSUES,
    Body,
    View,
    acquire,
    body_slice,
    bssfp,
    coil_shading,
    heart_slice,
    infarct_slice,
    label_slice,
    lv_centre,
    smooth_field,
)

# ranges of EDV in ml, EF in %, wall in mm: textbook groups of cine MR
GROUPS = {
    "normal": ((110, 180), (55, 68), (7.5, 10.0)),
    "heart_failure": ((190, 290), (18, 40), (7.0, 10.0)),
    "hypertrophy": ((90, 150), (60, 74), (13.0, 18.0)),
}
# of the infarct cohort: thick enough a wall that the depth of an infarct spans pixels
_INFARCT_GROUP = ((110, 180), (50, 65), (10.0, 12.0))
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
    names = list(GROUPS)
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
    heart, view = draw_heart(GROUPS[pathology], rng), draw_view(rng)
    depths, curve = draw_depths(heart, view, rng), contraction_curve(phases)
    return CineStudy(
        patient_id=patient_id,
        image=_render(heart, view, depths, curve, rng),
        mask=_masks(heart, view, depths, curve),
        affine=oblique_affine(view, rng),
        pathology=pathology,
        truth=_truth(heart, depths, curve),
    )


def make_infarct_cohort(patients: int, phases: int = 25, seed: int = 0) -> Iterator[CineStudy]:
    """Make cine studies of infarcted hearts, every fourth a control, one patient at a time.

    The matrix and the phases are those of Xu et al. (MuTGAN): 156 x 192 pixels of 1.77 mm, 25.

    Args:
        patients: how many; patient i is the same whatever their number.
        phases: T; phase 0 is end-diastole.
        seed: the same seed gives the same cohort.

    Returns:
        Studies with the mask of the infarct and its indices; pathologies `infarct` and `control`.
    """
    for number in range(patients):
        rng = np.random.default_rng([seed, number])
        pathology = "control" if number % 4 == 3 else "infarct"
        yield make_infarct_study(f"INF{number + 1:05d}01", pathology, phases, rng)


def make_infarct_study(
    patient_id: str, pathology: str, phases: int, rng: np.random.Generator
) -> CineStudy:
    """Draw and render one patient; a control is the same patient without the infarct.

    Args:
        patient_id: a pseudonym.
        pathology: `infarct` or `control`.
        phases: T.
        rng: random.

    Returns:
        Its `truth` has `infarct_<index>_<slice>`, one value, for each of `section_indices`; the
        closed-form volumes and areas of the others hold for controls alone.
    """
    heart, view = draw_heart(_INFARCT_GROUP, rng), draw_view(rng)
    shape = (156, 192)
    view = replace(view, shape=shape, spacing=(276 / shape[0], 340 / shape[1]))
    depths, curve = draw_depths(heart, view, rng), contraction_curve(phases)
    infarct = draw_infarct(heart, rng)
    if pathology == "control":
        infarct = replace(infarct, transmurality=0.0)
    return CineStudy(
        patient_id=patient_id,
        image=_render(heart, view, depths, curve, rng, infarct),
        mask=_masks(heart, view, depths, curve, infarct),
        affine=oblique_affine(view, rng),
        pathology=pathology,
        infarct=np.stack([infarct_slice(heart, view, z, infarct) for z in depths]),
        truth=(_truth(heart, depths, curve) if pathology == "control" else {})
        | _infarct_truth(heart, view, depths, infarct),
    )


def draw_heart(group: tuple[tuple[float, float], ...], rng: np.random.Generator) -> Heart:
    """Draw anatomy and function from a group's ranges of EDV in ml, EF in %, wall in mm."""
    volume, ejection, wall = (rng.uniform(*span) for span in group)
    return Heart(
        edv_ml=volume,
        ef_percent=ejection,
        wall_mm=wall,
        length_mm=58 * (volume / 140) ** 0.25 * rng.uniform(0.92, 1.08),
        descent_mm=rng.uniform(0.16, 0.24) * ejection,
        twist_deg=rng.uniform(8, 16),
        harmonics={k: (rng.uniform(0, 0.08 / k), rng.uniform(0, 2 * np.pi)) for k in (2, 3, 4)},
    )


def draw_view(rng: np.random.Generator) -> View:
    """Draw how a patient lies in a cine."""
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


def draw_body(rng: np.random.Generator) -> Body:
    """Draw how large and how fat a patient is.

    Fat on the heart: 4.4 +- 0.8 mm without and 6.9 +- 1.5 mm with coronary disease (Eroglu et al.,
    Nutr Metab Cardiovasc Dis 2009), a volume of 64 +- 29 ml in lean and 240 +- 140 ml in obese
    diabetic people (JCMR 2010, 12 S1 P268). Below the skin 8 to 45 mm, the trunk 10 % smaller or
    larger [inferred: a chest with more than 60 mm tells morbid obesity, Pol J Radiol 2018].
    """
    return Body(
        size=float(rng.uniform(0.9, 1.1)),
        skin_mm=float(rng.uniform(8, 45)),
        epicardial=float(rng.uniform(0.6, 2.0)),
    )


def draw_infarct(heart: Heart, rng: np.random.Generator) -> Infarct:
    """Draw an infarct, its share of the section first: a shallow one is wide for its size."""
    depth, share = rng.uniform(0.4, 1.0), rng.uniform(0.18, 0.6)
    endo, epi = (shell.radius for shell in heart.shells(0.0))
    edge = endo + depth * (epi - endo)
    within = (edge**2 - endo**2) / (epi**2 - endo**2)  # share of the wall, all the way round
    return Infarct(
        centre_deg=float(rng.uniform(-180, 180)),
        half_deg=float(np.clip(180 * share / within, 25, 90)),
        centre_mm=float(rng.uniform(0.4, 0.9)) * heart.length_mm,
        half_mm=float(rng.uniform(11, 22)),
        transmurality=depth,
        ragged=float(rng.uniform(0.0, 0.2)),
        phase=float(rng.uniform(0, 2 * np.pi)),
        border=float(rng.uniform(0.2, 0.35)),
    )


def draw_depths(heart: Heart, view: View, rng: np.random.Generator) -> Array:
    """Return z of the mid-planes (S,): the base lies before, or within, slice 0."""
    first = rng.uniform(-0.9, 0.1) * view.thickness
    reach = heart.shells(0.0)[1].centre + heart.shells(0.0)[1].length
    return np.arange(first, reach + rng.uniform(-0.2, 1.2) * view.thickness, view.thickness)


def _masks(
    heart: Heart, view: View, depths: Array, curve: Array, infarct: Infarct | None = None
) -> NDArray[np.uint8]:
    """Return (T, S, H, W)."""
    return np.stack([[label_slice(heart, view, z, s, infarct) for z in depths] for s in curve])


def _render(
    heart: Heart,
    view: View,
    depths: Array,
    curve: Array,
    rng: np.random.Generator,
    infarct: Infarct | None = None,
) -> NDArray[np.uint16]:
    """Return uint16 (T, S, H, W)."""
    shading = coil_shading(view, rng)
    frames = np.empty((len(curve), len(depths), *view.shape))
    for k, z in enumerate(depths):
        background = body_slice(view, float(z), rng)
        textures = np.stack([smooth_field(view.shape, scale, rng) for scale in (1.5, 4.0)])
        for t, contraction in enumerate(curve):
            frames[t, k] = heart_slice(
                heart, view, float(z), contraction, background, textures, infarct
            )
    blood = bssfp(TISSUES["blood"])
    noisy = acquire(frames * shading, blood / rng.uniform(18, 32), rng)
    return np.clip(noisy / blood * rng.uniform(350, 700), 0, 4095).astype(np.uint16)


def oblique_affine(view: View, rng: np.random.Generator) -> Array:
    """Draw voxel (column, row, slice) to LPS mm of an oblique short axis."""
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


def _infarct_truth(
    heart: Heart, view: View, depths: Array, infarct: Infarct
) -> dict[str, list[float]]:
    return {
        f"infarct_{name}_{k}": [value]
        for k, z in enumerate(depths)
        for name, value in section_indices(
            heart, infarct, float(z), lv_centre(view, float(z)), view.septum_deg
        ).items()
    }
