"""The published values: complete, in one vocabulary, and true to the arithmetic of the papers."""

from importlib.resources import files

import pandas as pd
import pytest

COLUMNS = [
    *("paper", "table", "row", "experiment", "label", "phase", "region", "measure"),
    *("statistic", "value", "sd", "unit", "note"),
]
KEY = COLUMNS[: COLUMNS.index("value")]
FRACTIONS = {"dice", "jaccard", "accuracy", "sensitivity", "specificity", "auc"}
OF_UNIT = {
    "1": [
        *sorted(FRACTIONS),
        *("ks_p_dice", "ks_p_jaccard", "ks_p_msd", "pearson_r_regressed", "pearson_r_segmented"),
    ],
    "mm": ["msd", "hd", "perimeter", "centroid", "major_axis", "minor_axis"],
    "mm (probably voxels)": ["msd"],
    "mm (probably px)": ["hd95"],
    "mm2": ["size", "regressed_area_error", "segmented_area_error"],
    "%": ["segment_percent"],
    "deg": ["orientation"],
    "dB": ["psnr"],
}
VOCABULARY = {
    "paper": {"mutgan", "mtn", "weak_transfer", "fpm"},
    "label": {"myocardium", "lv", "rv", "infarct", ""},
    "phase": {"ED", "ES", "all", ""},
    "region": {"all", "apical", "mid", "basal", ""},
    "measure": {measure for measures in OF_UNIT.values() for measure in measures},
    "statistic": {"mean", "median", "value", "minimum", "maximum", "mode"},
}
EXPERIMENTS = {
    "mutgan": {
        "mutgan",
        *(f"mutgan_{part}" for part in ("generator", "sfen", "convlstms", "3dconvs")),
        *(f"mutgan_{part}" for part in ("3dconvs_lstm", "cnns", "lstms")),
        "",
    },
    "mtn": {"mtn_uncertainty", "mtn_unet"},
    "weak_transfer": {"weak_transfer_ud", "weak_transfer_uad", "weak_transfer_uadt"},
    "fpm": {
        "fpm_multitask",
        *(f"fpm_serial_{rates}" for rates in ("2_2_2", "3_5_7", "5_5_5")),
        *(f"fpm_parallel_{rates}" for rates in ("2_4_6", "3_5_7", "6_12_18")),
        *(f"fpm_{net}" for net in ("unet", "deeplabv3plus", "vgg16", "resnet50")),
        *(f"fpm_{net}" for net in ("inception_v3", "xception")),
    },
}

# Counted by hand in the tables, not in the file.
ROWS = {
    ("mutgan", "Table 1"): 33,  # 3 methods; 3 pixel measures, Dice and 7 indices
    ("mutgan", "Table 2"): 18,  # 6 extractors; accuracy, Dice, size
    ("mutgan", "Table 3"): 16,  # 4 groups; accuracy, Dice, size, centroid
    ("mtn", "Table 1"): 24,  # 2 networks, 3 phases; Dice, Jaccard, MSD, HD
    ("mtn", "Table 2"): 36,  # 3 areas, 3 phases, 4 regions
    ("mtn", "Fig. 2"): 3,  # p of Dice, Jaccard, MSD; none is given for HD
    ("mtn", "Fig. 3"): 3,  # r of 3 areas
    ("weak_transfer", "Table 1"): 18,  # 3 methods, 3 labels; Dice, HD
    ("weak_transfer", "Table 2"): 24,  # 2 methods, 3 labels; Dice, Jaccard, surface distance, HD
    ("weak_transfer", "Table 3"): 24,  # the same as medians
    ("fpm", "Table 2"): 6,  # 3 serial rates, [6,12,18] has no valid result; Dice, Jaccard
    ("fpm", "Table 3"): 12,  # the same 3; accuracy, sensitivity, specificity, AUC
    ("fpm", "Table 4"): 8,  # 4 parallel rates; Dice, Jaccard
    ("fpm", "Table 5"): 16,  # the same 4; accuracy, sensitivity, specificity, AUC
    ("fpm", "Table 6"): 6,  # 3 networks; Dice, Jaccard
    ("fpm", "Table 7"): 20,  # 5 networks; accuracy, sensitivity, specificity, AUC
    ("fpm", "Fig. 5"): 3,  # lowest, highest and most frequent PSNR
}


@pytest.fixture(scope="module")
def values():
    path = files("cardiac_mtl.report.tables") / "paper_values.csv"
    with path.open(encoding="utf-8") as file:
        table = pd.read_csv(file, dtype=str, keep_default_na=False)
    return table.assign(value=pd.to_numeric(table["value"]), sd=pd.to_numeric(table["sd"]))


def test_columns_and_keys(values):
    assert values.columns.tolist() == COLUMNS
    assert values["value"].notna().all()
    assert not values.duplicated(KEY).any()
    assert (values[["table", "row"]] != "").all(axis=None)


@pytest.mark.parametrize("column", VOCABULARY)
def test_each_word_is_known_and_each_known_word_is_used(values, column):
    assert set(values[column]) == VOCABULARY[column]


def test_experiments_are_the_systematic_names(values):
    assert values.groupby("paper")["experiment"].agg(set).to_dict() == EXPERIMENTS
    others = values[values["experiment"] == ""]
    assert set(others["row"]) == {"Xu", "Popescu", "Bleton"}
    assert others["note"].str.contains("constant, not re-implemented").all()


def test_units_follow_the_measure(values):
    found = values.groupby("unit")["measure"].agg(set).to_dict()
    assert found == {unit: set(measures) for unit, measures in OF_UNIT.items()}
    doubtful = values[values["unit"] == "mm (probably voxels)"]
    assert set(zip(doubtful["paper"], doubtful["table"], strict=True)) == {("mtn", "Table 1")}


def test_label_phase_and_region_stand_only_where_they_mean_something(values):
    classified = (values["paper"] == "fpm") & values["measure"].isin(
        FRACTIONS - {"dice", "jaccard"}
    )
    assert (values["label"] == "").equals(classified)
    by_region = (values["paper"] == "mtn") & (values["table"] == "Table 2")
    assert (values["region"] != "").equals(by_region)
    assert (values["phase"] != "").equals(
        (values["paper"] == "mtn") & (values["table"] != "Fig. 3")
    )


def test_ranges(values):
    bounded = values[values["unit"] == "1"]
    assert bounded["value"].between(0, 1).all()
    assert (values["value"] >= 0).all()
    assert values.loc[values["measure"] == "segment_percent", "value"].between(0, 100).all()
    assert values.loc[values["measure"] == "orientation", "value"].between(0, 90).all()
    by_sd = values["paper"].eq("mtn") & values["statistic"].eq("mean")
    assert values["sd"].notna().equals(by_sd)
    assert (values.loc[by_sd, "sd"] > 0).all()


def test_number_of_rows_of_each_table(values):
    assert values.groupby(["paper", "table"]).size().to_dict() == ROWS


@pytest.mark.parametrize(
    ("chosen", "value"),
    [
        ("mutgan|Table 1|Generator|mutgan_generator|infarct|||orientation|mean", 8.51),
        ("mutgan|Table 1|SFEN|mutgan_sfen|infarct|||sensitivity|value", 0.8186),
        ("mutgan|Table 2|3DConvs+LSTM|mutgan_3dconvs_lstm|infarct|||size|mean", 79.94),
        ("mutgan|Table 3|Xu||infarct|||centroid|mean", 7.98),
        ("mtn|Table 1|MTN|mtn_uncertainty|myocardium|ES||hd|mean", 13.355),
        ("mtn|Table 1|UNet|mtn_unet|myocardium|all||dice|mean", 0.847),
        ("mtn|Table 2|Reg-MTN|mtn_uncertainty|myocardium|all|all|regressed_area_error|mean", 206),
        ("mtn|Table 2|Seg-UNet|mtn_unet|myocardium|ED|basal|segmented_area_error|mean", 282),
        ("mtn|Fig. 2|MTN|mtn_uncertainty|myocardium|all||ks_p_msd|value", 6.950e-34),
        ("mtn|Fig. 3|Seg-MTN|mtn_uncertainty|myocardium|||pearson_r_segmented|value", 0.9565),
        ("weak_transfer|Table 1|U+D|weak_transfer_ud|myocardium|||dice|value", 0.5),
        ("weak_transfer|Table 2|U+A+D+T|weak_transfer_uadt|lv|||hd|mean", 23.7),
        ("weak_transfer|Table 3|U+A+D|weak_transfer_uad|rv|||msd|median", 5.0),
        ("fpm|Table 2|serial [5,5,5]|fpm_serial_5_5_5|myocardium|||jaccard|mean", 0.6965),
        ("fpm|Table 5|parallel [3,5,7]|fpm_parallel_3_5_7||||auc|value", 0.9546),
        ("fpm|Table 6|DeepLabV3+|fpm_deeplabv3plus|myocardium|||dice|mean", 0.8205),
        ("fpm|Table 7|VGG16|fpm_vgg16||||specificity|value", 0.0),
        ("fpm|Fig. 5|proposed|fpm_multitask|myocardium|||psnr|mode", 27.259),
    ],
)
def test_spot_values(values, chosen, value):
    assert values.set_index(KEY)["value"].loc[tuple(chosen.split("|"))] == pytest.approx(value)


def test_accuracy_follows_from_sensitivity_and_specificity(values):
    """Healthy is the positive class: 577 of 654 images."""
    classified = values[(values["paper"] == "fpm") & (values["label"] == "")]
    wide = classified.pivot_table("value", ["table", "row"], "measure")
    assert len(wide) == 3 + 4 + 5
    expected = (577 * wide["sensitivity"] + 77 * wide["specificity"]) / 654
    assert (expected - wide["accuracy"]).abs().max() < 2e-4


def test_the_regions_of_mtn_average_to_all(values):
    """Two apical, two basal and the rest mid slices: 8 to 10 slices with myocardium a volume."""
    areas = values[(values["paper"] == "mtn") & (values["table"] == "Table 2")]
    wide = areas.pivot_table("value", ["row", "phase"], "region")
    slices = (2 * wide["apical"] + 2 * wide["basal"] - 4 * wide["mid"]) / (
        wide["all"] - wide["mid"]
    )
    assert len(slices) == 9
    assert slices.between(8, 10.1).all()


@pytest.mark.parametrize("paper", ["mutgan", "fpm"])
def test_a_method_printed_in_two_tables_has_one_value(values, paper):
    of_paper = values[values["paper"] == paper]
    same = of_paper[of_paper["experiment"] != ""].groupby(
        ["experiment", "label", "measure", "statistic"]
    )["value"]
    # Table 2 of MuTGAN rounds Dice to 0.90.
    assert (same.max() - same.min()).max() == pytest.approx(0.0027 if paper == "mutgan" else 0)


def test_jaccard_follows_dice(values):
    """J = D / (2 - D): nearly so of medians, and a convex function, so means lie above it."""
    overlaps = values[values["measure"].isin(["dice", "jaccard"])]
    wide = overlaps.pivot_table(
        "value", ["paper", "table", "row", "label", "phase", "statistic"], "measure"
    ).dropna()
    assert len(wide) == 6 + 12 + 3 + 4 + 3
    above = wide["jaccard"] - wide["dice"] / (2 - wide["dice"])
    # Rounding explains 0.006; LV of U+A+D, Dice 0.778, would print a median Jaccard of 0.64, not 0.63.
    assert above.between(-0.007, 0.02).all()
    assert above.xs("median", level="statistic").abs().max() < 0.007
