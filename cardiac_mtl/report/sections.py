"""The sections of a report, in the order of the page: what is computed, and in which words."""

from collections.abc import Callable, Sequence

import pandas as pd

from cardiac_mtl.report.methods import Method
from cardiac_mtl.report.page import Section
from cardiac_mtl.report.pictures.activations import activations_of
from cardiac_mtl.report.pictures.canvas import Picture
from cardiac_mtl.report.pictures.mask_errors import right_missed_false
from cardiac_mtl.report.pictures.plots import pictures
from cardiac_mtl.report.pictures.sequences import side_by_side
from cardiac_mtl.report.pictures.sweep import weight_curves
from cardiac_mtl.report.tables import (
    analysis,
    diagnosis,
    fidelity,
    finding,
    infarcts,
    layout,
    pixels,
    quantities,
    sweep,
)
from cardiac_mtl.report.tables.layout import Table

Drawn = Sequence[Picture]


def sections_of(methods: Sequence[Method], columns: Sequence[str]) -> list[Section]:
    """Compute every table and figure that the rows of some methods allow.

    Args:
        methods: at least one.
        columns: of the rows to stratify by.

    Returns:
        The sections that hold something.
    """
    volumes, by_region = analysis.headline(methods), analysis.areas(methods)
    drawn = list(pictures(methods, volumes, by_region))
    sections = [
        _protocol(methods),
        _results(methods, volumes, drawn),
        _seeds(methods),
        _comparison(methods),
        _side_by_side(methods),
        _areas(by_region, drawn),
        _function(methods, drawn),
        _infarcts(methods),
        _pixels(methods, drawn),
        _strata(methods, columns),
        _consistency(methods),
        _classification(methods, drawn),
        _sweep(methods),
        _training(drawn),
        _papers(methods),
    ]
    return [section for section in sections if section.tables or section.pictures]


def _protocol(methods: Sequence[Method]) -> Section:
    return Section(
        "protocol",
        "What was run",
        "One row a run; selected_on says on which patients the checkpoint was chosen. A "
        "value chosen on test patients is optimistic; the name of its method says so everywhere.",
        _table(
            "protocol",
            "Runs",
            "From the run directories; commands, with the folders in them, are in protocol.csv.",
            analysis.protocols(methods),
            layout.protocol_shown,
        ),
    )


def _results(methods: Sequence[Method], volumes: pd.DataFrame, drawn: Drawn) -> Section:
    return Section(
        "results",
        "Results",
        "Folds of one experiment are pooled out of fold: a patient is scored once, by a network "
        "that has not seen them, unless a line above says otherwise.",
        _table(
            "results",
            "Volumes",
            "Mean ± SD over volumes [95 % bootstrap interval by patients]. A missed or false "
            "structure scores 0 and the diagonal of its image, and is counted; where "
            "both masks are empty nothing is defined, and it is counted. Distances in mm, "
            "surface Dice at the tolerance in the rows.",
            volumes,
            layout.headline_shown,
        )
        + _table(
            "finding",
            "Found, or rightly not",
            "Patients in all of whose volumes the structure was found, and those without it in "
            "whom nothing was [Wilson's 95 % interval].",
            finding.rates(methods),
            finding.rates_shown,
        ),
        _of(drawn, "boxes", "intervals", "psnr"),
    )


def _seeds(methods: Sequence[Method]) -> Section:
    return Section(
        "seeds",
        "Seeds",
        "What chance in the training does: the same experiment on the same patients, begun anew.",
        _table(
            "seeds",
            "Mean of several seeds",
            "Mean over volumes and seeds, on the cases that all seeds have scored [95 % bootstrap "
            "interval by patients, of the mean of the seeds], and the means of the single seeds: "
            "SD, least to largest.",
            analysis.over_seeds(methods),
            layout.seeds_shown,
        ),
    )


def _comparison(methods: Sequence[Method]) -> Section:
    return Section(
        "comparison",
        "Comparison",
        "Methods on the cases that both have scored; of several seeds the mean of each case, over "
        "as many seeds of either as both have.",
        _table(
            "comparisons",
            "Paired tests",
            "Wilcoxon's signed-rank test on the means of patients, corrected by Holm over all "
            "rows; Kolmogorov-Smirnov on volumes as in the paper of MTN, which takes the phases of "
            "one patient as independent.",
            analysis.comparisons(methods),
            layout.comparisons_shown,
        )
        + _table(
            "finding_comparisons",
            "Found, or rightly not",
            "Exact sign test over the patients about whom two methods differ, which is McNemar's; "
            "corrected by Holm over all rows.",
            finding.comparisons(methods),
            finding.comparisons_shown,
        ),
    )


def _side_by_side(methods: Sequence[Method]) -> Section:
    return Section(
        "side_by_side",
        "Side by side",
        "Cases that the galleries of all methods hold, on one grid.",
        (),
        [*side_by_side(methods), *right_missed_false(methods)],
    )


def _areas(by_region: pd.DataFrame, drawn: Drawn) -> Section:
    return Section(
        "areas",
        "Areas",
        "Absolute area errors of slices whose reference holds the label, mm².",
        _table(
            "areas",
            "By phase and region",
            "Mean ± SD (median, slices). The first two slices that hold the label are basal, "
            "the last two apical.",
            by_region,
            layout.areas_shown,
        ),
        _of(drawn, "area_errors"),
    )


def _function(methods: Sequence[Method], drawn: Drawn) -> Section:
    return Section(
        "function",
        "Quantities and function",
        "Areas, volumes and ventricular function against their references.",
        _table(
            "agreement",
            "Agreement",
            "Bias is predicted minus reference; limits are bias ± 1.96 SD. ICC: two-way "
            "random, absolute agreement, single measure. Intervals by patients: the percentile "
            "bootstrap where a patient counts more than once, as slices and phases do.",
            quantities.agreement(methods),
            layout.agreement_shown,
        )
        + _table(
            "flags",
            "Impossible, suspicious or unknown function",
            "Nothing is clipped or left out.",
            quantities.function_flags(methods),
            layout.function_shown,
        ),
        _of(drawn, "scatter", "bland_altman"),
    )


def _infarcts(methods: Sequence[Method]) -> Section:
    return Section(
        "infarcts",
        "Infarct indices",
        "Absolute errors of the seven indices by slice, regressed and measured in the "
        "predicted mask; the orientation on the half circle, the centroid by its distance.",
        _table(
            "infarct_indices",
            "Errors",
            "Mean ± SD [95 % bootstrap interval by patients] in mm², % of the myocardium, "
            "mm and degrees, over the slices in which both have the index.",
            infarcts.index_errors_of(methods),
            infarcts.errors_shown,
        )
        + _table(
            "infarct_comparisons",
            "Paired tests",
            "Second minus first on the slices of which both have the index, of several seeds "
            "the mean of each slice, over as many as both have; Wilcoxon's test on the means "
            "of patients, corrected by Holm over all rows.",
            infarcts.index_comparisons(methods),
            infarcts.comparisons_shown,
        ),
    )


def _pixels(methods: Sequence[Method], drawn: Drawn) -> Section:
    measured = pixels.pixel_measures(methods)
    published = fidelity.published_pixels(methods)
    return Section(
        "pixels",
        "Infarct pixels",
        "Every pixel is called by itself: of the whole region of interest, where the background "
        "makes accuracy and specificity, and within the myocardium of the reference.",
        _table(
            "pixels",
            "Rates and areas",
            "Value [95 % bootstrap interval by patients]; infarct is its share of the pixels. "
            "Pooled: of all pixels together. Mean over patients: a patient without infarct has no "
            "sensitivity, and no Dice where nothing was found either. AUC and AP (average "
            "precision) are of pixels in bins of their probability; tables/pixels.csv bounds what "
            "that moves. The paper says neither which pixels nor which average.",
            pd.concat([measured, published], ignore_index=True) if len(published) else measured,
            pixels.pixels_shown,
        ),
        _of(drawn, "pixels"),
    )


def _strata(methods: Sequence[Method], columns: Sequence[str]) -> Section:
    return Section(
        "strata",
        "Strata",
        "The same measures within groups of patients, and of slices.",
        _table(
            "strata",
            "Volumes by group",
            "As in the table of results; small groups have wide intervals.",
            analysis.strata(methods, columns),
            layout.strata_shown,
        )
        + _table(
            "regions",
            "Slices by region",
            "In plane, over slices: not the Dice of volumes. Slices whose reference is "
            "without the label count where something was found in them.",
            analysis.regions(methods),
            layout.strata_shown,
        ),
    )


def _consistency(methods: Sequence[Method]) -> Section:
    return Section(
        "consistency",
        "Mask against regression",
        "Where a method predicts the area twice, the disagreement of both is a quality flag "
        "that needs no reference.",
        _table(
            "consistency",
            f"Finding slices with Dice below {analysis.BAD_DICE}",
            "AUC of |segmented - regressed| over the larger of both; 0.5 is chance.",
            analysis.consistency(methods),
        )
        + _table(
            "suspects",
            "Cases to look at first",
            "Mean of the same over the slices of a case, 0 to 1, largest first.",
            analysis.suspects(methods),
        ),
    )


def _classification(methods: Sequence[Method], drawn: Drawn) -> Section:
    return Section(
        "classification",
        "Classification",
        "Each class as the positive one in turn, so that none is hidden behind a majority. The "
        "tables of FPM count healthy as positive.",
        _table(
            "operating_points",
            "Calls",
            "Rates over the images of all folds [95 % bootstrap interval by patients], at a "
            "threshold of one half and at that which each fold chose; counts stand in "
            "operating_points.csv.",
            diagnosis.operating_points(methods),
            diagnosis.points_shown,
        )
        + _table(
            "confusion",
            "Confusion",
            "Images of all folds; rows are true, columns called.",
            diagnosis.confusions(methods),
        )
        + _table(
            "thresholds",
            "Thresholds",
            "Above it an image is called the class. It has the largest balanced accuracy "
            "on the images that it was chosen on, with the selected checkpoint; of equals "
            "it is the nearest to one half, and where they are of one class it is one half, "
            "chosen on nothing.",
            diagnosis.thresholds(methods),
            diagnosis.thresholds_shown,
        )
        + _table(
            "classification",
            "Without a threshold",
            "Areas under ROC [95 % bootstrap interval by patients] and under precision and "
            "recall, folds pooled; ECE over ten bins of equal width.",
            diagnosis.curves_of(methods),
            diagnosis.curves_shown,
        )
        + _table(
            "auc_comparisons",
            "Paired areas",
            "Areas under ROC on the images that both have called, folds pooled, and second "
            "minus first [95 % bootstrap interval by patients, both on the same draws].",
            diagnosis.auc_comparisons(methods),
            diagnosis.auc_comparisons_shown,
        ),
        _of(drawn, "classification"),
        activations_of(methods),
    )


def _sweep(methods: Sequence[Method]) -> Section:
    swept = sweep.by_weight(methods)
    return Section(
        "sweep",
        "Weight of the mask",
        "One network trained at several weights of its two tasks, which add up to one.",
        _table(
            "sweep",
            "By weight",
            "Dice over slices and AUC of the second class over the images of all folds [95 % "
            "bootstrap interval by patients]. At 1 and at 0 there is one task.",
            swept,
            sweep.sweep_shown,
        ),
        list(weight_curves(swept)),
    )


def _training(drawn: Drawn) -> Section:
    return Section(
        "training",
        "Training",
        "What the networks learned, by epoch.",
        (),
        _of(drawn, "training"),
    )


def _papers(methods: Sequence[Method]) -> Section:
    return Section(
        "papers",
        "Beside the papers",
        "Every published value that these runs answer. Where the data are other than the "
        "paper's the two are not comparable, whatever their size.",
        _table(
            "papers",
            "Published values and ours",
            "Ours with the 95 % interval by patients. MSD of MTN is in voxels in all likelihood, "
            "and so is ours; an AUC is the mean of n folds, as FPM's. Commands are in papers.csv.",
            fidelity.fidelity(methods),
            layout.fidelity_shown,
        ),
    )


def _of(drawn: Drawn, *prefixes: str) -> Drawn:
    return [picture for picture in drawn if picture.name.startswith(prefixes)]


def _table(
    name: str,
    title: str,
    caption: str,
    full: pd.DataFrame,
    shown: Callable[[pd.DataFrame], pd.DataFrame] = layout.numbers_shown,
) -> list[Table]:
    return [Table(name, title, caption, full, shown(full))] if len(full) else []
