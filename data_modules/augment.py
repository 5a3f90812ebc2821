"""Random transformations of whole batches on the device: chance first, then arithmetic."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from cardiac_mtl.contracts import UNLABELLED


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
        gamma: contrast: z is mapped to sign(z) |z|^g, g log-uniform between 1 / (1 + gamma)
            and 1 + gamma [paper: none].
        noise: SD of added Gaussian noise is uniform up to this, in SD of the image [paper: none].
        flip: mirror half of the transformed samples [paper: no].
    """

    probability: float = 2 / 3
    rotation_deg: float = 180.0
    translation: float = 0.5
    zoom: float = 0.0
    gamma: float = 0.0
    noise: float = 0.0
    flip: bool = False


@dataclass(frozen=True)
class Draws:
    """What chance decided for one batch."""

    theta: Tensor
    """(B, 2, 3), affine from output to input in pixels about the centre: column, row."""
    gamma: Tensor
    """(B,), exponent of the contrast."""
    noise: Tensor
    """(B,), SD of the noise."""


def draw(
    ranges: Augmentation, batch_size: int, size: tuple[int, int], generator: torch.Generator
) -> Draws:
    """Draw the parameters of one batch.

    Args:
        ranges: what may happen.
        batch_size: B.
        size: (H, W) of the images.
        generator: on the CPU; the draws do not depend on the device of the images.

    Returns:
        Identity for the samples that chance left alone.
    """
    u = torch.rand(7, batch_size, generator=generator)
    chosen = u[0] < ranges.probability
    spread = (2 * u[1:6] - 1) * chosen  # -1..1, and 0 for the samples left alone
    angle = spread[0] * torch.pi * ranges.rotation_deg / 180
    scale = (1 + ranges.zoom) ** -spread[1]
    mirror = torch.where((u[6] < 0.5) & chosen & ranges.flip, -1.0, 1.0)
    cos, sin = angle.cos() * scale, angle.sin() * scale
    shift_column = spread[2] * ranges.translation * size[1]
    shift_row = spread[3] * ranges.translation * size[0]
    rows = [
        torch.stack([cos * mirror, -sin, -(cos * mirror * shift_column - sin * shift_row)], -1),
        torch.stack([sin * mirror, cos, -(sin * mirror * shift_column + cos * shift_row)], -1),
    ]
    return Draws(
        theta=torch.stack(rows, 1),
        gamma=(1 + ranges.gamma) ** spread[4],
        noise=ranges.noise * torch.rand(batch_size, generator=generator) * chosen,
    )


def transform(
    image: Tensor, mask: Tensor, draws: Draws, noise_seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Apply drawn parameters to images and masks alike.

    Args:
        image: float32 (B, C, H, W); what comes in from outside is 0.
        mask: int64 (B, H, W); what comes in from outside is background, or `UNLABELLED` on
            slices without annotation.
        draws: of the same batch.
        noise_seed: seed of the noise field.

    Returns:
        Image by linear and mask by nearest interpolation, same shapes and types.
    """
    height, width = image.shape[-2:]
    to_unit = image.new_tensor([2 / width, 2 / height])
    theta = draws.theta.to(image.device, non_blocking=True)
    linear = theta[:, :, :2] * to_unit[:, None] / to_unit
    theta = torch.cat([linear, theta[:, :, 2:] * to_unit[:, None]], dim=2)
    grid = F.affine_grid(theta, [len(image), 1, height, width], align_corners=False)
    moved = F.grid_sample(image, grid, mode="bilinear", align_corners=False)
    classes = mask[:, None].to(image.dtype) - UNLABELLED  # so that outside is 0 = unlabelled
    classes = F.grid_sample(classes, grid, mode="nearest", align_corners=False)[:, 0]
    moved_mask = classes.round().long() + UNLABELLED
    annotated = (mask != UNLABELLED).any(dim=2).any(dim=1)[:, None, None]
    moved_mask = moved_mask.masked_fill((moved_mask == UNLABELLED) & annotated, 0)
    return _contrast_and_noise(moved, draws, noise_seed), moved_mask


def _contrast_and_noise(image: Tensor, draws: Draws, noise_seed: int) -> Tensor:
    # the draws live on the CPU: asking them costs no synchronisation with the device
    if bool((draws.gamma != 1).any()):
        exponent = draws.gamma.to(image.device)[:, None, None, None]
        image = image.sign() * image.abs().pow(exponent)
    if not bool((draws.noise > 0).any()):
        return image
    generator = torch.Generator(image.device).manual_seed(noise_seed)
    field = torch.randn(image.shape, generator=generator, device=image.device)
    return image + field * draws.noise.to(image.device)[:, None, None, None]
