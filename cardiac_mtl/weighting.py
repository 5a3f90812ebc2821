"""Ways to turn the losses of K tasks into one."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from cardiac_mtl.errors import UserError
from cardiac_mtl.losses import TaskLoss

Likelihood = Literal["laplace", "gaussian", "softmax"]
"""What a task's loss is the negative log of: L1, squared error, cross-entropy."""

# L = scale * exp(-s) * loss + penalty * s, with s = log(sigma) for the Laplace
# likelihood and s = log(sigma^2) for the other two.
_SCALE_AND_PENALTY = {"laplace": (1.0, 1.0), "gaussian": (0.5, 0.5), "softmax": (1.0, 0.5)}

LIMIT = 10.0
"""Bound of |s|, so that exp(-s) stays finite in float32 when a task is all but solved."""


class Weighting(nn.Module):
    """A rule that makes one loss of many.

    Args:
        tasks: names of the tasks; a paper builds a branch for each and no other.
    """

    def __init__(self, tasks: tuple[str, ...]) -> None:
        super().__init__()
        if not tasks:
            raise UserError("no task", where="model.weighting", fix="name at least one task")
        self.tasks = tasks

    @abstractmethod
    def forward(self, losses: Mapping[str, TaskLoss]) -> Tensor:
        """Return the scalar to minimise; a task without annotated sample adds nothing."""

    @abstractmethod
    def weights(self) -> dict[str, Tensor]:
        """Return the factor of each task's loss, detached, for the log."""

    def log_variances(self) -> dict[str, Tensor]:
        """Return the learned s of each task, detached, for the log; empty when none is learned."""
        return {}


class FixedWeighting(Weighting):
    """Constant weights.

    Args:
        weights: factor of each task's loss.
    """

    factors: Tensor

    def __init__(self, weights: dict[str, float]) -> None:
        super().__init__(tuple(weights))
        self.register_buffer("factors", torch.tensor(list(weights.values())), persistent=False)

    def forward(self, losses: Mapping[str, TaskLoss]) -> Tensor:
        """Sum the weighted losses."""
        return (self.factors * torch.stack([losses[task].mean for task in self.tasks])).sum()

    def weights(self) -> dict[str, Tensor]:
        """Return the constants."""
        return dict(zip(self.tasks, self.factors, strict=True))


class SingleTask(FixedWeighting):
    """One task alone: the paper then builds no other branch.

    Args:
        task: its name.
    """

    def __init__(self, task: str) -> None:
        super().__init__({task: 1.0})


class UncertaintyWeighting(Weighting):
    r"""Weigh tasks by learned homoscedastic uncertainty.

    Laplace (L1): $e^{-s} L + s$, $s = \log \sigma$. Softmax (cross-entropy):
    $e^{-s} L + s/2$, $s = \log \sigma^2$. Gaussian (squared error): $e^{-s} L / 2 + s/2$,
    $s = \log \sigma^2$. The total may be negative: never select on it.

    Source: Kendall, Gal and Cipolla, CVPR 2018, eq. 10; Dangi et al., STACOM 2018, eq. 5, whose
    reported values (3.45 and -3.9) give its ratio 1556:1 only when the second is log sigma^2.

    Args:
        likelihoods: likelihood of each task [paper: area Laplace, mask softmax].
        initial: s of each task at the start [paper: 0, from the reference code].
    """

    scale: Tensor
    penalty: Tensor

    def __init__(
        self, likelihoods: dict[str, Likelihood] | None = None, initial: float = 0.0
    ) -> None:
        likelihoods = likelihoods or {"mask": "softmax", "area": "laplace"}
        super().__init__(tuple(likelihoods))
        terms = torch.tensor([_SCALE_AND_PENALTY[name] for name in likelihoods.values()])
        self.register_buffer("scale", terms[:, 0], persistent=False)
        self.register_buffer("penalty", terms[:, 1], persistent=False)
        self.s = nn.Parameter(torch.full((len(likelihoods),), float(initial)))

    def forward(self, losses: Mapping[str, TaskLoss]) -> Tensor:
        """Sum the weighted losses and the penalties of the tasks that are present."""
        with torch.no_grad():
            self.s.clamp_(-LIMIT, LIMIT)
        means = torch.stack([losses[task].mean for task in self.tasks])
        present = torch.stack([losses[task].known > 0 for task in self.tasks])
        terms = self.scale * torch.exp(-self.s) * means + self.penalty * self.s
        return (terms * present).sum()

    def weights(self) -> dict[str, Tensor]:
        """Return scale * exp(-s) of each task."""
        return dict(zip(self.tasks, (self.scale * torch.exp(-self.s)).detach(), strict=True))

    def log_variances(self) -> dict[str, Tensor]:
        """Return s of each task."""
        return dict(zip(self.tasks, self.s.detach(), strict=True))
