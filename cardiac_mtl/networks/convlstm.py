"""Convolutional LSTM over the frames of a cine.

Source: Shi et al., NeurIPS 2015, without peepholes, as Xu et al. (MuTGAN), eq. 2, write it.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F
from torch.nn.grad import conv2d_weight

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
        gates = self.input(flat).unflatten(0, (count, length)).transpose(0, 1)
        if state is None:
            zeros = gates.new_zeros(count, self.hidden, *frames.shape[3:])
            state = zeros, zeros
        states, cell = Recurrence.apply(  # type: ignore[no-untyped-call]
            gates, self.recurrent.weight, *state
        )
        return states.permute(1, 2, 0, 3, 4), (states[-1], cell)


class Recurrence(torch.autograd.Function):
    """The part of a ConvLSTM that goes frame by frame, with its gradient written out.

    The gradient of the hidden convolution's weights is one convolution over all frames, where
    autograd would do one for each, and the gates keep what they need and no more.
    """

    @staticmethod
    def forward(
        ctx: FunctionCtx, gates: Tensor, weight: Tensor, hidden: Tensor, cell: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Run over the frames.

        Args:
            ctx: keeps what the gradient needs.
            gates: (T, B, 4 hidden, H, W), of the input, before the non-linearity.
            weight: (4 hidden, hidden, k, k), of the hidden convolution.
            hidden: (B, hidden, H, W), from before the first frame.
            cell: as `hidden`.

        Returns:
            Hidden states (T, B, hidden, H, W), and the last cell.
        """
        kernel, padding = weight.to(gates.dtype), weight.shape[-1] // 2
        hidden, cell = hidden.to(gates.dtype), cell.to(gates.dtype)
        opened, states, cells = torch.empty_like(gates), [hidden], [cell]
        channels = hidden.shape[1]
        for gate, out in zip(gates, opened, strict=True):
            torch.add(gate, F.conv2d(states[-1], kernel, padding=padding), out=out)
            out[:, : 3 * channels].sigmoid_()
            out[:, 3 * channels :].tanh_()
            i, f, o, g = out.chunk(4, dim=1)
            cells.append(torch.addcmul(f * cells[-1], i, g))
            states.append(o * cells[-1].tanh())
        ctx.save_for_backward(weight, opened, torch.stack(states), torch.stack(cells))
        return torch.stack(states[1:]), cells[-1]

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any,  # noqa: ANN401 - torch gives saved tensors no type
        to_states: Tensor,
        to_cell: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the gradients of the arguments of `forward`."""
        weight, opened, states, cells = ctx.saved_tensors
        kernel, padding = weight.to(opened.dtype), weight.shape[-1] // 2
        to_gates = torch.empty_like(opened)
        to_hidden: Tensor | None = None
        for t in range(len(opened) - 1, -1, -1):
            i, f, o, g = opened[t].chunk(4, dim=1)
            to_i, to_f, to_o, to_g = to_gates[t].chunk(4, dim=1)
            arriving = to_states[t] if to_hidden is None else to_states[t] + to_hidden
            squashed = cells[t + 1].tanh()
            to_cell = torch.addcmul(to_cell, arriving * o, 1 - squashed * squashed)
            torch.mul(arriving * squashed, o - o * o, out=to_o)
            torch.mul(to_cell * g, i - i * i, out=to_i)
            torch.mul(to_cell * cells[t], f - f * f, out=to_f)
            torch.mul(to_cell * i, 1 - g * g, out=to_g)
            to_cell = to_cell * f
            to_hidden = F.conv_transpose2d(to_gates[t], kernel, padding=padding)
        to_weight = conv2d_weight(
            states[:-1].flatten(0, 1), weight.shape, to_gates.flatten(0, 1), padding=padding
        )
        assert to_hidden is not None
        return to_gates, to_weight.to(weight.dtype), to_hidden, to_cell
