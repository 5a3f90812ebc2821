"""`report`, end to end: rows of several runs to tables, figures and a page."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest

from cardiac_mtl.cli import main
from cardiac_mtl.commands.report import read_methods
from cardiac_mtl.errors import UserError
from cardiac_mtl.report.caveats import caveats
from cardiac_mtl.report.page import _html
from cardiac_mtl.report.tables import analysis
from cardiac_mtl.report.tables.layout import Table, to_latex


def table(report, name):
    return pd.read_csv(report / "tables" / f"{name}.csv")


def test_every_table_is_there_in_three_forms(report):
    names = {"results", "comparisons", "areas", "agreement", "strata", "consistency", "papers",
             "protocol"}  # fmt: skip
    for suffix in ("csv", "md", "tex"):
        assert names <= {path.stem for path in (report / "tables").glob(f"*.{suffix}")}
    latex = (report / "tables/results.tex").read_text()
    assert latex.count("&") > 10
    assert r"$\pm$" in latex
    assert not [line for line in latex.splitlines() if "%" in line.replace(r"\%", "")]


def test_folds_are_pooled_out_of_fold(report, runs):
    results = table(report, "results")
    whole = results[(results["method"] == "mtn_uncertainty") & (results["phase"] == "all")].iloc[0]
    cases = pd.concat([pd.read_csv(f) for f in (runs / "mtn_uncertainty").rglob("cases.csv")])
    assert (whole["patients"], whole["n"]) == (6, 18)
    assert whole["dice_mean"] == pytest.approx(cases["dice"].mean(), rel=1e-5)
    assert whole["dice_low"] < whole["dice_mean"] < whole["dice_high"]
    assert set(results["phase"]) == {"ED", "ES", "all"}


def test_pairs_are_tested_on_patients(report):
    comparisons = table(report, "comparisons")
    assert set(comparisons["patients"]) == {6}
    assert (comparisons["p_holm"] >= comparisons["p_wilcoxon"] - 1e-12).all()


def test_values_of_papers_are_marked_as_not_comparable(report):
    papers = table(report, "papers")
    assert set(papers["paper"]) == {"mtn"}
    assert papers["comparable"].str.startswith("no: ").all()
    quantity = "myocardium ED dice mean"
    row = papers[(papers["quantity"] == quantity) & (papers["row"] == "MTN")].iloc[0]
    assert row["paper_value"] == 0.837
    results = table(report, "results")
    ours = results[(results["method"] == "mtn_uncertainty") & (results["phase"] == "ED")]
    assert row["ours"] == pytest.approx(ours["dice_mean"].iloc[0], rel=1e-5)


def test_figures_in_both_forms(report):
    drawn = {path.stem for path in (report / "figures").glob("*.svg")}
    assert drawn == {path.stem for path in (report / "figures").glob("*.png")}
    assert {"boxes_myocardium", "intervals_myocardium", "area_errors_myocardium",
            "scatter_mtn_unet", "bland_altman_mtn_uncertainty", "training_mtn_unet"} <= drawn  # fmt: skip


def test_two_reports_of_the_same_rows_are_alike(report, runs, tmp_path):
    assert main(["report", str(runs), "--output", str(tmp_path)]) == 0
    for path in sorted(report.rglob("*.*")):
        if path.suffix in {".csv", ".md", ".tex", ".html", ".svg"}:
            assert (tmp_path / path.relative_to(report)).read_bytes() == path.read_bytes(), path


@pytest.mark.usefixtures("undrawn")
def test_an_optimistic_run_marks_every_row(write_run, tmp_path, capsys):
    rng = np.random.default_rng(1)
    for name in ("mtn_unet", "mtn_uncertainty"):
        folder = tmp_path / "paper" / name
        write_run(folder, name, 0, ["p1", "p2"], rng, protocol="paper_optimistic")
    assert main(["report", str(tmp_path / "paper"), "--output", str(tmp_path / "out")]) == 0
    assert "OPTIMISTIC" in capsys.readouterr().out
    text = (tmp_path / "out/tables/results.md").read_text()
    assert text.count("ON TEST: optimistic") == text.count("(selected on TEST) |") > 0
    for name in ("agreement", "areas", "comparisons", "consistency", "strata", "suspects"):
        text = (tmp_path / f"out/tables/{name}.csv").read_text()
        assert "(selected on TEST)" in text, name
    assert "OPTIMISTIC" in (tmp_path / "out/index.html").read_text()


def test_a_case_scored_twice_is_refused(runs, tmp_path, capsys):
    shutil.copytree(runs / "mtn_unet", tmp_path / "runs")
    shutil.copytree(runs / "mtn_unet/fold0", tmp_path / "runs/again")
    assert main(["report", str(tmp_path / "runs"), "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "scored by two runs" in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def keep_head(table):
    table.write_text(table.read_text().splitlines()[0] + "\n")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (shutil.rmtree, "no such folder"),
        (lambda f: (f / "cases.csv").unlink(), "no run with rows here"),
        (lambda f: (f / "slices.csv").write_text("a,b\n1,2\n"), "lacks the column"),
        (lambda f: (f / "slices.csv").write_bytes(b"\xff\xfe\x00"), "unreadable"),
        (lambda f: (f / "run.json").write_text("{"), "cannot be read"),
        (lambda f: (f / "config.yaml").write_text("model: {"), "is not YAML"),
        (lambda f: (f / "metrics.csv").write_bytes(b"\xff\xfe\x00"), "metrics.csv: unreadable"),
        (lambda f: keep_head(f / "cases.csv"), "nothing was scored; leave this run out"),
    ],
)
def test_damaged_rows_are_one_line(runs, tmp_path, capsys, spoil, message):
    shutil.copytree(runs / "mtn_unet/fold0", tmp_path / "run")
    spoil(tmp_path / "run")
    assert main(["report", str(tmp_path / "run"), "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


def test_a_pathology_none_is_a_stratum_and_a_patient_na_a_patient(write_run, tmp_path):
    write_run(tmp_path / "run", "mtn_unet", 0, ["NA", "p1"], np.random.default_rng(3))
    for name in ("cases", "slices", "patients"):
        path = tmp_path / "run" / f"{name}.csv"
        path.write_text(path.read_text().replace(",normal,", ",None,"))
    methods = read_methods([tmp_path])
    strata = analysis.strata(methods, ["pathology"])
    assert strata["value"].tolist() == ["None"]
    assert strata["patients"].tolist() == [2]
    assert set(methods[0].cases["patient_id"]) == {"NA", "p1"}


@pytest.mark.usefixtures("undrawn")
def test_strata_of_a_column_of_the_data_sets_own_table(runs, tmp_path, capsys):
    source = tmp_path / "cases.csv"
    source.write_text("case_id,scanner\n" + "".join(f"p{k},{'AB'[k % 2]}\n" for k in range(1, 7)))
    words = ["report", str(runs), "--output", str(tmp_path / "out"), "--by", "scanner"]
    assert main(words) == 2
    assert main([*words, "--table", str(tmp_path)]) == 2  # a folder
    assert main([*words, "--table", str(source)]) == 0
    strata = table(tmp_path / "out", "strata")
    scanner = strata[strata["column"] == "scanner"]
    assert scanner["value"].tolist() == ["A", "B"] * 2
    assert set(scanner["patients"]) == {3}
    other = tmp_path / "other.csv"
    other.write_text("case_id,scanner\nq1,A\n")
    assert main([*words, "--table", str(other)]) == 2
    assert "holds none of the cases of the runs" in capsys.readouterr().err
    assert main([*words[:-1], "magnet", "--table", str(source)]) == 2
    assert "choose from case_id, scanner" in capsys.readouterr().err


def test_seeds_and_data_sets_are_methods_of_their_own(write_run, tmp_path):
    rng = np.random.default_rng(2)
    for k, facts in enumerate(({}, {"seed": 1}, {"data": "other"})):
        write_run(tmp_path / str(k), "mtn_unet", 0, ["p1"], rng, **facts)
    methods = read_methods([tmp_path])
    names = ["mtn_unet on hearts, seed 0", "mtn_unet on hearts, seed 1", "mtn_unet on other"]
    assert [method.name for method in methods] == names
    (note,) = (line for line in caveats(methods) if "different data" in line)
    assert f"({', '.join(names)}): do not compare them" in note  # each data set once


@pytest.mark.usefixtures("undrawn")
def test_a_column_of_the_table_never_takes_the_place_of_one_of_the_rows(runs, tmp_path):
    source = tmp_path / "cases.csv"
    source.write_text("case_id,label\n" + "".join(f"p{k},{k % 2}\n" for k in range(1, 7)))
    words = ["report", str(runs), "--output", str(tmp_path / "out")]
    assert main([*words, "--by", "label,label", "--table", str(source)]) == 0
    assert set(table(tmp_path / "out", "results")["label"]) == {"myocardium"}
    strata = table(tmp_path / "out", "strata")
    by_class = strata[strata["column"] == "label of the table"]
    assert by_class["value"].tolist() == ["0", "1"] * 2
    assert set(by_class["label"]) == {"myocardium"}


def test_masks_of_another_tool_do_not_hide_how_runs_differ(write_run, tmp_path):
    rng = np.random.default_rng(1)
    for fold, rate in enumerate((0.1, 0.2)):
        folder = tmp_path / f"fold{fold}"
        write_run(folder, "mtn_unet", fold, [f"p{fold}"], rng)
        (folder / "config.yaml").write_text(f"model: {{init_args: {{learning_rate: {rate}}}}}\n")
    write_run(tmp_path / "other", "mtn_unet", None, ["p0"], rng, protocol="external", seed="")
    variants = {method.variant for method in read_methods([tmp_path])}
    assert variants == {"learning_rate 0.1", "learning_rate 0.2", ""}


def test_masks_called_as_an_experiment_are_no_seed_of_it(write_run, tmp_path):
    """`evaluate` calls a method by the folder of its masks: `masks/mtn_unet` of `predict`."""
    rng = np.random.default_rng(1)
    for name, facts in (
        ("ours", {}),
        ("masks", {"protocol": "external", "seed": ""}),
    ):
        write_run(tmp_path / name, "mtn_unet", 0, ["p0", "p1"], rng, **facts)
    methods = read_methods([tmp_path / "ours", tmp_path / "masks"])
    assert [m.name for m in methods] == ["mtn_unet", "mtn_unet, masks by evaluate"]
    assert analysis.over_seeds(methods).empty
    assert set(analysis.comparisons(methods)["second"]) == {"mtn_unet, masks by evaluate"}
    write_run(tmp_path / "again", "mtn_unet", 0, ["p0", "p1"], rng, seed=1)
    methods = read_methods([tmp_path])
    names = {"mtn_unet, seed 0", "mtn_unet, seed 1", "mtn_unet, masks by evaluate"}
    assert {m.name for m in methods} == names
    assert set(analysis.over_seeds(methods)["seeds"]) == {2}


def test_a_run_that_did_not_train_to_its_end_is_told(write_run, tmp_path):
    rng = np.random.default_rng(1)
    for fold, status in enumerate(("finished", "interrupted")):
        write_run(tmp_path / status, "mtn_unet", fold, [f"p{fold}"], rng, status=status)
    (told,) = (text for text in caveats(read_methods([tmp_path])) if "its end" in text)
    assert told == "mtn_unet: fold 1, seed 0 did not train to its end: interrupted."


def test_references_that_differ_are_told(write_run, tmp_path):
    """Ours are scored on the prepared grid, masks of another tool on that of the files."""
    for name in ("mtn_uncertainty", "mtn_unet"):
        write_run(tmp_path / name, name, 0, ["p1"], np.random.default_rng(1))
    assert caveats(read_methods([tmp_path])) == []
    path = tmp_path / "mtn_unet/cases.csv"
    cases = pd.read_csv(path, dtype={"phase": str})
    cases.loc[:1, "reference_volume_ml"] *= 1.05
    cases.to_csv(path, index=False)
    (told,) = caveats(read_methods([tmp_path]))
    assert told.startswith("mtn_unet and mtn_uncertainty: the references of 2 of 3 structures")


def test_references_that_differ_are_told_of_methods_that_share_nothing_with_the_first(
    write_run, tmp_path
):
    for name, patient in (("first", "p0"), ("mtn_uncertainty", "p1"), ("mtn_unet", "p1")):
        write_run(tmp_path / name, name, 0, [patient], np.random.default_rng(1))
    path = tmp_path / "mtn_unet/cases.csv"
    cases = pd.read_csv(path, dtype={"phase": str})
    cases["reference_volume_ml"] *= 1.05
    cases.to_csv(path, index=False)
    folders = [tmp_path / name for name in ("first", "mtn_uncertainty", "mtn_unet")]
    (told,) = (text for text in caveats(read_methods(folders)) if "differ in volume" in text)
    assert told.startswith("mtn_unet and mtn_uncertainty: the references of 3 of 3 structures")


def test_patients_that_are_grouped_otherwise_are_told(write_run, tmp_path):
    """Of a folder of masks each may be a patient of its own: its intervals are too narrow."""
    for name in ("mtn_uncertainty", "mtn_unet"):
        write_run(tmp_path / name, name, 0, ["p1", "p2"], np.random.default_rng(1))
    path = tmp_path / "mtn_uncertainty/cases.csv"
    cases = pd.read_csv(path, dtype={"phase": str})
    for names, count in ((cases["patient_id"] + "x", 0), (cases["case_id"], 1)):
        cases.assign(patient_id=names).to_csv(path, index=False)
        told = [text for text in caveats(read_methods([tmp_path])) if "by their names" in text]
        assert len(told) == count
    assert told[0].startswith(
        "mtn_unet and mtn_uncertainty: the cases that both have are of 2 and 6"
    )


def test_a_share_of_the_training_patients_is_told_unless_the_name_says_so(write_run, tmp_path):
    for fold, (name, share) in enumerate((("few", 0.25), ("whole", 1.0))):
        write_run(tmp_path / name, "mtn_unet", fold, [f"p{fold}"], np.random.default_rng(1))
        config = {"data": {"init_args": {"train_fraction": share}}}
        (tmp_path / name / "config.yaml").write_text(json.dumps(config))
    told = "mtn_unet: trained on a share of its training patients (0.25)."
    assert caveats(read_methods([tmp_path / "few"])) == [told]
    assert caveats(read_methods([tmp_path / "whole"])) == []
    both = read_methods([tmp_path])
    assert {method.variant for method in both} == {f"data.train_fraction {s}" for s in (0.25, 1.0)}
    assert not [text for text in caveats(both) if "a share of" in text]


def test_seeds_of_other_folds_are_told(write_run, tmp_path):
    """As where patients were added to the data of a study before it was called for another seed."""
    for seed, dealt in enumerate(("ab", "ab", "cd")):
        facts = {"seed": seed, "split_sha256": dealt * 32}
        write_run(tmp_path / str(seed), "mtn_unet", 0, ["p0"], np.random.default_rng(1), **facts)
    assert caveats(read_methods([tmp_path / "0", tmp_path / "1"])) == []
    (told,) = caveats(read_methods([tmp_path]))
    assert told.startswith("mtn_unet: its runs dealt the patients to folds in several ways")


def test_folds_of_another_tool_lack_the_cases_of_none(write_run, tmp_path):
    """Each was held against the references of all folds: `--reference HEARTS/cases.csv`."""
    cases = [f"p{k}_ph{phase:02d}" for k in range(3) for phase in range(3)]
    for fold in range(2):
        folder = tmp_path / str(fold)
        names = {"protocol": "external", "seed": ""}
        write_run(folder, "nnunet", None, [f"p{fold}"], np.random.default_rng(1), **names)
        lacking = [case for case in cases if not case.startswith(f"p{fold}")]
        rows = {"severity": "error", "code": "no_prediction", "case": lacking, "file": ""}
        pd.DataFrame(rows).to_csv(folder / "findings.csv", index=False)
    told = [text for text in caveats(read_methods([tmp_path])) if "no prediction" in text]
    assert told == ["nnunet: 3 cases have no prediction and are in no mean."]  # of p2
    write_run(tmp_path / "2", "nnunet", None, ["p2"], np.random.default_rng(1), **names)
    (tmp_path / "2/findings.csv").write_text("\n")  # as `evaluate` leaves it without any
    assert not [text for text in caveats(read_methods([tmp_path])) if "no prediction" in text]


def test_phantoms_are_not_taken_for_patients(write_run, tmp_path):
    for name in ("mtn_unet", "mtn_uncertainty"):
        write_run(tmp_path / name, name, 0, ["p1"], np.random.default_rng(1), phantom=True)
    told = [text for text in caveats(read_methods([tmp_path])) if "phantom" in text]
    assert told == ["The hearts of hearts are phantoms: no number is of a patient."]


def test_folds_that_were_not_tested_are_told(write_run, tmp_path):
    rng = np.random.default_rng(1)
    for fold in range(2):
        folder = tmp_path / str(fold)
        write_run(folder, "mtn_unet", fold, [f"p{fold}"], rng)
        (folder / "splits.json").write_text(json.dumps({"folds": [{}, {}, {}]}))
    told = "mtn_unet: 2 of 3 folds were tested; the patients of the others are in no mean."
    assert told in caveats(read_methods([tmp_path]))
    for fold in range(2):
        (tmp_path / f"{fold}/splits.json").write_text(json.dumps({"folds": [{}, {}]}))
    assert caveats(read_methods([tmp_path])) == []
    (tmp_path / "0/splits.json").write_text("[")
    with pytest.raises(UserError, match="unreadable"):
        read_methods([tmp_path])


@pytest.mark.usefixtures("undrawn")
def test_of_one_patient_there_is_no_interval_and_no_nan(write_run, tmp_path):
    for name in ("mtn_unet", "mtn_uncertainty"):
        write_run(tmp_path / name, name, 0, ["p1"], np.random.default_rng(len(name)))
    assert main(["report", str(tmp_path), "--output", str(tmp_path / "out")]) == 0
    shown = {path.stem: path.read_text() for path in (tmp_path / "out/tables").glob("*.md")}
    assert {"results", "comparisons", "agreement", "areas", "regions"} <= set(shown)
    assert not [name for name, text in shown.items() if re.search(r"\bnan\b", text)]
    (volume,) = (
        line for line in shown["results"].splitlines() if "mtn_unet | myocardium | ED" in line
    )
    dice = (
        read_methods([tmp_path / "mtn_unet"])[0].cases.set_index("cardiac_phase").loc["ED", "dice"]
    )
    assert f"| {dice:.3f} |" in volume


def test_surface_dice_at_several_tolerances_are_not_compared_without_a_word(write_run, tmp_path):
    rng = np.random.default_rng(1)
    for name in ("mtn_unet", "mtn_uncertainty"):
        write_run(tmp_path / name, name, 0, ["p1"], rng)
    assert not [text for text in caveats(read_methods([tmp_path])) if "toler" in text]
    path = tmp_path / "mtn_unet/cases.csv"
    pd.read_csv(path).assign(tolerance_mm=5.0).to_csv(path, index=False)
    (told,) = (text for text in caveats(read_methods([tmp_path])) if "toler" in text)
    assert "mtn_unet 5 mm" in told
    assert "mtn_uncertainty 2 mm" in told


def test_a_label_of_digits_is_text_beside_one_of_letters(write_run, tmp_path):
    rng = np.random.default_rng(1)
    for name in ("mtn_unet", "mtn_uncertainty"):
        write_run(tmp_path / name, name, 0, ["p1", "p2"], rng)
    for name in ("cases", "slices"):
        path = tmp_path / f"mtn_unet/{name}.csv"
        pd.read_csv(path).assign(label=1).to_csv(path, index=False)
    methods = read_methods([tmp_path])
    assert analysis.comparisons(methods).empty
    assert {m.cases["label"].iloc[0] for m in methods} == {"1", "myocardium"}
    (told,) = (text for text in caveats(methods) if "one name" in text)
    assert "(mtn_uncertainty: myocardium; mtn_unet: 1)" in told
    assert not [text for text in caveats(methods[:1]) if "one name" in text]


def test_no_heading_and_no_caption_breaks_its_table(report):
    lines = (report / "tables/agreement.md").read_text().splitlines()
    head, rule, row, *_ = (line.replace(r"\|", "") for line in lines if line.startswith("|"))
    assert head.count("|") == rule.count("|") == row.count("|")
    frame = pd.DataFrame({"a": ["b"]})
    text = to_latex(Table("calls", "Calls", "5 % of them stand in calls_of.csv.", frame, frame))
    assert r"5 \% of them stand in calls\_of.csv." in text


def test_no_line_breaks_within_a_number_or_a_date():
    cells = ["3.0e-10", "2026-01-01", "-0.5", "nnU-Net", "1.0 ± 0.2 [0.9, 1.1]"]
    frame = pd.DataFrame({"a": cells})
    lines = _html(Table("a", "A", "", frame, frame)).splitlines()
    held = [line.strip() for line in lines if 'class="number"' in line]
    assert held == [f'<td class="number">{cell}</td>' for cell in cells[:3]]


def test_the_page_promises_no_pseudonyms(report):
    """Names of cases that stand in a table of cases, or are those of files, are taken as they are."""
    text = (report / "index.html").read_text()
    assert "see that they are pseudonyms" in text
    assert "carry pseudonyms" not in text


@pytest.mark.usefixtures("undrawn")
def test_what_an_earlier_report_left_is_told(runs, tmp_path, capsys):
    words = ["report", str(runs), "--output", str(tmp_path / "out")]
    assert main(words) == 0
    assert main(words) == 0
    assert "earlier report" not in capsys.readouterr().out
    (tmp_path / "out/tables/sweep.csv").write_text("of runs that are not asked for now")
    assert main(words) == 0
    assert "note: of an earlier report, not of this one: sweep.csv\n" in capsys.readouterr().out
