"""What three sequences make of one tissue: signal equations at 1.5 T, times in ms.

The sequences are those of MS-CMRSeg (Zhuang, IEEE TPAMI 2019): balanced SSFP, black-blood
T2-weighted spin echo with suppressed fat, and inversion recovery some ten minutes after gadolinium.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

import numpy as np

from cardiac_mtl.phantoms.render import CINE, TISSUES, Tissue

PARTITION: Final = {
    "blood": 1.0,
    "myocardium": 0.46,
    "oedema": 0.50,
    "infarct": 1.10,
    "scar": 1.05,
    "obstruction": 0.30,
    "muscle": 0.25,
    "fat": 0.10,
    "liver": 0.45,
    "lung": 0.40,
    "spine": 0.25,
}
"""Rise of 1 / T1 after gadolinium, over that of blood. Myocardium: Sharma et al., JMRI 2006. Others
are inferred: infarct and scar wash out later than blood, which leaves them the shorter T1, and
little agent has reached an obstruction (Biglands et al., JCMR 2012, figure 18, after Klein et al.).
"""
HAEMATOCRIT: Final = 0.42
RELAXIVITY: Final = 4.1
"""Of Gd-DTPA in plasma at 1.5 T, 37 degrees, l / (mmol s): Rohrer et al., Invest Radiol 2005."""


def spin_echo(tissue: Tissue, tr: float = 2000.0, te: float = 80.0) -> float:
    """Return the signal of a spin echo.

    Source: Bernstein, King, Zhou, Handbook of MRI Pulse Sequences, 2004, section 14.3, for an echo
    time far below the repetition time, which is two heart beats.

    Args:
        tissue: relaxation in ms.
        tr: repetition time in ms.
        te: echo time in ms.
    """
    return tissue.density * (1 - math.exp(-tr / tissue.t1)) * math.exp(-te / tissue.t2)


def inversion_recovery(tissue: Tissue, ti: float, tr: float = 1800.0, te: float = 1.8) -> float:
    """Return the signal of an inversion-recovery gradient echo, negative before the null.

    In the steady state, inverted every `tr`: 1 - 2 exp(-TI/T1) / (1 + exp(-TR/T1)). Inversion is
    perfect, and what the small flip angles of the readout take is neglected.

    Args:
        tissue: relaxation in ms.
        ti: from the inversion to the readout in ms.
        tr: between inversions in ms: two heart beats.
        te: echo time in ms.
    """
    recovered = 1 - 2 * math.exp(-ti / tissue.t1) / (1 + math.exp(-tr / tissue.t1))
    return tissue.density * recovered * math.exp(-te / tissue.t2)


def null_time(tissue: Tissue, tr: float = 1800.0) -> float:
    """Return the inversion time in ms that leaves no signal of a tissue."""
    return tissue.t1 * math.log(2 / (1 + math.exp(-tr / tissue.t1)))


def plasma_concentration(minutes: float, dose: float = 0.2) -> float:
    """Return the concentration of Gd-DTPA in plasma in mmol/l.

    Source: Tofts and Kermode, MRM 1991, two exponentials through the data of Weinmann et al. 1984.

    Args:
        minutes: after injection.
        dose: in mmol a kg of the body.
    """
    return dose * (3.99 * math.exp(-0.144 * minutes) + 4.78 * math.exp(-0.0111 * minutes))


def enhanced(name: str, minutes: float = 10.0) -> Tissue:
    """Return a tissue after gadolinium: its T1 is shorter, its T2 as good as the same.

    Args:
        name: of a tissue.
        minutes: after injection.
    """
    blood = RELAXIVITY * plasma_concentration(minutes) * (1 - HAEMATOCRIT)  # 1 / s
    rate = 1 / TISSUES[name].t1 + PARTITION[name] * blood / 1000
    return replace(TISSUES[name], t1=1 / rate)


def late_enhancement(minutes: float = 10.0, mistimed: float = 1.0) -> dict[str, float]:
    """Return the signal of each tissue in inversion recovery after gadolinium.

    Args:
        minutes: after injection.
        mistimed: inversion time over that which nulls healthy myocardium.
    """
    ti = mistimed * null_time(enhanced("myocardium", minutes))
    return {name: inversion_recovery(enhanced(name, minutes), ti) for name in TISSUES}


def black_blood(flow: float = 0.05, fat: float = 0.15) -> dict[str, float]:
    """Return the signal of each tissue in T2-weighted spin echo with dark blood and fat.

    Args:
        flow: share of the blood that the preparation did not reach, as it flows too slowly.
        fat: share of the fat that its suppression leaves.
    """
    left = {"blood": flow, "fat": fat}
    return {name: spin_echo(tissue) * left.get(name, 1.0) for name, tissue in TISSUES.items()}


def _draw_late_enhancement(rng: np.random.Generator) -> dict[str, float]:
    return late_enhancement(float(rng.uniform(8, 14)), float(rng.uniform(0.94, 1.12)))


def _draw_black_blood(rng: np.random.Generator) -> dict[str, float]:
    return black_blood(float(rng.uniform(0.02, 0.08)), float(rng.uniform(0.08, 0.35)))


DRAW: Final[Mapping[str, Callable[[np.random.Generator], Mapping[str, float]]]] = {
    "C0": lambda _: CINE,
    "T2": _draw_black_blood,
    "LGE": _draw_late_enhancement,
}
"""Signal of each tissue in each sequence, as one patient has it."""
