"""The generator of MuTGAN: our ConvLSTM against the cell as it is usually written.

    python -m benchmarks convlstm [--rounds 5] [--width 16]

A training step (forward, backward, Adam) at batch 4 of 25 frames of 64 x 64, in bf16 where the
processor has it. Plain: frame and hidden state are concatenated and convolved at every step, by
autograd. Ours: its gradient is written out. Same weights; the outputs are compared in single
precision.
"""

import copy
import time

import torch
from torch import Tensor, nn
from typing_extensions import override

from benchmarks.common import options_of, paired, positive, ratios, write
from cardiac_mtl.memory import keep_freed_memory
from cardiac_mtl.networks.convlstm import ConvLSTM, State
from cardiac_mtl.networks.sfen import Generator, JointOutputs
from cardiac_mtl.training.precision import native_bf16

BATCH, FRAMES, SIDE = 4, 25, 64


class PlainConvLSTM(nn.Module):
    """The reference cell: one convolution of frame and hidden state at every step.

    Args:
        ours: whose weights it takes.
    """

    def __init__(self, ours: ConvLSTM) -> None:
        super().__init__()
        self.hidden = ours.hidden
        kernel = ours.input.kernel_size[0]
        self.both = nn.Conv2d(
            ours.input.in_channels + ours.hidden, 4 * ours.hidden, kernel, padding=kernel // 2
        )
        with torch.no_grad():
            self.both.weight.copy_(torch.cat([ours.input.weight, ours.recurrent.weight], dim=1))
            assert self.both.bias is not None
            assert ours.input.bias is not None
            self.both.bias.copy_(ours.input.bias)

    @override
    def forward(self, frames: Tensor) -> tuple[Tensor, State]:
        hidden = cell = frames.new_zeros(len(frames), self.hidden, *frames.shape[3:])
        states = []
        for frame in frames.unbind(2):
            i, f, o, g = self.both(torch.cat([frame, hidden], dim=1)).chunk(4, dim=1)
            cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
            hidden = o.sigmoid() * cell.tanh()
            states.append(hidden)
        return torch.stack(states, dim=2), (hidden, cell)


def main() -> None:
    """Measure, compare and write."""
    parser = options_of(__doc__)
    parser.add_argument("--width", type=positive, default=16)
    options = parser.parse_args()
    keep_freed_memory()
    torch.manual_seed(0)
    ours = Generator(options.width)
    plain = with_plain_cells(ours)
    frames = torch.randn(BATCH, 1, FRAMES, SIDE, SIDE)
    with torch.no_grad():
        pairs = list(zip(ours.eval()(frames)[:2], plain.eval()(frames)[:2], strict=True))
    difference = max(float((a - b).abs().max()) for a, b in pairs)
    steps = {"plain": Step(plain.train(), frames), "ours": Step(ours.train(), frames)}
    for step in steps.values():
        for _ in range(2):  # the first one chooses kernels, the second still asks for memory
            step()
    measured = paired(options.rounds, steps)
    write(
        "convlstm",
        {
            "width": options.width,
            "batch": [BATCH, 1, FRAMES, SIDE, SIDE],
            "precision": "bf16" if native_bf16() else "float32",
            "plain_over_ours": ratios(measured["plain"], measured["ours"]),
            "largest_difference_in_float32": difference,
        },
        options,
    )


def with_plain_cells(generator: Generator) -> Generator:
    """Return a copy whose ConvLSTMs are plain cells of the same weights."""
    plain = copy.deepcopy(generator)
    for module in list(plain.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, ConvLSTM):
                setattr(module, name, PlainConvLSTM(child))
    return plain


class Step:
    """A training step.

    Args:
        generator: to train.
        frames: (B, 1, T, H, W).
    """

    def __init__(self, generator: Generator, frames: Tensor) -> None:
        self.generator, self.frames = generator, frames
        self.optimizer = torch.optim.Adam(generator.parameters(), lr=1e-4)

    def __call__(self) -> float:
        """Train once; return the seconds."""
        started = time.perf_counter()
        self.optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=native_bf16()):
            outputs: JointOutputs = self.generator(self.frames)
            loss = outputs.mask.float().square().mean() + outputs.scalars.float().square().mean()
        loss.backward()
        self.optimizer.step()
        return time.perf_counter() - started
