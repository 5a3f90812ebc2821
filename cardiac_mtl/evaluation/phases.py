"""Which phase is end-diastole or end-systole, and which slice apical, mid or basal."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray


def name_phases(cavity_by_phase: Mapping[str, float]) -> dict[str, str]:
    """Name the phases of one patient.

    ED is the first phase where its cavity is the largest, else the largest; ES the smallest.
    Phases that already say ED or ES keep their names. A lone phase without a name has none, and
    so have all where no cavity was found: the class is no ring, or none is closed.

    Source: Dangi et al., STACOM 2018, do not state the rule; docs/papers/mtn.md.

    Args:
        cavity_by_phase: phase, as the case table has it, to volume of the cavity, any unit.

    Returns:
        Phase to `ED`, `ES` or an empty string.
    """
    names = {phase: phase if phase in {"ED", "ES"} else "" for phase in cavity_by_phase}
    if any(names.values()) or len(names) < 2:
        return names
    ordered = sorted(cavity_by_phase, key=lambda p: (not p.isdigit(), int(p) if p.isdigit() else 0))
    volumes = [cavity_by_phase[phase] for phase in ordered]
    if not any(volumes):
        return names
    names[ordered[int(np.argmax(volumes))]] = "ED"  # the first of equals: phase 0 wins
    smallest = ordered[int(np.argmin(volumes))]
    if not names[smallest]:
        names[smallest] = "ES"
    return names


def name_regions(nonempty: NDArray[np.bool_]) -> list[str]:
    """Name the slices of one volume.

    Among the slices whose reference is not empty, base to apex, the first two are basal, the last
    two apical, the rest mid [paper of MTN]. Of four none is mid, of three each is one, of two the
    first is basal and the last apical, one is basal.

    Args:
        nonempty: (S,), base to apex.

    Returns:
        `basal`, `mid`, `apical`, or an empty string for an empty slice.
    """
    names = [""] * len(nonempty)
    bearing = np.flatnonzero(nonempty).tolist()
    ends = 2 if len(bearing) > 3 else 1
    for rank, place in enumerate(bearing):
        if rank < ends:
            names[place] = "basal"
        elif rank >= len(bearing) - ends:
            names[place] = "apical"
        else:
            names[place] = "mid"
    return names
