"""bf16 on the CPU only where it is native; predictions in the precision of the training."""

import pytest
import torch

from cardiac_mtl.training.precision import as_trained, suited_precision


@pytest.mark.parametrize(
    ("asked", "accelerator", "capabilities", "expected"),
    [
        ("bf16-mixed", "cpu", {"architecture": "x86_64", "avx2": True}, "32-true"),
        ("bf16-mixed", "auto", {"architecture": "x86_64", "avx512_bf16": False}, "32-true"),
        ("bf16-mixed", "cpu", {"architecture": "x86_64", "avx512_bf16": True}, "bf16-mixed"),
        ("bf16-mixed", "cpu", {"architecture": "x86_64", "amx_bf16": True}, "bf16-mixed"),
        ("bf16-mixed", "cpu", {"architecture": "aarch64"}, "bf16-mixed"),
        ("bf16-mixed", "gpu", {"architecture": "x86_64"}, "bf16-mixed"),
        ("32-true", "cpu", {"architecture": "x86_64"}, "32-true"),
        (None, "cpu", {"architecture": "x86_64"}, None),
    ],
)
def test_what_is_trained_in(monkeypatch, capsys, asked, accelerator, capabilities, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert suited_precision(asked, accelerator) == expected
    assert ("emulate" in capsys.readouterr().out) == (asked != expected)


@pytest.mark.parametrize(
    ("trained", "native", "computed"),
    [
        ("bf16-mixed", True, torch.bfloat16),
        ("bf16-mixed", False, torch.float32),
        ("32-true", True, torch.float32),
        ("16-mixed", True, torch.float32),  # on a GPU; a CPU hardly has it
        (None, True, torch.float32),
    ],
)
def test_what_is_predicted_in(monkeypatch, trained, native, computed):
    found = {"architecture": "x86_64", "avx512_bf16": native}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)
    layer = torch.nn.Linear(3, 2)
    with as_trained(trained, torch.device("cpu")):
        assert layer(torch.ones(1, 3)).dtype == computed
