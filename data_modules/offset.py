"""By how much the masks of a data set lie off its images.

Contours that count pixels from their corners, filled by a program that counts from their centres,
lie half a pixel off. That is nothing to see, but much to a wall of three pixels: augmentation that
turns and mirrors image and mask alike shows the network the one heart with masks a pixel apart.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, optimize

from data_modules.cases import Case
from data_modules.store import PreparedStore

_REACH = 2.0
"""Pixels along each side within which an offset is looked for."""
_MARGIN = 8
"""Pixels around a ring that are looked at: the transform repeats what it is given."""
_LEAST_BLOOD = 9
"""Pixels that a ring has to enclose."""
_SMALLEST = 1e-12
"""Variance of a heart of one brightness, which tells nothing."""


class Offset(NamedTuple):
    """How the masks of several hearts lie."""

    column: float
    """Median over the hearts, in pixels; masks lie to the right where it is positive."""
    row: float
    """The same, downwards."""
    error: tuple[float, float]
    """Standard error of the means of both over the hearts, in pixels."""
    hearts: int

    @property
    def place(self) -> tuple[float, float]:
        """Column and row."""
        return self.column, self.row

    def __str__(self) -> str:
        """Return it as people say it."""
        side, end = "right" if self.column > 0 else "left", "below" if self.row > 0 else "above"
        across, down = (
            f"{abs(place):.2f}" + f" ± {error:.2f}" * (self.hearts > 1)
            for place, error in zip(self.place, self.error, strict=True)
        )
        patients = "1 patient" if self.hearts == 1 else f"{self.hearts} patients"
        return f"{across} pixels to the {side} of the images and {down} {end} ({patients})"


def mask_offset(
    images: NDArray[np.float32], muscle: NDArray[np.bool_]
) -> tuple[float, float] | None:
    """Find by how much the masks of one heart lie off its images.

    Blood and muscle differ in brightness, whichever is the brighter: the offset is the shift of
    the images at which brightness tells them apart best, as correlation with being blood, mean
    over the slices. Shifts are exact, by the Fourier transform: interpolation would smooth the
    noise away half-way between pixels, and so prefer half-pixels.

    Args:
        images: (S, H, W).
        muscle: (S, H, W), the myocardium.

    Returns:
        Column and row in pixels, or None where no slice has a closed ring.
    """
    blood = np.stack([ndimage.binary_fill_holes(one) & ~one for one in muscle])
    closed = blood.sum((1, 2)) >= _LEAST_BLOOD
    if not closed.any():
        return None
    rows, columns = (
        slice(max(0, int(where.min()) - _MARGIN), int(where.max()) + 1 + _MARGIN)
        for where in np.nonzero(muscle[closed].any(0))
    )
    images, blood, muscle = (a[closed][:, rows, columns] for a in (images, blood, muscle))
    height, width = images.shape[1:]
    spectrum = np.fft.rfft2(images)
    heart = blood | muscle
    where = np.flatnonzero(heart)
    inside = heart.sum((1, 2))
    first = np.cumsum(inside) - inside
    share = blood.sum((1, 2)) / inside
    is_blood = blood.ravel()[where] - np.repeat(share, inside)
    spread = np.sqrt(share * (1 - share))

    def mixture(place: NDArray[np.float64]) -> float:
        moved = ndimage.fourier_shift(spectrum, (0, place[1], place[0]), n=width)
        bright = np.fft.irfft2(moved, s=(height, width)).ravel()[where]
        mean, square, together = (
            np.add.reduceat(values, first) / inside
            for values in (bright, bright**2, bright * is_blood)
        )
        deviation = np.sqrt(np.maximum(square - mean**2, _SMALLEST))
        return -float(np.abs(together / (spread * deviation)).mean())

    found = optimize.minimize(
        mixture,
        (0.0, 0.0),
        method="Nelder-Mead",
        bounds=[(-_REACH, _REACH)] * 2,
        options={
            "initial_simplex": [(0.0, 0.0), (0.5, 0.0), (0.0, 0.5)],
            "xatol": 0.01,
            "fatol": 1e-5,
        },
    )
    return float(found.x[0]), float(found.x[1])


def typical(places: Sequence[tuple[float, float] | None]) -> Offset | None:
    """Return how the masks of several hearts lie, or None where none could be measured."""
    known = np.asarray([place for place in places if place is not None])
    if not len(known):
        return None
    column, row = np.median(known, axis=0)
    error = known.std(0, ddof=1) / np.sqrt(len(known)) if len(known) > 1 else [np.inf, np.inf]
    return Offset(float(column), float(row), (float(error[0]), float(error[1])), len(known))


def measurable(cases: Sequence[Case]) -> dict[str, int]:
    """Return the place of one case of each patient that tells how masks lie.

    It has a mask of its own, not kept for testing, and is no LGE, where scars are bright as blood.
    """
    return {
        case.patient_id: row
        for row, case in reversed(list(enumerate(cases)))
        if any(case.mask)
        and not (case.transferred or case.withheld)
        and case.sequence.strip().upper() != "LGE"  # a table may have it in small letters
    }


def offset_of(store: PreparedStore, cases: Sequence[int], wall: Sequence[int]) -> Offset | None:
    """Return how the masks of some cases of a prepared store lie, each by its first phase.

    Args:
        store: of the cases.
        cases: rows of the case table.
        wall: values of the mask between blood and what is outside, infarcts too.
    """
    measured = []
    for case in cases:
        image, mask = store.gather(store.slices_of([case]))
        still = image if image.ndim == 3 else image[:, 0]
        measured.append(mask_offset(still.numpy(), np.isin(mask.numpy(), wall)))
    return typical(measured)
