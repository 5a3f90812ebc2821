"""The infarct: exact indices, invisible at rest, seen by what does not move."""

import hashlib
import math

import numpy as np
import pytest

from cardiac_mtl.metrics.shape import INDEX_NAMES, infarct_indices
from cardiac_mtl.phantoms.cohort import make_cohort, make_infarct_cohort, make_infarct_study
from cardiac_mtl.phantoms.heart import Heart
from cardiac_mtl.phantoms.infarct import Infarct, section_indices, walls
from cardiac_mtl.phantoms.render import (
    View,
    heart_slice,
    infarct_slice,
    label_slice,
    lv_centre,
)

HEART = Heart(wall_mm=10.0, harmonics={2: (0.04, 1.0), 3: (0.02, 2.0)})
VIEW = View((100, 90), (1.77, 1.76), 8.0, (3.0, -5.0), (0.03, 0.05), 200.0)


@pytest.fixture(scope="module")
def cohort():
    return list(make_infarct_cohort(4, phases=2, seed=1))


@pytest.mark.parametrize(
    ("infarct", "z"),
    [
        (Infarct(30.0, 60.0, 30.0, 18.0, 0.5), 30.0),
        (Infarct(-100.0, 35.0, 40.0, 15.0, 1.0, ragged=0.0), 32.0),
        (Infarct(170.0, 80.0, 45.0, 20.0, 0.8, ragged=0.25, phase=2.0), 60.0),
    ],
)
def test_the_indices_are_those_of_a_finely_rendered_mask(infarct, z):
    fine = View((900, 840), (0.16, 0.17), 8.0, (3.0, -5.0), (0.03, 0.05), 200.0)
    mask = infarct_slice(HEART, fine, z, infarct) > 0
    muscle = label_slice(HEART, fine, z, 0.0, infarct) == 1
    assert not (mask & ~muscle).any()
    [measured] = infarct_indices(mask[None], fine.spacing, muscle[None])
    truth = section_indices(HEART, infarct, z, lv_centre(fine, z), fine.septum_deg)
    assert set(truth) == set(INDEX_NAMES) - {"perimeter_mm"}
    for name, value in zip(INDEX_NAMES, measured, strict=True):
        if name in {"size_mm2", "segment_percent"}:
            assert truth[name] == pytest.approx(value, rel=2e-3), name
        elif name in truth:
            assert truth[name] == pytest.approx(value, abs=0.05), name


def test_a_plain_sector_by_hand():
    heart = Heart()
    infarct = Infarct(0.0, 60.0, 30.0, 20.0, 0.5, ragged=0.0)
    endo, epi = (float(shell.section(30.0)) for shell in heart.shells(0.0))
    edge = (endo + epi) / 2
    sector = math.radians(120) * (edge**2 - endo**2) / 2
    size = section_indices(heart, infarct, 30.0, (0.0, 0.0), 0.0)["size_mm2"]
    assert 0.85 * sector < size < sector  # the ends are rounded
    assert infarct.depth(np.array([0.0]), 30.0) == pytest.approx(0.5)


def test_outside_its_extent_there_is_no_infarct():
    infarct = Infarct(0.0, 60.0, 30.0, 10.0, 1.0)
    for z in (-5.0, 19.9, 40.1):
        truth = section_indices(HEART, infarct, z, (0.0, 0.0), 0.0)
        assert truth.pop("size_mm2") == truth.pop("segment_percent") == 0
        assert np.isnan(list(truth.values())).all()
        assert not infarct_slice(HEART, VIEW, z, infarct).any()


@pytest.mark.parametrize("z", [25.0, 50.0, 75.0])
def test_rest_does_not_tell_and_systole_does(z):
    infarct = Infarct(120.0, 60.0, 50.0, 30.0, 1.0)
    textures = np.random.default_rng(0).normal(size=(2, *VIEW.shape))
    background = np.full(VIEW.shape, 0.05)
    for contraction, same in ((0.0, True), (1.0, False)):
        images = [
            heart_slice(HEART, VIEW, z, contraction, background, textures, which)
            for which in (None, infarct)
        ]
        labels = [label_slice(HEART, VIEW, z, contraction, which) for which in (None, infarct)]
        assert np.array_equal(*images) == same
        assert np.array_equal(*labels) == same


def test_motion_falls_with_transmurality_and_is_normal_far_away():
    core, far = np.array([0.5]), np.array([0.5 + math.pi])
    z, heart = 35.0, Heart(twist_deg=0.0, harmonics=HEART.harmonics)

    def motion(transmurality, angle):
        infarct = Infarct(math.degrees(0.5), 50.0, z, 20.0, transmurality, ragged=0.0)
        rest, systole = (walls(heart, angle, z, s, infarct) for s in (0.0, 1.0))
        thickening = (systole.outer - systole.inner) / (rest.outer - rest.inner) - 1
        return [*thickening, *(rest.inner - systole.inner), *(rest.outer - systole.outer)]

    healthy = motion(0.0, core)
    assert healthy[0] > 0.3
    falling = np.array([motion(t, core) for t in (0.0, 0.25, 0.5, 0.75, 1.0)])
    assert (np.diff(falling, axis=0) < 0).all()
    assert (falling[1] > 0.5 * falling[0]).all()  # hypokinetic
    assert (np.abs(falling[-1]) < 0.06 * falling[0]).all()  # akinetic
    assert motion(1.0, far) == motion(0.0, far)


def test_the_border_is_tethered_and_reaches_into_the_healthy_wall():
    infarct = Infarct(0.0, 40.0, 35.0, 20.0, 1.0, ragged=0.0, border=0.3)
    angle = np.radians(np.arange(0.0, 90.0))
    missing = infarct.akinesia(angle, 35.0)
    assert (np.diff(missing) <= 0).all()
    assert np.abs(np.diff(missing)).max() < 0.08  # nowhere a jump from one degree to the next
    assert missing[40] == pytest.approx(missing[0] / 2)
    assert missing[45] > 0.1
    assert infarct.depth(angle, 35.0)[45] == missing[53] == 0


def test_a_control_is_the_patient_without_the_infarct(cohort):
    # patient 0, whose random numbers the infarct must not shift
    study, control = cohort[0], make_infarct_study("x", "control", 2, np.random.default_rng([1, 0]))
    np.testing.assert_array_equal(study.image[0], control.image[0])
    np.testing.assert_array_equal(study.mask[0], control.mask[0])
    assert (study.image[1] != control.image[1]).any()
    assert ((study.mask[1] == 2).sum(axis=(1, 2)) >= (control.mask[1] == 2).sum(axis=(1, 2))).all()


def test_the_cohort_has_controls_without_infarct_and_infarcts_of_a_few_slices(cohort):
    assert [s.pathology for s in cohort] == ["infarct"] * 3 + ["control"]
    for study in cohort:
        assert study.infarct.dtype == np.uint8
        assert study.infarct.shape == study.mask.shape[1:]
        sizes = [v[0] for k, v in study.truth.items() if k.startswith("infarct_size_mm2_")]
        assert len(sizes) == len(study.infarct)
        assert ("cavity_ml" in study.truth) == (study.pathology == "control")
        slices = study.infarct.any(axis=(1, 2)).sum()
        assert (slices == 0) if study.pathology == "control" else (2 <= slices <= 6)


def test_masks_carry_the_indices_of_the_truth(cohort):
    for study in cohort[:3]:
        spacing = np.linalg.norm(study.affine[:3, :3], axis=0)[[1, 0]]
        measured = infarct_indices(study.infarct > 0, spacing, study.mask[0] == 1)
        for k, row in enumerate(measured):
            for name, tolerance in (("segment_percent", 2), ("centroid_y_mm", 2)):
                [truth] = study.truth[f"infarct_{name}_{k}"]
                value = row[INDEX_NAMES.index(name)]
                assert value == pytest.approx(truth, abs=tolerance, nan_ok=True)


def test_a_patient_does_not_depend_on_the_size_of_the_cohort(cohort):
    alone = next(make_infarct_cohort(1, phases=2, seed=1))
    np.testing.assert_array_equal(alone.image, cohort[0].image)
    np.testing.assert_array_equal(alone.infarct, cohort[0].infarct)


def test_healthy_hearts_are_what_they_were_before_there_were_infarcts():
    study = next(make_cohort(1, phases=2, seed=4))
    digest = hashlib.sha256(study.image.tobytes() + study.mask.tobytes()).hexdigest()
    assert digest == "5383328a4ccbba079edfb3d683df637059e92b10b84bde82a7e733134b07cd8c"
    assert study.infarct is None
