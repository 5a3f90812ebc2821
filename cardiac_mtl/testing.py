"""What `test` leaves in the run directory: rows, table, pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from lightning import Trainer
from lightning.pytorch.callbacks import Callback
from typing_extensions import override

from cardiac_mtl.console import say
from cardiac_mtl.contracts import HONEST, Batch, Prediction
from cardiac_mtl.evaluation.collect import CaseCollector, CollectedCase
from cardiac_mtl.evaluation.indices import index_rows
from cardiac_mtl.evaluation.rows import CaseRows, assemble, score_case, write_csv
from cardiac_mtl.metrics.shape import INDEX_NAMES
from cardiac_mtl.papers.base import Paper
from cardiac_mtl.report.figures import curves, overlay
from cardiac_mtl.report.gallery import FOLDER, write_gallery
from cardiac_mtl.report.tables import in_markdown, index_summary, summary, to_markdown, to_text
from cardiac_mtl.runs import METRICS
from data_modules.base import CardiacDataModule
from data_modules.parallel import parallel_map


class TestOutputs(Callback):
    """Collects the predictions of the test part and writes everything that follows from them.

    Args:
        run: directory of the run.
        protocol: `honest` or `paper_optimistic`; it marks every row.
    """

    __test__ = False  # not a test of pytest's

    def __init__(self, run: Path, protocol: str) -> None:
        self.run = run
        self.protocol = protocol

    @override
    def on_test_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.collector = CaseCollector()

    @override
    def on_test_batch_end(
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
        self.collector.update(collected, prediction)

    @override
    def on_test_end(self, trainer: Trainer, pl_module: Any) -> None:
        data: CardiacDataModule = trainer.datamodule  # type: ignore[attr-defined]
        cases = [
            _postprocessed(case.within(*data.scored_part(case.row)), pl_module)
            for case in self.collector.cases()
        ]
        table = data.case_table
        one = partial(_score, cases, table, data)
        frames = assemble(parallel_map(one, range(len(cases)), "scoring"), self.protocol)
        results = summary(frames.cases, frames.slices)
        for name, frame in (*frames._asdict().items(), ("table", results)):
            write_csv(self.run / f"{name}.csv", frame)
        markdown, text = to_markdown(results), to_text(results)
        if tuple(data.index_names) == INDEX_NAMES:
            indices = pd.concat([_indices(case, table.iloc[case.row], data) for case in cases])
            write_csv(self.run / "indices.csv", indices.assign(protocol=self.protocol))
            errors = index_summary(indices)
            markdown += "\n" + in_markdown(errors) + "\n"
            text += "\n\n" + errors.to_string(index=False)
        (self.run / "table.md").write_text(markdown, encoding="utf-8")
        names = [(str(table.iloc[case.row]["case_id"]), _shown(case, data)) for case in cases]
        write_gallery(self.run / FOLDER, frames.cases, names)
        pictures = self._draw(names, frames.cases)
        say(text)
        for name in ("table.md", "cases.csv", "slices.csv", "patients.csv"):
            say(str(self.run / name))
        for picture in pictures:
            say(str(picture))
        say(f"next: cardiac-mtl report {self.run} --output {self.run / 'report'}")

    def _draw(
        self, names: Sequence[tuple[str, CollectedCase]], volumes: pd.DataFrame
    ) -> list[Path]:
        """Draw the curves and one overlay a case; return the pictures."""
        folder = self.run / "figures"
        folder.mkdir(exist_ok=True)
        pictures = []
        if (self.run / METRICS).is_file():
            pictures.append(folder / "curves.png")
            curves(pictures[0], pd.read_csv(self.run / METRICS))
        mean = volumes.groupby("case_id")["dice"].mean()
        dice = {str(name): float(value) for name, value in mean.items()}
        subtitle = "" if self.protocol == HONEST else "selected on test: optimistic"
        draw = partial(_overlay, folder, names, dice, subtitle)
        return [*pictures, *parallel_map(draw, range(len(names)), "drawing")]


def _score(
    cases: Sequence[CollectedCase], table: pd.DataFrame, data: CardiacDataModule, k: int
) -> CaseRows:
    return score_case(cases[k], table.iloc[cases[k].row], data.labels, data.index_names)


def _indices(case: CollectedCase, info: pd.Series, data: CardiacDataModule) -> pd.DataFrame:
    ((label, value),) = data.labels.items()
    who = str(info["case_id"]), str(info["patient_id"])
    return index_rows(case, *who, label, value, data.muscle, wall_of_reference=True)


def _shown(case: CollectedCase, data: CardiacDataModule) -> CollectedCase:
    """Leave out of the pictures what has a value in the reference and is no label."""
    if data.muscle is None:
        return case
    return replace(case, reference=np.where(case.reference == data.muscle, 0, case.reference))


def _overlay(
    folder: Path,
    names: Sequence[tuple[str, CollectedCase]],
    dice: Mapping[str, float],
    subtitle: str,
    k: int,
) -> Path:
    name, case = names[k]
    picture = folder / f"{name}.png"
    overlay(
        picture,
        case.image,
        case.reference,
        case.predicted,
        case.spacing,
        title=_title(name, dice.get(name)),
        subtitle=subtitle,
    )
    return picture


def _title(case_id: str, dice: float | None) -> str:
    """Leave the Dice out where there is none: without annotation, or without a mask."""
    return case_id if dice is None or pd.isna(dice) else f"{case_id}, volume Dice {dice:.3f}"


def _postprocessed(case: CollectedCase, paper: Paper) -> CollectedCase:
    if case.predicted is None:
        return case
    return replace(case, predicted=paper.postprocess(case.predicted))
