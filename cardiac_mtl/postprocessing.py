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
