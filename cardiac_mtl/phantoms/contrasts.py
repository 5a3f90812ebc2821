"""What three sequences make of one tissue: signal equations at 1.5 T, times in ms.

The sequences are those of MS-CMRSeg (Zhuang, IEEE TPAMI 2019): balanced SSFP, black-blood
T2-weighted spin echo with suppressed fat, and inversion recovery some ten minutes after gadolinium.
What differs between patients, and between those who scan them, is drawn at the end of the file,
from published ranges.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from cardiac_mtl.phantoms.render import TISSUES, Tissue, bssfp

Tissues = Mapping[str, Tissue]
"""Relaxation by the name of a tissue."""
PARTITION: Final[Mapping[str, float]] = {
    "blood": 1.0,
    "myocardium": 0.46,
    "oedema": 0.50,
    "infarct": 1.10,
    "scar": 1.18,
    "obstruction": 0.30,
    "muscle": 0.25,
    "fat": 0.10,
    "liver": 0.45,
    "lung": 0.40,
    "spine": 0.25,
}
"""Rise of 1 / T1 after gadolinium, over that of blood.

Myocardium: Sharma et al., JMRI 2006. Scar: an extracellular volume of 68.5 % (Kellman et al., JCMR
2012, 14:64), over the plasma in blood. Others are inferred: an acute infarct washes out later than
blood, which leaves it the shorter T1, and little agent has reached an obstruction (Biglands et al.,
JCMR 2012, figure 18, after Klein et al.).
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


@dataclass(frozen=True)
class Agent:
    """Gadolinium in one patient.

    Args:
        minutes: after injection.
        dose: in mmol a kg of the body.
        haematocrit: share of the blood that the agent does not enter.
        partition: of each tissue, see `PARTITION`.
    """

    minutes: float = 10.0
    dose: float = 0.2
    haematocrit: float = HAEMATOCRIT
    partition: Mapping[str, float] = field(default_factory=lambda: PARTITION)

    @property
    def blood_rate(self) -> float:
        """Rise of 1 / T1 of blood in 1 / s."""
        return RELAXIVITY * plasma_concentration(self.minutes, self.dose) * (1 - self.haematocrit)


def enhanced(name: str, agent: Agent | None = None, tissues: Tissues = TISSUES) -> Tissue:
    """Return a tissue after gadolinium: its T1 is shorter, its T2 as good as the same.

    Args:
        name: of a tissue.
        agent: what was given, and when.
        tissues: before it.
    """
    agent = agent or Agent()
    rate = 1 / tissues[name].t1 + agent.partition[name] * agent.blood_rate / 1000
    return replace(tissues[name], t1=1 / rate)


def late_enhancement(
    agent: Agent | None = None,
    late_ms: float = 0.0,
    tr: float = 1800.0,
    tissues: Tissues = TISSUES,
) -> dict[str, float]:
    """Return the signal of each tissue in inversion recovery after gadolinium.

    Args:
        agent: what was given, and when.
        late_ms: inversion time less that which nulls healthy myocardium.
        tr: between inversions in ms.
        tissues: before gadolinium.
    """
    ti = null_time(enhanced("myocardium", agent, tissues), tr) + late_ms
    return {name: inversion_recovery(enhanced(name, agent, tissues), ti, tr) for name in tissues}


def black_blood(
    flow: float = 0.05,
    fat: float = 0.15,
    tr: float = 2000.0,
    tissues: Tissues = TISSUES,
) -> dict[str, float]:
    """Return the signal of each tissue in T2-weighted spin echo with dark blood and fat.

    Args:
        flow: share of the blood that the preparation did not reach, as it flows too slowly.
        fat: share of the fat that its suppression leaves.
        tr: repetition time in ms.
        tissues: relaxation.
    """
    left = {"blood": flow, "fat": fat}
    return {name: spin_echo(tissue, tr) * left.get(name, 1.0) for name, tissue in tissues.items()}


def draw_tissues(rng: np.random.Generator) -> dict[str, Tissue]:
    """Draw the native relaxation of one patient's tissues.

    The SD over healthy people at 1.5 T is 3 % of T1 and 5 % of T2 of myocardium (Granitz et al.,
    Wien Klin Wochenschr 2019), here of every tissue [inferred: of most no range was found].
    """
    return {
        name: replace(
            tissue,
            t1=tissue.t1 * float(rng.normal(1, 0.03)),
            t2=tissue.t2 * float(rng.normal(1, 0.05)),
        )
        for name, tissue in TISSUES.items()
    }


def draw_agent(rng: np.random.Generator) -> Agent:
    """Draw dose, delay, haematocrit and partition of gadolinium.

    Doses of 0.1 to 0.2 mmol / kg are usual, and 10 to 20 minutes (Muehlberg et al., JCMR 2018,
    20:13). What was found best is 10 minutes after 0.1 and 20 after 0.2 (JCMR 2017, article
    s12968-017-0400-4), which is taken for the longest wait, and 8 minutes for the shortest
    [inferred: sooner blood outshines a scar].

    Healthy myocardium takes 0.44 +- 0.06 of what blood does (Dabir et al., JCMR 2014, 16:69), and
    of old scars the extracellular volume is 68.5 +- 8.6 % (Kellman et al., JCMR 2012, 14:64): SD of
    14 and 13 % of the mean. The other tissues are taken to vary as much, and haematocrit by 0.04
    [inferred: from the normal ranges of men and women].
    """
    dose = float(rng.uniform(0.1, 0.2))
    return Agent(
        minutes=float(rng.uniform(8, max(12, 100 * dose))),
        dose=dose,
        haematocrit=float(np.clip(rng.normal(HAEMATOCRIT, 0.04), 0.3, 0.52)),
        partition={
            name: share
            if name == "blood"
            else share * float(np.clip(rng.normal(1, 0.13), 0.6, 1.4))
            for name, share in PARTITION.items()
        },
    )


def _draw_cine(tissues: Tissues, rng: np.random.Generator) -> dict[str, float]:
    # 50 to 60 degrees are usual, and what is reached differs by some more [inferred]
    flip = float(rng.uniform(45, 65))
    return {name: bssfp(tissue, flip) for name, tissue in tissues.items()}


def _draw_black_blood(tissues: Tissues, rng: np.random.Generator) -> dict[str, float]:
    flow, fat = float(rng.uniform(0.02, 0.08)), float(rng.uniform(0.08, 0.35))
    return black_blood(flow, fat, _draw_two_beats(rng), tissues)


def _draw_late_enhancement(tissues: Tissues, rng: np.random.Generator) -> dict[str, float]:
    """Draw agent, heart rate and inversion time, one for all slices.

    The inversion time used in 53 patients was 20 ms shorter than T1 maps asked for, quartiles of
    either 29 and 34 ms apart (Gassenmaier et al., Int J Cardiovasc Imaging 2018): the wall is grey
    in the magnitude where it comes too early, as where it comes too late. SD 25 ms [inferred: that
    of such quartiles]. What hardly tells wall from blood is acquired again [inferred: else nobody
    could read it].
    """
    agent, tr = draw_agent(rng), _draw_two_beats(rng)
    while True:
        signal = late_enhancement(agent, float(rng.normal(-20, 25)), tr, tissues)
        if signal["blood"] > 1.5 * abs(signal["myocardium"]):
            return signal


def _draw_two_beats(rng: np.random.Generator) -> float:
    """Inversions come every second beat at usual heart rates (Jenista et al., JCMR 2023, 25:18)."""
    return 2 * 60000 / float(rng.uniform(50, 90))


DRAW: Final[Mapping[str, Callable[[Tissues, np.random.Generator], Mapping[str, float]]]] = {
    "C0": _draw_cine,
    "T2": _draw_black_blood,
    "LGE": _draw_late_enhancement,
}
"""Signal of each tissue in each sequence, as one patient has it, from the patient's tissues."""
