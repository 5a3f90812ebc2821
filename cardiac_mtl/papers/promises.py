"""What a paper declares, against what it gives: told in one line, before anything is trained."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from cardiac_mtl.contracts import Prediction
from cardiac_mtl.errors import UserError
from cardiac_mtl.losses import TaskLoss

FAR_FROM_ONE = 0.02
"""Of a sum of probabilities: beyond what sixteen bits round."""


def refuse_other_losses(losses: Mapping[str, TaskLoss], tasks: Sequence[str], where: str) -> None:
    """Refuse losses among which a task of the weighting has none.

    Args:
        losses: what `losses` of a paper gave.
        tasks: of its weighting.
        where: name of the paper.

    Raises:
        UserError: see above.
    """
    missing = [task for task in tasks if not isinstance(losses.get(task), TaskLoss)]
    if missing:
        raise UserError(
            f"gives no TaskLoss of {', '.join(missing)}",
            where=f"{where}.losses",
            fix="give one for each task of the weighting",
        )


def refuse_other_prediction(
    prediction: Prediction, names: Mapping[str, Sequence[str]], image: Tensor, where: str
) -> None:
    """Refuse a prediction that is not what the names of a paper promise.

    Args:
        prediction: what `predict` of a paper gave.
        names: `label_names`, `index_names` and `class_names` of the paper.
        image: (B, ..., H, W), of which it was predicted.
        where: name of the paper.

    Raises:
        UserError: a key is missing, is not declared, or has another shape.
    """
    labels, indices, classes = (names[f"{of}_names"] for of in ("label", "index", "class"))
    promised = {
        "mask_prob": (labels, (1 + len(labels), *image.shape[-2:])),
        "indices": (indices, (len(indices),)),
        "label_prob": (classes, (len(classes),)),
    }
    for (key, (declared, shape)), attribute in zip(promised.items(), names, strict=True):
        given = prediction.get(key)
        found = None if given is None else tuple(given.shape)  # type: ignore[attr-defined]
        wanted = (len(image), *shape) if declared else None
        if found != wanted:
            raise UserError(
                f"{key} is {found or 'missing'}, and should be {wanted or 'left out'}",
                where=f"{where}.predict",
                fix=f"{attribute} is {tuple(declared)}: see Prediction in cardiac_mtl/contracts.py",
            )


def refuse_no_probabilities(prediction: Prediction, where: str) -> None:
    """Refuse probabilities that do not sum to one; it waits for the device.

    Raises:
        UserError: see above.
    """
    for key in ("mask_prob", "label_prob"):
        given = prediction.get(key)
        if given is None:
            continue
        total = given.detach().float().sum(1)  # type: ignore[attr-defined]
        if bool(((total - 1).abs() > FAR_FROM_ONE).any()):  # NaN of a network gone astray is not
            raise UserError(
                f"{key} sums to {float(total.min()):.3g} to {float(total.max()):.3g} over classes",
                where=f"{where}.predict",
                fix="give probabilities, not logits",
            )
