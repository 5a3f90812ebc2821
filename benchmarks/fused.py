"""Training step: all weights updated by one kernel against one by one, as torch does by default.

    python -m benchmarks fused [--rounds 5] [--steps 10]

The step that `fit` takes, of each paper as a CPU trains it, on made-up batches.
"""

import statistics
import time
from typing import Any

from lightning import LightningModule, Trainer
from typing_extensions import override

from benchmarks.common import options_of, paired, positive, ratios, spread, write
from benchmarks.steps import SETTINGS, EachStep, as_published, paper_and_batch, train
from cardiac_mtl.console import quiet_libraries
from cardiac_mtl.contracts import Batch
from cardiac_mtl.memory import keep_freed_memory
from cardiac_mtl.training.precision import suited_precision

_WARM_UP = 2
"""Steps in which kernels are chosen and memory is taken."""


class TimeSteps(EachStep):
    """Takes the seconds of each step.

    Args:
        fused: whether the optimisers may update all weights at once.
    """

    def __init__(self, *, fused: bool) -> None:
        self.fused = fused
        self.seconds: list[float] = []

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                group["fused"] = self.fused and group.get("fused")

    @override
    def before(self, trainer: Trainer, number: int) -> None:
        self.started = time.perf_counter()

    @override
    def after(self, batch: Batch, number: int) -> None:
        self.seconds.append(time.perf_counter() - self.started)


def main() -> None:
    """Measure and write."""
    parser = options_of(__doc__)
    parser.add_argument("--steps", type=positive, default=10, help="of a round [10]")
    options = parser.parse_args()
    keep_freed_memory()
    quiet_libraries()
    presets = SETTINGS[1::2]
    rows = [row(setting, options.rounds, options.steps) for setting in presets]
    write("fused", {"steps": options.steps, "rows": rows}, options)


def row(setting: str, rounds: int, steps: int) -> dict[str, Any]:
    """Measure one paper."""
    ways = {"one_by_one": False, "fused": True}
    measured = paired(
        rounds,
        {way: lambda fused=fused: step(setting, steps, fused=fused) for way, fused in ways.items()},
    )
    return {
        "setting": setting,
        "one_by_one_over_fused": ratios(measured["one_by_one"], measured["fused"]),
        **{f"{way}_s": spread(seconds) for way, seconds in measured.items()},
    }


def step(setting: str, steps: int, *, fused: bool) -> float:
    """Return the median seconds of a step."""
    config = as_published(setting)
    paper, batch = paper_and_batch(config)
    timing = TimeSteps(fused=fused)
    configured = config.get("trainer", {}).get("precision", "32-true")
    precision = suited_precision(configured, "cpu")
    train(paper, batch, steps + _WARM_UP, [timing], accelerator="cpu", precision=precision)
    return statistics.median(timing.seconds[_WARM_UP:])
