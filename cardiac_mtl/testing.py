"""What `test` leaves in the run directory: rows, table, pictures."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from lightning import Trainer
from lightning.pytorch.callbacks import Callback
from typing_extensions import override

from cardiac_mtl.console import say
from cardiac_mtl.contracts import HONEST, Batch, Prediction
from cardiac_mtl.evaluation.collect import CaseCollector, CollectedCase
from cardiac_mtl.evaluation.rows import score, write_csv
from cardiac_mtl.papers.base import Paper
from cardiac_mtl.report.figures import curves, overlay
from cardiac_mtl.report.gallery import FOLDER, write_gallery
from cardiac_mtl.report.tables import summary, to_markdown, to_text
from cardiac_mtl.runs import METRICS
from data_modules.base import CardiacDataModule


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
        cases = [_postprocessed(case, pl_module) for case in self.collector.cases()]
        frames = score(cases, data.case_table, data.labels, data.index_names, self.protocol)
        table = summary(frames.cases, frames.slices)
        for name, frame in (*frames._asdict().items(), ("table", table)):
            write_csv(self.run / f"{name}.csv", frame)
        (self.run / "table.md").write_text(to_markdown(table), encoding="utf-8")
        names = [(str(data.case_table.iloc[case.row]["case_id"]), case) for case in cases]
        write_gallery(self.run / FOLDER, frames.cases, names)
        pictures = self._draw(cases, frames.cases, data.case_table)
        say(to_text(table))
        for name in ("table.md", "cases.csv", "slices.csv", "patients.csv"):
            say(str(self.run / name))
        for picture in pictures:
            say(str(picture))
        say(f"next: cardiac-mtl report {self.run} --output {self.run / 'report'}")

    def _draw(
        self, cases: list[CollectedCase], volumes: pd.DataFrame, table: pd.DataFrame
    ) -> list[Path]:
        """Draw the curves and one overlay a case; return the pictures."""
        folder = self.run / "figures"
        folder.mkdir(exist_ok=True)
        pictures = []
        if (self.run / METRICS).is_file():
            pictures.append(folder / "curves.png")
            curves(pictures[0], pd.read_csv(self.run / METRICS))
        mean_dice = volumes.groupby("case_id")["dice"].mean()
        for case in cases:
            case_id = str(table.iloc[case.row]["case_id"])
            pictures.append(folder / f"{case_id}.png")
            overlay(
                pictures[-1],
                case.image,
                case.reference,
                case.predicted,
                case.spacing,
                title=_title(case_id, mean_dice.get(case_id)),
                subtitle="" if self.protocol == HONEST else "selected on test: optimistic",
            )
        return pictures


def _title(case_id: str, dice: float | None) -> str:
    """Leave the Dice out where there is none: without annotation, or without a mask."""
    return case_id if dice is None or pd.isna(dice) else f"{case_id}, volume Dice {dice:.3f}"


def _postprocessed(case: CollectedCase, paper: Paper) -> CollectedCase:
    if case.predicted is None:
        return case
    return replace(case, predicted=paper.postprocess(case.predicted))
