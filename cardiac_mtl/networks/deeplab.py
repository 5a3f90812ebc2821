"""DeepLabV3+ on the modified Xception, for one channel and one class.

Source: Chen et al., "Encoder-decoder with atrous separable convolution for semantic image
segmentation", ECCV 2018; output stride 16, layer by layer as in its public Keras version
(bonlime/keras-deeplab-v3-plus).
"""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from cardiac_mtl.networks.classifiers import PUBLISHED, ConvBN, scaled

ATROUS = (6, 12, 18)
"""Dilation of the pyramid's branches at output stride 16 [its paper]."""
Shortcut = Literal["conv", "sum", "none"]
_EPS = 1e-3


class SeparableBN(nn.Sequential):
    """Depthwise convolution, batch norm, pointwise convolution, batch norm, and ReLUs.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        stride: of the depthwise convolution.
        rate: its dilation.
        after: whether a ReLU follows each norm; else one comes first.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        rate: int = 1,
        after: bool = False,
    ) -> None:
        depthwise = nn.Conv2d(
            in_channels, in_channels, 3, stride, rate, rate, groups=in_channels, bias=False
        )
        first = [] if after else [nn.ReLU()]
        last = [nn.ReLU()] if after else []
        super().__init__(
            *first,
            depthwise,
            nn.BatchNorm2d(in_channels, eps=_EPS),
            *last,
            nn.Conv2d(in_channels, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels, eps=_EPS),
            *last,
        )


class Block(nn.Module):
    """Three separable convolutions and a shortcut.

    Args:
        channels: before and after each of them: four numbers.
        shortcut: a strided 1x1 convolution, the input itself, or none.
        stride: of the third.
        rate: dilation of all three.
        after: as of `SeparableBN`.
    """

    def __init__(
        self,
        channels: Sequence[int],
        shortcut: Shortcut,
        stride: int = 1,
        rate: int = 1,
        after: bool = False,
    ) -> None:
        super().__init__()
        one, two, three = pairwise(channels)
        self.first = nn.Sequential(*(SeparableBN(*c, rate=rate, after=after) for c in (one, two)))
        self.third = SeparableBN(*three, stride, rate, after)
        self.shortcut = shortcut
        if shortcut == "conv":
            self.project = nn.Sequential(
                nn.Conv2d(channels[0], channels[-1], 1, stride, bias=False),
                nn.BatchNorm2d(channels[-1], eps=_EPS),
            )

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the output, and what the second convolution made at the size of the input."""
        inner = self.first(features)
        outer = self.third(inner)
        if self.shortcut == "none":
            return outer, inner
        return outer + (self.project(features) if self.shortcut == "conv" else features), inner


class NormOfMeans(nn.BatchNorm2d):
    """Batch norm of one value a channel and image; the last batch of an epoch may be one image."""

    @override
    def forward(self, input: Tensor) -> Tensor:
        if self.training and len(input) == 1:  # its variance would be that of one number
            return F.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(input)


class AtrousPyramid(nn.Module):
    """What several dilations see of the encoder's end, and its mean, joined and reduced.

    Args:
        in_channels: channels of the encoder's end.
        channels: of each branch and of the output.
    """

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.mean = nn.Sequential(
            nn.Conv2d(in_channels, channels, 1, bias=False), NormOfMeans(channels), nn.ReLU()
        )
        self.branches = nn.ModuleList([ConvBN(in_channels, channels, 1)])
        self.branches.extend(
            SeparableBN(in_channels, channels, rate=rate, after=True) for rate in ATROUS
        )
        self.reduce = nn.Sequential(ConvBN(5 * channels, channels, 1), nn.Dropout(0.1))

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, `channels`, H, W)."""
        mean = self.mean(features.mean((2, 3), keepdim=True)).expand(-1, -1, *features.shape[2:])
        return self.reduce(torch.cat([mean, *(b(features) for b in self.branches)], dim=1))


class DeepLabV3Plus(nn.Module):
    """Modified Xception at output stride 16, atrous pyramid, decoder at a quarter of the size.

    Args:
        width: 64 is the published size; another one scales every layer.
    """

    def __init__(self, width: int = PUBLISHED) -> None:
        super().__init__()
        of = partial(scaled, width)

        def block(
            *channels: int, shortcut: Shortcut = "conv", stride: int = 1, rate: int = 1
        ) -> Block:
            after = shortcut == "none"
            return Block([of(c) for c in channels], shortcut, stride, rate, after)

        self.stem = nn.Sequential(ConvBN(1, of(32), 3, 2), ConvBN(of(32), of(64), 3))
        self.quarter = nn.ModuleList(
            [block(64, 128, 128, 128, stride=2), block(128, 256, 256, 256, stride=2)]
        )
        self.sixteenth = nn.ModuleList(
            [
                block(256, 728, 728, 728, stride=2),
                *(block(728, 728, 728, 728, shortcut="sum") for _ in range(16)),
                block(728, 728, 1024, 1024),
                block(1024, 1536, 1536, 2048, shortcut="none", rate=2),
            ]
        )
        self.pyramid = AtrousPyramid(of(2048), of(256))
        self.low_level = ConvBN(of(256), of(48), 1)
        self.decode = nn.Sequential(
            SeparableBN(of(256) + of(48), of(256), after=True),
            SeparableBN(of(256), of(256), after=True),
            nn.Conv2d(of(256), 1, 1),
        )

    def forward(self, image: Tensor) -> Tensor:
        """Map (B, 1, H, W) of any size to logits (B, H, W)."""
        x = self.stem(image)
        low = x
        for block in self.quarter:
            x, low = block(x)
        for block in self.sixteenth:
            x, _ = block(x)
        x = _resized(self.pyramid(x), low)
        x = self.decode(torch.cat([x, self.low_level(low)], dim=1))
        return _resized(x, image).squeeze(1)


def _resized(features: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(features, size=like.shape[-2:], mode="bilinear", align_corners=False)
