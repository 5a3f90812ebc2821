"""What a run shows on the terminal: a progress bar there, plain lines elsewhere."""

import time
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, RichProgressBar
from typing_extensions import override

from cardiac_mtl.console import on_terminal, say


def progress() -> Callback:
    """Return the progress display that suits the output."""
    return RichProgressBar(leave=False) if on_terminal() else EpochLines()


class EpochLines(Callback):
    """One line an epoch: what was learned and how long it took.

    Written as the next epoch begins: callbacks hear of the end of one before the paper has logged
    its losses.
    """

    def __init__(self) -> None:
        self._epoch: int | None = None

    @override
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write(trainer)
        self._epoch, self._started = trainer.current_epoch, time.monotonic()

    @override
    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self._epoch is None:  # a run that goes on in the middle of an epoch does not start it
            self._epoch, self._started = trainer.current_epoch, time.monotonic()

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write(trainer)

    def _write(self, trainer: Trainer) -> None:
        if self._epoch is None or not trainer.is_global_zero:
            return
        shown = {
            name: float(value)
            for name, value in trainer.callback_metrics.items()
            if (name.count("/") == 1 or "/mae/" in name) and not name.startswith(("weight/", "s/"))
        }
        figures = "  ".join(f"{name} {value:.4g}" for name, value in sorted(shown.items()))
        seconds = time.monotonic() - self._started
        say(f"epoch {self._epoch + 1}/{trainer.max_epochs}  {figures}  {seconds:.1f} s")
