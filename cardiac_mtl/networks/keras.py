"""What Keras does by default, for networks whose published code is written in it."""

from torch import nn


def init_glorot(module: nn.Module) -> None:
    """Glorot uniform weights and zero biases for every convolution and linear layer.

    Args:
        module: changed in place, with all that it contains.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
