"""An infarct in the wall of the analytic heart: invisible at rest, seen by what does not move.

Necrosis spreads from the endocardium outward (wavefront), so that the infarct lies between the
endocardium and a share of the wall, its transmurality, which falls to 0 at the edge of a rounded
patch about a centre, in angle and along the long axis. The wall there neither thickens nor moves
inward, the less the more transmural the infarct is; the border is tethered: the change of motion
is smooth and reaches into the healthy wall. Nothing depends on contrast.

Heart coordinates as in `heart`: mm, angles about the long axis from the septum.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from cardiac_mtl.phantoms.heart import Array, Heart

# of the Gauss rule over the angle: ten times as many change no index by 1e-3 of its unit
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(200)


@dataclass(frozen=True)
class Infarct:
    """One infarct: a rounded patch of the wall, and how deep it goes.

    Args:
        centre_deg: angle of the centre from the septum.
        half_deg: half the angular size.
        centre_mm: z of the centre.
        half_mm: half the extent along the long axis.
        transmurality: deepest share of the wall, from the endocardium; 0 is no infarct.
        ragged: share by which the outer edge goes up and down, 0 is even.
        phase: of the ragged edge, radians.
        border: half the width of the change of motion, as a share of the half sizes: 0.3 of 45
            degrees is 7 mm at a radius of 30 mm.
    """

    centre_deg: float
    half_deg: float
    centre_mm: float
    half_mm: float
    transmurality: float
    ragged: float = 0.15
    phase: float = 0.0
    border: float = 0.3

    def depth(self, angle: Array, z: float) -> Array:
        """Return the share of the wall that is infarcted, at rest; 0 outside the patch.

        Args:
            angle: about the long axis, radians, any shape.
            z: mm.
        """
        return self._transmurality(angle, z) * np.clip(1 - self._reach(angle, z), 0, None) ** 0.25

    def reaches(self, z: float) -> bool:
        """Return whether any motion is missing at z in mm."""
        within = abs(z - self.centre_mm) < (1 + self.border) * self.half_mm
        return within and self.transmurality > 0

    def half_angle(self, z: float) -> float:
        """Return half the angular size at z in mm, in radians; 0 where there is no infarct."""
        along = ((z - self.centre_mm) / self.half_mm) ** 4
        return math.radians(self.half_deg) * float(max(1 - along, 0.0) ** 0.25)

    def akinesia(self, angle: Array, z: float) -> Array:
        """Return how much of the normal motion is missing.

        Args:
            angle: about the long axis, radians, any shape.
            z: mm.

        Returns:
            0 for normal motion, 1 for none; up to 1.05, a slight bulge, where the infarct is
            transmural. Half of that of the core at the edge of the patch.
        """
        share = self._transmurality(angle, z)
        reach = np.sqrt(np.sqrt(self._reach(angle, z)))
        within = np.clip((1 + self.border - reach) / (2 * self.border), 0, 1)
        # the first, subendocardial part of the wall does most of the thickening
        return 1.05 * share * (1.6 - 0.6 * share) * within * within * (3 - 2 * within)

    def _transmurality(self, angle: Array, z: float) -> Array:
        """Return the depth without the rounding at the edges, which motion does not show."""
        wave = np.cos(5 * angle + self.phase + z / 6)  # turns from slice to slice
        return self.transmurality * (1 - self.ragged * (1 + wave) / 2)

    def _reach(self, angle: Array, z: float) -> Array:
        """Return the distance from the centre to the power of 4: 1 at the edge of the patch."""
        off = (angle - math.radians(self.centre_deg) + math.pi) % (2 * math.pi) - math.pi
        square = (off / math.radians(self.half_deg)) ** 2
        return square * square + ((z - self.centre_mm) / self.half_mm) ** 4


class Walls(NamedTuple):
    """A section of the left ventricle at one phase, each for every angle or once for all."""

    inner: Array
    """Radius of the endocardium in mm."""
    outer: Array
    """Radius of the epicardium in mm."""
    radius: float | Array
    """Radius of the endocardium without its irregular contour, in mm."""
    contraction: float | Array
    """Contraction of this piece of the wall."""


def walls(
    heart: Heart, angle: Array, z: float, contraction: float, infarct: Infarct | None = None
) -> Walls:
    """Return where the wall is.

    Infarcted wall stays at its radius of end-diastole in the plane of the slice: it does not take
    part in the twist nor in the descent of the base either, so that the infarct of phase 0 is
    where motion is missing in the same pixels of all phases.

    Args:
        heart: anatomy.
        angle: about the long axis, radians, any shape.
        z: mm.
        contraction: 0 at end-diastole, 1 at end-systole.
        infarct: none for a healthy heart.
    """
    endo, epi = (shell.section(z) for shell in heart.shells(contraction))
    if infarct is None or not infarct.reaches(z):
        outline = heart.outline(angle, z, contraction)
        return Walls(endo * outline, epi * outline, float(endo), contraction)
    still = infarct.akinesia(angle, z)
    local = contraction * (1 - still)
    outline = heart.outline(angle, z, local)
    # where the base has passed, and beyond the apex, infarcted wall is gone as the rest of it
    radius, outer = (
        now + still * (rest.section(z) - now) * (now > 0)
        for now, rest in zip((endo, epi), heart.shells(0.0), strict=True)
    )
    return Walls(radius * outline, outer * outline, radius, local)


def section_indices(
    heart: Heart, infarct: Infarct, z: float, centre: tuple[float, float], septum_deg: float
) -> dict[str, float]:
    """Return the indices of the infarct in the section at z, at end-diastole.

    Integrals over the radius are closed; those over the angle are Gauss sums.

    Args:
        heart: anatomy.
        infarct: the infarct.
        z: mm.
        centre: of the LV in this section, rows and columns from the centre of pixel (0, 0) in mm.
        septum_deg: angle of the septum from the column axis, towards the rows.

    Returns:
        Those of `metrics.shape.INDEX_NAMES` but for the perimeter, with the conventions of
        `metrics.shape.infarct_indices` and of pixels that are points. Without infarct, size and
        percentage are 0 and the others NaN.
    """
    half = infarct.half_angle(z)
    angle, weight = math.radians(infarct.centre_deg) + half * _NODES, half * _WEIGHTS
    wall = walls(heart, angle, z, 0.0)
    edge = wall.inner + infarct.depth(angle, z) * (wall.outer - wall.inner)
    first, second, third = (
        (edge**power - wall.inner**power) / power * weight for power in (2, 3, 4)
    )
    size = float(first.sum())
    shape = dict.fromkeys(("centroid_y_mm", "centroid_x_mm"), math.nan)
    shape |= dict.fromkeys(("major_axis_mm", "minor_axis_mm", "orientation_deg"), math.nan)
    if size <= 0:
        return {"size_mm2": 0.0, "segment_percent": 0.0, **shape}
    turned = angle + math.radians(septum_deg)
    x, y = np.cos(turned), np.sin(turned)  # y runs down, as rows do
    mean_x, mean_y = float((second * x).sum()) / size, float((second * y).sum()) / size
    var_x = float((third * x * x).sum()) / size - mean_x**2
    var_y = float((third * y * y).sum()) / size - mean_y**2
    cov = mean_x * mean_y - float((third * x * y).sum()) / size  # y points up
    middle, spread = (var_x + var_y) / 2, math.hypot((var_x - var_y) / 2, cov)
    return {
        "size_mm2": size,
        "segment_percent": 100 * size / float(heart.myocardial_area(z, 0.0)),
        "centroid_y_mm": centre[0] + mean_y,
        "centroid_x_mm": centre[1] + mean_x,
        "major_axis_mm": 4 * math.sqrt(middle + spread),
        "minor_axis_mm": 4 * math.sqrt(max(middle - spread, 0.0)),
        "orientation_deg": math.degrees(math.atan2(2 * cov, var_x - var_y)) / 2,
    }
