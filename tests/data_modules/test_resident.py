"""Batches gathered on the device: those of the loader, bit for bit, and no question to the device.

The meta device stands for a GPU here: it has no values, so that nobody can wait for one.
"""

from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from cardiac_mtl.cli import main
from cardiac_mtl.errors import UserError
from cardiac_mtl.runs import LAST
from data_modules import resident as resident_module
from data_modules.augment import Augmentation
from data_modules.cine import CineDataModule
from data_modules.findings import noticed
from data_modules.manifest import ManifestDataModule
from data_modules.mscmr import MSCMRDataModule
from data_modules.resident import ResidentStore, settle
from data_modules.stacom import StacomDataModule
from data_modules.t1 import T1DataModule

CPU, META = torch.device("cpu"), torch.device("meta")
STRONG = Augmentation(probability=0.7, rotation_deg=30.0, translation=0.1, gamma=0.3, bias=0.2)
KINDS = {
    "lvsc": (StacomDataModule, {"matrix": (32, 32)}),
    "hearts": (ManifestDataModule, {"matrix": (32, 32)}),
    "cines": (CineDataModule, {"matrix": (32, 32), "frames": 3, "num_folds": 3}),
    "sequences": (MSCMRDataModule, {"val_patients": 1, "matrix": (32, 32)}),
    "maps": (T1DataModule, {"matrix": (64, 64), "balance_classes": True}),
}


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def make(request):
    """Return the maker of data modules of a kind, as the trainer sets them up on a device."""

    def made(kind, device=CPU, **settings):
        torch.manual_seed(0)
        of_kind, usual = KINDS[kind]
        root = request.getfixturevalue(kind)
        data = of_kind(root, **{"augmentation": STRONG, "batch_size": 5} | usual | settings)
        data.trainer = SimpleNamespace(
            training=True,
            current_epoch=0,
            global_rank=0,
            world_size=1,
            strategy=SimpleNamespace(root_device=device),
        )
        data.setup("fit")
        return data

    return made


def on_device(data, batch, device=CPU):
    batch = data.on_before_batch_transfer(batch, 0)
    return data.on_after_batch_transfer(data.transfer_batch_to_device(batch, device, 0), 0)


def some_batches(data):
    """Return the first batches of two epochs of training, of validation and of test."""
    found = []
    training = data.train_dataloader()
    for data.trainer.current_epoch in (0, 1):
        training.sampler.set_epoch(data.trainer.current_epoch)
        found += [on_device(data, batch) for batch in islice(training, 2)]
    data.trainer.training = False
    for loader in (data.val_dataloader(), data.test_dataloader()):
        found += [on_device(data, batch) for batch in islice(loader, 1)]
    return found


def test_batches_are_those_of_the_loader_bit_for_bit(make, kind):
    loaded, resident = (make(kind, resident=on) for on in (False, True))
    pairs = list(zip(some_batches(loaded), some_batches(resident), strict=True))
    assert len(pairs) == 6
    for one, other in pairs:
        assert one.keys() == other.keys()
        for key, value in one.items():
            assert (value.dtype, value.shape) == (other[key].dtype, other[key].shape)
            assert value.numpy().tobytes() == other[key].numpy().tobytes(), key
    assert loaded.patients_seen("train") == resident.patients_seen("train") != []


def test_a_batch_on_its_way_is_small_and_no_process_fetches_it(make, kind):
    loader = make(kind, resident=True, num_workers=2).train_dataloader()
    assert loader.num_workers == 0
    batch = next(iter(loader))
    assert not {"image", "mask"} & batch.keys()
    assert sum(value.nbytes for value in batch.values()) < 100 * len(batch["case"])


class BlockingCopies(TorchDispatchMode):
    """Collects what is copied to the meta device in a way that waits on a GPU."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        sent = func.overloadpacket.__name__ == "_to_copy" and kwargs.get("device") == META
        if sent and args[0].device == CPU and not kwargs.get("non_blocking"):
            self.found.append(tuple(args[0].shape))
        return func(*args, **kwargs)


@pytest.mark.parametrize("resident", [True, False])
def test_no_batch_waits_for_the_device(make, kind, resident):
    data = make(kind, META, resident=resident)
    batch = next(iter(data.train_dataloader()))
    with BlockingCopies() as copies:
        batch = on_device(data, batch, META)
    assert {value.device for value in batch.values()} == {META}
    assert copies.found == []


def test_a_copy_that_waits_is_seen():
    with BlockingCopies() as copies:
        torch.ones(3).to(META)
        torch.ones(2).to(META, non_blocking=True)
    assert copies.found == [(3,)]


def test_a_store_is_copied_part_by_part(make, monkeypatch):
    store = make("hearts", resident=False).store
    monkeypatch.setattr(resident_module, "_AT_ONCE", 9)
    copied = ResidentStore(store, CPU)
    assert len(store.case) % 9 != 0
    assert (copied.image.dtype, copied.mask.dtype) == (torch.float16, torch.int8)
    np.testing.assert_array_equal(copied.image, store.image)
    np.testing.assert_array_equal(copied.mask, store.mask)


@pytest.mark.parametrize(("times", "stays"), [(3.9, False), (4.1, True)])
def test_a_store_goes_where_it_takes_a_quarter_of_the_free_memory(make, monkeypatch, times, stays):
    store = make("hearts", resident=False).store
    free = int(times * (store.image.nbytes + store.mask.nbytes))
    monkeypatch.setattr(resident_module, "free_bytes", lambda _: free)
    with noticed() as said:
        assert (settle(store, CPU, wanted=None) is not None) == stays
    (line,) = said
    assert ("copied to cpu" if stays else "over 25% of cpu") in line.message
    assert line.severity == "note"
    data = make("hearts")
    assert ("position" in next(iter(data.train_dataloader()))) == stays


def test_a_cpu_reads_from_disk_unless_asked_and_says_nothing(make):
    store = make("hearts", resident=False).store
    with noticed() as said:
        assert settle(store, CPU, wanted=None) is None
        assert settle(store, CPU, wanted=False) is None
        assert settle(store, CPU, wanted=True) is not None
    assert said == []


def test_a_device_that_is_too_small_is_one_line(make, monkeypatch):
    store = make("hearts", resident=False).store
    monkeypatch.setattr(resident_module, "free_bytes", lambda _: 1000)
    with pytest.raises(UserError, match=r"the prepared store takes .* 0\.0 MB are free on cpu"):
        settle(store, CPU, wanted=True)


def test_the_copy_is_for_training_and_goes_with_it(make):
    data = make("hearts", resident=True)
    assert not data.val_dataloader().dataset.store.image.flags.owndata
    assert "image" not in next(iter(data.val_dataloader()))
    data.teardown("fit")
    assert "image" in next(iter(data.val_dataloader()))
    data.setup("test")
    assert "image" in next(iter(data.test_dataloader()))


def test_a_training_ends_in_the_same_weights(hearts, tmp_path, monkeypatch):
    gathered = []
    gather = ResidentStore.gather
    monkeypatch.setattr(ResidentStore, "gather", lambda *them: gathered.append(1) or gather(*them))

    def weights(resident):
        words = [
            "fit", "--config", "mtn_uncertainty", "--config", "manifest", "--config", "debug",
            "--data.root", str(hearts), "--data.num_folds", "3", "--trainer.accelerator", "cpu",
            "--data.resident", resident, "--run_root", str(tmp_path / resident),
        ]  # fmt: skip
        assert main(words) == 0
        (last,) = (tmp_path / resident).rglob(LAST)
        return last, torch.load(last, weights_only=True)["state_dict"]

    one_place, one = weights("false")
    assert not gathered
    other_place, other = weights("true")
    assert gathered
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert one_place.relative_to(tmp_path / "false") == other_place.relative_to(tmp_path / "true")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_the_batch_of_the_loader_and_is_not_waited_for(make, kind):
    gpu = torch.device("cuda", 0)
    loaded, resident = make(kind, resident=False), make(kind, gpu)  # which fits, unasked
    first, second = islice(resident.train_dataloader(), 2)
    on_device(resident, first, gpu)  # the first of all sets CUDA up
    torch.cuda.set_sync_debug_mode("error")
    try:
        on_device(resident, second, gpu)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    loaded.trainer.training = resident.trainer.training = False
    one, other = (next(iter(data.val_dataloader())) for data in (loaded, resident))
    one, other = on_device(loaded, one), on_device(resident, other, gpu)
    assert all(torch.equal(one[key], other[key].cpu()) for key in ("image", "mask", "case"))
