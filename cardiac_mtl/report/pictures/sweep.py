"""Dice and AUC against the weight of the mask, drawn: Fig. 3 of FPM."""

from collections.abc import Iterator

import pandas as pd
from matplotlib import rc_context

from cardiac_mtl.report.pictures.canvas import STYLE, Picture, looks_of, panels_for
from cardiac_mtl.report.tables.sweep import MEASURES


def weight_curves(table: pd.DataFrame) -> Iterator[Picture]:
    """Draw what `by_weight` returns."""
    if table.empty:
        return
    with rc_context(STYLE):
        figure, axes = panels_for(len(MEASURES), size=(4.2, 3.0))
        for ax, (measure, heading) in zip(axes, MEASURES.items(), strict=True):
            by_data = list(table.groupby("data", sort=False))
            for (data, rows), look in zip(by_data, looks_of(by_data), strict=True):
                known = rows[rows[measure].notna()]
                ends = known[[f"{measure}_low", f"{measure}_high"]]
                ax.vlines(known["weight"], *ends.to_numpy().T, color=look["color"], linewidth=2)
                ax.plot(known["weight"], known[measure], **look, linewidth=1, label=str(data))
            ax.set(xlabel="weight of the mask", ylabel=heading, xlim=(-0.05, 1.05))
        if len(set(table["data"])) > 1:
            axes[0].legend(fontsize=7)
    heard = "; ".join(
        f"{row['weight']:g}: Dice {row['dice']:.3f}, AUC {row['auc']:.3f}"
        for row in table.to_dict("records")
    )
    yield Picture(
        "sweep",
        "Dice and AUC by weight",
        "Bars: 95 % bootstrap interval by patients. The label has the rest of one (Fig. 3 of the "
        "paper of FPM, which draws accuracy in place of the AUC).",
        f"Dice and AUC against the weight of the mask. {heard}.",
        figure,
    )
