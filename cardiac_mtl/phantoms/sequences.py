"""One heart at end-diastole seen by three sequences, as the patients of MS-CMRSeg were."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cardiac_mtl.contracts import SequenceStudy, SequenceVolume
from cardiac_mtl.phantoms import contrasts
from cardiac_mtl.phantoms.cohort import (
    GROUPS,
    draw_body,
    draw_depths,
    draw_heart,
    draw_infarct,
    draw_view,
    oblique_affine,
)
from cardiac_mtl.phantoms.heart import Array, Heart
from cardiac_mtl.phantoms.infarct import Infarct, section_indices
from cardiac_mtl.phantoms.protocols import GHOST, PROTOCOLS
from cardiac_mtl.phantoms.render import (
    Body,
    Lesion,
    Tissue,
    View,
    acquire,
    body_slice,
    coil_shading,
    heart_slice,
    label_slice,
    smooth_field,
)

KINDS: Final = ("obstructed", "chronic", "healthy", "acute")
"""What the patients have, in turn: an acute infarct with and without a core of microvascular
obstruction, an old scar, or nothing."""
SHIFT_MM: Final = 4.0
"""How far the heart lies from where it lay in C0 [inferred: 3.1 mm of it in plane on average; in
the real set the LV of C0 and LGE lie 3.3 mm apart, Upendra et al., MIUA 2020, PMC8285264]."""
_CLASSES = np.array([0, 2, 1, 3], np.uint8)  # from those of a cine: pool and wall change places


@dataclass(frozen=True)
class Patient:
    """One heart, and the frame that all its images are planned in.

    Args:
        heart: anatomy.
        lesions: of its wall.
        view: centre, drift and turn of the heart in the frame, at the breath-hold of C0.
        frame: (4, 4), (column, row, depth) in mm to LPS mm; depth 0 is the base.
        tissues: relaxation before gadolinium.
        body: what lies around the heart.
    """

    heart: Heart
    lesions: tuple[Lesion, ...]
    view: View
    frame: Array
    tissues: Mapping[str, Tissue]
    body: Body

    @property
    def infarct(self) -> Infarct | None:
        """The infarct or scar, with its core."""
        found = [patch for tissue, patch, _ in self.lesions if tissue in {"infarct", "scar"}]
        return found[0] if found else None


@dataclass(frozen=True)
class Scan:
    """One sequence of a patient: how its slices lie, and how the heart lies in them.

    Args:
        view: the image as shown.
        depths: (S,), of the mid-planes in the heart, in mm.
        affine: (4, 4), voxel (column, row, slice) to LPS mm, of what was planned.
        signal: of each tissue.
        snr: of the brightest tissue of the heart.
        zoom: shown pixels for each acquired.
        shift: rows, columns, depth in mm that the heart moved after planning.
        shading: exponent of the coil's sensitivity: 1 as received, less if the scanner corrects it.
        ghost: strongest of one slice, over the signal.
        ghosts: how many, the image itself among them, share the field of view.
    """

    view: View
    depths: Array
    affine: Array
    signal: dict[str, float]
    snr: float
    zoom: int
    shift: tuple[float, float, float]
    shading: float
    ghost: float
    ghosts: int


def make_sequence_cohort(
    patients: int, seed: int = 0, shift_mm: float = SHIFT_MM, scale: int = 1
) -> Iterator[SequenceStudy]:
    """Make studies of three sequences, one patient at a time.

    Args:
        patients: how many; patient i is the same whatever their number.
        seed: the same seed gives the same cohort.
        shift_mm: how far the breath-holds of LGE and of T2 lie from that of C0, in a direction that
            chance decides and no header tells.
        scale: divides the matrices: pixels are larger, everything else is the same.

    Returns:
        Studies `patient1`, `patient2`, ..., of the `KINDS` in turn.
    """
    for number in range(patients):
        rng = np.random.default_rng([seed, number])
        kind = KINDS[number % len(KINDS)]
        yield make_sequence_study(f"patient{number + 1}", kind, rng, shift_mm, scale)


def make_sequence_study(
    patient_id: str, kind: str, rng: np.random.Generator, shift_mm: float, scale: int
) -> SequenceStudy:
    """Draw and render one patient.

    Args:
        patient_id: a pseudonym.
        kind: one of `KINDS`.
        rng: random.
        shift_mm: see `make_sequence_cohort`.
        scale: see `make_sequence_cohort`.

    Returns:
        Its `truth` has `cavity_ml`, `myocardium_ml` and `scar_ml`; of slice k of a sequence
        `cavity_mm2_<sequence>_<k>` and `myocardium_mm2_<sequence>_<k>`; and
        `shift_<axis>_mm_<sequence>` along rows, columns and depth.
    """
    patient = draw_patient(kind, rng)
    # each of its own stream: neither scale nor shift changes what else chance decides
    streams = dict(zip(PROTOCOLS, rng.spawn(len(PROTOCOLS)), strict=True))
    scans = {
        name: draw_scan(patient, name, stream, shift_mm if name != "C0" else 0.0, scale)
        for name, stream in streams.items()
    }
    return SequenceStudy(
        patient_id=patient_id,
        volumes={
            name: SequenceVolume(
                image=_image(patient, scan, streams[name]),
                mask=_mask(patient, scan),
                affine=scan.affine,
            )
            for name, scan in scans.items()
        },
        truth=_truth(patient, scans),
    )


def draw_patient(kind: str, rng: np.random.Generator) -> Patient:
    """Draw anatomy, lesions and the place of the heart.

    Args:
        kind: one of `KINDS`.
        rng: random.
    """
    groups = list(GROUPS.values())
    heart = draw_heart(groups[rng.integers(len(groups))], rng)
    view = replace(draw_view(rng), shape=(1, 1), spacing=(1.0, 1.0), thickness=1.0)
    lesions = _lesions(kind, draw_infarct(heart, rng))
    return Patient(
        heart, lesions, view, oblique_affine(view, rng), contrasts.draw_tissues(rng), draw_body(rng)
    )


def draw_scan(
    patient: Patient, sequence: str, rng: np.random.Generator, shift_mm: float, scale: int
) -> Scan:
    """Plan one sequence, and hold the breath for it.

    Args:
        patient: heart and frame.
        sequence: a key of `PROTOCOLS`.
        rng: random.
        shift_mm: how far the heart moves after planning.
        scale: divides the matrix.
    """
    protocol = PROTOCOLS[sequence]
    matrix, side_mm = int(rng.choice(protocol.matrices)), float(rng.uniform(340, 400))
    _, epi = patient.heart.shells(0.0)
    apex, (fewest, most) = epi.centre + epi.length, protocol.slices
    step = max(float(rng.uniform(*protocol.step_mm)), apex / most)
    planned = draw_depths(patient.heart, replace(patient.view, thickness=step), rng)
    within = int((planned < rng.uniform(*protocol.covered) * apex).sum())
    planned = planned[: min(max(within, fewest), most)]
    row_off, column_off = rng.normal(0, 5, 2)  # of the field of view, which the header tells
    direction = rng.normal(size=3)
    down, right, deep = shift_mm * direction / np.linalg.norm(direction)

    side = matrix // scale
    pixel = side_mm / side
    row, column = patient.view.centre
    view = replace(
        patient.view,
        shape=(side, side),
        spacing=(pixel, pixel),
        thickness=protocol.filled * step,
        centre=(row + down - row_off, column + right - column_off),
    )
    to_frame = np.diag([pixel, pixel, step, 1.0])
    half = (side - 1) / 2 * pixel
    to_frame[:3, 3] = column_off - half, row_off - half, planned[0]
    return Scan(
        view=view,
        depths=planned - deep,
        affine=patient.frame @ to_frame,
        signal=dict(contrasts.DRAW[sequence](patient.tissues, rng)),
        snr=float(rng.uniform(*protocol.snr)),
        zoom=2 if side >= protocol.interpolated else 1,
        shift=(float(down), float(right), float(deep)),
        # of a coil array, which scanners correct by choice (Kellman et al., MRM 2002) [inferred]
        shading=float(rng.uniform(0.3, 1.3)),
        ghost=float(rng.uniform(*GHOST)) if rng.random() < protocol.ghosted else 0.0,
        ghosts=int(rng.integers(2, 5)),
    )


def _lesions(kind: str, infarct: Infarct) -> tuple[Lesion, ...]:
    """Return what the wall of a patient has, the larger first."""
    if kind == "healthy":
        return ()
    # one coronary artery supplies about a third of the circumference
    infarct = replace(infarct, half_deg=min(infarct.half_deg, 65.0))
    if kind == "chronic":
        return (Lesion("scar", infarct),)
    if kind == "obstructed":  # large infarcts are
        depth, half = max(infarct.transmurality, 0.8), max(infarct.half_deg, 40.0)
        infarct = replace(infarct, transmurality=depth, half_deg=half)
    at_risk = replace(
        infarct,
        half_deg=1.2 * infarct.half_deg,
        half_mm=1.2 * infarct.half_mm,
        transmurality=1.0,
        ragged=0.0,
    )
    acute = Lesion("oedema", at_risk), Lesion("infarct", infarct)
    if kind == "acute":
        return acute
    core = replace(
        infarct,
        half_deg=0.65 * infarct.half_deg,
        half_mm=0.7 * infarct.half_mm,
        transmurality=0.7 * infarct.transmurality,
    )
    return *acute, Lesion("obstruction", core, inner=0.15)


def _mask(patient: Patient, scan: Scan) -> NDArray[np.uint8]:
    """Return the classes (S, H, W) of `SequenceStudy`."""
    labels = [label_slice(patient.heart, scan.view, float(z), 0.0) for z in scan.depths]
    return _CLASSES[np.stack(labels)]


def _image(patient: Patient, scan: Scan, rng: np.random.Generator) -> NDArray[np.int16]:
    """Return (S, H, W)."""
    view = _acquired(scan)
    shading = coil_shading(view, rng) ** scan.shading
    brightest = max(abs(scan.signal[name]) for name in ("blood", "oedema", "infarct"))
    gain, noise = rng.uniform(350, 700) / brightest, brightest / scan.snr
    slices = []
    for z in scan.depths.tolist():
        background = body_slice(view, z, rng, scan.signal, patient.body)
        textures = np.stack([smooth_field(view.shape, grain, rng) for grain in (1.5, 4.0)])
        painted = heart_slice(
            patient.heart,
            view,
            z,
            0.0,
            background,
            textures,
            signal=scan.signal,
            lesions=patient.lesions,
            epicardial=patient.body.epicardial,
        )
        seen = ghosted(painted * shading, scan.ghosts, scan.ghost * rng.uniform(-1, 1))
        shown = acquire(seen, noise, rng, scan.zoom)
        slices.append(np.clip(shown * gain, 0, 4095).astype(np.int16))
    return np.stack(slices)


def ghosted(image: Array, count: int, strength: float) -> Array:
    """Add the first ghost of breathing, along the rows, which are the direction of phase.

    What repeats every `count` steps of phase shows again that part of the field of view away.

    Args:
        image: (H, W).
        count: 2 or more.
        strength: over the image, negative where the two are out of phase.
    """
    shift = image.shape[0] // count
    ghost = np.roll(image, shift, axis=0) + np.roll(image, -shift, axis=0)
    return image + strength / 2 * ghost


def _acquired(scan: Scan) -> View:
    """Return the view of the pixels that were acquired, the first centred where it is shown."""
    view, zoom = scan.view, scan.zoom
    pixel, _ = view.spacing
    rows, columns = view.shape
    row, column = view.centre
    half = (zoom - 1) / 2 * pixel
    return replace(
        view,
        shape=(rows // zoom, columns // zoom),
        spacing=(zoom * pixel, zoom * pixel),
        centre=(row + half, column + half),
    )


def _truth(patient: Patient, scans: dict[str, Scan]) -> dict[str, float]:
    heart = patient.heart
    endo, epi = heart.shells(0.0)
    truth = {
        "cavity_ml": heart.cavity_ml(0.0),
        "myocardium_ml": heart.myocardium_ml,
        "scar_ml": _infarct_ml(patient),
    }
    for name, scan in scans.items():
        for axis, moved in zip(("rows", "columns", "depth"), scan.shift, strict=True):
            truth[f"shift_{axis}_mm_{name}"] = moved
        for k, z in enumerate(scan.depths.tolist()):
            truth[f"cavity_mm2_{name}_{k}"] = float(endo.area(z))
            truth[f"myocardium_mm2_{name}_{k}"] = float(epi.area(z) - endo.area(z))
    return truth


def _infarct_ml(patient: Patient) -> float:
    """Return the volume of the infarct with its core: a Gauss sum of its sections."""
    if (infarct := patient.infarct) is None:
        return 0.0
    nodes, weights = np.polynomial.legendre.leggauss(64)
    low = max(infarct.centre_mm - infarct.half_mm, 0.0)
    high = infarct.centre_mm + infarct.half_mm
    half = (high - low) / 2
    sections = [
        section_indices(patient.heart, infarct, float(z), (0.0, 0.0), 0.0)["size_mm2"]
        for z in low + half * (1 + nodes)
    ]
    return float(half * weights @ sections) / 1000
