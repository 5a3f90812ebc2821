"""MOLLI 5(3)3: when it samples the recovery of the signal, and the T1 map that is fitted to it.

Five images in five beats after an inversion, a pause of three beats, three images after another
inversion: Messroghli et al., MRM 2004; the scheme of Kellman and Hansen, JCMR 2014.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from cardiac_mtl.phantoms.heart import Array

FIRST_TI_MS: Final = 110.0
TI_STEP_MS: Final = 80.0
"""First inversion time, and by how much that of the second inversion is longer."""
READOUT_LOSS: Final = 0.22
"""Logarithm of the factor by which one readout takes magnetisation away [inferred: it gives T1*
of 0.8 T1 in myocardium at 60 beats a minute, about what 35 degrees do]."""
_APPARENT = np.geomspace(30.0, 6000.0, 96)
"""Values of T1* in ms that the fit begins with."""


def inversion_times(beat_ms: float) -> Array:
    """Return when the images are taken after their inversion, in ms, ascending.

    Args:
        beat_ms: from one R wave to the next.
    """
    first, second = np.arange(5) * beat_ms, np.arange(3) * beat_ms + TI_STEP_MS
    return np.sort(np.concatenate([first, second])) + FIRST_TI_MS


def recovery(t1: Array, times: Array, beat_ms: float) -> Array:
    """Return the signal after an inversion that is read out once a beat.

    Readouts speed the recovery up, 1/T1* = 1/T1 + loss/beat, and hold it below equilibrium, T1*/T1
    (Deichmann and Haase, JMR 1992). What a pause of three beats does not recover is left aside, so
    that the correction of `fit_t1` is exact.

    Args:
        t1: (...) in ms.
        times: (N,), see `inversion_times`.
        beat_ms: from one R wave to the next.

    Returns:
        (N, ...) from -1 at time 0 to T1*/T1.
    """
    apparent = 1 / (1 / t1 + READOUT_LOSS / beat_ms)
    settled = apparent / t1
    return settled - (settled + 1) * np.exp(-np.multiply.outer(times, 1 / apparent))


def fit_t1(magnitude: Array, times: Array) -> NDArray[np.float32]:
    """Fit A - B exp(-t/T1*) to magnitudes and correct T1 = T1* (B/A - 1).

    For each T1*, A and B are a linear regression, so that one number is sought: on a grid, then on
    parabolas. The sign is lost: the images before the one that is least bright are taken as
    negative, that one as either, and, as two images 80 ms apart may be alike, the one before it
    too: what fits best. Source: Barral et al., MRM 2010 (RD-NLS-PR); of the correction: Deichmann
    and Haase, JMR 1992.

    Args:
        magnitude: (N, ...), any unit.
        times: (N,) in ms, ascending.

    Returns:
        (...) in ms; 0 where nothing recovers, as in noise.
    """
    bright = np.asarray(magnitude, np.float64).reshape(len(times), -1)
    least, number = bright.argmin(axis=0), np.arange(len(times))[:, None]
    apparent: Array = np.zeros(bright.shape[1])
    unexplained = np.full_like(apparent, np.inf)
    negatives = np.zeros_like(least)
    for count in (least - 1, least, least + 1):
        start, left = _on_grid(np.where(number < count, -bright, bright), times)
        better = left < unexplained
        for kept, new in ((apparent, start), (unexplained, left), (negatives, count)):
            np.copyto(kept, new, where=better)
    signed: Array = np.where(number < negatives, -bright, bright)
    for step in (0.02, 0.004):
        apparent = _on_parabola(signed, times, apparent, step)
    return _corrected(signed, times, apparent).reshape(np.shape(magnitude)[1:])


def _on_grid(signed: Array, times: Array) -> tuple[Array, Array]:
    """Return the best T1* (pixels,) of the grid, and what it leaves unexplained."""
    shapes = _centred(-np.exp(-np.divide.outer(times, _APPARENT)))
    shapes /= np.linalg.norm(shapes, axis=0)
    centred = _centred(signed).astype(np.float32)  # for a start that is exact enough
    explained = shapes.T.astype(np.float32) @ centred  # negative where the signal falls
    best = explained.argmax(axis=0)
    share = np.maximum(explained.max(axis=0), 0)
    return _APPARENT[best], (centred**2).sum(axis=0) - share**2


def _on_parabola(signed: Array, times: Array, apparent: Array, step: float) -> Array:
    """Move log T1* to the top of the parabola through what three values of it explain."""
    centred = _centred(signed)
    low, middle, high = (
        _explained(centred, times, apparent * np.exp(k * step)) for k in (-1, 0, 1)
    )
    bend = low - 2 * middle + high
    top = np.divide(low - high, 2 * bend, out=np.zeros_like(bend), where=bend < 0)
    # the grid has steps of 0.056: what lies further away is no maximum
    return apparent * np.exp(np.clip(top * step, -0.06, 0.06))


def _explained(centred: Array, times: Array, apparent: Array) -> Array:
    shape = _centred(-np.exp(-np.divide.outer(times, apparent)))
    return (centred * shape).sum(axis=0) / np.sqrt((shape * shape).sum(axis=0))


def _corrected(signed: Array, times: Array, apparent: Array) -> NDArray[np.float32]:
    fall = np.exp(-np.divide.outer(times, apparent))
    shape = _centred(fall)
    b = -(_centred(signed) * shape).sum(axis=0) / (shape * shape).sum(axis=0)
    a = signed.mean(axis=0) + b * fall.mean(axis=0)
    recovers = (a > 0) & (b > a)
    ratio = np.divide(b, a, out=np.ones_like(b), where=recovers)
    return (apparent * (ratio - 1)).astype(np.float32)


def _centred(columns: Array) -> Array:
    return columns - columns.mean(axis=0)
