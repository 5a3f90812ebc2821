"""What is done to a predicted mask before it is scored or written."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


def largest_component(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Keep the largest connected component.

    Args:
        mask: boolean, any dimension; voxels touch by their faces (6-connected in 3-D).

    Returns:
        The same shape; the first of two of one size; empty stays empty.
    """
    components, count = ndimage.label(mask)
    if count < 2:
        return mask
    sizes = np.bincount(components.ravel())[1:]
    return components == 1 + int(sizes.argmax())


def cavity(myocardium: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return what a ring of myocardium encloses, slice by slice.

    Args:
        myocardium: boolean (S, H, W).

    Returns:
        The same shape; nothing where the ring is open.
    """
    filled = np.stack([ndimage.binary_fill_holes(image) for image in myocardium])
    return filled & ~myocardium


def closed_then_opened(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Close small gaps and then remove small islands, slice by slice, by a square of 3 x 3.

    The classes are taken for grey values: a gap gets the lowest class around it, and what is
    thinner than the square the highest of the lower classes beside it.

    Args:
        mask: (S, H, W).

    Returns:
        The same shape.
    """
    square = (1, 3, 3)
    return ndimage.grey_opening(ndimage.grey_closing(mask, size=square), size=square)
