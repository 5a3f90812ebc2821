"""`report`: tables, figures and one page from any number of runs."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

import cardiac_mtl
from cardiac_mtl.console import say
from cardiac_mtl.errors import UserError
from cardiac_mtl.evaluation.rows import CASE_COLUMNS, SLICE_COLUMNS, write_csv
from cardiac_mtl.options import OptionParser
from cardiac_mtl.report import analysis, fidelity, infarcts, layout, quantities
from cardiac_mtl.report.layout import Table
from cardiac_mtl.report.methods import Method, Run
from cardiac_mtl.report.page import Page, Section, write_page
from cardiac_mtl.report.plots import Picture, pictures, save
from cardiac_mtl.report.sequences import side_by_side
from cardiac_mtl.runs import IDENTITY, METRICS, now, read_identity

_STRATA = ("pathology", "vendor", "centre")
_TEXT = (
    "case_id", "patient_id", "phase", "cardiac_phase", "region", "pathology", "centre", "vendor",
    "flags", "ed_phase", "es_phase", "reference_ed_phase", "reference_es_phase", "class",
)  # fmt: skip
"""Columns that stay text, though they may hold nothing but digits or nothing at all."""


def run(arguments: Sequence[str]) -> int:
    """Report on runs: those of one experiment are pooled out of fold, several are compared."""
    parser = OptionParser(
        prog="cardiac-mtl report",
        description="Tables (CSV, Markdown, LaTeX), figures (SVG, PNG) and one offline page.",
    )
    parser.add_argument(
        "runs",
        type=Path,
        nargs="+",
        help="run directories with rows (`test`, `evaluate`), or folders that hold some",
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for the report")
    parser.add_argument("--title", default="Cardiac MR: results", help="of the page")
    parser.add_argument(
        "--by", default="", help="further columns of --table to stratify by, with commas"
    )
    parser.add_argument("--table", type=Path, help="cases.csv of the data set, for --by")
    options = parser.parse_args(arguments[1:])
    methods = read_methods(options.runs)
    columns = [name for name in options.by.split(",") if name]
    if columns:
        _join(methods, options.table, columns)
    write_report(options.output, methods, options.title, [*_STRATA, *columns])
    for warning in analysis.warnings(methods):
        say(f"note: {warning}")
    say(str(options.output / "index.html"))
    return 0


def read_methods(paths: Sequence[Path]) -> list[Method]:
    """Read the rows of runs, and pool those of one experiment on one data set.

    Args:
        paths: run directories, or folders that hold some at any depth.

    Returns:
        Methods in the order in which they were given; several seeds are methods of their own.

    Raises:
        UserError: a folder holds no rows, rows are damaged, or two runs of a method have scored
            the same case.
    """
    folders = dict.fromkeys(folder for path in paths for folder in _scored(path))
    by_method: dict[tuple[str, str, str], list[Run]] = defaultdict(list)
    for folder in folders:
        one = read_run(folder)
        key = tuple(str(one.identity.get(name, "")) for name in ("experiment", "data", "seed"))
        by_method[key[0], key[1], key[2]].append(one)
    names = _names(list(by_method))
    methods = []
    for key, runs in by_method.items():
        _refuse_shared_cases(names[key], runs)
        ordered = sorted(runs, key=lambda run: str(run.identity.get("fold", "")))
        methods.append(Method(names[key], ordered, data=key[1]))
    return methods


def read_run(folder: Path) -> Run:
    """Read the rows of one run."""
    frames = {}
    for name, wanted in (("slices", SLICE_COLUMNS), ("cases", CASE_COLUMNS), ("patients", ())):
        frames[name] = _read(folder / f"{name}.csv", wanted)
    labels, indices = folder / "labels.csv", folder / "indices.csv"
    metrics = folder / METRICS
    return Run(
        folder=folder,
        identity=read_identity(folder),
        labels=_read(labels, ()) if labels.is_file() else pd.DataFrame({"class": []}),
        indices=_read(indices, ()) if indices.is_file() else pd.DataFrame({"patient_id": []}),
        metrics=pd.read_csv(metrics) if metrics.is_file() else pd.DataFrame(),
        **frames,
    )


def write_report(
    output: Path, methods: Sequence[Method], title: str, columns: Sequence[str]
) -> None:
    """Write tables, figures and page.

    Args:
        output: made where it is absent.
        methods: at least one.
        title: of the page.
        columns: of the rows to stratify by.
    """
    sections = _sections(methods, columns)
    for folder in ("tables", "figures"):
        (output / folder).mkdir(parents=True, exist_ok=True)
    images = {}
    for section in sections:
        for table in section.tables:
            write_csv(output / "tables" / f"{table.name}.csv", table.full)
            for suffix, lay_out in (("md", layout.to_markdown), ("tex", layout.to_latex)):
                path = output / "tables" / f"{table.name}.{suffix}"
                path.write_text(lay_out(table), encoding="utf-8")
        for picture in section.pictures:
            images[picture.name] = save(picture, output / "figures")
    page = Page(
        title=title,
        generated=now()[:10],
        version=cardiac_mtl.__version__,
        warnings=analysis.warnings(methods),
        sections=sections,
        methods=methods,
    )
    write_page(output / "index.html", page, images)


def _scored(path: Path) -> list[Path]:
    """Return the folders with rows at or below a path, oldest run first."""
    if not path.is_dir():
        raise UserError("no such folder", where=str(path), fix="give a run directory")
    found = [f.parent for f in path.rglob(IDENTITY) if (f.parent / "cases.csv").is_file()]
    if not found:
        raise UserError(
            "no run with rows here", where=str(path), fix="run `cardiac-mtl test --run` on it first"
        )
    return sorted(found)


def _read(path: Path, wanted: Sequence[str]) -> pd.DataFrame:
    fix = "score the run again with this version"
    try:
        frame = pd.read_csv(path, dtype=dict.fromkeys(_TEXT, str))
    except (OSError, ValueError) as error:
        raise UserError(f"unreadable ({type(error).__name__})", where=str(path), fix=fix) from error
    if missing := [name for name in wanted if name not in frame]:
        raise UserError(f"lacks the column {missing[0]}", where=str(path), fix=fix)
    return frame.assign(
        **{name: frame[name].fillna("").astype(str) for name in _TEXT if name in frame}
    )


def _names(keys: Sequence[tuple[str, str, str]]) -> dict[tuple[str, str, str], str]:
    """Name methods by experiment; by data and seed as well where those tell them apart."""
    names = {}
    for key in keys:
        alike = [other for other in keys if other[0] == key[0]]
        name = key[0]
        if len({other[1] for other in alike}) > 1:
            name += f" on {key[1]}"
        if len({other[2] for other in alike if other[1] == key[1]}) > 1:
            name += f", seed {key[2]}"
        names[key] = name
    return names


def _refuse_shared_cases(name: str, runs: Sequence[Run]) -> None:
    seen: dict[str, Path] = {}
    for one in runs:
        for case_id in one.cases["case_id"].unique():
            if case_id in seen:
                raise UserError(
                    f"{name}: case {case_id} was scored by two runs, the other is {seen[case_id]}",
                    where=str(one.folder),
                    fix="give one run of each fold",
                )
            seen[case_id] = one.folder


def _join(methods: Sequence[Method], table: Path | None, columns: Sequence[str]) -> None:
    """Bring columns of the data set's own table to the rows; they are written nowhere else."""
    if table is None:
        raise UserError("which table?", where="--by", fix="give --table DATA/cases.csv")
    found = pd.read_csv(table, dtype=str, keep_default_na=False)
    if missing := [name for name in (*columns, "case_id") if name not in found]:
        raise UserError(
            f"no column {missing[0]!r}",
            where=str(table),
            fix=f"choose from {', '.join(map(str, found))}",
        )
    for column in columns:
        values = dict(zip(found["case_id"], found[column], strict=True))
        for method in methods:
            # the phases of a cine are rows of ours, but one row of the table
            cases = method.cases["case_id"]
            whole = cases.str.replace(r"_ph\d+$", "", regex=True)
            method.cases[column] = cases.map(values).fillna(whole.map(values)).fillna("")


def _sections(methods: Sequence[Method], columns: Sequence[str]) -> list[Section]:
    volumes, by_region = analysis.headline(methods), analysis.areas(methods)
    drawn = list(pictures(methods, volumes, by_region))

    def of(*prefixes: str) -> list[Picture]:
        return [picture for picture in drawn if picture.name.startswith(prefixes)]

    def table(
        name: str,
        title: str,
        caption: str,
        full: pd.DataFrame,
        shown: Callable[[pd.DataFrame], pd.DataFrame] = layout.numbers_shown,
    ) -> list[Table]:
        return [Table(name, title, caption, full, shown(full))] if len(full) else []

    sections = [
        Section(
            "protocol",
            "What was run",
            "One row a run; selected_on says on which patients the checkpoint was chosen. A "
            "value chosen on test patients is optimistic, and marked so in every table.",
            table(
                "protocol",
                "Runs",
                "From the run directories; commands stand in protocol.csv.",
                analysis.protocols(methods),
                layout.protocol_shown,
            ),
        ),
        Section(
            "results",
            "Results",
            "Folds of one experiment are pooled out of fold: every patient is scored once, by a "
            "network that has not seen them.",
            table(
                "results",
                "Volumes",
                "Mean ± SD over volumes [95 % bootstrap interval by patients]. A missed or false "
                " structure scores 0 and the diagonal of its image, and is counted; where "
                "both masks are empty nothing is defined, and it is counted. Distances in mm, "
                "surface Dice at the tolerance in the rows.",
                volumes,
                layout.headline_shown,
            ),
            of("boxes", "intervals"),
        ),
        Section(
            "comparison",
            "Comparison",
            "Methods on the cases that both have scored.",
            table(
                "comparisons",
                "Paired tests",
                "Wilcoxon's signed-rank test on the means of patients, corrected by Holm over all "
                "rows; Kolmogorov-Smirnov on volumes as in paper B, which takes the phases of one "
                "patient as independent.",
                analysis.comparisons(methods),
                layout.comparisons_shown,
            ),
        ),
        Section(
            "side_by_side",
            "Side by side",
            "Cases that the galleries of all methods hold.",
            (),
            list(side_by_side(methods)),
        ),
        Section(
            "areas",
            "Areas",
            "Absolute area errors of slices whose reference holds the label, mm².",
            table(
                "areas",
                "By phase and region",
                "Mean ± SD (median, slices). The first two slices that hold the label are basal, "
                "the last two apical.",
                by_region,
                layout.areas_shown,
            ),
            of("area_errors"),
        ),
        Section(
            "function",
            "Quantities and function",
            "Areas, volumes and ventricular function against their references.",
            [
                *table(
                    "agreement",
                    "Agreement",
                    "Bias is predicted minus reference; limits are bias ± 1.96 SD. ICC: two-way "
                    "random, absolute agreement, single measure. Areas of the slices of a patient "
                    "are not independent.",
                    quantities.agreement(methods),
                    layout.agreement_shown,
                ),
                *table(
                    "flags",
                    "Impossible or suspicious function",
                    "Nothing is clipped or left out.",
                    quantities.function_flags(methods),
                    layout.function_shown,
                ),
            ],
            of("scatter", "bland_altman"),
        ),
        Section(
            "infarcts",
            "Infarct indices",
            "Absolute errors of the seven indices by slice, regressed and measured in the "
            "predicted mask; the orientation on the half circle, the centroid by its distance.",
            [
                *table(
                    "infarct_indices",
                    "Errors",
                    "Mean ± SD [95 % bootstrap interval by patients] in mm², % of the myocardium, "
                    "mm and degrees, over the slices in which both have the index.",
                    infarcts.index_errors_of(methods),
                    infarcts.errors_shown,
                ),
                *table(
                    "infarct_comparisons",
                    "Paired tests",
                    "Second minus first on the slices of which both have the index; Wilcoxon's "
                    "test on the means of patients, corrected by Holm over all rows.",
                    infarcts.index_comparisons(methods),
                ),
            ],
        ),
        Section(
            "strata",
            "Strata",
            "The same measures within groups of patients, and of slices.",
            [
                *table(
                    "strata",
                    "Volumes by group",
                    "As in the table of results; small groups have wide intervals.",
                    analysis.strata(methods, columns),
                    layout.strata_shown,
                ),
                *table(
                    "regions",
                    "Slices by region",
                    "In plane, over slices: not the Dice of volumes. Slices whose reference is "
                    "without the label count where something was found in them.",
                    analysis.regions(methods),
                    layout.strata_shown,
                ),
            ],
        ),
        Section(
            "consistency",
            "Mask against regression",
            "Where a method predicts the area twice, the disagreement of both is a quality flag "
            "that needs no reference.",
            [
                *table(
                    "consistency",
                    f"Finding slices with Dice below {analysis.BAD_DICE}",
                    "AUC of |segmented - regressed| over the larger of both; 0.5 is chance.",
                    analysis.consistency(methods),
                ),
                *table(
                    "suspects",
                    "Cases to look at first",
                    "Mean of the same over the slices of a case, 0 to 1, largest first.",
                    analysis.suspects(methods),
                ),
            ],
        ),
        Section(
            "classification",
            "Classification",
            "Each class as the positive one in turn, so that none is hidden behind a majority.",
            table(
                "classification",
                "Classes",
                "Threshold 0.5; ECE over ten bins of equal width.",
                analysis.classification(methods),
            ),
            of("classification"),
        ),
        Section(
            "training",
            "Training",
            "What the networks learned, by epoch.",
            (),
            of("training"),
        ),
        Section(
            "papers",
            "Beside the papers",
            "Every published value that these runs answer. Where the data are other than the "
            "paper's the two are not comparable, whatever their size.",
            table(
                "papers",
                "Published values and ours",
                "Ours with the 95 % interval by patients. MSD of paper B is in voxels in all "
                "likelihood, and so is ours here. Commands stand in papers.csv.",
                fidelity.fidelity(methods),
                layout.fidelity_shown,
            ),
        ),
    ]
    return [section for section in sections if section.tables or section.pictures]
