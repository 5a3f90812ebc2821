"""`report`: tables, figures and one page from any number of runs."""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from shutil import copyfile
from typing import Any, NamedTuple

import pandas as pd

import cardiac_mtl
from cardiac_mtl.catalogue import read_yaml
from cardiac_mtl.console import say
from cardiac_mtl.contracts import OPTIMISTIC
from cardiac_mtl.errors import UserError
from cardiac_mtl.evaluation.calls import CALL_COLUMNS
from cardiac_mtl.evaluation.rows import CASE_COLUMNS, SLICE_COLUMNS, write_csv
from cardiac_mtl.options import OptionParser
from cardiac_mtl.report.caveats import caveats
from cardiac_mtl.report.methods import Method, Run, scored_cases
from cardiac_mtl.report.page import Page, write_page
from cardiac_mtl.report.pictures.canvas import save
from cardiac_mtl.report.sections import sections_of
from cardiac_mtl.report.tables import layout
from cardiac_mtl.runs import CONFIG, IDENTITY, METRICS, now, read_identity, unfinished
from data_modules.cases import name_of_cine

_FOLDERS = ("tables", "figures")
_ONE_METHOD = ("experiment", "data", "seed")
_NO_SETTINGS = {"root", "fold", "splits", "cache_dir", "num_workers", "resident"}
"""Arguments of the data that tell where they are, or what does not change a number."""
_ON_TEST = " (selected on TEST)"
"""Of names: most tables and figures have no other place to say so (P9)."""
_SCORED_AGAIN = ", masks by evaluate"
"""Of names: masks that are called as an experiment is whose runs stand beside them."""
_STRATA = ("pathology", "vendor", "centre")
_FIX = "score the run again with this version"
_TEXT = (
    "case_id", "patient_id", "phase", "cardiac_phase", "region", "pathology", "centre", "vendor",
    "flags", "ed_phase", "es_phase", "reference_ed_phase", "reference_es_phase", "class",
    "class_name", "label", "case",
)  # fmt: skip
"""Columns that stay text, though they may hold nothing but digits or nothing at all."""


class _Key(NamedTuple):
    """What runs of one method have in common."""

    experiment: str
    data: str
    seed: str
    variant: str


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
    columns = list(dict.fromkeys(name for name in options.by.split(",") if name))
    if columns:
        columns = _join(methods, options.table, columns)
    before = _written(options.output)
    write_report(options.output, methods, options.title, [*_STRATA, *columns])
    for warning in caveats(methods):
        say(f"note: {warning}")
    if stale := sorted(path.name for path, _ in before & _written(options.output)):
        say(f"note: of an earlier report, not of this one: {', '.join(stale)}")
    say(str(options.output / "index.html"))
    return 0


def read_methods(paths: Sequence[Path]) -> list[Method]:
    """Read the rows of runs, and pool those of one experiment on one data set.

    Args:
        paths: run directories, or folders that hold some at any depth.

    Returns:
        Methods in the order in which they were given; several seeds are methods of their own, and
        so are runs whose model, data or epochs were set otherwise.

    Raises:
        UserError: a folder holds no rows, rows are damaged, or two runs of a method have scored
            the same case.
    """
    folders = dict.fromkeys(folder for path in paths for folder in _scored(path))
    runs = [read_run(folder) for folder in folders]
    variants = variants_of(runs)
    by_method: dict[_Key, list[Run]] = defaultdict(list)
    for one, variant in zip(runs, variants, strict=True):
        experiment, data, seed = (str(one.identity.get(name, "")) for name in _ONE_METHOD)
        by_method[_Key(experiment, data, seed, variant)].append(one)
    names = _names(list(by_method))
    methods = []
    for key, of_method in by_method.items():
        _refuse_shared_cases(names[key], of_method)
        ordered = sorted(of_method, key=lambda run: str(run.identity.get("fold", "")))
        family = names[key].removesuffix(_seed(key))
        seed = names[key].removeprefix(family)
        if any(one.identity.get("protocol") == OPTIMISTIC for one in of_method):
            family += _ON_TEST
        methods.append(Method(family + seed, ordered, key.data, key.variant, family))
    return methods


def variants_of(runs: Sequence[Run]) -> list[str]:
    """Tell runs of one experiment on one data set apart by their settings.

    Returns:
        Of each run, the settings whose values differ among those runs, such as
        `weighting.mask 0.3`; empty where none does. A setting that one of them lacks does not
        count: a later version added it. Masks of another tool have no settings at all, and do not
        hide how the runs beside them differ.
    """
    alike: dict[tuple[str, str], list[Run]] = defaultdict(list)
    for run in runs:
        if run.settings:
            alike[_kin(run)].append(run)
    differing = {
        kin: [
            name
            for name, value in group[0].settings.items()
            if all(name in run.settings for run in group)
            and any(run.settings[name] != value for run in group)
        ]
        for kin, group in alike.items()
    }
    return [
        ", ".join(f"{name} {run.settings[name]}" for name in differing[_kin(run)])
        if run.settings
        else ""
        for run in runs
    ]


def _kin(run: Run) -> tuple[str, str]:
    return str(run.identity.get("experiment", "")), str(run.identity.get("data", ""))


def read_run(folder: Path) -> Run:
    """Read the rows of one run."""
    frames = {}
    for name, wanted in (("slices", SLICE_COLUMNS), ("cases", CASE_COLUMNS), ("patients", ())):
        frames[name] = _read(folder / f"{name}.csv", wanted)
    for name, column in (("labels", "class"), ("indices", "patient_id"), ("pixels", "patient_id")):
        path = folder / f"{name}.csv"
        frames[name] = _read(path, ()) if path.is_file() else pd.DataFrame({column: []})
    if frames["cases"].empty and frames["labels"].empty:  # a classifier needs no masks
        raise UserError(
            "nothing was scored", where=str(folder / "cases.csv"), fix="leave this run out"
        )
    if len(frames["labels"]):
        _refuse_without(CALL_COLUMNS, frames["labels"], folder / "labels.csv")
    metrics = folder / METRICS
    return Run(
        folder=folder,
        identity=read_identity(folder),
        metrics=_read(metrics, ()) if metrics.is_file() else pd.DataFrame(),
        settings=_settings(folder / CONFIG),
        unfinished=unfinished(folder) or "",
        folds=_folds(folder / "splits.json"),
        unpredicted=_unpredicted(folder / "findings.csv"),
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
    for folder in _FOLDERS:  # if they cannot be, before the long part
        (output / folder).mkdir(parents=True, exist_ok=True)
    sections = sections_of(methods, columns)
    images = {}
    for section in sections:
        for table in section.tables:
            write_csv(output / "tables" / f"{table.name}.csv", table.full)
            for suffix, lay_out in (("md", layout.to_markdown), ("tex", layout.to_latex)):
                path = output / "tables" / f"{table.name}.{suffix}"
                path.write_text(lay_out(table), encoding="utf-8")
        for picture in section.pictures:
            images[picture.name] = save(picture, output / "figures")
        for photo in section.photos:
            copyfile(photo.file, output / "figures" / f"{photo.name}{photo.file.suffix}")
    page = Page(
        title=title,
        generated=now()[:10],
        version=cardiac_mtl.__version__,
        warnings=caveats(methods),
        sections=sections,
        methods=methods,
    )
    write_page(output / "index.html", page, images)


def _written(output: Path) -> set[tuple[Path, int]]:
    """Return the tables and figures of a report, and when each was written."""
    files = [path for folder in _FOLDERS for path in (output / folder).glob("*")]
    return {(path, path.stat().st_mtime_ns) for path in files}


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
    try:
        # a pathology may well be `None`, and a patient `NA`: nothing but nothing is missing
        frame = pd.read_csv(
            path, dtype=dict.fromkeys(_TEXT, str), keep_default_na=False, na_values=[""]
        )
    except (OSError, ValueError) as error:
        raise UserError(
            f"unreadable ({type(error).__name__})", where=str(path), fix=_FIX
        ) from error
    _refuse_without(wanted, frame, path)
    return frame.assign(
        **{name: frame[name].fillna("").astype(str) for name in _TEXT if name in frame}
    )


def _refuse_without(wanted: Sequence[str], frame: pd.DataFrame, path: Path) -> None:
    if missing := [name for name in wanted if name not in frame]:
        raise UserError(f"lacks the column {missing[0]}", where=str(path), fix=_FIX)


def _settings(path: Path) -> dict[str, Any]:
    """Return what `fit` was told of model, data and epochs, by name with dots; else nothing."""
    if not path.is_file():
        return {}
    config = read_yaml(path)
    model, data = ((config.get(k) or {}).get("init_args") or {} for k in ("model", "data"))
    of_data = {name: value for name, value in data.items() if name not in _NO_SETTINGS}
    epochs = {"max_epochs": (config.get("trainer") or {}).get("max_epochs")}
    return dict(_flat(model)) | dict(_flat({"data": of_data, "trainer": epochs}))


def _folds(path: Path) -> int:
    """Return into how many folds the patients were dealt; 0 where the run has no such file."""
    if not path.is_file():
        return 0
    try:
        return len(json.loads(path.read_text(encoding="utf-8"))["folds"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"unreadable ({type(error).__name__})", where=str(path), fix="leave this run out"
        ) from error


def _unpredicted(path: Path) -> frozenset[str]:
    """Return the cases that `evaluate` found no mask of."""
    if not path.is_file() or path.stat().st_size < len("code"):  # none has no heading either
        return frozenset()
    findings = _read(path, ("code", "case"))
    return frozenset(findings.loc[findings["code"] == "no_prediction", "case"])


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, prefix if name == "init_args" else f"{prefix}{name}.")
        elif name == "class_path" and prefix:  # where another run has `null`, that is its value
            yield prefix.removesuffix("."), value
        else:
            yield f"{prefix}{name}", value


def _names(keys: Sequence[_Key]) -> dict[_Key, str]:
    """Name methods by experiment and variant; by data and seed where those tell them apart."""
    names = {}
    for key in keys:
        alike = [other for other in keys if other[0] == key[0]]
        name = f"{key.experiment}, {key.variant}" if key.variant else key.experiment
        if len({other.data for other in alike}) > 1:
            name += f" on {key.data}"
        beside = {other.seed for other in alike if other.data == key.data}
        if len(beside - {""}) > 1:
            name += _seed(key)
        if not key.seed and beside != {""}:  # of `predict`, say: they are no further seed
            name += _SCORED_AGAIN
        names[key] = name
    return names


def _seed(key: _Key) -> str:
    return f", seed {key.seed}" if key.seed else ""


def _refuse_shared_cases(name: str, runs: Sequence[Run]) -> None:
    seen: dict[str, Path] = {}
    for one in runs:
        for case_id in sorted(scored_cases(one)):
            if case_id in seen:
                raise UserError(
                    f"{name}: case {case_id} was scored by two runs, the other is {seen[case_id]}",
                    where=str(one.folder),
                    fix="give one run of each fold",
                )
            seen[case_id] = one.folder


def _join(methods: Sequence[Method], table: Path | None, columns: Sequence[str]) -> list[str]:
    """Bring columns of the data set's own table to the rows; they are written nowhere else.

    Returns:
        What the columns are called in the rows. The class of a patient is `label` in a case table,
        and the structure is in the rows: none of these is written over.
    """
    if table is None:
        raise UserError("which table?", where="--by", fix="give --table DATA/cases.csv")
    try:
        found = pd.read_csv(table, dtype=str, keep_default_na=False)
    except ValueError as error:
        raise UserError(
            f"unreadable ({type(error).__name__})", where=str(table), fix="give DATA/cases.csv"
        ) from error
    if missing := [name for name in (*columns, "case_id") if name not in found]:
        raise UserError(
            f"no column {missing[0]!r}",
            where=str(table),
            fix=f"choose from {', '.join(map(str, found))}",
        )
    there = {case for method in methods for case in scored_cases(method)}
    if not {*found["case_id"]} & {*there, *map(name_of_cine, there)}:
        raise UserError(
            "holds none of the cases of the runs",
            where=str(table),
            fix="give the cases.csv of their data set, with names as they are in the rows",
        )
    names = [f"{name} of the table" if name in CASE_COLUMNS else name for name in columns]
    for column, name in zip(columns, names, strict=True):
        values = dict(zip(found["case_id"], found[column], strict=True))
        for method in methods:
            # the phases of a cine are rows of ours, but one row of the table
            cases = method.cases["case_id"]
            whole = cases.map(name_of_cine)
            method.cases[name] = cases.map(values).fillna(whole.map(values)).fillna("")
    return names
