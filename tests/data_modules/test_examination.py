"""Sizes of hearts that are no adults', and what must not be taken for one."""

from pathlib import Path

import pytest

from data_modules.cases import Case
from data_modules.examination import Examined, examine_together

FOLDER = Path("hearts")


def hearts(wall_ml, patients=6, slices=9, volumes=1):
    """Return volumes of some patients, all with the same wall."""
    return [
        Examined(
            Case(f"p{n}_{k}", f"p{n}", (FOLDER / "image.nii.gz",), (FOLDER / "mask.nii.gz",)),
            size=(64, 64, slices),
            wall_ml=wall_ml,
        )
        for n in range(patients)
        for k in range(volumes)
    ]


@pytest.mark.parametrize("wall_ml", [26.0, 440.0])
def test_hearts_of_no_adults_make_the_spacing_doubtful(wall_ml):
    (finding,) = examine_together(hearts(wall_ml))
    assert (finding.severity, finding.code, finding.file) == ("warning", "heart_size", "hearts")
    assert f"{wall_ml:.0f} ml (median of 6 patients)" in finding.message


@pytest.mark.parametrize(
    "examined",
    [
        hearts(105.0),
        hearts(26.0, patients=4, volumes=2),  # too few patients
        hearts(2.6, slices=1),  # a slice is no heart
        hearts(0.0),  # no mask holds any
    ],
)
def test_hearts_of_adults_and_parts_of_hearts_are_nothing_to_say(examined):
    assert examine_together(examined) == []
