"""Figures of several structures: every contour is there, in the row and window it belongs to."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from cardiac_mtl.cli import main
from cardiac_mtl.commands.report import read_methods
from cardiac_mtl.evaluation.collect import CollectedCase
from cardiac_mtl.evaluation.rows import assemble, score_case, write_csv
from cardiac_mtl.report.pictures.canvas import save
from cardiac_mtl.report.pictures.figures import CLASS_COLOURS
from cardiac_mtl.report.pictures.gallery import write_gallery
from cardiac_mtl.report.pictures.mask_errors import _paint
from cardiac_mtl.report.pictures.sequences import (
    Slice,
    grid,
    middle,
    of_methods,
    of_sequences,
    shared_slices,
    side_by_side,
)

NAMES = ("LV", "myocardium", "RV")


def heart(column=30, size=60):
    """Three classes as in the paper of weak transfer, the right ventricle left of the ring."""
    rows, columns = np.ogrid[:size, :size]
    radius = np.hypot(rows - 30, columns - column)
    mask = np.zeros((size, size), np.int8)
    mask[np.hypot(rows - 30, columns - column + 10) < 11] = 3
    mask[radius < 10] = 2
    mask[radius < 6] = 1
    return mask


def one(predicted=()):
    rng = np.random.default_rng(0)
    return Slice(rng.normal(size=(60, 60)), dict(predicted), heart(), (1.5, 1.5))


def _seen(colour, picture):
    target = np.round(np.array(to_rgb(colour)) * 255)
    return int((np.abs(picture - target).sum(axis=2) < 40).sum()) > 30


def lines(ax):
    """Colours and extents of the contours in a panel."""
    found = {}
    for drawn in ax.collections:
        points = np.concatenate([path.vertices for path in drawn.get_paths()])
        colour = tuple(np.round(drawn.get_edgecolor()[0][:3], 3))
        found[colour] = (points.min(axis=0), points.max(axis=0))
    return found


def of(colour):
    return tuple(np.round(to_rgb(colour), 3))


def test_each_method_has_its_row_between_input_and_reference():
    moved = {"U+D": heart(34), "U+A+D": np.zeros_like(heart())}
    figure = of_methods({"patient4": one(moved), "patient5": one(moved)}, NAMES).figure
    axes = np.reshape(figure.axes, (4, 2))
    assert [ax.get_ylabel() for ax in axes[:, 0]] == ["input", "U+D", "U+A+D", "reference"]
    assert [ax.get_title() for ax in axes[0]] == ["patient4", "patient5"]
    assert not lines(axes[0, 0])
    assert not lines(axes[2, 1])
    reference, found = lines(axes[3, 1]), lines(axes[1, 1])
    assert set(reference) == set(found) == {of(c) for c in CLASS_COLOURS[:3]}
    for colour, (low, high) in reference.items():
        np.testing.assert_allclose(found[colour][0], np.add(low, (4, 0)))
        np.testing.assert_allclose(found[colour][1], np.add(high, (4, 0)))
    shapes = {ax.images[0].get_array().shape for ax in axes.flat}
    assert len(shapes) == 1


def test_the_border_of_lv_and_myocardium_shows_the_lv(tmp_path):
    picture = of_sequences("patient1", {"bSSFP": one(), "T2": one(), "LGE": one()}, NAMES)
    svg = save(picture, tmp_path)
    assert svg.name == "sequences_patient1.svg"
    assert [ax.get_title() for ax in picture.figure.axes] == ["bSSFP", "T2", "LGE"]
    with Image.open(svg.with_suffix(".png")) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    panels = pixels[: int(0.8 * len(pixels))]  # without the legend
    assert all(_seen(colour, panels) for colour in CLASS_COLOURS[:3])
    assert not _seen(CLASS_COLOURS[3], pixels)


def test_the_middle_of_the_slices_with_all_classes():
    mask = np.stack([0 * heart(), np.minimum(heart(), 1), heart(), heart(), heart(), heart() // 3])
    assert middle(mask) == 3
    assert middle(np.full((3, 4, 4), -1)) == 1


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two experiments on the same three patients, one of which finds something far off."""
    root = tmp_path_factory.mktemp("weak")
    for experiment, column in (("weak_ud", 34), ("weak_uadt", 31)):
        rows, volumes = [], []
        for number in range(3):
            reference = np.stack([heart()] * 5)
            predicted = np.stack([heart(column + number)] * 5).astype(np.uint8)
            if experiment == "weak_ud":
                predicted[2, 2:5, 50:55] = 1
            case = CollectedCase(
                row=0, slices=np.arange(5), reference=reference, predicted=predicted,
                image=np.random.default_rng(number).normal(size=(5, 60, 60)).astype(np.float32),
                spacing=(8.0, 1.5, 1.5), indices=None,
                reference_indices=np.zeros((5, 0), np.float32),
            )  # fmt: skip
            name = f"patient{number}_LGE"
            info = {"case_id": name, "patient_id": name, "phase": "", "pathology": "",
                    "centre": "", "vendor": ""}  # fmt: skip
            volumes.append((name, case))
            rows.append(score_case(case, info, {n: k for k, n in enumerate(NAMES, start=1)}, ()))
        folder = root / experiment
        folder.mkdir()
        frames = assemble(rows, "honest")
        for name, frame in frames._asdict().items():
            write_csv(folder / f"{name}.csv", frame)
        write_gallery(folder / "gallery", frames.cases, volumes)
        identity = {"run_id": experiment, "experiment": experiment, "data": "mscmr", "fold": None,
                    "seed": 0, "protocol": "honest", "selected_on": "val", "command": ""}  # fmt: skip
        (folder / "run.json").write_text(json.dumps(identity))
    return root


def test_windows_of_methods_are_cut_alike(runs):
    (picture,) = side_by_side(read_methods([runs]))
    axes = np.reshape(picture.figure.axes, (4, 3))
    assert {ax.get_ylabel() for ax in axes[:, 0]} == {"input", "weak_ud", "weak_uadt", "reference"}
    assert {ax.get_title() for ax in axes[0]} == {f"patient{k}_LGE" for k in range(3)}
    lv = of(CLASS_COLOURS[0])
    for column in axes.T:
        number = int(column[0].get_title()[7])
        where = [lines(ax)[lv][1][0] for ax in column[1:]]
        off = {"weak_ud": 4 + number, "weak_uadt": 1 + number, "reference": 0}
        order = [ax.get_ylabel() for ax in axes[1:, 0]]
        assert np.subtract(where, where[-1]).tolist() == [off[name] for name in order]


@pytest.mark.parametrize(
    "change",
    [lambda pixels: pixels[..., ::2, ::2], lambda pixels: pixels[..., ::-1]],
    ids=["on another grid", "of another patient"],
)
def test_cases_whose_references_differ_are_not_put_side_by_side(runs, tmp_path, change):
    """Masks of another tool are scored on the grid of the files; data sets may name cases alike."""
    shutil.copytree(runs, tmp_path / "runs")
    path = tmp_path / "runs/weak_ud/gallery/patient1_LGE.npz"
    with np.load(path) as kept:
        arrays = dict(kept)
    for name in ("image", "reference", "predicted"):
        arrays[name] = change(arrays[name])
    np.savez(path, **arrays)
    (picture,) = side_by_side(read_methods([tmp_path / "runs"]))
    titles = {ax.get_title() for ax in picture.figure.axes} - {""}
    assert titles == {"patient0_LGE", "patient2_LGE"}


def test_classes_are_told_by_their_names_whatever_their_numbers(runs, tmp_path):
    shutil.copytree(runs, tmp_path / "runs")
    folder = tmp_path / "runs/weak_ud"
    cases = pd.read_csv(folder / "cases.csv")
    order = cases["label"].map({"RV": 1, "LV": 2, "myocardium": 3})
    cases.iloc[order.argsort(kind="stable")].to_csv(folder / "cases.csv", index=False)
    for path in (folder / "gallery").glob("*.npz"):
        with np.load(path) as kept:
            arrays = dict(kept)
        for name in ("reference", "predicted"):
            arrays[name] = np.array([0, 2, 3, 1], arrays[name].dtype)[arrays[name]]
        np.savez(path, **arrays)
    (before,) = side_by_side(read_methods([runs]))
    (after,) = side_by_side(read_methods([tmp_path / "runs"]))
    for one, other in zip(before.figure.axes, after.figure.axes, strict=True):
        np.testing.assert_equal(lines(other), lines(one))


def test_the_dice_of_a_slice_counts_what_lies_outside_its_picture(runs):
    methods = read_methods([runs])
    case, one = next(iter(shared_slices(methods).items()))
    assert one.masks["weak_ud"].shape[0] < 60  # what it found far off is not in the picture
    number = int(case[7])
    found = heart(34 + number) > 0
    found[2:5, 50:55] = True
    true = heart() > 0
    assert one.dice["weak_ud"] == pytest.approx(
        2 * (found & true).sum() / (found.sum() + true.sum())
    )
    _, axes = grid(1, 1)
    _paint(axes[0, 0], one, "weak_ud")
    assert [text.get_text() for text in axes[0, 0].texts] == [f"Dice {one.dice['weak_ud']:.3f}"]


def test_the_report_shows_them(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "cardiac_mtl.report.sections.pictures", lambda *_: iter(())
    )  # of the others
    assert main(["report", str(runs), "--output", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out/figures/side_by_side.png").is_file()
    assert "Methods side by side" in (tmp_path / "out/index.html").read_text()
