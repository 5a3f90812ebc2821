"""MuTGAN's: values of each task in, values of the same shape out. Masks': a verdict on a pair."""

import torch
from torch.nn import functional as F

from cardiac_mtl.networks.discriminators import MaskDiscriminator, TaskRelatedness

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


def test_the_discriminator_of_masks_has_the_known_number_of_parameters():
    network = MaskDiscriminator()
    assert sum(p.numel() for p in network.parameters()) == 296_577
    statistics = [b for name, b in network.named_buffers() if "running" in name]
    assert sum(b.numel() for b in statistics) == 448


def test_the_discriminator_of_masks_is_the_published_stages():
    torch.manual_seed(0)
    network = MaskDiscriminator(image_size=(48, 40)).train()
    mask, image = torch.rand(3, 4, 48, 40), torch.randn(3, 1, 48, 40)
    left = list(network.parameters())
    x = torch.cat([mask, image], 1)
    for stage, filters in enumerate((16, 32, 64, 128)):
        x = F.max_pool2d(F.conv2d(x, left.pop(0), left.pop(0), padding=2), 2)
        if stage:
            mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
            x = (x - mean[:, None, None]) / (variance[:, None, None] + 1e-3).sqrt()
            x = x * left.pop(0)[:, None, None] + left.pop(0)[:, None, None]
        x = torch.where(x > 0, x, 0.3 * x)
        assert x.shape == (3, filters, 48 // 2 ** (stage + 1), 40 // 2 ** (stage + 1))
    expected = x.flatten(1) @ left.pop(0).T + left.pop(0)
    assert not left
    torch.testing.assert_close(network(mask, image), expected[:, 0], rtol=1e-4, atol=1e-5)


def test_statistics_follow_slowly_as_in_keras():
    torch.manual_seed(0)
    network = MaskDiscriminator(image_size=(32, 32)).train()
    network(torch.rand(2, 4, 32, 32), torch.randn(2, 1, 32, 32))
    norms = [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert len(norms) == 3
    for norm in norms:
        assert (norm.running_var - 0.99).min() > 0
        assert (norm.running_var - 0.99).max() < 0.2


def test_a_pooled_head_judges_images_of_any_size():
    network = MaskDiscriminator(head="pooled")
    for side in (32, 224):
        assert network(torch.zeros(2, 4, side, side), torch.zeros(2, 1, side, side)).shape == (2,)


def test_the_kernels_are_those_of_the_four_convolutions():
    kernels = MaskDiscriminator().kernels()
    assert [tuple(k.shape) for k in kernels] == [
        (16, 5, 5, 5), (32, 16, 5, 5), (64, 32, 5, 5), (128, 64, 5, 5),
    ]  # fmt: skip
