"""`fit`, `validate` and `test`: one LightningCLI, and the run directory around it."""

import os
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace
from lightning import Callback, Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger
from torch import distributed
from typing_extensions import override

from cardiac_mtl.configuration import (
    OneLineParser,
    data_class,
    experiment_name,
    phantom_if_no_root,
    refuse_no_experiment,
    refuse_other_data,
    resolve_configs,
    user_error_behind,
    words_of_run,
)
from cardiac_mtl.console import on_terminal, quiet_libraries, say
from cardiac_mtl.contracts import HONEST, OPTIMISTIC
from cardiac_mtl.errors import UserError
from cardiac_mtl.files import remove_halves
from cardiac_mtl.memory import keep_freed_memory, leave_imports_to_rest
from cardiac_mtl.papers.base import Paper
from cardiac_mtl.runs import (
    BEST,
    CONFIG,
    FINISHED,
    IDENTITY,
    LAST,
    config_digest,
    load_weights,
    now,
    provenance,
    read_checkpoint,
    read_identity,
    run_directory,
    starting_weights,
    write_identity,
)
from cardiac_mtl.training.dashboard import (
    GROUP,
    Examples,
    describe,
    end_wandb,
    settle_loggers,
    write_offline_run,
)
from cardiac_mtl.training.introduction import introduction
from cardiac_mtl.training.metrics_csv import RunMetrics
from cardiac_mtl.training.outputs import TestOutputs
from cardiac_mtl.training.precision import on_gpu, suited_precision
from cardiac_mtl.training.progress import progress
from cardiac_mtl.training.refusals import (
    refuse_impossible,
    refuse_no_validation,
    refuse_other_fold,
    refuse_other_labels,
    refuse_other_optimizers,
    refuse_other_protocol,
    refuse_shadowed_package,
    refuse_unannotated,
)
from cardiac_mtl.training.resume import Place, SeedSteps, StopOnSignal, claim, place_of, plugins
from cardiac_mtl.training.selection import (
    Provenance,
    best_checkpoint,
    last_checkpoint,
    refuse_dishonest_monitor,
)
from cardiac_mtl.training.thresholds import choose_threshold
from data_modules.base import CardiacDataModule


def run(arguments: Sequence[str], announce: Callable[[Path], None] | None = None) -> int:
    """Run `fit`, `validate` or `test`.

    Args:
        arguments: the command and its options.
        announce: told the run directory once `fit` has made it.
    """
    refuse_shadowed_package()
    keep_freed_memory()
    leave_imports_to_rest()
    quiet_libraries()
    words, run = list(arguments), None
    asks_help = any(word == "-h" or word.partition("=")[0].endswith("help") for word in words)
    if words[0] != "fit" and not asks_help:
        words, run = words_of_run(words)
    words = resolve_configs(words)
    if not asks_help:
        refuse_no_experiment(words)
    try:
        cli = CardiacCLI(words, run, announce, arguments)
    except (ValueError, RuntimeError, MisconfigurationException) as error:
        raise user_error_behind(error) or error from error
    finally:
        end_wandb()
    if cli.subcommand != "validate" and cli.trainer.is_global_zero:
        write_offline_run(cli.run_directory)
    return 0


class CardiacCLI(LightningCLI):
    """LightningCLI with a run directory, honest selection, and errors of one line.

    Args:
        words: of the command line, after `cardiac-mtl`.
        run: directory of an existing run, for `validate` and `test`; `fit` names its own.
        announce: told the run directory once `fit` has made it.
        command: the words as they were given, for `run.json`.
    """

    model: Paper
    datamodule: CardiacDataModule

    def __init__(
        self,
        words: list[str],
        run: Path | None,
        announce: Callable[[Path], None] | None = None,
        command: Sequence[str] = (),
    ) -> None:
        self.announce = announce
        self.command = command
        self.command_name = words[0]
        self.experiment = experiment_name(words)
        self.run_directory = run or Path()
        super().__init__(
            Paper,
            CardiacDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=None,
            trainer_defaults={"logger": False, "enable_model_summary": False, "max_epochs": 50},
            seed_everything_default=0,
            auto_configure_optimizers=False,
            parser_class=OneLineParser,
            args=words,
        )

    @override
    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override] # static in Lightning
        # of the one command that was given: the options of each take a tenth of a second to make
        if self.command_name == "fit":
            ours = {"train_dataloaders", "val_dataloaders", "ckpt_path"}
        else:
            ours = {"dataloaders", "ckpt_path", "verbose"}
        return {self.command_name: {"model", "datamodule", "weights_only", *ours}}

    @override
    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--experiment", type=str, default=self.experiment, help="names the run")
        parser.add_argument(
            "--run_root", type=Path, default=Path("runs"), help="where run directories are made"
        )
        if self.command_name == "fit":  # Lightning's own says that it is resumed
            what = "checkpoint of the same fold whose weights a run of its own starts from"
            parser.add_argument("--ckpt_path", type=Path | None, default=None, help=what)
        else:  # `words_of_run` has put the configuration of the run in its place: for the help
            what = "run directory that `fit` made, or a folder of runs, for the newest finished one"
            parser.add_argument("--run", type=Path | None, default=None, help=what)
        parser.link_arguments("data.init_args.matrix", "model.init_args.image_size")

    @override
    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        # Lightning's own warns that sys.argv differs from what `--run` stands for
        self.config = parser.parse_args(args)
        refuse_impossible(self.config[self.command_name])

    @override
    def _parse_ckpt_path(self) -> None:
        """Leave the configuration alone: a checkpoint must not override what was asked (P30)."""

    @override
    def before_instantiate_classes(self) -> None:
        config = self._config_of_command()
        refuse_other_data(config.data)
        phantom_if_no_root(config.data)
        refuse_dishonest_monitor(config)
        self.kept = self._config_to_keep()
        self.protocol = OPTIMISTIC if config.data.init_args.paper_protocol else HONEST
        if self.subcommand == "fit":
            self.run_directory = run_directory(
                config.run_root,
                config.experiment,
                data_class(config.data).name_of(config.data.init_args.root),
                f"fold{config.data.init_args.fold}-seed{config.seed_everything}",
                config_digest(self.kept | starting_weights(config.get("ckpt_path"))),
            )
            settle_loggers(config.trainer.logger, self.run_directory)

    @override
    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        self.model.selection_stage = self.datamodule.selection_part
        config = dict(self._get(self.config_init, "trainer"))
        config["precision"] = suited_precision(config["precision"], config["accelerator"])
        config["sync_batchnorm"] = on_gpu(config["accelerator"])  # P26; PyTorch has none for CPUs
        config["plugins"] = plugins(config["plugins"], training=self.subcommand == "fit")
        config["use_distributed_sampler"] = False  # the data module shares the slices out itself
        config["default_root_dir"] = self.run_directory  # P40: never the working folder
        config["callbacks"] = [*(config["callbacks"] or []), *self._callbacks()]
        config["enable_progress_bar"] = self.subcommand == "fit" and on_terminal()
        if self.subcommand == "fit":
            configured = config["logger"]
            others = configured if isinstance(configured, list) else [configured]
            chosen = [logger for logger in others if isinstance(logger, Logger)]
            self.metrics = RunMetrics(self.run_directory)
            config["logger"] = [self.metrics, *chosen]
            if chosen:
                config["callbacks"].append(Examples(self.run_directory))
        else:
            # P4: slices of one volume on two devices would be scored apart
            config |= {"logger": False, "devices": 1, "num_nodes": 1, "barebones": False}
        return self.trainer_class(**config)

    def before_fit(self) -> None:
        """Check everything that can be checked, then make or find the run directory."""
        self._set_up_data("fit")
        data = self.datamodule
        self.model.refuse_trainer(self.trainer)
        if start := self._config_of_command().get("ckpt_path"):
            self._start_from(Path(start))
        self.origin |= {
            "split_sha256": data.split_sha256,
            "fold": data.fold,
            "prepared": data.store.folder.name,
        }
        if self.trainer.is_global_zero:
            self.run_directory.mkdir(parents=True, exist_ok=True)
            self.give_back = claim(self.run_directory)
        there = (self.run_directory / IDENTITY).is_file()
        before = read_identity(self.run_directory) if there else {}
        self.done = before.get("status") == FINISHED
        place = place_of(self.run_directory, self.origin)
        if self.trainer.is_global_zero and not self.done:
            self._begin(before, place)
        if self.trainer.is_global_zero and self.announce is not None:
            self.announce(self.run_directory)

    def _start_from(self, path: Path) -> None:
        """Take the weights of a checkpoint, and nothing else of it (P30).

        Lightning would take over its epochs, its optimiser with the learning rate, its best score
        and the patients that it has seen.
        """
        checkpoint = read_checkpoint(path)
        fix = "start from a checkpoint of this fold"
        refuse_other_fold(checkpoint, self.datamodule, path, fix)
        load_weights(self.model, checkpoint, path)

    def fit(self, model: Paper, datamodule: CardiacDataModule, ckpt_path: Any = None) -> None:  # noqa: ANN401, ARG002 - Lightning's own
        """Train, from the last checkpoint of this run where there is one."""
        if self.done:
            return
        last = self.run_directory / LAST
        start = str(last) if last.is_file() else None  # `ckpt_path` gave its weights: `_start_from`
        try:
            self.trainer.fit(model, datamodule=datamodule, ckpt_path=start)
        except BaseException:
            if self.trainer.is_global_zero:
                self.give_back()
            raise

    def after_fit(self) -> None:
        """Write down what was selected, and on what."""
        if distributed.is_initialized():  # what follows is done by one process
            distributed.destroy_process_group()
        if not self.trainer.is_global_zero:
            return
        if self.done:
            say(f"trained already: {self.run_directory}")
            say("to train it again, rename that directory, or give another --seed_everything")
            self.give_back()
            return
        try:
            self._conclude()
        finally:
            self.give_back()

    def _begin(self, before: dict[str, Any], place: Place | None) -> None:
        """Write down what is about to be trained, and from where."""
        remove_halves(self.run_directory)
        self.metrics.go_on_after(place and place.last_step)
        if place is None:
            (self.run_directory / CONFIG).write_text(
                yaml.safe_dump(self.kept, sort_keys=False), encoding="utf-8"
            )
            self.datamodule.save_splits(self.run_directory / "splits.json")
            self.identity = self._new_identity()
        else:
            earlier = before.get("resumed", [])
            here = {**place._asdict(), "at": now(), "git_commit": provenance()["git_commit"]}
            self.identity = before | {"resumed": [*earlier, here]}
        self.identity |= {"status": "running", "precision": self.trainer.precision}
        self._note(wandb=describe(self.trainer.loggers, self.kept, self.identity))
        for line in introduction(self.trainer, self.model, self.datamodule, self.origin):
            say(line)
        say(f"run directory: {self.run_directory}")
        if place is not None:
            say(f"going on {place}")

    def _conclude(self) -> None:
        if self._config_of_command().trainer.fast_dev_run:
            self._note(status="dry run")
            say("a dry run: nothing was kept")
            return
        if not (self.run_directory / BEST).is_file():
            self._note(status="failed")
            raise UserError(
                f"no epoch was validated, so {self.best.monitor} chose no checkpoint",
                where=f"epoch {self.trainer.current_epoch}",
                fix="train longer, or validate more often: see the trainer in the configuration",
            )
        best = self.best.best_model_score
        self._note(
            status=FINISHED,
            finished_at=now(),
            epochs=self.trainer.current_epoch,
            trained_on=self.datamodule.patients_seen("train"),
            transferred_on=self.datamodule.patients_seen("train", transferred=True),
            validated_on=self.datamodule.patients_seen("other"),
            best_value=None if best is None else float(best),
        )
        if best is not None:
            say(f"best: {self.best.monitor} {float(best):.4f}, the {self.protocol} protocol")
        else:
            say(f"kept: the last of {self.trainer.current_epoch} epochs; no patient chose it")
        say(f"next: cardiac-mtl test --run {shlex.quote(str(self.run_directory))}")

    def validate(self, model: Paper, datamodule: CardiacDataModule) -> None:
        """Score the best checkpoint on the part that it was selected on."""
        if datamodule.selection_part == "none":
            raise UserError(
                "no patient validates: the number of epochs was fixed",
                where="validate",
                fix=f"score the test part: cardiac-mtl test --run {self.run_directory}",
            )
        self._load_weights()
        (scores,) = self.trainer.validate(model, datamodule=datamodule, verbose=False)
        for name, value in sorted(scores.items()):
            say(f"{name:<28} {value:.4f}")

    def test(self, model: Paper, datamodule: CardiacDataModule) -> None:
        """Score the best checkpoint on the test part; write rows, table and pictures."""
        self._load_weights()
        give_back = claim(self.run_directory)  # two tests would mix their pictures and rows
        try:
            if model.class_names:
                choose_threshold(self.trainer, model, datamodule, self.run_directory)
            self.trainer.test(model, datamodule=datamodule, verbose=False)
        finally:
            give_back()

    def _load_weights(self) -> None:
        """Load the run's best weights, where the folds are those of its training."""
        self._set_up_data(str(self.subcommand))
        path = self.run_directory / BEST
        checkpoint = read_checkpoint(path)
        fix = "restore the data of that time, or use `cardiac-mtl predict` for other data"
        refuse_other_fold(checkpoint, self.datamodule, path, fix)
        refuse_other_protocol(checkpoint, self.protocol, path)
        load_weights(self.model, checkpoint, path)

    def _set_up_data(self, stage: str) -> None:
        self.datamodule.find()  # what is refused by this alone waits for no image to be prepared
        refuse_other_labels(self.model, self.datamodule)
        if stage == "fit":
            refuse_unannotated(self.model, self.datamodule)
            refuse_no_validation(self.trainer, self.datamodule)
            refuse_other_optimizers(self.model)
        self.datamodule.setup(stage)

    def _callbacks(self) -> list[Callback]:
        if self.subcommand == "test":
            protocol = read_identity(self.run_directory)["protocol"]
            return [TestOutputs(self.run_directory, protocol)]
        if self.subcommand == "validate":
            return []
        self.best = best_checkpoint(self.model, self.run_directory)
        self.origin = {
            "experiment": self._config_of_command().experiment,
            "protocol": self.protocol,
            "selected_on": self.datamodule.selection_part,
            "monitor": self.best.monitor,
        }
        return [
            self.best,
            last_checkpoint(self.run_directory),
            SeedSteps(self._config_of_command().seed_everything),
            StopOnSignal(self.run_directory / LAST),
            Provenance(self.origin, lambda status: self._note(status=status)),
            progress(),
        ]

    def _note(self, **facts: Any) -> None:  # noqa: ANN401 - JSON values
        """Write `run.json` with new facts, from one process of however many."""
        if self.trainer.is_global_zero:
            self.identity |= facts
            write_identity(self.run_directory, self.identity)

    def _new_identity(self) -> dict[str, Any]:
        """Return what `run.json` holds from the start: whose run it is, and where it comes from."""
        data = self.datamodule
        return {
            "run_id": self.run_directory.name,
            "data": data.name_of(data.root),
            "layout": data.layout,
            "phantom": data.is_phantom,
            "pixels_mm": data.pixels_mm,
            "axes_lps": data.axes_lps,
            "seed": self._config_of_command().seed_everything,
            "study": os.environ.get(GROUP),
            "mask_offset_px": data.offset and data.offset.place,
            **self.origin,
            **provenance(self.command),
        }

    def _config_of_command(self) -> Namespace:
        return self.config[str(self.subcommand)]

    def _config_to_keep(self) -> dict[str, Any]:
        """Return the whole configuration as plain values, without `ckpt_path` (P31)."""
        self._dump_config()
        return {key: value for key, value in self.config_dump.items() if key != "ckpt_path"}
