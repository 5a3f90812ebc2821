"""The counter of operations and bytes, against layers counted by hand."""

import pytest
import torch
from torch import nn

from benchmarks.roofline import Cost, placed

N, C_IN, C_OUT, K, H, W = 2, 3, 5, 3, 8, 12


def test_a_convolution_by_hand():
    layer = nn.Conv2d(C_IN, C_OUT, K, padding=1, bias=False)
    image = torch.randn(N, C_IN, H, W, requires_grad=True)
    products = C_IN * C_OUT * K * K * H * W * N
    with Cost() as forward:
        result = layer(image)
    assert forward.flops == 2 * products
    assert forward.traffic == 4 * (N * C_IN * H * W + C_IN * C_OUT * K * K + N * C_OUT * H * W)
    with Cost() as backward:
        result.sum().backward()
    assert backward.flops == 2 * 2 * products  # of the image and of the weights


def test_the_first_convolution_needs_no_gradient_of_the_image():
    layer = nn.Conv2d(C_IN, C_OUT, K, padding=1, bias=False)
    with Cost() as cost:
        layer(torch.randn(N, C_IN, H, W)).sum().backward()
    assert cost.flops == 2 * 2 * C_IN * C_OUT * K * K * H * W * N


def test_an_lstm_by_hand():
    features, hidden, length = 3, 5, 7
    layer = nn.LSTM(features, hidden, bidirectional=True, batch_first=True)
    once = 2 * N * length * 4 * hidden * (features + hidden) * 2
    with Cost() as cost:
        layer(torch.randn(N, length, features, requires_grad=True))[0].sum().backward()
    assert cost.flops == 3 * once


def test_what_goes_element_by_element_is_no_product():
    image = torch.randn(N, C_IN, H, W)
    with Cost() as cost:
        nn.BatchNorm2d(C_IN)(image).relu().mean()
    assert (cost.flops, cost.traffic) == (0, 0)
    assert cost.operations > 2


@pytest.mark.parametrize(
    ("seconds", "copy", "bound"),
    [(0.15, 1e12, "compute"), (0.15, 1e5, "memory"), (0.5, 1e12, "overhead")],
)
def test_what_bounds(seconds, copy, bound):
    with Cost() as cost:
        torch.randn(50, 100) @ torch.randn(100, 100)  # 1e6 operations, 8e4 bytes
    row = placed(cost, [seconds], {"32-true": 1e7, "copy": copy * 0.8}, "32-true")
    assert row["bound_by"] == bound
    floor = 1.0 if bound == "memory" else 0.1
    assert row["achieved"] == pytest.approx(floor / seconds, rel=0.01)
