"""Cohorts: the same seed, the same hearts; studies whose masks carry the truth."""

import numpy as np
import pytest

from cardiac_mtl.cli import main
from cardiac_mtl.phantoms.cohort import make_cohort


@pytest.fixture(scope="module")
def cohort():
    return list(make_cohort(3, phases=3, seed=4))


def test_a_patient_does_not_depend_on_the_size_of_the_cohort(cohort):
    alone = next(make_cohort(1, phases=3, seed=4))
    np.testing.assert_array_equal(alone.image, cohort[0].image)
    other = next(make_cohort(1, phases=3, seed=5))
    assert other.image.shape != alone.image.shape or (other.image != alone.image).any()


def test_groups_differ_as_the_diseases_do(cohort):
    normal, failure, hypertrophy = cohort
    assert [s.pathology for s in cohort] == ["normal", "heart_failure", "hypertrophy"]
    assert failure.truth["cavity_ml"][0] > normal.truth["cavity_ml"][0]
    assert failure.truth["ef_percent"][0] < 41 < normal.truth["ef_percent"][0]
    assert hypertrophy.truth["myocardium_ml"][0] > normal.truth["myocardium_ml"][0]


def test_masks_carry_the_closed_form_areas_and_volumes(cohort):
    for study in cohort:
        spacing = np.linalg.norm(study.affine[:3, :3], axis=0)
        for phase in range(3):
            areas = (study.mask[phase] == 1).sum(axis=(1, 2)) * spacing[0] * spacing[1]
            truth = [study.truth[f"area_mm2_{k}"][phase] for k in range(len(areas))]
            np.testing.assert_allclose(areas, truth, atol=90)
            volume = (study.mask[phase] == 2).sum() * spacing.prod() / 1000
            assert volume == pytest.approx(study.truth["cavity_ml"][phase], rel=0.15)


def test_slices_run_from_base_to_apex_along_an_orthogonal_normal(cohort):
    for study in cohort:
        axes = study.affine[:3, :3] / np.linalg.norm(study.affine[:3, :3], axis=0)
        np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-9)
        assert axes[:, 2] @ [1, -1, -1] > 1
        cavity = (study.mask[0] == 2).sum(axis=(1, 2))
        assert cavity[1] > cavity[-2]


def test_the_image_shows_bright_blood_in_dark_muscle(cohort):
    for study in cohort:
        blood, muscle = (study.image[study.mask == k].mean() for k in (2, 1))
        assert blood > 1.5 * muscle


def test_the_command_writes_and_does_not_overwrite(tmp_path, capsys):
    words = ["phantom", "--layout", "manifest", "--patients", "1", "--phases", "1"]
    assert main([*words, "--out", str(tmp_path / "a")]) == 0
    assert (tmp_path / "a" / "cases.csv").is_file()
    assert main([*words, "--out", str(tmp_path / "a")]) == 2
    assert "is not empty; name a new folder" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--layot", "lvsc", "--out", "x"], "did you mean --layout?"),
        (["--patients", "0", "--out", "x"], "0 is not a positive number"),
        (["--patients", "many", "--out", "x"], "many is not a positive number"),
        (["--seed", "-1", "--out", "x"], "--seed: -1 is not a number from 0 to"),
        (["--layout", "t1", "--scale", "300", "--out", "x"], "leaves too few pixels"),
        (["--layout", "acdc", "--out", "x"], "invalid choice: 'acdc'"),
        (["--layout", "mscmr", "--phases", "3", "--out", "x"], "layout mscmr has no phases"),
        (["--layout", "cine", "--scale", "2", "--out", "x"], "layout cine has no scale"),
    ],
)
def test_a_wrong_option_is_one_line(capsys, words, message):
    assert main(["phantom", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
