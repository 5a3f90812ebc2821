"""An analytic left ventricle: a thick-walled truncated ellipsoid that beats, exact at any phase.

The cavity follows a volume curve; the volume of the wall is conserved, so that the wall thickens
as it contracts; the base descends towards a fixed apex; the wall twists. Both contours are
irregular, r(theta) = r (1 + sum_k a_k cos(k theta + phi_k)), which keeps areas and volumes closed.

Heart coordinates in mm: z along the long axis, 0 at the end-diastolic base, positive to the apex;
x from the centre of the LV towards the septum.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Shell:
    """A truncated ellipsoid about the long axis, at one phase."""

    radius: float
    """Short semi-axis in mm."""
    length: float
    """Long semi-axis in mm."""
    centre: float
    """z of the equator in mm."""
    base: float
    """z of the truncation in mm, above the equator."""
    roughness: float
    """1 + sum of a_k^2 / 2: area of the irregular section over that of the circle."""

    def section(self, z: float | Array) -> Array:
        """Return the mean radius of the section at z in mm; 0 where there is none."""
        z = np.asarray(z, dtype=float)
        inside = 1 - ((z - self.centre) / self.length) ** 2
        return np.where(z >= self.base, self.radius * np.sqrt(np.clip(inside, 0, None)), 0.0)

    def area(self, z: float | Array) -> Array:
        """Return the area of the section at z in mm2."""
        return math.pi * self.section(z) ** 2 * self.roughness

    def volume_ml(self) -> float:
        """Return the volume, in closed form."""
        return self.radius**2 * _unit_volume(self.length, self.centre - self.base, self.roughness)


@dataclass(frozen=True)
class Heart:
    """Anatomy and function of one patient.

    Args:
        edv_ml: end-diastolic volume of the cavity.
        ef_percent: ejection fraction.
        wall_mm: end-diastolic thickness of the wall at the equator.
        length_mm: end-diastolic long semi-axis of the cavity.
        descent_mm: by how much the base descends in systole.
        twist_deg: by how much the apex turns in systole.
        harmonics: order to (amplitude, phase) of the irregular contour.
    """

    edv_ml: float = 140.0
    ef_percent: float = 60.0
    wall_mm: float = 9.0
    length_mm: float = 62.0
    descent_mm: float = 12.0
    twist_deg: float = 12.0
    harmonics: dict[int, tuple[float, float]] = field(default_factory=dict)

    @property
    def roughness(self) -> float:
        """Area of the irregular section over that of the circle."""
        return 1 + sum(amplitude**2 for amplitude, _ in self.harmonics.values()) / 2

    @property
    def myocardium_ml(self) -> float:
        """Volume of the wall, the same at every phase."""
        return self._epicardium_at_rest().volume_ml() - self.edv_ml

    def cavity_ml(self, contraction: float) -> float:
        """Return the volume of the cavity.

        Args:
            contraction: 0 at end-diastole, 1 at end-systole.
        """
        return self.edv_ml * (1 - self.ef_percent / 100 * contraction)

    def shells(self, contraction: float) -> tuple[Shell, Shell]:
        """Return endocardium and epicardium; their volumes differ by that of the wall.

        Args:
            contraction: 0 at end-diastole, 1 at end-systole.
        """
        base = self.descent_mm * contraction
        height = 0.35 * self.length_mm  # of the base above the equator, at rest
        apex = height + self.length_mm
        shrink = 1 - base / (height + self.length_mm)
        endo = self._shell(self.cavity_ml(contraction), self.length_mm * shrink, apex, base)
        volume = self.cavity_ml(contraction) + self.myocardium_ml
        length = (self.length_mm + 0.8 * self.wall_mm) * shrink
        return endo, self._shell(volume, length, apex + 0.8 * self.wall_mm * shrink, base)

    def myocardial_area(self, z: float | Array, contraction: float) -> Array:
        """Return the area of the wall in the section at z, in mm2, in closed form."""
        endo, epi = self.shells(contraction)
        return epi.area(z) - endo.area(z)

    def outline(self, angle: Array, z: float, contraction: float | Array) -> Array:
        """Return the factor of the irregular contour at an angle, turned by the twist.

        Args:
            angle: about the long axis, radians, 0 at the septum.
            z: mm.
            contraction: 0 at end-diastole, 1 at end-systole; for all or for each angle.
        """
        depth = np.clip(z / (1.35 * self.length_mm), 0, 1)
        turned = angle - math.radians(self.twist_deg) * contraction * (depth - 0.3)
        waves = [a * np.cos(k * turned + phase) for k, (a, phase) in self.harmonics.items()]
        return 1 + np.sum(waves, axis=0) if waves else np.ones_like(angle)

    def _epicardium_at_rest(self) -> Shell:
        height, length = 0.35 * self.length_mm, self.length_mm
        endo = self._shell(self.edv_ml, length, height + length, 0.0)
        return Shell(
            endo.radius + self.wall_mm, length + 0.8 * self.wall_mm, height, 0.0, self.roughness
        )

    def _shell(self, volume_ml: float, length: float, apex: float, base: float) -> Shell:
        centre = apex - length
        unit = _unit_volume(length, centre - base, self.roughness)
        return Shell(math.sqrt(volume_ml / unit), length, centre, base, self.roughness)


def contraction_curve(phases: int) -> Array:
    """Return how far systole has gone at each phase of one beat.

    Args:
        phases: T; phase 0 is end-diastole.

    Returns:
        (T,) from 0 at end-diastole to 1 at 37 % of the beat: ejection, rapid filling,
        diastasis, atrial kick.
    """
    time = np.arange(phases) / phases
    ejection = np.sin(np.pi / 2 * np.clip(time / 0.37, 0, 1)) ** 2
    filling = np.sin(np.pi / 2 * np.clip((time - 0.37) / 0.25, 0, 1)) ** 2
    kick = np.sin(np.pi / 2 * np.clip((time - 0.85) / 0.15, 0, 1)) ** 2
    return ejection - 0.78 * filling - 0.22 * kick


def _unit_volume(length: float, height: float, roughness: float) -> float:
    """Return ml per mm2 of the short semi-axis, of an ellipsoid cut `height` above its equator."""
    extent = (length + height) - (length**3 + height**3) / (3 * length**2)
    return math.pi * roughness * extent / 1000
