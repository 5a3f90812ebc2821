"""What the clinic reads from the masks: function, mass and wall thickness.

Nothing is clipped: an impossible value stays as it is, and `flags` names it.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree
from scipy.special import i0e

MYOCARDIUM_DENSITY = 1.05
"""g/ml, the value that cardiac MR uses throughout."""

_SMOOTHING = 1.0  # pixels: less leaves the stairs of the pixels, more eats the apical cavity


class Function(NamedTuple):
    """Function of one ventricle; NaN is unknown."""

    edv_ml: float
    esv_ml: float
    sv_ml: float
    """Stroke volume, EDV - ESV."""
    ef_percent: float
    """Ejection fraction, 100 * SV / EDV."""
    mass_g: float
    """Mass of the myocardium at end-diastole."""


class WallThickness(NamedTuple):
    """Thickness of the myocardium in one slice, in mm; NaN without a closed ring."""

    mean_mm: float
    least_mm: float
    largest_mm: float


def function(edv_ml: float, esv_ml: float, myocardium_ml: float) -> Function:
    """Compute the function of a ventricle from its volumes.

    Args:
        edv_ml: cavity at end-diastole, ml.
        esv_ml: cavity at end-systole, ml.
        myocardium_ml: myocardium at end-diastole, ml.

    Returns:
        The five values, unclipped. EF is NaN where EDV is 0; NaN goes through to what needs it.

    Examples:
        >>> function(120.0, 48.0, 100.0)
        Function(edv_ml=120.0, esv_ml=48.0, sv_ml=72.0, ef_percent=60.0, mass_g=105.0)
    """
    stroke = edv_ml - esv_ml
    ejected = 100 * stroke / edv_ml if edv_ml else math.nan
    return Function(edv_ml, esv_ml, stroke, ejected, MYOCARDIUM_DENSITY * myocardium_ml)


def flags(function: Function) -> list[str]:
    """Name what is impossible or absurd in a ventricle's function.

    Args:
        function: as `function` gives it.

    Returns:
        Plain words, the impossible first; empty when nothing is odd. EF outside 5..85 % is
        suspicious: no ventricle of a living patient is known to us there [inferred].
    """
    edv, esv, _, ef, mass = function
    claims = {
        "EDV missing": not math.isfinite(edv),
        "ESV missing": not math.isfinite(esv),
        "mass missing": not math.isfinite(mass),
        "EDV below 0": edv < 0,
        "ESV below 0": esv < 0,
        "mass below 0": mass < 0,
        "ESV larger than EDV": esv > edv,
        "EF above 100 %": ef > 100,
        "no cavity at ED": edv == 0,
        "no cavity at ES": esv == 0,
        "no myocardium at ED": mass == 0,
        "EF above 85 %, suspicious": 85 < ef <= 100,
        "EF below 5 %, suspicious": 0 <= ef < 5,
    }
    return [claim for claim, holds in claims.items() if holds]


def wall_thickness(myocardium: NDArray[np.bool_], spacing: Sequence[float]) -> WallThickness:
    """Measure the thickness of a ring of myocardium.

    The cavity is the largest hole of the mask, the wall what surrounds it. Thickness is the
    distance from a point of the endocardial border to the nearest of the epicardial, and the
    reverse; the mean is over the points of both, which lie where a border crosses the lines through
    the pixel centres. It is the shortest way, not the one along a radius or a centre-line.

    The borders are iso-lines of the smoothed masks. Between the pixels themselves the nearest
    corner always wins, which makes walls 0.1 to 0.4 mm too thin. In pixels of 1.25 mm the mean of a
    ring differs by at most 0.15 mm from the radii of the circles of the same areas
    (tests/metrics/test_clinical.py), less than drawing a circle in pixels changes it; least and
    largest are right within a pixel.

    Args:
        myocardium: boolean (H, W), one slice.
        spacing: (sy, sx), mm.

    Returns:
        mm; NaN throughout where the ring is open, or there is none. Pixels that touch by a corner
        close it.

    Raises:
        TypeError: the mask is not boolean.
        ValueError: it is not (H, W), or a spacing is not above 0.
    """
    if myocardium.dtype != np.bool_:
        raise TypeError(f"a boolean mask, please, not {myocardium.dtype}")
    if myocardium.ndim != 2 or len(spacing) != 2:
        raise ValueError(f"{myocardium.shape} and spacing {spacing} are not (H, W) and (sy, sx)")
    if not all(step > 0 for step in spacing):
        raise ValueError(f"spacing {spacing} is not above 0 mm throughout")
    filled = ndimage.binary_fill_holes(myocardium)
    holes, count = ndimage.label(filled & ~myocardium)
    if not count:
        return WallThickness(math.nan, math.nan, math.nan)
    cavity = holes == 1 + int(np.bincount(holes.ravel())[1:].argmax())
    pieces, _ = ndimage.label(filled)  # what lies apart has no part in the wall
    endocardium = _border(cavity, spacing)
    epicardium = _border(pieces == pieces[cavity][0], spacing)
    outward, _ = cKDTree(epicardium).query(endocardium)
    inward, _ = cKDTree(endocardium).query(epicardium)
    pooled = np.concatenate([outward, inward])
    return WallThickness(float(pooled.mean()), float(pooled.min()), float(pooled.max()))


def _border(region: NDArray[np.bool_], spacing: Sequence[float]) -> NDArray[np.float64]:
    """Return (M, 2) points, y and x in mm, where the border of a region crosses the pixel lines."""
    framed = np.pad(region.astype(float), math.ceil(4 * _SMOOTHING) + 1)
    smooth = ndimage.gaussian_filter(framed, _SMOOTHING)
    # what a smoothed disc of this area has at its edge: 0.5, the value at a straight edge, would
    # shrink a small cavity. Integral of a Gaussian over a disc whose rim passes through its centre
    height = smooth - (1 - i0e(region.sum() / (math.pi * _SMOOTHING**2))) / 2
    if not (height > 0).any():  # a slit, all rim: the midpoints of the pixel edges
        height = framed - 0.5
    points = []
    for axis in (0, 1):
        here = np.moveaxis(height, axis, 0)
        before, after = here[:-1], here[1:]
        crossing = (before > 0) != (after > 0)
        where = np.argwhere(crossing).astype(float)
        where[:, 0] += (before / np.where(crossing, before - after, 1))[crossing]
        points.append(where if axis == 0 else where[:, ::-1])
    return np.concatenate(points) * np.asarray(spacing, float)
