"""The U-Net of MTN against the paper's table of shapes and the known parameter counts."""

import pytest
import torch
from torch import nn

from cardiac_mtl.networks.unet import (
    RegressionHead,
    SegmentationHead,
    UNetTrunk,
    init_kaiming,
)


def count(module, kinds=(nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
    layers = [layer for layer in module.modules() if isinstance(layer, kinds)]
    return sum(p.numel() for layer in layers for p in layer.parameters())


@pytest.mark.parametrize("width", [4, 8])
def test_shapes_of_the_table_at_any_width(width):
    features = UNetTrunk(width=width)(torch.zeros(2, 1, 96, 64))
    assert features.bottleneck.shape == (2, 16 * width, 6, 4)
    assert features.dec3.shape == (2, 4 * width, 24, 16)
    assert features.dec2.shape == (2, 2 * width, 48, 32)
    assert features.final.shape == (2, 2 * width, 96, 64)


def test_the_baseline_has_the_known_number_of_parameters():
    trunk, head = UNetTrunk(width=64), SegmentationHead(64)
    assert count(trunk) + count(head) == 31_030_593


@pytest.mark.parametrize(("width", "millions"), [(64, 31.29), (32, 7.86), (16, 1.98)])
def test_width_presets_have_the_specified_size(width, millions):
    parts = [UNetTrunk(width=width), SegmentationHead(width), RegressionHead(width, (192, 192))]
    # the specification counts convolutions and the fully connected layer
    assert sum(map(count, parts)) / 1e6 == pytest.approx(millions, abs=0.006)


@pytest.mark.parametrize("branch_at", ["final", "dec2", "dec3", "bottleneck"])
def test_regression_fits_wherever_it_branches(branch_at):
    trunk = UNetTrunk(width=2)
    head = RegressionHead(2, (64, 128), branch_at=branch_at, pool=4)
    features = trunk(torch.zeros(3, 1, 64, 128))
    assert head(getattr(features, branch_at)).shape == (3, 1)


def test_area_is_computed_in_float32_under_autocast():
    head = RegressionHead(2, (16, 16), pool=4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        area = head(torch.randn(1, 4, 16, 16))
    assert area.dtype == torch.float32


def test_biases_start_at_zero_and_weights_have_the_kaiming_bound():
    trunk = UNetTrunk(width=4)
    init_kaiming(trunk)
    convolutions = [m for m in trunk.modules() if isinstance(m, nn.Conv2d)]
    assert not any(c.bias.any() for c in convolutions)
    for convolution in convolutions:
        fan_in = convolution.in_channels * 9
        bound = torch.tensor((6 / fan_in) ** 0.5)  # a float32, as one of them may be drawn
        assert convolution.weight.detach().abs().max() <= bound
        assert float(convolution.weight.std()) == pytest.approx((2 / fan_in) ** 0.5, rel=0.25)
