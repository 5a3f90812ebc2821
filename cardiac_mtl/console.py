"""What a run shows on the terminal: a progress bar there, plain lines elsewhere."""

import logging
import sys
import time
import warnings

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, RichProgressBar
from rich.console import Console
from typing_extensions import override


def say(text: str) -> None:
    """Print one line for the user, whole, wherever output goes."""
    Console(soft_wrap=True, highlight=False, markup=False).print(text)


def quiet_libraries() -> None:
    """Keep advertisements and hints to developers of other libraries off the user's terminal."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    ours = logging.getLogger("data_modules")
    ours.setLevel(logging.INFO)
    ours.handlers = [_Lines()]
    for message in (
        ".*does not have many workers.*",
        ".*The number of training batches.*",
        ".*GPU available but not used.*",
        ".*LeafSpec.*",
        ".*It is recommended to use `self.log.*",
        ".*`srun` command is available.*",
        ".*exists and is not empty.*",
    ):
        warnings.filterwarnings("ignore", message)


class _Lines(logging.Handler):
    """One line on standard error for what the readers notice."""

    @override
    def emit(self, record: logging.LogRecord) -> None:
        mark = "" if record.levelno < logging.WARNING else "warning: "
        print(f"{mark}{record.getMessage()}", file=sys.stderr)


def on_terminal() -> bool:
    """Say whether a person looks on."""
    return sys.stdout.isatty()


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
