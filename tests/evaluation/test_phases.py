"""ED and ES from the cavity; apical, mid and basal from the slices that hold something."""

import numpy as np
import pytest

from cardiac_mtl.evaluation.phases import name_phases, name_regions


@pytest.mark.parametrize(
    ("cavities", "expected"),
    [
        ({"0": 9.0, "1": 4.0, "2": 7.0}, {"0": "ED", "1": "ES", "2": ""}),
        ({"0": 9.0, "5": 9.0, "10": 3.0}, {"0": "ED", "5": "", "10": "ES"}),
        ({"0": 8.0, "1": 4.0, "2": 9.0}, {"0": "", "1": "ES", "2": "ED"}),
        ({"10": 5.0, "9": 5.0}, {"10": "", "9": "ED"}),
        ({"ED": 1.0, "ES": 9.0}, {"ED": "ED", "ES": "ES"}),
        ({"0": 0.0, "1": 0.0}, {"0": "", "1": ""}),
        ({"": 9.0}, {"": ""}),
        ({"ED": 9.0}, {"ED": "ED"}),
    ],
)
def test_phases(cavities, expected):
    assert name_phases(cavities) == expected


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (0, ""),
        (1, "b"),
        (2, "ba"),
        (3, "bma"),
        (4, "bbaa"),
        (5, "bbmaa"),
        (9, "bbmmmmmaa"),
    ],
)
def test_regions(count, expected):
    names = name_regions(np.array([False] + [True] * count + [False]))
    assert "".join(name[:1] for name in names) == expected
    assert names[0] == names[-1] == ""
