"""What people are told before a training."""

from pathlib import Path
from types import SimpleNamespace

from cardiac_mtl.training.introduction import introduction
from data_modules.cases import Case
from data_modules.splits import Split


def lines(masks, label_names=("myocardium",)):
    """Introduce a run on patients `a` to `d`, a volume each, of whom `c` and `d` are tested."""
    found = (Path("mask"),)
    cases = [Case(p, p, (Path("image"),), found if p in masks else ()) for p in "abcd"]
    split = Split(0, train=("a",), val=("b",), test=("c", "d"))
    data = SimpleNamespace(
        cases=cases, split=split, splits=[split] * 5, fold=0, root=None, offset=None,
        name_of=lambda _: "hearts",
    )  # fmt: skip
    model = SimpleNamespace(label_names=label_names, parameters=list, remark=lambda _: "")
    origin = {"experiment": "mtn_unet", "protocol": "honest"}
    return list(introduction(SimpleNamespace(world_size=1), model, data, origin))


def test_who_trains_on_whom_is_one_line():
    (line,) = lines("abcd")
    assert line.endswith("hearts, fold 0 of 5: 1 patients train, 1 validate, 2 test")


def test_test_patients_whom_no_table_of_dice_will_hold_are_counted():
    assert lines("abc")[1:] == ["1 of the test patients without a mask: no Dice will be theirs"]
    assert lines("", label_names=())[1:] == []
