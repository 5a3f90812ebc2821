"""What a reader must know before any number: dishonest, unpaired, failed, left out."""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from cardiac_mtl.contracts import EXTERNAL, HONEST
from cardiac_mtl.evaluation.function import without_function
from cardiac_mtl.report.methods import Method, families, in_words, scored_cases


def caveats(methods: Sequence[Method]) -> list[str]:
    """Return what limits the numbers of some methods, a sentence each."""
    selection = [
        f"{method.name}: checkpoint {in_words(method.protocol)}"
        + "; nor do we know which patients it was trained on" * (method.protocol == EXTERNAL)
        + "."
        for method in methods
        if method.protocol != HONEST
    ]
    runs = [told for method in methods for told in _of_training(method)]
    cases = [told for method in methods for told in _of_cases(method)]
    together = [*_of_comparison(methods), *_of_references(methods), *_of_dealing(methods)]
    return [*selection, *together, *runs, *cases]


def _of_comparison(methods: Sequence[Method]) -> Iterator[str]:
    """Say where methods were not scored alike, or on no patients."""
    formed = {m.data for m in methods if any(run.identity.get("phantom") for run in m.runs)}
    if formed:
        yield f"The hearts of {', '.join(sorted(formed))} are phantoms: no number is of a patient."
    if len({method.data for method in methods}) > 1:
        names = ", ".join(
            method.name + f" on {method.data}" * (f" on {method.data}" not in method.name)
            for method in methods
        )
        yield f"The methods were tested on different data ({names}): do not compare them."
    used = {
        method.name: sorted(set(method.cases["tolerance_mm"].dropna()))
        for method in methods
        if "tolerance_mm" in method.cases
    }
    if len({value for values in used.values() for value in values}) > 1:
        told = ", ".join(f"{n} {'/'.join(f'{v:g}' for v in vs)} mm" for n, vs in used.items())
        yield f"The surface Dice are at different tolerances ({told}): do not compare them."
    sets = {method.name: scored_cases(method) for method in methods}
    shared = set.intersection(*sets.values()) if sets else set()
    labels = {m.name: m.cases["label"].unique().tolist() for m in methods if len(m.cases)}
    if shared and labels and not set.intersection(*map(set, labels.values())):
        told = "; ".join(f"{name}: {', '.join(names)}" for name, names in labels.items())
        yield f"No structure has one name in all methods ({told}): tests are of equal names alone."
    for name, cases in sets.items():
        if cases != shared:
            yield (
                f"{name} was scored on {len(cases)} cases, of which {len(shared)} are shared by "
                "all methods; means are over its own cases, a test of two methods is over those "
                "that both have."
            )


def _of_references(methods: Sequence[Method]) -> Iterator[str]:
    """Say which methods were held against other masks, or on another grid, or count patients so."""
    keys = ["case_id", "label"]
    kept = [method.cases[[*keys, "patient_id", "reference_volume_ml"]] for method in methods]
    for k, method in enumerate(methods):
        for earlier, before in zip(methods, kept[:k], strict=False):
            both = before.merge(kept[k], on=keys, suffixes=("_1", "_2"))
            if len(both):  # the first that shares a case with it
                yield from _of_pair(earlier.name, method.name, both)
                break


def _of_pair(first: str, second: str, both: pd.DataFrame) -> Iterator[str]:
    volumes = both[[f"reference_volume_ml_{k}" for k in (1, 2)]].dropna().to_numpy(float)
    differ = np.count_nonzero(~np.isclose(volumes[:, 0], volumes[:, 1], rtol=1e-3))
    if differ:
        yield (
            f"{second} and {first}: the references of {differ} of {len(volumes)} "
            "structures differ in volume, as on another grid or of other patients; compare "
            "them with care."
        )
    names = both[["patient_id_1", "patient_id_2"]].drop_duplicates()
    one, two = (names[name].nunique() for name in names)
    if {one, two} != {len(names)}:
        yield (
            f"{second} and {first}: the cases that both have are of {two} and {one} patients by "
            "their names; intervals take those of each, tests of two methods those of the first."
        )


def _of_training(method: Method) -> Iterator[str]:
    """Say where the runs of a method are not what one expects of them."""
    seen = {patient for run in method.runs for patient in run.identity.get("transferred_on", [])}
    if count := len(seen & set(method.cases["patient_id"])):
        yield (
            f"{method.name}: images of {count} of its test patients were trained on, with masks "
            "of their other sequences."
        )
    folds = max(run.folds for run in method.runs)
    if (tested := len({run.identity.get("fold") for run in method.runs})) < folds:
        yield (
            f"{method.name}: {tested} of {folds} folds were tested; the patients of the others are "
            "in no mean."
        )
    shares = {run.settings.get("data.train_fraction", 1.0) for run in method.runs} - {1.0}
    if shares and "data.train_fraction" not in method.variant:  # else its name says so
        told = ", ".join(f"{share:g}" for share in sorted(shares))
        yield f"{method.name}: trained on a share of its training patients ({told})."
    for run in method.runs:
        if run.unfinished:
            yield f"{method.name}: {run.part} did not train to its end: {run.unfinished}."


def _of_dealing(methods: Sequence[Method]) -> Iterator[str]:
    """Say where runs that differ in fold and seed alone have folds of several kinds."""
    for family in families(methods):
        runs = [run for method in family.members for run in method.runs]
        if len({run.identity.get("split_sha256") for run in runs}) > 1:
            yield (
                f"{family.name}: its runs dealt the patients to folds in several ways: the data, "
                "or the file of folds, changed."
            )


def _of_cases(method: Method) -> Iterator[str]:
    """Say which cases of a method are in no mean, and which are in it at their worst."""
    codes: Counter[str] = Counter()
    for run in method.runs:
        codes.update(run.identity.get("not_scored", {}))
    del codes["no_prediction"]  # told by itself
    # folds of another tool, each held against all references, lack the cases of the others
    absent = frozenset().union(*(run.unpredicted for run in method.runs))
    if absent := absent - set(method.cases["case_id"]):
        yield f"{method.name}: {len(absent)} cases have no prediction and are in no mean."
    if codes:
        yield (
            f"{method.name}: predictions of {sum(codes.values())} cases could not be scored "
            f"({', '.join(sorted(codes))}) and are in no mean."
        )
    if left_out := without_function(method.cases):
        yield f"{method.name}: {left_out}."
    if failed := method.cases["state"].isin(["missed", "false_positive"]).sum():
        yield f"{method.name}: {failed} structures missed or false, at their worst."
