"""Discriminators of the adversarial papers."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from cardiac_mtl.networks.keras import init_glorot

DiscriminatorHead = Literal["flatten", "pooled"]


class TaskRelatedness(nn.Module):
    """The discriminator of MuTGAN: a Bi-LSTM that reads the tasks as a sequence, and writes them.

    It maps each task's values to values of the same shape, as the auto-encoder of BEGAN does: what
    it rebuilds badly does not look like the relation of tasks that it learned.
    Source: Xu et al., MuTGAN, eq. 4; [inferred] the sizes, and that it rebuilds.

    Args:
        sizes: numbers of each task; the first is the mask, whose output is a probability.
        hidden: of the embedding and of each direction.
        layers: of the Bi-LSTM.
    """

    def __init__(self, sizes: Sequence[int], hidden: int = 128, layers: int = 2) -> None:
        super().__init__()
        self.embed = nn.ModuleList(nn.Linear(size, hidden) for size in sizes)
        self.lstm = nn.LSTM(hidden, hidden, layers, batch_first=True, bidirectional=True)
        self.rebuild = nn.ModuleList(nn.Linear(2 * hidden, size) for size in sizes)

    def forward(self, tasks: Sequence[Tensor]) -> list[Tensor]:
        """Map the values of each task (B, size) to values of the same shape."""
        embedded = [embed(task) for embed, task in zip(self.embed, tasks, strict=True)]
        read, _ = self.lstm(torch.stack(embedded, dim=1))
        mask, *others = [rebuild(read[:, k]) for k, rebuild in enumerate(self.rebuild)]
        return [mask.sigmoid(), *others]


class MaskDiscriminator(nn.Module):
    """The discriminator of weak domain transfer: does this mask belong to this image?

    Source: Chen et al., weak domain transfer, released code, `CNN.py`.

    Args:
        classes: channels of the mask, the background among them.
        image_size: rows and columns, which fix the size of the flattened features.
        head: `flatten` [code: 296 577 parameters at 224 x 224], or `pooled`: the mean of each
            feature map, for which images may have any size.
    """

    def __init__(
        self,
        classes: int = 4,
        image_size: tuple[int, int] = (224, 224),
        head: DiscriminatorHead = "flatten",
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise((classes + 1, 16, 32, 64, 128)):
            layers += [nn.Conv2d(inputs, outputs, 5, padding=2), nn.MaxPool2d(2)]
            if len(layers) > 2:
                layers.append(nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01))
            layers.append(nn.LeakyReLU(0.3))
        self.convolutions = nn.Sequential(*layers)
        rows, columns = (side // 16 for side in image_size)
        self.pool = nn.AdaptiveAvgPool2d(1) if head == "pooled" else nn.Identity()
        self.verdict = nn.Linear(outputs * (1 if head == "pooled" else rows * columns), 1)
        init_glorot(self)

    def forward(self, mask: Tensor, image: Tensor) -> Tensor:
        """Judge pairs.

        Args:
            mask: (B, classes, H, W), one-hot or probabilities.
            image: (B, 1, H, W).

        Returns:
            (B,), the logit that the pair is a true one.
        """
        features = self.convolutions(torch.cat([mask, image], dim=1))
        return self.verdict(self.pool(features).flatten(1)).squeeze(1)

    def kernels(self) -> list[Tensor]:
        """Return the weights of the convolutions, which decay."""
        return [layer.weight for layer in self.modules() if isinstance(layer, nn.Conv2d)]
