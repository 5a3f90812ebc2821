"""Which arithmetic suits the processor, and a network that was trained in it."""

import torch

from cardiac_mtl.console import say

_NATIVE = ("avx512_bf16", "amx_bf16")


def suited_precision(precision: object, accelerator: object) -> object:
    """Return the precision to train in: bf16 on the CPU only where it has instructions for it.

    Elsewhere bf16 is emulated: a training step on a processor with AVX2 alone took 4 to 40 times
    that of single precision.

    Args:
        precision: as configured for the trainer.
        accelerator: as configured for the trainer.
    """
    if precision != "bf16-mixed" or on_gpu(accelerator) or native_bf16():
        return precision
    say("precision: 32-true in place of bf16-mixed, which this processor would have to emulate")
    return "32-true"


def as_trained(precision: object, device: torch.device) -> torch.autocast:
    """Return the context in which a network predicts as it was validated and tested.

    Args:
        precision: of its training, as `run.json` has it; float32 without one, and for float16,
            which is for GPUs, on a CPU.
        device: that predicts.
    """
    lowered = {"bf16-mixed": torch.bfloat16}
    if device.type != "cpu":
        lowered["16-mixed"] = torch.float16
    dtype = lowered.get(str(suited_precision(precision, device.type)))
    return torch.autocast(device.type, dtype, enabled=dtype is not None)


def native_bf16() -> bool:
    """Say whether the CPU computes in bf16; where torch cannot tell, the configuration knows."""
    if not hasattr(torch.cpu, "get_capabilities"):  # before torch 2.11
        return True
    found = torch.cpu.get_capabilities()
    return found.get("architecture") != "x86_64" or any(found.get(name) for name in _NATIVE)


def on_gpu(accelerator: object) -> bool:
    """Say whether a trainer will use a graphics processor.

    Args:
        accelerator: as configured for the trainer.
    """
    found = torch.cuda.is_available() or torch.backends.mps.is_available()
    return accelerator not in {"cpu", "auto"} or (accelerator == "auto" and found)
