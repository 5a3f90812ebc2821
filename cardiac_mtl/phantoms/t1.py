"""Native T1 maps of healthy and fibrotic hearts: tissues, a MOLLI acquisition, its fit.

Every tissue relaxes by itself; pixels on a border hold the mean of what lies in them, so that their
T1 is what a fit makes of a mixture. Nothing but T1 tells a diseased heart from a healthy one.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cardiac_mtl.contracts import T1Study
from cardiac_mtl.phantoms.cohort import GROUPS, draw_heart, draw_view, oblique_affine
from cardiac_mtl.phantoms.heart import Array, Heart
from cardiac_mtl.phantoms.infarct import walls
from cardiac_mtl.phantoms.molli import fit_t1, inversion_times, recovery
from cardiac_mtl.phantoms.render import (
    SUB_SLICES,
    View,
    acquire,
    coil_shading,
    heart_box,
    label_slice,
    plane,
    smooth_field,
)

FINE: Final = 2
"""Pixels of the anatomy along each side of one of the image."""
LARGEST_MS: Final = 4000
"""What a map can hold."""
MATRIX: Final = (256, 218)
PIXEL_MM: Final = (1.172, 1.406)
"""Rows and columns, and range of the spacing, of the images of Peng et al."""
PATHOLOGIES: Final = ("diffuse_fibrosis", "focal_fibrosis")
"""Of the diseased, in turn."""

Tissues = NDArray[np.uint8]
"""Number in `TISSUES` of every pixel of an anatomy."""


class Tissue(NamedTuple):
    """T1 in ms at 1.5 and 3 T, its relative SD between patients, and the proton density."""

    at_1_5_t: float
    at_3_t: float
    spread: float
    density: float


TISSUES: Final = {
    "air": Tissue(1000, 1000, 0.0, 0.0),
    "fat": Tissue(343, 382, 0.04, 0.85),
    "muscle": Tissue(856, 898, 0.04, 0.75),
    "lung": Tissue(1150, 1250, 0.05, 0.06),
    "liver": Tissue(586, 809, 0.07, 0.75),
    "spleen": Tissue(1057, 1328, 0.03, 0.78),
    "marrow": Tissue(549, 586, 0.08, 0.55),
    "blood": Tissue(1441, 1932, 0.05, 0.95),
    "myocardium": Tissue(996, 1184, 0.031, 0.80),
    "lesion": Tissue(996, 1184, 0.0, 0.82),
}
"""Myocardium: MOLLI 5(3)3 in 60 healthy volunteers, 996 +- 31 ms at 1.5 T and 1184 +- 38 at 3 T
(Granitz et al., Wien Klin Wochenschr 2019). Blood: Stanisz et al., MRM 2005. Fat, muscle, liver,
spleen, marrow: de Bazelaire et al., Radiology 2004. Lung and densities [inferred]."""
_NUMBER: Final = {name: number for number, name in enumerate(TISSUES)}


@dataclass(frozen=True)
class Fibrosis:
    """What a disease does to the wall, in ms; healthy without anything.

    Args:
        diffuse_ms: by which the T1 of the whole wall is raised.
        focal_ms: by which that of a patch is raised further.
        centre_deg: angle of the centre of the patch from the septum.
        half_deg: half its angular size.
        depth: shares of the wall, from the endocardium, between which it lies.
    """

    diffuse_ms: float = 0.0
    focal_ms: float = 0.0
    centre_deg: float = 0.0
    half_deg: float = 0.0
    depth: tuple[float, float] = (0.0, 1.0)


def make_t1_cohort(
    patients: int,
    seed: int = 0,
    diseased: float = 0.12,
    tesla: float = 3.0,
    scale: int = 1,
) -> Iterator[T1Study]:
    """Make native T1 maps, one patient at a time.

    Args:
        patients: how many; patient i is the same whatever their number.
        seed: the same seed gives the same cohort.
        diseased: share of the diseased; of the first n patients it is n times this, rounded, for
            every n [paper: 77 of 654 images].
        tesla: 1.5 or 3.
        scale: divides the matrix; pixels are larger by as much.

    Returns:
        Studies of one to three slices; half of the diseased have a diffuse fibrosis, half a focal.
    """
    for number in range(patients):
        rng = np.random.default_rng([seed, number])
        before, after = (math.floor(n * diseased + 0.5) for n in (number, number + 1))
        pathology = PATHOLOGIES[before % 2] if after > before else "healthy"
        yield make_t1_study(f"T1M{number + 1:05d}01", pathology, tesla, scale, rng)


def make_t1_study(
    patient_id: str,
    pathology: str,
    tesla: float,
    scale: int,
    rng: np.random.Generator,
) -> T1Study:
    """Draw and render one patient, at rest in diastole.

    Args:
        patient_id: a pseudonym.
        pathology: `healthy` or one of `PATHOLOGIES`.
        tesla: 1.5 or 3.
        scale: divides the matrix.
        rng: random.
    """
    heart, view = draw_heart(GROUPS["normal"], rng), _draw_view(scale, rng)
    t1 = _draw_t1(tesla, rng)
    fibrosis = _draw_fibrosis(pathology, rng)
    t1["myocardium"] += fibrosis.diffuse_ms
    t1["lesion"] = t1["myocardium"] + fibrosis.focal_ms
    contraction = float(rng.uniform(0.0, 0.15))
    count, step = int(rng.integers(1, 4)), 0.3 * heart.length_mm
    depths = 0.6 * heart.length_mm + step * (np.arange(count) - (count - 1) / 2)
    affine = oblique_affine(replace(view, thickness=step), rng)
    beat_ms, shading = 60000 / rng.uniform(52, 88), coil_shading(view, rng)
    noise = rng.uniform(0.014, 0.024)
    maps = []
    for z in depths:
        shares = _shares(heart, view, float(z), contraction, fibrosis, rng)
        maps.append(_acquired_map(shares, t1, beat_ms, shading, noise, rng))
    return T1Study(
        patient_id=patient_id,
        image=np.clip(np.round(maps), 0, LARGEST_MS).astype(np.uint16),
        mask=np.stack(
            [label_slice(heart, view, float(z), contraction) == 1 for z in depths]
        ).astype(np.uint8),
        affine=affine,
        label=int(pathology != "healthy"),
        pathology=pathology,
        truth={"t1_ms": t1["myocardium"], "lesion_ms": t1["lesion"], "beat_ms": beat_ms},
    )


def _draw_view(scale: int, rng: np.random.Generator) -> View:
    spacing = float(rng.uniform(*PIXEL_MM)) * scale
    shape = (MATRIX[0] // scale, MATRIX[1] // scale)
    return replace(draw_view(rng), shape=shape, spacing=(spacing, spacing), thickness=8.0)


def _draw_t1(tesla: float, rng: np.random.Generator) -> dict[str, float]:
    """Draw the T1 of every tissue of a patient in ms."""
    return {
        name: (tissue.at_3_t if tesla >= 3 else tissue.at_1_5_t)
        * (1 + tissue.spread * float(rng.normal()))
        for name, tissue in TISSUES.items()
    }


def _draw_fibrosis(pathology: str, rng: np.random.Generator) -> Fibrosis:
    """Draw the disease; some diffuse ones are within what varies between healthy hearts."""
    if pathology == "diffuse_fibrosis":
        return Fibrosis(diffuse_ms=max(float(rng.normal(105, 30)), 45.0))
    if pathology == "focal_fibrosis":
        inner = float(rng.uniform(0.0, 0.4))
        return Fibrosis(
            diffuse_ms=float(rng.uniform(0, 30)),
            focal_ms=float(rng.uniform(150, 320)),
            centre_deg=float(rng.uniform(-180, 180)),
            half_deg=float(rng.uniform(22, 60)),
            depth=(inner, inner + float(rng.uniform(0.5, 1.0))),
        )
    return Fibrosis()


def _acquired_map(
    shares: Array,
    t1: dict[str, float],
    beat_ms: float,
    shading: Array,
    noise: float,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Acquire the images of one slice and fit them.

    Args:
        shares: (K, H, W), of each tissue in each pixel.
        t1: of each tissue in ms.
        beat_ms: from one R wave to the next.
        shading: (H, W), of the coil.
        noise: SD, of a signal of 1 in equilibrium.
        rng: random.
    """
    times = inversion_times(beat_ms)
    uneven = 1 + 0.012 * smooth_field(shares.shape[1:], 2.5, rng)
    signal = np.zeros((len(times), *shares.shape[1:]))
    for share, (name, tissue) in zip(shares, TISSUES.items(), strict=True):
        there = share > 0
        weight = tissue.density * share[there]
        signal[:, there] += weight * recovery(t1[name] * uneven[there], times, beat_ms)
    return fit_t1(acquire(signal * shading, noise, rng), times)


def _shares(
    heart: Heart,
    view: View,
    z: float,
    contraction: float,
    fibrosis: Fibrosis,
    rng: np.random.Generator,
) -> Array:
    """Return the share (K, H, W) of each tissue in each pixel of a slice."""
    rows, columns = view.shape
    fine = replace(
        view,
        shape=(FINE * rows, FINE * columns),
        spacing=(view.spacing[0] / FINE, view.spacing[1] / FINE),
    )
    body = _body(fine, z, rng)
    layers = [
        _with_heart(body, heart, fine, z + part * view.thickness, contraction, fibrosis)
        for part in SUB_SLICES
    ]
    stacked = np.stack(layers)
    shares = np.empty((len(TISSUES), rows, columns))
    for number in _NUMBER.values():
        held = (stacked == number).sum(axis=0, dtype=np.uint8)
        corners = [held[i::FINE, j::FINE] for i in range(FINE) for j in range(FINE)]
        shares[number] = sum(corners[1:], corners[0]) / (len(layers) * FINE**2)
    return shares


def _body(view: View, z: float, rng: np.random.Generator) -> Tissues:
    """Return the torso (H, W) around the heart, in the plane of a short axis."""
    y, x = (
        ((np.arange(n) - (n - 1) / 2) * mm).reshape(shape)
        for n, mm, shape in zip(view.shape, view.spacing, ((-1, 1), (1, -1)), strict=True)
    )
    wavy = 3.0 * smooth_field((view.shape[0] // 8, view.shape[1] // 8), 2.5, rng)
    y = y + ndimage.zoom(
        wavy, [n / m for n, m in zip(view.shape, wavy.shape, strict=True)], order=1
    )
    cy, cx = (centre + drift * z for centre, drift in zip(view.centre, view.drift, strict=True))
    image = np.full(view.shape, _NUMBER["air"], np.uint8)
    thorax = _inside(y - 6, x, 106, 122)
    image[_inside(y - 4, x, 136, 152)] = _NUMBER["fat"]
    image[_inside(y - 5, x, 121, 137)] = _NUMBER["muscle"]
    image[thorax] = _NUMBER["lung"]
    for tissue, dy, dx, height, width, turn in (
        ("fat", cy - 34, cx - 40, 44, 40, -0.5),  # before the right ventricle
        ("liver", cy + 92, cx - 34, 50, 104, 0.12),
        ("spleen", cy + 78, cx + 78, 34, 40, -0.3),
        ("fat", cy + 46, cx + 40, 12, 40, -0.4),
    ):
        image[thorax & _inside(y - dy, x - dx, height, width, turn)] = _NUMBER[tissue]
    image[_inside(y - 92, x - 62, 20, 21)] = _NUMBER["marrow"]
    image[_inside(y - cy - 52, x - cx - 66, 11, 11)] = _NUMBER["blood"]  # the aorta
    return image


def _with_heart(
    body: Tissues, heart: Heart, view: View, z: float, contraction: float, fibrosis: Fibrosis
) -> Tissues:
    """Return the anatomy (H, W) of a plane without thickness."""
    box = heart_box(view)
    labels = label_slice(heart, view, z, contraction)[box]
    distance, angle = plane(view, z)
    inner, outer, radius, _ = walls(heart, angle, z, contraction)
    image = body.copy()
    part = image[box]
    if not labels.any():
        return image
    pixel_mm = view.spacing[0]
    fat_mm = 5.0 + 2.5 * np.sin(2 * angle + 1.3)
    part[ndimage.distance_transform_edt(labels == 0) * pixel_mm < 2.5 + fat_mm] = _NUMBER["fat"]
    if (labels == 3).any():
        near = ndimage.distance_transform_edt(labels != 3) * pixel_mm < 3.0
        part[near] = _NUMBER["myocardium"]
    part[labels == 1] = _NUMBER["myocardium"]
    part[labels > 1] = _NUMBER["blood"]
    for place in (2.1, -2.3):  # papillary muscles
        along = distance * np.cos(angle - place) - 0.7 * radius
        off = np.hypot(along, 1.3 * distance * np.sin(angle - place))
        part[(labels == 2) & (off < 0.16 * radius)] = _NUMBER["myocardium"]
    depth = (distance - inner) / np.maximum(outer - inner, 1e-6)
    away = np.abs((np.degrees(angle) - fibrosis.centre_deg + 180) % 360 - 180)
    patch = (fibrosis.depth[0] <= depth) & (depth <= fibrosis.depth[1])
    part[patch & (away < fibrosis.half_deg) & (labels == 1)] = _NUMBER["lesion"]
    return image


def _inside(
    y: Array, x: Array, height: float, width: float, turn: float = 0.0
) -> NDArray[np.bool_]:
    """Return what lies in an ellipse of semi-axes in mm."""
    down = y * math.cos(turn) - x * math.sin(turn)
    across = y * math.sin(turn) + x * math.cos(turn)
    return (down / height) ** 2 + (across / width) ** 2 < 1
