"""Laws that every experiment obeys, whatever its paper: a new YAML is held to them by itself."""

import pytest
import torch

from cardiac_mtl.catalogue import experiments
from cardiac_mtl.configuration import build, read_yaml
from cardiac_mtl.contracts import UNLABELLED


@pytest.fixture(params=experiments(), ids=lambda path: path.stem)
def paper(request):
    """Return the paper of an experiment, narrow and on small images."""
    config = read_yaml(request.param)
    config["model"].setdefault("init_args", {}).update(width=4, image_size=[32, 32])
    return build(config)[0]


def make_batch(labelled=True):
    mask = torch.randint(0, 2, (3, 32, 32)) if labelled else torch.full((3, 32, 32), UNLABELLED)
    area = mask.sum((1, 2))[:, None].float() if labelled else torch.full((3, 1), torch.nan)
    return {
        "image": torch.randn(3, 1, 32, 32),
        "mask": mask,
        "spacing": torch.ones(3, 3),
        "indices": area,
        "case": torch.zeros(3, dtype=torch.int64),
        "slice": torch.arange(3),
        "label": torch.full((3,), UNLABELLED),
    }


def test_a_batch_without_annotation_costs_nothing_and_still_steps(paper):
    batch = make_batch(labelled=False)
    total = paper.weighting(paper.losses(paper(batch["image"]), batch))
    total.backward()
    assert float(total.detach()) == 0.0
    assert all(p.grad is None or not p.grad.any() for p in paper.parameters())


def test_every_task_of_the_weighting_has_a_loss(paper):
    batch = make_batch()
    losses = paper.losses(paper(batch["image"]), batch)
    assert set(losses) == set(paper.weighting.tasks)
    assert all(torch.isfinite(loss.mean) for loss in losses.values())


def test_predictions_are_what_the_paper_declares(paper):
    prediction = paper.predict(paper(make_batch()["image"]))
    assert ("mask_prob" in prediction) == bool(paper.label_names)
    assert ("indices" in prediction) == bool(paper.index_names)
    if paper.label_names:
        assert prediction["mask_prob"].shape[1] == 1 + len(paper.label_names)
    if paper.index_names:
        assert prediction["indices"].shape == (3, len(paper.index_names))


def test_the_batch_size_does_not_change_a_prediction(paper):
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
