"""What `test` leaves in the run directory: rows, table, pictures."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Callback
from typing_extensions import override

from cardiac_mtl.console import say
from cardiac_mtl.contracts import HONEST, Batch, Prediction
from cardiac_mtl.evaluation.collect import CaseCollector, CollectedCase
from cardiac_mtl.evaluation.function import without_function
from cardiac_mtl.evaluation.indices import REGRESSED_COLUMNS, index_rows, regressed_rows
from cardiac_mtl.evaluation.pixels import pixel_rows
from cardiac_mtl.evaluation.rows import AREA, CaseRows, assemble, score_case, write_csv
from cardiac_mtl.metrics.shape import INDEX_NAMES
from cardiac_mtl.papers.base import Paper
from cardiac_mtl.report.pictures.activations import FIGURES, activation_file
from cardiac_mtl.report.pictures.figures import curves, feature_maps, overlay
from cardiac_mtl.report.pictures.gallery import FOLDER, choose, fullest, of_patient, write_gallery
from cardiac_mtl.report.pictures.loops import film, write_loop
from cardiac_mtl.report.tables.layout import in_markdown
from cardiac_mtl.report.tables.summary import (
    class_summary,
    index_summary,
    regressed_summary,
    summary,
    to_markdown,
    to_text,
)
from cardiac_mtl.runs import METRICS, read_identity
from cardiac_mtl.training.thresholds import called, draw_activations
from data_modules.base import CardiacDataModule
from data_modules.parallel import parallel_map

_MOST_NAMED = 20
"""Pictures named one by one; a line for each of hundreds would hide the table above them."""


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
        self.collector = CaseCollector(probabilities=_finds_infarcts(trainer.datamodule))  # type: ignore[attr-defined]

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
        whole = list(self.collector.cases())
        cases = [
            _postprocessed(case.within(*data.scored_part(case.row)), pl_module) for case in whole
        ]
        table = data.case_table
        one = partial(_score, cases, table, data)
        frames = assemble(parallel_map(one, range(len(cases)), "scoring"), self.protocol)
        frames = frames._replace(labels=called(self.run, frames.labels, pl_module))
        results = summary(frames.cases, frames.slices)
        for name, frame in (*frames._asdict().items(), ("table", results)):
            write_csv(self.run / f"{name}.csv", frame)
        markdown, text = to_markdown(results), to_text(results)
        further = [class_summary(frames.labels), self._write_regressed(cases, data)]
        if _finds_infarcts(data):
            infos = [table.iloc[case.row] for case in cases]
            of_cases = [_infarct(*pair, data) for pair in zip(cases, infos, strict=True)]
            indices, pixels = (pd.concat(frames) for frames in zip(*of_cases, strict=True))
            for name, frame in (("indices", indices), ("pixels", pixels)):
                write_csv(self.run / f"{name}.csv", frame.assign(protocol=self.protocol))
            further.append(index_summary(indices))
        for rows in further:
            if len(rows):
                markdown += "\n" + in_markdown(rows) + "\n"
                text += "\n\n" + rows.to_string(index=False)
        (self.run / "table.md").write_text(markdown, encoding="utf-8")
        names = [(str(table.iloc[case.row]["case_id"]), _shown(case, data)) for case in cases]
        write_gallery(self.run / FOLDER, frames.cases, names)
        pictures = self._draw(names, frames.cases)
        pictures += _draw_loops(self.run, frames.cases)
        pictures += _draw_maps(self.run / FIGURES, pl_module, names, frames.cases)
        by_name = dict(zip((name for name, _ in names), whole, strict=True))
        pictures += draw_activations(self.run / FIGURES, pl_module, data, frames.labels, by_name)
        _remove_earlier(self.run / FIGURES, pictures)
        say(text)
        self._say_what_is_there(pictures, frames.cases)

    def _say_what_is_there(self, pictures: Sequence[Path], cases: pd.DataFrame) -> None:
        if left_out := without_function(cases):
            say(f"patients.csv: {left_out}")
        for name in ("table.md", "cases.csv", "slices.csv", "patients.csv"):
            say(str(self.run / name))
        folder = f"{len(pictures)} pictures in {self.run / FIGURES}"
        for picture in pictures if len(pictures) <= _MOST_NAMED else [folder]:
            say(str(picture))
        report = ["report", str(self.run), "--output", str(self.run / "report")]
        say(f"next: {shlex.join(['cardiac-mtl', *report])}")

    def _write_regressed(
        self, cases: Sequence[CollectedCase], data: CardiacDataModule
    ) -> pd.DataFrame:
        """Write the rows of indices that have no table of their own; return their summary."""
        names, rows = data.index_names, []
        if _finds_infarcts(data) or not set(names) - {AREA}:  # it has columns in `slices.csv`
            return pd.DataFrame()
        for case in cases:
            info = data.case_table.iloc[case.row]
            rows += regressed_rows(case, str(info["case_id"]), str(info["patient_id"]), names)
        regressed = pd.DataFrame(rows, columns=REGRESSED_COLUMNS)
        if rows:
            write_csv(self.run / "regressed.csv", regressed.assign(protocol=self.protocol))
        return regressed_summary(regressed)

    def _draw(
        self, names: Sequence[tuple[str, CollectedCase]], volumes: pd.DataFrame
    ) -> list[Path]:
        """Draw the curves and one overlay a case; return the pictures."""
        folder = self.run / FIGURES
        folder.mkdir(exist_ok=True)
        pictures = []
        if (self.run / METRICS).is_file():
            pictures.append(folder / "curves.png")
            chosen = read_identity(self.run)
            curves(
                pictures[0],
                pd.read_csv(self.run / METRICS),
                chosen.get("monitor", ""),
                chosen.get("best_value"),
            )
        mean = volumes.groupby("case_id")["dice"].mean()
        dice = {str(name): float(value) for name, value in mean.items()}
        subtitle = "" if self.protocol == HONEST else "selected on test: optimistic"
        draw = partial(_overlay, folder, names, dice, subtitle)
        return [*pictures, *parallel_map(draw, range(len(names)), "drawing")]


def _score(
    cases: Sequence[CollectedCase], table: pd.DataFrame, data: CardiacDataModule, k: int
) -> CaseRows:
    return score_case(cases[k], table.iloc[cases[k].row], data.labels, data.index_names)


def _finds_infarcts(data: CardiacDataModule) -> bool:
    return tuple(data.index_names) == INDEX_NAMES


def _infarct(
    case: CollectedCase, info: pd.Series, data: CardiacDataModule
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the rows of `indices.csv` and `pixels.csv` of a case."""
    ((label, value),) = data.labels.items()
    what = (case, str(info["case_id"]), str(info["patient_id"]), label, value, data.muscle)
    return index_rows(*what, wall_of_reference=True), pixel_rows(*what)


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


def _draw_loops(run: Path, volumes: pd.DataFrame) -> list[Path]:
    """Write a loop of each case of the gallery that has phases: the slice with most of it."""
    files = {file.stem: file for file in (run / FOLDER).glob("*.npz")}
    loops = []
    for rank, name in choose(volumes).items():
        windows = [window for _, window in of_patient(name, volumes, files)]
        k = fullest(windows[0])
        frames = film(windows, k)
        if len(frames) > 1:
            loops.append(run / FIGURES / f"{name}_loop.gif")
            aspect = float(windows[0].spacing[1] / windows[0].spacing[2])
            write_loop(loops[-1], frames, aspect, f"{name}\n{rank} of the test, slice {k}")
    return loops


@torch.inference_mode()
def _draw_maps(
    folder: Path, paper: Paper, names: Sequence[tuple[str, CollectedCase]], volumes: pd.DataFrame
) -> list[Path]:
    """Draw what the network makes of the middle infarct, or structure, of the gallery's cases."""
    pictures = []
    chosen = set(choose(volumes).values())
    for name, case in ((n, c) for n, c in names if n in chosen):
        masks = [case.reference > 0] + ([] if case.predicted is None else [case.predicted > 0])
        bearing = np.flatnonzero(next((m for m in masks if m.any()), masks[0]).any(axis=(1, 2)))
        if not len(bearing):
            continue
        k = bearing[len(bearing) // 2]
        seen = case.image[k] if case.frames is None else case.frames[:, k].astype(np.float32)
        maps = paper.feature_maps(torch.from_numpy(seen)[None, None].to(paper.device))
        if not maps:
            break
        pictures.append(folder / f"feature_maps_{name}.png")
        held = {layer: found[0].float().cpu().numpy() for layer, found in maps.items()}
        shown = [mask[k] for mask in masks]
        feature_maps(pictures[-1], case.image[k], shown, held, title=f"{name}, slice {k}")
    return pictures


def _remove_earlier(folder: Path, pictures: Sequence[Path]) -> None:
    """Remove what an earlier test drew of cases that are not chosen now, and nothing else."""
    for pattern in ("*_loop.gif", "feature_maps_*.png", activation_file("*")):
        for left in set(folder.glob(pattern)) - set(pictures):
            left.unlink()


def _title(case_id: str, dice: float | None) -> str:
    """Leave the Dice out where there is none: without annotation, or without a mask."""
    return case_id if dice is None or pd.isna(dice) else f"{case_id}, volume Dice {dice:.3f}"


def _postprocessed(case: CollectedCase, paper: Paper) -> CollectedCase:
    if case.predicted is None:
        return case
    return replace(case, predicted=paper.postprocess(case.predicted))
