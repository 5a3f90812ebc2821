"""Table 2 of MuTGAN: other extractors, the same features, so that the rest of the network stays."""

from typing import get_args

import pytest
import torch

from cardiac_mtl.networks.convlstm import ConvLSTM
from cardiac_mtl.networks.extractors import ExtractorName, last_of_each, make_extractor
from cardiac_mtl.networks.sfen import Conv3dBlock, Generator

NAMES = get_args(ExtractorName)
MILLIONS = {  # at the paper's width
    "sfen": 20.470, "convlstms": 37.318, "3dconvs": 9.262, "3dconvs_lstm": 9.788, "cnns": 3.892,
    "lstms": 15.745, "single_frame": 20.470,
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("width", "length", "size", "frames"),
    [(3, 25, (64, 64), (9, 3, 1, 1)), (2, 2, (32, 48), (1, 1, 1, 1)), (2, 30, (16, 16), (10, 4, 2, 2))],
)  # fmt: skip
def test_features_have_the_shapes_of_sfen(name, width, length, size, frames):
    features = make_extractor(name, width, size)(torch.randn(2, 1, length, *size))
    for k, (found, channels) in enumerate(zip(features, (1, 2, 4, 8), strict=True)):
        sides = [side // 2 ** (k + 1) for side in size]
        assert list(found.shape) == [2, channels * width, frames[k], *sides]


@pytest.mark.parametrize("name", NAMES)
def test_parameters_at_the_papers_width(name):
    extractor = make_extractor(name, 64, (64, 64))
    found = sum(p.numel() for p in extractor.parameters()) / 1e6
    assert found == pytest.approx(MILLIONS[name], abs=5e-4)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_every_parameter(name):
    torch.manual_seed(0)
    extractor = make_extractor(name, 2, (16, 16))
    outputs = Generator(2, extractor)(torch.randn(3, 1, 25, 16, 16))
    (outputs.mask.square().mean() + outputs.scalars.square().mean()).backward()
    idle = [n for n, p in extractor.named_parameters() if p.grad is None or not p.grad.any()]
    assert not [name for name in idle if not name.endswith("convolution.bias")]  # norm undoes it


@pytest.mark.parametrize(
    ("name", "recurrent", "convolutions"),
    [("sfen", 9, 4), ("convlstms", 13, 0), ("3dconvs", 0, 13), ("cnns", 0, 13), ("lstms", 0, 0)],
)
def test_thirteen_layers_of_the_kinds_that_the_row_names(name, recurrent, convolutions):
    layers = list(make_extractor(name, 2, (16, 16)).modules())
    assert sum(isinstance(layer, ConvLSTM) for layer in layers) == recurrent
    assert sum(isinstance(layer, Conv3dBlock) for layer in layers) == convolutions


@pytest.mark.parametrize("name", NAMES)
def test_every_frame_is_seen_but_by_the_row_that_sees_one(name):
    torch.manual_seed(0)
    frames = torch.randn(1, 1, 25, 16, 16, requires_grad=True)
    extractor = make_extractor(name, 2, (16, 16)).eval()
    sum(feature.square().sum() for feature in extractor(frames)).backward()
    seen = frames.grad.flatten(3).any(3).squeeze()
    assert seen.tolist() == ([True] + [False] * 24 if name == "single_frame" else [True] * 25)


@pytest.mark.parametrize(
    ("length", "kept"), [(25, list(range(0, 25, 3))), (9, [2, 5, 8]), (3, [2]), (4, [0, 3])]
)
def test_every_third_frame_is_counted_back_from_the_last(length, kept):
    frames = torch.arange(float(length)).view(1, 1, -1, 1, 1)
    assert last_of_each(frames).flatten().tolist() == kept
