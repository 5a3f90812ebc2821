"""The generator of weak domain transfer: a dilated residual U-shape of one width.

Source: Chen et al., weak domain transfer, released code, `DRUNet32f.py`. Every convolution keeps
the size and is followed by a ReLU, that of the shortcut too; no norm, no ReLU after the addition.
"""

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cardiac_mtl.networks.keras import init_glorot

DILATIONS: Final = (2, 4, 8, 4, 2)
"""Of the five residual blocks, from the first pooling down and up again; the released
`DRUNet32fLD.py` has 2, 3, 4, 3, 2."""


class TwoConvolutions(nn.Sequential):
    """Twice 3x3 convolution and ReLU.

    Args:
        in_channels: channels of the input.
        width: channels after each convolution.
        dilation: of both.
    """

    def __init__(self, in_channels: int, width: int, dilation: int = 1) -> None:
        layers: list[nn.Module] = []
        for channels in (in_channels, width):
            convolution = nn.Conv2d(channels, width, 3, padding=dilation, dilation=dilation)
            layers += [convolution, nn.ReLU(inplace=True)]
        super().__init__(*layers)


class ResidualBlock(nn.Module):
    """Two convolutions, and a 1x1 convolution beside them that is added.

    Args:
        in_channels: channels of the input.
        width: channels of the output.
        dilation: of the 3x3 convolutions.
    """

    def __init__(self, in_channels: int, width: int, dilation: int) -> None:
        super().__init__()
        self.convolutions = TwoConvolutions(in_channels, width, dilation)
        self.shortcut = nn.Conv2d(in_channels, width, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, width, H, W)."""
        return self.convolutions(features) + F.relu(self.shortcut(features))


class DRUNet(nn.Module):
    """Dilated residual U-shape: three poolings, three nearest up-samplings, logits.

    Args:
        width: features of every layer [code: 32, with 155 652 parameters].
        classes: of the mask, the background first.
        dilations: of the five residual blocks.
    """

    def __init__(
        self, width: int = 32, classes: int = 4, dilations: tuple[int, ...] = DILATIONS
    ) -> None:
        super().__init__()
        *descending, ascending_1, ascending_2 = dilations
        self.first = TwoConvolutions(1, width)
        self.down = nn.ModuleList(ResidualBlock(width, width, d) for d in descending)
        self.up = nn.ModuleList(
            [
                ResidualBlock(2 * width, width, ascending_1),
                ResidualBlock(2 * width, width, ascending_2),
                TwoConvolutions(2 * width, width),
            ]
        )
        self.classify = nn.Conv2d(width, classes, 1)
        init_glorot(self)

    def forward(self, image: Tensor) -> Tensor:
        """Map (B, 1, H, W), sides multiples of 8, to logits (B, classes, H, W)."""
        skips = [self.first(image)]
        for block in self.down:
            skips.append(block(F.max_pool2d(skips[-1], 2)))
        features = skips.pop()
        for block in self.up:
            larger = F.interpolate(features, scale_factor=2.0, mode="nearest")
            features = block(torch.cat([larger, skips.pop()], dim=1))
        return self.classify(features)
