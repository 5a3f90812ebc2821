"""What lets a run be stopped at any moment, by any means, and go on as if it never was.

A run goes on from its last whole epoch, bit for bit on one machine: checkpoints are written whole
or not at all, and all that chance decides within an epoch follows from seed, epoch and rank.
"""

import os
import signal
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from lightning import LightningModule, Trainer
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback
from typing_extensions import override

from cardiac_mtl import slurm
from cardiac_mtl.errors import Stopped, UserError
from cardiac_mtl.runs import LAST, PROVENANCE, read_checkpoint

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
        temporary = target.with_name(f".{target.name}")
        with temporary.open("wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)

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
        UserError: another process trains this run.
    """
    lock = FileLock(run / ".lock")
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise UserError(
            "another process trains this run",
            where=str(run),
            fix="wait for it, or change the configuration or the seed",
        ) from error

    def give_back() -> None:  # a plain function, as an averaged model copies all that it can reach
        lock.release()

    return give_back


def last_whole_epoch(run: Path, origin: dict[str, Any]) -> int | None:
    """Return the epoch, from 0, that a run goes on after; None when it has to begin.

    Args:
        run: directory of the run.
        origin: of the run that wants to go on.

    Raises:
        UserError: the checkpoint is damaged, or the data are not those it was trained on.
    """
    if strays := sorted(run.rglob("hpc_ckpt*")):
        raise UserError(
            "is not ours, and Lightning would load it in place of the run's own (P40)",
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
    return int(checkpoint["epoch"])


class SeedEpochs(Callback):
    """Seeds chance anew at each epoch, so that no state of it has to be kept for any rank.

    Args:
        seed: of the run.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    @override
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        stream = np.random.SeedSequence((self.seed, trainer.current_epoch, trainer.global_rank))
        torch.manual_seed(int(stream.generate_state(1, np.uint64)[0] >> np.uint64(1)))


class StopOnSignal(Callback):
    """Ends training at once on SIGINT, SIGTERM and SIGUSR1; under SLURM it comes back.

    The last whole epoch is on disk already: nothing has to be saved in a hurry.
    """

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:  # Lightning restores those that were there before
                signal.signal(number, partial(_stop, trainer, trainer.current_epoch))


def _stop(trainer: Trainer, began: int, number: int, _: object) -> None:
    for other in _SIGNALS:
        signal.signal(other, signal.SIG_IGN)
    on_slurm = slurm.own_job() is not None
    if number == signal.SIGUSR1 and on_slurm and trainer.current_epoch == began:
        raise UserError(  # requeued, it would do the same epoch again for ever
            "no epoch ended within the time of the job",
            where="--time",
            fix="ask for more, or make epochs shorter, as with --data.copies",
        )
    if trainer.is_global_zero and number != signal.SIGINT:
        slurm.requeue()
    launcher = trainer.strategy.launcher
    if launcher is not None:
        launcher.kill(number)
    raise Stopped(number)
