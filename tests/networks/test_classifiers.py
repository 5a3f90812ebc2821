"""Baselines of Peng et al.: known parameter counts, any size, gradients everywhere."""

import pytest
import torch
from torch import nn

from cardiac_mtl.networks.classifiers import CLASSIFIERS, scaled
from cardiac_mtl.networks.deeplab import DeepLabV3Plus, NormOfMeans
from cardiac_mtl.networks.unet import UNet

SEGMENTERS = {"unet": UNet, "deeplabv3plus": DeepLabV3Plus}
NETWORKS = CLASSIFIERS | SEGMENTERS
# what one channel in place of three takes from the first convolution
ONE_CHANNEL = {"vgg16": 2 * 9 * 64, "resnet50": 2 * 49 * 64}


def count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("name", "of_imagenet", "features", "head"),
    [
        ("vgg16", 14_714_688, 512, None),  # without the flat layers
        ("resnet50", 25_557_032, 2048, 1000),
        ("inception_v3", 23_834_568, 2048, 1000),  # without the auxiliary classifier
        ("xception", 22_855_952, 2048, 1000),
    ],
)
def test_the_published_networks_have_their_known_sizes(name, of_imagenet, features, head):
    network = CLASSIFIERS[name](64)
    of_head = (features + 1) * head if head else 0
    expected = of_imagenet - of_head - ONE_CHANNEL.get(name, 2 * 9 * 32)
    assert count(network.features) == expected
    assert count(network) == expected + features + 1


def test_deeplab_has_the_size_of_its_keras_version():
    network = DeepLabV3Plus()
    statistics = sum(b.numel() for n, b in network.named_buffers() if "running" in n)
    of_three_channels, of_21_classes = 2 * 9 * 32, 20 * 257
    assert count(network) + statistics + of_three_channels + of_21_classes == 41_258_213


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("size", [(32, 32), (33, 50), (75, 131)])
def test_any_size_goes(name, size):
    network = NETWORKS[name](4)
    found = network(torch.randn(2, 1, *size))
    assert found.shape == ((2, *size) if name in SEGMENTERS else (2,))


@pytest.mark.parametrize("name", NETWORKS)
def test_every_parameter_learns(name):
    torch.manual_seed(0)
    network = NETWORKS[name](4)
    network(torch.randn(4, 1, 96, 80)).square().mean().backward()
    still = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert not still


@pytest.mark.parametrize("name", NETWORKS)
def test_a_batch_of_one_image_trains(name):
    network = NETWORKS[name](4)
    network(torch.randn(1, 1, 24, 40)).square().mean().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_two_by_two_features_are_left_of_the_smallest_image(name):
    network = CLASSIFIERS[name](4)
    shapes = []
    last = [m for m in network.modules() if isinstance(m, nn.Conv2d)][-1]
    last.register_forward_hook(lambda _, __, out: shapes.append(min(out.shape[2:])))
    if name == "vgg16":  # pooled once more
        network.features[-1].register_forward_hook(lambda _, __, out: shapes.append(out.shape[2]))
    network.eval()(torch.randn(1, 1, 5, 5))
    assert shapes[-1] in {2, 3}


@pytest.mark.parametrize("name", NETWORKS)
def test_another_width_scales_every_layer(name):
    assert count(NETWORKS[name](8)) < 0.32 * count(NETWORKS[name](16))


def test_widths_are_rounded_and_never_zero():
    assert [scaled(64, 728), scaled(4, 728), scaled(1, 32)] == [728, 46, 1]


def test_the_norm_of_means_is_that_of_its_batch_where_there_are_several():
    ours, plain = NormOfMeans(3), nn.BatchNorm2d(3)
    x = torch.randn(4, 3, 1, 1)
    torch.testing.assert_close(ours(x), plain(x))
    one = ours(x[:1])
    torch.testing.assert_close(one, plain.eval()(x[:1]))
