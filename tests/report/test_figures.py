"""Pictures: both contours are there, where the masks are, in colours that differ."""

import re

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from cardiac_mtl.report.pictures import figures
from cardiac_mtl.report.pictures.canvas import file_name, legend_above, looks_of, panels_for
from cardiac_mtl.report.pictures.figures import (
    PREDICTED,
    REFERENCE,
    _slice_dice,
    curves,
    feature_maps,
    overlay,
)


def draw(path, predicted_shift=0, slices=5, predicted=True):
    mask = np.zeros((slices, 64, 48), np.int8)
    mask[:, 20:40, 12:30] = 1
    found = np.roll(mask, predicted_shift, axis=2).astype(np.uint8) if predicted else None
    image = np.random.default_rng(0).normal(size=mask.shape).astype(np.float32)
    overlay(path, image, mask, found, (8.0, 1.5, 1.5), title="a case", subtitle="a line")
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


def pixels_of(colour, picture):
    target = np.round(np.array(to_rgb(colour)) * 255)
    return int((np.abs(picture - target).sum(axis=2) < 40).sum())


def test_both_contours_are_drawn(tmp_path):
    picture = draw(tmp_path / "a.png", predicted_shift=4)
    assert pixels_of(REFERENCE, picture) > 1000
    assert pixels_of(PREDICTED, picture) > 500
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_without_prediction_there_is_one_contour(tmp_path):
    picture = draw(tmp_path / "a.png", predicted=False)
    assert pixels_of(REFERENCE, picture) > 1000
    assert pixels_of(PREDICTED, picture) == 0


@pytest.mark.parametrize(("slices", "columns", "rows"), [(1, 1, 1), (3, 3, 1), (20, 4, 3)])
def test_the_grid_fits_the_number_of_slices(tmp_path, slices, columns, rows):
    height, width, _ = draw(tmp_path / "a.png", slices=slices).shape
    assert width == pytest.approx(2.6 * columns * 110, abs=3)
    assert height == pytest.approx((2.6 * rows + 0.8) * 110, abs=3)


def test_curves_draw_what_there_is(tmp_path):
    metrics = pd.DataFrame(
        {
            "epoch": [0, 0, 1, 1],
            "step": [5, 5, 10, 10],
            "train/loss/mask": [None, 0.5, None, 0.3],
            "val/loss/mask": [0.6, None, 0.4, None],
            "val/dice_vol": [0.3, None, 0.7, None],
            "weight/mask": [1.0, None, 2.0, None],
        }
    )
    curves(tmp_path / "curves.png", metrics)
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.size[0] > 1000
    curves(tmp_path / "less.png", metrics[["epoch", "val/dice_vol"]])
    with Image.open(tmp_path / "less.png") as picture:
        assert picture.size[0] < 600


def test_curves_mark_the_epoch_that_was_kept_where_it_was_chosen():
    """It was marked at the best Dice, whatever the checkpoint had been selected on."""
    by_epoch = pd.DataFrame({"val/dice_vol": [0.8, 0.7], "val/loss": [0.5, 0.4]})
    for column, text in (("val/loss", "val, best 0.400 at epoch 1"), ("val/dice_vol", "val")):
        ax = Figure().subplots()
        figures._lines(ax, by_epoch, [column], {"val/loss": 0.4})
        (label,) = ax.get_legend().get_texts()
        assert label.get_text() == text


def test_curves_of_an_adversary_leave_its_learning_rate_aside(tmp_path):
    seen = {"epoch": [0, 1], "train/discriminator_accuracy": [0.6, 0.7]}
    rates = {"lr/discriminator": [2e-4, 2e-4], "grad_norm/discriminator": [1.0, 2.0]}
    for name, columns in (("with.png", seen | rates), ("without.png", seen)):
        curves(tmp_path / name, pd.DataFrame(columns))
    same = [(tmp_path / name).read_bytes() for name in ("with.png", "without.png")]
    assert same[0] == same[1]
    curves(tmp_path / "both.png", pd.DataFrame(seen | {"train/discriminator": [1.4, 1.2]}))
    with Image.open(tmp_path / "both.png") as both, Image.open(tmp_path / "with.png") as one:
        assert both.size[0] == pytest.approx(2 * one.size[0], abs=2)


@pytest.mark.parametrize(
    "column", ["train/convergence", "train/lambda", "val/loss/indices", "val/loss/label", "val/auc"]
)
def test_curves_of_every_paper_have_a_panel(tmp_path, column):
    """Beside the Dice a second panel: the page is twice as wide."""
    known = {"epoch": [0, 1], "val/dice_vol": [0.1, 0.2]}
    for name, columns in (("one.png", known), ("two.png", known | {column: [1.0, 0.5]})):
        curves(tmp_path / name, pd.DataFrame(columns))
    with Image.open(tmp_path / "one.png") as one, Image.open(tmp_path / "two.png") as two:
        assert two.size[0] == pytest.approx(2 * one.size[0], abs=2)


def test_curves_without_anything_known_are_an_empty_page(tmp_path):
    curves(tmp_path / "none.png", pd.DataFrame({"epoch": [0], "train/loss": [1.0]}))
    assert (tmp_path / "none.png").stat().st_size > 0


def test_each_slice_says_its_own_dice():
    one, none = np.eye(4, dtype=bool), np.zeros((4, 4), bool)
    assert _slice_dice([one, one]) == ", Dice 1.00"
    assert _slice_dice([one, none]) == ", Dice 0.00"
    assert _slice_dice([none, none]) == ", both empty"
    assert not _slice_dice([one])


@pytest.mark.parametrize("reference", [None, np.full((3, 40, 40), -1, np.int8)])
def test_without_a_reference_no_legend_promises_one(tmp_path, reference):
    found = np.zeros((3, 40, 40), np.uint8)
    found[:, 10:20, 10:20] = 1
    image = np.random.default_rng(0).normal(size=found.shape).astype(np.float32)
    overlay(tmp_path / "a.png", image, reference, found, (8.0, 1.5, 1.5), title="a case")
    with Image.open(tmp_path / "a.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    assert pixels_of(REFERENCE, pixels) == 0
    assert pixels_of(PREDICTED, pixels) > 500


def test_feature_maps_of_any_size_have_a_column_each(tmp_path):
    mask = np.zeros((48, 40), bool)
    mask[10:20, 12:30] = True
    image = np.random.default_rng(0).normal(size=mask.shape).astype(np.float32)
    up = mask[::8, ::8].astype(np.float32)
    maps = {"Conv4": np.stack([up, 0 * up, -up, up]), "Conv13": np.zeros((2, 1, 1), np.float32)}
    sizes = []
    for shown in (maps, {"Conv4": maps["Conv4"]}):
        feature_maps(tmp_path / "a.png", image, [mask, mask], shown, title="a case")
        with Image.open(tmp_path / "a.png") as picture:
            pixels = np.asarray(picture.convert("RGB")).astype(int)
        sizes.append(pixels.shape[1])
        assert pixels_of(REFERENCE, pixels) > 20
        assert pixels_of("#fde725", pixels) > 500  # where the mean is highest
    assert sizes[0] == pytest.approx(1.5 * sizes[1], rel=0.01)  # a column a layer


def test_no_two_of_the_eight_rows_of_mutgan_look_alike():
    assert len({look["color"] for look in looks_of(range(8))}) == 8
    assert len({tuple(look.values()) for look in looks_of(range(24))}) == 24


def test_a_name_of_many_settings_is_one_that_a_disk_takes():
    names = [f"mtn_unet, {'network.width 16, ' * 30}data.batch_size {k}" for k in (8, 16)]
    files = [file_name("bland_altman", name) for name in names]
    assert len(set(files)) == 2
    assert max(len(f"{file}.svg") for file in files) < 143  # of encrypted home folders


def test_a_legend_of_long_names_stays_within_its_figure():
    for panels in (1, 3):
        figure, axes = panels_for(panels)
        for k in range(4):
            axes[0].plot([0, 1], label=f"mtn_unet, weighting.mask 0.{k}, seed 0 (selected on TEST)")
        legend_above(figure, axes[0])
        FigureCanvasAgg(figure).draw()
        box = figure.legends[0].get_window_extent()
        assert figure.bbox.x0 <= box.x0
        assert box.x1 <= figure.bbox.x1


def test_methods_whose_names_differ_by_a_sign_have_figures_of_their_own():
    names = ["nnU-Net+TTA", "nnU-Net TTA", "\u65b9\u6cd5\u4e00", "\u65b9\u6cd5\u4e8c"]
    files = [file_name("scatter", name) for name in names]
    assert len(set(files)) == len(names)
    assert all(re.fullmatch("[A-Za-z0-9._-]+", file) for file in files)
