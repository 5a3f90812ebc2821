"""The dilated U-shape against the published table of layers, written out by hand."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cardiac_mtl.networks.drunet import DILATIONS, DRUNet

LIGHT = (2, 3, 4, 3, 2)


def by_the_table(weights, image, dilations):
    """Compute the table of layers with functions; weights and biases are taken in its order."""
    left = list(weights)

    def conv(x, dilation=1, side=3):
        weight, bias = left.pop(0), left.pop(0)
        assert weight.shape[1:] == (x.shape[1], side, side)
        return F.conv2d(x, weight, bias, padding=dilation * (side // 2), dilation=dilation)

    def residual(x, dilation):
        y = F.relu(conv(F.relu(conv(x, dilation)), dilation))
        return y + F.relu(conv(x, side=1))

    def twice_as_large(x):
        return x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)

    d2, d3, d4, d5, d6 = dilations
    block1 = F.relu(conv(F.relu(conv(image))))
    block2 = residual(F.max_pool2d(block1, 2), d2)
    block3 = residual(F.max_pool2d(block2, 2), d3)
    block4 = residual(F.max_pool2d(block3, 2), d4)
    block5 = residual(torch.cat([twice_as_large(block4), block3], 1), d5)
    block6 = residual(torch.cat([twice_as_large(block5), block2], 1), d6)
    block7 = F.relu(conv(F.relu(conv(torch.cat([twice_as_large(block6), block1], 1)))))
    logits = conv(block7, side=1)
    assert not left
    return logits


@pytest.mark.parametrize("dilations", [DILATIONS, LIGHT])
def test_it_is_the_table_of_layers(dilations):
    torch.manual_seed(0)
    network = DRUNet(width=6, dilations=dilations)
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter)
    image = torch.randn(2, 1, 64, 40)
    expected = by_the_table(network.parameters(), image, dilations)
    torch.testing.assert_close(network(image), expected, rtol=1e-5, atol=1e-5)
    inner = image.contiguous(memory_format=torch.channels_last)
    network.to(memory_format=torch.channels_last)
    torch.testing.assert_close(network(inner), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dilations", [DILATIONS, LIGHT])
def test_it_has_the_known_number_of_parameters(dilations):
    network = DRUNet(dilations=dilations)
    assert sum(p.numel() for p in network.parameters()) == 155_652
    assert sum(isinstance(layer, nn.Conv2d) for layer in network.modules()) == 20


@pytest.mark.parametrize("sides", [(224, 224), (16, 8), (48, 120)])
def test_it_keeps_any_size_that_8_divides(sides):
    assert DRUNet(width=2, classes=3)(torch.zeros(1, 1, *sides)).shape == (1, 3, *sides)


def test_it_starts_as_keras_does():
    torch.manual_seed(0)
    convolutions = [m for m in DRUNet().modules() if isinstance(m, nn.Conv2d)]
    assert not any(c.bias.any() for c in convolutions)
    for convolution in convolutions:
        area = convolution.kernel_size[0] ** 2
        bound = (6 / (area * (convolution.in_channels + convolution.out_channels))) ** 0.5
        largest = float(convolution.weight.detach().abs().max())
        assert 0.9 * bound < largest <= bound


def test_every_parameter_learns():
    torch.manual_seed(0)
    network = DRUNet(width=4)
    network(torch.randn(2, 1, 32, 32)).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in network.parameters())
