"""The tables of a report against pandas, scikit-learn and hand-made rows."""

import dataclasses
import json
import shutil
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from sklearn.metrics import roc_auc_score

from cardiac_mtl.commands.report import read_methods
from cardiac_mtl.metrics.statistics import ks
from cardiac_mtl.report.caveats import caveats
from cardiac_mtl.report.methods import Method
from cardiac_mtl.report.pictures import plots
from cardiac_mtl.report.tables import analysis
from cardiac_mtl.report.tables.diagnosis import operating_points
from cardiac_mtl.report.tables.fidelity import comparable, fidelity, paper_values
from cardiac_mtl.report.tables.layout import headline_shown


@pytest.fixture(scope="module")
def methods(runs):
    return read_methods([runs])


def changed(method, **tables):
    """Return a copy of a method with other rows."""
    copy = Method(method.name, method.runs, method.data)
    for name, frame in tables.items():
        object.__setattr__(copy, name, frame)
    return copy


def test_failures_are_counted_and_cost(methods):
    cases = methods[0].cases.copy()
    whole = cases["dice"].mean()
    cases.loc[0, ["state", "dice", "hd_mm"]] = ["missed", 0.0, 300.0]
    cases.loc[1, ["state", "dice", "hd_mm"]] = ["both_empty", np.nan, np.nan]
    row = analysis.headline([changed(methods[0], cases=cases)]).set_index("phase").loc["all"]
    assert (row["n"], row["n_missed"], row["n_both_empty"]) == (18, 1, 1)
    assert row["dice_mean"] == pytest.approx(cases["dice"].mean())
    assert row["dice_mean"] < whole
    assert row["dice_worst"] == 0.0
    assert row["hd_mm_worst"] == 300.0
    assert row["dice_without_failures"] > row["dice_mean"]
    texts = caveats([changed(methods[0], cases=cases)])
    assert any("1 structures missed or false" in text for text in texts)


def test_the_disagreement_of_both_branches_is_judged_as_scikit_learn_does(methods):
    slices = methods[0].slices.copy()
    (row,) = analysis.consistency([changed(methods[0], slices=slices)]).to_dict("records")
    scored = slices[slices["dice"].notna()]
    larger = scored[["area_mm2", "regressed_area_mm2"]].max(axis=1)
    expected = roc_auc_score(scored["dice"] < 0.7, scored["area_disagreement_mm2"] / larger)
    assert row["auc"] == pytest.approx(expected, abs=1e-6)
    assert analysis.consistency([methods[1]]).empty  # the U-Net regresses nothing


def test_areas_by_region_are_means_over_slices_that_hold_the_label(methods):
    table = analysis.areas(methods)
    row = table[
        (table["method"] == "mtn_unet") & (table["phase"] == "all") & (table["region"] == "basal")
    ].iloc[0]
    slices = methods[1].slices
    chosen = slices[(slices["region"] == "basal") & (slices["reference_area_mm2"] > 0)]
    assert row["error_mm2_mean"] == pytest.approx(chosen["area_error_mm2"].mean())
    assert row["slices"] == len(chosen)


def test_no_validation_is_claimed_where_none_may_have_been(methods):
    shown = headline_shown(analysis.headline(methods))
    assert set(shown["selected"]) == {"without test patients"}


def test_methods_on_other_cases_are_not_silently_compared(methods):
    fewer = methods[1].cases[methods[1].cases["patient_id"] != "p1"]
    pair = [methods[0], changed(methods[1], cases=fewer)]
    assert set(analysis.comparisons(pair)["patients"]) == {5}
    (told,) = (text for text in caveats(pair) if "shared by all" in text)
    assert told.endswith("a test of two methods is over those that both have.")


def test_pairs_have_phases_whichever_of_both_names_them(methods):
    """References in a folder are of patients with one phase each, unless their names say more."""
    unnamed = changed(methods[1], cases=methods[1].cases.assign(cardiac_phase=""))
    for pair in ([methods[0], unnamed], [unnamed, methods[0]]):
        assert analysis.comparisons(pair)["phase"].unique().tolist() == ["ED", "ES", "all"]


def seeds_of(runs, tmp_path):
    """Copy the run of one method twice, as other seeds that are a little better or worse."""
    for seed, more in ((1, 0.1), (2, -0.04)):
        for number, folder in enumerate(sorted(runs.glob("mtn_unet/fold*"))):
            copy = tmp_path / f"seed{seed}" / str(number)
            shutil.copytree(folder, copy)
            for path in copy.rglob("cases.csv"):
                cases = pd.read_csv(path)
                cases["dice"] += more
                cases.to_csv(path, index=False)
            for path in copy.rglob("run.json"):
                path.write_text(json.dumps(json.loads(path.read_text()) | {"seed": seed}))
    return read_methods([runs, tmp_path])


def test_seeds_are_averaged_case_by_case(runs, methods, tmp_path):
    several = seeds_of(runs, tmp_path)
    assert [m.name for m in several][1:] == [f"mtn_unet, seed {k}" for k in range(3)]
    table = analysis.over_seeds(several).set_index(["label", "measure"])
    row = table.loc["myocardium", "Dice"]
    mean = methods[1].cases["dice"].mean()
    assert (row["method"], row["seeds"]) == ("mtn_unet", 3)
    assert row["mean"] == pytest.approx(mean + 0.02)
    assert row["sd_of_seeds"] == pytest.approx(np.std([0, 0.1, -0.04], ddof=1))
    assert (row["least"], row["largest"]) == pytest.approx((mean - 0.04, mean + 0.1))
    assert row["low"] < row["mean"] < row["high"]
    assert analysis.over_seeds(methods).empty


def test_a_mean_of_seeds_lies_between_them(methods):
    """Of two controls each seed finds something in another one: the other has no Dice there."""
    seeds = []
    for k, dice in enumerate(([0.8, 0.9, 0.0, np.nan], [0.7, 0.9, np.nan, 0.0])):
        names = {"case_id": list("abcd"), "patient_id": list("abcd"), "label": "infarct"}
        cases = pd.DataFrame(names | dict.fromkeys(analysis.COMPARED, np.nan) | {"dice": dice})
        run = dataclasses.replace(methods[0].runs[0], cases=cases)
        seeds.append(Method(f"mutgan, seed {k}", [run], family="mutgan"))
    row = analysis.over_seeds(seeds).set_index("measure").loc["Dice"]
    assert row["mean"] == pytest.approx((0.8 + 0.9 + 0.7 + 0.9) / 6)
    assert row["least"] <= row["mean"] <= row["largest"]
    assert row["low"] < row["mean"] < row["high"]


def test_every_seed_answers_a_published_value_and_says_which_it_is(runs, tmp_path):
    table = fidelity(seeds_of(runs, tmp_path))
    dice = table[
        (table["row"] == "UNet") & (table["quantity"].str.startswith("myocardium all dice"))
    ]
    of_seeds = dict(zip(dice["data"], dice["ours"], strict=True))
    assert list(of_seeds) == [f"hearts, seed {k}" for k in range(3)]
    assert of_seeds["hearts, seed 1"] - of_seeds["hearts, seed 2"] == pytest.approx(0.14)


def test_ks_of_paper_b_is_between_methods_of_one_seed(runs, tmp_path):
    several = seeds_of(runs, tmp_path)
    for folder in sorted(runs.glob("mtn_uncertainty/fold*")):
        copy = tmp_path / "mtn_of_seed_1" / folder.name
        shutil.copytree(folder, copy)
        for path in copy.rglob("run.json"):
            path.write_text(json.dumps(json.loads(path.read_text()) | {"seed": 1}))
    table = fidelity(read_methods([runs, tmp_path]))
    ours = table[table["quantity"].str.contains("ks_p_dice")].set_index("data")["ours"]
    mtn, *unet = (method.cases["dice"] for method in several)
    assert ours.to_dict() == {f"hearts, seed {k}": ks(mtn, unet[k]) for k in (0, 1)}
    assert ours.nunique() == 2


def test_the_surface_distance_of_paper_c_is_in_mm(methods):
    run = methods[1].runs[0]
    identity = {**run.identity, "experiment": "weak_transfer_uad", "layout": "mscmr"}
    cases = run.cases.assign(label="lv")
    method = Method("c", [dataclasses.replace(run, identity=identity, cases=cases)])
    table = fidelity([method])
    msd = table[table["quantity"].str.contains("msd")].set_index("table")
    assert set(msd["unit"]) == {"mm"}
    assert msd.loc["Table 2", "ours"] == pytest.approx(cases["msd_mm"].mean())
    assert cases["msd_mm"].mean() != pytest.approx(cases["msd_voxels"].mean())


def test_a_table_of_paper_c_asks_for_its_own_test_patients(methods):
    facts = {**methods[1].runs[0].identity, "layout": "mscmr"}
    run = dataclasses.replace(methods[1].runs[0], identity=facts)
    cases = pd.DataFrame({"patient_id": ["patient4", "patient5"]})
    method = changed(Method("weak_transfer_ud", [run]), cases=cases)
    first, second = (comparable(method, "weak_transfer", f"Table {k}") for k in (1, 2))
    assert first == "by layout and count, if these are the mscmr patients"
    assert second == "no: 2 of 40 patients"


def test_methods_of_several_seeds_are_compared_by_their_means(runs, methods, tmp_path):
    first, *seconds = seeds_of(runs, tmp_path)
    alike = [Method(f"a, seed {k}", first.runs, first.data, family="a") for k in range(3)]
    # of either as many seeds as both have
    for seeds, better in ((1, 0.0), (2, 0.05), (3, 0.02)):
        table = analysis.comparisons([*alike[:seeds], *seconds])
        (pair,) = set(zip(table["first"], table["second"], strict=True))
        assert pair == ("a", "mtn_unet")
        dice = table[(table["measure"] == "Dice") & (table["phase"] == "all")].iloc[0]
        gap = methods[1].cases["dice"].mean() + better - methods[0].cases["dice"].mean()
        assert dice["difference"] == pytest.approx(gap)


def test_where_a_seed_is_missing_the_other_method_has_one_less_too(methods):
    """Of method b the second seed was tested on the first fold alone."""
    whole, fold = methods[1].runs, methods[1].runs[:1]

    def seeds(name, *dice):
        return [
            Method(f"{name}, seed {k}", [dataclasses.replace(r, cases=r.cases.assign(dice=v))
                                         for r in runs], family=name)
            for k, (v, runs) in enumerate(dice)
        ]  # fmt: skip

    table = analysis.comparisons(
        [*seeds("a", (0.5, whole), (0.9, whole)), *seeds("b", (0.6, whole), (0.6, fold))]
    )
    row = table[(table["measure"] == "Dice") & (table["phase"] == "all")].iloc[0]
    first, second = (run.cases["case_id"].nunique() for run in whole)
    # a: 0.7 where both have two seeds, 0.5 where b has one
    expected = (first * (0.6 - 0.7) + second * (0.6 - 0.5)) / (first + second)
    assert row["difference"] == pytest.approx(expected)
    assert row["volumes"] == first + second


def test_a_method_without_masks_is_compared_in_nothing(methods):
    cases = methods[1].cases.assign(**dict.fromkeys(analysis.COMPARED, np.nan))
    assert analysis.comparisons([methods[0], changed(methods[1], cases=cases)]).empty


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"layout": "lvsc", "phantom": True}, "no: phantom hearts"),
        ({"layout": "manifest", "phantom": False}, "no: other patients"),
        ({"layout": "lvsc", "phantom": False}, "no: 1 of 97 patients"),
    ],
)
def test_what_may_be_held_against_a_paper(write_run, tmp_path, facts, expected):
    rng = np.random.default_rng(0)
    write_run(tmp_path / "run", "mtn_unet", 0, ["p1"], rng, **facts)
    (method,) = read_methods([tmp_path])
    assert comparable(method, "mtn", "Table 1").startswith(expected)


@pytest.mark.parametrize(
    ("protocol", "expected"),
    [
        ("honest", "by layout and count, if these are the lvsc patients; the paper selected on"),
        ("paper_optimistic", "by layout and count, if these are the lvsc patients"),
    ],
)
def test_all_patients_of_a_layout_may_be_those_of_the_paper(methods, protocol, expected):
    facts = {**methods[1].runs[0].identity, "layout": "lvsc", "protocol": protocol}
    run = dataclasses.replace(methods[1].runs[0], identity=facts)
    cases = pd.DataFrame({"patient_id": [f"p{k}" for k in range(97)]})
    method = changed(Method("mtn_unet", [run]), cases=cases)
    assert comparable(method, "mtn", "Table 1").startswith(expected)
    assert ("selected" in comparable(method, "mtn", "Table 1")) == (protocol == "honest")


def test_every_row_of_mtn_is_answered(methods):
    answered = fidelity(methods)
    published = paper_values()
    wanted = published[published["experiment"].isin(["mtn_unet", "mtn_uncertainty"])]
    assert len(answered) == len(wanted)
    assert answered["ours"].notna().all()


def classified(fold, truth, probability):
    """Return the rows of one image a patient, healthy the first of two classes."""
    patients = [f"p{fold}{k}" for k in range(len(truth))]
    pairs = [("0", 1 - truth, 1 - probability), ("1", truth, probability)]
    return pd.concat(
        [
            pd.DataFrame({"patient_id": patients, "class": c, "is_class": t, "probability": p})
            for c, t, p in pairs
        ]
    )


def test_healthy_is_positive_in_the_rows_of_fpm(methods):
    diseased = np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1])
    called = np.array([0.1, 0.2, 0.6, 0.9]), np.array([0.3, 0.4, 0.2, 0.8])
    identity = {**methods[0].runs[0].identity, "experiment": "fpm_multitask"}
    runs = [
        dataclasses.replace(
            methods[0].runs[fold],
            identity=identity,
            labels=classified(fold, diseased[fold], called[fold]),
        )
        for fold in range(2)
    ]
    table = fidelity([Method("fpm_multitask", runs)])
    (found,) = table[table["table"] == "Table 7"].groupby("paper")
    ours = found[1].set_index("quantity")["ours"]
    assert ours["accuracy value"] == 6 / 8
    assert ours["sensitivity value"] == 4 / 5  # of the healthy
    assert ours["specificity value"] == 2 / 3
    assert ours["auc value"] == pytest.approx((1 + 1 / 2) / 2)  # of each fold, then the mean


def test_dice_and_psnr_of_fpm_are_of_images(methods):
    """A patient of three slices and one of one: the mean over volumes would be another."""
    slices = pd.DataFrame(
        {"patient_id": ["p0"] * 3 + ["p1"], "label": "myocardium", "dice": [0.9, 0.9, 0.9, 0.5],
         "jaccard": [0.8, 0.8, 0.8, 0.3], "psnr_db": [26.0, 27.0, 30.0, 24.0]}
    )  # fmt: skip
    cases = pd.DataFrame({"patient_id": ["p0", "p1"], "label": "myocardium", "dice": [0.9, 0.5]})
    run = dataclasses.replace(
        methods[0].runs[0], identity={"experiment": "fpm_multitask", "protocol": "honest"}
    )
    method = Method("fpm_multitask", [run])
    ours = fidelity([changed(method, slices=slices, cases=cases)]).set_index("quantity")["ours"]
    np.testing.assert_allclose(ours["myocardium dice mean"], 0.8)
    np.testing.assert_allclose(ours["myocardium jaccard mean"], 2.7 / 4)
    assert ours["myocardium psnr minimum"] == 24.0
    assert ours["myocardium psnr maximum"] == 30.0
    assert "myocardium psnr mode" not in ours


def test_a_variant_of_an_experiment_does_not_answer_the_papers_rows(methods):
    run = methods[0].runs[0]
    assert len(fidelity([Method("mtn_uncertainty", [run])]))
    assert fidelity([Method("mtn_uncertainty, width 8", [run], variant="width 8")]).empty


def test_slices_are_averaged_by_region(methods):
    table = analysis.regions([methods[1]]).set_index("region")
    slices = methods[1].slices
    apical = slices[slices["region"] == "apical"]
    assert table.loc["apical", "dice_mean"] == pytest.approx(apical["dice"].mean())
    assert table.loc["apical", "n"] == len(apical)


def test_cases_whose_branches_disagree_most_come_first(methods):
    table = analysis.suspects(methods, count=4)
    assert set(table["method"]) == {methods[0].name}
    assert len(table) == 4
    assert table["disagreement"].is_monotonic_decreasing
    slices = methods[0].slices
    chosen = slices[slices["case_id"] == table["case"][0]]
    assert table["disagreement"][0] == pytest.approx(analysis.disagreement(chosen).mean())


def test_no_published_value_of_one_structure_is_answered_with_several(methods):
    slices, cases = methods[0].slices, methods[0].cases
    other = slices.assign(label="rv")
    for name in ("area_mm2", "reference_area_mm2"):
        other[name] += 5000.0
    both = changed(
        methods[0],
        slices=pd.concat([slices, other], ignore_index=True),
        cases=pd.concat([cases, cases.assign(label="rv", dice=0.1)], ignore_index=True),
    )
    alone, beside = (
        fidelity([method, methods[1]])
        .set_index("quantity")
        .loc[
            ["myocardium pearson_r_segmented value", "myocardium all ks_p_dice value"],
            ["ours", "n"],
        ]
        for method in (methods[0], both)
    )
    assert beside.equals(alone)


def test_the_selection_score_is_what_the_epoch_was_chosen_by(methods):
    metrics = pd.DataFrame({"epoch": [0, 1], "val/dice_vol": [0.8, 0.7], "val/loss": [0.5, 0.4]})
    run = dataclasses.replace(methods[0].runs[0], metrics=metrics)
    run = dataclasses.replace(run, identity={**run.identity, "monitor": "val/loss"})
    (picture,) = plots._training([Method("mutgan", [run])])
    shown = {ax.get_title(): [line.get_label() for line in ax.lines] for ax in picture.figure.axes}
    assert shown["selection score"] == ["val/loss"]
    assert shown["volume Dice"] == ["val/dice_vol"]


def test_curves_have_a_panel_for_each_unit_and_none_is_left_out(methods):
    panels = {
        "selection score": ["val/dice_vol"],
        "training losses": ["train/loss/indices", "train/loss/mask"],
        "error, mm²": ["val/mae/size_mm2"],
        "error, mm": ["val/mae/centroid_x_mm", "val/mae/major_axis_mm"],
        "error, %": ["val/mae/segment_percent"],
        "error, degrees": ["val/mae/orientation_deg"],
        "convergence of the players": ["train/convergence"],
        "lambda": ["train/lambda"],
    }
    columns = {name: [2.0, 1.0] for names in panels.values() for name in names}
    metrics = pd.DataFrame({"epoch": [0, 1], **columns})
    run = dataclasses.replace(methods[0].runs[0], metrics=metrics)
    (picture,) = plots._training([Method("mutgan", [run])])
    once = dataclasses.replace(run, metrics=metrics[:1])  # of one epoch: a dot is seen, a line not
    for table, mark in (([run], "None"), ([once], "o")):
        (seen,) = plots._training([Method("mutgan", table)])
        assert {line.get_marker() for ax in seen.figure.axes for line in ax.lines} == {mark}
    drawn = {ax.get_title(): [line.get_label() for line in ax.lines] for ax in picture.figure.axes}
    assert {title: names for title, names in drawn.items() if names} == panels


def test_titles_of_panels_stay_above_their_panels(methods):
    tables = {
        name: getattr(methods[0], name).assign(label="left ventricular myocardium")
        for name in ("slices", "cases")
    }
    tables["slices"] = tables["slices"].assign(area_mm2=lambda rows: 30 * rows["area_mm2"])
    for picture in plots._agreement([changed(methods[0], **tables)]):
        FigureCanvasAgg(picture.figure).draw()
        titles = [ax.title for ax in picture.figure.axes if ax.get_title()]
        boxes = [title.get_window_extent() for title in titles]
        assert len(boxes) >= 3
        assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
        page = picture.figure.bbox
        assert all(page.x0 <= box.x0 and box.x1 <= page.x1 for box in boxes)


def test_a_constant_prediction_has_no_correlation_rather_than_nan(methods):
    slices = methods[1].slices.assign(area_mm2=0.0)
    scatter, _ = plots._agreement([changed(methods[1], slices=slices)])
    assert "myocardium area, segmented: r undefined" in scatter.alt
    assert "r undefined" in scatter.figure.axes[0].get_title()


def test_a_rate_has_one_interval_wherever_it_stands(methods):
    truth = np.array([0, 0, 0, 1, 1, 1])
    labels = classified(0, truth, np.array([0.2, 0.6, 0.3, 0.4, 0.9, 0.8]))
    labels = labels.assign(class_name=labels["class"].map({"0": "healthy", "1": "diseased"}))
    labels["called"] = (labels["probability"] > 0.5).astype(int)
    identity = {**methods[0].runs[0].identity, "experiment": "fpm_multitask"}
    run = dataclasses.replace(methods[0].runs[0], identity=identity, labels=labels)
    method = Method("fpm_multitask", [run])
    papers = fidelity([method])
    papers = papers[papers["table"] == "Table 7"].set_index("quantity")
    points = operating_points([method]).set_index(["positive class", "threshold"])
    for rate, count in (("accuracy", 6), ("sensitivity", 3), ("specificity", 3)):
        row = papers.loc[f"{rate} value"]
        expected = points.loc[("healthy", "0.5"), [rate, f"{rate}_low", f"{rate}_high"]]
        assert row[["ours", "low", "high"]].tolist() == expected.tolist()
        assert row["n"] == count
        assert np.isnan(row["ours_sd"])  # of right and wrong images it says nothing


def test_a_median_carries_no_sd(methods):
    run = methods[1].runs[0]
    identity = {**run.identity, "experiment": "weak_transfer_uad", "layout": "mscmr"}
    table = fidelity(
        [changed(Method("uad", [dataclasses.replace(run, identity=identity)]),
                 cases=methods[1].cases.assign(label="lv"))]
    )  # fmt: skip
    medians = table["quantity"].str.endswith("median")
    assert medians.any()
    assert table.loc[medians, "ours_sd"].isna().all()
    assert table.loc[table["quantity"] == "lv dice mean", "ours_sd"].notna().all()
