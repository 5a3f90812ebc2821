"""Loops: they move, they hold both contours where the masks are, they are small."""

from itertools import pairwise

import numpy as np
import pytest
from PIL import Image, ImageColor

from cardiac_mtl.contracts import UNLABELLED
from cardiac_mtl.report.pictures.figures import PREDICTED, REFERENCE
from cardiac_mtl.report.pictures.gallery import Window, fullest
from cardiac_mtl.report.pictures.loops import SIDE, Frame, film, write_loop


def cine(phases=25, side=56, shift=6, annotated=True):
    """A blob that beats in noise, an infarct in it, and a prediction beside that."""
    rng = np.random.default_rng(0)
    rows, columns = np.ogrid[:side, :side]
    reference = np.zeros((side, side), np.int8)
    reference[20:30, 12:20] = 1
    predicted = np.roll(reference, shift, axis=1).astype(np.uint8)
    if not annotated:
        reference = np.full_like(reference, UNLABELLED)
    radii = 14 + 5 * np.cos(2 * np.pi * np.arange(phases) / phases)
    blobs = [np.hypot(rows - side / 2, columns - side / 2) < radius for radius in radii]
    images = [(60 + 130 * blob + rng.normal(0, 12, blob.shape)).clip(0, 255) for blob in blobs]
    return [Frame(image.astype(np.uint8), reference, predicted) for image in images]


def frames_of(path):
    with Image.open(path) as loop:
        count = loop.n_frames
        pictures = []
        for k in range(count):
            loop.seek(k)
            pictures.append(np.asarray(loop.convert("RGB")).astype(int))
        return pictures, loop.info


def where(colour, picture):
    return (picture == ImageColor.getrgb(colour)).all(axis=2)


def test_a_loop_plays_for_ever_and_is_small(tmp_path):
    write_loop(tmp_path / "a.gif", cine(), 1.0, "a case\nslice 3")
    pictures, info = frames_of(tmp_path / "a.gif")
    assert len(pictures) == 25
    assert info["loop"] == 0
    assert 1000 <= 25 * info["duration"] <= 1500
    assert (tmp_path / "a.gif").stat().st_size < 300_000
    assert [path.name for path in tmp_path.iterdir()] == ["a.gif"]
    moved = [np.abs(a - b)[:SIDE].mean() for a, b in pairwise(pictures)]
    assert min(moved) > 0


def test_contours_lie_where_the_masks_are(tmp_path):
    write_loop(tmp_path / "a.gif", cine(phases=2, shift=20), 1.0, "a case")
    (picture, _), _ = frames_of(tmp_path / "a.gif")
    scale = SIDE / 56
    for colour, left in ((REFERENCE, 12), (PREDICTED, 32)):
        rows, columns = np.nonzero(where(colour, picture)[:SIDE])
        edges = np.array([rows.min(), rows.max(), columns.min(), columns.max()]) / scale
        assert edges == pytest.approx([20, 30, left, left + 8], abs=0.6)
    assert where(REFERENCE, picture).sum() > 1.2 * where(PREDICTED, picture).sum()  # dashed


def test_pixels_that_are_not_square_keep_their_shape(tmp_path):
    write_loop(tmp_path / "a.gif", cine(phases=2), 1.5, "a case")
    (picture, _), _ = frames_of(tmp_path / "a.gif")
    rows, columns = np.nonzero(where(REFERENCE, picture)[: round(1.5 * SIDE)])
    assert np.ptp(rows) / np.ptp(columns) == pytest.approx(1.5 * 10 / 8, rel=0.05)


def test_no_legend_promises_a_reference_that_is_not_there(tmp_path):
    write_loop(tmp_path / "a.gif", cine(phases=2, annotated=False), 1.0, "a case")
    (picture, _), _ = frames_of(tmp_path / "a.gif")
    assert where(REFERENCE, picture).sum() == 0
    assert where(PREDICTED, picture).sum() > 100


def test_a_film_is_one_slice_in_all_its_phases():
    images = np.arange(2 * 3 * 4 * 4, dtype=np.uint8).reshape(2, 3, 4, 4)
    mask = np.zeros((3, 4, 4), np.int8)
    mask[2, 1, 1] = mask[1, 1:3, 1] = 1
    window = Window(images, mask, mask.astype(np.uint8), np.ones(3, np.float32))
    assert fullest(window) == 1
    found = film([window, window], 1)
    assert [frame.image[0, 0] for frame in found] == [16, 64, 16, 64]
    assert found[3].reference.sum() == 2
