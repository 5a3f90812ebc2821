"""Discriminators of the adversarial papers."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


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
