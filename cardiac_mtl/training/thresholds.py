"""What `test` does for a paper that tells two classes apart: threshold, calls, activation maps."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Callback
from numpy.typing import NDArray
from typing_extensions import override

from cardiac_mtl.console import say
from cardiac_mtl.contracts import Batch, Prediction
from cardiac_mtl.evaluation.calls import telling_cases, threshold_facts, threshold_of, with_calls
from cardiac_mtl.evaluation.collect import CollectedCase
from cardiac_mtl.papers.base import Paper
from cardiac_mtl.report.pictures.activations import activation_file, draw_activation
from cardiac_mtl.runs import read_identity, write_identity
from data_modules.base import CardiacDataModule


def choose_threshold(trainer: Trainer, paper: Paper, data: CardiacDataModule, run: Path) -> None:
    """Choose what the classes are called by, on the part that the checkpoint was selected on.

    Args:
        trainer: of the test that follows.
        paper: with the weights of that checkpoint.
        data: of the same fold.
        run: directory of the run; the threshold goes into its `run.json`.
    """
    seen = _Seen()
    if (part := data.selection_part) != "none":
        trainer.callbacks.append(seen)  # type: ignore[attr-defined]
        trainer.validate(paper, datamodule=data, verbose=False)
    probability, label = np.concatenate([np.empty((2, 0)), *seen.pairs], axis=1)
    facts = threshold_facts(probability, label.astype(np.int64), paper.class_names[1], part)
    write_identity(run, read_identity(run) | {"threshold": facts})
    say(f"called {facts['class']} above a probability of {facts['value']:.4g}: {facts['rule']}")


class _Seen(Callback):
    """Keeps probability of the second class and true class of the images of a validation."""

    def __init__(self) -> None:
        self.pairs: list[NDArray[np.float64]] = []

    @override
    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        prediction: Prediction = outputs
        collected: Batch = batch
        pair = torch.stack([prediction["label_prob"][:, 1].double(), collected["label"].double()])
        self.pairs.append(pair.cpu().numpy())


def called(run: Path, labels: pd.DataFrame, paper: Paper) -> pd.DataFrame:
    """Add to the rows of `labels.csv` what each image is called at the threshold of the run."""
    return with_calls(labels, threshold_of(read_identity(run)), paper.class_names)


def draw_activations(
    folder: Path,
    paper: Paper,
    data: CardiacDataModule,
    labels: pd.DataFrame,
    cases: Mapping[str, CollectedCase],
) -> list[Path]:
    """Draw where the network sees the second class, in the first case of each outcome.

    Args:
        folder: of the pictures.
        paper: on the device of the test.
        data: says which part of the prepared grid is of the image.
        labels: rows of `labels.csv`, with what each image is called.
        cases: by case id, on the whole prepared grid.
    """
    pictures = []
    for outcome, name in telling_cases(labels).items():
        case = cases[name]
        maps = paper.class_activation(torch.from_numpy(case.image)[:, None].to(paper.device))
        if maps is None:
            break
        rows = labels[(labels["case_id"] == name) & (labels["class"] == "1")]
        part = data.scored_part(case.row)
        evidence = maps.float().cpu().numpy()[..., part[0], part[1]]
        pictures.append(folder / activation_file(name))
        shown = case.within(*part)
        draw_activation(pictures[-1], shown, evidence, rows, outcome, paper.class_names)
    return pictures
