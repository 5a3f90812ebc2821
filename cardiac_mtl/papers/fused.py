"""One kernel for all weights in a step of an optimiser, where torch has one."""

from typing import TypeVar

from torch.optim import Optimizer

_DEVICES = ("cpu", "cuda")
_O = TypeVar("_O", bound=Optimizer)


def fused(optimizer: _O) -> _O:
    """Have an optimiser update all its weights at once; what has no such kernel stays as it is.

    The flag is set here, not given to the constructor: torch then leaves it to the trainer to
    unscale gradients in half precision, and they can be clipped as ever (P20).

    Args:
        optimizer: before its first step; whether it does is kept where its maker said so.

    Returns:
        The same optimiser.
    """
    for group in optimizer.param_groups:
        chosen = any(group.get(way) is not None for way in ("fused", "foreach"))
        able = "fused" in group and not group.get("differentiable")
        here = all(p.device.type in _DEVICES and p.is_floating_point() for p in group["params"])
        if able and here and not chosen:
            group["fused"] = True
    return optimizer
