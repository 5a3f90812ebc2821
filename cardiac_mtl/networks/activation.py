"""Class activation maps of networks that end in a global mean and one linear layer."""

from copy import deepcopy

import torch
from torch import Tensor, nn

from cardiac_mtl.networks.padding import Margins, padded, unpadded


def class_activation(
    network: nn.Module, image: Tensor, maps: str, linear: str, sides: Margins
) -> Tensor:
    """Return what each place of an image adds to the log-odds of a class.

    Zhou et al., CVPR 2016, as MONAI has it: the linear layer is asked at every place of the last
    feature maps in place of at their mean, and the answers are interpolated.

    Args:
        network: maps (B, 1, H, W) to log-odds (B,), or to a tuple with the field `label` that
            holds them.
        image: (B, 1, H, W).
        maps: name of the module that puts out the last feature maps.
        linear: name of the linear layer, to one number.
        sides: what the network would add to the image; it is added before, so that the maps
            belong to all that was seen.

    Returns:
        (B, H, W), in log-odds, neither scaled nor cut at 0.
    """
    from monai.visualize.class_activation_maps import CAM  # noqa: PLC0415 - takes seconds

    seen = padded(image, sides)
    cam = CAM(
        _Logits(network),
        target_layers=f"network.{maps}",
        fc_layers=f"network.{linear}",
        postprocessing=lambda log_odds: log_odds,
    )
    with torch.no_grad():
        return unpadded(cam(seen).squeeze(1), sides)


class _Logits(nn.Module):
    """Gives log-odds as one column, as MONAI wants them."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = deepcopy(network).eval()  # MONAI leaves its hook behind

    def forward(self, image: Tensor) -> Tensor:
        found = self.network(image)
        return (found if isinstance(found, Tensor) else found.label)[:, None]
