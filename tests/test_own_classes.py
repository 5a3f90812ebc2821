"""A paper and a data set from outside the checkout, by class path: they work, or say what they lack."""

import pandas as pd
import pytest
import yaml

from cardiac_mtl.cli import main

PAPER = """
import torch
from torch import nn

from cardiac_mtl.losses import masked_cross_entropy, masked_l1
from cardiac_mtl.papers.adversarial import AdversarialPaper
from cardiac_mtl.papers.base import Paper
from cardiac_mtl.weighting import FixedWeighting


class Plain(Paper):
    title = "Plain"
    label_names = ("cavity", "myocardium")
    index_names = ("area_mm2", "cavity_mm2")

    def __init__(self):
        super().__init__(FixedWeighting({"mask": 1.0, "indices": 0.001}))
        self.mask, self.indices = nn.Conv2d(1, 3, 3, padding=1), nn.Linear(3, 2)

    def forward(self, image):
        mask = self.mask(image)
        return {"mask": mask, "indices": self.indices(mask.mean((2, 3)))}

    def losses(self, outputs, batch):
        return {
            "mask": masked_cross_entropy(outputs["mask"], batch["mask"]),
            "indices": masked_l1(outputs["indices"], batch["indices"]),
        }

    def predict(self, outputs):
        return {"mask_prob": outputs["mask"].softmax(1), "indices": outputs["indices"]}

    def configure_optimizers(self):
        return torch.optim.Adam(self.groups())


class WithoutPredict(Plain):
    predict = Paper.predict


class WithoutOptimizers(Plain):
    configure_optimizers = Paper.configure_optimizers


class WithoutNames(Plain):
    label_names = index_names = ()


class OtherIndices(Plain):
    index_names = ("cavity_mm2", "area_mm2")


class WithoutLoss(Plain):
    def losses(self, outputs, batch):
        return {"mask": super().losses(outputs, batch)["mask"]}


class OfOneColumn(Plain):
    def predict(self, outputs):
        return super().predict(outputs) | {"indices": outputs["indices"][:, :1]}


class WithoutMask(Plain):
    def predict(self, outputs):
        return {"indices": outputs["indices"]}


class Logits(Plain):
    def predict(self, outputs):
        return super().predict(outputs) | {"mask_prob": outputs["mask"]}


class WidthsOfLayers(Plain):
    def __init__(self, width: tuple[int, int] = (4, 8)):
        super().__init__()


class Players(Plain, AdversarialPaper):
    def __init__(self):
        super().__init__()
        self.critic = nn.Linear(2, 1)

    def adversarial_loss(self, outputs, batch):
        return -self.critic(outputs["indices"]).mean()

    def discriminator_loss(self, outputs, batch):
        return self.critic(outputs["indices"]).mean()
"""
DATA = """
import SimpleITK as sitk
import torch

from data_modules.base import CardiacDataModule
from data_modules.manifest import ManifestDataModule


class Hearts(ManifestDataModule):
    layout = "hearts"
    labels = {"cavity": 1, "myocardium": 2}
    index_names = ("area_mm2", "cavity_mm2")

    def read_mask(self, case, image):
        return sitk.ChangeLabel(sitk.ReadImage(str(case.mask[0])), {1: 2})

    def indices_of(self, mask, spacing):
        pixels = torch.stack([(mask == value).sum((1, 2)) for value in (2, 1)], dim=1)
        return (pixels * spacing[:, 1:].prod(1, keepdim=True)).float()


class WithoutReader(Hearts):
    read_mask = CardiacDataModule.read_mask


class OtherNumbers(Hearts):
    labels = {"cavity": 2, "myocardium": 1}


class WithoutSettings(Hearts):
    def __init__(self, root: str | None = None):
        super().__init__(root=root)
"""


@pytest.fixture
def fit(hearts, tmp_path, monkeypatch):
    """Return what trains an own paper on own data, for two batches."""
    (tmp_path / "own_paper.py").write_text(PAPER)
    (tmp_path / "own_data.py").write_text(DATA)
    monkeypatch.syspath_prepend(tmp_path)

    def run(paper="own_paper.Plain", data="own_data.Hearts", *more):
        config = {"model": {"class_path": paper}, "data": {"class_path": data}}
        (tmp_path / "own.yaml").write_text(yaml.safe_dump(config))
        words = ["fit", "--config", tmp_path / "own.yaml", "--run_root", tmp_path / "runs"]
        if "WithoutSettings" not in data:
            words += ["--data.matrix", "[32, 32]", "--data.spacing_mm", "8", "--data.copies", "0"]
        words += more or ["--data.root", hearts]
        return main([str(word) for word in [*words, "--trainer.max_epochs", "1"]])

    return run


def test_own_classes_train_test_and_predict(fit, hearts, tmp_path):
    assert fit() == 0
    assert main(["test", "--run", str(tmp_path / "runs")]) == 0
    (cases,) = (tmp_path / "runs").rglob("cases.csv")
    assert set(pd.read_csv(cases)["label"]) == {"cavity", "myocardium"}
    regressed = pd.read_csv(cases.parent / "regressed.csv")
    assert set(regressed["index"]) == {"area_mm2", "cavity_mm2"}
    error = regressed["regressed"] - regressed["reference"]
    assert regressed["error"].to_numpy() == pytest.approx(error.abs().to_numpy(), rel=1e-4)
    mean = error.abs()[regressed["index"] == "cavity_mm2"].mean()
    assert f"{mean:.2f}±" in (cases.parent / "table.md").read_text()
    words = ["--run", str(tmp_path / "runs"), "--input", str(hearts)]
    assert main(["predict", *words, "--output", str(tmp_path / "masks")]) == 0
    assert "regressed_cavity_mm2" in pd.read_csv(tmp_path / "masks" / "predictions.csv")


@pytest.mark.parametrize(
    ("paper", "message"),
    [
        ("WithoutPredict", "own_paper.WithoutPredict: has no predict; write"),
        ("WithoutOptimizers", "own_paper.WithoutOptimizers: has no configure_optimizers; write"),
        ("WithoutNames", "WithoutNames: declares no label_names, index_names or class_names"),
        ("OtherIndices", "has the indices area_mm2, cavity_mm2; Plain wants cavity_mm2, area_mm2"),
        ("WithoutLoss", "WithoutLoss.losses: gives no TaskLoss of indices"),
        ("OfOneColumn", "OfOneColumn.predict: indices is (16, 1), and should be (16, 2)"),
        ("WithoutMask", "mask_prob is missing, and should be (16, 3, 32, 32); label_names is"),
        ("Logits", "over classes; give probabilities, not logits"),
        ("Players", "Players.configure_optimizers: one optimiser, and two players; return"),
    ],
)
def test_what_an_own_paper_lacks_is_one_line(fit, capsys, paper, message):
    assert fit(f"own_paper.{paper}") == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("own_data.WithoutReader", "own_data.WithoutReader: has no read_mask; write"),
        ("own_data.OtherNumbers", "OtherNumbers.labels: labels have the values 2, 1; number"),
        ("own_data.WithoutSettings", "its constructor takes no num_folds, fold, paper_protocol"),
        ("data_modules.base.CardiacDataModule", "data: no data set; add `--config manifest`"),
        ("nowhere.Hearts", "name the folder of that module in PYTHONPATH"),
    ],
)
def test_what_an_own_data_module_lacks_is_one_line(fit, capsys, data, message):
    assert fit("own_paper.Plain", data) == 2
    assert message in capsys.readouterr().err


def test_check_says_in_one_line_what_an_own_data_module_lacks(fit, hearts, tmp_path, capsys):
    fit("own_paper.Plain", "own_data.WithoutReader")
    words = ["check", "--config", str(tmp_path / "own.yaml"), "--data.root", str(hearts)]
    capsys.readouterr()
    assert main(words) == 2
    assert capsys.readouterr().err.startswith("cardiac-mtl: own_data.WithoutReader: has no read_m")


def test_what_is_refused_waits_for_no_image_to_be_prepared(fit, hearts, tmp_path):
    cache = tmp_path / "cache"
    more = ("--data.cache_dir", str(cache), "--data.root", str(hearts))
    assert fit("own_paper.OtherIndices", "own_data.Hearts", *more) == 2
    assert not cache.exists()
    assert fit("own_paper.Plain", "own_data.Hearts", *more) == 0
    assert cache.exists()


def test_a_layout_without_phantoms_asks_for_its_folder(fit, capsys):
    assert fit("own_paper.Plain", "own_data.Hearts", "--data.fold", "0") == 2
    assert "no phantoms in the layout 'hearts'; give the folder" in capsys.readouterr().err


def test_a_width_that_is_no_number_is_left_to_the_paper(fit):
    assert fit("own_paper.WidthsOfLayers") == 0
