"""How the checkpoint of a run is chosen, and how every number is marked by it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from typing_extensions import override

from cardiac_mtl.errors import Stopped, UserError
from cardiac_mtl.papers.base import Paper
from cardiac_mtl.runs import BEST, LAST, PROVENANCE
from data_modules.base import CardiacDataModule


def refuse_dishonest_monitor(config: Namespace) -> None:
    """Refuse callbacks that would choose weights or the epoch on anything but validation (P9).

    Args:
        config: of one sub-command, with `trainer.callbacks` and `data.init_args.paper_protocol`.

    Raises:
        UserError: a monitor does not begin with `val/`, and the paper protocol is not asked for.
    """
    if config["data"]["init_args"].get("paper_protocol"):
        return
    for number, callback in enumerate(config["trainer"]["callbacks"] or []):
        monitor = (callback.get("init_args") or {}).get("monitor")
        if monitor is not None and not monitor.startswith("val/"):
            raise UserError(
                f"monitor {monitor!r} is not measured on validation patients",
                where=f"trainer.callbacks[{number}].init_args.monitor",
                fix="monitor a value under val/, or mark the run with --data.paper_protocol true",
            )


_STOP = "cardiac_mtl_should_stop"


class KeptCheckpoint(ModelCheckpoint):
    """Lightning's, which forgets the best checkpoint of a run that was moved to another folder."""

    @property
    @override
    def state_key(self) -> str:
        return f"{type(self).__qualname__}: {self.filename}"

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        here = dict(state_dict) | {"dirpath": self.dirpath}
        for name in ("best_model_path", "kth_best_model_path", "last_model_path"):
            here[name] = self._here(state_dict[name])
        best = state_dict["best_k_models"]
        here["best_k_models"] = {self._here(path): score for path, score in best.items()}
        super().load_state_dict(here)

    def _here(self, path: str) -> str:
        return str(Path(str(self.dirpath)) / Path(path).name) if path else ""


def best_checkpoint(paper: Paper, run: Path) -> ModelCheckpoint:
    """Return the callback that keeps the best checkpoint of a run.

    Where no patient validates it keeps that of the last epoch: their number was fixed before.
    """
    path = run / BEST
    if paper.selection_stage == "none":
        return _of_last_epoch(path)
    monitor, mode = paper.monitor
    return KeptCheckpoint(
        dirpath=path.parent,
        filename=path.stem,
        monitor=monitor,
        mode=mode,
        auto_insert_metric_name=False,
        enable_version_counter=False,
    )


def last_checkpoint(run: Path) -> ModelCheckpoint:
    """Return the callback that keeps the weights of the last epoch, whatever they score.

    ModelCheckpoint's own `save_last` copies the last one that it saved: the best.
    """
    return _of_last_epoch(run / LAST)


def _of_last_epoch(path: Path) -> ModelCheckpoint:
    return KeptCheckpoint(
        dirpath=path.parent,
        filename=path.stem,
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )


class Provenance(Callback):
    """Writes into every checkpoint where it comes from, and into the run how it ended.

    Args:
        origin: JSON-able: fold, split hash, what the checkpoint is selected on; read when a
            checkpoint is written.
        ended: is told the status when training stops on an error or an interrupt.
    """

    def __init__(self, origin: Mapping[str, Any], ended: Callable[[str], None]) -> None:
        self.origin = origin
        self.ended = ended
        self._stop = False

    @override
    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint[PROVENANCE] = dict(self.origin)
        checkpoint[_STOP] = trainer.should_stop

    @override
    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._stop = bool(checkpoint.get(_STOP))

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # early stopping had its way before the run was killed: Lightning would train on
        trainer.should_stop = trainer.should_stop or self._stop

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data: CardiacDataModule = trainer.datamodule  # type: ignore[attr-defined]
        data.share_seen()  # before the checkpoint of this epoch, which holds it

    @override
    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self.ended("interrupted" if isinstance(exception, Stopped) else "failed")
