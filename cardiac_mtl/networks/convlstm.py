"""Convolutional LSTM over the frames of a cine.

Source: Shi et al., NeurIPS 2015, without peepholes, as Xu et al. (MuTGAN), eq. 2, write it.
"""

import torch
from torch import Tensor, nn

from cardiac_mtl.errors import UserError

State = tuple[Tensor, Tensor]
"""Hidden state and cell, both (B, hidden, H, W)."""


class ConvLSTM(nn.Module):
    """One layer; the gates are i, f, o, g.

    The convolution of the input is done for all frames at once; only that of the hidden state,
    which waits for the frame before, goes frame by frame. The sum is that of one convolution of
    both, as cells are usually written.

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
        bias = self.input.bias
        assert bias is not None
        with torch.no_grad():  # remember, until it is learned to forget [inferred: standard]
            bias[hidden : 2 * hidden] += 1.0

    def forward(self, frames: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Map (B, C, T, H, W) to the hidden states (B, hidden, T, H, W) and the last state.

        Args:
            frames: in their order in time.
            state: from before the first frame; zeros without it.
        """
        count, _, length = frames.shape[:3]
        flat = frames.transpose(1, 2).flatten(0, 1)
        gates = self.input(flat).unflatten(0, (count, length)).unbind(1)
        states = []
        for gate in gates:
            state = self._step(gate, state)
            states.append(state[0])
        assert state is not None
        return torch.stack(states, dim=2), state

    def _step(self, gate: Tensor, state: State | None) -> State:
        if state is None:  # a convolution of zeros is left out
            i, _, o, g = gate.chunk(4, dim=1)
            cell = i.sigmoid() * g.tanh()
        else:
            i, f, o, g = (gate + self.recurrent(state[0])).chunk(4, dim=1)
            cell = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
        return o.sigmoid() * cell.tanh(), cell
