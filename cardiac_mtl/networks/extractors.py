"""What the paper puts in place of SFEN (Table 2), and SFEN on a single frame.

Source: Xu et al., MuTGAN, which names the variants and gives none of their layers: [inferred] the
simplest ones that hand on features of the shapes of SFEN, so that the joint network stays as it is.
Width, w, is the number of channels of Conv1-4 throughout; frames are (B, 1, T, H, W), and features
those of `Features`, for T frames of H x W, both multiples of 16.
"""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Final, Literal

from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from cardiac_mtl.networks.convlstm import ConvLSTM
from cardiac_mtl.networks.sfen import SFEN, Conv3dBlock, ConvLSTMs, Features

ExtractorName = Literal[
    "sfen", "convlstms", "3dconvs", "3dconvs_lstm", "cnns", "lstms", "single_frame"
]

FRAMES: Final = 25
"""Of a cine in the paper: the channels of `CNNs`, to which other lengths are resampled."""
REDUCTION: Final = 16
"""H over the height of Conv13, and W over its width: four strides of two."""
STRIDE_IN_TIME: Final = 3


def make_extractor(name: ExtractorName, width: int, image_size: tuple[int, int]) -> nn.Module:
    """Return an extractor, which maps frames to `Features`.

    Args:
        name: a row of Table 2, or `single_frame`.
        width: w.
        image_size: H and W, which only `LSTMs` needs.
    """
    makers: dict[ExtractorName, Callable[[int], nn.Module]] = {
        "sfen": SFEN,
        "convlstms": OnlyConvLSTMs,
        "3dconvs": Conv3ds,
        "3dconvs_lstm": partial(Conv3ds, memory=True),
        "cnns": CNNs,
        "lstms": partial(LSTMs, image_size=image_size),
        "single_frame": SingleFrame,
    }
    return makers[name](width)


class SingleFrame(SFEN):
    """SFEN that sees the first frame at every time: what it finds is not in the motion.

    It has the parameters and the cost of SFEN, so that nothing but the motion differs.
    """

    @override
    def forward(self, frames: Tensor) -> Features:
        """Map (B, 1, T, H, W) to features of the first frame, repeated T times."""
        return super().forward(frames[:, :, :1].expand_as(frames))


def last_of_each(frames: Tensor, stride: int = STRIDE_IN_TIME) -> Tensor:
    """Keep every third frame (B, C, ceil(T / 3), H, W), counted back from the last.

    The last one is what a recurrent layer knows of all frames; counted from the first, it would be
    dropped for 9 and 3 frames.
    """
    return frames[:, :, (frames.shape[2] - 1) % stride :: stride]


def _halved(frames: Tensor) -> Tensor:
    return F.avg_pool3d(frames, (1, 2, 2))


class OnlyConvLSTMs(nn.Module):
    """`ConvLSTMs` of Table 2: SFEN whose strided convolutions are ConvLSTMs too.

    Each reads frames that are averaged to half their size, and every third of its own frames goes
    on. Conv13 reads all frames of Conv12: from a single one its recurrent weights learn nothing.

    Args:
        width: w.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        channels = (1, width, 2 * width, 4 * width)
        self.recurrent = nn.ModuleList(ConvLSTMs(i, o) for i, o in pairwise(channels))
        self.halving = nn.ModuleList(ConvLSTM(c, c) for c in channels[1:])
        self.last = ConvLSTM(4 * width, 8 * width)

    def forward(self, frames: Tensor) -> Features:
        """Map (B, 1, T, H, W) to the features of Conv4, 8, 12 and 13."""
        maps = []
        for recurrent, halving in zip(self.recurrent, self.halving, strict=True):
            whole, _ = halving(_halved(recurrent(frames)))
            frames = last_of_each(whole)
            maps.append(frames)
        conv4, conv8, conv12 = maps
        conv13, _ = self.last(_halved(whole))
        return Features(conv4, conv8, conv12, last_of_each(conv13))


class Conv3ds(nn.Module):
    """`3DConvs` of Table 2: SFEN whose ConvLSTMs are 3-D convolutions too.

    Args:
        width: w.
        memory: `3DConvs+LSTM`: an LSTM over time besides, whose last state is added to all of what
            Conv13 reads. It reads the means over the image of the last sequence, that of Conv11.
    """

    def __init__(self, width: int = 64, memory: bool = False) -> None:
        super().__init__()
        w, stride = width, (STRIDE_IN_TIME, 2, 2)
        self.plain = nn.ModuleList(
            nn.Sequential(Conv3dBlock(i, o), Conv3dBlock(o, o), Conv3dBlock(o, o))
            for i, o in pairwise((1, w, 2 * w, 4 * w))
        )
        self.strided = nn.ModuleList(Conv3dBlock(c, c, stride=stride) for c in (w, 2 * w, 4 * w))
        self.lstm = nn.LSTM(4 * w, 4 * w, batch_first=True) if memory else None
        self.last = Conv3dBlock(4 * w, 8 * w, kernel=(1, 3, 3), stride=(1, 2, 2))

    def forward(self, frames: Tensor) -> Features:
        """Map (B, 1, T, H, W) to the features of Conv4, 8, 12 and 13."""
        maps = []
        for plain, strided in zip(self.plain, self.strided, strict=True):
            sequence = plain(frames)
            frames = strided(sequence)
            maps.append(frames)
        conv4, conv8, conv12 = maps
        if self.lstm is not None:
            states, _ = self.lstm(sequence.mean((3, 4)).transpose(1, 2))
            frames = conv12 + states[:, -1, :, None, None, None]
        return Features(conv4, conv8, conv12, self.last(frames))


class CNNs(nn.Module):
    """`CNNs` of Table 2: the frames are channels, and all convolutions are of images.

    What has no time is repeated over the times that the joint network expects.

    Args:
        width: w.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        w, flat = width, (1, 3, 3)  # on one frame a 2-D convolution
        self.blocks = nn.ModuleList(
            nn.Sequential(
                *(Conv3dBlock(c, o, flat) for c in (i, o, o)),
                Conv3dBlock(o, o, flat, stride=(1, 2, 2)),
            )
            for i, o in pairwise((FRAMES, w, 2 * w, 4 * w))
        )
        self.last = Conv3dBlock(4 * w, 8 * w, flat, stride=(1, 2, 2))

    def forward(self, frames: Tensor) -> Features:
        """Map (B, 1, T, H, W) to the features of Conv4, 8, 12 and 13."""
        length = frames.shape[2]
        at = F.interpolate(frames, (FRAMES, *frames.shape[3:]), mode="trilinear").transpose(1, 2)
        maps = []
        for block in self.blocks:
            at = block(at)
            length = -(-length // STRIDE_IN_TIME)
            maps.append(at.expand(-1, -1, length, -1, -1))
        conv4, conv8, conv12 = maps
        return Features(conv4, conv8, conv12, self.last(at).expand(-1, -1, length, -1, -1))


class LSTMs(nn.Module):
    """`LSTMs` of Table 2: each frame is a vector; there are no maps for the skips, which are zeros.

    Args:
        width: w.
        image_size: H and W.
    """

    def __init__(self, width: int = 64, image_size: tuple[int, int] = (64, 64)) -> None:
        super().__init__()
        self.width = width
        rows, columns = image_size
        self.small = (rows // REDUCTION, columns // REDUCTION)
        self.lstm = nn.LSTM(rows * columns, 8 * width, num_layers=2, batch_first=True)
        self.spread = nn.Linear(8 * width, 8 * width * self.small[0] * self.small[1])

    def forward(self, frames: Tensor) -> Features:
        """Map (B, 1, T, H, W) to zeros for Conv4, 8 and 12, and the features of Conv13."""
        states, _ = self.lstm(frames.squeeze(1).flatten(2))
        maps = self.spread(states[:, -1]).unflatten(1, (8 * self.width, 1, *self.small))
        length, skips = frames.shape[2], []
        for k in range(3):
            length = -(-length // STRIDE_IN_TIME)
            size = (side // 2 ** (k + 1) for side in frames.shape[3:])
            skips.append(maps.new_zeros(len(frames), 2**k * self.width, length, *size))
        conv4, conv8, conv12 = skips
        return Features(conv4, conv8, conv12, maps.expand(-1, -1, length, -1, -1))
