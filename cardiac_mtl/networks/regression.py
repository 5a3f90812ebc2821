"""The layers that regressed numbers leave a network by."""

import math

import torch
from torch import Tensor, nn


class Float32Linear(nn.Linear):
    """A linear layer in single precision, whatever the rest runs in.

    bfloat16 has eight bits: it would round 1500 mm2 to steps of 8 mm2.
    """

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, in) to (B, out), float32."""
        with torch.autocast(features.device.type, enabled=False):
            return super().forward(features.float())


class ScaledLinear(Float32Linear):
    """A linear layer whose input is divided by the root of its length.

    A step of Adam moves every weight by the learning rate, and so a plain sum of thousands of
    features by whole SDs of what is regressed: the output jumps about, and its gradient drowns
    those of other tasks in the layers that they share. Divided, neither depends on the width or the
    size of the image more than in other layers (the parametrisation of Jacot et al., NeurIPS 2018).
    """

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, in) to (B, out), float32."""
        return super().forward(features / math.sqrt(self.in_features))
