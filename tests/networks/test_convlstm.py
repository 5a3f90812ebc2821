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
    ).to(frames.dtype)
    with torch.no_grad():
        both.weight.copy_(torch.cat([layer.input.weight, layer.recurrent.weight], dim=1))
        both.bias.copy_(layer.input.bias)
    hidden = cell = frames.new_zeros(len(frames), layer.hidden, *frames.shape[3:])
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


def test_its_gradient_is_that_of_the_plain_cell():
    torch.manual_seed(0)
    layer, frames = ConvLSTM(2, 3).double(), torch.randn(2, 2, 5, 6, 7).double()
    gradients = []
    for run in (layer, lambda given: plain(layer, given)):
        given = frames.clone().requires_grad_()
        states, (hidden, cell) = run(given)
        seeds = torch.linspace(-1, 1, states.numel()).double().reshape(states.shape)
        loss = (states * seeds).sum() + hidden.square().sum() + (cell * hidden).sum()
        gradients += torch.autograd.grad(loss, given)
    torch.testing.assert_close(*gradients)


def test_its_gradient_is_that_of_finite_differences():
    torch.manual_seed(0)
    layer, frames = ConvLSTM(3, 2).double(), torch.randn(2, 3, 3, 4, 3, dtype=torch.double)
    state = [torch.randn(2, 2, 4, 3, dtype=torch.double, requires_grad=True) for _ in range(2)]

    def run(frames, hidden, cell, *_):
        states, last = layer(frames, (hidden, cell))
        return states, *last

    given = [frames.requires_grad_(), *state, *layer.parameters()]
    assert torch.autograd.gradcheck(run, given)


def test_weights_learn_the_same_where_the_frames_have_no_gradient():
    torch.manual_seed(0)
    layer, frames = ConvLSTM(2, 3).double(), torch.randn(2, 2, 4, 6, 7).double()
    weights = list(layer.parameters())
    found = torch.autograd.grad(layer(frames)[0].square().sum(), weights)
    with_frames = layer(frames.requires_grad_())[0].square().sum()
    torch.testing.assert_close(found, torch.autograd.grad(with_frames, weights))


def test_it_computes_in_bfloat16_and_keeps_gradients_in_float32():
    torch.manual_seed(0)
    layer, frames = ConvLSTM(1, 4), torch.randn(1, 1, 4, 8, 8)
    exact, _ = layer(frames)
    with torch.autocast("cpu", torch.bfloat16):
        found, _ = layer(frames)
        found.float().square().sum().backward()
    torch.testing.assert_close(found.float(), exact, atol=0.02, rtol=0.05)
    assert {p.grad.dtype for p in layer.parameters()} == {torch.float32}


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
