"""`evaluate`: score masks from anywhere into the rows that `test` writes."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import SimpleITK as sitk
from numpy.typing import NDArray

from cardiac_mtl.console import quiet_libraries, say
from cardiac_mtl.contracts import EXTERNAL
from cardiac_mtl.errors import UserError
from cardiac_mtl.evaluation.collect import CollectedCase
from cardiac_mtl.evaluation.function import MYOCARDIUM, without_function
from cardiac_mtl.evaluation.indices import index_rows
from cardiac_mtl.evaluation.pixels import pixel_rows
from cardiac_mtl.evaluation.rows import CaseRows, assemble, score_case, write_csv
from cardiac_mtl.evaluation.states import TOLERANCE_MM
from cardiac_mtl.options import OptionParser, distance
from cardiac_mtl.report.pictures.gallery import FOLDER, to_keep, write_gallery
from cardiac_mtl.report.tables.summary import summary, to_markdown, to_text
from cardiac_mtl.runs import IDENTITY, provenance, read_identity, write_identity
from data_modules.cases import Case, case_table, check_cases, name_of_cine
from data_modules.findings import Finding, noticed, of_error
from data_modules.geometry import apex_first
from data_modules.inputs import find_masks
from data_modules.masks import read_mask
from data_modules.parallel import parallel_map
from data_modules.readers import is_nifti, read_volume, stem_of

_NO_ROWS = CaseRows([], [], [], [])


class _Scored(NamedTuple):
    rows: CaseRows
    indices: pd.DataFrame
    pixels: pd.DataFrame
    findings: list[Finding]


@dataclass(frozen=True)
class _Settings:
    labels: dict[str, int]
    """Value of each class in the files."""
    tolerance_mm: float
    indices: str
    """Label whose indices are measured; empty for none."""

    @property
    def classes(self) -> dict[str, int]:
        """Value of each class once it is read: 1, 2, ... by rising value in the files.

        In that order too: of masks that are kept as pictures the rows say which class is which.
        """
        return {n: k for k, n in enumerate(sorted(self.labels, key=self.labels.__getitem__), 1)}


def run(arguments: Sequence[str]) -> int:
    """Score every prediction that has a reference; status 1 when anything did not fit."""
    quiet_libraries()
    options = _parser().parse_args(arguments[1:])
    options.command = arguments
    settings = _Settings(read_labels(options.labels), options.tolerance, options.indices)
    if options.indices and options.indices not in settings.labels:
        raise UserError(
            f"no label {options.indices!r}", where="--indices", fix=f"have {options.labels}"
        )
    cases = _references(options.reference)
    if not options.prediction.is_dir():
        raise UserError(
            "no such folder", where=f"--prediction {options.prediction}", fix="correct the path"
        )
    _refuse_overwriting(options.output)
    paired, findings = pair(cases, options.prediction)
    if not paired:
        raise UserError(
            f"no mask of the {len(cases)} references in it, such as {cases[0].case_id}.nii.gz",
            where=f"--prediction {options.prediction}",
            fix="name the files <case_id>.nii.gz or <case_id>_mask.nii.gz",
            code="no_prediction",
        )
    options.output.mkdir(parents=True, exist_ok=True)  # if it cannot be, before the long part
    scored = list(parallel_map(partial(_score, settings=settings), paired, label="scoring"))
    findings += [finding for one in scored for finding in one.findings]
    told = {(finding.case, finding.code) for finding in findings}
    others = _other_phases(cases, scored)
    measured = list(parallel_map(partial(_measure, settings=settings), others, label="measuring"))
    findings += [f for one in measured for f in one.findings if (f.case, f.code) not in told]
    scored += measured
    _write(options, scored, paired, settings, findings)
    for finding in findings:
        say(str(finding))
    say(f"{len(paired)} of {len(cases)} cases have a prediction, {len(findings)} findings")
    say(str(options.output / "cases.csv"))
    return 1 if findings else 0


def _parser() -> OptionParser:
    parser = OptionParser(
        prog="cardiac-mtl evaluate",
        description="Score masks of any tool against references, into the rows that `test` writes.",
    )
    parser.add_argument(
        "--reference",
        type=Path,
        required=True,
        help="a cases.csv with masks, or a folder of masks <case_id>[_mask].nii.gz",
    )
    parser.add_argument(
        "--prediction", type=Path, required=True, help="folder of <case_id>[_mask].nii.gz"
    )
    parser.add_argument(
        "--labels", default="myocardium=1", help="name=value, by comma [myocardium=1]"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for the rows")
    parser.add_argument("--name", default="", help="of the method, in reports [folder's name]")
    parser.add_argument(
        "--tolerance", type=distance, default=TOLERANCE_MM, help="of the surface Dice, mm [2]"
    )
    parser.add_argument(
        "--indices", default="", help="label whose seven infarct indices are measured by slice"
    )
    return parser


def _refuse_overwriting(output: Path) -> None:
    """Refuse the folder of a data set or of a trained run, whose tables have the names of ours."""
    there = [name for name in ("cases.csv", IDENTITY) if (output / name).is_file()]
    if there and not ((output / IDENTITY).is_file() and _is_ours(output)):
        raise UserError(
            f"holds a {there[0]} that `evaluate` did not write",
            where=f"--output {output}",
            fix="give another folder",
        )


def _is_ours(output: Path) -> bool:
    return read_identity(output).get("protocol") == EXTERNAL


def read_labels(text: str) -> dict[str, int]:
    """Read `lv=1,myo=2`.

    Raises:
        UserError: a name or a value is missing, doubled, or the value is not above 0.
    """
    found: dict[str, int] = {}
    for part in text.split(","):
        name, _, value = (word.strip() for word in part.partition("="))
        if not name or not value.isdigit() or not 0 < int(value) < 1 << 15 or name in found:
            raise UserError(f"{part!r}", where="--labels", fix="give name=value, as lv=1,myo=2")
        found[name] = int(value)
    if len(set(found.values())) < len(found):
        raise UserError("two names of one value", where="--labels", fix="give each its own")
    return found


def pair(cases: Sequence[Case], folder: Path) -> tuple[list[tuple[Case, Path]], list[Finding]]:
    """Find the prediction of each case.

    Args:
        cases: the references.
        folder: of the predictions.

    Returns:
        Case and file, and a finding for each case without file and each file without case.
    """
    files: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(path for path in folder.iterdir() if is_nifti(path)):
        files[stem_of(path)].append(path)
    left = {path for named in files.values() for path in named}
    paired: list[tuple[Case, Path]] = []
    findings: list[Finding] = []
    for case in cases:
        found = _candidates(case, files)
        left -= set(found)
        if len(found) == 1:
            paired.append((case, found[0]))
        elif found:
            text = f"has {' and '.join(p.name for p in found)}; keep one"
            findings.append(Finding("error", "two_predictions", case.case_id, str(folder), text))
        else:
            text = f"no prediction {case.case_id}.nii.gz; it enters no mean, add it"
            findings.append(Finding("error", "no_prediction", case.case_id, str(folder), text))
    text = "belongs to no case of the reference; rename or remove it"
    findings += [Finding("error", "extra_prediction", "", str(path), text) for path in sorted(left)]
    return paired, findings


def _candidates(case: Case, files: Mapping[str, list[Path]]) -> list[Path]:
    """Return the files of a case, all given by stem: of its phase, else of the whole cine of it."""
    names = [case.case_id]
    if case.frame is not None:
        names.append(name_of_cine(case.case_id))
    for name in names:
        if found := [*files.get(name, ()), *files.get(f"{name}_mask", ())]:
            return found
    return []


def _references(path: Path) -> list[Case]:
    cases = find_masks(path)
    check_cases(cases, path)
    without = [case.case_id for case in cases if not case.mask]
    if len(without) == len(cases):
        raise UserError("no case has a mask", where=f"--reference {path}", fix="add column `mask`")
    return [case for case in cases if case.mask]


def _score(item: tuple[Case, Path], settings: _Settings) -> _Scored:
    """Score one case in a process of its own; what does not fit is a finding, not an end."""
    case, file = item
    labels = settings.classes
    with noticed() as odd:
        try:
            collected = _collect(case, file, settings.labels, with_image=False)
        except UserError as error:
            finding = of_error(error, case.case_id)
            if error.code == "undeclared_label":  # here the user declares them
                finding = replace(finding, message=f"{finding.message}, or name all in --labels")
            return _Scored(_NO_ROWS, pd.DataFrame(), pd.DataFrame(), [finding])
    warnings = [
        replace(finding, case=case.case_id) for finding in odd if finding.severity != "note"
    ]
    (row,) = case_table([case]).to_dict("records")
    info = {str(key): value for key, value in row.items()}
    indices = pixels = pd.DataFrame()
    if settings.indices:
        muscle = next((labels[name] for name in MYOCARDIUM if name in labels), None)
        what = (settings.indices, labels[settings.indices], muscle)
        who = (collected, case.case_id, case.patient_id)
        indices, pixels = index_rows(*who, *what), pixel_rows(*who, *what)
    rows = score_case(collected, info, labels, tolerance_mm=settings.tolerance_mm)
    return _Scored(rows, indices, pixels, warnings)


def _other_phases(cases: Sequence[Case], scored: Sequence[_Scored]) -> list[Case]:
    """Return the phases without score of patients of whom others have one: one may be ED or ES."""
    known = {(row["patient_id"], row["phase"]) for one in scored for row in one.rows.chambers}
    patients = {patient for patient, _ in known}
    by_phase = {(case.patient_id, case.phase): case for case in reversed(cases) if case.phase}
    return [c for who, c in by_phase.items() if who not in known and c.patient_id in patients]


def _measure(case: Case, settings: _Settings) -> _Scored:
    """Measure the chambers of a reference without prediction, which enters nothing else."""
    nothing = _Scored(_NO_ROWS, pd.DataFrame(), pd.DataFrame(), [])
    try:
        with noticed():
            collected = _collect(case, None, settings.labels, with_image=False)
    except UserError as error:
        return nothing._replace(findings=[of_error(error, case.case_id)])
    (row,) = case_table([case]).to_dict("records")
    info = {str(key): value for key, value in row.items()}
    rows = score_case(collected, info, settings.classes)
    return nothing._replace(rows=_NO_ROWS._replace(chambers=rows.chambers))


def _collect(
    case: Case, file: Path | None, labels: Mapping[str, int], *, with_image: bool
) -> CollectedCase:
    """Read reference and prediction on the grid of the reference, slices base to apex."""
    # nothing is resampled: a grid of its own is a finding of the prediction
    like = read_volume([path for path in case.mask if path is not None], case.frame)
    reference = read_mask(case.mask, like, labels, case.frame)
    predicted = None
    if file is not None:
        frame = case.frame if _is_cine(file, case) else None
        predicted = _classes_of(read_mask((file,), like, labels, frame), labels)
    shown = read_volume(case.image, case.frame) if with_image and case.image else like
    order = slice(None, None, -1 if apex_first(like) else 1)
    voxels = sitk.GetArrayFromImage(shown).astype(np.float32)[order]
    columns, rows, slices = like.GetSpacing()[0], like.GetSpacing()[1], like.GetSpacing()[2]
    return CollectedCase(
        row=0,
        slices=np.arange(len(voxels)),
        image=voxels,
        reference=_classes_of(reference, labels).astype(np.int8)[order],
        predicted=None if predicted is None else predicted.astype(np.uint8)[order],
        spacing=(slices, rows, columns),
        indices=None,
        reference_indices=np.full((len(voxels), 0), np.nan, dtype=np.float32),
    )


def _classes_of(mask: sitk.Image, labels: Mapping[str, int]) -> NDArray[np.integer[Any]]:
    """Return (S, H, W) with the values of `_Settings.classes`: those of a file may exceed a byte.

    The background stays 0 and a slice without annotation `UNLABELLED`, as they lie below all.
    """
    voxels = sitk.GetArrayFromImage(mask)
    return np.where(voxels > 0, 1 + np.searchsorted(sorted(labels.values()), voxels), voxels)


def _is_cine(file: Path, case: Case) -> bool:
    """Say whether a file predicts the whole cine of which the case is one phase."""
    if case.frame is None:
        return False
    return stem_of(file).removesuffix("_mask") != case.case_id


def _write(
    options: Any,  # noqa: ANN401 - argparse.Namespace knows no types
    scored: Sequence[_Scored],
    paired: Sequence[tuple[Case, Path]],
    settings: _Settings,
    findings: Sequence[Finding],
) -> None:
    output: Path = options.output
    frames = assemble((one.rows for one in scored), EXTERNAL)
    table = summary(frames.cases, frames.slices)
    _clear(output)
    for name, frame in (*frames._asdict().items(), ("table", table)):
        if name != "cases":
            write_csv(output / f"{name}.csv", frame)
    if settings.indices:
        write_csv(output / "indices.csv", pd.concat([one.indices for one in scored]))
        write_csv(output / "pixels.csv", pd.concat([one.pixels for one in scored]))
    # folders are often named after patients; a file that belongs to a case is known by that
    told = [vars(f) | {"file": "" if f.case else Path(f.file).name} for f in findings]
    write_csv(output / "findings.csv", pd.DataFrame(told))
    (output / "table.md").write_text(to_markdown(table), encoding="utf-8")
    if len(frames.cases):
        wanted = set(to_keep(frames.cases))
        volumes = (
            (case.case_id, _collect(case, file, settings.labels, with_image=True))
            for case, file in paired
            if case.case_id in wanted
        )
        write_gallery(output / FOLDER, frames.cases, volumes)
    identity = {
        "run_id": output.resolve().name,
        "experiment": options.name or options.prediction.resolve().name,
        "data": options.reference.resolve().parent.name
        if options.reference.suffix == ".csv"
        else options.reference.resolve().name,
        "protocol": EXTERNAL,
        "selected_on": "not known",
        "labels": settings.labels,
        "findings": dict(Counter(finding.code for finding in findings)),
        "not_scored": dict(Counter(f.code for f in findings if f.severity == "error" and f.case)),
        **provenance(options.command),
    }
    write_identity(output, identity)
    write_csv(output / "cases.csv", frames.cases)  # last: without it `report` reads nothing here
    say(to_text(table))
    if left_out := without_function(frames.cases):
        say(f"patients.csv: {left_out}")


def _clear(output: Path) -> None:
    """Take away what an earlier evaluation left: rows of other masks, and those of no option now.

    The identity stays until it is written anew: it says that the folder is ours.
    """
    for name in ("cases", "indices", "pixels"):
        (output / f"{name}.csv").unlink(missing_ok=True)
