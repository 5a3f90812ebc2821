"""From anatomy to an MR image: tissues, bSSFP signal, partial volume, coil, noise."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.signal import resample

from cardiac_mtl.phantoms.heart import Array, Heart
from cardiac_mtl.phantoms.infarct import Infarct, walls

SUB_SLICES: Final = (-1 / 3, 0.0, 1 / 3)
"""Places across the slice, in slice thicknesses, that are averaged for the partial volume."""
REACH_MM: Final = 82.0
"""Half the side of the heart box."""


@dataclass(frozen=True)
class Tissue:
    """Relaxation at 1.5 T in ms, and proton density."""

    t1: float
    t2: float
    density: float = 1.0


TISSUES: Final = {
    "blood": Tissue(1500, 250, 0.95),
    "myocardium": Tissue(1030, 42, 0.80),
    "muscle": Tissue(1000, 36, 0.78),
    "fat": Tissue(300, 85, 0.85),
    "liver": Tissue(590, 44, 0.75),
    "lung": Tissue(1200, 40, 0.12),
    "spine": Tissue(600, 60, 0.55),
    "oedema": Tissue(1150, 58, 0.84),
    "infarct": Tissue(1200, 60, 0.84),
    "scar": Tissue(1180, 43, 0.80),
    "obstruction": Tissue(1000, 44, 0.80),
}
"""Healthy: about as Stanisz et al., MRM 2005, measured. Of the wall after an infarction, in
proportion to healthy wall: oedema of the area at risk, acute infarct, old scar, and the core of an
acute infarct that microvascular obstruction and haemorrhage make (Carrick et al., EHJ 2016)."""


@dataclass(frozen=True)
class View:
    """How one patient lies in the image.

    Args:
        shape: (H, W).
        spacing: rows, columns in mm.
        thickness: of a slice in mm.
        centre: of the LV at the base, rows and columns from the image centre in mm.
        drift: of that centre from base to apex, rows and columns in mm a mm.
        septum_deg: angle of the septum from the column axis.
    """

    shape: tuple[int, int]
    spacing: tuple[float, float]
    thickness: float
    centre: tuple[float, float]
    drift: tuple[float, float]
    septum_deg: float


@dataclass(frozen=True)
class Body:
    """What one patient has around the heart.

    Args:
        size: of trunk and organs, over the usual.
        skin_mm: thickness of the fat below the skin.
        epicardial: thickness of the fat on the heart, over the usual.
    """

    size: float = 1.0
    skin_mm: float = 18.0
    epicardial: float = 1.0


def bssfp(tissue: Tissue, flip_deg: float = 55.0, tr: float = 3.0, te: float = 1.5) -> float:
    """Return the steady-state signal of balanced SSFP, on resonance.

    Source: Bernstein, King, Zhou, Handbook of MRI Pulse Sequences, 2004, section 14.1.

    Args:
        tissue: relaxation in ms.
        flip_deg: flip angle.
        tr: repetition time in ms.
        te: echo time in ms.
    """
    e1, e2 = math.exp(-tr / tissue.t1), math.exp(-tr / tissue.t2)
    flip = math.radians(flip_deg)
    steady = math.sin(flip) * (1 - e1) / (1 - (e1 - e2) * math.cos(flip) - e1 * e2)
    return tissue.density * steady * math.exp(-te / tissue.t2)


CINE: Final[Mapping[str, float]] = {name: bssfp(tissue) for name, tissue in TISSUES.items()}
"""Signal of each tissue in a cine."""


class Lesion(NamedTuple):
    """A part of the wall that is another tissue."""

    tissue: str
    """Its name in the signals."""
    patch: Infarct
    """Where it is; what it does to the motion is left aside."""
    inner: float = 0.0
    """Share of the wall, from the endocardium, where it begins."""


def heart_box(view: View) -> tuple[slice, slice]:
    """Return rows and columns of the part of the image that can beat."""
    sides = []
    for n, mm, centre in zip(view.shape, view.spacing, view.centre, strict=True):
        middle, half = (n - 1) / 2 + centre / mm, REACH_MM / mm
        sides.append(slice(max(0, int(middle - half)), min(n, int(middle + half) + 1)))
    return sides[0], sides[1]


def plane(view: View, z: float) -> tuple[Array, Array]:
    """Return distance in mm and angle from the LV centre at depth z, within the heart box."""
    rows, columns = (
        (np.arange(n)[box] - (n - 1) / 2) * mm - c - d * z
        for n, box, mm, c, d in zip(
            view.shape, heart_box(view), view.spacing, view.centre, view.drift, strict=True
        )
    )
    distance = np.hypot(rows[:, None], columns[None])
    angle = np.arctan2(rows[:, None], columns[None]) - math.radians(view.septum_deg)
    return distance, angle


def lv_centre(view: View, z: float) -> tuple[float, float]:
    """Return the LV centre at depth z: rows, columns in mm from the centre of pixel (0, 0)."""
    row, column = (
        (n - 1) / 2 * mm + c + d * z
        for n, mm, c, d in zip(view.shape, view.spacing, view.centre, view.drift, strict=True)
    )
    return row, column


def label_slice(
    heart: Heart, view: View, z: float, contraction: float, infarct: Infarct | None = None
) -> NDArray[np.uint8]:
    """Return the class of every pixel centre in the mid-plane of a slice.

    Returns:
        (H, W): 0 background, 1 LV myocardium, 2 LV blood pool, 3 RV blood pool. Papillary muscles
        belong to the blood pool.
    """
    distance, angle = plane(view, z)
    wall = walls(heart, angle, z, contraction, infarct)
    depth = _rv_depth(heart, z, contraction, distance, angle, wall.outer)
    labels = np.where(depth > 0, 3, 0)
    labels[distance < wall.outer] = 1
    labels[distance < wall.inner] = 2
    image = np.zeros(view.shape, dtype=np.uint8)
    image[heart_box(view)] = labels
    return image


def infarct_slice(heart: Heart, view: View, z: float, infarct: Infarct) -> NDArray[np.uint8]:
    """Return (H, W), 1 where the wall at end-diastole is infarcted in the mid-plane of a slice."""
    distance, angle = plane(view, z)
    wall = walls(heart, angle, z, 0.0)
    edge = wall.inner + infarct.depth(angle, z) * (wall.outer - wall.inner)
    image = np.zeros(view.shape, dtype=np.uint8)
    image[heart_box(view)] = (wall.inner <= distance) & (distance < edge)
    return image


def heart_slice(
    heart: Heart,
    view: View,
    z: float,
    contraction: float,
    background: Array,
    textures: Array,
    infarct: Infarct | None = None,
    signal: Mapping[str, float] = CINE,
    lesions: Sequence[Lesion] = (),
    epicardial: float = 1.0,
) -> Array:
    """Paint the heart over the still background of a slice.

    Args:
        heart: anatomy.
        view: geometry.
        z: depth of the mid-plane in mm.
        contraction: 0 at end-diastole, 1 at end-systole.
        background: (H, W), signal of everything that does not beat.
        textures: (2, H, W), relative variation of myocardium and of blood.
        infarct: what moves less; none for a healthy heart.
        signal: of each tissue.
        lesions: of the wall, one painted over the other.
        epicardial: see `Body`.

    Returns:
        (H, W), averaged across the thickness of the slice.
    """
    box = heart_box(view)
    still, textures = background[box], textures[:, box[0], box[1]]
    painted = [
        _paint(
            heart,
            view,
            z + part * view.thickness,
            contraction,
            still,
            textures,
            infarct,
            signal,
            lesions,
            epicardial,
        )
        for part in SUB_SLICES
    ]
    image = background.copy()
    image[box] = np.mean(painted, axis=0)
    return image


def body_slice(
    view: View,
    z: float,
    rng: np.random.Generator,
    signal: Mapping[str, float] = CINE,
    body: Body | None = None,
) -> Array:
    """Return the signal (H, W) of torso, fat, lungs, liver, spine and aorta around the heart."""
    body = body or Body()
    rows, columns = (
        (np.arange(n) - (n - 1) / 2) * mm for n, mm in zip(view.shape, view.spacing, strict=True)
    )
    y, x, s = rows[:, None], columns[None], body.size
    image: Array = np.zeros(view.shape)
    fat = body.skin_mm
    skin = _ellipse(y - 8, x - 4, s * 100 + fat, s * 150 + fat, 0.0)
    wall = _ellipse(y - 8, x - 4, s * 100, s * 150, 0.0)
    image = _blend(image, skin, signal["fat"])
    image = _blend(image, wall, signal["muscle"] * 0.9)
    cy, cx = view.centre
    for dy, dx, height, width, turn in ((6, 62, 78, 58, 0.25), (2, -92, 74, 44, -0.2)):
        lung = _ellipse(y - cy - s * dy, x - cx - s * dx, s * height, s * width, turn)
        image = _blend(image, lung, signal["lung"])
    liver = _ellipse(y - cy - s * 72 - 0.2 * z, x - cx + s * 62, s * 46, s * 86, 0.15)
    image = _blend(image, liver, signal["liver"])
    image = _blend(image, _ellipse(y - s * 80, x - 8, 20, 22, 0.0), signal["spine"])
    image = _blend(image, _ellipse(y - s * 62, x - s * 44, 11, 11, 0.0), signal["blood"])
    image = _blend(image, _ellipse(y - cy - 6, x - cx + 8, 62, 40, 0.2), signal["muscle"] * 0.5)
    return image * (
        1 + 0.18 * smooth_field(view.shape, 6.0, rng) + 0.1 * smooth_field(view.shape, 1.2, rng)
    )


def coil_shading(view: View, rng: np.random.Generator) -> Array:
    """Return the sensitivity (H, W) of a surface coil at the top left, mean near 1."""
    rows, columns = (np.linspace(-1, 1, n) for n in view.shape)
    y, x = rows[:, None], columns[None]
    place = rng.uniform([-1.6, -1.2], [-1.1, -0.2])
    near = 1 / (0.55 + 0.35 * ((y - place[0]) ** 2 + (x - place[1]) ** 2))
    return near / near.mean() * (1 + 0.05 * x * rng.normal() + 0.05 * y * rng.normal())


def acquire(signal: Array, noise: float, rng: np.random.Generator, zoom: int = 1) -> Array:
    """Blur by the point spread of the acquisition and take the magnitude of a noisy signal.

    Args:
        signal: (..., H, W), of either sign.
        noise: SD of each of the two channels, in the unit of the signal.
        rng: random.
        zoom: pixels shown for each acquired along rows and columns, by filling k-space with zeros
            as scanners do; the centres of the first shown and the first acquired pixel agree.

    Returns:
        (..., zoom H, zoom W): Rician distributed, about 1.25 times `noise` in air.
    """
    blurred = ndimage.gaussian_filter(signal, (0,) * (signal.ndim - 2) + (0.55, 0.55))
    real, imaginary = rng.normal(0, noise, (2, *signal.shape))
    if zoom == 1:
        return np.hypot(blurred + real, imaginary)
    shown = blurred + real + 1j * imaginary
    for axis in (-2, -1):
        shown = resample(shown, zoom * shown.shape[axis], axis=axis)
    return np.abs(shown)


def smooth_field(shape: tuple[int, int], scale: float, rng: np.random.Generator) -> Array:
    """Return a random field (H, W) of mean 0 and SD 1, smooth over `scale` pixels."""
    field = ndimage.gaussian_filter(rng.normal(size=shape), scale, mode="wrap")
    return (field - field.mean()) / field.std()


def _paint(
    heart: Heart,
    view: View,
    z: float,
    contraction: float,
    background: Array,
    textures: Array,
    infarct: Infarct | None,
    signal: Mapping[str, float],
    lesions: Sequence[Lesion],
    epicardial: float,
) -> Array:
    distance, angle = plane(view, z)
    inner, outer, radius, local = walls(heart, angle, z, contraction, infarct)
    soft = float(np.mean(view.spacing))
    grain = 1 + 0.10 * textures[0]
    muscle = signal["myocardium"] * grain
    blood = signal["blood"] * (1 + 0.07 * textures[1])
    image = background
    depth = _rv_depth(heart, z, contraction, distance, angle, outer)
    fat_mm = epicardial * (4.5 + 2.5 * np.sin(3 * angle + 1.3) + 1.5 * textures[1])
    around = np.maximum(depth + 3.5, (outer - distance) * (outer > 0)) + fat_mm
    image = _blend(image, np.clip(around / 4, 0, 1) * (outer > 0), 0.8 * signal["fat"])
    image = _blend(image, np.clip((depth + 3.0) / soft + 0.5, 0, 1), muscle)
    image = _blend(image, np.clip(depth / soft + 0.5, 0, 1), blood * 0.95)
    wall = muscle
    for tissue, patch, begins in lesions:
        reach, thickness = patch.depth(angle, z), outer - inner
        within = np.minimum(
            distance - inner - begins * thickness, reach * thickness + inner - distance
        )
        share = np.clip(within / soft + 0.5, 0, 1) * (reach > begins)
        wall = _blend(wall, share, signal[tissue] * grain)
    image = _blend(image, np.clip((outer - distance) / soft + 0.5, 0, 1) * (outer > 0), wall)
    image = _blend(image, np.clip((inner - distance) / soft + 0.5, 0, 1) * (inner > 0), blood)
    return _papillary(image, radius, local, distance, angle, muscle, textures[0])


def _papillary(
    image: Array,
    radius: float | Array,
    contraction: float | Array,
    distance: Array,
    angle: Array,
    muscle: Array,
    texture: Array,
) -> Array:
    """Draw two papillary muscles and ragged trabeculae inside a cavity of some radius in mm."""
    if np.min(radius) < 6:
        return image
    ragged = (distance > (0.84 - 0.1 * contraction) * radius) & (distance < radius)
    image = _blend(image, 0.5 * ragged * np.clip(texture + 0.2, 0, 1), muscle)
    for place in (2.1, -2.3):
        x = distance * np.cos(angle - place) - (0.68 - 0.1 * contraction) * radius
        y = distance * np.sin(angle - place)
        size = (0.14 + 0.05 * contraction) * radius * (1 + 0.25 * texture)
        image = _blend(image, 0.8 * np.clip((size - np.hypot(x, 1.3 * y)) / 2 + 0.5, 0, 1), muscle)
    return image


def _rv_depth(
    heart: Heart, z: float, contraction: float, distance: Array, angle: Array, outer: Array
) -> Array:
    """Return how deep each pixel lies in the RV cavity, in mm; negative outside.

    The RV is an ellipse about a point beyond the septum, less the epicardium of the LV.
    """
    base = heart.shells(contraction)[1].base
    rest = heart.shells(0.0)[1]
    length = 1.25 * heart.length_mm
    if not base <= z < length:
        return np.full(distance.shape, -99.0)
    taper = math.sqrt(1 - (z / length) ** 2) * (1 - 0.22 * contraction)
    x = distance * np.cos(angle) - 0.9 * rest.radius * (1 - 0.25 * z / length)
    y = distance * np.sin(angle)
    wide, high = 0.95 * rest.radius * taper, 1.15 * rest.radius * taper
    ellipse = (1 - np.hypot(x / wide, y / high)) * min(wide, high)
    return np.minimum(ellipse, distance - outer)


def _ellipse(y: Array, x: Array, height: float, width: float, turn: float) -> Array:
    """Return how far each pixel is inside an ellipse of semi-axes in mm, softened over 3 mm."""
    v = y * math.cos(turn) - x * math.sin(turn)
    u = y * math.sin(turn) + x * math.cos(turn)
    inside = (1 - np.hypot(v / height, u / width)) * min(height, width)
    return np.clip(inside / 3 + 0.5, 0, 1)


def _blend(image: Array, share: Array, signal: float | Array) -> Array:
    return image * (1 - share) + signal * share
