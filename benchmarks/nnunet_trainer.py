"""What an environment with nnunetv2, and with nothing of ours, runs in place of `nnUNetv2_train`.

    python -c CODE initial PREPARED
    python -c CODE train PREPARED CURVE EPOCHS ITERATIONS

That command imports every trainer which nnU-Net ships, and the libraries of them all. PREPARED is
the folder of the data set under `nnUNet_preprocessed`. `benchmarks/nnunet.py` gives this file as
text: run by its path, Python would look for modules of other libraries beside it.
"""

import json
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA

EVERY = 50
"""Iterations from one scoring to the next: a fifth of nnU-Net's epoch."""
CPU = torch.device("cpu")


class Followed(nnUNetTrainer):
    """Scores the unseen cases every now and then, by a clock that stops for it.

    The clock runs while it trains, from the start of the first epoch; not while it validates, saves
    or draws its progress.
    """

    curve: Path
    spent = 0.0

    def on_train_start(self) -> None:
        """Write what trains on what."""
        super().on_train_start()
        self.note(
            **described(self),
            threads=torch.get_num_threads(),
            workers=get_allowed_n_proc_DA(),
            batch=self.configuration_manager.batch_size,
            epochs=self.num_epochs,
            iterations=self.num_iterations_per_epoch,
        )

    def on_train_epoch_start(self) -> None:
        """Start the clock."""
        super().on_train_epoch_start()
        self.iteration = 0
        self.started = time.perf_counter()

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Train, and score when it is time."""
        trained = super().train_step(batch)
        self.iteration += 1
        if self.iteration % EVERY == 0 or self.iteration == self.num_iterations_per_epoch:
            self.spent += time.perf_counter() - self.started
            cases = self.dice()
            mean = sum(cases.values()) / len(cases)
            self.note(epoch=self.current_epoch, seconds=self.spent, mean=mean, cases=cases)
            self.network.train()
            self.set_deep_supervision_enabled(self.enable_deep_supervision)
            self.started = time.perf_counter()
        return trained

    @torch.inference_mode()
    def dice(self) -> dict[str, float]:
        """Return the Dice of each case that it is not trained on, on the grid of the plan.

        Mirrored as `nnUNetv2_predict` would: what a user of nnU-Net gets.
        """
        self.set_deep_supervision_enabled(False)
        predictor = nnUNetPredictor(use_mirroring=True, device=CPU, allow_tqdm=False)
        predictor.manual_initialization(
            self.network, self.plans_manager, self.configuration_manager, None,
            self.dataset_json, type(self).__name__, self.inference_allowed_mirroring_axes,
        )  # fmt: skip
        _, keys = self.do_split()
        cases = self.dataset_class(self.preprocessed_dataset_folder, keys)
        scores = {}
        for key in keys:
            image, reference, *_ = cases.load_case(key)
            logits = predictor.predict_sliding_window_return_logits(torch.from_numpy(image[:]))
            predicted, true = logits.argmax(0) == 1, torch.from_numpy(reference[:])[0] == 1
            scores[key] = float(2 * (predicted & true).sum() / (predicted.sum() + true.sum()))
        return scores

    def note(self, **line: object) -> None:
        """Add a line to the curve."""
        with self.curve.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def main(task: str, prepared: str, *words: str) -> None:
    """Do one of the two."""
    if task == "initial":
        save_initial(Path(prepared))
    else:
        curve, epochs, iterations = words
        train(Path(prepared), Path(curve), int(epochs), int(iterations))


def save_initial(prepared: Path) -> None:
    """Save initial weights where `nnUNetv2_predict` looks for trained ones; print what they are."""
    trainer, plans, dataset = made(nnUNetTrainer, prepared)
    trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()  # else nothing is mirrored
    trainer.initialize()
    model = Path(trainer.output_folder_base)
    trainer.save_checkpoint(str(Path(trainer.output_folder) / "checkpoint_final.pth"))
    (model / "plans.json").write_text(json.dumps(plans), encoding="utf-8")
    (model / "dataset.json").write_text(json.dumps(dataset), encoding="utf-8")
    print(json.dumps(described(trainer)))


def train(prepared: Path, curve: Path, epochs: int, iterations: int) -> None:
    """Train, write the curve, and last the mean Dice of nnU-Net's own validation."""
    trainer, _, _ = made(Followed, prepared)
    trainer.curve = curve
    trainer.num_epochs, trainer.num_iterations_per_epoch = epochs, iterations
    trainer.run_training()
    trainer.perform_actual_validation()
    summary = json.loads((Path(trainer.output_folder) / "validation/summary.json").read_text())
    trainer.note(mirrored_dice=summary["foreground_mean"]["Dice"])


def made(kind: type, prepared: Path) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """Return a trainer for a CPU, with its plans and the description of its data set."""
    names = ("nnUNetPlans.json", "dataset.json")
    plans, dataset = (json.loads((prepared / name).read_text()) for name in names)
    return kind({**plans, "continue_training": False}, "2d", 0, dataset, CPU), plans, dataset


def described(trainer: nnUNetTrainer) -> dict[str, Any]:
    """Return versions, size of the network, patch and grid."""
    planned = trainer.configuration_manager
    return {
        "versions": {name: version(name) for name in ("nnunetv2", "torch")},
        "parameters": sum(p.numel() for p in trainer.network.parameters()),
        "patch": [int(n) for n in planned.patch_size],
        "spacing_mm": [float(x) for x in planned.spacing],
        "mirrored_axes": [int(n) for n in trainer.inference_allowed_mirroring_axes],
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
