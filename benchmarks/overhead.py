"""What a training step costs under the command, against a bare PyTorch loop.

The same network, batch size, precision and optimiser, in one process: epochs of the command and
rounds of the bare loop take turns, so that both see the same machine. The command's share holds
everything a user pays for: fetching from the store, augmentation, logging, progress.

    python benchmarks/overhead.py [--preset cpu_small] [--rounds 7]
"""

import argparse
import copy
import json
import platform
import statistics
import tempfile
import time
from pathlib import Path

import torch
from lightning import Callback, LightningModule, Trainer
from typing_extensions import override

from cardiac_mtl.configuration import resolve_configs
from cardiac_mtl.console import quiet_libraries
from cardiac_mtl.contracts import Batch
from cardiac_mtl.papers.mtn import MTN
from cardiac_mtl.phantom_cohort import write_cohort
from cardiac_mtl.runs import provenance
from cardiac_mtl.training import CardiacCLI

RESULTS = Path(__file__).parent / "results"


class TakeTurns(Callback):
    """Times each epoch of the command, then as many steps of the bare loop."""

    def __init__(self) -> None:
        self.command: list[float] = []
        self.bare: list[float] = []

    @override
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.steps = 0
        self.started = time.perf_counter()

    @override
    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        self.steps += 1
        self.batch = batch
        self.stopped = time.perf_counter()

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.command.append((self.stopped - self.started) / self.steps)
        self.bare.append(bare_loop(pl_module, self.batch, self.steps))


def bare_loop(paper: LightningModule, batch: Batch, steps: int) -> float:
    """Return seconds a step of the loop that one would write by hand."""
    network = copy.deepcopy(paper)
    assert isinstance(network, MTN)
    optimizers, _ = network.configure_optimizers()
    (optimizer,) = optimizers
    network.train()
    started = time.perf_counter()
    for _ in range(steps):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            losses = network.losses(network(batch["image"]), batch)
            total = network.weighting(losses)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    return (time.perf_counter() - started) / steps


def main() -> None:
    """Measure, print and write `results/overhead-<preset>.json`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="cpu_small")
    parser.add_argument("--rounds", type=int, default=7)
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
    ratios = [c / b for c, b in zip(turns.command[1:], turns.bare[1:], strict=True)]  # warm-up out
    result = {
        "what": f"seconds a training step, mtn_uncertainty with {options.preset}, "
        f"batch {len(turns.batch['image'])} of {tuple(turns.batch['image'].shape[2:])}",
        "command_s": statistics.median(turns.command[1:]),
        "bare_s": statistics.median(turns.bare[1:]),
        "ratio_median": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "rounds": len(ratios),
        "threads": torch.get_num_threads(),
        "processor": platform.processor() or platform.machine(),
        **{k: v for k, v in provenance().items() if k != "command"},
    }
    print(json.dumps(result, indent=2))
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"overhead-{options.preset}.json"
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
