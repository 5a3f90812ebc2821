"""How a case gets onto the prepared grid, and a data set into its store: without fold or loader."""

import hashlib
import sys
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from data_modules.cases import Case
from data_modules.crops import central_start, centre_of_crop
from data_modules.findings import OnError, notice, noticed, refuse
from data_modules.geometry import (
    Centre,
    Normalise,
    PreparedInput,
    apex_first,
    prepare_image,
    prepare_mask,
)
from data_modules.readers import count_slices, read_volume
from data_modules.store import (
    Plan,
    PreparedCase,
    PreparedStore,
    cache_folder,
    open_store,
    store_key,
    unannotated_like,
)


def code_of_others(kind: type) -> dict[str, Any]:
    """Return what tells a store of a data module that is not ours from one of its earlier lines.

    Ours have `store.VERSION`. Of another, what it prepares may change with any line, and may differ
    from that of the module whose layout it inherits.

    Args:
        kind: a subclass of `Preparation`.

    Returns:
        The hash of its file by class, JSON-able; nothing of classes that are ours.
    """
    ours = __package__
    others = [k for k in kind.__mro__ if issubclass(k, Preparation)]
    others = [k for k in others if k.__module__.partition(".")[0] != ours]
    if not others:
        return {}
    return {"code": {f"{k.__module__}.{k.__qualname__}": _hash_of_file(k) for k in others}}


def _hash_of_file(kind: type) -> str:
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else ""


class Preparation:
    """Reading and preparing the cases of a data set, the same for every part and unseen images."""

    layout: ClassVar[str]
    """Name of the layout, as `cardiac-mtl phantom --layout` knows it."""
    labels: ClassVar[dict[str, int]] = {"myocardium": 1}
    """Value of each class in a prepared mask."""
    whole_cines: ClassVar[bool] = False
    """Whether a case is a cine with all its phases."""
    one_phase: ClassVar[bool] = False
    """Whether an image is one volume, and what has phases is of another kind."""

    cases: Sequence[Case]
    """Of the store."""
    matrix: tuple[int, int]
    spacing_mm: float | None
    normalise: Normalise
    cache_dir: Path | None

    @abstractmethod
    def find_cases(self, root: Path, on_error: OnError = refuse) -> list[Case]:
        """Return the cases below a folder, in a fixed order; faults go to `on_error`."""

    @abstractmethod
    def read_mask(self, case: Case, image: sitk.Image) -> sitk.Image | None:
        """Return the mask of a case with the values of `labels`, its geometry checked."""

    @property
    def wall(self) -> tuple[int, ...]:
        """Values of a mask between blood and what is outside; none where it does not hold them."""
        return tuple(value for name, value in self.labels.items() if name == "myocardium")

    @property
    def crop(self) -> str:
        """How the prepared matrix is placed; `audit` and reports print it."""
        return "around the centre of the image"

    @property
    def crop_asks_reference(self) -> bool:
        """Whether that place depends on a reference, which an unseen image does not have."""
        return False

    def takes(self, name: str) -> bool:  # noqa: ARG002 - others ask it
        """Whether a file of a folder is an image of the kind that is predicted; here all are."""
        return True

    def scored_part(self, row: int) -> tuple[slice, slice]:  # noqa: ARG002 - others ask it
        """Return rows and columns of the prepared grid that a case is scored on; here all."""
        return slice(None), slice(None)

    def read_image(self, case: Case) -> sitk.Image:
        """Return the volume that the mask of a case belongs to."""
        return read_volume(case.image, case.frame)

    def prepare_case(self, case: Case) -> PreparedCase:
        """Read one case and bring it to the prepared grid, slices base to apex."""
        with noticed() as odd:
            prepared = self.read_and_prepare(case)
        for finding in odd:  # by case: the name of a file may be that of a patient
            notice(finding.code, Path(case.case_id), finding.message, finding.severity)
        return prepared

    def read_and_prepare(self, case: Case) -> PreparedCase:
        """Do what `prepare_case` says, which gives what is noticed its case."""
        volume = self.read_image(case)
        mask = self.read_mask(case, volume)
        return self.on_grid(volume, mask, self.centre_of(case, volume))

    def on_grid(
        self, volume: sitk.Image, mask: sitk.Image | None, centre: Centre | None
    ) -> PreparedCase:
        """Bring a volume and its mask, if it has one, to the prepared grid around a centre."""
        image, spacing = self.prepare_volume(volume, centre), self.spacing_of(volume)
        prepared = (
            unannotated_like(image)
            if mask is None
            else prepare_mask(mask, self.matrix, spacing, centre)
        )
        base_to_apex = slice(None, None, -1 if apex_first(volume) else 1)
        return PreparedCase(
            image=image[base_to_apex],
            mask=prepared[base_to_apex],
            spacing=(volume.GetSpacing()[2], *spacing),
        )

    def prepare_input(self, case: Case) -> PreparedInput:
        """Read an image, of whatever part or none, and bring it to the prepared grid.

        Raises:
            UserError: a file is damaged, or the crop asks for a reference that is not there.
        """
        volume = self.read_image(case)
        centre = self.centre_of(case, volume)
        image = self.prepare_volume(volume, centre)
        return PreparedInput(image, volume, self.spacing_of(volume), centre)

    def spacing_of(self, volume: sitk.Image) -> tuple[float, float]:
        """Return the spacing of rows and columns of the prepared grid of a volume, in mm."""
        if self.spacing_mm is not None:
            return self.spacing_mm, self.spacing_mm
        column_mm, row_mm, _ = volume.GetSpacing()
        return row_mm, column_mm

    def centre_of(self, case: Case, volume: sitk.Image) -> Centre | None:  # noqa: ARG002 - others ask it
        """Place the grid of an image of whatever part; None for the centre of the volume."""
        if self.spacing_mm is not None:
            return None
        columns, rows, _ = volume.GetSize()
        return centre_of_crop(central_start((rows, columns), self.matrix), self.matrix)

    def prepare_volume(
        self, volume: sitk.Image, centre: Centre | None = None
    ) -> NDArray[np.float32]:
        """Bring a volume (slices, rows, columns) to the prepared grid (S, H, W), normalised."""
        spacing = self.spacing_of(volume)
        return prepare_image(volume, self.matrix, spacing, self.normalise, centre)

    @property
    def intensities(self) -> str:
        """How intensities are scaled; `audit` prints it."""
        return f"intensities are normalised within each {self.normalise}"

    @property
    def preparation(self) -> dict[str, Any]:
        """The settings that prepared arrays depend on, JSON-able."""
        return {
            "layout": self.layout,
            "matrix": self.matrix,
            "spacing_mm": self.spacing_mm,
            "normalise": self.normalise,
        }

    def plan(self) -> Plan:
        """Return what the store will hold, from the headers of all cases."""
        return Plan(tuple(count_slices(case.image) for case in self.cases), self.matrix)

    def open_store(self) -> PreparedStore:
        """Open the store of the cases, prepared now where it was not."""
        settings = self.preparation | code_of_others(type(self))
        cache = self.cache_dir or cache_folder()
        key = store_key(self.cases, settings, cache)
        return open_store(
            cache / "prepared" / f"{self.layout}-{key[:16]}",
            self.cases,
            self.prepare_case,
            self.plan,
            settings,
        )
