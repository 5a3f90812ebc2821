"""Native T1 maps with the mask of the myocardium, healthy or diseased, as Peng et al. (2021) have.

Layout: `<root>/cases.csv`, one row a patient or a slice: `case_id, patient_id, image` and, as far
as known, `mask, label`, and the columns of the manifest; paths relative to it. Images are 2-D or
3-D NIfTI, DICOM files, or folders of one DICOM stack, T1 in ms; masks are NIfTI; labels are
`healthy` or 0, `diseased` or 1. The data of the paper are private.
"""

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from typing_extensions import override

from cardiac_mtl.contracts import T1Study
from cardiac_mtl.errors import UserError
from data_modules.augment import Augmentation
from data_modules.cases import Case
from data_modules.crops import Size, central_start
from data_modules.findings import OnError, notice, refuse
from data_modules.geometry import Centre, prepare_image
from data_modules.manifest import TABLE, ManifestDataModule, case_of, one_volume, read_table
from data_modules.nifti import write_nifti
from data_modules.readers import shape_of
from data_modules.store import Plan

RANGE_MS = (200.0, 3000.0)
"""Of T1 in the body; what lies above is noise, or a fit that failed."""
UNIT_MS = 1000.0
"""Of the fixed scale: one second."""
WALL_MS = (600.0, 1800.0)
"""Of the median T1 of native myocardium, from iron overload at 1.5 T to amyloid at 3 T."""


class T1DataModule(ManifestDataModule):
    """Native T1 maps, in the pixels of their files.

    Args:
        root: folder of the data set; without it a phantom cohort is made and used.
        stratify_by: column whose values every fold holds alike [inferred: the label, as 77 of the
            654 images of the paper are of diseased hearts].
        matrix: rows and columns that maps are padded to, alike on both sides [paper: maps of
            256 x 218; inferred: to multiples of 16]; larger ones are cropped.
        spacing_mm: in-plane spacing of the prepared grid; None for the pixels of each file [paper].
        augmentation: random transformations of the training part [paper: rotation and shift;
            inferred: within 15 degrees and a tenth of the image].
        copies: transformed copies beside each original [paper: none, as every image is transformed
            anew in each epoch].
        fixed_scale: give the network T1 in seconds, where 0 is air, as beside the map [inferred:
            T1 is a quantity, and its level tells the diseased]; false brings each map to mean 0
            and SD 1, whose 0 is some tissue.
        settings: see `ManifestDataModule`.
    """

    layout = "t1"
    one_phase = True

    def __init__(
        self,
        root: Path | None = None,
        stratify_by: str = "label",
        matrix: tuple[int, int] = (256, 224),
        spacing_mm: float | None = None,
        augmentation: Augmentation = Augmentation(  # noqa: B008 - frozen
            probability=1.0, rotation_deg=15.0, translation=0.1
        ),
        copies: int = 0,
        fixed_scale: bool = True,
        **settings: Any,  # noqa: ANN401 - of the base, which names and checks them
    ) -> None:
        super().__init__(
            root=root,
            stratify_by=stratify_by,
            matrix=matrix,
            spacing_mm=spacing_mm,
            normalise="slice",
            augmentation=augmentation,
            copies=copies,
            **settings,
        )
        self.fixed_scale = fixed_scale

    @override
    def find_cases(self, root: Path, on_error: OnError = refuse) -> list[Case]:
        return self.labelled(find_cases(root, on_error))

    @override
    def plan(self) -> Plan:
        sizes = [self._size(row) for row in range(len(self.cases))]
        larger = sum(rows > self.matrix[0] or columns > self.matrix[1] for rows, columns in sizes)
        if larger and self.spacing_mm is None:
            assert self.root is not None
            what = (
                f"{larger} of {len(sizes)} maps are larger than {self.matrix[0]} x {self.matrix[1]}"
            )
            notice("cropped", self.root, f"{what} pixels and lose their borders; see data.matrix")
        return super().plan()

    @override
    def scored_part(self, row: int) -> tuple[slice, slice]:
        if self.spacing_mm is not None:
            return super().scored_part(row)
        return reached_part(self._size(row), self.matrix)

    @override
    def read_image(self, case: Case) -> sitk.Image:
        """Return the map of a case in ms; what lies above the range of T1 is at its end.

        Raises:
            UserError: a file is damaged, or the map is not in ms.
        """
        image = super().read_image(case)
        _refuse_other_units(sitk.GetArrayViewFromImage(image), case.image[0])
        return sitk.Clamp(image, lowerBound=0.0, upperBound=RANGE_MS[1])

    @override
    def read_mask(self, case: Case, image: sitk.Image) -> sitk.Image | None:
        mask = super().read_mask(case, image)
        if mask is not None:
            inside = sitk.GetArrayViewFromImage(mask) > 0
            _notice_odd_wall(sitk.GetArrayViewFromImage(image)[inside], case.image[0])
        return mask

    @override
    def prepare_volume(
        self, volume: sitk.Image, centre: Centre | None = None
    ) -> NDArray[np.float32]:
        if not self.fixed_scale:
            return super().prepare_volume(volume, centre)
        seconds = sitk.Cast(volume, sitk.sitkFloat32) / UNIT_MS
        return prepare_image(seconds, self.matrix, self.spacing_of(volume), None, centre)

    @property
    @override
    def intensities(self) -> str:
        return "T1 is scaled alike in all maps" if self.fixed_scale else super().intensities

    @property
    @override
    def preparation(self) -> dict[str, Any]:
        return super().preparation | {"unit_ms": UNIT_MS if self.fixed_scale else None}

    def _size(self, row: int) -> Size:
        """Return rows and columns of the map of a row of the case table, as its header has them."""
        columns, rows, *_ = shape_of(self.cases[row].image[0])
        return rows, columns


def find_cases(root: Path, on_error: OnError = refuse) -> list[Case]:
    """Read the table.

    Args:
        root: the folder that holds `cases.csv`, or that file itself.
        on_error: what to do with a fault of one row.

    Returns:
        One case a row, in the order of the table.

    Raises:
        UserError: as `manifest.find_cases`; or an image has phases.
    """
    return read_table(root, lambda row: one_volume(case_of(row)), on_error)


def reached_part(size: Size, matrix: Size) -> tuple[slice, slice]:
    """Return rows and columns of a grid of native pixels that an image of some size reaches.

    Examples:
        >>> reached_part((256, 218), (256, 224))
        (slice(0, 256, None), slice(3, 221, None))
    """
    rows, columns = (
        slice(max(-start, 0), min(n - start, side))
        for n, side, start in zip(size, matrix, central_start(size, matrix), strict=True)
    )
    return rows, columns


def _refuse_other_units(voxels: NDArray[np.float32], where: Path) -> None:
    """Refuse a map in seconds, or one whose values were scaled to be stored."""
    above = voxels[voxels > 0]
    median = float(np.median(above)) if above.size else 0.0
    low, high = RANGE_MS
    if low <= median <= high:
        return
    seconds = low <= 1000 * median <= high
    raise UserError(
        f"has a median of {median:.4g}, where T1 in ms has {low:g} to {high:g}"
        + (": it is in seconds" if seconds else ": its values are scaled"),
        where=str(where),
        fix="multiply it by 1000" if seconds else "apply the rescale slope that it was stored with",
        code="t1_unit",
    )


def _notice_odd_wall(wall: NDArray[np.float32], where: Path) -> None:
    """Say where the myocardium is not what native myocardium can be, though the map might be."""
    low, high = WALL_MS
    median = float(np.median(wall)) if wall.size else low
    if not low <= median <= high:
        what = f"the myocardium has a median T1 of {median:.4g} ms, native is {low:g} to {high:g}"
        notice("t1_wall", where, f"{what}: is it scaled, after contrast, or the mask elsewhere?")


def write_layout(root: Path, studies: Iterable[T1Study]) -> None:
    """Write studies in this layout, one row a patient; the inverse of `find_cases`.

    Args:
        root: folder to fill, with `truth.csv` beside the table: the exact values.
        studies: their slices become one volume.
    """
    root.mkdir(parents=True, exist_ok=True)
    rows, truth = [], []
    for study in studies:
        names = {kind: f"{study.patient_id}_{kind}.nii.gz" for kind in ("image", "mask")}
        for kind, array in (("image", study.image.astype(np.int16)), ("mask", study.mask)):
            write_nifti(root / names[kind], array, study.affine)
        who = {"case_id": study.patient_id, "patient_id": study.patient_id}
        rows.append(who | {"label": study.label, "pathology": study.pathology} | names)
        truth.append({"patient_id": study.patient_id, **study.truth})
    _write_table(root / TABLE, rows)
    _write_table(root / "truth.csv", truth)


def _write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
