"""Overlap of two masks. Undefined values are NaN, never 0 or 1."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


def dice(predicted: NDArray[np.bool_], reference: NDArray[np.bool_]) -> float:
    """Dice coefficient, 2 |A and B| / (|A| + |B|).

    Args:
        predicted: boolean, any shape.
        reference: boolean, same shape.

    Returns:
        A value in [0, 1]; NaN when both are empty.

    Examples:
        >>> ring = np.array([True, True, False, False])
        >>> dice(ring, np.array([True, False, False, False]))
        0.6666666666666666
    """
    total = np.count_nonzero(predicted) + np.count_nonzero(reference)
    shared = np.count_nonzero(predicted & reference)
    return float(2 * shared / total) if total else float("nan")


def jaccard(predicted: NDArray[np.bool_], reference: NDArray[np.bool_]) -> float:
    """Jaccard index, |A and B| / |A or B|.

    Args:
        predicted: boolean, any shape.
        reference: boolean, same shape.

    Returns:
        A value in [0, 1]; NaN when both are empty.
    """
    union = np.count_nonzero(predicted | reference)
    return float(np.count_nonzero(predicted & reference) / union) if union else float("nan")


class PixelMeasures(NamedTuple):
    """Agreement of two masks, pixel by pixel."""

    accuracy: float
    sensitivity: float
    specificity: float
    precision: float


def pixel_measures(predicted: NDArray[np.bool_], reference: NDArray[np.bool_]) -> PixelMeasures:
    """Measure the agreement of all pixels, background included.

    Args:
        predicted: boolean, any shape.
        reference: boolean, same shape.

    Returns:
        Values in [0, 1]; NaN where nothing is counted, such as precision without a prediction.
        Accuracy and specificity grow with the background that the image shows.
    """
    found, true, both = (
        int(np.count_nonzero(mask)) for mask in (predicted, reference, predicted & reference)
    )
    neither = predicted.size - found - true + both
    return PixelMeasures(
        _ratio(both + neither, predicted.size),
        _ratio(both, true),
        _ratio(neither, predicted.size - true),
        _ratio(both, found),
    )


def psnr_db(predicted: NDArray[np.bool_], reference: NDArray[np.bool_]) -> float:
    """Peak signal-to-noise ratio of a mask, -10 log10 of the share of wrong pixels.

    Args:
        predicted: boolean, any shape, at least one pixel.
        reference: boolean, same shape.

    Returns:
        dB, 0 where every pixel is wrong, infinite where none is. It grows with the background that
        the image shows.

    Examples:
        >>> psnr_db(np.arange(100) < 10, np.arange(100) < 9)
        20.0
    """
    wrong = np.count_nonzero(predicted != reference) / predicted.size
    return -10 * math.log10(wrong) if wrong else math.inf


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
