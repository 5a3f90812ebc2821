"""Class activation maps: what they add up to, where they point."""

import pytest
import torch

from cardiac_mtl.networks.activation import class_activation
from cardiac_mtl.networks.classifiers import CLASSIFIERS
from cardiac_mtl.networks.fpm import FPMNet


def network_of(name):
    torch.manual_seed(0)
    network = FPMNet(width=2, mask=False) if name == "fpm" else CLASSIFIERS[name](4)
    return network.eval(), "last" if name == "fpm" else network.maps


@pytest.mark.parametrize("name", ["fpm", *CLASSIFIERS])
def test_the_mean_of_the_map_is_the_log_odds(name):
    """Interpolation to a multiple of the grid keeps the mean."""
    network, maps = network_of(name)
    image = torch.randn(2, 1, 128, 128)
    found = class_activation(network, image, maps, "classify", network.margins(image))
    logits = network(image).label if name == "fpm" else network(image)
    assert found.shape == (2, 128, 128)
    assert found.std() > 0
    torch.testing.assert_close(found.mean((1, 2)), logits.detach(), rtol=1e-3, atol=1e-5)


def test_a_map_is_of_the_image_without_what_was_added():
    network, maps = network_of("fpm")
    image = torch.randn(1, 1, 64, 54)
    found = class_activation(network, image, maps, "classify", network.margins(image))
    bordered = torch.nn.functional.pad(image, (5, 5))
    whole = class_activation(network, bordered, maps, "classify", network.margins(bordered))
    assert found.shape == (1, 64, 54)
    torch.testing.assert_close(found, whole[..., 5:-5])


def test_a_map_points_to_what_speaks_for_the_class():
    class Spots(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.features = torch.nn.MaxPool2d(8)
            self.classify = torch.nn.Linear(1, 1)
            torch.nn.init.ones_(self.classify.weight)

        def forward(self, image):
            return self.classify(self.features(image).mean((2, 3))).squeeze(1)

    image = torch.zeros(1, 1, 32, 48)
    image[0, 0, 20, 36] = 5.0
    network = Spots()
    found = class_activation(network, image, "features", "classify", (0, 0, 0, 0))
    row, column = divmod(int(found.argmax()), 48)
    assert (row // 8, column // 8) == (2, 4)
    assert network.training
    assert not network.features._forward_hooks
