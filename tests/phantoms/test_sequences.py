"""Three sequences: signals by hand, masks by closed form, one heart that moved between them."""

import math

import numpy as np
import pytest

from cardiac_mtl.phantoms import contrasts
from cardiac_mtl.phantoms.infarct import walls
from cardiac_mtl.phantoms.protocols import PROTOCOLS
from cardiac_mtl.phantoms.render import (
    TISSUES,
    Body,
    Tissue,
    View,
    acquire,
    body_slice,
    heart_slice,
    infarct_slice,
)
from cardiac_mtl.phantoms.sequences import (
    KINDS,
    draw_patient,
    draw_scan,
    ghosted,
    make_sequence_cohort,
    make_sequence_study,
)


@pytest.fixture(scope="module")
def cohort():
    return list(make_sequence_cohort(4, seed=1, scale=4))


def drawn(number, sequence, seed=1, scale=2, shift_mm=4.0):
    """Return patient, scan and volume of one sequence as the cohort has them."""
    rng = np.random.default_rng([seed, number])
    kind = KINDS[number % len(KINDS)]
    patient = draw_patient(kind, rng)
    stream = rng.spawn(len(PROTOCOLS))[list(PROTOCOLS).index(sequence)]
    scan = draw_scan(patient, sequence, stream, shift_mm, scale)
    rng = np.random.default_rng([seed, number])
    study = make_sequence_study("patient1", kind, rng, shift_mm, scale)
    return patient, scan, study.volumes[sequence]


def test_a_spin_echo_by_hand():
    tissue = Tissue(1000, 50, 0.8)
    by_hand = 0.8 * (1 - 0.1353353) * 0.2018965  # e^-2, e^-1.6
    assert contrasts.spin_echo(tissue, tr=2000, te=80) == pytest.approx(by_hand, rel=1e-6)


def test_inversion_recovery_is_the_steady_state_of_repeated_inversion():
    tissue, ti, tr = Tissue(700, 1e9, 1.0), 250.0, 1600.0
    magnetisation = 1.0
    for _ in range(60):
        at_readout = 1 - (1 + magnetisation) * math.exp(-ti / tissue.t1)
        magnetisation = 1 - (1 - at_readout) * math.exp(-(tr - ti) / tissue.t1)
    signal = contrasts.inversion_recovery(tissue, ti, tr, te=0.0)
    assert signal == pytest.approx(at_readout, rel=1e-9)
    null = contrasts.null_time(tissue, tr)
    assert contrasts.inversion_recovery(tissue, null, tr) == pytest.approx(0.0, abs=1e-12)
    assert contrasts.inversion_recovery(tissue, null - 50, tr) < 0


def test_gadolinium_by_hand():
    concentration = 0.2 * (3.99 * 0.2369278 + 4.78 * 0.8949389)
    assert contrasts.plasma_concentration(10.0) == pytest.approx(concentration, rel=1e-6)
    blood = 4.1 * concentration * 0.58
    assert contrasts.enhanced("blood").t1 == pytest.approx(1000 / (1 / 1.5 + blood), rel=1e-6)
    myocardium = 1000 / (1 / 1.03 + 0.46 * blood)
    assert contrasts.enhanced("myocardium").t1 == pytest.approx(myocardium, rel=1e-6)


def test_every_tissue_has_a_signal_in_every_sequence():
    rng = np.random.default_rng(0)
    for draw in contrasts.DRAW.values():
        assert draw(contrasts.draw_tissues(rng), rng).keys() == TISSUES.keys()


def test_scar_is_bright_and_healthy_wall_dark_after_gadolinium():
    late = contrasts.late_enhancement()
    assert late["myocardium"] == pytest.approx(0.0, abs=1e-12)
    assert min(late["scar"], late["infarct"]) > late["blood"] > 0.2
    assert abs(late["obstruction"]) < 0.4 * late["infarct"]
    assert late["muscle"] < 0  # its longer T1 is not at the null yet
    late = contrasts.late_enhancement(late_ms=25.0)
    assert 0 < late["myocardium"] < 0.3 * late["scar"]
    early = contrasts.late_enhancement(late_ms=-25.0)
    assert early["myocardium"] < 0 < early["blood"] < early["scar"]


def test_less_agent_leaves_longer_t1_and_the_null_comes_later():
    half, more_cells = (
        contrasts.Agent(dose=0.1),
        contrasts.Agent(haematocrit=1 - 0.5 * (1 - contrasts.HAEMATOCRIT)),
    )
    for name in ("blood", "myocardium"):
        once, full = contrasts.enhanced(name, half).t1, contrasts.enhanced(name).t1
        assert 1 / once - 1 / TISSUES[name].t1 == pytest.approx(
            (1 / full - 1 / TISSUES[name].t1) / 2, rel=1e-9
        )
        assert contrasts.enhanced(name, more_cells).t1 == pytest.approx(once, rel=1e-9)
    wall = [contrasts.enhanced("myocardium", agent) for agent in (half, None)]
    later, sooner = (contrasts.null_time(tissue) for tissue in wall)
    assert later > sooner + 30


def test_patients_differ_as_the_sources_say():
    rng = np.random.default_rng(0)
    tissues = [contrasts.draw_tissues(rng) for _ in range(400)]
    t1 = np.array([one["myocardium"].t1 for one in tissues])
    assert t1.mean() == pytest.approx(TISSUES["myocardium"].t1, rel=0.01)
    assert t1.std() / t1.mean() == pytest.approx(0.03, abs=0.005)
    agents = [contrasts.draw_agent(rng) for _ in range(400)]
    share = np.array([one.partition["myocardium"] for one in agents])
    assert share.mean() == pytest.approx(0.46, abs=0.02)
    assert share.std() == pytest.approx(0.06, abs=0.01)
    assert {one.partition["blood"] for one in agents} == {1.0}
    assert all(one.minutes <= max(12, 100 * one.dose) for one in agents)
    assert sum(one.minutes > 15 for one in agents) > 20


def test_late_enhancement_is_never_kept_where_blood_and_wall_look_alike():
    rng = np.random.default_rng(0)
    draw = contrasts.DRAW["LGE"]
    signals = [draw(contrasts.draw_tissues(rng), rng) for _ in range(300)]
    wall = np.array([one["myocardium"] / one["blood"] for one in signals])
    assert np.abs(wall).max() < 1 / 1.5
    assert 0.5 < (wall < 0).mean() < 0.9  # most come too early, and some too late
    scar = np.array([one["scar"] / one["blood"] for one in signals])
    assert (scar < 1).any()
    assert (scar > 2).any()


def test_oedema_is_bright_and_blood_dark_in_t2():
    t2 = contrasts.black_blood()
    assert t2["oedema"] > 1.5 * t2["myocardium"] > 3 * t2["blood"]
    assert t2["obstruction"] < 0.7 * t2["infarct"]


def median(volume, where):
    return float(np.median(volume.image[where]))


def within_wall(patient, scan, patch):
    """Return (S, H, W), a patch less what shares a pixel or a slice with others."""
    thick = scan.view.thickness
    masks = [
        np.all(
            [
                infarct_slice(patient.heart, scan.view, z + d, patch)
                for d in (-thick / 2, 0, thick / 2)
            ],
            axis=0,
        )
        for z in scan.depths
    ]
    return np.stack(masks)


@pytest.mark.parametrize("number", [0, 1, 3])
def test_late_enhancement_shows_scar_in_a_dark_wall(number):
    patient, scan, volume = drawn(number, "LGE")
    scar = within_wall(patient, scan, patient.infarct)
    wall, blood = median(volume, (volume.mask == 2) & ~scar), median(volume, volume.mask == 1)
    assert blood > 1.3 * wall  # of which the magnitude shows noise, and the fat beside it
    if KINDS[number] == "obstructed":
        *_, (tissue, core, _) = patient.lesions
        assert tissue == "obstruction"
        dark = within_wall(patient, scan, core)
        assert dark.sum() > 50
        assert median(volume, scar & ~dark) > 1.5 * median(volume, dark)
        scar &= ~dark
    assert median(volume, scar) > 1.5 * wall


def test_oedema_shows_in_t2_and_reaches_beyond_the_infarct():
    patient, scan, volume = drawn(3, "T2")
    (_, at_risk, _), (_, infarct, _) = patient.lesions
    oedema, dead = (within_wall(patient, scan, patch) for patch in (at_risk, infarct))
    assert oedema.sum() > dead.sum()
    wall = median(volume, (volume.mask == 2) & ~oedema)
    assert median(volume, oedema & ~dead) > 1.2 * wall
    assert median(volume, volume.mask == 1) < 0.7 * wall


def test_blood_is_bright_in_c0(cohort):
    for study in cohort:
        volume = study.volumes["C0"]
        wall = median(volume, volume.mask == 2)  # in pixels of 5 to 7 mm
        assert median(volume, volume.mask == 1) > 1.5 * wall
        assert median(volume, volume.mask == 3) > 1.5 * wall


def test_the_kinds_take_turns(cohort):
    scars = [study.truth["scar_ml"] for study in cohort]
    assert [kind for kind, scar in zip(KINDS, scars, strict=True) if scar == 0] == ["healthy"]
    assert [study.patient_id for study in cohort] == [f"patient{n}" for n in (1, 2, 3, 4)]


def test_masks_carry_the_closed_form_areas_and_volumes():
    for study in make_sequence_cohort(3, seed=3, scale=2):
        for name, volume in study.volumes.items():
            spacing = np.linalg.norm(volume.affine[:3, :3], axis=0)
            for label, tissue in ((1, "cavity"), (2, "myocardium")):
                areas = (volume.mask == label).sum(axis=(1, 2)) * spacing[0] * spacing[1]
                truth = [study.truth[f"{tissue}_mm2_{name}_{k}"] for k in range(len(areas))]
                np.testing.assert_allclose(areas, truth, atol=12 * spacing[0] ** 2, rtol=0.01)
            if name == "LGE":
                cavity = (volume.mask == 1).sum() * spacing.prod() / 1000
                assert cavity == pytest.approx(study.truth["cavity_ml"], rel=0.12)


def test_the_volume_of_a_scar_is_that_of_its_finely_cut_sections():
    _, study = make_sequence_cohort(2, seed=1, scale=8)
    patient, _, _ = drawn(1, "LGE", scale=8)
    view = View((180, 180), (0.8, 0.8), 1.0, (0.0, 0.0), (0.0, 0.0), 0.0)
    depths = np.arange(0.5, 110, 1.0)
    areas = [infarct_slice(patient.heart, view, z, patient.infarct).sum() * 0.64 for z in depths]
    assert study.truth["scar_ml"] == pytest.approx(sum(areas) * 1.0 / 1000, rel=0.01)


def test_geometries_are_those_of_the_challenge(cohort):
    for study in cohort:
        for name, volume in study.volumes.items():
            slices, rows, columns = volume.image.shape
            fewest, most = {"LGE": (10, 18), "C0": (8, 12), "T2": (3, 7)}[name]
            assert fewest <= slices <= most
            assert rows == columns
            assert 4 * rows in PROTOCOLS[name].matrices
            column, row, step = np.linalg.norm(volume.affine[:3, :3], axis=0)
            assert 340 <= rows * row <= 400
            assert row == pytest.approx(column)
            assert step >= PROTOCOLS[name].step_mm[0]
            axes = volume.affine[:3, :3] / [column, row, step]
            np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-9)
            assert axes[:, 2] @ [1, -1, -1] > 1


def test_the_same_seed_gives_the_same_patients(cohort):
    alone = next(make_sequence_cohort(1, seed=1, scale=4))
    other = next(make_sequence_cohort(1, seed=2, scale=4))
    for name, volume in cohort[0].volumes.items():
        np.testing.assert_array_equal(alone.volumes[name].image, volume.image)
        np.testing.assert_array_equal(alone.volumes[name].mask, volume.mask)
    assert alone.truth == cohort[0].truth
    assert other.truth["cavity_ml"] != alone.truth["cavity_ml"]


def test_scale_changes_pixels_alone(cohort):
    coarse = next(make_sequence_cohort(1, seed=1, scale=8))
    assert coarse.truth == cohort[0].truth
    for name, volume in cohort[0].volumes.items():
        assert volume.image.shape[1] == 2 * coarse.volumes[name].image.shape[1]


def places(volume):
    """Return of each slice: rows and columns in mm of the centre of the LV, and its area."""
    column, row, _ = np.linalg.norm(volume.affine[:3, :3], axis=0)
    found = []
    for mask in (volume.mask == 1) | (volume.mask == 2):
        where = np.argwhere(mask)
        centre = where.mean(0) * (row, column) if len(where) else (np.nan, np.nan)
        found.append((*centre, len(where) * row * column))
    return np.array(found).T


def test_a_held_breath_moves_the_heart_and_no_header():
    still, moved = (
        list(make_sequence_cohort(2, seed=5, shift_mm=shift, scale=2)) for shift in (0.0, 8.0)
    )
    for before, after in zip(still, moved, strict=True):
        np.testing.assert_array_equal(before.volumes["C0"].mask, after.volumes["C0"].mask)
        for name in ("LGE", "T2"):
            was, now = before.volumes[name], after.volumes[name]
            np.testing.assert_array_equal(was.affine, now.affine)
            down, right, deep = (
                after.truth[f"shift_{axis}_mm_{name}"] for axis in ("rows", "columns", "depth")
            )
            assert math.hypot(down, right, deep) == pytest.approx(8.0)
            rows, columns, areas = places(was)
            rows_now, columns_now, areas_now = places(now)
            # the long axis is oblique: a slice further along it lies up to 1 mm aside
            assert np.nanmedian(rows_now - rows) == pytest.approx(down, abs=1.2)
            assert np.nanmedian(columns_now - columns) == pytest.approx(right, abs=1.2)
            depths = np.linalg.norm(now.affine[:3, 2]) * np.arange(len(areas))
            if name == "LGE":  # T2 has too few slices to tell where along the axis they lie
                tried = np.arange(-10, 10.1, 0.5)
                unlike = [
                    np.abs(areas_now - np.interp(depths - d, depths, areas))[2:-2].sum()
                    for d in tried
                ]
                assert tried[np.argmin(unlike)] == pytest.approx(deep, abs=1.5)


def test_interpolated_pixels_lie_between_the_acquired_ones():
    rng = np.random.default_rng(0)
    rows, columns = np.ogrid[:16, :20]
    signal = 3 + np.cos(2 * np.pi * rows / 16) * np.sin(2 * np.pi * columns / 20)
    acquired, shown = (acquire(signal, 1e-9, rng, zoom) for zoom in (1, 2))
    np.testing.assert_allclose(shown[::2, ::2], acquired, atol=1e-6)
    height = 3 - acquired[8, 5]
    between = 3 + height * np.cos(np.pi / 16 * np.arange(32))
    inner = slice(6, 26)  # the blur reflects at the edge
    np.testing.assert_allclose(shown[inner, 10], between[inner], atol=0.005)


def test_a_ghost_lies_a_part_of_the_field_of_view_away():
    image = np.zeros((12, 3))
    image[5, 1] = 10.0
    by_hand = image.copy()
    by_hand[1, 1] = by_hand[9, 1] = 1.0
    np.testing.assert_allclose(ghosted(image, 3, 0.2), by_hand)


def test_a_fat_patient_has_more_fat_around_chest_and_heart():
    patient, scan, _ = drawn(1, "LGE")
    rng = np.random.default_rng(0)
    signal = dict.fromkeys(TISSUES, 0.0) | {"fat": 1.0}
    seen = []
    for body in (Body(skin_mm=10.0, epicardial=0.7), Body(skin_mm=30.0, epicardial=1.8)):
        flat = np.zeros((2, *scan.view.shape))
        around = body_slice(scan.view, 20.0, rng, signal, body)
        heart = heart_slice(
            patient.heart, scan.view, 20.0, 0.0, 0 * around, flat, signal=signal,
            epicardial=body.epicardial,
        )  # fmt: skip
        seen.append((around.sum(), heart.sum()))
    (thin_skin, thin), (thick_skin, thick) = seen
    assert thick_skin > 1.5 * thin_skin
    assert thick > 1.3 * thin > 0


def test_lesions_lie_within_the_wall():
    patient, _, _ = drawn(0, "LGE", scale=8)
    angle = np.linspace(-np.pi, np.pi, 90)
    z = patient.infarct.centre_mm
    wall = walls(patient.heart, angle, z, 0.0)
    oedema, infarct, core = (patch.depth(angle, z) for _, patch, _ in patient.lesions)
    assert (oedema >= infarct).all()
    assert (infarct >= core).all()
    assert oedema.max() <= 1
    assert core.max() > patient.lesions[-1].inner
    assert (wall.outer > wall.inner).all()
