"""Samples per second into training: ours against MONAI's CacheDataset and random transforms.

    python -m benchmarks input_pipeline [--patients 12] [--rounds 5]

Both start from the same 192 x 192 slices, resampled and z-scored once and kept (in our store, in
MONAI's cache), and give batches of 16 with a random rotation of up to 180 degrees and translation
of up to half the image: ours from the store and in batched tensor operations, MONAI's by
`RandAffined` in a DataLoader with two workers. Both end with images and masks; the area targets
that ours adds are left out. Epochs take turns, after one of each that starts processes.
"""

import math
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from monai.data import CacheDataset, DataLoader
from monai.transforms import Compose, EnsureTyped, NormalizeIntensityd, RandAffined

from benchmarks.common import options_of, paired, positive, ratios, write
from cardiac_mtl.memory import keep_freed_memory
from cardiac_mtl.phantom_files import write_cohort
from data_modules.augment import Augmentation, transform
from data_modules.stacom import StacomDataModule

BATCH, SIZE = 16, 192


def main() -> None:
    """Measure and write the ratio."""
    parser = options_of(__doc__)
    parser.add_argument("--patients", type=positive, default=12)
    parser.add_argument("--phases", type=positive, default=8)
    options = parser.parse_args()
    keep_freed_memory()  # as `fit` does; MONAI's workers inherit it
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "lvsc"
        write_cohort("lvsc", root, options.patients, seed=0, phases=options.phases)
        ours = our_module(root, Path(folder) / "cache")
        theirs = monai_loader(ours)
        count = len(ours.train_dataloader().dataset)  # type: ignore[arg-type]
        our_epoch(ours)
        epoch(theirs)  # the first one starts its workers, which stay
        measured = paired(
            options.rounds,
            {"ours": lambda: our_epoch(ours) / count, "monai": lambda: epoch(theirs) / count},
        )
    rates = {name: round(1 / float(np.median(values)), 1) for name, values in measured.items()}
    write(
        "input_pipeline",
        {
            "slices": count,
            "samples_per_second": rates,
            "ours_over_monai": ratios(measured["monai"], measured["ours"]),
        },
        options,
    )


def our_module(root: Path, cache: Path) -> StacomDataModule:
    """Return our data module, set up and warm."""
    data = StacomDataModule(
        root,
        batch_size=BATCH,
        matrix=(SIZE, SIZE),
        copies=0,
        augmentation=Augmentation(probability=1.0),
        cache_dir=cache,
    )
    data.setup("fit")
    data.trainer = SimpleNamespace(training=True, current_epoch=0, global_rank=0, world_size=1)  # type: ignore[assignment]
    return data


def our_epoch(data: StacomDataModule) -> float:
    """Return the seconds of one epoch of ours: the mean of five, which take as long as MONAI's."""
    assert data.trainer is not None
    started = time.perf_counter()
    for _ in range(5):
        data.trainer.current_epoch += 1  # type: ignore[misc]
        for batch in data.train_dataloader():
            data.on_before_batch_transfer(batch, 0)
            transform(batch["image"], batch["mask"], data.draws)
    return (time.perf_counter() - started) / 5


def monai_loader(data: StacomDataModule) -> DataLoader:
    """Return MONAI's loader of the same slices."""
    positions = data.train_dataloader().dataset.positions  # type: ignore[attr-defined]
    image, mask = data.store.gather(positions)
    items = [
        {"image": image[k][None].numpy(), "mask": (mask[k] > 0)[None].float().numpy()}
        for k in range(len(positions))
    ]
    transforms = Compose(
        [
            EnsureTyped(["image", "mask"]),
            NormalizeIntensityd(["image"]),
            RandAffined(
                ["image", "mask"],
                prob=1.0,
                rotate_range=[math.pi],
                translate_range=[SIZE / 2, SIZE / 2],
                mode=["bilinear", "nearest"],
                padding_mode="zeros",
                cache_grid=True,
                spatial_size=(SIZE, SIZE),
            ),
        ]
    )
    dataset = CacheDataset(items, transforms, progress=False)
    return DataLoader(
        dataset, batch_size=BATCH, shuffle=True, num_workers=2, persistent_workers=True
    )


def epoch(loader: DataLoader) -> float:
    """Return the seconds of one epoch of a loader."""
    started = time.perf_counter()
    for batch in loader:
        assert torch.is_tensor(batch["image"])
    return time.perf_counter() - started
