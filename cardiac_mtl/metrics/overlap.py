"""Overlap of two masks. Undefined values are NaN, never 0 or 1."""

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
