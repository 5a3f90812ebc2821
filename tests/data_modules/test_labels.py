"""Who is healthy, from any column; classes alike in number."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardiac_mtl.errors import UserError
from data_modules.cases import Case
from data_modules.labels import balanced, label_cases


def case(name, **values):
    return Case(case_id=name, patient_id=name, image=(), **values)


CASES = [
    case("a", pathology="normal"),
    case("b", pathology="heart_failure", other={"sport": "no"}),
    case("c"),
    case("d", pathology="athlete", other={"sport": "yes"}),
]


def labels(*words):
    return [one.label for one in label_cases(CASES, *words)]


def test_a_column_becomes_healthy_diseased_and_unknown():
    assert labels("pathology", "normal") == [0, 1, -1, 1]
    assert labels("pathology", "normal, athlete") == [0, 1, -1, 0]
    assert labels("sport", "yes") == [-1, 1, -1, 0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("patology", "normal"), r"data\.label_from: no column 'patology' .* case_id, centre"),
        (
            ("pathology", "norml"),
            r"data\.healthy: no case has 'norml' .* athlete, heart_failure, normal",
        ),
        (("pathology", ""), r"data\.healthy: no case has ''"),
    ],
)
def test_what_is_not_there_is_named_with_what_is(words, message):
    with pytest.raises(UserError, match=message):
        labels(*words)


def test_without_any_label_there_is_nothing_to_balance():
    with pytest.raises(UserError, match=r"data\.balance_classes: no case of the training part"):
        balanced(np.arange(3), np.full(3, -1))


@given(
    st.lists(st.sampled_from([-1, 0, 1, 2]), min_size=1, max_size=40).filter(lambda c: max(c) >= 0)
)
def test_balanced_classes_come_equally_often_and_nothing_is_lost(classes):
    positions = np.arange(100, 100 + len(classes))
    repeated = balanced(positions, np.asarray(classes))
    assert set(repeated) == set(positions)
    counts = Counter(classes[k - 100] for k in repeated)
    most = max(Counter(c for c in classes if c >= 0).values())
    assert all(n == most for label, n in counts.items() if label >= 0)
    assert counts[-1] == classes.count(-1)
    each = Counter(repeated.tolist())
    for label in set(classes) - {-1}:
        times = [each[100 + k] for k, c in enumerate(classes) if c == label]
        assert max(times) - min(times) <= 1
