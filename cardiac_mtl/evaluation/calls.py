"""Which class an image is called: the threshold of a run, what follows from it, cases to look at.

There are two classes, and the threshold is one on the probability of the second.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cardiac_mtl.contracts import UNLABELLED
from cardiac_mtl.metrics.classification import best_threshold, confusion

RULE: Final = "largest balanced accuracy; of equals the nearest to one half"
DEFAULT: Final = 0.5
CALL_COLUMNS: Final = ("class_name", "threshold", "called")
"""Of `labels.csv`: name of the class of a row, the probability above which an image is called it,
and whether it was: 1 or 0."""
OUTCOMES: Final = ("missed", "false alarm", "found", "left alone")
"""Of an image: of the second class and called the first, and so on; rarest and worst first."""

Facts = dict[str, Any]


def threshold_facts(
    probability: NDArray[np.floating], label: NDArray[np.integer], name: str, part: str
) -> Facts:
    """Choose the threshold of a run.

    Args:
        probability: (N,), of the second class, of the images to choose on.
        label: (N,), -1 where missing.
        name: of the second class.
        part: that the images are of: `val`, under the paper protocol `test`.

    Returns:
        JSON-able: the threshold, how it came about, and what it was chosen on. Where there are not
        images of both classes it is one half, and chosen on nothing.
    """
    counts = {"images": int((label != UNLABELLED).sum()), f"of_{name}": int((label == 1).sum())}
    value = best_threshold(probability, label)
    if np.isnan(value):
        rule = "one half: no images of both classes to choose on"
        return {"class": name, "value": DEFAULT, "chosen_on": "", "rule": rule}
    reached = confusion(probability, label, threshold=value).balanced_accuracy
    return {
        "class": name,
        "value": value,
        "chosen_on": part,
        "rule": RULE,
        **counts,
        "balanced_accuracy": reached,
    }


def threshold_of(identity: Mapping[str, Any]) -> float:
    """Return the threshold that `test` wrote into the `run.json` of a run, else one half."""
    return float(identity.get("threshold", {}).get("value", DEFAULT))


def with_calls(labels: pd.DataFrame, threshold: float, names: Sequence[str]) -> pd.DataFrame:
    """Add `CALL_COLUMNS` to the rows of `labels.csv`.

    Args:
        labels: with `class`, `0` or `1`, and `probability`.
        threshold: above it an image is called the second class, else the first.
        names: of both classes; empty where none is predicted, as the rows are.
    """
    second = (labels["class"] == "1").to_numpy()
    images = pd.MultiIndex.from_frame(labels[["case_id", "slice"]])
    # both rows of an image follow one number: 1 - p loses digits of a small p
    above = pd.Series(labels["probability"].to_numpy(float) > threshold, index=images)[second]
    return labels.assign(
        class_name=[names[int(value)] for value in labels["class"]],
        threshold=np.where(second, threshold, 1 - threshold),
        called=(above.reindex(images).to_numpy(bool) == second).astype(int),
    )


def outcome_of(is_class: int, called: int) -> str:
    """Name what came of an image, from its row of the second class; empty without a true class."""
    if is_class == UNLABELLED:
        return ""
    of_second = {(1, 0): "missed", (0, 1): "false alarm", (1, 1): "found", (0, 0): "left alone"}
    return of_second[is_class, called]


def telling_cases(labels: pd.DataFrame) -> dict[str, str]:
    """Choose cases to look at: the first of each outcome, none of them twice.

    Args:
        labels: rows of `labels.csv`, with `CALL_COLUMNS`.

    Returns:
        Outcome to case id, for the outcomes that there are, in the order of `OUTCOMES`.
    """
    second = labels[labels["class"] == "1"]
    pairs = zip(second["is_class"], second["called"], strict=True)
    of_image = pd.Series([outcome_of(*pair) for pair in pairs], index=second.index, dtype=str)
    chosen: dict[str, str] = {}
    for outcome in OUTCOMES:
        cases = second.loc[of_image == outcome, "case_id"]
        left = cases[~cases.isin(list(chosen.values()))]
        if len(left):
            chosen[outcome] = str(left.iloc[0])
    return chosen
