"""Convolutional LSTM over the frames of a cine.

Source: Shi et al., NeurIPS 2015, without peepholes, as Xu et al. (MuTGAN), eq. 2, write it.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F

from cardiac_mtl.errors import UserError

State = tuple[Tensor, Tensor]
"""Hidden state and cell, both (B, hidden, H, W)."""

_through_sigmoid = torch.ops.aten.sigmoid_backward
_through_tanh = torch.ops.aten.tanh_backward


class ConvLSTM(nn.Module):
    """One layer; the gates are i, f, o, g.

    Weights start as those of Keras do [inferred].

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
        hidden, cell = (part.to(frames.dtype).permute(0, 2, 3, 1) for part in state)
        weight = torch.cat([self.input.weight, self.recurrent.weight], dim=1)
        states, last = Recurrence.apply(  # type: ignore[no-untyped-call]
            frames.permute(2, 0, 3, 4, 1), weight, self.input.bias, hidden, cell
        )
        end = states[-1].permute(0, 3, 1, 2), last.permute(0, 3, 1, 2)
        return states.permute(1, 4, 0, 2, 3), end


class Recurrence(torch.autograd.Function):
    """A ConvLSTM from the first frame to the last, with its gradient written out.

    Frame and hidden state lie side by side in memory and are convolved together. Channels lie last,
    as convolutions want it; the gates lie apart, as their non-linearities do. What is kept for the
    gradient is written where it is kept, and the gradient of the weights is one convolution over
    all frames (`benchmarks/convlstm.py`).

    Shapes: T frames, B images, H rows, W columns, C channels of a frame, h of the hidden state.
    """

    @staticmethod
    def forward(
        ctx: FunctionCtx, frames: Tensor, weight: Tensor, bias: Tensor, hidden: Tensor, cell: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Run over the frames.

        Args:
            ctx: keeps what the gradient needs.
            frames: (T, B, H, W, C).
            weight: (4h, C + h, k, k), of the convolution of frame and hidden state.
            bias: (4h,).
            hidden: (B, H, W, h), from before the first frame.
            cell: as `hidden`.

        Returns:
            Hidden states (T, B, H, W, h), and the last cell (B, H, W, h).
        """
        length, *size, channels = frames.shape
        count = hidden.shape[-1]
        kernel, bias = _channels_last(weight.to(frames.dtype)), bias.to(frames.dtype)
        both = frames.new_empty(length + 1, *size, channels + count)
        both[:-1, ..., :channels], both[0, ..., channels:] = frames, hidden
        opened = frames.new_empty(length, 4, *size, count)
        cells = frames.new_empty(length + 1, *size, count)
        cells[0] = cell
        squashed = frames.new_empty(length, *size, count)
        states = both[1:, ..., channels:]
        for seen, gates, ifo, before, after, tanh, state in zip(
            _as_images(both[:-1]),
            opened,
            opened[:, :3],
            cells[:-1],
            cells[1:],
            squashed,
            states,
            strict=True,
        ):
            mixed = F.conv2d(seen, kernel, bias, padding=kernel.shape[-1] // 2)
            # one by one: all at once, transposed, is slower
            for gate, part in zip(gates, mixed.permute(0, 2, 3, 1).chunk(4, dim=-1), strict=True):
                gate.copy_(part)
            ifo.sigmoid_()
            i, f, o, g = gates
            torch.mul(f, before, out=after).addcmul_(i, _tanh(g, out=g))
            torch.mul(o, _tanh(after, out=tanh), out=state)
        ctx.save_for_backward(weight, both, opened, cells, squashed)
        return states, cells[-1]

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any,  # noqa: ANN401 - torch gives saved tensors no type
        to_states: Tensor,
        to_cell: Tensor,
    ) -> tuple[Tensor | None, Tensor, Tensor, Tensor, Tensor]:
        """Return the gradients of the arguments of `forward`."""
        weight, both, opened, cells, squashed = ctx.saved_tensors
        length, _, *size, count = opened.shape
        channels = both.shape[-1] - count
        first = 0 if ctx.needs_input_grad[0] else channels  # of the channels that have a gradient
        kernel = _channels_last(weight.to(both.dtype)[:, first:])
        to_frames = both.new_empty(length, *size, channels - first)
        to_mixed = both.new_empty(length, *size, 4 * count)
        apart = both.new_empty(4, *size, count)
        (to_i, to_f, to_o, to_g), to_ifo = apart, apart[:3]
        to_cell, to_hidden = to_cell.clone(), torch.zeros_like(to_cell)
        steps = zip(
            opened,
            opened[:, :3],
            cells[:-1],
            squashed,
            to_states.contiguous(),
            _as_images(both[:-1, ..., first:]),
            to_mixed,
            _as_images(to_frames),
            strict=True,
        )
        for (i, f, o, g), ifo, before, tanh, to_state, seen, mixed, to_frame in reversed([*steps]):
            to_hidden += to_state
            to_cell += _through_tanh(to_hidden * o, tanh)
            torch.mul(to_cell, g, out=to_i)
            torch.mul(to_cell, before, out=to_f)
            torch.mul(to_hidden, tanh, out=to_o)
            _through_sigmoid.grad_input(to_ifo, ifo, grad_input=to_ifo)
            _through_tanh.grad_input(torch.mul(to_cell, i, out=to_g), g, grad_input=to_g)
            to_cell *= f
            mixed.unflatten(-1, (4, count)).copy_(apart.movedim(0, -2))
            to_both, _, _ = _backward(_as_images(mixed), seen, kernel, (True, False, False))
            to_frame.copy_(to_both[:, :-count])
            to_hidden = to_both[:, -count:].permute(0, 2, 3, 1).contiguous()
        _, to_weight, to_bias = _backward(
            _as_images(to_mixed.flatten(0, 1)),
            _as_images(both[:-1].flatten(0, 1)),
            weight.to(both.dtype),
            (False, True, True),
        )
        to_weight, to_bias = to_weight.to(weight.dtype), to_bias.to(weight.dtype)
        wanted = None if first else to_frames
        return wanted, to_weight, to_bias, to_hidden, to_cell


def _tanh(maps: Tensor, out: Tensor) -> Tensor:
    """Write the tanh into `out`; on a CPU three times as fast by way of float32, which MKL has."""
    if maps.is_cpu and maps.dtype == torch.bfloat16:
        return out.copy_(torch.tanh(maps.float()))
    return torch.tanh(maps, out=out)


def _backward(
    to_mixed: Tensor, images: Tensor, kernel: Tensor, wanted: tuple[bool, bool, bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of images, kernel and bias of a convolution; None where not wanted.

    `torch.nn.grad` has these too, but asks for channels first in memory: a fifth slower as a whole.
    """
    padding = [kernel.shape[-1] // 2] * 2
    gradients: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.convolution_backward(
        to_mixed, images, kernel, [len(kernel)], [1, 1], padding, [1, 1], False, [0, 0], 1, wanted
    )
    return gradients


def _as_images(maps: Tensor) -> Tensor:
    """View (..., H, W, C) as (..., C, H, W)."""
    return maps.movedim(-1, -3)


def _channels_last(image: Tensor) -> Tensor:
    """Return the same (B, C, H, W) with the channels last in memory."""
    return image.contiguous(memory_format=torch.channels_last)
