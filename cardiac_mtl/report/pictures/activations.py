"""Where a classifier sees its class: class activation maps over the images of a case."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cardiac_mtl.evaluation.calls import outcome_of, telling_cases
from cardiac_mtl.evaluation.collect import CollectedCase
from cardiac_mtl.report.methods import Method
from cardiac_mtl.report.pictures.canvas import Photo, file_name
from cardiac_mtl.report.pictures.figures import contour, write_figure
from cardiac_mtl.report.tables.diagnosis import class_names

FIGURES: Final = "figures"
"""Folder of a run that holds the pictures of its test cases."""
COLOURS: Final = "PuOr_r"
"""From the first class, purple, to the second, orange; the colour-blind can tell them."""
WALL: Final = "#56B4E9"
MOST_SLICES: Final = 3
"""Of a case that are shown, those of the outcome first."""


def activation_file(case_id: str) -> str:
    """Name the picture of a case in the folder of figures."""
    return f"class_activation_{case_id}.png"


def in_words(outcome: str, names: Sequence[str]) -> str:
    """Say of an outcome which class was called which.

    Examples:
        >>> in_words("missed", ("healthy", "diseased"))
        'diseased, called healthy'
    """
    first, second = names
    return {
        "missed": f"{second}, called {first}",
        "false alarm": f"{first}, called {second}",
        "found": f"{second}, called {second}",
        "left alone": f"{first}, called {first}",
        "": "true class not known",
    }[outcome]


def draw_activation(
    path: Path,
    case: CollectedCase,
    evidence: NDArray[np.float32],
    rows: pd.DataFrame,
    outcome: str,
    names: Sequence[str],
) -> None:
    """Draw the images of a case, and over them what each place speaks for.

    Args:
        path: PNG to write.
        case: its images, and the reference where there is one.
        evidence: (S, H, W), log-odds of the second class.
        rows: of `labels.csv`, of the second class, one a slice.
        outcome: that the case was chosen for.
        names: of both classes.
    """
    of_slice = dict(zip(rows["slice"], rows.to_dict("records"), strict=True))
    outcomes = [
        outcome_of(of_slice[k]["is_class"], of_slice[k]["called"]) for k in case.slices.tolist()
    ]
    wanted = sorted(range(len(outcomes)), key=lambda k: outcomes[k] != outcome)[:MOST_SLICES]
    figure = Figure(figsize=(3.0 * len(wanted) + 1.2, 6.4), dpi=110, layout="constrained")
    axes = figure.subplots(2, len(wanted), squeeze=False)
    reach = max(float(np.abs(evidence[wanted]).max()), 1e-6)
    for (above, below), k in zip(axes.T, sorted(wanted), strict=True):
        low, high = np.percentile(case.image[k], [1, 99])
        aspect = case.spacing[1] / case.spacing[2]
        for ax in (above, below):
            ax.imshow(case.image[k], cmap="gray", vmin=low, vmax=high, aspect=aspect)
            contour(ax, case.reference[k] > 0, WALL)
            ax.set_axis_off()
        below.imshow(
            evidence[k],
            cmap=COLOURS,
            vmin=-reach,
            vmax=reach,
            alpha=0.85 * np.abs(evidence[k]) / reach,  # where nothing is said the image shows
            aspect=aspect,
        )
        row = of_slice[int(case.slices[k])]
        above.set_title(
            f"slice {case.slices[k]}: {in_words(outcomes[k], names)}\n"
            f"P({names[1]}) {row['probability']:.3g}, threshold {row['threshold']:.3g}",
            fontsize=8,
        )
    colours = ScalarMappable(Normalize(-reach, reach), COLOURS)
    bar = figure.colorbar(colours, ax=axes, shrink=0.6, aspect=30)
    bar.set_label(f"log-odds: below 0 for {names[0]}, above for {names[1]}", fontsize=8)
    figure.suptitle(str(rows["case_id"].iloc[0]), fontsize=10)
    write_figure(figure, path)


def activations_of(methods: Sequence[Method]) -> list[Photo]:
    """Return the class activation maps that `test` drew, one of each outcome and method."""
    photos = []
    for method in methods:
        shown: set[str] = set()
        for run in method.runs if len(method.labels) else ():
            for outcome, case in telling_cases(run.labels).items():
                file = run.folder / FIGURES / activation_file(case)
                if outcome not in shown and file.is_file():
                    shown.add(outcome)
                    names = [name for _, name in sorted(class_names([method]).items())]
                    words = in_words(outcome, names)
                    photos.append(
                        Photo(
                            file_name("class_activation", f"{method.name}_{case}"),
                            file,
                            f"{method.name}: {words}",
                            f"Case {case}, {run.part}. Above the map with the outline of the "
                            "reference, below it what each place adds to the log-odds.",
                            f"Class activation map of case {case}, {words}.",
                        )
                    )
    return photos
