"""What one training step asks of the machine, counted: operations, copies, waits for the device.

Counts do not depend on how busy a machine is. They are of what PyTorch dispatches on the CPU; where
a step on a GPU would wait for it, the CPU answers at once, but is asked all the same.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from lightning import Trainer
from torch.optim import Optimizer
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from typing_extensions import Self, override

from benchmarks.steps import EachStep
from cardiac_mtl.contracts import Batch

_SHAPES_FROM_VALUES = {"nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive"}
_READS = {"_local_scalar_dense", "is_nonzero", "equal"} | _SHAPES_FROM_VALUES
"""Operations whose outcome the host reads, or needs before it can go on."""
_COPIES = {"copy_", "_to_copy", "clone"}
"""Also what `contiguous`, `to` and `float` are made of, where they do anything."""
_TAKES_HOME = {torch.Tensor.cpu, torch.Tensor.numpy, torch.Tensor.tolist}
"""Nothing is dispatched for these where a tensor is on the CPU already."""


class Costs(NamedTuple):
    """Of one training step."""

    operations: int
    """All that were dispatched: each is a kernel, a view or an allocation."""
    copies: int
    """Of type, layout or value."""
    waits: int
    """How often the host reads a value, or needs one for a shape."""
    uploads: int
    """Values that the host makes and the device has to fetch."""


class Census:
    """Counts, as a context, what is dispatched in it.

    Args:
        optimizers: whose counters of steps do not count; PyTorch keeps them on the host.
    """

    def __init__(self, optimizers: Iterable[Optimizer] = ()) -> None:
        states = (state for optimizer in optimizers for state in optimizer.state.values())
        on_host = {id(state["step"]) for state in states if torch.is_tensor(state.get("step"))}
        self.operations: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()
        self._modes = (_Dispatched(self, on_host), _Called(self))

    def __enter__(self) -> Self:
        self._stack = ExitStack()
        for mode in self._modes:
            self._stack.enter_context(mode)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def costs(self) -> Costs:
        """Return what was counted."""
        return Costs(
            self.operations.total(),
            sum(self.operations[name] for name in _COPIES),
            self.waits.total(),
            self.operations["lift_fresh"],
        )


class _Dispatched(TorchDispatchMode):
    def __init__(self, census: Census, on_host: set[int]) -> None:
        super().__init__()
        self.census, self.on_host = census, on_host

    @override
    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        name = func.overloadpacket.__name__
        # marks of the profiler are no work; an optimiser sets two more a step where its base class
        # was ever made in the process
        if func.namespace != "profiler":
            self.census.operations[name] += 1
        if (name in _READS or _by_boolean(name, args)) and id(args[0]) not in self.on_host:
            self.census.waits[name] += 1
        return func(*args, **(kwargs or {}))


class _Called(TorchFunctionMode):
    def __init__(self, census: Census) -> None:
        super().__init__()
        self.census = census

    @override
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        # a device that is taken from another tensor is the CPU only here
        sent = func is torch.Tensor.to and "cpu" in (*args[1:2], kwargs.get("device"))
        if func in _TAKES_HOME or sent:
            self.census.waits[func.__name__] += 1
        return func(*args, **kwargs)


def _by_boolean(name: str, args: tuple[Any, ...]) -> bool:
    """Say whether an operation picks by a boolean tensor: how many are true decides its shape."""
    if name not in {"index", "index_put_", "index_put"}:
        return False
    return any(torch.is_tensor(one) and one.dtype == torch.bool for one in args[1])


class CountOneStep(EachStep):
    """Counts the second step of an epoch: the first sets optimisers up, the last is logged.

    It has to come first among the callbacks, so that it hears of the step before the others do.
    """

    costs: Costs
    census: Census

    @override
    def before(self, trainer: Trainer, number: int) -> None:
        if number == 1:
            self.census = Census(trainer.optimizers).__enter__()

    @override
    def after(self, batch: Batch, number: int) -> None:
        if number == 1:
            self.census.__exit__()
            self.costs = self.census.costs()
