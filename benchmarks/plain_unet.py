"""A yardstick for the real hearts: MONAI's plain U-Net on the same folds, none of our training.

    python -m benchmarks plain_unet --data SUNNYBROOK [--seconds 300]

For each fold MONAI's `BasicUNet` (Dice and cross-entropy, Adam 1e-3, cosine, random quarter turns
and mirrors, batch 16, bf16 where the processor has it) is trained on all patients outside the test
part for a fixed time, and its last weights are scored on the test part: volume Dice on the files'
own grid. Only folds and reader are ours, so that the figures of `real_hearts.py` can be compared
with what anybody would write.
"""

import math
import time
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from monai.losses import DiceCELoss
from monai.networks.nets import BasicUNet
from torch import Tensor

from benchmarks.common import options_of, write
from cardiac_mtl.training.precision import native_bf16
from data_modules.cases import Case
from data_modules.manifest import ManifestDataModule
from data_modules.readers import read_volume
from data_modules.splits import check_fold

PARAMETERS = sum(p.numel() for p in BasicUNet(2, 1, 2).parameters())
Volume = tuple[Tensor, Tensor]


def main() -> None:
    """Train and score every fold, and write."""
    parser = options_of(__doc__, rounds=False)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--folds", type=int, nargs="*", default=[0, 1, 2, 3, 4])
    options = parser.parse_args()
    data = ManifestDataModule(options.data)
    data.find_and_split()
    for fold in options.folds:
        check_fold(fold, len(data.splits))
    volumes = {case.patient_id: _read(data, case) for case in data.cases}
    scores: dict[str, float] = {}
    for fold in options.folds:
        split = data.splits[fold]
        torch.manual_seed(0)
        network = _train([volumes[p] for p in (*split.train, *split.val)], options.seconds)
        scores |= {p: _dice(network, volumes[p]) for p in split.test}
        print(f"fold {fold}: Dice {np.mean([scores[p] for p in split.test]):.3f}", flush=True)
    values = np.array(list(scores.values()))
    result = {
        "network": f"monai BasicUNet, {PARAMETERS / 1e6:.1f} M parameters",
        "seconds_a_fold": options.seconds,
        "patients": len(values),
        "dice_mean": round(float(values.mean()), 4),
        "dice_sd": round(float(values.std(ddof=1)), 4),
        "dice_worst": round(float(values.min()), 4),
    }
    write("plain_unet", result, options)


def _read(data: ManifestDataModule, case: Case) -> Volume:
    image = read_volume(case.image, case.frame)
    voxels = sitk.GetArrayFromImage(image)
    mask = sitk.GetArrayFromImage(data.read_mask(case, image))
    normalised = (voxels - voxels.mean()) / voxels.std()
    return torch.from_numpy(normalised)[:, None], torch.from_numpy(mask > 0)[:, None].float()


def _train(volumes: list[Volume], seconds: float) -> BasicUNet:
    images, masks = (torch.cat(part) for part in zip(*volumes, strict=True))
    network = BasicUNet(2, 1, 2).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    loss = DiceCELoss(to_onehot_y=True, softmax=True)
    started = time.monotonic()
    while (passed := (time.monotonic() - started) / seconds) < 1:
        optimizer.param_groups[0]["lr"] = 0.5e-3 * (1 + math.cos(math.pi * passed))
        chosen = torch.randint(len(images), (16,))
        turns, mirror = int(torch.randint(4, ())), bool(torch.randint(2, ()))
        image, mask = (torch.rot90(x[chosen], turns, (2, 3)) for x in (images, masks))
        if mirror:
            image, mask = image.flip(3), mask.flip(3)
        with torch.autocast("cpu", torch.bfloat16, enabled=native_bf16()):
            logits = network(image)
        optimizer.zero_grad()
        loss(logits.float(), mask).backward()
        optimizer.step()
    return network.eval()


@torch.inference_mode()
def _dice(network: BasicUNet, volume: Volume) -> float:
    predicted, truth = network(volume[0]).argmax(1) == 1, volume[1][:, 0] > 0
    return float(2 * (predicted & truth).sum() / (predicted.sum() + truth.sum()))
