"""`metrics.csv`: what was logged, on disk as soon as it is, and cut where a run goes on."""

import csv
import io
from argparse import Namespace
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from typing_extensions import override

from cardiac_mtl.runs import METRICS, write_whole


class RunMetrics(Logger):
    """The CSV of a run. Lightning's CSVLogger deletes the old file when a run goes on.

    Args:
        run: directory of the run.
    """

    def __init__(self, run: Path) -> None:
        super().__init__()
        self.path = run / METRICS
        self.rows: list[dict[str, Any]] = []

    @property
    @override
    def name(self) -> str:
        return ""

    @property
    @override
    def version(self) -> str:
        return ""

    @override
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *_: Any, **__: Any) -> None:
        """Do nothing: `config.yaml` holds them."""

    @override
    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.rows.append({**metrics, "step": step})
        self._write()

    @rank_zero_only
    def go_on_after(self, step: int | None) -> None:
        """Keep the rows up to a step, from 0; what came after it will come again.

        Args:
            step: the last that was done; None to begin anew.
        """
        self.rows = []
        if step is not None and self.path.is_file():
            with self.path.open(encoding="utf-8", newline="") as file:
                rows = [row for row in csv.DictReader(file) if int(row["step"]) <= step]
            # empty cells are columns that a row does not have
            self.rows = [{key: value for key, value in row.items() if value} for row in rows]

    def _write(self) -> None:
        columns = sorted({key for row in self.rows for key in row})
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, columns)
        writer.writeheader()
        writer.writerows(self.rows)
        write_whole(self.path, text.getvalue())
