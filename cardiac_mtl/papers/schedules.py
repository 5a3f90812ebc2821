"""Learning rates over the epochs that torch has no single class for."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


class WarmUpThenCosine(LambdaLR):
    """A learning rate that rises in a line, then falls by a cosine to 0, where it stays.

    The first steps of Adam are its largest: stages of ConvLSTMs may saturate in them, and then hold
    the same for every image ever after.

    Args:
        optimizer: whose learning rates are multiplied.
        warm_up: epochs of the rise; the first has 1 / (warm_up + 1) of the rate.
        epochs: until it is 0.
    """

    def __init__(self, optimizer: Optimizer, warm_up: int, epochs: int) -> None:
        def factor(epoch: int) -> float:
            if epoch < warm_up:
                return (epoch + 1) / (warm_up + 1)
            done = min(1.0, (epoch - warm_up) / max(1, epochs - warm_up))
            return (1 + math.cos(math.pi * done)) / 2

        super().__init__(optimizer, factor)
