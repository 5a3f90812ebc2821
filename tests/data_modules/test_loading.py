"""Batches of two kinds of samples: the same whoever shares them, and wherever a run goes on."""

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import Dataset

from data_modules.loading import BatchLoader, PairedSampler

counts = st.integers(1, 40)


def sampler(labelled, others, sub_batch, epoch=0, rank=0, ranks=1, seed=0):
    made = PairedSampler(labelled, others, sub_batch, num_replicas=ranks, rank=rank, seed=seed)
    made.set_epoch(epoch)
    return made


def of_rank(*settings, **more):
    order = list(sampler(*settings, **more))
    labelled = settings[0]
    return [k for k in order if k < labelled], [k - labelled for k in order if k >= labelled]


@given(counts, counts, st.integers(1, 9), st.integers(0, 3))
@settings(max_examples=60)
def test_an_epoch_is_one_pass_over_the_labelled_each_joined_by_another(
    labelled, others, sub_batch, epoch
):
    first, second = of_rank(labelled, others, sub_batch, epoch=epoch)
    assert sorted(first) == list(range(labelled))
    assert len(second) == labelled
    times = Counter(second)
    assert set(times) <= set(range(others))
    # none again before all have come
    assert max(times.values()) - min(times[k] for k in range(others)) <= 1


@given(counts, counts, st.integers(1, 9))
@settings(max_examples=60)
def test_every_batch_is_half_of_each_kind(labelled, others, sub_batch):
    order = list(sampler(labelled, others, sub_batch))
    assert len(order) == len(sampler(labelled, others, sub_batch))
    for first in range(0, len(order), 2 * sub_batch):
        batch = order[first : first + 2 * sub_batch]
        half = len(batch) // 2
        assert len(batch) % 2 == 0
        assert max(batch[:half]) < labelled <= min(batch[half:])


@given(counts, counts, st.integers(1, 9), st.integers(1, 4), st.integers(0, 2))
@settings(max_examples=60)
def test_processes_share_what_one_would_draw(labelled, others, sub_batch, ranks, epoch):
    alone = of_rank(labelled, others, sub_batch, epoch=epoch)
    shares = [
        of_rank(labelled, others, sub_batch, epoch=epoch, rank=r, ranks=ranks) for r in range(ranks)
    ]
    assert len({len(kind) for share in shares for kind in share}) == 1
    for kind in (0, 1):
        together = [
            k for step in zip(*(share[kind] for share in shares), strict=True) for k in step
        ]
        assert together[: len(alone[kind])] == alone[kind]


@given(counts, counts, st.integers(1, 9), st.data())
@settings(max_examples=60)
def test_it_goes_on_in_the_middle_of_an_epoch_once(labelled, others, sub_batch, data):
    made = sampler(labelled, others, sub_batch, epoch=2)
    whole = list(made)
    made.seen = data.draw(st.integers(0, len(whole)))
    left_out = made.seen
    assert list(made) == whole[left_out:]
    assert list(made) == whole


def test_epochs_and_seeds_differ_and_repeat():
    orders = [list(sampler(30, 40, 4, epoch=e, seed=s)) for e in (0, 1) for s in (0, 7)]
    again = [list(sampler(30, 40, 4, epoch=e, seed=s)) for e in (0, 1) for s in (0, 7)]
    assert orders == again
    assert len({tuple(order) for order in orders}) == 4


class Numbers(Dataset):
    """Gives the numbers of the samples."""

    def __getitems__(self, indices):
        return torch.as_tensor(indices)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_loader_that_is_loaded_goes_on_with_the_next_batch(workers):
    def loader():
        return BatchLoader(Numbers(), 6, workers, sampler(10, 4, 3))

    whole = list(loader())
    assert [len(batch) for batch in whole] == [6, 6, 6, 2]
    later = loader()
    later.load_state_dict({"batches": 2})
    rest = list(later)
    assert all(torch.equal(a, b) for a, b in zip(rest, whole[2:], strict=True))
