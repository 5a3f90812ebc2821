"""Finding a structure at all: against hand-made patients, Wilson's formula and the binomial law."""

from math import comb, sqrt

import numpy as np
import pandas as pd
import pytest

from cardiac_mtl.contracts import HONEST
from cardiac_mtl.report.methods import Method, Run
from cardiac_mtl.report.tables import finding

EMPTY = pd.DataFrame()


def method(name, states, patients=None, label="infarct", protocol=HONEST, **names):
    """Return a method with one volume for each state, by default a patient each."""
    number = range(len(states))
    cases = pd.DataFrame({
        "case_id": [f"c{k}" for k in number],
        "patient_id": patients or [f"p{k}" for k in number],
        "label": label,
        "state": states,
        "dice": np.nan,
    })  # fmt: skip
    identity = {"experiment": name, "protocol": protocol}
    run = Run(None, identity, EMPTY, cases, EMPTY, EMPTY, EMPTY, EMPTY, EMPTY)
    return Method(name, [run], **names)


WITH, WITHOUT = ["ok"] * 9 + ["missed"], ["both_empty"] * 3 + ["false_positive"] * 2


def test_rates_are_of_patients_with_and_without_the_structure():
    table = finding.rates([method("a", WITH + WITHOUT, protocol="paper_optimistic")])
    table = table.set_index("patients")
    assert table.loc["with", ["n", "right"]].tolist() == [10, 9]
    assert table.loc["without", ["n", "right"]].tolist() == [5, 3]
    z, n, p = 1.959964, 5, 0.6
    middle, half = (p + z**2 / (2 * n)), z * sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    ends = [(middle + sign * half) / (1 + z**2 / n) for sign in (-1, 1)]
    assert table.loc["without", ["low", "high"]].tolist() == pytest.approx(ends, abs=1e-5)
    shown = finding.rates_shown(table.reset_index())
    assert shown["right"].tolist() == ["9 of 10", "3 of 5"]
    assert shown["protocol"].tolist() == ["paper_optimistic"] * 2


def test_a_patient_is_right_when_all_its_volumes_are():
    patients = ["p", "p", "p", "q", "q"]
    states = ["ok", "ok", "missed", "ok", "ok"]
    (row,) = finding.rates([method("a", states, patients)]).to_dict("records")
    assert (row["n"], row["right"]) == (2, 1)


def test_what_every_method_always_finds_is_not_listed():
    always = [method(name, ["ok"] * 4, label="myocardium") for name in "ab"]
    assert finding.rates(always).empty
    assert finding.comparisons(always).empty


def test_pairs_are_tested_by_sign_over_the_patients_that_differ():
    first = method("a", ["false_positive"] * 4 + ["both_empty"] * 2 + ["ok"])
    second = method("b", ["both_empty"] * 3 + ["false_positive", "both_empty"] * 2)
    # of six without, three better in b, and one in a; the seventh has it in a alone: no pair
    second.cases.loc[5, "state"] = "false_positive"
    (row,) = finding.comparisons([first, second]).to_dict("records")
    assert (row["patients"], row["n"]) == ("without", 6)
    assert (row["first_better"], row["second_better"]) == (1, 3)
    assert row["p"] == pytest.approx(2 * (comb(4, 0) + comb(4, 1)) / 2**4)
    assert finding.comparisons_shown(pd.DataFrame([row]))["patients"].tolist() == ["without it"]


def test_a_small_p_is_not_shown_as_zero():
    first, second = method("a", ["missed"] * 20), method("b", ["ok"] * 20)
    (shown,) = finding.comparisons_shown(finding.comparisons([first, second])).to_dict("records")
    assert shown["p, sign test"] == shown["p by Holm"] == "1.9e-06"


def test_seeds_of_one_method_count_as_one():
    seeds = [
        method("a, seed 0", ["missed", "missed", "ok"], family="a"),
        method("a, seed 1", ["ok", "missed", "ok"], family="a"),
    ]
    others = [
        method("b, seed 0", ["ok", "missed", "ok"], family="b"),
        method("b, seed 1", ["ok", "missed", "ok"], family="b"),
    ]
    (row,) = finding.comparisons([*seeds, *others]).to_dict("records")
    assert (row["first_better"], row["second_better"], row["n"]) == (0, 1, 3)


def test_a_volume_that_one_method_lacks_is_held_against_none():
    """Another tool has no prediction of the second phase, in which ours misses the structure."""
    ours = method("a", ["ok", "missed"] * 6, [f"p{k // 2}" for k in range(12)])
    other = method("b", ["ok"] * 12, [f"p{k // 2}" for k in range(12)])
    object.__setattr__(other, "cases", other.cases[::2])
    assert finding.comparisons([ours, other]).empty
    object.__setattr__(other, "cases", other.cases[:0])
    assert finding.comparisons([ours, other]).empty


def test_patients_of_the_same_cases_may_be_named_otherwise():
    """As where `evaluate` is given a folder of reference masks, and knows no table."""
    ours = method("a", ["missed"] * 6, [f"p{k}" for k in range(6)])
    other = method("b", ["ok"] * 6, [f"case{k}" for k in range(6)])
    (row,) = finding.comparisons([ours, other]).to_dict("records")
    assert (row["n"], row["second_better"]) == (6, 6)


def seeds_of(family, found):
    return [method(f"{family}, seed {k}", list(s), family=family) for k, s in enumerate(found)]


def told_apart(draw):
    """Count the tests with p below 0.05 in 100 draws of methods that are alike."""
    rng = np.random.default_rng(0)
    tables = [finding.comparisons(draw(rng)) for _ in range(100)]
    return sum(bool(len(table)) and table["p"].iloc[0] < 0.05 for table in tables)


def test_a_seed_that_is_missing_in_some_patients_is_left_out_of_the_other_method_there():
    def draw(rng):
        found = np.where(rng.random((5, 60)) < 0.9, "ok", "missed")
        others = [*seeds_of("b", found[3:]), method("b, seed 2", ["ok"], family="b")]
        object.__setattr__(others[1], "cases", others[1].cases[:6])
        return [*seeds_of("a", found[:3]), *others]

    assert told_apart(draw) <= 8


def test_a_mean_of_seeds_is_not_worse_than_one_seed_of_the_same_luck():
    def draw(rng):
        found = np.where(rng.random((4, 60)) < 0.9, "ok", "missed")
        return [*seeds_of("a", found[:3]), method("b", list(found[3]))]

    assert told_apart(draw) <= 8


def test_the_order_of_the_seeds_makes_no_difference():
    # shares of 25 phases, in another order of the seeds: the same mean but for its last digit
    rng = np.random.default_rng(0)
    found = rng.integers(0, 26, (200, 3))
    patients = [f"p{k}" for k in range(len(found)) for _ in range(25)]
    methods = [
        method(
            f"{name}, seed {seed}",
            [state for n in counts[:, seed] for state in ["ok"] * n + ["missed"] * (25 - n)],
            patients,
            family=name,
        )
        for name, counts in (("a", found), ("b", rng.permuted(found, axis=1)))
        for seed in range(3)
    ]
    assert finding.comparisons(methods).empty
