"""What a training step computes, sends and reads, and what follows for many GPUs.

    python -m benchmarks scaling [--rounds 5]

Measured here: seconds of a training step of MTN as the paper has it (width 64, 192 x 192, batch
16), floating-point operations (torch's counter), bytes that processes sum up a
step, and seconds of a step in one process and in two that share a global batch (gloo, a thread
each). Computed: the efficiency at 8, 64 and 512 GPUs, for hardware that is named in the result.
"""

import json
import statistics
import subprocess
import sys
import time
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common import options_of, spread, write
from cardiac_mtl.contracts import Batch
from cardiac_mtl.papers.mtn import MTN

SIZE, BATCH = (192, 192), 16
GPU = "H200-like: 990 TFLOP/s in bf16, of which a network like this reaches 30 %"
HARDWARE = {
    "flops_reached": 990e12 * 0.30,
    "gpus_a_node": 8,
    "bytes_a_second_within_a_node": 300e9,
    "bytes_a_second_between_nodes": 40e9,
    "seconds_of_latency_a_hop": 10e-6,
    "share_of_the_step_that_hides_the_sum": 0.6,
}
"""Assumed, not measured: there was no GPU here."""

_PROCESS = """
import json, os, sys, time
import torch, torch.distributed as dist
from benchmarks.scaling import batch, small
rank, size = int(sys.argv[1]), int(sys.argv[2])
torch.set_num_threads(1)
os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": sys.argv[3]}
dist.init_process_group("gloo", rank=rank, world_size=size)
from cardiac_mtl.losses import over_all_ranks
paper = small()
net = torch.nn.parallel.DistributedDataParallel(paper)
(optimizer,), _ = paper.configure_optimizers()
given, times = batch(16 // size, (96, 96)), []
for step in range(12):
    started = time.perf_counter()
    optimizer.zero_grad()
    losses = over_all_ranks(paper.losses(net(given["image"]), given))
    paper.weighting(losses).backward()
    optimizer.step()
    times.append(time.perf_counter() - started)
if rank == 0:
    print(json.dumps(sorted(times[2:])[5]))
"""


def main() -> None:
    """Measure, compute and write."""
    parser = options_of(__doc__)
    options = parser.parse_args()
    measured = paper_step(options.rounds)
    processes: dict[int, list[float]] = {1: [], 2: []}
    for number in range(options.rounds):
        for size, times in processes.items():  # taking turns
            times.append(side_by_side(size, 29400 + 2 * number + size))
    pairs = zip(processes[1], processes[2], strict=True)
    speedups = [one / two for one, two in pairs]
    write(
        "scaling",
        {
            "measured": measured
            | {
                "global_batch_on_two_processes_speedup": spread(speedups),
            },
            "assumed": {"gpu": GPU} | HARDWARE,
            "computed": [predicted(count, measured) for count in (1, 8, 64, 512)],
        },
        options,
    )


def paper_step(rounds: int) -> dict[str, Any]:
    """Return what a step of the paper's network takes on this machine."""
    paper = MTN(image_size=SIZE)
    (optimizer,), _ = paper.configure_optimizers()
    given, times = batch(BATCH, SIZE), []
    with FlopCounterMode(display=False) as counter:
        step(paper, optimizer, given)
    for _ in range(rounds):
        started = time.perf_counter()
        step(paper, optimizer, given)
        times.append(time.perf_counter() - started)
    parameters = sum(p.numel() for p in paper.parameters() if p.requires_grad)
    return {
        "batch": BATCH,
        "size": SIZE,
        "parameters": parameters,
        "step_s_on_this_cpu": round(statistics.median(times), 2),
        "flops_a_step": counter.get_total_flops(),
        "bytes_summed_a_step": 4 * parameters + 8 * len(paper.weighting.tasks),
    }


def step(paper: MTN, optimizer: torch.optim.Optimizer, given: Batch) -> None:
    """Train once."""
    optimizer.zero_grad()
    paper.weighting(paper.losses(paper(given["image"]), given)).backward()
    optimizer.step()


def batch(count: int, size: tuple[int, int]) -> Batch:
    """Return noise in the form of a batch."""
    torch.manual_seed(0)
    return {
        "image": torch.randn(count, 1, *size),
        "mask": torch.randint(0, 2, (count, *size)),
        "spacing": torch.ones(count, 3),
        "indices": torch.full((count, 1), 1000.0),
        "label": torch.full((count,), -1),
        "case": torch.zeros(count, dtype=torch.long),
        "slice": torch.arange(count),
        "transferred": torch.zeros(count, dtype=torch.bool),
        "sample": torch.arange(count),
    }


def small() -> MTN:
    """Return a network that two processes train in seconds."""
    torch.manual_seed(0)
    return MTN(width=16, image_size=(96, 96))


def side_by_side(size: int, port: int) -> float:
    """Return the seconds of a step of some processes that share a batch of 16."""
    running = [
        subprocess.Popen(  # noqa: S603 - our own interpreter
            [sys.executable, "-c", _PROCESS, str(rank), str(size), str(port)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]
    shown = [process.communicate(timeout=300)[0] for process in running]
    return float(json.loads(shown[0]))


def predicted(gpus: int, measured: dict[str, Any]) -> dict[str, float]:
    """Return what to expect of a number of GPUs, each with a batch of its own.

    A ring sums b bytes over n processes in 2 (n - 1) / n b / bandwidth, with a latency for each of
    its hops; the part of the step after the first gradients are there hides some of it.
    """
    compute = measured["flops_a_step"] / HARDWARE["flops_reached"]
    nodes = -(-gpus // int(HARDWARE["gpus_a_node"]))
    within = "bytes_a_second_within_a_node"
    bandwidth = HARDWARE[within if nodes == 1 else "bytes_a_second_between_nodes"]
    hops = 2 * (min(gpus, 8) - 1 + 2 * (nodes - 1).bit_length())
    sent = 2 * (gpus - 1) / gpus * measured["bytes_summed_a_step"] / bandwidth
    total = sent + hops * HARDWARE["seconds_of_latency_a_hop"]
    shown = max(0.0, total - compute * HARDWARE["share_of_the_step_that_hides_the_sum"])
    # the counts of what is annotated are summed before the backward pass: nothing hides them
    counts = hops * HARDWARE["seconds_of_latency_a_hop"]
    whole = compute + shown + counts
    return {
        "gpus": gpus,
        "compute_ms": round(1e3 * compute, 2),
        "sum_ms": round(1e3 * total, 2),
        "sum_not_hidden_ms": round(1e3 * (shown + counts), 2),
        "efficiency": round(compute / whole, 3),
        "slices_a_second": round(gpus * measured["batch"] / whole),
        "slices_a_second_to_read_on_each": round(measured["batch"] / whole),
        "steps_an_epoch_of_lvsc": round(3 * 26664 * 0.72 / (gpus * measured["batch"]), 1),
    }
