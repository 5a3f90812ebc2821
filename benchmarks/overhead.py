"""Training step: under the command against a bare PyTorch loop, the same network and batch.

The same network, batch size, precision and optimiser, in one process: epochs of the command and
rounds of the bare loop take turns, so that both see the same machine. The command's share holds
everything a user pays for: fetching from the store, augmentation, logging, progress.

    python -m benchmarks overhead [--preset cpu_small] [--rounds 5]
"""

import copy
import tempfile
import time
from pathlib import Path

import torch
from lightning import LightningModule, Trainer
from typing_extensions import override

from benchmarks.common import options_of, ratios, spread, write
from benchmarks.steps import EachStep
from cardiac_mtl.configuration import resolve_configs
from cardiac_mtl.console import quiet_libraries
from cardiac_mtl.contracts import Batch
from cardiac_mtl.papers.mtn import MTN
from cardiac_mtl.phantom_files import write_cohort
from cardiac_mtl.training.fit import CardiacCLI


class TakeTurns(EachStep):
    """Times each epoch of the command, then as many steps of the bare loop."""

    def __init__(self) -> None:
        self.command: list[float] = []
        self.bare: list[float] = []

    @override
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.steps = 0
        self.started = time.perf_counter()

    @override
    def after(self, batch: Batch, number: int) -> None:
        self.steps += 1
        self.batch = batch
        self.stopped = time.perf_counter()

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.command.append((self.stopped - self.started) / self.steps)
        self.bare.append(bare_loop(pl_module, self.batch, self.steps))


def bare_loop(paper: LightningModule, batch: Batch, steps: int) -> float:
    """Return seconds a step of the loop that one would write by hand."""
    # without the trainer, which holds loaders that cannot be copied
    network = copy.deepcopy(paper, {id(paper.trainer): None})
    assert isinstance(network, MTN)
    optimizers, _ = network.configure_optimizers()
    (optimizer,) = optimizers
    network.train()
    mixed = paper.trainer.precision == "bf16-mixed"  # not where the processor would emulate it
    started = time.perf_counter()
    for _ in range(steps):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed):
            losses = network.losses(network(batch["image"]), batch)
            total = network.weighting(losses)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    return (time.perf_counter() - started) / steps


def main() -> None:
    """Measure and write."""
    parser = options_of(__doc__)
    parser.add_argument("--preset", default="cpu_small")
    options = parser.parse_args()
    quiet_libraries()
    turns = TakeTurns()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "lvsc"
        write_cohort("lvsc", data, patients=10, phases=2, seed=0)
        words = ["fit", "--config", "mtn_uncertainty", "--config", options.preset]
        settings = {
            "data.root": data,
            "data.cache_dir": f"{folder}/cache",
            "trainer.max_epochs": options.rounds + 1,
            "trainer.callbacks": "null",  # the bare loop averages no weights either
            "trainer.limit_train_batches": 20,
            "run_root": f"{folder}/runs",
        }

        class TimedCLI(CardiacCLI):
            @override
            def instantiate_trainer(self, **kwargs: object) -> Trainer:
                trainer = super().instantiate_trainer(**kwargs)
                trainer.callbacks.insert(0, turns)
                return trainer

        words += [f"--{key}={value}" for key, value in settings.items()]
        TimedCLI(resolve_configs(words), None)
    command, bare = turns.command[1:], turns.bare[1:]  # without the one that warms up
    write(
        "overhead",
        {
            "experiment": "mtn_uncertainty",
            "preset": options.preset,
            "batch": list(turns.batch["image"].shape),
            "command_s": spread(command),
            "bare_s": spread(bare),
            "command_over_bare": ratios(command, bare),
        },
        options,
        variant=options.preset,
    )
