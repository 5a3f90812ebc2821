"""The generator of MuTGAN: feature extraction (SFEN, Conv1-13) and joint network (Conv14-30).

Source: Xu et al., MuTGAN. The paper gives the 4 x 4 x 512 of Conv13, strides of 2 x 2 x 3 and the
skips 12-18, 8-22, 4-26; the layout below is the simplest that meets them [inferred].
Channels are multiples of `width`, 64 in the paper.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cardiac_mtl.networks.convlstm import ConvLSTM
from cardiac_mtl.networks.regression import ScaledLinear

SCALARS = 8
"""Numbers that are regressed: seven indices, of which the centroid has two."""
PRIOR = 0.02
"""Probability of infarct that a pixel starts from, about its share of all pixels [inferred]."""
REGRESSED = (8, 8, 4, 2, 1)
"""Channels, over the width, of what is regressed from: Conv13, 17, 21, 25 and 29."""
POOLED = 4
"""Side to which every map is pooled before the regression, so that it still knows where."""


def same_in_time(length: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return the frames to add before and after, so that every frame is seen: ceil(T / stride).

    Padding on both sides alike, as PyTorch does it, gives the same lengths for 9 and 3 frames but
    never looks at their last.

    Args:
        length: T.
        kernel: frames of the kernel.
        stride: frames from one place of the kernel to the next.
    """
    places = -(-length // stride)
    added = max(0, (places - 1) * stride + kernel - length)
    return added // 2, added - added // 2


class Conv3dBlock(nn.Module):
    """3-D convolution, batch norm, ReLU.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel: frames, rows, columns.
        stride: frames, rows, columns.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: tuple[int, int, int] = (3, 3, 3),
        stride: tuple[int, int, int] = (1, 1, 1),
    ) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride
        padding = (0, kernel[1] // 2, kernel[2] // 2)
        self.convolution = nn.Conv3d(in_channels, out_channels, kernel, stride, padding)
        self.norm = nn.BatchNorm3d(out_channels)

    def forward(self, frames: Tensor) -> Tensor:
        """Map (B, C, T, H, W) to (B, out, ceil(T / stride), ceil(H / stride), ceil(W / stride))."""
        before, after = same_in_time(frames.shape[2], self.kernel[0], self.stride[0])
        padded = F.pad(frames, (0, 0, 0, 0, before, after))
        return F.relu(self.norm(self.convolution(padded)))


class ConvLSTMs(nn.Module):
    """Three ConvLSTM layers one after the other.

    Args:
        in_channels: channels of the input.
        hidden: channels of each layer.
    """

    def __init__(self, in_channels: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(ConvLSTM(c, hidden) for c in (in_channels, hidden, hidden))

    def forward(self, frames: Tensor) -> Tensor:
        """Map (B, C, T, H, W) to the sequence of the last layer (B, hidden, T, H, W)."""
        for layer in self.layers:
            frames, _ = layer(frames)
        return frames


class Features(NamedTuple):
    """What SFEN hands on, w = width; sizes for 25 frames of 64 x 64."""

    conv4: Tensor
    """(B, w, 9, 32, 32)."""
    conv8: Tensor
    """(B, 2w, 3, 16, 16)."""
    conv12: Tensor
    """(B, 4w, 1, 8, 8)."""
    conv13: Tensor
    """(B, 8w, 1, 4, 4)."""


def last_maps(features: Features, maps: Sequence[Tensor] = ()) -> dict[str, Tensor]:
    """Return what the stages hold at their last time, for the figure of feature maps.

    Args:
        features: of the extractor.
        maps: of the joint network, where there is one: `JointOutputs.maps`.

    Returns:
        By layer, `Conv4` to `Conv13` and `Conv17` to `Conv29`: (B, channels, rows, columns).
    """
    names = ("Conv4", "Conv8", "Conv12", "Conv13", "Conv17", "Conv21", "Conv25", "Conv29")
    return {name: held[:, :, -1] for name, held in zip(names, (*features, *maps), strict=False)}


class SFEN(nn.Module):
    """Spatio-temporal feature extraction network, Conv1-13.

    Args:
        width: w, channels of Conv1-4 [paper: 64].
        in_channels: channels of a frame.
    """

    def __init__(self, width: int = 64, in_channels: int = 1) -> None:
        super().__init__()
        w = width
        inputs, outputs = (in_channels, w, 2 * w), (w, 2 * w, 4 * w)
        self.recurrent = nn.ModuleList(
            ConvLSTMs(i, o) for i, o in zip(inputs, outputs, strict=True)
        )
        self.strided = nn.ModuleList(Conv3dBlock(c, c, stride=(3, 2, 2)) for c in outputs)
        self.last = Conv3dBlock(4 * w, 8 * w, kernel=(1, 3, 3), stride=(1, 2, 2))

    def forward(self, frames: Tensor) -> Features:
        """Map (B, C, T, H, W) to the features of Conv4, 8, 12 and 13."""
        maps = []
        for recurrent, strided in zip(self.recurrent, self.strided, strict=True):
            frames = strided(recurrent(frames))
            maps.append(frames)
        conv4, conv8, conv12 = maps
        return Features(conv4, conv8, conv12, self.last(frames))


class SingleTaskSFEN(nn.Module):
    """SFEN and one fully connected layer: one task, estimated by itself (Table 1, row SFEN).

    Args:
        width: w.
        image_size: H and W, multiples of 16.
        size: numbers of the task.
    """

    def __init__(self, width: int, image_size: tuple[int, int], size: int) -> None:
        super().__init__()
        self.sfen = SFEN(width)
        rows, columns = (side // 16 for side in image_size)
        self.linear = ScaledLinear(8 * width * rows * columns, size)

    def forward(self, frames: Tensor) -> Tensor:
        """Map (B, 1, T, H, W) to (B, size), float32."""
        return self.linear(self.sfen(frames).conv13[:, :, -1].flatten(1))


class JointOutputs(NamedTuple):
    """What the generator says of a slice."""

    mask: Tensor
    """(B, H, W), logits."""
    scalars: Tensor
    """(B, 8), standardised, float32; any orientation."""
    maps: tuple[Tensor, ...]
    """Conv17, 21, 25 and 29, for the figure of feature maps."""


class JointNetwork(nn.Module):
    """Conv14-30: the mask by the way back up, the indices from every scale of it.

    Args:
        width: w, as of SFEN.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        w, flat = width, (1, 3, 3)
        self.bottom = nn.Sequential(*(Conv3dBlock(8 * w, 8 * w, flat) for _ in range(4)))
        self.merges = nn.ModuleList(
            [
                Conv3dBlock(8 * w + 4 * w, 4 * w, flat),  # Conv18, with the skip of Conv12
                Conv3dBlock(4 * w + 2 * w, 2 * w),  # Conv22, of Conv8
                Conv3dBlock(2 * w + w, w),  # Conv26, of Conv4
            ]
        )
        self.recurrent = nn.ModuleList(ConvLSTMs(c, c) for c in (4 * w, 2 * w, w))
        self.mask = nn.Conv2d(w, 1, 1)  # Conv30
        # from a half everywhere the way to an infarct leads through predicting none anywhere
        nn.init.constant_(self.mask.bias, math.log(PRIOR / (1 - PRIOR)))  # type: ignore[arg-type]
        seen = tuple(k * w for k in REGRESSED)
        # states of ConvLSTMs are small, and of other size in each layer, where convolutions have
        # a norm: the linear layer would learn hundreds of times more slowly from them
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels, affine=False) for channels in seen)
        self.regression = ScaledLinear(sum(seen) * POOLED**2, SCALARS)

    def forward(self, features: Features, size: Sequence[int]) -> JointOutputs:
        """Map the features of SFEN to mask and scalars.

        Args:
            features: of SFEN.
            size: T, H, W of what SFEN saw.
        """
        at = self.bottom(features.conv13)
        maps = [at]
        skips = (features.conv12, features.conv8, features.conv4)
        sizes = [*(skip.shape[2:] for skip in skips[1:]), size]
        for merge, recurrent, skip, up in zip(
            self.merges, self.recurrent, skips, sizes, strict=True
        ):
            at = merge(torch.cat([F.interpolate(at, skip.shape[2:]), skip], dim=1))
            at = recurrent(F.interpolate(at, list(up)))
            maps.append(at)
        logits = self.mask(at[:, :, -1]).squeeze(1)
        pooled = [
            F.adaptive_avg_pool2d(norm(m[:, :, -1]), POOLED)
            for norm, m in zip(self.norms, (features.conv13, *maps), strict=True)
        ]
        scalars = self.regression(torch.cat(pooled, dim=1).flatten(1))
        return JointOutputs(logits, scalars, tuple(maps))


class Generator(nn.Module):
    """SFEN and joint network: 30 layers, 52.1 M parameters at the paper's width.

    Args:
        width: w, channels of Conv1-4 [paper: 64]; everything scales with it.
        extractor: maps frames to `Features`; SFEN without it.
    """

    def __init__(self, width: int = 64, extractor: nn.Module | None = None) -> None:
        super().__init__()
        self.extractor = SFEN(width) if extractor is None else extractor
        self.joint = JointNetwork(width)

    def forward(self, frames: Tensor) -> JointOutputs:
        """Map (B, 1, T, H, W) to the infarct mask (B, H, W) and the scalars (B, 8)."""
        return self.joint(self.extractor(frames), frames.shape[2:])

    def feature_maps(self, frames: Tensor) -> dict[str, Tensor]:
        """Map (B, 1, T, H, W) to the maps of `last_maps`, of whatever extractor."""
        features = self.extractor(frames)
        return last_maps(features, self.joint(features, frames.shape[2:]).maps)
