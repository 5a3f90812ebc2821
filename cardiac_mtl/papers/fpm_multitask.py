"""FPM: myocardium and disease from native T1 maps, by feature pyramids of dilated convolutions.

Paper: Peng et al., multi-task network with feature pyramid modules (FPM), dense atrous convolutions
(DAC) and sub-pixel up-sampling for T1 mapping, 2021.
Wants: short-axis T1 maps with a mask of the LV myocardium and the label healthy or diseased.
Not public: code, data, figures, widths, what of a module is put out, augmentation, batch size. What
is marked [inferred] below is our reading; the reasons stand in docs/papers/fpm_multitask.md.
"""

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer, RMSprop
from torch.optim.lr_scheduler import ConstantLR, LRScheduler
from typing_extensions import override

from cardiac_mtl.contracts import Batch, Prediction
from cardiac_mtl.errors import UserError
from cardiac_mtl.losses import (
    TaskLoss,
    masked_jaccard_loss_by_image,
    masked_label_cross_entropy,
)
from cardiac_mtl.networks.activation import class_activation
from cardiac_mtl.networks.classifiers import CLASSIFIERS, Classifier
from cardiac_mtl.networks.deeplab import DeepLabV3Plus
from cardiac_mtl.networks.fpm import PARALLEL, SERIAL, FPMNet
from cardiac_mtl.networks.unet import UNet
from cardiac_mtl.papers.base import (
    OptimizerFactory,
    Paper,
    SchedulerFactory,
    of_two_classes,
    refuse_other_tasks,
)
from cardiac_mtl.papers.fused import fused
from cardiac_mtl.weighting import FixedWeighting, SingleTask, Weighting

TASKS = {"mask", "label"}
CLASSES = ("healthy", "diseased")
"""By the value of `label`; the tables of the paper count the first as positive."""
SEGMENTERS: dict[str, Callable[[int], nn.Module]] = {"unet": UNet, "deeplabv3plus": DeepLabV3Plus}
"""By the name that an experiment gives; each takes the width."""
BaselineName = Literal["unet", "deeplabv3plus", "vgg16", "resnet50", "inception_v3", "xception"]


class JaccardAndCrossEntropy(FixedWeighting):
    """Weights of both tasks that add up to one.

    Args:
        mask: w of the Jaccard distance; the cross-entropy of the label has 1 - w [paper: 0.9].
    """

    def __init__(self, mask: float = 0.9) -> None:
        if not 0 < mask < 1:
            raise UserError(
                f"a weight of {mask} leaves one task, or none",
                where="model.weighting.mask",
                fix="choose fpm_segmentation for 1, fpm_classification for 0",
            )
        super().__init__({"mask": mask, "label": 1 - mask})


class T1Tasks(Paper):
    """The tasks `mask` and `label`, whatever the network.

    `forward` returns `mask`, logits (B, H, W) of the myocardium, and `label`, logits (B,) of the
    diseased class, as far as the weighting names them.

    Args:
        weighting: of the tasks `mask` and `label`, or of one of them.
        diseased_weight: how many healthy images a diseased one counts as in the cross-entropy.
        optimizer: of all parameters.
        scheduler: after each epoch.
    """

    def __init__(
        self,
        weighting: Weighting,
        diseased_weight: float,
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory,
    ) -> None:
        super().__init__(weighting)
        refuse_other_tasks(weighting, TASKS)
        _check_weight(diseased_weight)
        self.label_names = ("myocardium",) if "mask" in weighting.tasks else ()
        self.class_names = CLASSES if "label" in weighting.tasks else ()
        self.diseased_weight = diseased_weight
        self.make_optimizer = optimizer
        self.make_scheduler = scheduler

    @override
    def losses(self, outputs: Mapping[str, Tensor], batch: Batch) -> dict[str, TaskLoss]:
        losses = {}
        if "mask" in outputs:
            losses["mask"] = masked_jaccard_loss_by_image(outputs["mask"], batch["mask"])
        if "label" in outputs:
            losses["label"] = masked_label_cross_entropy(
                outputs["label"], batch["label"], self.diseased_weight
            )
        return losses

    @override
    def predict(self, outputs: Mapping[str, Tensor]) -> Prediction:
        prediction: Prediction = {}
        if "mask" in outputs:
            prediction["mask_prob"] = of_two_classes(outputs["mask"])
        if "label" in outputs:
            prediction["label_prob"] = of_two_classes(outputs["label"])
        return prediction

    @override
    def configure_optimizers(self) -> tuple[list[Optimizer], list[LRScheduler]]:
        optimizer = fused(self.make_optimizer(self.groups()))
        return [optimizer], [self.make_scheduler(optimizer)]


class FPMMultiTask(T1Tasks):
    """The proposed network; with `SingleTask` that of one task, without the other's branch.

    Args:
        width: c, features at full resolution; c, 2c, 4c, 8c of the stages [inferred: 16].
        serial: dilation of the convolutions in a row of every feature pyramid [paper: 3, 5, 7].
        parallel: dilation of those side by side, of modules B [paper: 4, 8, 12].
        dac_share: whether the branches of DAC share their convolutions [code of CE-Net: true].
        dac_bn: whether batch norms follow the convolutions of DAC [code of CE-Net: false].
        weighting: of the tasks `mask` and `label` [paper: 0.9 and 0.1].
        diseased_weight: how many healthy images a diseased one counts as [paper: silent, so 1].
        optimizer: RMSprop, 0.003 [paper], decay 0.9 and eps 1e-7 [inferred: those of Keras].
        scheduler: after each epoch [inferred: none].
    """

    title = "FPM"

    def __init__(
        self,
        width: int = 16,
        serial: tuple[int, ...] = SERIAL,
        parallel: tuple[int, ...] = PARALLEL,
        dac_share: bool = True,
        dac_bn: bool = False,
        weighting: Callable[[], Weighting] = lambda: JaccardAndCrossEntropy(mask=0.9),
        diseased_weight: float = 1.0,
        optimizer: OptimizerFactory = lambda params: RMSprop(params, lr=0.003, alpha=0.9, eps=1e-7),
        scheduler: SchedulerFactory = lambda optimizer: ConstantLR(optimizer, factor=1.0),
    ) -> None:
        super().__init__(weighting(), diseased_weight, optimizer, scheduler)
        self.save_hyperparameters()
        tasks = self.weighting.tasks
        self.network = FPMNet(
            width, serial, parallel, dac_share, dac_bn, "mask" in tasks, "label" in tasks
        )
        # A sixth faster on a CPU. Not for the baselines: with channels last oneDNN writes beyond
        # its memory in strided 1x1 convolutions of few channels (oneDNN issue 6035)
        self.to(memory_format=torch.channels_last)

    @override
    def forward(self, image: Tensor) -> dict[str, Tensor]:
        found = self.network(image)._asdict()
        return {task: found[task] for task in self.weighting.tasks}

    @override
    def class_activation(self, image: Tensor) -> Tensor | None:
        if not self.class_names:
            return None
        sides = self.network.margins(image)
        return class_activation(self.network, image, "last", "classify", sides)


class T1Baseline(T1Tasks):
    """A network for one of the tasks, trained from scratch: Tables 6 and 7.

    Args:
        network: `unet` or `deeplabv3plus` for the mask; `vgg16`, `resnet50`, `inception_v3` or
            `xception` for the label.
        width: 64 is the published size; another one scales every layer.
        diseased_weight: how many healthy images a diseased one counts as [paper: silent, so 1].
        optimizer: that of the proposed network [inferred].
        scheduler: after each epoch [inferred: none].
    """

    title = "baseline of FPM"

    def __init__(
        self,
        network: BaselineName,
        width: int = 64,
        diseased_weight: float = 1.0,
        optimizer: OptimizerFactory = lambda params: RMSprop(params, lr=0.003, alpha=0.9, eps=1e-7),
        scheduler: SchedulerFactory = lambda optimizer: ConstantLR(optimizer, factor=1.0),
    ) -> None:
        task = "mask" if network in SEGMENTERS else "label"
        super().__init__(SingleTask(task), diseased_weight, optimizer, scheduler)
        self.save_hyperparameters()
        self.task = task
        self.network = (SEGMENTERS | CLASSIFIERS)[network](width)

    @override
    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return {self.task: self.network(image)}

    @override
    def class_activation(self, image: Tensor) -> Tensor | None:
        if not isinstance(self.network, Classifier):
            return None
        sides = self.network.margins(image)
        return class_activation(self.network, image, self.network.maps, "classify", sides)


def _check_weight(diseased_weight: float) -> None:
    if not 0 < diseased_weight < float("inf"):
        raise UserError(
            f"{diseased_weight} cannot weigh an image",
            where="model.diseased_weight",
            fix="give a number above 0, such as healthy over diseased images",
        )
