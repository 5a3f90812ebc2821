"""The network of Peng et al. for T1 maps: feature pyramids, dense atrous convolutions, sub-pixels.

Source: Peng et al., 2021. Their code is not public; what is [inferred] is reasoned in
docs/papers/fpm_multitask.md.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from cardiac_mtl.networks.padding import Margins, margins, padded, unpadded

SERIAL = (3, 5, 7)
"""Dilation of the convolutions in a row, of both types of module [paper]."""
PARALLEL = (4, 8, 12)
"""Dilation of the convolutions side by side, of type B [paper]."""
HALVINGS = 4


def receptive_field(rates: Sequence[int], kernel: int = 3) -> int:
    """Return the side in pixels of what one output of dilated convolutions in a row sees.

    Source: Peng et al., eq. 1 and 2.

    Examples:
        >>> receptive_field([3, 5, 7])
        31
    """
    return 1 + (kernel - 1) * sum(rates)


class CBR(nn.Sequential):
    """Convolution, batch norm, ReLU; the size stays where the stride is 1.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel: side of the kernel, odd.
        stride: 2 halves the size, rounding up.
        rate: dilation.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1, rate: int = 1
    ) -> None:
        padding = rate * (kernel // 2)
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel, stride, padding, rate, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )


class FPM(nn.Module):
    """Feature pyramid module: what several receptive fields see, side by side.

    A 1x1 convolution reduces the input to c channels, r. Convolutions in a row follow, the last
    one plus r; all of them are put out. Type B adds convolutions of r side by side.

    Args:
        in_channels: channels of the input.
        width: c.
        serial: dilation of each convolution in a row.
        parallel: dilation of each convolution beside them; none of them is type A.
    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        serial: Sequence[int] = SERIAL,
        parallel: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.reduce = CBR(in_channels, width, kernel=1)
        self.serial = nn.ModuleList(CBR(width, width, rate=rate) for rate in serial)
        self.parallel = nn.ModuleList(CBR(width, width, rate=rate) for rate in parallel)
        self.out_channels = width * (len(serial) + len(parallel))

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, `out_channels`, H, W): in a row first, then side by side."""
        reduced = self.reduce(features)
        row = [reduced]
        for convolution in self.serial:
            row.append(convolution(row[-1]))
        row[-1] = row[-1] + reduced
        return torch.cat([*row[1:], *(beside(reduced) for beside in self.parallel)], dim=1)


class DAC(nn.Module):
    """Dense atrous convolutions: four branches of one to four convolutions, added to the input.

    x + relu(a1 x) + relu(w a3 x) + relu(w a3 a1 x) + relu(w a5 a3 a1 x), where a1, a3 and a5 are
    3x3 of that dilation and w is 1x1.
    Source: Gu et al., CE-Net, TMI 2019, and its code, in which the branches share a1, a3 and w.

    Args:
        channels: of input and output.
        share: whether branches share their convolutions.
        bn: whether a batch norm follows each convolution.
    """

    def __init__(self, channels: int, share: bool = True, bn: bool = False) -> None:
        super().__init__()
        rates: list[tuple[int, ...]] = [(1,), (3, 0), (1, 3, 0), (1, 3, 5, 0)]  # 0: the 1x1
        if share:
            rates = [(1, 3, 5, 0)]
        self.branches = nn.ModuleList(
            nn.ModuleList(_atrous(channels, rate, bn) for rate in branch) for branch in rates
        )
        self.share = share

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        grown = self._shared(features) if self.share else self._apart(features)
        return features + torch.stack([torch.relu(branch) for branch in grown]).sum(0)

    def _shared(self, x: Tensor) -> list[Tensor]:
        a1, a3, a5, w = cast("nn.ModuleList", self.branches[0])
        first = a1(x)
        second = a3(first)
        return [first, w(a3(x)), w(second), w(a5(second))]

    def _apart(self, x: Tensor) -> list[Tensor]:
        grown = []
        for branch in self.branches:
            grown.append(x)
            for convolution in cast("nn.ModuleList", branch):
                grown[-1] = convolution(grown[-1])
        return grown


def _atrous(channels: int, rate: int, bn: bool) -> nn.Module:
    """Return the 3x3 convolution of a dilation, its bias 0, or the 1x1 one of 0.

    The 1x1 has no bias: those of the convolutions before it come through.
    """
    if not rate:
        convolution = nn.Conv2d(channels, channels, 1, bias=False)
    else:
        convolution = nn.Conv2d(channels, channels, 3, padding=rate, dilation=rate)
        nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
    return nn.Sequential(convolution, nn.BatchNorm2d(channels)) if bn else convolution


class SubPixelUp(nn.Sequential):
    """Twice the size: a convolution to four times the channels, dealt out to 2 x 2 pixels.

    It starts as up-sampling by nearest neighbour, which leaves no chequered pattern.
    Source: Shi et al., CVPR 2016; Aitken et al., 2017 (ICNR).

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        convolution = nn.Conv2d(in_channels, 4 * out_channels, 3, padding=1)
        with torch.no_grad():
            for values in convolution.parameters():
                values.copy_(values[::4].repeat_interleave(4, dim=0))
        super().__init__(
            convolution, nn.PixelShuffle(2), nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)
        )


class FPMOutputs(NamedTuple):
    """What the network sees."""

    mask: Tensor | None
    """(B, H, W), logits of the myocardium; None without a decoder."""
    label: Tensor | None
    """(B,), logits of the diseased class; None without a classifier."""


class FPMNet(nn.Module):
    """Encoder of feature pyramids, a decoder for the mask, a classifier on the encoder's end.

    Args:
        width: c, features at full resolution; c, 2c, 4c and 8c of the four stages [inferred: 16].
        serial: dilation in a row, of every module.
        parallel: dilation side by side, of modules B.
        share: whether the branches of DAC share their convolutions.
        bn: whether DAC has batch norms.
        mask: whether there is a decoder.
        label: whether there is a classifier.
    """

    def __init__(
        self,
        width: int = 16,
        serial: Sequence[int] = SERIAL,
        parallel: Sequence[int] = PARALLEL,
        share: bool = True,
        bn: bool = False,
        mask: bool = True,
        label: bool = True,
    ) -> None:
        super().__init__()
        c = width
        self.stem = CBR(1, c)
        self.stages = nn.ModuleList()
        skips, found = [], c
        for k, stage_width in enumerate((c, 2 * c, 4 * c, 8 * c)):
            beside = parallel if k % 2 else ()
            stage = EncoderStage(found, stage_width, serial, beside, joined=not k % 2)
            self.stages.append(stage)
            found = stage.out_channels
            skips.append(found)
        self.dac = DAC(skips[2], share, bn)
        self.last = CBR(found, 32 * c)
        self.classify = nn.Linear(32 * c, 1) if label else None
        self.decoder = Decoder(32 * c, skips[2::-1], (4 * c, 2 * c, c)) if mask else None

    def margins(self, image: Tensor) -> Margins:
        """Return what is added around an image."""
        return margins(image, multiple=2**HALVINGS)

    def forward(self, image: Tensor) -> FPMOutputs:
        """Map (B, 1, H, W) of any size to logits of its pixels and of the image."""
        sides = self.margins(image)
        x = self.stem(padded(image, sides))
        skips = []
        for k, stage in enumerate(self.stages):
            x = stage(self.dac(x) if k == len(self.stages) - 1 else x)
            skips.append(x)
        x = self.last(x)
        label = mask = None
        if self.classify is not None:
            label = self.classify(x.mean((2, 3))).squeeze(1)
        if self.decoder is not None:
            mask = unpadded(self.decoder(x, skips[2::-1]).squeeze(1), sides)
        return FPMOutputs(mask, label)


class EncoderStage(nn.Module):
    """Half the size, then a feature pyramid.

    Args:
        in_channels: channels of the input.
        width: channels of the strided convolution, and c of the module.
        serial: dilation in a row.
        parallel: dilation side by side.
        joined: whether the input of the module is put out beside its output, as the paper has
            it where a module B follows.
    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        serial: Sequence[int],
        parallel: Sequence[int],
        joined: bool,
    ) -> None:
        super().__init__()
        self.down = CBR(in_channels, width, stride=2)
        self.pyramid = FPM(width, width, serial, parallel)
        self.joined = joined
        self.out_channels = self.pyramid.out_channels + (width if joined else 0)

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, `out_channels`, H / 2, W / 2)."""
        halved = self.down(features)
        found = self.pyramid(halved)
        return torch.cat([halved, found], dim=1) if self.joined else found


class Decoder(nn.Module):
    """Four times sub-pixels; at the first three the encoder's features join.

    Args:
        in_channels: channels of the encoder's end.
        skips: channels of the encoder's features, coarse to fine.
        widths: channels of each step, coarse to fine; the last one is that of full resolution too.
    """

    def __init__(self, in_channels: int, skips: Sequence[int], widths: Sequence[int]) -> None:
        super().__init__()
        steps = list(pairwise((in_channels, *widths)))
        self.ups = nn.ModuleList(SubPixelUp(before, after) for before, after in steps)
        self.joins = nn.ModuleList(
            nn.Sequential(CBR(after + skip, after), CBR(after, after))
            for (_, after), skip in zip(steps, skips, strict=True)
        )
        c = widths[-1]
        self.full = nn.Sequential(SubPixelUp(c, c), CBR(c, c), nn.Conv2d(c, 1, 1))

    def forward(self, features: Tensor, skips: Sequence[Tensor]) -> Tensor:
        """Map (B, C, H / 16, W / 16), and the skips coarse to fine, to logits (B, 1, H, W)."""
        for up, join, skip in zip(self.ups, self.joins, skips, strict=True):
            features = join(torch.cat([up(features), skip], dim=1))
        return self.full(features)
