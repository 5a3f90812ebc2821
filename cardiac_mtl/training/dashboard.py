"""Weights & Biases and TensorBoard: who a run is there, example pictures, and offline runs.

`metrics.csv` is the source of truth. W&B cannot continue a run offline: each start leaves a
segment of its own, and syncing them loses some (P44). Once a run has finished or is tested its
segments are therefore replaced by one that holds everything.
"""

import hashlib
import netrc
import os
import shutil
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import pandas as pd
from jsonargparse import Namespace
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from typing_extensions import override

from cardiac_mtl.catalogue import read_yaml
from cardiac_mtl.console import say
from cardiac_mtl.contracts import Batch, Prediction
from cardiac_mtl.errors import UserError
from cardiac_mtl.evaluation.collect import CaseCollector, CollectedCase
from cardiac_mtl.papers.base import last_step
from cardiac_mtl.report.pictures.figures import overlay
from cardiac_mtl.runs import CONFIG, IDENTITY, METRICS, read_identity
from data_modules.base import CardiacDataModule

EXAMPLES = "examples"
"""Folder of a run that holds the pictures of fixed validation cases."""
GROUP = "WANDB_RUN_GROUP"
"""W&B's own variable; `cv` sets it to the name of the study."""
SWEEP = "WANDB_SWEEP_ID"
_PLACES = {
    "root", "splits", "cache_dir", "run_root", "logger", "default_root_dir", "save_dir", "dirpath",
    "command",
}  # fmt: skip
_QUIET: dict[str, Any] = {
    "x_disable_meta": True,
    "console": "off",
    "disable_git": True,
    "disable_code": True,
    "host": "-",
}
"""Command line, machine and user stay here: a path may name a patient or a person."""
_PROJECT = "cardiac-mtl"


def settle_loggers(loggers: Any, run: Path) -> None:  # noqa: ANN401 - Lightning's own union
    """Give configured loggers their place, and W&B the identity of the run.

    Args:
        loggers: as configured for the trainer, changed in place.
        run: directory of the run.
    """
    for logger in loggers if isinstance(loggers, list) else [loggers]:
        settings = logger.init_args if isinstance(logger, Namespace) else {}
        ours = "save_dir" in settings and settings["save_dir"] in {None, "."}
        if ours:
            settings["save_dir"] = str(run)
        if "offline" in settings:
            settings["offline"] = settings["offline"] or not _has_key()
            silent = {"silent": settings["offline"]}
            given = dict(logger.get("dict_kwargs") or {})
            if SWEEP not in os.environ:  # its agent says who a run is
                identity = _identity(run)
                settings["id"] = settings["id"] or identity.pop("id")
                settings["name"] = settings["name"] or identity.pop("name")
                given = {k: v for k, v in identity.items() if k not in {"id", "name"}} | given
            logger["dict_kwargs"] = {**given, "settings": _QUIET | silent}
        elif "sub_dir" in settings:  # one folder however often the run is continued
            settings["name"], settings["version"] = "" if ours else _whole_name(run), ""
            settings["sub_dir"] = settings["sub_dir"] or "tensorboard"


def describe(
    loggers: Sequence[Logger], config: Mapping[str, Any], identity: Mapping[str, Any]
) -> dict[str, str]:
    """Tell W&B the configuration of a run, and where it comes from.

    Args:
        loggers: of the trainer.
        config: whole, as in `config.yaml`.
        identity: as in `run.json`.

    Returns:
        The project and entity of W&B that the run goes to; empty without W&B.

    Raises:
        UserError: W&B cannot be reached, or does not let us in.
    """
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            begun = _begun(logger)
            begun.config.update(public(config, identity), allow_val_change=True)
            return {"project": begun.project, "entity": begun.entity}
    return {}


def _begun(logger: WandbLogger) -> Any:  # noqa: ANN401 - W&B's own run
    import wandb  # noqa: PLC0415 - takes a second

    try:
        return logger.experiment
    except wandb.Error as error:  # a node without network, mostly
        raise UserError(
            f"W&B does not begin the run: {' '.join(str(error).split())}",
            where="trainer.logger",
            fix="set WANDB_MODE=offline, or mend the network or the key",
        ) from error


def public(config: Mapping[str, Any], identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration of a run and where it comes from, without the places of files."""
    return _without_places({**config, "run": dict(identity)})


def _without_places(value: Any) -> Any:  # noqa: ANN401 - as YAML and JSON have it
    if isinstance(value, Mapping):
        return {key: _without_places(one) for key, one in value.items() if key not in _PLACES}
    if isinstance(value, list):
        return [_without_places(one) for one in value]
    return "" if isinstance(value, str) and os.path.isabs(value) else value  # noqa: PTH117


def end_wandb() -> None:
    """End the run of W&B, which Lightning leaves open: the next fit would write into it."""
    if (wandb := sys.modules.get("wandb")) is not None and wandb.run is not None:
        wandb.finish()


def write_offline_run(run: Path) -> None:
    """Replace the offline segments of a run by one that holds all that is on its disk.

    A process that is killed meanwhile leaves the old segments, or the new one.

    Args:
        run: directory of a run; nothing happens where W&B wrote nothing offline.
    """
    run = run.resolve()
    folder, making = run / "wandb", run / ".wandb-whole"
    if (making / "before").is_dir() and not folder.is_dir():
        (making / "before").rename(folder)
    shutil.rmtree(making, ignore_errors=True)
    if not list(folder.glob("offline-run-*")):
        return
    import wandb  # noqa: PLC0415 - takes a second

    identity = read_identity(run)
    making.mkdir()
    account = {key: value for key, value in (identity.get("wandb") or {}).items() if value}
    with wandb.init(
        **{"project": _PROJECT, **account},
        dir=str(making),
        mode="offline",
        config=public(read_yaml(run / CONFIG), identity),
        settings=wandb.Settings(**_QUIET, silent=True),
        **_identity(run),
    ) as written:
        for step, row in sorted(_history(run).items()):
            written.log({k: _content(v) for k, v in row.items()}, step=step)
        table = run / "table.csv"
        if table.is_file():
            written.log({"test": wandb.Table(dataframe=pd.read_csv(table))})
    folder.rename(making / "before")
    (making / "wandb").rename(folder)
    shutil.rmtree(making)
    (segment,) = folder.glob("offline-run-*")
    say(f"W&B, offline: wandb sync {segment}")


class Examples(Callback):
    """Draws the same validation cases every few epochs, for the dashboards.

    Under several processes the first draws those slices that it has.

    Args:
        run: directory of the run.
        cases: how many.
        every: epochs between two pictures of a case; the last epoch is always drawn.
    """

    def __init__(self, run: Path, cases: int = 3, every: int = 5) -> None:
        self.folder = run / EXAMPLES
        self.cases = cases
        self.every = every

    @override
    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        epoch, last = trainer.current_epoch, (trainer.max_epochs or 0) - 1
        # where not every epoch is validated, the first that is, from the one that is due on
        due = epoch % self.every < (trainer.check_val_every_n_epoch or 1) or epoch == last
        self._collector = CaseCollector() if due and trainer.is_global_zero else None
        if trainer.sanity_checking:
            self._collector = None

    @override
    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self._collector is not None:
            prediction: Prediction = outputs
            collected: Batch = batch
            self._collector.update(collected, prediction)

    @override
    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._collector is None:
            return
        data: CardiacDataModule = trainer.datamodule  # type: ignore[attr-defined]
        self.folder.mkdir(exist_ok=True)
        for case in list(self._collector.cases())[: self.cases]:
            name = str(data.case_table.iloc[case.row]["case_id"])
            self._show(trainer, name, self._draw(trainer.current_epoch, name, case))

    def _draw(self, epoch: int, name: str, case: CollectedCase) -> Path:
        path = self.folder / f"epoch{epoch:04d}_{name}.png"
        given = (case.image, case.reference, case.predicted, case.spacing)
        overlay(path, *given, title=name, subtitle=f"epoch {epoch + 1}")
        return path

    def _show(self, trainer: Trainer, name: str, picture: Path) -> None:
        step = last_step(trainer)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_image(f"{EXAMPLES}/{name}", [str(picture)], step=step)
            elif isinstance(logger, TensorBoardLogger):
                from matplotlib.image import imread  # noqa: PLC0415 - for TensorBoard alone

                pixels = imread(picture)[..., :3]
                logger.experiment.add_image(f"{EXAMPLES}/{name}", pixels, step, dataformats="HWC")


def _identity(run: Path) -> dict[str, Any]:
    """Return who a run is to W&B: the same each time that it is started (P43)."""
    whole = _whole_name(run)
    experiment, data, fold_seed, _ = whole.split("/")
    fold, _, seed = fold_seed.partition("-")
    return {
        "id": hashlib.sha1(whole.encode(), usedforsecurity=False).hexdigest()[:8],
        "name": f"{experiment}-{fold}-{seed}",
        "group": _study(run) or experiment,
        "job_type": fold,
        "tags": [experiment, data, seed],
        "resume": "allow",
    }


def _whole_name(run: Path) -> str:
    """Return what no two runs share: experiment, data, fold and seed, digest."""
    return "/".join(run.resolve().parts[-4:])


def _study(run: Path) -> str | None:
    """Return the study that a run belongs to: as it was begun, whoever looks at it later."""
    if (run / IDENTITY).is_file():
        return read_identity(run).get("study")
    return os.environ.get(GROUP)


def _history(run: Path) -> dict[int, dict[str, Any]]:
    """Return all that was logged, by step; pictures as paths."""
    history: dict[int, dict[str, Any]] = defaultdict(dict)
    metrics = pd.read_csv(run / METRICS)
    for row in metrics.to_dict("records"):
        known = {str(key): value for key, value in row.items() if not pd.isna(value)}
        history[int(known.pop("step"))] |= known
    last_step = metrics.groupby("epoch")["step"].max()
    for picture in sorted((run / EXAMPLES).glob("epoch*.png")):
        epoch, _, case = picture.stem.removeprefix("epoch").partition("_")
        if int(epoch) in last_step.index:
            history[int(last_step[int(epoch)])][f"{EXAMPLES}/{case}"] = picture
    return history


def _content(value: Any) -> Any:  # noqa: ANN401 - a number or a picture
    if not isinstance(value, Path):
        return value
    import wandb  # noqa: PLC0415 - takes a second

    return wandb.Image(str(value))


def _has_key() -> bool:
    """Say whether W&B would let us in."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
    try:
        return netrc.netrc().authenticators(host or "") is not None
    except (OSError, netrc.NetrcParseError):
        return False
