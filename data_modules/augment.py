"""Random transformations of whole batches on the device: chance first, then arithmetic."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from cardiac_mtl.contracts import UNLABELLED
from cardiac_mtl.errors import UserError

ON_IMAGE = (0.0, 0.0)
"""Offset of masks that lie where their images have them."""
_BIAS_KNOTS = 3
"""The bias field is a smooth surface through this many values a side."""
_SQUARE = 1e-3
"""By how much the sides of a pixel may differ in length, as a share: headers are rounded."""


@dataclass(frozen=True)
class Augmentation:
    """Ranges of the random transformations; the defaults are the paper's of MTN.

    Args:
        probability: share of the samples that are transformed [paper: two transformed copies
            beside each original, so two thirds].
        rotation_deg: rotation is uniform within plus or minus this [inferred: 180].
        translation: shift along each side is uniform within plus or minus this share of the
            side [paper: half the image].
        zoom: scale is log-uniform between 1 / (1 + zoom) and 1 + zoom [paper: none].
        shear_deg: shear angle is uniform within plus or minus this [paper: none].
        flip: mirror half of the transformed samples [paper: no].
        gamma: contrast: z is mapped to sign(z) |z|^g, g log-uniform between 1 / (1 + gamma)
            and 1 + gamma [paper: none].
        bias: coil shading: the image is multiplied by the exponential of a smooth field whose
            knots are uniform within plus or minus this [paper: none].
        noise: SD of added Gaussian noise is uniform up to this, in SD of the image [paper: none].
        keep_offset: where the masks of a data set lie beside its images, as by half a pixel, have
            them lie so beside images that are turned or mirrored too: what is turned with them
            teaches a network to mistrust borders. The offset is that of the training patients,
            measured where blood and muscle meet, see `data_modules.offset` [paper: no].
    """

    probability: float = 2 / 3
    rotation_deg: float = 180.0
    translation: float = 0.5
    zoom: float = 0.0
    shear_deg: float = 0.0
    flip: bool = False
    gamma: float = 0.0
    bias: float = 0.0
    noise: float = 0.0
    keep_offset: bool = False

    def __post_init__(self) -> None:
        """Refuse what is no range."""
        for name, value in vars(self).items():
            if not 0 <= value < math.inf or (name == "probability" and value > 1):
                fix = "give 0 to 1" if name == "probability" else "give 0 or more"
                raise UserError(f"{value}", where=f"data.augmentation.{name}", fix=fix)


@dataclass(frozen=True)
class Draws:
    """What chance decided, sample by sample. Stays on the CPU: asking it synchronises nothing."""

    theta: Tensor
    """(N, 2, 3), affine from output to input in pixels about the centre: column, row. As drawn the
    pixels are square, see `in_mm`."""
    gamma: Tensor
    """(N,), exponent of the contrast."""
    bias: Tensor
    """(N, 1, 3, 3), knots of the logarithm of the shading."""
    noise: Tensor
    """(N,), SD of the noise."""
    noise_seed: Tensor
    """int64 (N,); that of the first sample of a batch seeds the noise of the batch."""

    def __getitem__(self, samples: Tensor) -> "Draws":
        """Return the draws of some samples, such as those of one batch."""
        return Draws(*(getattr(self, name)[samples] for name in self.__dataclass_fields__))

    def in_mm(self, spacing: Tensor) -> "Draws":
        """Return draws that turn and shear in mm; shifts stay shares of the sides.

        Turned in pixels that are not square, a round heart would become an ellipse.

        Args:
            spacing: float32 (N, 3), slice, row and column spacing in mm.
        """
        ratio = spacing[:, 1] / spacing[:, 2]
        square = (ratio - 1).abs() < _SQUARE
        if bool(square.all()):
            return self
        linear, shift = self.theta[:, :, :2], self.theta[:, :, 2:]
        one = torch.ones_like(ratio)
        turned = linear * torch.stack([one, ratio, 1 / ratio, one], dim=1).unflatten(1, (2, 2))
        theta = torch.cat([turned, turned @ torch.linalg.solve(linear, shift)], dim=2)
        return replace(self, theta=torch.where(square[:, None, None], self.theta, theta))


def draw(
    ranges: Augmentation, count: int, size: tuple[int, int], generator: torch.Generator
) -> Draws:
    """Draw the parameters of some samples, such as all those of an epoch.

    Args:
        ranges: what may happen.
        count: N.
        size: (H, W) of the images.
        generator: on the CPU; the draws do not depend on the device of the images.

    Returns:
        Identity for the samples that chance left alone.
    """
    u = torch.rand(9, count, generator=generator)
    chosen = u[0] < ranges.probability
    spread = (2 * u[1:7] - 1) * chosen  # -1..1, and 0 for the samples left alone
    angle = (spread[0] * ranges.rotation_deg).deg2rad()
    scale = (1 + ranges.zoom) ** -spread[1]
    mirror = torch.where((u[7] < 0.5) & chosen & ranges.flip, -1.0, 1.0)
    shear = (spread[2] * ranges.shear_deg).deg2rad().tan()
    cos, sin = angle.cos() * scale, angle.sin() * scale
    columns = [cos * mirror, sin * mirror], [cos * shear - sin, sin * shear + cos]
    linear = torch.stack([torch.stack(column, -1) for column in columns], -1)
    shift = spread[3:5].T * ranges.translation * torch.tensor([float(size[1]), float(size[0])])
    knots = torch.rand(count, 1, _BIAS_KNOTS, _BIAS_KNOTS, generator=generator)
    return Draws(
        theta=torch.cat([linear, -linear @ shift[:, :, None]], dim=2),
        gamma=(1 + ranges.gamma) ** spread[5],
        bias=ranges.bias * (2 * knots - 1) * chosen[:, None, None, None],
        noise=ranges.noise * u[8] * chosen,
        noise_seed=torch.randint(2**62, (count,), generator=generator),
    )


def transform(
    image: Tensor,
    mask: Tensor,
    draws: Draws,
    num_classes: int = 2,
    offset: tuple[float, float] = ON_IMAGE,
) -> tuple[Tensor, Tensor]:
    """Apply drawn parameters to images and masks alike.

    Args:
        image: float32 (B, C, H, W); what comes in from outside is 0.
        mask: int8 or int64 (B, H, W); what comes in from outside is background, or `UNLABELLED` on
            slices without annotation.
        draws: of the same batch.
        num_classes: of the mask, the background included.
        offset: columns and rows by which masks lie beside their images, and are to lie beside
            those that are returned.

    Returns:
        Image by linear interpolation, and the mask whose class has the largest linearly
        interpolated share of each pixel; same shapes and types. Nearest neighbour would move
        the border of a thin wall by up to half a pixel.
    """
    channels = image.shape[1]
    grid = _grid(draws.theta, image)
    # comparisons that write numbers take a fifth of the time of those that write booleans
    joined = image.new_empty(len(image), channels + num_classes - 1, *image.shape[-2:])
    joined[:, :channels] = image
    for value in range(1, num_classes):
        torch.eq(mask, value, out=joined[:, channels + value - 1])
    if offset == ON_IMAGE:
        moved, shares = _sample(joined, grid, "bilinear").split([channels, num_classes - 1], dim=1)
    else:
        moved = _sample(joined[:, :channels], grid, "bilinear")
        grid = _grid(_about(offset, draws.theta), image)
        shares = _sample(joined[:, channels:], grid, "bilinear")
    moved_mask = _largest_share(shares.unbind(1)).to(mask.dtype)
    if mask.device.type != "cpu" or int(mask.amin()) < 0:  # asking a GPU would wait for it
        unlabelled = mask == UNLABELLED
        lost = _sample(unlabelled[:, None].to(image.dtype), grid, "nearest")[:, 0] > 0
        nothing_known = unlabelled.flatten(1).all(1)[:, None, None]
        moved_mask.masked_fill_(lost | nothing_known, UNLABELLED)
    return _intensity(moved, draws), moved_mask


def transform_image(image: Tensor, draws: Draws) -> Tensor:
    """Do to images alone what `transform` does to them."""
    return _intensity(_sample(image, _grid(draws.theta, image), "bilinear"), draws)


def transform_mask(
    mask: Tensor, draws: Draws, num_classes: int = 2, offset: tuple[float, float] = ON_IMAGE
) -> Tensor:
    """Do to masks alone what `transform` does to them."""
    nothing = torch.empty(len(mask), 0, *mask.shape[1:], device=mask.device)
    return transform(nothing, mask, draws, num_classes, offset)[1]


def _largest_share(shares: Sequence[Tensor]) -> Tensor:
    """Return the class, from 0 the background, that has the largest share of each pixel.

    Args:
        shares: (B, H, W) of each class after the background.
    """
    best = 1 - reduce(torch.add, shares)
    winner = torch.zeros_like(best)
    torch.gt(shares[0], best, out=winner)
    for value, share in enumerate(shares[1:], start=2):
        best = torch.maximum(best, shares[value - 2])
        winner.masked_fill_(share > best, value)
    return winner


def _about(offset: tuple[float, float], theta: Tensor) -> Tensor:
    """Return affine transforms (B, 2, 3) of masks that lie off their images, before and after.

    A mask that is to say at u what it said at T(u) of the heart, both times beside it by the
    offset, is asked at T(u - offset) + offset.
    """
    linear, shift = theta[:, :, :2], theta[:, :, 2:]
    place = theta.new_tensor(offset)[:, None]
    return torch.cat([linear, shift + place - linear @ place], dim=2)


def _grid(theta: Tensor, image: Tensor) -> Tensor:
    """Return where each pixel comes from, (B, H, W, 2) in the units of `grid_sample`.

    Args:
        theta: (B, 2, 3) on the CPU, in pixels about the centre.
        image: (B, C, H, W), on the device of the result.
    """
    height, width = image.shape[-2:]
    columns = torch.arange(width) - (width - 1) / 2
    rows = torch.arange(height) - (height - 1) / 2
    across = theta[:, :, :1] * columns + theta[:, :, 2:]  # (B, 2, W)
    down = theta[:, :, 1:2] * rows  # (B, 2, H)
    scale = theta.new_tensor([2 / width, 2 / height])[:, None]
    # all but the sum is on the CPU: two small copies are less than a dozen kernels of a GPU
    across, down = ((part * scale).to(image.device, non_blocking=True) for part in (across, down))
    # one sum of vectors, plane by plane: a tenth of the time of `affine_grid` on the CPU
    return (across[:, :, None, :] + down[:, :, :, None]).permute(0, 2, 3, 1)


def _sample(image: Tensor, grid: Tensor, mode: Literal["bilinear", "nearest"]) -> Tensor:
    return F.grid_sample(image, grid, mode=mode, align_corners=False)


def _intensity(image: Tensor, draws: Draws) -> Tensor:
    """Change contrast, shading and noise where chance asks for it."""
    if bool((draws.gamma != 1).any()):
        exponent = draws.gamma.to(image.device, non_blocking=True)[:, None, None, None]
        image = image.sign() * image.abs().pow(exponent)
    if bool(draws.bias.any()):
        knots = draws.bias.to(image.device, non_blocking=True)
        size = (image.shape[-2], image.shape[-1])
        field = F.interpolate(knots, size, mode="bicubic", align_corners=True)
        image = image * field.exp()
    if bool(draws.noise.any()):
        seed = int(draws.noise_seed[0])
        generator = torch.Generator(image.device).manual_seed(seed)
        field = torch.randn(image.shape, generator=generator, device=image.device)
        sd = draws.noise.to(image.device, non_blocking=True)
        image = image + field * sd[:, None, None, None]
    return image
