"""The network of Peng et al. against its table of shapes, its arithmetic and plain references."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from cardiac_mtl.networks.fpm import CBR, DAC, FPM, FPMNet, SubPixelUp, receptive_field
from cardiac_mtl.networks.padding import margins, padded, unpadded


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_the_default_network_has_the_specified_size():
    assert count(FPMNet()) == 8_478_658


@pytest.mark.parametrize(("rates", "side"), [((3,), 7), ((3, 5, 7), 31), ((6, 12, 18), 73)])
def test_receptive_field_is_where_the_gradient_comes_from(rates, side):
    image = torch.zeros(1, 1, 99, 99, requires_grad=True)
    seen = image
    for rate in rates:
        seen = F.conv2d(seen, torch.ones(1, 1, 3, 3), padding=rate, dilation=rate)
    (gradient,) = torch.autograd.grad(seen[0, 0, 49, 49], image)
    rows = gradient[0, 0].any(1).nonzero().squeeze(1)
    assert int(rows.max() - rows.min()) + 1 == side == receptive_field(rates)


def test_shapes_of_the_table():
    shapes, network = {}, FPMNet(width=2)
    watched = {
        "stem": network.stem,
        **{f"E{k}": stage for k, stage in enumerate(network.stages, start=1)},
        "mid": network.dac,
        "last": network.last,
        **{f"D{3 - k}": join for k, join in enumerate(network.decoder.joins)},
        "D0": network.decoder.full[1],
    }
    for name, module in watched.items():
        module.register_forward_hook(
            lambda _, __, out, name=name: shapes.update({name: tuple(out.shape[1:])})
        )
    network(torch.zeros(2, 1, 64, 96))
    assert shapes == {  # channels an eighth of those of c = 16
        "stem": (2, 64, 96),
        "E1": (8, 32, 48),
        "E2": (24, 16, 24),
        "E3": (32, 8, 12),
        "mid": (32, 8, 12),
        "E4": (96, 4, 6),
        "last": (64, 4, 6),
        "D3": (8, 8, 12),
        "D2": (4, 16, 24),
        "D1": (2, 32, 48),
        "D0": (2, 64, 96),
    }


@pytest.mark.parametrize("size", [(256, 218), (33, 47), (16, 16), (5, 90)])
def test_any_size_goes_in_and_comes_out(size):
    mask, label = FPMNet(width=2).eval()(torch.randn(2, 1, *size))
    assert mask.shape == (2, *size)
    assert label.shape == (2,)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 4, 16]), st.integers(0, 2))
def test_unpadding_takes_away_exactly_what_padding_added(rows, columns, multiple, times):
    image = torch.randn(2, rows, columns)
    sides = margins(image, multiple, at_least=max(1, multiple * times))
    larger = padded(image, sides)
    assert min(larger.shape[1:]) >= multiple * times
    assert not any(side % multiple for side in larger.shape[1:])
    assert abs(sides.left - sides.right) <= 1
    assert abs(sides.top - sides.bottom) <= 1
    assert torch.equal(unpadded(larger, sides), image)
    assert float(larger.abs().sum()) == pytest.approx(float(image.abs().sum()), rel=1e-5)


@pytest.mark.parametrize(("parallel", "channels"), [((), 12), ((4, 8, 12), 24)])
def test_modules_a_and_b_put_out_what_they_are_described_to(parallel, channels):
    torch.manual_seed(0)
    module = FPM(5, 4, (3, 5, 7), parallel).eval()
    x = torch.randn(2, 5, 12, 10)
    found = module(x)
    assert found.shape == (2, channels, 12, 10)
    assert module.out_channels == channels
    r = module.reduce(x)
    s1 = module.serial[0](r)
    s2 = module.serial[1](s1)
    s3 = module.serial[2](s2) + r
    beside = [branch(r) for branch in module.parallel]
    torch.testing.assert_close(found, torch.cat([s1, s2, s3, *beside], dim=1))
    assert [branch[0].dilation for branch in module.parallel] == [(k, k) for k in parallel]


def test_every_convolution_has_a_norm_and_a_relu():
    convolution, norm, relu = CBR(3, 6, rate=5)
    assert convolution.bias is None
    assert convolution.padding == convolution.dilation == (5, 5)
    assert isinstance(norm, nn.BatchNorm2d)
    assert isinstance(relu, nn.ReLU)


def convolve(x, weight, bias, rate):
    return F.conv2d(x, weight, bias, padding=rate, dilation=rate)


def test_dac_is_its_formula():
    torch.manual_seed(0)
    dac = DAC(6)
    a1, a3, a5, w = dac.branches[0]
    assert not any(a.bias.any() for a in (a1, a3, a5))
    for a in (a1, a3, a5):
        nn.init.normal_(a.bias)
    x = torch.randn(2, 6, 14, 12)

    def f1(x):
        return convolve(x, a1.weight, a1.bias, 1)

    def f3(x):
        return convolve(x, a3.weight, a3.bias, 3)

    def f5(x):
        return convolve(x, a5.weight, a5.bias, 5)

    def mix(x):
        return torch.einsum("oi,bihw->bohw", w.weight[:, :, 0, 0], x)

    expected = x + F.relu(f1(x)) + F.relu(mix(f3(x)))
    expected = expected + F.relu(mix(f3(f1(x)))) + F.relu(mix(f5(f3(f1(x)))))
    torch.testing.assert_close(dac(x), expected)


def test_branches_of_dac_may_have_convolutions_of_their_own():
    torch.manual_seed(0)
    shared, apart = DAC(4), DAC(4, share=False)
    assert count(shared) == 3 * (9 * 16 + 4) + 16
    assert count(apart) == 7 * (9 * 16 + 4) + 3 * 16
    a1, a3, a5, w = shared.branches[0]
    for branch, theirs in zip(
        apart.branches, [[a1], [a3, w], [a1, a3, w], [a1, a3, a5, w]], strict=True
    ):
        for ours, other in zip(branch, theirs, strict=True):
            ours.load_state_dict(other.state_dict())
    x = torch.randn(2, 4, 14, 12)
    torch.testing.assert_close(apart(x), shared(x))


@pytest.mark.parametrize("share", [True, False])
def test_norms_of_dac_keep_its_shape(share):
    dac = DAC(4, share=share, bn=True)
    x = torch.randn(2, 4, 14, 12)
    assert dac(x).shape == x.shape
    norms = [m for m in dac.modules() if isinstance(m, nn.BatchNorm2d)]
    convolutions = [m for m in dac.modules() if isinstance(m, nn.Conv2d)]
    assert len(norms) == len(convolutions) == (4 if share else 10)


def test_sub_pixels_start_as_nearest_neighbours():
    torch.manual_seed(0)
    up = SubPixelUp(3, 5)
    x = torch.randn(2, 3, 7, 6)
    finer = up[1](up[0](x))
    plain = F.conv2d(x, up[0].weight[::4], up[0].bias[::4], padding=1)
    torch.testing.assert_close(finer, F.interpolate(plain, scale_factor=2, mode="nearest"))
    assert finer.std() > 0.1
    assert up(x).shape == (2, 5, 14, 12)


def test_sub_pixels_can_tell_the_four_apart_once_they_learn():
    up = SubPixelUp(1, 1)
    with torch.no_grad():
        up[0].weight.zero_()
        up[0].bias.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    finer = up[1](up[0](torch.zeros(1, 1, 1, 1)))
    assert finer[0, 0].tolist() == [[1.0, 2.0], [3.0, 4.0]]


@pytest.mark.parametrize(("mask", "label"), [(True, False), (False, True)])
def test_a_single_task_builds_no_other_branch(mask, label):
    network = FPMNet(width=2, mask=mask, label=label)
    found = network(torch.randn(2, 1, 32, 32))
    assert (found.mask is not None, found.label is not None) == (mask, label)
    assert count(network) < count(FPMNet(width=2))


@pytest.mark.parametrize("settings", [{}, {"share": False, "bn": True}])
def test_every_parameter_learns(settings):
    torch.manual_seed(0)
    network = FPMNet(width=4, **settings)
    mask, label = network(torch.randn(4, 1, 64, 48))
    (mask.square().mean() + label.square().mean()).backward()
    still = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert not still
