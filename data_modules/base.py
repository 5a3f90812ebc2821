"""The one LightningDataModule: cases, fold, prepared store, loaders, augmentation on the device."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from lightning import LightningDataModule
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader
from typing_extensions import override

from cardiac_mtl.contracts import Batch, TargetScale, label_of_area
from cardiac_mtl.errors import UserError, refuse_unfinished
from data_modules.augment import ON_IMAGE, Augmentation, Draws, draw, transform
from data_modules.cases import Case, case_table, check_cases
from data_modules.folds import Folds
from data_modules.geometry import Normalise, usual_axes
from data_modules.labels import balanced
from data_modules.loading import BatchLoader, ResumableSampler
from data_modules.offset import Offset, measurable, offset_of
from data_modules.preparation import Preparation
from data_modules.readers import axes_of
from data_modules.resident import ResidentStore, settle
from data_modules.splits import Split, check_fold, digest, save_splits
from data_modules.store import SliceDataset

PHANTOM = "phantom.json"
"""Marks a folder of phantom hearts: no number measured on them is one of a paper's data."""
Part = Literal["train", "val", "test"]
_STAGES: tuple[Literal["train", "other"], ...] = ("train", "other")


class CardiacDataModule(Preparation, LightningDataModule):
    """A data set on disk, in folds.

    Args:
        root: folder of the data set; without it a phantom cohort is made and used.
        num_folds: folds of the cross-validation [paper of MTN: 5].
        fold: the fold that is held out as test part, from 0.
        split_seed: of the dealing of patients to folds.
        val_fraction: share of the patients that are not in the test part on which the epoch is
            chosen [inferred: 0.1].
        stratify_by: column of the case table whose values every fold holds alike.
        leave_out: column such as centre, vendor or sequence: each of its values is a fold of its
            own in place of `num_folds`.
        splits: JSON of folds in place of all of the above.
        train_fraction: share of the training patients to train on, for learning curves.
        paper_protocol: select the checkpoint on the test part, as some papers did. It trains on
            the validation patients too, and marks every number as optimistic.
        batch_size: slices a batch [inferred: 16].
        matrix: rows and columns of the prepared grid [paper of MTN: 192, 192].
        spacing_mm: in-plane spacing of the prepared grid [paper of MTN: 1.5625]; None for the
            pixels of each file.
        normalise: bring each `volume` or each `slice` to mean 0 and SD 1 [inferred: volume].
        augmentation: random transformations of the training part.
        copies: transformed copies that an epoch holds beside each original [paper of MTN: 2].
        balance_classes: repeat the slices of the rarer `label` until an epoch of training holds
            each class equally often.
        num_workers: processes that fetch batches; 0 suits the memory-mapped store.
        cache_dir: where prepared stores are kept; the user's cache folder without it.
        resident: copy the store to the device that trains, and gather batches there, without
            `num_workers` [inferred: where an accelerator has room for it].
    """

    index_names: ClassVar[tuple[str, ...]] = ("area_mm2",)
    """Columns of `indices`."""

    def __init__(
        self,
        root: Path | None = None,
        num_folds: int = 5,
        fold: int = 0,
        split_seed: int = 0,
        val_fraction: float = 0.1,
        stratify_by: str = "pathology",
        leave_out: str = "",
        splits: Path | None = None,
        train_fraction: float = 1.0,
        paper_protocol: bool = False,
        batch_size: int = 16,
        matrix: tuple[int, int] = (192, 192),
        spacing_mm: float | None = 1.5625,
        normalise: Normalise = "volume",
        augmentation: Augmentation = Augmentation(),  # noqa: B008 - frozen
        copies: int = 2,
        balance_classes: bool = False,
        num_workers: int = 0,
        cache_dir: Path | None = None,
        resident: bool | None = None,
    ) -> None:
        super().__init__()
        refuse_unfinished(self, "layout")
        _refuse_below(1, batch_size=batch_size, matrix=min(matrix))
        _refuse_below(0, num_workers=num_workers, copies=copies)
        _refuse_below(1e-3, spacing_mm=1.0 if spacing_mm is None else spacing_mm)
        self.root = root
        self.folds = Folds(
            num_folds=num_folds,
            seed=split_seed,
            val_fraction=val_fraction,
            stratify_by=stratify_by,
            leave_out=leave_out,
            splits_file=splits,
            train_fraction=train_fraction,
        )
        self.fold = fold
        self.paper_protocol = paper_protocol
        self.batch_size = batch_size
        self.matrix = matrix
        self.spacing_mm = spacing_mm
        self.normalise: Normalise = normalise
        self.augmentation = augmentation
        self.copies = copies
        self.balance_classes = balance_classes
        self.num_workers = num_workers
        self.cache_dir = cache_dir
        self.resident = resident
        self._on_device: ResidentStore | None = None
        self.draws: Draws | None = None
        """What chance decided for the batch in hand; None outside training."""
        self._epoch_drawn: tuple[int, int] | None = None
        self.offset: Offset | None = None
        """How masks lie beside their images, where augmentation keeps that."""

    @classmethod
    def name_of(cls, root: Path | None) -> str:
        """Return the name of the data set in run directories: that of its folder."""
        folder = Path(root or "phantom").resolve()
        return folder.parent.name if folder.suffix == ".csv" else folder.name

    def indices_of(self, mask: Tensor, spacing: Tensor) -> Tensor:
        """Compute the index targets from the masks that the network sees.

        Args:
            mask: (B, H, W), any type of integers.
            spacing: float32 (B, 3), slice, row and column spacing in mm.

        Returns:
            float32 (B, 1), area of the myocardium, or else of the first label, in mm2; NaN where
            the slice is not annotated.
        """
        inside = torch.empty(mask.shape, device=mask.device)
        value = self.labels[label_of_area(self.labels)]
        torch.eq(mask, value, out=inside)  # five times faster than a boolean
        area = inside.sum((1, 2)) * spacing[:, 1:].prod(1)
        annotated = mask.amax((1, 2)) >= 0
        return torch.where(annotated, area, torch.nan)[:, None]

    @property
    def muscle(self) -> int | None:
        """Value of the myocardium beside what `labels` names, where the masks hold it."""
        return None

    def target_scale(self) -> TargetScale:
        """Fit mean and SD of each index on the training patients, after `setup`; here 0 and 1."""
        count = len(self.index_names)
        return TargetScale(torch.zeros(count), torch.ones(count))

    @property
    def is_phantom(self) -> bool:
        """Whether the data are phantom hearts."""
        # the second: phantoms of earlier versions had no mark, but their truth beside them
        return self.root is None or any((self.root / n).is_file() for n in (PHANTOM, "truth.csv"))

    @property
    def selection_part(self) -> Literal["val", "test", "none"]:
        """The part that the checkpoint is selected on; with none it is that of the last epoch."""
        return "test" if self.paper_protocol else "val"

    @property
    def split(self) -> Split:
        """The patients of each part of this fold, after `setup`."""
        return self.splits[self.fold]

    @property
    def training_patients(self) -> tuple[str, ...]:
        """The patients to train on: under the paper protocol those of validation too."""
        return self.split.train + (self.split.val if self.paper_protocol else ())

    @property
    def pixels_mm(self) -> tuple[float, float] | None:
        """Shortest and longest side of the pixels that are trained on, after `setup`, if any."""
        sides = self.store.spacing[self.positions_of("train"), 1:]
        return (float(sides.min()), float(sides.max())) if sides.size else None

    @property
    def axes_lps(self) -> list[list[float]] | None:
        """How the images that are trained on lie in the body, after `setup`; see `usual_axes`."""
        patients = set(self.training_patients)
        files = {c.patient_id: c.image[0] for c in self.cases if c.patient_id in patients}
        with suppress(UserError):  # of another reader than ours
            mean = usual_axes([axes_of(file) for file in files.values()])
            return None if mean is None else mean.tolist()
        return None

    def patients_seen(
        self, stage: Literal["train", "other"], *, transferred: bool = False
    ) -> list[str]:
        """Return the patients of whom a batch went through training, or through another stage.

        Args:
            stage: training, or all others.
            transferred: those with a mask of another sequence, in place of those with their own.
        """
        carried = np.asarray([bool(case.transferred) for case in self.cases])
        rows = self._seen[stage].bool().numpy() & (carried == transferred)
        return sorted(self.case_table["patient_id"].astype(str)[rows].unique())

    def share_seen(self) -> None:
        """Have every process know of whom all of them saw a batch."""
        if self.trainer is not None:
            strategy = self.trainer.strategy
            for stage, rows in self._seen.items():
                everywhere = strategy.reduce(rows.to(strategy.root_device), reduce_op="max")
                self._seen[stage] = everywhere.cpu()

    @override
    def state_dict(self) -> dict[str, Any]:
        return {f"seen_{stage}": rows for stage, rows in self._seen.items()}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._seen = {stage: state_dict[f"seen_{stage}"] for stage in _STAGES}

    @property
    def split_sha256(self) -> str:
        """Hash of all folds, the same on every machine."""
        return digest(self.splits)

    def save_splits(self, path: Path) -> None:
        """Write all folds, with their hash, as JSON."""
        save_splits(path, self.name_of(self.root), self.splits, self.folds.seed)

    @override
    def setup(self, stage: str) -> None:
        self.find()
        if not hasattr(self, "store"):
            self.store = self.open_store()
        if stage == "fit" and self.augmentation.keep_offset and self.offset is None:
            self.offset = self._measure_offset()
        # tests and validations of their own read each slice but once
        if stage == "fit" and self.trainer is not None and self._on_device is None:
            device = self.trainer.strategy.root_device
            self._on_device = settle(self.store, device, wanted=self.resident)

    @override
    def teardown(self, stage: str) -> None:
        self._on_device = None

    def find(self) -> None:
        """Find the cases and deal the patients, once: `setup` begins so, without reading an image.

        Raises:
            UserError: no folder of the data, no case, or no such fold.
        """
        if hasattr(self, "splits"):
            return
        if self.root is None:
            raise UserError("no data", where="data.root", fix="give the folder of the data set")
        if not (self.folds.leave_out or self.folds.splits_file):
            check_fold(self.fold, self.folds.num_folds)
        self.find_and_split()

    def _measure_offset(self) -> Offset:
        """Measure how the masks of the training patients lie, by one volume of each."""
        one_of = measurable(self.cases)
        rows = [one_of[patient] for patient in self.training_patients if patient in one_of]
        if found := offset_of(self.store, rows, self.wall):
            return found
        raise UserError(
            "no training patient has a closed ring of myocardium, but on LGE, to measure one by",
            where="data.augmentation.keep_offset",
            fix="give `--data.augmentation.keep_offset false`",
        )

    @property
    def _place(self) -> tuple[float, float]:
        """Columns and rows by which masks lie beside their images, as far as is known."""
        return self.offset.place if self.offset else ON_IMAGE

    def find_and_split(self, dealt: Sequence[Split] = ()) -> None:
        """Find the cases and deal the patients, without reading an image.

        Args:
            dealt: folds in place of ours, such as those that are audited.
        """
        assert self.root is not None
        self._seed = torch.initial_seed() % 2**32  # of the run: epochs are seeded anew
        found = self.find_cases(self.root)
        check_cases(found, self.root)
        self.splits = list(dealt) or self.deal(found)
        check_fold(self.fold, len(self.splits))
        self.cases = self.cases_to_prepare(found)
        self.case_table = case_table(self.cases)
        self._seen = {stage: torch.zeros(len(self.cases), dtype=torch.uint8) for stage in _STAGES}

    def deal(self, found: Sequence[Case]) -> list[Split]:
        """Return the folds of the patients of some cases."""
        return self.folds.deal(case_table(found))

    def cases_to_prepare(self, found: Sequence[Case]) -> list[Case]:
        """Return the cases of the store, whatever the fold; here those that were found."""
        return list(found)

    @override
    def train_dataloader(self) -> DataLoader[Batch]:
        self._train_dataset = self._dataset("train")
        return self._train_loader(self._train_dataset)

    def _train_loader(self, dataset: SliceDataset) -> DataLoader[Batch]:
        return self._loader(dataset, ResumableSampler(dataset, **self._shares()))

    def _shares(self) -> dict[str, Any]:
        """Return how samples are shuffled and shared out to the processes."""
        return {
            "num_replicas": self.trainer.world_size if self.trainer else 1,
            "rank": self.trainer.global_rank if self.trainer else 0,
            # the run's, not that of the folds: studies of several seeds see other orders. The epoch
            # is added to it: seeds beside each other must not have the same orders, one epoch late
            "seed": self._seed << 16,
        }

    @override
    def val_dataloader(self) -> DataLoader[Batch] | list[DataLoader[Batch]]:
        if self.selection_part == "none":
            return []
        part = self._dataset(self.selection_part)
        if self.trainer is not None and self.trainer.world_size > 1:
            # without repetition, but where there are more processes than slices
            ours = np.arange(self.trainer.global_rank, len(part), self.trainer.world_size)
            part.positions = part.positions[ours if len(ours) else [0]]
        return self._loader(part)

    @override
    def test_dataloader(self) -> DataLoader[Batch]:
        return self._loader(self._dataset("test"))

    @override
    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        # chance is asked while the batch is on the CPU: asking the device would wait for it
        training = self.trainer is not None and self.trainer.training
        self._seen["train" if training else "other"][batch["case"]] = 1
        self.draws = None
        if training:
            self.draws = self._draws_of_epoch(batch["sample"]).in_mm(batch["spacing"])
        return batch

    @override
    def transfer_batch_to_device(
        self, batch: Batch, device: torch.device, dataloader_idx: int
    ) -> Batch:
        batch = super().transfer_batch_to_device(batch, device, dataloader_idx)
        if "position" in batch:
            assert self._on_device is not None
            image, mask = self._on_device.gather(batch.pop("position"))
            batch["image"] = image[:, None]
            batch.setdefault("mask", mask)  # that of a cine may have been moved already
        return batch

    @override
    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        if self.draws is not None:
            batch["image"], batch["mask"] = self.transform(
                batch["image"], batch["mask"], self.draws
            )
        batch["indices"] = self.indices_of_batch(batch)
        batch["mask"] = batch["mask"].long()
        return batch

    def transform(self, image: Tensor, mask: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """Apply what chance decided to the images and masks of a batch."""
        return transform(image, mask, draws, 1 + max(self.labels.values()), self._place)

    def indices_of_batch(self, batch: Batch) -> Tensor:
        """Return the index targets (B, K) of a batch whose images were transformed, if at all."""
        return self.indices_of(batch["mask"], batch["spacing"])

    def _draws_of_epoch(self, samples: Tensor) -> Draws:
        """Return the draws of some samples, another for each epoch and sample (P13).

        They depend on seed, epoch and sample alone: a run that was stopped goes on with the
        stream of one that was not, and two processes, which share the samples out, draw what one
        would.
        """
        assert self.trainer is not None
        stream = (self._seed, self.trainer.current_epoch)
        if stream != self._epoch_drawn:
            state = np.random.SeedSequence(stream).generate_state(1, np.uint64)
            generator = torch.Generator().manual_seed(int(state[0]) >> 1)
            count = len(self._train_dataset)
            self._epoch_draws = draw(self.augmentation, count, self.matrix, generator)
            self._epoch_drawn = stream
        return self._epoch_draws[samples]

    def known_indices(self) -> Tensor:
        """Return indices (slices, K) of the whole store, NaN where masks of a batch give them."""
        return torch.full((len(self.store.case), len(self.index_names)), torch.nan)

    def positions_of(self, part: Part) -> NDArray[np.intp]:
        """Return the slices of the store that a part asks for; one epoch of them in training."""
        patients = self.training_patients if part == "train" else getattr(self.split, part)
        rows = np.flatnonzero(self.case_table["patient_id"].isin(patients))
        positions = self.store.slices_of(rows.tolist())
        if part != "train":
            return positions
        if self.balance_classes:
            classes = self.case_table["label"].to_numpy()[self.store.case[positions]]
            positions = balanced(positions, classes)
        return np.tile(positions, 1 + self.copies)

    def _dataset(self, part: Part) -> SliceDataset:
        """Return what a part reads: the one place that keeps withheld masks from all but test."""
        positions = self.positions_of(part)
        if part != "test":
            withheld = np.asarray([case.withheld for case in self.cases])
            positions = positions[~withheld[self.store.case[positions]]]
        return SliceDataset(
            self.store,
            positions,
            indices=self.known_indices(),
            label=torch.tensor(self.case_table["label"].to_numpy()),
            transferred=torch.tensor([bool(case.transferred) for case in self.cases]),
            resident=self._on_device is not None,
        )

    def _loader(
        self, dataset: SliceDataset, sampler: ResumableSampler | None = None, kinds: int = 1
    ) -> DataLoader[Batch]:
        """Return the loader of a part, with `batch_size` samples of each kind a batch."""
        workers = 0 if dataset.resident else self.num_workers
        return BatchLoader(dataset, kinds * self.batch_size, workers, sampler)


def _refuse_below(least: float, **settings: float) -> None:
    for name, value in settings.items():
        if not value >= least:  # NaN is not either
            raise UserError(f"{value}", where=f"data.{name}", fix=f"give {least:g} or more")
