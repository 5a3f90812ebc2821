"""Laws that every experiment obeys, whatever its paper: a new YAML is held to them by itself."""

import inspect
from importlib import import_module

import pytest
import torch

from cardiac_mtl.catalogue import experiments, read_yaml
from cardiac_mtl.configuration import build
from cardiac_mtl.contracts import UNLABELLED

SIDE, PHASES = 32, 5


@pytest.fixture(scope="module", params=experiments(), ids=lambda path: path.stem)
def config(request):
    """Return an experiment, narrow and on small images."""
    config = read_yaml(request.param)
    module, _, name = config["model"]["class_path"].rpartition(".")
    settings = {"width": 4, "image_size": [SIDE, SIDE]}
    known = inspect.signature(getattr(import_module(module), name)).parameters
    chosen = {key: value for key, value in settings.items() if key in known}
    config["model"].setdefault("init_args", {}).update(chosen)
    return config


@pytest.fixture(scope="module")
def built(config):
    torch.manual_seed(1)  # other numbers than those of the batches
    return build(config)[0]


@pytest.fixture
def paper(built):
    built.zero_grad()
    return built.train()


@pytest.fixture
def make_batch(config, paper):
    """Return a maker of three samples as the experiment's data module hands them over."""
    cine = config["data"]["class_path"].endswith("CineDataModule")

    def make(labelled=True):
        mask = torch.randint(0, 3 if cine else 2, (3, SIDE, SIDE))
        indices = (mask == 1).sum((1, 2))[:, None].float().repeat(1, max(1, len(paper.index_names)))
        return {
            "image": torch.randn(3, 1, *([PHASES] if cine else []), SIDE, SIDE),
            "mask": mask if labelled else torch.full_like(mask, UNLABELLED),
            "spacing": torch.ones(3, 3),
            "indices": indices if labelled else torch.full_like(indices, torch.nan),
            "case": torch.zeros(3, dtype=torch.int64),
            "slice": torch.arange(3),
            "label": torch.tensor([0, 1, 0]) if labelled else torch.full((3,), UNLABELLED),
            "transferred": torch.zeros(3, dtype=torch.bool),
        }

    return make


def test_a_batch_without_annotation_costs_nothing_and_still_steps(paper, make_batch):
    batch = make_batch(labelled=False)
    total = paper.weighting(paper.losses(paper(batch["image"]), batch))
    total.backward()
    assert float(total.detach()) == 0.0
    assert all(p.grad is None or not p.grad.any() for p in paper.parameters())


def test_every_task_of_the_weighting_has_a_loss(paper, make_batch):
    batch = make_batch()
    losses = paper.losses(paper(batch["image"]), batch)
    assert set(losses) == set(paper.weighting.tasks)
    assert all(torch.isfinite(loss.mean) for loss in losses.values())


def test_predictions_are_what_the_paper_declares(paper, make_batch):
    prediction = paper.predict(paper(make_batch()["image"]))
    assert ("mask_prob" in prediction) == bool(paper.label_names)
    assert ("indices" in prediction) == bool(paper.index_names)
    assert ("label_prob" in prediction) == bool(paper.class_names)
    if paper.label_names:
        assert prediction["mask_prob"].shape[1] == 1 + len(paper.label_names)
    if paper.index_names:
        assert prediction["indices"].shape == (3, len(paper.index_names))
    if paper.class_names:
        assert prediction["label_prob"].shape == (3, len(paper.class_names))


def test_the_batch_size_does_not_change_a_prediction(paper, make_batch):
    paper.eval()
    image = make_batch()["image"]
    whole = paper.predict(paper(image))
    alone = paper.predict(paper(image[1:2]))
    for key, value in whole.items():
        torch.testing.assert_close(alone[key], value[1:2], rtol=1e-4, atol=1e-4)


def test_the_checkpoint_is_selected_on_validation(paper):
    name, mode = paper.monitor
    assert name.startswith("val/")
    assert mode in {"min", "max"}


def test_no_network_with_channels_last_has_strided_1x1_convolutions(paper):
    """Their backward pass writes beyond its memory where channels are few: oneDNN issue 6035."""
    convolutions = [m for m in paper.modules() if isinstance(m, torch.nn.Conv2d)]
    channels_last = any(not layer.weight.is_contiguous() for layer in convolutions)
    strided = any(m.kernel_size == (1, 1) and m.stride != (1, 1) for m in convolutions)
    assert not (channels_last and strided)
