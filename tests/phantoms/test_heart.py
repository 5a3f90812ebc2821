"""The analytic heart against numerical integration and physiology."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cardiac_mtl.phantoms.heart import Heart, contraction_curve
from cardiac_mtl.phantoms.render import TISSUES, Tissue, View, acquire, bssfp, label_slice

hearts = st.builds(
    Heart,
    edv_ml=st.floats(80, 300),
    ef_percent=st.floats(15, 75),
    wall_mm=st.floats(6, 18),
    length_mm=st.floats(50, 75),
    descent_mm=st.floats(2, 18),
    harmonics=st.fixed_dictionaries({2: st.tuples(st.floats(0, 0.06), st.floats(0, 6))}),
)
VIEW = View((200, 200), (0.8, 0.8), 8.0, (0.0, 0.0), (0.0, 0.0), 200.0)


@given(hearts, st.floats(0, 1))
@settings(max_examples=40)
def test_volumes_are_the_integral_of_the_areas(heart, contraction):
    z = np.linspace(-5, 130, 20_000)
    for shell, volume in zip(
        heart.shells(contraction),
        (heart.cavity_ml(contraction), heart.cavity_ml(contraction) + heart.myocardium_ml),
        strict=True,
    ):
        assert shell.volume_ml() == pytest.approx(volume)
        assert np.trapezoid(shell.area(z), z) / 1000 == pytest.approx(volume, rel=2e-3)


@given(hearts)
@settings(max_examples=40)
def test_ejection_fraction_thickening_and_conserved_wall(heart):
    diastole, systole = heart.cavity_ml(0.0), heart.cavity_ml(1.0)
    assert 100 * (diastole - systole) / diastole == pytest.approx(heart.ef_percent)
    thickness = [epi.radius - endo.radius for endo, epi in map(heart.shells, (0.0, 1.0))]
    assert thickness[0] == pytest.approx(heart.wall_mm)
    assert thickness[1] > thickness[0]
    assert heart.shells(1.0)[0].base == heart.descent_mm


def test_the_mask_has_the_closed_form_area():
    heart = Heart(harmonics={2: (0.04, 1.0), 3: (0.02, 2.0)})
    for z, contraction in ((15.0, 0.0), (40.0, 0.0), (40.0, 1.0)):
        mask = label_slice(heart, VIEW, z, contraction)
        area = (mask == 1).sum() * 0.8 * 0.8
        truth = float(heart.myocardial_area(z, contraction))
        perimeter = 2 * math.pi * sum(float(s.section(z)) for s in heart.shells(contraction))
        assert abs(area - truth) < 0.1 * perimeter * 0.8
        cavity = (mask == 2).sum() * 0.8 * 0.8
        assert cavity == pytest.approx(float(heart.shells(contraction)[0].area(z)), rel=0.02)


def test_a_beat_begins_and_ends_in_diastole():
    curve = contraction_curve(100)
    assert curve[0] == 0
    assert int(curve.argmax()) == 37
    assert curve.max() == pytest.approx(1.0)
    assert curve.min() >= -1e-12
    assert curve[-1] < 0.05
    assert np.all(np.diff(curve[:38]) >= 0)


def test_bssfp_by_hand():
    # T1 = T2: the steady state is PD sin(a) (1-E)/(1-E^2) e^-TE/T2 = PD sin(a)/(1+E) e^-TE/T2
    tissue = Tissue(t1=100.0, t2=100.0, density=0.5)
    e = math.exp(-0.03)
    expected = 0.5 * math.sin(math.radians(50)) / (1 + e) * math.exp(-0.015)
    assert bssfp(tissue, flip_deg=50, tr=3.0, te=1.5) == pytest.approx(expected)


def test_blood_and_fat_are_bright_and_muscle_and_lung_are_dark():
    signal = {name: bssfp(tissue) for name, tissue in TISSUES.items()}
    assert signal["blood"] > 1.8 * signal["myocardium"]
    assert signal["fat"] > signal["myocardium"] > signal["lung"]


def test_noise_in_air_is_rayleigh():
    image = acquire(np.zeros((300, 300)), 2.0, np.random.default_rng(0))
    assert image.mean() == pytest.approx(2.0 * math.sqrt(math.pi / 2), rel=0.01)
    assert image.std() == pytest.approx(2.0 * math.sqrt(2 - math.pi / 2), rel=0.01)
