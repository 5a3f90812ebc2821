"""Classifiers of whole images that Peng et al. compare with: one channel in, one logit out.

In-house where no library has them without torchvision. They end in a global mean, so that any size
goes, and in one linear layer; there is no dropout, as in Keras. `width` 64 is the published size,
another one scales every layer.
"""

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from cardiac_mtl.networks.padding import Margins, margins, padded
from cardiac_mtl.networks.unet import init_kaiming

PUBLISHED = 64
"""Width of the published networks."""
_EPS = 1e-3
"""Of the batch norms of Inception and Xception, as published."""
Kernel = int | tuple[int, int]


class Classifier(nn.Module):
    """Features of an image, their mean over it, one logit.

    Args:
        features: maps (B, 1, H, W) to (B, C, h, w), or to their mean (B, C).
        channels: C.
        smallest: side below which an image is padded with zeros: fewer than 2 x 2 features would
            be left, and the norm of the last batch, where it is one image, have one number.
        maps: name of the module that puts out (B, C, h, w).
    """

    def __init__(
        self, features: nn.Module, channels: int, smallest: int, maps: str = "features"
    ) -> None:
        super().__init__()
        self.features = features
        self.classify = nn.Linear(channels, 1)
        self.smallest = smallest
        self.maps = maps

    def margins(self, image: Tensor) -> Margins:
        """Return what is added around an image."""
        return margins(image, at_least=self.smallest)

    def forward(self, image: Tensor) -> Tensor:
        """Map (B, 1, H, W) of any size to logits (B,)."""
        found = self.features(padded(image, self.margins(image)))
        return self.classify(found.flatten(2).mean(2) if found.ndim == 4 else found).squeeze(1)


def scaled(width: int, channels: int) -> int:
    """Return the channels of a layer at another width than the published one."""
    return max(1, round(channels * width / PUBLISHED))


def vgg16(width: int = PUBLISHED) -> Classifier:
    """Configuration D, without batch norm; the mean in place of the flat layers of 4096.

    Source: Simonyan and Zisserman, ICLR 2015. It starts from Kaiming weights: nothing would get
    through thirteen convolutions without norm otherwise.
    """
    layers: list[nn.Module] = []
    before = 1
    for count, channels in ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)):
        after = scaled(width, channels)
        for _ in range(count):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(inplace=True)]
            before = after
        layers.append(nn.MaxPool2d(2))
    network = Classifier(nn.Sequential(*layers), before, smallest=64)
    init_kaiming(network)
    return network


def resnet50(width: int = PUBLISHED) -> Classifier:
    """Return MONAI's, with the strides of the original.

    Source: He et al., CVPR 2016.
    """
    from monai.networks.nets.resnet import resnet50 as trunk  # noqa: PLC0415 - takes seconds

    features = trunk(
        spatial_dims=2,
        n_input_channels=1,
        feed_forward=False,
        conv1_t_stride=2,
        bias_downsample=False,
        widen_factor=width / PUBLISHED,
    )
    return Classifier(features, 32 * width, smallest=33, maps="features.layer4")


class ConvBN(nn.Sequential):
    """Convolution without bias, batch norm, ReLU.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel: rows and columns of the kernel, odd.
        stride: of both directions.
        same: whether zeros around the input keep its size at stride 1.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: Kernel,
        stride: int = 1,
        same: bool = True,
    ) -> None:
        rows, columns = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (rows // 2, columns // 2) if same else 0
        super().__init__(
            nn.Conv2d(in_channels, out_channels, (rows, columns), stride, padding, bias=False),
            nn.BatchNorm2d(out_channels, eps=_EPS),
            nn.ReLU(inplace=True),
        )


class Side(nn.ModuleList):
    """Modules that see the same input; their outputs are joined by channel."""

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, C, H, W) to all that the modules make of it."""
        return torch.cat([branch(features) for branch in self], dim=1)


Layer = tuple[int, Kernel]
"""Published channels and kernel."""


def inception_v3(width: int = PUBLISHED) -> Classifier:
    """Inception v3, without its auxiliary classifier.

    Source: Szegedy et al., CVPR 2016, as released.
    """
    of = partial(scaled, width)

    def chain(before: int, *layers: Layer, last_stride: int = 1) -> nn.Sequential:
        """Return convolutions in a row; one with a stride has no zeros around its input."""
        modules, here = [], of(before)
        for k, (channels, kernel) in enumerate(layers):
            stride = last_stride if k == len(layers) - 1 else 1
            modules.append(ConvBN(here, of(channels), kernel, stride, same=stride == 1))
            here = of(channels)
        return nn.Sequential(*modules)

    def pooled(before: int, channels: int) -> nn.Sequential:
        return nn.Sequential(nn.AvgPool2d(3, 1, 1), chain(before, (channels, 1)))

    def forked(before: int, *layers: Layer) -> nn.Sequential:
        last = layers[-1][0]
        ends = Side([chain(last, (384, (1, 3))), chain(last, (384, (3, 1)))])
        return nn.Sequential(chain(before, *layers), ends)

    def module_a(before: int, pool: int) -> Side:
        branches = [((64, 1),), ((48, 1), (64, 5)), ((64, 1), (96, 3), (96, 3))]
        return Side([*(chain(before, *branch) for branch in branches), pooled(before, pool)])

    def module_c(c: int) -> Side:
        row, column = (1, 7), (7, 1)
        deep = ((c, 1), (c, column), (c, row), (c, column), (192, row))
        branches: list[tuple[Layer, ...]] = [
            ((192, 1),),
            ((c, 1), (c, row), (192, column)),
            deep,
        ]
        return Side([*(chain(768, *branch) for branch in branches), pooled(768, 192)])

    def module_e(before: int) -> Side:
        deep = forked(before, (448, 1), (384, 3))
        branches = [chain(before, (320, 1)), forked(before, (384, 1)), deep]
        return Side([*branches, pooled(before, 192)])

    reduce_b = [
        chain(288, (384, 3), last_stride=2),
        chain(288, (64, 1), (96, 3), (96, 3), last_stride=2),
        nn.MaxPool2d(3, 2),
    ]
    reduce_d = [
        chain(768, (192, 1), (320, 3), last_stride=2),
        chain(768, (192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3), last_stride=2),
        nn.MaxPool2d(3, 2),
    ]
    features = nn.Sequential(
        ConvBN(1, of(32), 3, 2, same=False),
        ConvBN(of(32), of(32), 3, same=False),
        ConvBN(of(32), of(64), 3),
        nn.MaxPool2d(3, 2),
        ConvBN(of(64), of(80), 1),
        ConvBN(of(80), of(192), 3, same=False),
        nn.MaxPool2d(3, 2),
        *(module_a(before, pool) for before, pool in ((192, 32), (256, 64), (288, 64))),
        Side(reduce_b),
        *(module_c(c) for c in (128, 160, 160, 192)),
        Side(reduce_d),
        *(module_e(before) for before in (1280, 2048)),
    )
    return Classifier(features, of(2048), smallest=107)


class Separable(nn.Sequential):
    """Convolution of each channel by itself, then 1x1, then batch norm.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False),
            nn.Conv2d(in_channels, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels, eps=_EPS),
        )


class XceptionBlock(nn.Module):
    """Separable convolutions, each after a ReLU, and a shortcut.

    Args:
        channels: before and after each convolution.
        stride: 2 halves the size, by pooling; the shortcut is then a convolution.
        active: whether a ReLU comes first.
    """

    def __init__(self, channels: list[int], stride: int = 1, active: bool = True) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in pairwise(channels):
            layers += [nn.ReLU(), Separable(before, after)]
        if stride > 1:
            layers.append(nn.MaxPool2d(3, stride, 1))
        self.layers = nn.Sequential(*layers[0 if active else 1 :])
        self.shortcut = nn.Sequential()
        if stride > 1:
            self.shortcut.append(nn.Conv2d(channels[0], channels[-1], 1, stride, bias=False))
            self.shortcut.append(nn.BatchNorm2d(channels[-1], eps=_EPS))

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H / stride, W / stride)."""
        return self.layers(features) + self.shortcut(features)


def xception(width: int = PUBLISHED) -> Classifier:
    """Xception.

    Source: Chollet, CVPR 2017.
    """
    of = partial(scaled, width)

    def block(*channels: int, stride: int = 1, active: bool = True) -> XceptionBlock:
        return XceptionBlock([of(c) for c in channels], stride, active)

    features = nn.Sequential(
        ConvBN(1, of(32), 3, 2, same=False),
        ConvBN(of(32), of(64), 3, same=False),
        block(64, 128, 128, stride=2, active=False),
        block(128, 256, 256, stride=2),
        block(256, 728, 728, stride=2),
        *(block(728, 728, 728, 728) for _ in range(8)),
        block(728, 728, 1024, stride=2),
        Separable(of(1024), of(1536)),
        nn.ReLU(inplace=True),
        Separable(of(1536), of(2048)),
        nn.ReLU(inplace=True),
    )
    return Classifier(features, of(2048), smallest=71)


CLASSIFIERS: dict[str, Callable[[int], Classifier]] = {
    "vgg16": vgg16,
    "resnet50": resnet50,
    "inception_v3": inception_v3,
    "xception": xception,
}
"""By the name that an experiment gives; each takes the width."""
