"""The discriminator of MuTGAN: values of each task in, values of the same shape out."""

import torch

from cardiac_mtl.networks.discriminators import TaskRelatedness

SIZES = (64, 1, 1, 1, 2, 1, 1, 1)


def tasks(count=3):
    torch.manual_seed(0)
    return [torch.rand(count, size) for size in SIZES]


def test_it_rebuilds_every_task_in_its_shape():
    found = TaskRelatedness(SIZES)(tasks())
    assert [tuple(t.shape) for t in found] == [(3, size) for size in SIZES]
    assert ((found[0] > 0) & (found[0] < 1)).all()


def test_every_task_is_read_in_the_light_of_every_other():
    """The Bi-LSTM goes both ways: the mask from the last task, the last task from the mask."""
    network, given = TaskRelatedness(SIZES), tasks()
    before = network(given)
    for changed in (0, len(SIZES) - 1):
        other = [t + (k == changed) for k, t in enumerate(given)]
        after = network(other)
        assert all(not torch.allclose(a, b) for a, b in zip(before, after, strict=True))


def test_it_learns_a_relation_and_finds_what_breaks_it():
    """Trained to rebuild tasks of which one follows from another, it rebuilds others worse."""
    torch.manual_seed(0)
    sizes = (16, 1, 1)
    network = TaskRelatedness(sizes, hidden=32)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)

    def related(count):
        size = torch.rand(count, 1)
        mask = (torch.arange(16) / 16 < size).float()
        return [mask, size, 2 * size - 1]

    def error(given):
        return sum((a - b).abs().mean() for a, b in zip(network(given), given, strict=True))

    for _ in range(300):
        optimizer.zero_grad()
        error(related(64)).backward()
        optimizer.step()
    with torch.no_grad():
        mask, size, other = related(256)
        assert error([mask, size, other]) < 0.7 * error([mask, size.flip(0), other])
