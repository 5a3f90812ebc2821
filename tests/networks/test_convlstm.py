"""ConvLSTM against the cell that concatenates frame and hidden state, as it is usually written."""

import pytest
import torch
from torch import nn

from cardiac_mtl.errors import UserError
from cardiac_mtl.networks.convlstm import ConvLSTM


def plain(layer, frames):
    """Run the reference cell with the same weights: one convolution of both at every step."""
    kernel = layer.input.kernel_size[0]
    both = nn.Conv2d(
        layer.input.in_channels + layer.hidden, 4 * layer.hidden, kernel, padding=kernel // 2
    )
    with torch.no_grad():
        both.weight.copy_(torch.cat([layer.input.weight, layer.recurrent.weight], dim=1))
        both.bias.copy_(layer.input.bias)
    hidden = cell = torch.zeros(len(frames), layer.hidden, *frames.shape[3:])
    states = []
    for frame in frames.unbind(2):
        i, f, o, g = both(torch.cat([frame, hidden], dim=1)).chunk(4, dim=1)
        cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        hidden = o.sigmoid() * cell.tanh()
        states.append(hidden)
    return torch.stack(states, dim=2), (hidden, cell)


@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_it_is_the_plain_cell(kernel):
    torch.manual_seed(0)
    layer, frames = ConvLSTM(3, 4, kernel), torch.randn(2, 3, 6, 9, 7)
    found, (hidden, cell) = layer(frames)
    expected, (last, memory) = plain(layer, frames)
    assert found.shape == (2, 4, 6, 9, 7)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(hidden, last, atol=1e-5, rtol=0)
    torch.testing.assert_close(cell, memory, atol=1e-5, rtol=0)


def test_two_halves_are_the_whole():
    torch.manual_seed(0)
    layer, frames = ConvLSTM(1, 3), torch.randn(2, 1, 7, 8, 8)
    whole, last = layer(frames)
    first, state = layer(frames[:, :, :3])
    second, end = layer(frames[:, :, 3:], state)
    torch.testing.assert_close(torch.cat([first, second], dim=2), whole)
    torch.testing.assert_close(end, last)


def test_a_frame_changes_what_comes_after_it_and_nothing_before():
    torch.manual_seed(0)
    layer, frames = ConvLSTM(1, 3), torch.randn(1, 1, 6, 8, 8)
    before, _ = layer(frames)
    frames[:, :, 3] += 1
    after, _ = layer(frames)
    changed = (before != after).flatten(3).any(3).any(1)[0]
    assert changed.tolist() == [False] * 3 + [True] * 3


def test_it_begins_by_remembering():
    layer = ConvLSTM(2, 4)
    i, f, o, g = layer.input.bias.detach().chunk(4)
    assert f.mean() > 0.8
    assert max(abs(part.mean()) for part in (i, o, g)) < 0.3


def test_an_even_kernel_is_one_line():
    with pytest.raises(UserError, match="kernel 4 is even"):
        ConvLSTM(1, 2, 4)
