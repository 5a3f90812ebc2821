"""Loaders that go on within an epoch, where a run was stopped in the middle of it."""

import signal
from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler
from typing_extensions import override

from cardiac_mtl.contracts import Batch


class ResumableSampler(DistributedSampler[Batch]):
    """Shares the samples of an epoch out to the processes, and can leave the first of them out."""

    seen: int = 0
    """Samples of this process that the next epoch leaves out; once."""

    @override
    def __iter__(self) -> Iterator[Any]:
        seen, self.seen = self.seen, 0
        return islice(self.order(), seen, None)

    def order(self) -> Iterator[Any]:
        """Return the samples of this process in the epoch under way."""
        return super().__iter__()


class PairedSampler(ResumableSampler):
    """Joins every sub-batch of labelled samples by as many of another kind.

    An epoch is one pass over the labelled samples. The others are drawn without replacement,
    anew each epoch; where they are fewer, they are shuffled again once all have come.

    Args:
        labelled: how many there are; samples 0, 1, ... of the data set.
        others: how many follow them, at least 1.
        sub_batch: labelled samples of a batch, which has twice as many; fewer in the last.
        shares: see `DistributedSampler`. The order depends on its seed and on the epoch alone.
    """

    def __init__(self, labelled: int, others: int, sub_batch: int, **shares: Any) -> None:  # noqa: ANN401 - its own
        super().__init__(range(labelled), **shares)  # type: ignore[arg-type]
        self.others = others
        self.sub_batch = sub_batch

    @override
    def order(self) -> Iterator[int]:
        labelled = list(super().order())
        others = self._others()
        for first in range(0, len(labelled), self.sub_batch):
            of_batch = slice(first, first + self.sub_batch)
            yield from labelled[of_batch]
            yield from others[of_batch]

    @override
    def __len__(self) -> int:
        return 2 * self.num_samples

    def _others(self) -> list[int]:
        """Return as many others as this process has labelled samples."""
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        rounds = -(-self.total_size // self.others)
        drawn = [torch.randperm(self.others, generator=generator) for _ in range(rounds)]
        ours = torch.cat(drawn)[self.rank : self.total_size : self.num_replicas]
        return (ours + len(self.dataset)).tolist()  # type: ignore[arg-type]


class BatchLoader(DataLoader[Batch]):
    """Fetches whole batches, and knows how many of an epoch were handed out.

    Lightning keeps its `state_dict` in every checkpoint, and loads it where a run goes on in the
    middle of an epoch.

    Args:
        dataset: fetches a batch at once.
        batch_size: samples a batch.
        num_workers: processes that fetch.
        sampler: of the training part; the others are read in order.
    """

    def __init__(
        self,
        dataset: Dataset[Batch],
        batch_size: int,
        num_workers: int,
        sampler: ResumableSampler | None = None,
    ) -> None:
        super().__init__(
            dataset,
            batch_size=batch_size,
            sampler=sampler,
            collate_fn=_as_is,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=_leave_signals_to_the_parent,
            # else it asks the global one at the start of each epoch, but not where a run goes on
            generator=torch.Generator(),
        )
        self._handed_out = self._to_leave_out = 0

    @override
    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        self._handed_out, self._to_leave_out = self._to_leave_out, 0
        if isinstance(self.sampler, ResumableSampler):
            self.sampler.seen = self._handed_out * int(self.batch_size or 1)
        for batch in super().__iter__():
            self._handed_out += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Return how many batches of the epoch under way were handed out."""
        return {"batches": self._handed_out}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Leave the first batches of the next epoch out."""
        self._to_leave_out = state_dict["batches"]


def _as_is(batch: Any) -> Any:  # noqa: ANN401 - the type of a collate function
    """Return the batch that the data set gathered whole."""
    return batch


def _leave_signals_to_the_parent(_: int) -> None:
    """Ctrl-C reaches every process of a terminal: the parent still wants the batches in hand."""
    for number in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
