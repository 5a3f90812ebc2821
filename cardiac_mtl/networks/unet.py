"""The U-Net of MTN: a trunk up to the last concatenation, and the heads that stand on it.

Source: Ronneberger et al., MICCAI 2015, as adapted by Dangi et al., STACOM 2018.
"""

from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from cardiac_mtl.errors import UserError
from cardiac_mtl.networks.padding import margins, padded, unpadded
from cardiac_mtl.networks.regression import Float32Linear

BranchPoint = Literal["final", "dec2", "dec3", "bottleneck"]
"""Where a head may stand on the trunk."""


class UNetFeatures(NamedTuple):
    """Feature maps of the trunk, b = width."""

    bottleneck: Tensor
    """(B, 16b, H/16, W/16)."""
    dec3: Tensor
    """(B, 4b, H/4, W/4)."""
    dec2: Tensor
    """(B, 2b, H/2, W/2)."""
    final: Tensor
    """(B, 2b, H, W), the last up-sampling concatenated with the first encoder stage."""


_MULTIPLIER_AND_STRIDE = {"final": (2, 1), "dec2": (2, 2), "dec3": (4, 4), "bottleneck": (16, 16)}


class ConvBlock(nn.Sequential):
    """Twice 3x3 convolution, batch norm, ReLU.

    Args:
        in_channels: channels of the input.
        out_channels: channels after each convolution.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        layers: list[nn.Module] = []
        for channels in (in_channels, out_channels):
            layers += [
                nn.Conv2d(channels, out_channels, 3, padding=1),
                nn.BatchNorm2d(out_channels),
                nn.ReLU(inplace=True),
            ]
        super().__init__(*layers)


class UNetTrunk(nn.Module):
    """Encoder and decoder up to the last concatenation.

    Args:
        in_channels: channels of the image.
        width: b, features at full resolution [paper: not stated; 64 of the adapted U-Net].
    """

    def __init__(self, in_channels: int = 1, width: int = 64) -> None:
        super().__init__()
        b = width
        stages = [in_channels, b, 2 * b, 4 * b, 8 * b]
        self.encoders = nn.ModuleList(ConvBlock(i, o) for i, o in pairwise(stages))
        self.pool = nn.MaxPool2d(2)
        self.bottleneck = ConvBlock(8 * b, 16 * b)
        self.ups = nn.ModuleList(
            nn.ConvTranspose2d(2 * c, c, 2, stride=2) for c in (8 * b, 4 * b, 2 * b, b)
        )
        self.decoders = nn.ModuleList(ConvBlock(2 * c, c) for c in (8 * b, 4 * b, 2 * b))

    def forward(self, image: Tensor) -> UNetFeatures:
        """Map (B, C, H, W), sides multiples of 16, to the features that heads stand on."""
        skips = []
        x = image
        for encoder in self.encoders:
            skips.append(encoder(x))
            x = self.pool(skips[-1])
        bottleneck = self.bottleneck(x)
        decoded = [bottleneck]
        for up, decoder in zip(self.ups, self.decoders, strict=False):
            joined = torch.cat([skips.pop(), up(decoded[-1])], dim=1)
            decoded.append(decoder(joined))
        final = torch.cat([skips.pop(), self.ups[-1](decoded[-1])], dim=1)
        return UNetFeatures(bottleneck=bottleneck, dec3=decoded[2], dec2=decoded[3], final=final)


class SegmentationHead(nn.Sequential):
    """Own convolutions on the last concatenation, then one logit a pixel.

    Args:
        width: b of the trunk.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__(ConvBlock(2 * width, width), nn.Conv2d(width, 1, 1))


class RegressionHead(nn.Module):
    """Own convolutions, max pooling, one fully connected layer to one number.

    Args:
        width: b of the trunk.
        image_size: (H, W) of the image, which fixes the size of the fully connected layer.
        branch_at: the feature map that the head stands on [paper: final].
        pool: side of the pooling window [paper: a quarter of the size, read as each side].

    Raises:
        UserError: the window is larger than the feature map.
    """

    def __init__(
        self,
        width: int,
        image_size: tuple[int, int],
        branch_at: BranchPoint = "final",
        pool: int = 4,
    ) -> None:
        super().__init__()
        multiplier, stride = _MULTIPLIER_AND_STRIDE[branch_at]
        sides = [side // stride for side in image_size]
        if not 1 <= pool <= min(sides):
            raise UserError(f"{pool}", where="model.pool", fix=f"give 1 to {min(sides)}")
        rows, columns = (side // pool for side in sides)
        self.convolutions = ConvBlock(multiplier * width, width)
        self.pool = nn.MaxPool2d(pool)
        self.linear = Float32Linear(width * rows * columns, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, 1), float32."""
        return self.linear(self.pool(self.convolutions(features)).flatten(1))


def init_kaiming(module: nn.Module) -> None:
    """Kaiming uniform weights and zero biases [paper] for every convolution and linear layer.

    Args:
        module: changed in place, with all that it contains.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class UNet(nn.Module):
    """The whole network for one class, of images of any size.

    Args:
        width: b, features at full resolution.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.trunk = UNetTrunk(width=width)
        self.head = SegmentationHead(width)
        init_kaiming(self)

    def forward(self, image: Tensor) -> Tensor:
        """Map (B, 1, H, W) to logits (B, H, W)."""
        sides = margins(image, multiple=16)
        logits = self.head(self.trunk(padded(image, sides)).final)
        return unpadded(logits.squeeze(1), sides)
