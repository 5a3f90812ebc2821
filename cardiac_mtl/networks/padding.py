"""Images of any size for networks that halve them several times."""

from typing import NamedTuple

from torch import Tensor
from torch.nn import functional as F


class Margins(NamedTuple):
    """Pixels added at each side of an image."""

    left: int
    right: int
    top: int
    bottom: int


def margins(image: Tensor, multiple: int = 1, at_least: int = 1) -> Margins:
    """Return what an image lacks, one half at each side; an odd pixel comes last.

    Args:
        image: (..., H, W).
        multiple: both sides become multiples of it.
        at_least: smallest side, itself such a multiple.

    Examples:
        >>> import torch
        >>> margins(torch.zeros(256, 218), multiple=16)
        Margins(left=3, right=3, top=0, bottom=0)
    """
    down, across = (max(-side % multiple, at_least - side) for side in image.shape[-2:])
    return Margins(across // 2, across - across // 2, down // 2, down - down // 2)


def padded(image: Tensor, sides: Margins) -> Tensor:
    """Add zeros around (..., H, W), as convolutions do."""
    return F.pad(image, tuple(sides))


def unpadded(image: Tensor, sides: Margins) -> Tensor:
    """Take away exactly what `padded` added."""
    left, right, top, bottom = sides
    return image[..., top : image.shape[-2] - bottom, left : image.shape[-1] - right]
