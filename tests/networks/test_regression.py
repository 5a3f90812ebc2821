"""The last layers of regressions, against numbers by hand."""

import pytest
import torch
from torch.nn import functional as F

from cardiac_mtl.networks.regression import Float32Linear, ScaledLinear


@pytest.mark.parametrize(("layer", "divisor"), [(Float32Linear, 1.0), (ScaledLinear, 4.0)])
def test_regressions_are_float32_under_autocast(layer, divisor):
    linear, features = layer(16, 2), torch.randn(3, 16)
    expected = F.linear(features.bfloat16().float() / divisor, linear.weight, linear.bias)
    with torch.autocast("cpu", torch.bfloat16):
        found = linear(features.bfloat16())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected)


def test_a_step_of_adam_moves_a_wide_regression_little():
    """By 0.001 in each of 10 000 weights: 10 in a plain sum, 0.1 divided by 100."""
    features, moved = torch.ones(1, 10_000), {}
    for layer in (Float32Linear, ScaledLinear):
        linear = layer(10_000, 1)
        before = linear(features)
        before.sum().backward()
        torch.optim.Adam(linear.parameters(), lr=0.001).step()
        moved[layer] = float((before - linear(features)).detach())
    assert moved[Float32Linear] == pytest.approx(10.001, rel=1e-3)
    assert moved[ScaledLinear] == pytest.approx(0.101, rel=1e-2)
