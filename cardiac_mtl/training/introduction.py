"""What people are told before a training: who trains on whom, and what is odd about it."""

from collections.abc import Iterator, Mapping

from lightning import Trainer

from cardiac_mtl.contracts import OPTIMISTIC
from cardiac_mtl.papers.base import Paper
from data_modules.base import CardiacDataModule


def introduction(
    trainer: Trainer, model: Paper, data: CardiacDataModule, origin: Mapping[str, str]
) -> Iterator[str]:
    """Yield the lines that introduce a run.

    Args:
        trainer: of the run.
        model: that it trains.
        data: after `setup`.
        origin: `experiment` and `protocol` of the run.
    """
    split = data.split
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    yield (
        f"{origin['experiment']}, {millions:.2f} M parameters; {data.name_of(data.root)}, "
        f"fold {data.fold} of {len(data.splits)}: {len(split.train)} patients train, "
        f"{len(split.val)} validate, {len(split.test)} test"
    )
    masked = {case.patient_id for case in data.cases if any(case.mask)}
    if unmasked := set(split.test) - masked if model.label_names else ():
        yield f"{len(unmasked)} of the test patients without a mask: no Dice will be theirs"
    if data.offset:
        yield f"masks lie {data.offset}; augmentation keeps that"
    if remark := model.remark(trainer):
        yield remark
    if trainer.world_size > 1:
        yield f"{trainer.world_size} processes share the training slices"
    if origin["protocol"] == OPTIMISTIC:
        yield "paper protocol: the checkpoint is selected on the test patients; optimistic"
