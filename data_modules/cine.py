"""Cine 2D+T with infarct masks, as MuTGAN has it: one sample is one slice with all its phases.

Layout: `<root>/cases.csv`, one row a patient: `case_id, patient_id, image` and, as far as known,
`mask, myocardium`, the columns of the manifest, and those of `INDEX_NAMES`; paths relative to it.
Images are 4-D NIfTI (x, y, z, t) or folders of one DICOM cine, of one heart beat; mask (infarct
above 0; without one the case is not annotated) and myocardium are 3-D NIfTI, for all phases.
Indices of the table take the place of those measured in the mask; the image is one slice then, and
its centroid is from the centre of the first pixel of the file.
The data of the paper are private.
"""

import csv
import math
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import SimpleITK as sitk
import torch
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import override

from cardiac_mtl.contracts import UNLABELLED, Batch, CineStudy, TargetScale
from cardiac_mtl.errors import UserError
from cardiac_mtl.metrics.shape import INDEX_NAMES, infarct_indices
from data_modules.augment import Augmentation, Draws, transform_image, transform_mask
from data_modules.base import CardiacDataModule
from data_modules.cases import Case
from data_modules.cine_table import WALL, find_cases
from data_modules.findings import OnError, notice, refuse
from data_modules.geometry import (
    Centre,
    PreparedInput,
    apex_first,
    first_pixel,
    prepare_frames,
    prepare_mask,
)
from data_modules.manifest import TABLE
from data_modules.masks import read_region
from data_modules.nifti import write_nifti
from data_modules.readers import Cine, count_slices_of_cine, read_cine
from data_modules.roi import box_centre, moving_centre
from data_modules.splits import Split
from data_modules.store import Plan, PreparedCase

Roi = Literal["variance", "myocardium"]
INFARCT, MYOCARDIUM = 1, 2
"""Values of a prepared mask; the second is the myocardium beside the infarct."""
SMALLEST_SD = 1e-3
"""Of the scale of an index, in its unit: for one that does not vary."""
_PERCENT, _CENTROID, _ORIENTATION = (
    INDEX_NAMES.index(name) for name in ("segment_percent", "centroid_y_mm", "orientation_deg")
)


class CineDataModule(CardiacDataModule):
    """Cine with infarct masks, cropped around the heart.

    Args:
        root: folder of the data set; without it a phantom cohort is made and used.
        roi: crop around what beats, which no reference is asked for, or around the box of the
            reference `myocardium`, in the test part too [paper: a network that is not described;
            inferred: what beats].
        frames: phases of a sample; stored ones are interpolated in time [paper: 25].
        num_folds: folds of the cross-validation [paper: 10].
        batch_size: slices a batch [inferred: 4].
        matrix: rows and columns of the region of interest [paper: 64, 64].
        spacing_mm: of its pixels; that of the paper's own images, which it takes as they are, is
            1.769 x 1.771 [inferred: resampling to 1.77 gives other images the same 113 mm].
        augmentation: random transformations of the training part [paper: none].
        copies: transformed copies that an epoch holds beside each original [paper: none].
        settings: see `CardiacDataModule`. Each slice is normalised over its phases [inferred].
    """

    layout = "cine"
    labels = {"infarct": INFARCT}  # noqa: RUF012 - as the base declares it
    index_names = INDEX_NAMES
    whole_cines = True
    spacing_mm: float

    def __init__(
        self,
        root: Path | None = None,
        roi: Roi = "variance",
        frames: int = 25,
        num_folds: int = 10,
        batch_size: int = 4,
        matrix: tuple[int, int] = (64, 64),
        spacing_mm: float = 1.77,
        augmentation: Augmentation = Augmentation(probability=0.0),  # noqa: B008 - frozen
        copies: int = 0,
        **settings: Any,  # noqa: ANN401 - of the base, which names and checks them
    ) -> None:
        super().__init__(
            root=root,
            num_folds=num_folds,
            batch_size=batch_size,
            matrix=matrix,
            spacing_mm=spacing_mm,
            normalise="slice",
            augmentation=augmentation,
            copies=copies,
            **settings,
        )
        self.roi: Roi = roi
        self.frames = frames
        self.percent_of_roi = False
        """Whether no case has a myocardium, so that the percentage is of all pixels."""

    @property
    @override
    def muscle(self) -> int | None:
        return None if self.percent_of_roi else MYOCARDIUM

    @property
    @override
    def wall(self) -> tuple[int, ...]:
        # without contrast agent an infarct is as dark as muscle: left out, it would pass for blood
        return () if self.percent_of_roi else (INFARCT, MYOCARDIUM)

    @property
    @override
    def crop(self) -> str:
        what = "what beats" if self.roi == "variance" else "the myocardium of the reference"
        side = " x ".join(f"{n * self.spacing_mm:.0f}" for n in self.matrix)
        return f"{side} mm around {what}"

    @property
    @override
    def crop_asks_reference(self) -> bool:
        return self.roi == "myocardium"

    @property
    @override
    def preparation(self) -> dict[str, Any]:
        return super().preparation | {"roi": self.roi, "frames": self.frames}

    @override
    def plan(self) -> Plan:
        slices = tuple(count_slices_of_cine(case.image) for case in self.cases)
        return Plan(slices, self.matrix, self.frames)

    @override
    def find_cases(self, root: Path, on_error: OnError = refuse) -> list[Case]:
        return find_cases(root, on_error)

    @override
    def find_and_split(self, dealt: Sequence[Split] = ()) -> None:
        super().find_and_split(dealt)
        self.percent_of_roi = not any(case.myocardium for case in self.cases)

    @override
    def setup(self, stage: str) -> None:
        again = hasattr(self, "store")
        super().setup(stage)
        if not again:
            self._say_what_is_unusual()
        if stage == "fit" and not self._known_in_training().nan_to_num().any():
            raise UserError(
                "no infarct in any slice of the training part: there is nothing to learn",
                where=str(self.root),
                fix="look at the masks with `cardiac-mtl check`, or choose another fold",
                code="no_infarct",
            )

    @override
    def read_image(self, case: Case) -> sitk.Image:
        return read_cine(case.image).volume

    @override
    def read_mask(self, case: Case, image: sitk.Image) -> sitk.Image | None:
        wall = _read_wall(case, image) if case.myocardium else None
        if not case.mask or case.mask[0] is None:
            return None
        infarct = read_region(case.mask[0], image)
        classes = np.zeros(infarct.shape, np.int16)
        if wall is not None:
            classes[wall] = MYOCARDIUM
        classes[infarct] = INFARCT
        mask = sitk.GetImageFromArray(classes)
        mask.CopyInformation(image)
        return mask

    @override
    def prepare_input(self, case: Case) -> PreparedInput:
        cine = read_cine(case.image)
        centre = self._on_pixels(self._centre(case, cine), cine.volume)
        image = prepare_frames(
            cine.frames, cine.volume, self.matrix, self.spacing_mm, centre, self.frames
        )
        return PreparedInput(image, cine.volume, self.spacing_of(cine.volume), centre)

    @override
    def read_and_prepare(self, case: Case) -> PreparedCase:
        image, volume, spacing, centre = self.prepare_input(case)
        mask = self.read_mask(case, volume)
        prepared = (
            np.full((len(image), *self.matrix), UNLABELLED, np.int8)
            if mask is None
            else prepare_mask(mask, self.matrix, spacing, centre)
        )
        base_to_apex = slice(None, None, -1 if apex_first(volume) else 1)
        assert centre is not None
        return PreparedCase(
            image=image[base_to_apex],
            mask=prepared[base_to_apex],
            spacing=(volume.GetSpacing()[2], *spacing),
            origin=first_pixel(volume, self.matrix, spacing, centre),
        )

    @override
    def indices_of(self, mask: Tensor, spacing: Tensor) -> Tensor:
        """Measure the infarct in the masks that the network sees.

        Args:
            mask: (B, H, W), any type of integers, on the CPU.
            spacing: float32 (B, 3), slice, row and column spacing in mm.

        Returns:
            float32 (B, 8), see `INDEX_NAMES`, the centroid from the centre of the first pixel; NaN
            where one is not defined, and where the slice is not annotated. The percentage is of
            infarct and myocardium, or of all pixels where no case of the data has a myocardium.
        """
        held = mask.numpy()
        within = None if self.percent_of_roi else held > 0
        steps = spacing[:, 1:].double().numpy()
        indices = infarct_indices(held == INFARCT, steps, within)
        indices[(held == UNLABELLED).any(axis=(1, 2))] = np.nan
        return torch.from_numpy(indices).float()

    @override
    def known_indices(self) -> Tensor:
        return self._known

    @override
    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        batch = super().on_before_batch_transfer(batch, dataloader_idx)
        if self.augmentation.probability == 0:  # moving 25 frames by nothing would take a while
            self.draws = None
        if self.draws is not None:
            # masks are moved and measured while they are on the CPU: a device would be waited for
            mask = self._mask_of(batch)
            batch["mask"] = transform_mask(mask, self.draws, 1 + MYOCARDIUM, self._place)
            batch["indices"] = self._followed(batch, self.draws)
        return batch

    @override
    def transform(self, image: Tensor, mask: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        return transform_image(image[:, 0], draws)[:, None], mask

    @override
    def indices_of_batch(self, batch: Batch) -> Tensor:
        return batch["indices"]

    @override
    def target_scale(self) -> TargetScale:
        """Fit mean and SD of each index on the training patients, after `setup`.

        Returns:
            Over the slices of which the index is known, those without infarct included where it
            is defined (size and percentage 0). The orientation keeps 0 and 90 degrees, as it lives
            on a half circle.
        """
        known = self._known_in_training().double()
        mean = known.nanmean(0).nan_to_num(0.0)
        sd = (known - mean).square().nanmean(0).sqrt().nan_to_num(1.0).clamp(min=SMALLEST_SD)
        mean[_ORIENTATION], sd[_ORIENTATION] = 0.0, 90.0
        return TargetScale(mean.float(), sd.float())

    @cached_property
    def _given(self) -> Tensor:
        """Indices (cases, 8) that the table gives, NaN elsewhere."""
        rows = [[float(c.other.get(n) or math.nan) for n in INDEX_NAMES] for c in self.cases]
        return torch.tensor(rows)

    @cached_property
    def _without_wall(self) -> Tensor:
        """Whether each case (cases,) has no myocardium."""
        return torch.tensor([not case.myocardium for case in self.cases])

    @cached_property
    def _known(self) -> Tensor:
        """Indices (slices, 8) of the whole store without augmentation."""
        case = torch.from_numpy(self.store.case)
        mask, spacing = (torch.from_numpy(a.copy()) for a in (self.store.mask, self.store.spacing))
        given = self._given[case]
        given[:, _CENTROID : _CENTROID + 2] -= torch.from_numpy(self.store.origin)
        return torch.where(given.isnan(), self._measured(mask, spacing, case), given)

    def _mask_of(self, batch: Batch) -> Tensor:
        """Return the masks of a batch on the CPU, as stored."""
        if "position" not in batch:
            return batch["mask"]
        return torch.from_numpy(self.store.mask[batch["position"].numpy()])

    def _followed(self, batch: Batch, draws: Draws) -> Tensor:
        """Return the indices of a batch on the CPU whose masks were moved."""
        moved = (draws.theta != torch.eye(2, 3)).flatten(1).any(1)
        measured = self._measured(batch["mask"], batch["spacing"], batch["case"])
        # what the table says holds where the image lay
        measured[self._given[batch["case"]].isfinite()] = torch.nan
        return torch.where(moved[:, None], measured, batch["indices"])

    def _known_in_training(self) -> Tensor:
        rows = np.flatnonzero(self.case_table["patient_id"].isin(self.training_patients))
        return self._known[torch.from_numpy(self.store.slices_of(rows.tolist()))]

    def _measured(self, mask: Tensor, spacing: Tensor, case: Tensor) -> Tensor:
        """Measure masks, without the percentage of cases that lack the myocardium of the others."""
        indices = self.indices_of(mask, spacing)
        if not self.percent_of_roi:
            indices[self._without_wall[case], _PERCENT] = torch.nan
        return indices

    def _centre(self, case: Case, cine: Cine) -> Centre:
        """Place the grid: the one way for every part, and for unseen images."""
        if self.roi == "variance":
            column_mm, row_mm, _ = cine.volume.GetSpacing()
            return moving_centre(cine.frames, (row_mm, column_mm))
        if not case.myocardium:
            raise UserError(
                f"case {case.case_id!r} has no myocardium to crop around",
                where="data.roi",
                fix="add its file to the table, or choose `variance`",
                code="no_myocardium",
            )
        if centre := box_centre(_read_wall(case, cine.volume)):
            return centre
        raise UserError(
            "the myocardium is empty",
            where=str(case.myocardium[0]),
            fix="draw it, or choose `--data.roi variance`",
            code="empty_mask",
        )

    def _on_pixels(self, centre: Centre, volume: sitk.Image) -> Centre:
        """Move a centre by half a pixel at most, so that the grid begins on a pixel.

        Pixels of the grid that are as large as those of the file are then those of the file.
        """
        column_mm, row_mm, _ = volume.GetSpacing()
        half = [(n - 1) / 2 * self.spacing_mm for n in self.matrix]
        row, column = (
            round(place - part / step) + part / step
            for place, part, step in zip(centre, half, (row_mm, column_mm), strict=True)
        )
        return row, column

    def _say_what_is_unusual(self) -> None:
        assert self.root is not None
        if self.crop_asks_reference:
            notice("roi", self.root, f"images are cropped {self.crop}, in the test part too")
        masked = [case for case in self.cases if case.mask]
        without = [case for case in masked if not case.myocardium]
        if without and self.percent_of_roi:
            notice("no_myocardium", self.root, "no myocardium: infarct is in % of the whole crop")
        elif without:
            what = f"{len(without)} of {len(masked)} masks have no myocardium beside them"
            notice("no_myocardium", self.root, f"{what}: their % of infarct is unknown")


def _read_wall(case: Case, like: sitk.Image) -> NDArray[np.bool_]:
    (path,) = case.myocardium
    return read_region(path, like, one_value=True)


def write_layout(root: Path, studies: Iterable[CineStudy]) -> None:
    """Write studies in this layout, one row a patient; the inverse of `find_cases`.

    Args:
        root: folder to fill.
        studies: the infarct becomes the mask, and the myocardium of phase 0 the file beside it.
    """
    root.mkdir(parents=True, exist_ok=True)
    with (root / TABLE).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["case_id", "patient_id", "pathology", "image", "mask", WALL])
        for study in studies:
            arrays = {
                "image": study.image.astype(np.int16),
                "mask": study.infarct,
                WALL: (study.mask[0] == 1).astype(np.uint8),
            }
            names = [_write(root, study, kind, array) for kind, array in arrays.items()]
            writer.writerow([study.patient_id, study.patient_id, study.pathology, *names])


def _write(root: Path, study: CineStudy, kind: str, array: NDArray[Any] | None) -> str:
    """Write ([T,] S, H, W); return the name of the file, none without array."""
    if array is None:
        return ""
    name = f"{study.patient_id}_{kind}.nii.gz"
    write_nifti(root / name, array, study.affine)
    return name
