"""Operations and bytes of each paper's training step and prediction, under the machine's ceilings.

    python -m benchmarks roofline [--settings mtn_uncertainty+cpu_small ...] [--rounds 5]

A setting is an experiment, with overlays: as the paper has it, and as a CPU trains it. The step is
that of the trainer, with optimisers and clipping, on a batch of noise; no files, no augmentation.

Operations: torch's counter, of convolutions and matrix products, and LSTMs, which it does not know;
not counted is what goes element by element: activations, norms, pooling, losses, optimisers.
Bytes: the inputs, weights and outputs of just these products, each read or written once: the least
that is moved if everything between two products were done on the way, and the optimiser's step too.

Ceilings, measured in the same run: a product of two square matrices in either precision, and the
copy of a tensor that no cache holds. The floor of a step is the longer of operations over the one
and bytes over the other. A step that takes more than twice its floor is bound by neither: by
operations one by one, by elementwise passes over memory, or by what starts them.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from lightning import Trainer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, flop_registry
from typing_extensions import Self, override

from benchmarks.census import Census
from benchmarks.common import options_of, spread, write
from benchmarks.steps import (
    SETTINGS,
    EachStep,
    as_published,
    paper_and_batch,
    refuse_unknown,
    train,
)
from cardiac_mtl.console import quiet_libraries
from cardiac_mtl.contracts import Batch
from cardiac_mtl.memory import keep_freed_memory
from cardiac_mtl.papers.base import Paper
from cardiac_mtl.training.precision import suited_precision

GEMM_SIDE = {"cpu": 2048, "cuda": 8192}
COPIED_MIB = {"cpu": 256, "cuda": 4096}
"""Several times what the caches of the device hold."""
Shape = Sequence[int]
_TYPES = {"32-true": torch.float32, "bf16-mixed": torch.bfloat16}
"""Precisions that have a ceiling."""
OVERHEAD = 2.0
"""Times its floor, from where on neither ceiling explains a time."""


def main() -> None:
    """Measure and write."""
    parser = options_of(__doc__)
    parser.add_argument(
        "--settings",
        nargs="+",
        help="[on a CPU those that suit one: a published step takes minutes]",
    )
    parser.add_argument(
        "--precision", choices=_TYPES, help="of all steps; that of the overlay without it"
    )
    options = parser.parse_args()
    quiet_libraries()
    keep_freed_memory()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    suited = [name for name in SETTINGS if device == "cuda" or "+" in name]
    settings = options.settings or suited
    refuse_unknown(settings)
    measured = ceilings(device, options.rounds)
    rows = []
    for setting in settings:
        rows += rows_of(setting, device, options.rounds, options.precision, measured)
        print(*(summary(row) for row in rows[-2:]), sep="\n", flush=True)
    worst = min(rows, key=lambda row: row["achieved"])
    write(
        "roofline",
        {
            "ceilings": measured,
            "rows": rows,
            "largest_gap": f"{worst['setting']}, {worst['what']}",
            "limited_by": f"the largest gap is {summary(worst)}",
        },
        options,
    )


def ceilings(device: str, rounds: int) -> dict[str, float]:
    """Return what the machine reaches: FLOP/s of products, bytes/s of a copy; the best of some."""
    side, count = GEMM_SIDE[device], COPIED_MIB[device] * 2**20 // 4
    found = {}
    for name, dtype in _TYPES.items():
        matrix = torch.randn(side, side, device=device, dtype=dtype)
        found[name] = 2 * side**3 / least_seconds(lambda m=matrix: m @ m, rounds)  # type: ignore[misc]
    source = torch.ones(count, device=device)
    target = torch.empty_like(source)
    found["copy"] = 8 * count / least_seconds(lambda: target.copy_(source), rounds)
    return {name: float(f"{value:.4g}") for name, value in found.items()}


def least_seconds(call: Callable[[], object], rounds: int) -> float:
    """Return the seconds of the fastest of some calls, after one that warms up."""
    return min(seconds(call) for _ in range(rounds + 1))


def seconds(call: Callable[[], object]) -> float:
    """Return how long a call takes, to its end on the device."""
    wait()
    started = time.perf_counter()
    call()
    wait()
    return time.perf_counter() - started


def wait() -> None:
    """Have the device end what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def rows_of(
    setting: str, device: str, rounds: int, asked: str | None, measured: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Return the training step and the prediction of one setting."""
    config = as_published(setting)
    configured = asked or config.get("trainer", {}).get("precision", "32-true")
    precision = str(suited_precision(configured, "auto"))
    paper, batch = paper_and_batch(config)
    step = Step(rounds)
    steps = rounds + 3  # one warms up, one is counted, and the last one is logged
    train(paper, batch, steps, [step], accelerator="auto", devices=1, precision=precision)
    known = {"setting": setting, "batch": list(batch["image"].shape), "precision": precision}
    work = {
        "training step": (step.cost, step.seconds),
        "prediction": prediction(paper, batch, device, precision, rounds),
    }
    return [
        known | {"what": what} | placed(cost, times, measured, precision)
        for what, (cost, times) in work.items()
    ]


class Cost:
    """Counts, as a context, operations and bytes of the products in it."""

    def __init__(self) -> None:
        # torch counts no LSTMs
        self._flops = FlopCounterMode(display=False, custom_mapping=LSTMS)
        self._traffic = _Traffic()
        self._census = Census()

    def __enter__(self) -> Self:
        for mode in (self._census, self._traffic, self._flops):
            mode.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        for mode in (self._flops, self._traffic, self._census):
            mode.__exit__(None, None, None)

    @property
    def flops(self) -> int:
        """Multiplications and additions."""
        return self._flops.get_total_flops()

    @property
    def traffic(self) -> int:
        """Bytes that products read and write."""
        return self._traffic.moved

    @property
    def operations(self) -> int:
        """All that were dispatched."""
        return self._census.costs().operations

    def by_network(self) -> dict[str, int]:
        """Return the operations of each network of the paper, as far as torch tells them apart."""
        counts = self._flops.get_flop_counts()
        found = {
            name.partition(".")[2]: sum(of_kind.values())
            for name, of_kind in counts.items()
            if name.count(".") == 1
        }
        return found | {"rest": self.flops - sum(found.values())}


class _Traffic(TorchDispatchMode):
    """Adds up the tensors that go into products and come out of them."""

    def __init__(self) -> None:
        super().__init__()
        self.moved = 0

    @override
    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket in flop_registry or func.overloadpacket in LSTMS:
            tensors = [t for t in tree_leaves((args, kwargs, result)) if torch.is_tensor(t)]
            self.moved += sum(t.nbytes for t in tensors)
        return result


def _mkldnn_lstm(
    input_shape: Shape, of_input: Shape, of_hidden: Shape, *_: object, **__: object
) -> int:
    return _lstm_flops(input_shape, [of_input, of_hidden])


def _lstm_flops(input_shape: Shape, weights: Sequence[Shape], *_: object, **__: object) -> int:
    """Return those of products of matrices, at every time of every sequence."""
    length, batch, _features = input_shape
    return 2 * length * batch * sum(math.prod(w) for w in weights if len(w) == 2)


def _twice(forward: Callable[..., int]) -> Callable[..., int]:
    return lambda *shapes, **_: 2 * forward(*shapes)


LSTMS: dict[Any, Any] = {
    torch.ops.aten.mkldnn_rnn_layer: _mkldnn_lstm,
    torch.ops.aten.mkldnn_rnn_layer_backward: _twice(_mkldnn_lstm),
    torch.ops.aten._cudnn_rnn: _lstm_flops,  # noqa: SLF001 - the name of an operation
    torch.ops.aten._cudnn_rnn_backward: _twice(_lstm_flops),  # noqa: SLF001
}
"""LSTMs, forward and backward, by what stands for them on a CPU and in cuDNN."""


class Step(EachStep):
    """Times training steps, and counts what is in one more.

    Args:
        rounds: steps to time, after one that warms up.
    """

    def __init__(self, rounds: int) -> None:
        self.rounds = rounds
        self.seconds: list[float] = []
        self.cost = Cost()

    @override
    def before(self, trainer: Trainer, number: int) -> None:
        wait()
        if number == self.rounds + 1:
            self.cost.__enter__()
        self.started = time.perf_counter()

    @override
    def after(self, batch: Batch, number: int) -> None:
        wait()
        if 1 <= number <= self.rounds:
            self.seconds.append(time.perf_counter() - self.started)
        elif number == self.rounds + 1:
            self.cost.__exit__()


def prediction(
    paper: Paper, batch: Batch, device: str, precision: str, rounds: int
) -> tuple[Cost, list[float]]:
    """Count and time the prediction of a batch, up to probabilities and indices."""
    paper.to(device).eval()
    image = batch["image"].to(device)
    mixed = torch.autocast(device, torch.bfloat16, enabled=precision == "bf16-mixed")
    with torch.inference_mode(), mixed:
        times = [seconds(lambda: paper.predict(paper(image))) for _ in range(rounds + 1)][1:]
    with torch.no_grad(), mixed, Cost() as cost:  # inference mode hides what is dispatched
        paper.predict(paper(image))
    return cost, times


def placed(
    cost: Cost, times: list[float], measured: Mapping[str, float], precision: str
) -> dict[str, Any]:
    """Return the counts and times of some work, under the ceilings of the machine."""
    compute, memory = cost.flops / measured[precision], cost.traffic / measured["copy"]
    took = spread(times)
    floor = max(compute, memory)
    nearest = "compute" if compute >= memory else "memory"
    return {
        "flops": cost.flops,
        "flops_by_network": cost.by_network(),
        "bytes": cost.traffic,
        "operations": cost.operations,
        "seconds": took,
        "compute_floor_s": float(f"{compute:.3g}"),
        "memory_floor_s": float(f"{memory:.3g}"),
        "achieved": round(floor / took["median"], 4),
        "bound_by": nearest if took["median"] <= OVERHEAD * floor else "overhead",
    }


def summary(row: Mapping[str, Any]) -> str:
    """Return one line."""
    return (
        f"{row['setting']}, {row['what']}, {row['precision']}: {row['flops'] / 1e9:.4g} GFLOP, "
        f"{row['bytes'] / 2**20:.4g} MiB, {row['operations']} operations, "
        f"{1e3 * row['seconds']['median']:.4g} ms, {100 * row['achieved']:.0f} % of the ceiling, "
        f"bound by {row['bound_by']}"
    )
