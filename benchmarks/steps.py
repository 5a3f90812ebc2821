"""Training steps of any experiment on made-up batches, under the trainer of the command.

Used by the benchmarks of whole steps and by `tests/test_step_costs.py`: what is measured is the
step that `fit` takes, with its optimisers, clipping and logging, but no files and no augmentation.
"""

import inspect
import warnings
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import torch
from lightning import Callback, LightningDataModule, LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader
from typing_extensions import override

from cardiac_mtl.catalogue import find_config, read_yaml
from cardiac_mtl.configuration import build
from cardiac_mtl.contracts import Batch, TargetScale
from cardiac_mtl.papers.base import Paper
from data_modules.base import CardiacDataModule

PAPERS = ("mtn_uncertainty", "mutgan", "weak_transfer_uadt", "fpm_multitask")
"""The experiment that is each paper's own."""
PRESETS = ("cpu_small", "cine_small", "mscmr_small", "t1_small")
"""In the order of the papers, what suits a CPU."""
SETTINGS = tuple(
    setting
    for paper, preset in zip(PAPERS, PRESETS, strict=True)
    for setting in (paper, f"{paper}+{preset}")
)
"""Each paper as it was published, and as a CPU trains it."""


class MadeUp(LightningDataModule):
    """The same batch over and over.

    Args:
        batch: one.
        steps: of an epoch.
    """

    def __init__(self, batch: Batch, steps: int) -> None:
        super().__init__()
        self.batch, self.steps = batch, steps

    @override
    def train_dataloader(self) -> DataLoader[Batch]:
        return DataLoader([self.batch] * self.steps, batch_size=None)  # type: ignore[arg-type]

    def target_scale(self) -> TargetScale:
        """Return a scale in which the made-up indices are about one."""
        count = self.batch["indices"].shape[1]
        return TargetScale(torch.zeros(count), torch.full((count,), 100.0))


class EachStep(Callback):
    """Hears of each training step by its number in the epoch, from 0."""

    def before(self, trainer: Trainer, number: int) -> None:
        """Do what comes before a step."""

    def after(self, batch: Batch, number: int) -> None:
        """Do what comes after a step."""

    @override
    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        self.before(trainer, batch_idx)

    @override
    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Tensor | Mapping[str, Any] | None,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        self.after(batch, batch_idx)


def configuration(setting: str, **model: Any) -> dict[str, Any]:  # noqa: ANN401 - as YAML has it
    """Return an experiment and its overlays as one configuration.

    Args:
        setting: names joined by `+`, the later ones over the earlier.
        model: arguments of the paper, over all of them.
    """
    merged: dict[str, Any] = {}
    for name in setting.split("+"):
        merged = _over(merged, read_yaml(find_config(name)))
    merged = _over(merged, {"model": {"init_args": model}, "data": {"init_args": {}}})
    known = inspect.signature(_class(merged["model"])).parameters
    if "image_size" in known:  # as the command links them
        sides = merged["data"]["init_args"].get("matrix", default(merged["data"], "matrix"))
        merged["model"]["init_args"]["image_size"] = list(sides)
    return merged


def refuse_unknown(settings: Sequence[str]) -> None:
    """Refuse settings that nobody knows before any is measured: all are written at the end.

    Raises:
        UserError: one is misspelt.
    """
    for setting in settings:
        configuration(setting)


def as_published(setting: str) -> dict[str, Any]:
    """Return a setting whose first step is that of most of its training.

    Weak transfer begins with its generator alone: its adversary plays from the first step on.
    """
    return configuration(setting, **({"pretrain_epochs": 0} if "weak" in setting else {}))


def narrow(setting: str, **model: Any) -> dict[str, Any]:  # noqa: ANN401 - as YAML has it
    """Return a setting with four features, on four images of 32 x 32 and three times."""
    side = [32, 32]
    config = configuration(setting, width=4, **model)
    data, made = config["data"]["init_args"], config["model"]["init_args"]
    data |= {"batch_size": 4, "matrix": side}
    if "frames" in inspect.signature(_class(config["data"])).parameters:
        data["frames"] = 3
    if "image_size" in made:
        made["image_size"] = side
    return config


def default(described: Mapping[str, Any], name: str) -> Any:  # noqa: ANN401 - as YAML has it
    """Return the default of an argument of the class that a configuration names."""
    return inspect.signature(_class(described)).parameters[name].default


def paper_and_batch(config: Mapping[str, Any]) -> tuple[Paper, Batch]:
    """Make a paper and a batch of noise of the size that its data module would give it."""
    torch.manual_seed(0)
    paper, data = build(config)
    return paper, made_up(paper, data)


def made_up(paper: Paper, data: CardiacDataModule) -> Batch:
    """Return noise in the form of a batch; every third mask is another sequence's."""
    count, (rows, columns) = data.batch_size, data.matrix
    frames = getattr(data, "frames", 0)
    mask = torch.randint(0, 1 + max(1, len(paper.label_names)), (count, rows, columns))
    return {
        "image": torch.randn(count, 1, *([frames] if frames else []), rows, columns),
        "mask": mask,
        "spacing": torch.ones(count, 3),
        "indices": 100 * torch.rand(count, max(1, len(paper.index_names))),
        "label": torch.arange(count) % 2,
        "case": torch.zeros(count, dtype=torch.long),
        "slice": torch.arange(count),
        "transferred": torch.arange(count) % 3 == 2,
        "sample": torch.arange(count),
    }


def train(
    paper: Paper, batch: Batch, steps: int, callbacks: Sequence[Callback], **settings: object
) -> None:
    """Train under the trainer as the command sets it, for one epoch unless told otherwise.

    Args:
        paper: to train.
        batch: of every step.
        steps: of the epoch.
        callbacks: that look on.
        settings: of the trainer, such as its precision.
    """
    warnings.filterwarnings("ignore", message=".*no `val_dataloader`.*")
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False}
    quiet |= {"enable_progress_bar": False, "enable_model_summary": False, "max_epochs": 1}
    trainer = Trainer(callbacks=[*callbacks], **(quiet | settings))
    trainer.fit(paper, MadeUp(batch, steps))


def _class(described: Mapping[str, Any]) -> type:
    module, _, name = described["class_path"].rpartition(".")
    return getattr(import_module(module), name)


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return two configurations as one; another class takes none of the other's arguments."""
    merged = dict(below)
    for key, value in above.items():
        before = merged.get(key)
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            other = "class_path" in value and value["class_path"] != before.get("class_path")
            merged[key] = dict(value) if other else _over(before, value)
        else:
            merged[key] = value
    return merged
