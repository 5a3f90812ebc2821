"""MS-CMRSeg 2019: LGE is segmented; masks of bSSFP (C0) and T2 of the same patients may help.

Layout: see `mscmr_files`. What is known of the LGE images decides who trains and who is tested, see
`mscmr_roles`. Access: by registration with the challenge.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import SimpleITK as sitk
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader
from typing_extensions import override

from cardiac_mtl.contracts import Batch
from cardiac_mtl.errors import UserError
from data_modules.augment import Augmentation
from data_modules.base import CardiacDataModule, Part
from data_modules.cases import Case, case_table
from data_modules.crops import (
    CROP_GROUPS,
    SIDE,
    central_start,
    centre_of_crop,
    crop_shift,
    crop_start,
    cuts,
    enclose,
    label_box,
)
from data_modules.findings import OnError, notice, refuse
from data_modules.geometry import Centre, Normalise, prepare_foreground
from data_modules.loading import PairedSampler
from data_modules.mscmr_files import (
    TARGET,
    find_cases,
    read_labels,
    sequence_of,
    withheld_masks,
)
from data_modules.mscmr_roles import MASKS, cases_of_training, roles_of, with_roles
from data_modules.readers import read_volume
from data_modules.splits import Split, take_validation, thin
from data_modules.store import PreparedCase, SliceDataset
from data_modules.transfer import CROP_OFFSETS, Rounding, TransferMode, transfer_mask

Protocol = Literal["roles", "table1", "folds"]
SHEAR_DEG = round(math.degrees(0.1), 2)
"""0.1 radians [code: model/tools/augmentation.py]."""


class MSCMRDataModule(CardiacDataModule):
    """LGE volumes with masks of their own, or of another sequence of the patient.

    A training batch is a sub-batch of labelled slices and one of as many slices whose mask was
    carried over; an epoch is one pass over the labelled ones. Slices without foreground train
    nothing. The released code stacks the base crop four times (the original and a transformed copy,
    each twice) and takes the other crops and the carried over masks once: here the base crop comes
    `1 + copies` times, and every sample is transformed with probability 1/2, anew each epoch
    [inferred: the share of the stacked base crop].

    Args:
        root: folder of the data set; without it a phantom cohort is made and used.
        protocol: `roles` trains on all patients with an LGE mask and tests all others, whose images
            are seen in training under masks of their other sequences, as in Tables 2 and 3 of the
            paper; `table1` trains on the first three fifths of those with an LGE mask and tests the
            rest of them; `folds` deals all patients. In the last two nobody is in both parts.
        val_patients: patients with an LGE mask that are taken out of the training to choose the
            epoch on [paper: none, the number of epochs is fixed].
        transfer: train on masks of other sequences too.
        transfer_mode: how such a mask gets onto the LGE volume [paper: slices by eq. 1].
        rounding: of eq. 1.
        crop_groups: crops of each labelled volume in training, 1 to 5 [paper: 5]. One that would
            cut labels is left out [paper: they enclose all of them].
        num_folds: of `folds`.
        stratify_by: column whose values every fold holds alike; `masks` says which a patient has.
        batch_size: slices of a sub-batch [paper: 16; inferred: of each kind].
        matrix: rows and columns of the crop [code: 224, 224].
        spacing_mm: of the prepared grid; None takes the pixels of the files as they are [code].
        normalise: over the foreground of each `slice` [paper] or of the `volume` [code].
        augmentation: rotation, shear and zoom [code]; one zoom along both sides [inferred].
        copies: further times that an epoch holds the base crop [code: 3].
        settings: see `CardiacDataModule`.
    """

    layout = "mscmr"
    labels = {"lv": 1, "myocardium": 2, "rv": 3}  # noqa: RUF012 - as the base declares it
    index_names = ()
    one_phase = True

    def __init__(
        self,
        root: Path | None = None,
        protocol: Protocol = "roles",
        val_patients: int = 0,
        transfer: bool = True,
        transfer_mode: TransferMode = "slice_index",
        rounding: Rounding = "floor",
        crop_groups: int = CROP_GROUPS,
        num_folds: int = 5,
        stratify_by: str = MASKS,
        batch_size: int = 16,
        matrix: tuple[int, int] = (SIDE, SIDE),
        spacing_mm: float | None = None,
        normalise: Normalise = "slice",
        augmentation: Augmentation = Augmentation(  # noqa: B008 - frozen
            probability=0.5, rotation_deg=15.0, translation=0.0, zoom=0.2, shear_deg=SHEAR_DEG
        ),
        copies: int = 3,
        **settings: Any,  # noqa: ANN401 - of the base, which names and checks them
    ) -> None:
        super().__init__(
            root=root,
            num_folds=num_folds,
            stratify_by=stratify_by,
            batch_size=batch_size,
            matrix=matrix,
            spacing_mm=spacing_mm,
            normalise=normalise,
            augmentation=augmentation,
            copies=copies,
            **settings,
        )
        if not 1 <= crop_groups <= CROP_GROUPS:
            raise UserError(
                f"{crop_groups}", where="data.crop_groups", fix=f"give 1 to {CROP_GROUPS}"
            )
        self.protocol: Protocol = protocol
        self.val_patients = val_patients
        self.transfer = transfer
        self.transfer_mode: TransferMode = transfer_mode
        self.rounding: Rounding = rounding
        self.crop_groups = crop_groups

    @property
    @override
    def selection_part(self) -> Literal["val", "test", "none"]:
        nobody = not self.val_patients and self.folds.splits_file is None
        return "none" if nobody and not self.paper_protocol else super().selection_part

    @property
    @override
    def crop(self) -> str:
        where = "as the released code places it" if self.spacing_mm is None else "in the middle"
        return f"{self.matrix[0]} x {self.matrix[1]} pixels {where}"

    @property
    @override
    def preparation(self) -> dict[str, Any]:
        how = {"transfer_mode": self.transfer_mode, "rounding": self.rounding}
        return super().preparation | how

    @property
    def transfer_patients(self) -> tuple[str, ...]:
        """Patients whose images are trained on under masks of their other sequences."""
        able = {*self.training_patients, *self.split.transductive}
        return tuple(sorted({c.patient_id for c in self.cases if c.transferred} & able))

    @override
    def find_cases(self, root: Path, on_error: OnError = refuse) -> list[Case]:
        return with_roles(find_cases(root, on_error), withheld_masks(root))

    @override
    def deal(self, found: Sequence[Case]) -> list[Split]:
        lge = [case for case in found if case.sequence == TARGET]
        roles = roles_of(lge)
        if not roles.own:
            raise UserError(
                f"none of {len(lge)} LGE volumes has a mask: there is nothing to learn from",
                where=str(self.root),
                fix="add patient<N>_LGE_manual.nii.gz of some patients",
                code="no_mask",
            )
        seed = self.folds.seed
        if self.protocol == "folds":
            splits = self.folds.deal(case_table(lge))
            if self.folds.splits_file is not None:
                return splits
            return [take_validation(s, roles.own, self.val_patients, seed) for s in splits]
        if self.folds.leave_out or self.folds.splits_file is not None:
            raise UserError(
                f"{self.protocol!r} says who is tested, and so do the folds",
                where="data.protocol",
                fix="choose `folds` beside `leave_out` or `splits`",
            )
        published = roles.as_published if self.protocol == "roles" else roles.validation_experiment
        split = take_validation(
            published(transfer=self.transfer), roles.own, self.val_patients, seed
        )
        return [thin(split, self.folds.train_fraction, dict.fromkeys(split.train, ""), seed)]

    @override
    def cases_to_prepare(self, found: Sequence[Case]) -> list[Case]:
        as_they_are = [case for case in found if case.sequence == TARGET]
        return as_they_are + cases_of_training(found, self.crop_groups, transfer=self.transfer)

    @override
    def setup(self, stage: str) -> None:
        again = hasattr(self, "store")
        self.find()
        own = set(roles_of(self._as_they_are).own)
        if stage == "fit" and not own & set(self.training_patients):
            raise UserError(
                f"no training patient of fold {self.fold} has an LGE mask",
                where="data.fold",
                fix="choose fewer folds, or another fold",
                code="no_mask",
            )
        if unknown := sorted(set(self.split.val) - own):
            raise UserError(
                f"fold {self.fold} would choose the epoch on {unknown[0]!r}, without an LGE mask",
                where="data.splits",
                fix="validate on patients that have one",
                code="no_mask",
            )
        super().setup(stage)
        if not again:
            self._say_what_is_unusual()

    @override
    def takes(self, name: str) -> bool:
        return sequence_of(name) in {TARGET, None}  # another name may be late enhancement too

    @override
    def read_mask(self, case: Case, image: sitk.Image) -> sitk.Image | None:
        path = case.mask[0] if case.mask else None
        if path is None:
            return None
        return self._carried_over(case, path, image) if case.source else read_labels(path, image)

    @override
    def centre_of(self, case: Case, volume: sitk.Image) -> Centre:
        columns, rows, _ = volume.GetSize()
        middle = central_start((rows, columns), self.matrix)
        if self.spacing_mm is None:
            start = crop_start(case.sequence or TARGET, (rows, columns), self.matrix)
            row, column = centre_of_crop(start, self.matrix)
        else:
            start, row, column = middle, (rows - 1) / 2, (columns - 1) / 2
        down, right = crop_shift(case.crop or 0, start, middle, self.matrix)
        by_row, by_column = self._step(volume)
        return row + down * by_row, column + right * by_column

    @override
    def read_and_prepare(self, case: Case) -> PreparedCase:
        volume = self.read_image(case)
        mask = self.read_mask(case, volume)
        centre = self.centre_of(case, volume)
        box = None if mask is None else label_box(mask)
        if box is not None:
            by_row, by_column = self._step(volume)
            half = (self.matrix[0] - 1) / 2 * by_row, (self.matrix[1] - 1) / 2 * by_column
            if case.crop == 0:  # of training alone, where the labels are known
                centre = enclose(centre, half, box)
            if cuts(centre, half, box):
                dropped = "is left out" if case.crop else "is used all the same"
                notice("crop_cuts", case.image[0], f"the crop cuts labels; it {dropped}")
                mask = None if case.crop else mask
        return self.on_grid(volume, mask, centre)

    @override
    def prepare_volume(
        self, volume: sitk.Image, centre: Centre | None = None
    ) -> NDArray[np.float32]:
        spacing = self.spacing_of(volume)
        return prepare_foreground(volume, self.matrix, spacing, self.normalise, centre)

    @override
    def positions_of(self, part: Part) -> NDArray[np.intp]:
        """Return the slices that a part asks for: of training, labelled ones before all others."""
        if part != "train":
            patients = getattr(self.split, part)
            rows = [k for k, c in enumerate(self.cases) if c.crop is None]
            return self.store.slices_of([k for k in rows if self.cases[k].patient_id in patients])
        patients = (*self.training_patients, *self.split.transductive)
        rows = [
            k
            for k, case in enumerate(self.cases)
            if case.crop is not None and case.patient_id in patients
        ]
        carried = [k for k in rows if self.cases[k].transferred]
        labelled = [k for k in rows if not self.cases[k].transferred]
        base = [k for k in labelled if self.cases[k].crop == 0]
        once = [
            self._with_foreground(of_kind)
            for of_kind in (base, sorted({*labelled} - {*base}), carried)
        ]
        return np.concatenate([*[once[0]] * self.copies, *once])

    @override
    def indices_of(self, mask: Tensor, spacing: Tensor) -> Tensor:
        return torch.empty(len(mask), 0, device=mask.device)

    @override
    def _train_loader(self, dataset: SliceDataset) -> DataLoader[Batch]:
        others = int(
            dataset.transferred[torch.from_numpy(self.store.case[dataset.positions])].sum()
        )
        labelled = len(dataset) - others
        if not labelled:
            raise UserError(
                "no slice of the training part has a label within its crop",
                where=str(self.root),
                fix="look at the LGE masks with `cardiac-mtl check`",
                code="no_mask",
            )
        if not others:
            return super()._train_loader(dataset)
        sampler = PairedSampler(labelled, others, self.batch_size, **self._shares())
        return self._loader(dataset, sampler, kinds=2)

    @property
    def _as_they_are(self) -> list[Case]:
        return [case for case in self.cases if case.crop is None]

    def _step(self, volume: sitk.Image) -> tuple[float, float]:
        """Return rows and columns of a volume that one of the prepared grid spans."""
        (row_mm, column_mm), (columns, rows, _) = self.spacing_of(volume), volume.GetSpacing()
        return row_mm / rows, column_mm / columns

    def _with_foreground(self, rows: Sequence[int]) -> NDArray[np.intp]:
        """Return the slices of some cases that hold a label [code: the others are dropped]."""
        slices = self.store.slices_of(rows)
        return slices[np.asarray([(self.store.mask[k] > 0).any() for k in slices], dtype=bool)]

    def _carried_over(self, case: Case, path: Path, target: sitk.Image) -> sitk.Image | None:
        """Return the mask of another sequence on the LGE volume; None where none gets there."""
        source = read_volume(case.source)
        mask = read_labels(path, source)
        if not (sitk.GetArrayViewFromImage(mask) > 0).any():
            notice("transfer", path, "the mask has no foreground; it is not carried over")
            return None
        try:
            found = transfer_mask(
                mask,
                source,
                target,
                self.transfer_mode,
                self.rounding,
                crop_offset=CROP_OFFSETS[case.transferred],
                case=case.case_id,
            )
        except UserError as error:
            notice("transfer", path, f"{error.what}; the case is left out")
            return None
        if not (sitk.GetArrayViewFromImage(found) > 0).any():
            notice("transfer", path, "nothing of it lies on the LGE volume; the case is left out")
        return found

    def _say_what_is_unusual(self) -> None:
        assert self.root is not None
        if self.split.transductive:
            what = f"images of {len(self.split.transductive)} test patients are trained on with"
            how = "masks of their other sequences, as the paper does; their own masks are not read"
            notice("transductive", self.root, f"{what} {how}")
        tested = set(self.split.test)
        if not any(c.mask for c in self._as_they_are if c.patient_id in tested):
            what = "no test patient has an LGE mask, withheld or not"
            notice("no_reference", self.root, f"{what}: `test` scores nothing, use `predict`")
