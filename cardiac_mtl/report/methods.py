"""What is compared: methods, each with its runs pooled out of fold."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd

from cardiac_mtl.contracts import EXTERNAL, HONEST


@dataclass(frozen=True)
class Run:
    """One evaluated run: a fold and a seed, or masks of another tool."""

    folder: Path
    identity: Mapping[str, Any]
    """Of `run.json`."""
    slices: pd.DataFrame
    cases: pd.DataFrame
    patients: pd.DataFrame
    labels: pd.DataFrame
    """Predicted classes, without a row when none are predicted."""
    indices: pd.DataFrame
    """Of infarcts by slice, without a row when none are predicted."""
    pixels: pd.DataFrame
    """Of infarcts by case, place and bin of probability, without a row when none are predicted."""
    metrics: pd.DataFrame
    """Of training, by epoch; without a row when there was none."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Such as `weighting.mask` of the model; empty for masks of another tool."""
    unfinished: str = ""
    """How its training stands, such as `interrupted`; empty where it came to its end."""
    folds: int = 0
    """Into how many its patients were dealt; 0 where that is not known."""
    unpredicted: frozenset[str] = frozenset()
    """Cases of the references of which another tool has no mask."""

    @property
    def part(self) -> str:
        """Name the run within its method."""
        fold, seed = self.identity.get("fold"), self.identity.get("seed")
        return self.folder.name if fold is None else f"fold {fold}, seed {seed}"


@dataclass(frozen=True)
class Method:
    """Runs whose test patients are disjoint, pooled."""

    name: str
    runs: Sequence[Run]
    data: str = ""
    variant: str = ""
    """What tells it apart from others of the same experiment, such as `weighting.mask 0.3`."""
    family: str = ""
    """Name that it shares with other seeds of itself; empty where there are none."""
    slices: pd.DataFrame = field(init=False)
    cases: pd.DataFrame = field(init=False)
    patients: pd.DataFrame = field(init=False)
    labels: pd.DataFrame = field(init=False)
    indices: pd.DataFrame = field(init=False)
    pixels: pd.DataFrame = field(init=False)

    def __post_init__(self) -> None:
        """Pool the rows."""
        for table in ("slices", "cases", "patients", "labels", "indices", "pixels"):
            parts = [getattr(run, table) for run in self.runs]
            filled = [part for part in parts if len(part)] or parts[:1]
            object.__setattr__(self, table, pd.concat(filled, ignore_index=True))

    @property
    def experiment(self) -> str:
        """Name what was trained; empty for masks of another tool that has no name."""
        return str(self.runs[0].identity.get("experiment", ""))

    @property
    def protocol(self) -> str:
        """Say how the checkpoints were selected: the least honest of the runs counts (P9)."""
        found = {str(run.identity["protocol"]) for run in self.runs}
        return HONEST if found == {HONEST} else (found - {HONEST}).pop()


def scored_cases(rows: Run | Method) -> set[str]:
    """Return the cases of which there are rows; those that are classified need have no mask."""
    return {*rows.cases["case_id"], *rows.labels.get("case_id", ())}


@dataclass(frozen=True)
class Family:
    """Methods that differ in their seed alone."""

    name: str
    members: Sequence[Method]
    seeds: Mapping[str, int] | None = None
    """Of how many seeds the rows of each case count, of others none; without it of all."""

    @property
    def cases(self) -> pd.DataFrame:
        """One row a case and label, numbers averaged over the seeds that define them."""
        return _averaged(self.rows("cases"), ["case_id", "label"])

    @property
    def indices(self) -> pd.DataFrame:
        """One row a slice, numbers averaged over the seeds that define them."""
        return _averaged(self.rows("indices"), ["case_id", "slice"])

    def rows(self, table: str) -> list[pd.DataFrame]:
        """Return the rows that count of each seed, such as those of `cases`."""
        tables = [getattr(method, table) for method in self.members]
        if self.seeds is None:
            return tables
        taken: Counter[str] = Counter()
        counted = []
        for method, rows in zip(self.members, tables, strict=True):
            scored = {c for c in set(method.cases["case_id"]) if taken[c] < self.seeds.get(c, 0)}
            taken.update(scored)
            counted.append(rows[rows["case_id"].isin(scored)])
        return counted


def _averaged(tables: Sequence[pd.DataFrame], keys: list[str]) -> pd.DataFrame:
    rows = pd.concat(tables)
    grouped = rows.groupby(keys, sort=False)
    numbers = [name for name in rows.select_dtypes("number") if name not in keys]
    return grouped.first().assign(**grouped[numbers].mean()).reset_index()


def families(methods: Sequence[Method]) -> list[Family]:
    """Put methods that differ in their seed alone together, in the order of the first of each."""
    by_name: dict[str, list[Method]] = defaultdict(list)
    for method in methods:
        by_name[method.family or method.name].append(method)
    return [Family(name, members) for name, members in by_name.items()]


def pairs_of(methods: Sequence[Method]) -> Iterator[tuple[Family, Family]]:
    """Yield every two families, of each case with as many seeds of either as both have.

    The mean of several seeds varies less than a single one does: of methods that are alike, tests
    of ranks, of signs and of distributions would tell the two apart. Of a seed some folds may be
    missing.
    """
    for pair in combinations(families(methods), 2):
        first, second = (
            Counter(case for m in family.members for case in set(m.cases["case_id"]))
            for family in pair
        )
        one, two = (replace(family, seeds=first & second) for family in pair)
        yield one, two


PROTOCOLS = {
    HONEST: "chosen without test patients",
    EXTERNAL: "selected we do not know how, as the masks come from elsewhere",
}


def in_words(protocol: str) -> str:
    """Say in words how a checkpoint was selected."""
    return PROTOCOLS.get(protocol, "selected on test (as published): OPTIMISTIC")
