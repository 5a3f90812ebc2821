"""`predict`: masks in the geometry of the input, classes and indices, for images of any origin."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import groupby
from pathlib import Path

import pandas as pd

from cardiac_mtl.console import quiet_libraries, say
from cardiac_mtl.errors import UserError
from cardiac_mtl.evaluation.rows import Row, write_csv
from cardiac_mtl.options import OptionParser
from cardiac_mtl.predictor import Predictor, mask_name, name_of
from cardiac_mtl.runs import BEST, find_run
from data_modules.cases import Case, name_of_cine
from data_modules.findings import notice, noticed
from data_modules.inputs import find_inputs
from data_modules.readers import named_nifti

ROWS = "predictions.csv"


def run(arguments: Sequence[str]) -> int:
    """Predict every volume of the input with the best checkpoint of a run.

    A volume that cannot be read is named and left out; the status is then 1.
    """
    quiet_libraries()
    parser = OptionParser(
        prog="cardiac-mtl predict",
        description="Write <case>_mask.nii.gz in the input's own geometry, and predictions.csv; "
        "of whole cines <case>_loop.gif too.",
    )
    parser.add_argument("--run", type=Path, required=True, help="run directory that `fit` made")
    parser.add_argument(
        "--input",
        type=Path,
        required=True,
        help="a NIfTI or DICOM file, a folder of them, or a cases.csv",
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for the results")
    parser.add_argument("--checkpoint", type=Path, help="another checkpoint than the best")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    options = parser.parse_args(arguments[1:])
    run_directory = find_run(options.run)
    if run_directory != options.run:
        say(f"network of {run_directory}")
    predictor = Predictor(run_directory, options.checkpoint or run_directory / BEST, options.device)
    data = predictor.data
    faults: list[UserError] = []
    cases = find_inputs(
        options.input,
        whole_cines=data.whole_cines,
        one_phase=data.one_phase,
        takes=data.takes,
        on_error=faults.append,
    )
    volumes = [list(phases) for _, phases in groupby(cases, key=_file_of)]
    _refuse_overwriting(volumes, options.output)
    _refuse_doubled(cases)
    options.output.mkdir(parents=True, exist_ok=True)
    for caveat in predictor.caveats:
        say(caveat)
    rows = _predict_all(predictor, volumes, options.output, faults)
    if not rows:
        with suppress(OSError):  # it held something before
            options.output.rmdir()
        raise faults[0]
    write_csv(options.output / ROWS, pd.DataFrame(rows))
    for fault in faults:
        say(f"left out: {fault}")
    say(f"{len({row['case_id'] for row in rows})} volumes: {options.output / ROWS}")
    return 1 if faults else 0


def _predict_all(
    predictor: "Predictor",
    volumes: Sequence[Sequence[Case]],
    output: Path,
    faults: list[UserError],
) -> list[Row]:
    """Return the rows of all volumes but those that cannot be read, which add to the faults."""
    rows: list[Row] = []
    for phases in volumes:
        try:
            with _said_once(phases):
                found = predictor.predict_file(phases[0].image[0], phases, output)
        except UserError as error:
            faults.append(error)
            if (before := output / mask_name(phases)).is_file():
                say(f"note: {before.name} is of an earlier predict")
            continue
        if not rows:  # stopped from here on, no table of before would lie beside masks of now
            (output / ROWS).unlink(missing_ok=True)
        rows += found
    return rows


@contextmanager
def _said_once(phases: Sequence[Case]) -> Iterator[None]:
    """Say what is noticed of a file once, not in every phase, and by case, as `fit` does."""
    with noticed() as odd:
        yield
    for code, message, severity in dict.fromkeys((f.code, f.message, f.severity) for f in odd):
        notice(code, Path(name_of(phases)), message, severity)


def _file_of(case: Case) -> tuple[object, str]:
    """Return what the phases that go into one mask share: those of one row with a 4-D NIfTI."""
    together = case.frame is not None and named_nifti(case.image[0])
    return case.image, name_of_cine(case.case_id) if together else case.case_id


def _refuse_doubled(cases: Sequence[Case]) -> None:
    """Refuse one name for two volumes: a row that comes twice would be two phases of one file."""
    counts = Counter(case.case_id for case in cases)
    if twice := next((name for name, count in counts.items() if count > 1), None):
        raise UserError(
            f"{counts[twice]} images are called {twice}",
            where="--input",
            fix="give every image a name, or every row a case_id, of its own",
        )


def _refuse_overwriting(volumes: Sequence[Sequence[Case]], output: Path) -> None:
    """Refuse two masks of one name, and files where references may lie."""
    names = [mask_name(phases) for phases in volumes]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise UserError(
            f"{names.count(twice[0])} images have the mask {twice[0]}",
            where="--input",
            fix="give every image a name, or every row a case_id, of its own",
        )
    cases = [case for phases in volumes for case in phases]
    beside = {path.resolve().parent for case in cases for path in case.image}
    known = {path.resolve() for case in cases for path in case.mask if path is not None}
    for target in (output.resolve() / name for name in (*names, ROWS)):
        if target in known or (target.parent in beside and target.exists()):
            raise UserError(
                f"would overwrite {target.name}, which lies beside the images",
                where=f"--output {output}",
                fix="give another folder",
            )
