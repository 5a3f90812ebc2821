"""Convolutional LSTM over the frames of a cine.

Source: Shi et al., NeurIPS 2015, without peepholes, as Xu et al. (MuTGAN), eq. 2, write it.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cardiac_mtl.errors import UserError

State = tuple[Tensor, Tensor]
"""Hidden state and cell, both (B, hidden, H, W)."""


class ConvLSTM(nn.Module):
    """One layer; the gates are i, f, o, g.

    The convolution of the input is done for all frames at once; only that of the hidden state,
    which waits for the frame before, goes frame by frame. The sum is that of one convolution of
    both, as cells are usually written. Channels lie last in memory: convolutions of few channels
    are faster so. Weights start as those of Keras do [inferred].

    Args:
        in_channels: channels of the input.
        hidden: channels of the hidden state.
        kernel: side of both kernels, odd.

    Raises:
        UserError: the kernel is even, and would shift the frames.
    """

    def __init__(self, in_channels: int, hidden: int, kernel: int = 3) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise UserError(
                f"kernel {kernel} is even", where="model.kernel", fix="choose 3 or another odd one"
            )
        self.hidden = hidden
        self.input = nn.Conv2d(in_channels, 4 * hidden, kernel, padding=kernel // 2)
        self.recurrent = nn.Conv2d(hidden, 4 * hidden, kernel, padding=kernel // 2, bias=False)
        nn.init.orthogonal_(self.recurrent.weight)
        nn.init.xavier_uniform_(self.input.weight)
        bias = self.input.bias
        assert bias is not None
        # Every cell adds its bias up over time. Drawn at random, as PyTorch does, it drowns the
        # images: after three blocks 1 % of what a map holds differs between slices, not 40 %
        nn.init.zeros_(bias)
        with torch.no_grad():  # remember, until it is learned to forget
            bias[hidden : 2 * hidden] = 1.0

    def forward(self, frames: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Map (B, C, T, H, W) to the hidden states (B, hidden, T, H, W) and the last state.

        Args:
            frames: in their order in time.
            state: from before the first frame; zeros without it.
        """
        device = frames.device.type
        if torch.is_autocast_enabled(device):
            frames = frames.to(torch.get_autocast_dtype(device))
        if state is None:
            zeros = frames.new_zeros(len(frames), self.hidden, *frames.shape[3:])
            state = zeros, zeros
        hidden, cell = (_channels_last(part.to(frames.dtype)) for part in state)
        count, _, length = frames.shape[:3]
        flat = frames.permute(2, 0, 3, 4, 1).contiguous().flatten(0, 1).permute(0, 3, 1, 2)
        seen = self.input(flat).unflatten(0, (length, count))
        weight = _channels_last(self.recurrent.weight)
        states = []
        for gates in seen.unbind(0):
            hidden, cell = self.step(gates, hidden, cell, weight)
            states.append(hidden.permute(0, 2, 3, 1))
        stacked = torch.stack(states)
        if stacked.requires_grad:  # else every step's gradient takes the layout of what follows
            stacked.register_hook(lambda given: None if given is None else given.contiguous())
        return stacked.permute(1, 4, 0, 2, 3), (hidden, cell)

    @staticmethod
    def step(seen: Tensor, hidden: Tensor, cell: Tensor, weight: Tensor) -> State:
        """Go on by one frame.

        Args:
            seen: (B, 4 hidden, H, W), convolution of the frame.
            hidden: (B, hidden, H, W), hidden state from the frame before.
            cell: as `hidden`.
            weight: (4 hidden, hidden, k, k), of the hidden convolution.
        """
        # Cast anew at every step, so that the gradients of the steps are summed in single precision
        gates = seen + F.conv2d(hidden, weight.to(hidden.dtype), padding=weight.shape[-1] // 2)
        # Apart first: the non-linearities are slow, on a CPU, where memory is not contiguous
        i, f, o, g = (_channels_last(part) for part in gates.chunk(4, dim=1))
        cell = torch.addcmul(f.sigmoid() * cell, i.sigmoid(), g.tanh())
        return o.sigmoid() * cell.tanh(), cell


def _channels_last(image: Tensor) -> Tensor:
    """Return the same (B, C, H, W) with the channels last in memory."""
    return image.contiguous(memory_format=torch.channels_last)
