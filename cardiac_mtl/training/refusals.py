"""What cannot be trained or scored, told before anything is written."""

from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning import Trainer

import cardiac_mtl
import data_modules
from cardiac_mtl.contracts import UNLABELLED
from cardiac_mtl.errors import UserError
from cardiac_mtl.papers.base import Paper
from cardiac_mtl.runs import PROVENANCE
from data_modules.base import CardiacDataModule

_NUMBERS = 1 << 32
"""Of seeds, and of features: what Lightning and torch take."""


def refuse_impossible(settings: Namespace) -> None:
    """Refuse a seed, a width or a number of epochs that cannot be."""
    model = settings.model.get("init_args") or {}
    for key, value, least in (
        ("seed_everything", settings.seed_everything, 0),
        ("model.width", model.get("width", 1), 1),
    ):
        if isinstance(value, int) and not least <= value < _NUMBERS:
            raise UserError(f"{value}", where=key, fix=f"give {least} to {_NUMBERS - 1}")
    for key in ("max_epochs", "accumulate_grad_batches", "check_val_every_n_epoch"):
        if settings.trainer[key] == 0:
            raise UserError("0", where=f"trainer.{key}", fix="give 1 or more")


def refuse_other_labels(model: Paper, data: CardiacDataModule) -> None:
    """Refuse data whose masks, indices or cases are others than the paper predicts."""
    _refuse_other_indices(model, data)
    wanted, declared = model.label_names, tuple(data.labels)
    if wanted and wanted != declared:
        raise UserError(
            f"declares {', '.join(declared)}; {model.title} wants {', '.join(wanted)}",
            where="data",
            fix="choose a data set that `cardiac-mtl list` names for the experiment",
        )
    values = tuple(data.labels.values())
    if wanted and values != tuple(range(1, 1 + len(values))):
        # a network's classes are numbered by their order: another would be called by its name
        raise UserError(
            f"labels have the values {', '.join(map(str, values))}",
            where=f"{type(data).__name__}.labels",
            fix="number them from 1 in their order, and have read_mask give these values",
        )
    classes = {UNLABELLED, *range(len(model.class_names))}
    others = sorted({case.label for case in data.cases} - classes) if model.class_names else []
    if others:
        numbered = ", ".join(f"{n} {name}" for n, name in enumerate(model.class_names))
        raise UserError(
            f"cases have the label {others[0]}, {model.title} knows {numbered}",
            where=f"data.root {data.root}",
            fix="number them so, or name the healthy with data.label_from and data.healthy",
        )


def _refuse_other_indices(model: Paper, data: CardiacDataModule) -> None:
    """Refuse indices of other names, number or order: one would be scored as another."""
    wanted, declared = tuple(model.index_names), tuple(data.index_names)
    if wanted and wanted != declared:
        raise UserError(
            f"has the indices {', '.join(declared) or 'none'}; "
            f"{model.title} wants {', '.join(wanted)}",
            where="data",
            fix="choose another data set, or give index_names and indices_of in its data module",
        )


def refuse_unannotated(model: Paper, data: CardiacDataModule) -> None:
    """Refuse to train, or to choose a checkpoint, where there is nothing to compare with."""
    parts = {"training": data.training_patients}
    if data.selection_part != "none":
        parts["validation"] = getattr(data.split, data.selection_part)
    for part, patients in parts.items():
        cases = [case for case in data.cases if case.patient_id in patients]
        found = {
            "mask": any(any(case.mask) or case.transferred for case in cases),
            "label": any(case.label != UNLABELLED for case in cases),
        }
        wanted = {"mask": model.label_names or not model.class_names, "label": model.class_names}
        for kind, needed in wanted.items():
            if needed and not found[kind]:
                raise UserError(
                    f"no {part} patient of fold {data.fold} has a {kind}",
                    where=f"data.root {data.root}",
                    fix=f"give {kind}s (column `{kind}` of a cases.csv), or choose another fold",
                )


def refuse_no_validation(trainer: Trainer, data: CardiacDataModule) -> None:
    """Refuse to train fewer epochs than it takes to validate one: no checkpoint would be chosen."""
    every, epochs = trainer.check_val_every_n_epoch, trainer.max_epochs
    if data.selection_part == "none" or every is None or epochs is None or not 0 < epochs < every:
        return
    raise UserError(
        f"{every}, of {epochs} epochs: none would be validated, and no checkpoint chosen",
        where="trainer.check_val_every_n_epoch",
        fix=f"give {epochs} or less",
    )


def refuse_other_fold(
    checkpoint: dict[str, Any], data: CardiacDataModule, path: Path, fix: str
) -> None:
    """Refuse weights that were trained on other folds, or on another one of them."""
    trained = checkpoint[PROVENANCE]
    if (trained["split_sha256"], trained["fold"]) != (data.split_sha256, data.fold):
        raise UserError(
            "the fold is not that of its training, so test patients may have trained it",
            where=str(path),
            fix=fix,
        )


def refuse_other_protocol(checkpoint: dict[str, Any], protocol: str, path: Path) -> None:
    """Refuse to choose a threshold on other patients than those who chose the checkpoint."""
    trained = checkpoint[PROVENANCE]["protocol"]
    if trained != protocol:
        raise UserError(
            f"was selected by the {trained} protocol",
            where=str(path),
            fix="leave data.paper_protocol as it was in training",
        )


def refuse_other_optimizers(model: Paper) -> None:
    """Refuse settings that the optimiser or the schedule does not take."""
    try:
        model.configure_optimizers()
    except (TypeError, ValueError) as error:
        what = " ".join(str(error).split()).rstrip(".")
        fix = "see the optimiser and the scheduler in the configuration"
        raise UserError(what, where="model", fix=fix) from error


def refuse_shadowed_package() -> None:
    """Refuse to run beside another `data_modules`."""
    ours, found = Path(cardiac_mtl.__file__).parents[1], Path(data_modules.__file__).parents[1]
    if ours != found:
        raise UserError(
            "another package named data_modules hides ours",
            where=str(found),
            fix="run from another folder",
        )
