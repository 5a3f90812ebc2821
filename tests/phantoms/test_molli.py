"""The fit of T1: closed forms without noise, the library's optimiser as reference, noise as it is."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.optimize import curve_fit

from cardiac_mtl.phantoms.molli import fit_t1, inversion_times, recovery


def signed(t1, beat_ms):
    times = inversion_times(beat_ms)
    return recovery(np.asarray(t1, float), times, beat_ms), times


def noisy(t1, count, noise, seed=0):
    signal, times = signed(np.full(count, float(t1)), 900.0)
    rng = np.random.default_rng(seed)
    real, imaginary = rng.normal(0, noise, (2, *signal.shape))
    return np.hypot(signal + real, imaginary), times


def test_the_scheme_is_five_and_three_images_a_beat_apart():
    np.testing.assert_allclose(
        inversion_times(1000.0), [110, 190, 1110, 1190, 2110, 2190, 3110, 4110]
    )
    np.testing.assert_allclose(np.ptp(inversion_times(600.0)), 4 * 600)


def test_the_signal_begins_inverted_and_settles_below_equilibrium():
    signal = recovery(np.array([1000.0]), np.array([0.0, 1e5]), 1000.0)
    apparent = 1 / (1 / 1000 + 0.22 / 1000)
    np.testing.assert_allclose(signal[:, 0], [-1, apparent / 1000])


@given(t1=st.floats(250, 2600), beat_ms=st.floats(600, 1200), gain=st.floats(0.1, 1000))
def test_without_noise_the_fit_returns_t1_whatever_the_heart_rate_and_the_unit(t1, beat_ms, gain):
    signal, times = signed([t1], beat_ms)
    assume(np.abs(signal).min() > 0.01)  # at a zero crossing a magnitude has no sign to tell
    np.testing.assert_allclose(fit_t1(gain * np.abs(signal), times), [t1], rtol=2e-4)


def test_the_fit_is_that_of_a_general_optimiser():
    magnitude, times = noisy(1200, 40, 0.02)
    ours = fit_t1(magnitude, times)

    def model(t, a, b, apparent):
        return a - b * np.exp(-t / apparent)

    for k in range(40):
        found = []
        for negative in range(6):
            y = np.where(np.arange(8) < negative, -1, 1) * magnitude[:, k]
            try:
                (a, b, apparent), *_ = curve_fit(model, times, y, p0=(0.6, 1.4, 900.0))
            except RuntimeError:
                continue
            misfit = ((model(times, a, b, apparent) - y) ** 2).sum()
            found.append((misfit, apparent * (b / a - 1)))
        assert ours[k] == pytest.approx(min(found)[1], rel=1e-3)


def test_the_fit_varies_more_where_there_is_more_noise():
    quiet, loud = (fit_t1(*noisy(1200, 2000, noise)) for noise in (0.01, 0.03))
    assert np.median(quiet) == pytest.approx(1200, rel=0.01)
    assert loud.std() > 2 * quiet.std() > 10


def test_the_sign_is_found_where_two_images_are_equally_bright():
    fitted = fit_t1(*noisy(740, 2000, 0.02))  # at 1010 and 1090 ms nearly as bright as at 190
    assert np.mean(np.abs(fitted / 740 - 1) < 0.2) > 0.99


def test_pure_noise_gives_numbers_and_no_warning():
    noise = np.random.default_rng(0).rayleigh(1.0, (8, 20, 30))
    fitted = fit_t1(noise, inversion_times(900.0))
    assert fitted.shape == (20, 30)
    assert np.isfinite(fitted).all()
    assert (fitted >= 0).all()
    assert (fit_t1(np.zeros((8, 3)), inversion_times(900.0)) == 0).all()
