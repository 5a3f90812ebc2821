"""What lets a run be stopped at any moment, by any means, and go on as if it never was.

A signal has a checkpoint written after the step in hand; whatever else ends a run leaves that of
its last whole epoch. It goes on from there, bit for bit on one machine: checkpoints are written
whole or not at all, and all that chance decides in a step follows from seed, epoch, step and rank.
"""

import math
import os
import signal
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
import torch
from filelock import FileLock, Timeout
from lightning import LightningModule, Trainer
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback
from typing_extensions import override

from cardiac_mtl.errors import Stopped, UserError
from cardiac_mtl.files import whole
from cardiac_mtl.runs import LAST, PROVENANCE, read_checkpoint
from data_modules.base import CardiacDataModule

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
_SAME = ("split_sha256", "fold", "prepared")
"""Of a checkpoint's origin: what must not have changed for a run to go on from it."""


class WholeFiles(TorchCheckpointIO):
    """Writes a checkpoint whole or not at all, and reads plain values only."""

    @override
    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | os.PathLike[str],
        storage_options: Any | None = None,
    ) -> None:
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        with whole(target) as temporary, temporary.open("wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())

    @override
    def load_checkpoint(
        self,
        path: str | os.PathLike[str],
        map_location: Any | None = None,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        return read_checkpoint(Path(path))


def plugins(configured: Any, *, training: bool) -> list[Any]:  # noqa: ANN401 - Lightning's own union
    """Return the plugins of every trainer of ours, beside those that were configured.

    Lightning's own requeueing is turned off: it would save in the middle of an epoch, from where
    it repeats some data and leaves others out (P42), and pick up strangers' checkpoints (P40).

    Args:
        configured: for the trainer.
        training: what follows it is done by one process, whatever SLURM started.
    """
    own: list[Any] = [WholeFiles()]
    if SLURMEnvironment.detect():
        own.append(SLURMEnvironment(auto_requeue=False) if training else LightningEnvironment())
    given = configured if isinstance(configured, list) else [configured] if configured else []
    return [*given, *own]


def claim(run: Path) -> Callable[[], None]:
    """Take a run directory for this process; the system frees it when the process is gone.

    Returns:
        What gives it back.

    Raises:
        UserError: another process trains or tests this run.
    """
    lock = FileLock(run / ".lock")
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise UserError(
            "another process trains or tests this run",
            where=str(run),
            fix="wait for it, or change the configuration or the seed",
        ) from error

    def give_back() -> None:  # a plain function, as an averaged model copies all that it can reach
        lock.release()

    return give_back


class Place(NamedTuple):
    """Where a run goes on."""

    after_epoch: int
    """The last whole one, from 0; -1 within the first."""
    batches: int
    """Done of the epoch after it."""
    last_step: int
    """The last that was done, as loggers count steps."""

    def __str__(self) -> str:
        if self.batches:
            return f"within epoch {self.after_epoch + 2}, after {self.batches} of its batches"
        return f"after epoch {self.after_epoch + 1}"


def place_of(run: Path, origin: dict[str, Any]) -> Place | None:
    """Return where a run goes on; None when it has to begin.

    Args:
        run: directory of the run.
        origin: of the run that wants to go on.

    Raises:
        UserError: the checkpoint is damaged, or the data are not those it was trained on.
    """
    if strays := sorted(run.rglob("hpc_ckpt*")):
        raise UserError(
            "is not ours, and Lightning would load it in place of the run's own",  # P40
            where=str(strays[0]),
            fix="remove it",
        )
    if not (run / LAST).is_file():
        return None
    checkpoint = read_checkpoint(run / LAST)
    before = checkpoint[PROVENANCE]
    if changed := [key for key in _SAME if before.get(key) != origin.get(key)]:
        raise UserError(
            f"the data changed since it was trained ({', '.join(changed)})",
            where=str(run),
            fix="restore them, or rename this directory to train anew",
        )
    progress = checkpoint["loops"]["fit_loop"]
    epochs = progress["epoch_progress"]["current"]
    batches = progress["epoch_loop.batch_progress"]["current"]["processed"]
    whole = epochs["processed"] == epochs["started"]
    step = progress["epoch_loop.state_dict"]["_batches_that_stepped"]
    # Lightning counts a step once the batch has ended, after the checkpoint that a signal leaves
    return Place(epochs["processed"] - 1, 0 if whole else batches, step - whole)


class SeedSteps(Callback):
    """Seeds chance anew at each step, so that no state of it has to be kept for any rank.

    Args:
        seed: of the run.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    @override
    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        place = (self.seed, trainer.current_epoch, batch_idx, trainer.global_rank)
        stream = np.random.SeedSequence(place)
        seed = int(stream.generate_state(1, np.uint64)[0] >> np.uint64(1))
        if pl_module.device.type == "cpu":
            # `torch.manual_seed` asks other kinds of devices too, a hundred times as long
            torch.default_generator.manual_seed(seed)
        else:
            torch.manual_seed(seed)


class StopOnSignal(Callback):
    """Ends training on SIGINT, SIGTERM and SIGUSR1; under SLURM it comes back.

    The step in hand is finished and a checkpoint written, on all processes after the same step.
    Where a validation follows it is finished too, as its epoch would not be whole without it. A
    second signal ends training at once.

    Args:
        last: path of the checkpoint.
    """

    def __init__(self, last: Path) -> None:
        self.last = last
        self._number = 0
        """Of the signal that came; 0 as long as none has."""

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:  # Lightning restores those that were there before
                signal.signal(number, partial(self._take, trainer))

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (number := self._agreed(trainer)) and _may_stop_after(trainer, batch_idx + 1):
            data: CardiacDataModule = trainer.datamodule  # type: ignore[attr-defined]
            data.share_seen()
            trainer.save_checkpoint(self.last)
            _stop(number)

    @override
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop_where_all_is_kept(trainer)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop_where_all_is_kept(trainer)

    def _stop_where_all_is_kept(self, trainer: Trainer) -> None:
        if number := self._agreed(trainer):
            _stop(number)

    def _take(self, trainer: Trainer, number: int, _: object) -> None:
        again, self._number = self._number, number
        if again:
            if (launcher := trainer.strategy.launcher) is not None:
                launcher.kill(number)
            _stop(number)

    def _agreed(self, trainer: Trainer) -> int:
        """Return the signal that reached any process; one that stopped alone would hang others."""
        if trainer.world_size == 1:
            return self._number
        ours = torch.tensor(self._number, device=trainer.strategy.root_device)
        return int(trainer.strategy.reduce(ours, reduce_op="max"))


def _stop(number: int) -> NoReturn:
    for other in _SIGNALS:
        signal.signal(other, signal.SIG_IGN)
    raise Stopped(number)


def _may_stop_after(trainer: Trainer, batches: int) -> bool:
    """Say whether nothing but the next step follows the batches that an epoch has done."""
    return not (
        trainer.is_last_batch
        or batches % (trainer.val_check_batch or math.inf) == 0
        or batches % trainer.accumulate_grad_batches
    )
