"""The generator of MuTGAN against the numbers of the paper and of the derived layer table."""

import pytest
import torch
from torch import nn

from cardiac_mtl.networks.convlstm import ConvLSTM
from cardiac_mtl.networks.sfen import (
    REGRESSED,
    SFEN,
    Conv3dBlock,
    Generator,
    same_in_time,
)

FRAMES, SIDE = 25, 64


def layers(module):
    """Return the numbered layers: ConvLSTMs, 3-D convolutions with norm, and the last 1 x 1."""
    return [
        m
        for m in module.modules()
        if isinstance(m, ConvLSTM | Conv3dBlock)
        or (isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1))
    ]


@pytest.mark.parametrize("width", [2, 3])
def test_the_shapes_of_the_table_at_any_width(width):
    frames = torch.randn(2, 1, FRAMES, SIDE, SIDE)
    generator = Generator(width)
    features = generator.extractor(frames)
    assert [tuple(m.shape[1:]) for m in features] == [
        (width, 9, 32, 32), (2 * width, 3, 16, 16), (4 * width, 1, 8, 8), (8 * width, 1, 4, 4),
    ]  # fmt: skip
    outputs = generator.joint(features, frames.shape[2:])
    assert [tuple(m.shape[1:]) for m in outputs.maps] == [
        (8 * width, 1, 4, 4), (4 * width, 3, 16, 16), (2 * width, 9, 32, 32), (width, 25, 64, 64),
    ]  # fmt: skip
    assert outputs.mask.shape == (2, SIDE, SIDE)
    assert outputs.scalars.shape == (2, 8)


def test_the_numbers_of_the_paper():
    generator = Generator()
    assert (len(layers(generator.extractor)), len(layers(generator.joint))) == (13, 17)
    assert generator.extractor.last.convolution.out_channels == 512
    assert 64 * sum(REGRESSED) == 1472
    assert generator.joint.regression.in_features == 23552
    assert sum(p.numel() for p in generator.parameters()) / 1e6 == pytest.approx(52.1, abs=0.05)


def test_the_regression_sees_every_stage_alike():
    """Untrained, states of Conv21 are a hundredth of what convolutions with a norm give."""
    torch.manual_seed(0)
    generator, seen = Generator(2), []
    generator.joint.regression.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    generator(torch.randn(2, 1, FRAMES, SIDE, SIDE))
    stages = seen[0].split([2 * k * 16 for k in REGRESSED], dim=1)
    for stage in stages:
        assert float(stage.mean()) == pytest.approx(0.0, abs=1e-4)
        assert 0.05 < float(stage.std()) < 1.1


def test_gradients_reach_every_parameter():
    torch.manual_seed(0)
    generator = Generator(2)
    outputs = generator(torch.randn(2, 1, FRAMES, SIDE, SIDE))
    (outputs.mask.square().mean() + outputs.scalars.square().mean()).backward()
    idle = [n for n, p in generator.named_parameters() if p.grad is None or not p.grad.any()]
    assert not [name for name in idle if not name.endswith("convolution.bias")]  # norm undoes it


@pytest.mark.parametrize(("length", "padding"), [(25, (1, 1)), (9, (0, 0)), (3, (0, 0))])
def test_padding_in_time_is_that_of_the_table(length, padding):
    assert same_in_time(length, 3, 3) == padding


@pytest.mark.parametrize("length", range(2, 31))
def test_no_frame_is_dropped(length):
    """PyTorch's symmetric padding gives the same lengths, and never looks at the last frame."""
    torch.manual_seed(0)
    block = Conv3dBlock(1, 4, stride=(3, 2, 2)).eval()
    frames = torch.randn(1, 1, length, 4, 4, requires_grad=True)
    out = block.convolution(nn.functional.pad(frames, (0, 0, 0, 0, *same_in_time(length, 3, 3))))
    assert out.shape[2] == -(-length // 3) == block(frames).shape[2]
    out.square().sum().backward()
    assert frames.grad.flatten(3).any(3).all()


def test_the_order_of_the_frames_matters():
    torch.manual_seed(0)
    sfen, frames = SFEN(2), torch.randn(2, 1, FRAMES, 32, 32)  # norms of the batch in hand
    assert not torch.allclose(sfen(frames).conv13, sfen(frames.flip(2)).conv13)


def test_what_differs_between_images_reaches_every_stage_of_an_untrained_generator():
    """Random biases, summed up over the frames, left 1 % of it at Conv12."""
    torch.manual_seed(0)
    generator = Generator(8)
    coarse = torch.randn(16, 1, 5, 8, 8)
    frames = nn.functional.interpolate(coarse, (10, 48, 48), mode="trilinear")
    with torch.no_grad():
        for name, held in generator.feature_maps(frames).items():
            last = held if held.dim() == 4 else held[:, :, -1]
            about_channel = last - last.mean((0, 2, 3), keepdim=True)
            share = last.var(0).mean() / about_channel.square().mean()
            assert share > 0.2, name
