"""Healthy or diseased: from any column of a table, and classes alike in number."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cardiac_mtl.contracts import UNLABELLED
from cardiac_mtl.errors import UserError
from data_modules.cases import COLUMNS, Case

LABELS: Final = {"healthy": 0, "diseased": 1}
"""Words of a table, and the values of `Case.label` that they stand for."""


def label_cases(cases: Sequence[Case], column: str, healthy: str) -> list[Case]:
    """Label cases by a column that says what they have.

    Args:
        cases: of a data set.
        column: of the case table.
        healthy: its values that are healthy, separated by commas.

    Returns:
        The cases, labelled 0 healthy, 1 diseased, -1 where the column is empty.

    Raises:
        UserError: there is no such column, or one of the values does not occur in it.
    """
    known = {*COLUMNS, *(name for case in cases for name in case.other)}
    if column not in known:
        raise UserError(
            f"no column {column!r} in the case table",
            where="data.label_from",
            fix=f"choose from {', '.join(sorted(known))}",
        )
    values = [_value(case, column) for case in cases]
    wanted = {value.strip() for value in healthy.split(",")}
    there = Counter(filter(None, values))
    if absent := sorted(wanted - set(there)):
        raise UserError(
            f"no case has {absent[0]!r} as {column}",
            where="data.healthy",
            fix=f"name the healthy of {', '.join(sorted(there)) or 'no value'}",
        )
    return [
        replace(case, label=LABELS["healthy" if value in wanted else "diseased"])
        if value
        else replace(case, label=UNLABELLED)
        for case, value in zip(cases, values, strict=True)
    ]


def balanced(positions: NDArray[np.intp], classes: NDArray[np.integer]) -> NDArray[np.intp]:
    """Repeat samples of the rarer classes until each class has as many.

    Args:
        positions: (N,), of the samples.
        classes: (N,), of each; those of `UNLABELLED` stay as they are.

    Returns:
        Unlabelled samples, then each class in turn.

    Raises:
        UserError: none has a label.

    Examples:
        >>> balanced(np.arange(4), np.array([0, 1, 0, 0]))
        array([0, 2, 3, 1, 1, 1])
    """
    names, counts = np.unique(classes[classes != UNLABELLED], return_counts=True)
    if not names.size:
        raise UserError(
            "no case of the training part has a label",
            where="data.balance_classes",
            fix="fill the column `label`, or see data.label_from",
        )
    parts = [np.resize(positions[classes == name], counts.max()) for name in names]
    return np.concatenate([positions[classes == UNLABELLED], *parts])


def _value(case: Case, column: str) -> str:
    value = str(getattr(case, column)) if column in COLUMNS else case.other.get(column, "")
    return "" if value == str(UNLABELLED) else value
