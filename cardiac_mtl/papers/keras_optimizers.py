"""Optimisers as Keras has them, for papers whose published code is written in it.

Besides the epsilon, what differs from PyTorch's is the `decay`: at update t, from 0, the learning
rate is lr / (1 + decay t). It is counted in the state of the optimiser, and a schedule by epochs
may change lr beside it.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.optim import Adam, Optimizer, RMSprop
from typing_extensions import override

_UPDATES = "updates"
"""Key of a parameter group, and so of a checkpoint: how many updates there were."""


class _Decaying(Optimizer):
    """What both share; `decay` and `clip_value` are set by the subclass.

    `clip_value` bounds each number of a gradient, 0 for none.
    """

    decay: float
    clip_value: float

    def count_updates(self) -> None:
        for group in self.param_groups:
            group[_UPDATES] = 0

    @override
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        with torch.enable_grad():
            loss = None if closure is None else closure()
        rates = [group["lr"] for group in self.param_groups]
        for group in self.param_groups:
            if self.clip_value:
                torch.nn.utils.clip_grad_value_(group["params"], self.clip_value)
            group["lr"] /= 1 + self.decay * group[_UPDATES]
            group[_UPDATES] += 1
        super().step()
        for group, rate in zip(self.param_groups, rates, strict=True):
            group["lr"] = rate
        return loss


class KerasAdam(_Decaying, Adam):
    """Adam.

    Args:
        params: parameters, or groups of them.
        lr: learning rate.
        decay: of the learning rate, by update.
        clip_value: largest number of a gradient, 0 for none.
        weight_decay: half the factor of the squared norm in the loss.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 2e-4,
        decay: float = 1e-8,
        clip_value: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr=lr, eps=1e-7, weight_decay=weight_decay)
        self.decay, self.clip_value = decay, clip_value
        self.count_updates()


class KerasRMSprop(_Decaying, RMSprop):
    """RMSprop, which forgets a tenth of the squared gradients each update.

    Args:
        params: parameters, or groups of them.
        lr: learning rate.
        decay: of the learning rate, by update.
        clip_value: largest number of a gradient, 0 for none.
        weight_decay: half the factor of the squared norm in the loss.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 2e-4,
        decay: float = 1e-8,
        clip_value: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr=lr, alpha=0.9, eps=1e-7, weight_decay=weight_decay)
        self.decay, self.clip_value = decay, clip_value
        self.count_updates()
