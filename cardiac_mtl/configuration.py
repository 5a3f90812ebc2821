"""From YAML and words to a configuration: shipped names, phantom data, errors of one line."""

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from traceback import walk_tb
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, Namespace
from lightning import Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LightningArgumentParser
from typing_extensions import override

from cardiac_mtl.catalogue import find_config, read_yaml
from cardiac_mtl.errors import UserError
from cardiac_mtl.papers.base import Paper
from cardiac_mtl.phantom_files import LAYOUTS, default_cohort
from cardiac_mtl.runs import CONFIG, find_run
from data_modules.base import CardiacDataModule

FIX_FOLLOWS = "; "


def _whole_numbers_stay_whole() -> None:
    """Have `limit_train_batches: 1` mean one batch, whatever was imported before.

    `typing` hands out whichever of Optional[Union[int, float]] and Optional[Union[float, int]] was
    made first, by any library; by the second, jsonargparse reads 1 as 1.0, all of the batches.
    """
    annotations = Trainer.__init__.__annotations__
    for name in ("train", "val", "test", "predict"):
        annotations[f"limit_{name}_batches"] = int | float | None
    annotations["overfit_batches"] = int | float


_whole_numbers_stay_whole()


class OneLineParser(LightningArgumentParser):
    """Lightning's parser, whose mistakes are one line and name the nearest valid key (P34)."""

    @override
    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise explain(message, _option_names(self)) from ex


def resolve_configs(words: Sequence[str]) -> list[str]:
    """Replace every shipped name that `--config` is given by its file.

    Args:
        words: of the command line.

    Returns:
        The same words, with `--config FILE` for each configuration.
    """
    resolved: list[str] = []
    for word in words:
        name, equals, value = word.partition("=")
        if name in {"--config", "-c"} and equals:
            resolved += ["--config", str(_readable(value))]
        elif resolved and resolved[-1] in {"--config", "-c"}:
            resolved[-1:] = ["--config", str(_readable(word))]
        else:
            resolved.append(word)
    return resolved


def _readable(name: str) -> Path:
    path = find_config(name)
    read_yaml(path)
    return path


def refuse_no_experiment(words: Sequence[str]) -> None:
    """Refuse words that name no model: overlays and presets alone.

    Args:
        words: of the command line, each configuration as `--config FILE`.
    """
    files = [Path(following) for word, following in pairwise(words) if word == "--config"]
    models = [read_yaml(file).get("model") for file in files]
    if any(isinstance(model, dict) and "class_path" in model for model in models):
        return
    if {word.partition("=")[0] for word in words} & {"--model", "--model.class_path"}:
        return
    raise UserError(
        "no experiment",
        where=words[0],
        fix="give one as the first --config; `cardiac-mtl list` names them",
    )


def words_of_run(words: list[str]) -> tuple[list[str], Path]:
    """Turn `test --run DIR ...` into the configuration of that run and what else was asked.

    Returns:
        The words that stand for it, and the run's directory.

    Raises:
        UserError: no run is given, or there is none.
    """
    given = dict(enumerate(words))
    for place, word in given.items():
        name, equals, value = word.partition("=")
        if name == "--run":
            rest = words[1:place] + words[place + (1 if equals else 2) :]
            if not (value := value if equals else given.get(place + 1, "")):
                break  # an empty path would be the working folder, and any run below it
            run_directory = find_run(Path(value))
            return [words[0], "--config", str(run_directory / CONFIG), *rest], run_directory
    raise UserError(
        "which run?", where=words[0], fix=f"give `cardiac-mtl {words[0]} --run DIR` of a `fit`"
    )


def experiment_name(words: list[str]) -> str:
    """Return the stem of the first configuration; `config.yaml` of a run overrides it."""
    for word, following in pairwise(words):
        if word == "--config":
            return Path(following).stem
    return "unnamed"


def data_class(data: Namespace) -> type[CardiacDataModule]:
    """Return the class that the configuration of a data module names."""
    module, _, name = data.class_path.rpartition(".")
    return getattr(import_module(module), name)


def phantom_if_no_root(data: Namespace) -> None:
    """Give a data module that was given no root the phantom cohort of its layout.

    Args:
        data: the configuration of the data module, changed in place.
    """
    if data.init_args.root is not None:
        return
    layout = data_class(data).layout
    if layout not in LAYOUTS:
        raise UserError(
            f"no folder is given, and there are no phantoms in the layout {layout!r}",
            where="data.root",
            fix="give the folder of the data set",
        )
    data.init_args.root = default_cohort(layout)


_TAKEN = ("root", "num_folds", "fold", "paper_protocol", "matrix")
"""Settings of a data module that the commands themselves give or read."""


def refuse_other_data(data: Namespace) -> None:
    """Refuse a data module that is none, or whose constructor hides settings of its base.

    Args:
        data: the configuration of the data module.
    """
    if data_class(data) is CardiacDataModule:
        raise UserError("no data set", where="data", fix="add `--config manifest`, for example")
    if hidden := [name for name in _TAKEN if name not in data.init_args]:
        raise UserError(
            f"its constructor takes no {', '.join(hidden)}",
            where=data.class_path,
            fix="have it take `**settings: Any` too, and hand them to that of its base",
        )


def build(config: Mapping[str, Any]) -> tuple[Paper, CardiacDataModule]:
    """Make paper and data module as the `config.yaml` of a run describes them.

    Args:
        config: holds `model` and `data`.

    Returns:
        A paper with fresh weights, and a data module that has read nothing yet.
    """
    parser = OneLineParser()
    parser.add_subclass_arguments(Paper, "model", required=True)
    parser.add_subclass_arguments(CardiacDataModule, "data", required=True)
    described = parser.parse_object({k: config[k] for k in ("model", "data") if k in config})
    made = _made(parser, described)
    return made.model, made.data


def build_data(configs: Sequence[str]) -> CardiacDataModule:
    """Make the data module that some experiments and overlays describe, the last one counting.

    Args:
        configs: as `--config` takes them.

    Raises:
        UserError: none of them names a data module.
    """
    merged: dict[str, Any] = {}
    for config in configs:
        data = read_yaml(find_config(config)).get("data") or {}
        if not isinstance(data, dict) or not isinstance(data.get("init_args") or {}, dict):
            raise UserError("is not a mapping", where=f"{config}, data", fix="give class_path")
        if data.get("class_path", merged.get("class_path")) != merged.get("class_path"):
            merged = {}
        merged = merged | data
        merged["init_args"] = merged.get("init_args", {}) | (data.get("init_args") or {})
    if "class_path" not in merged:
        raise UserError("names no data module", where="--config", fix="give data/lvsc, for example")
    parser = OneLineParser()
    parser.add_subclass_arguments(CardiacDataModule, "data")
    return _made(parser, parser.parse_object({"data": merged})).data


def _made(parser: ArgumentParser, described: Namespace) -> Namespace:
    """Make what is described; what a constructor refuses is its own line, not jsonargparse's."""
    try:
        return parser.instantiate(described)
    except (ValueError, RuntimeError) as error:
        raise user_error_behind(error) or error from error


_NOISE = (
    "Does not validate against",
    "Subtypes:",
    "Errors:",
    "Expected a <class 'NoneType'>",
    "Expected a path but",
    "Given value",
)
_KEY = re.compile(r'(?:configuration, |configuration: )?Parser key "([^"]+)":\s*')
_NULL_SETTINGS = "must be a mapping, not NoneType"
_REFUSED = re.compile(r"(?:[Oo]ption '|arguments: -*)([^\s'=]+)")


def explain(message: str, options: Sequence[str]) -> UserError:
    """Turn a message of jsonargparse, sixty lines at worst, into one line.

    Args:
        message: it may hold, line by line, what `explain` said of a nested parser.
        options: names that the parser accepts, for the nearest one.

    Returns:
        The error, naming the whole key.
    """
    lines = [line.strip(" -") for line in message.splitlines()]
    lines = [line for line in lines if line and not line.startswith(_NOISE)]
    text = " ".join(lines)
    keys = _KEY.findall(text)
    text = _KEY.sub("", text).removeprefix("configuration: ")
    what, _, fix = text.partition(FIX_FOLLOWS)
    if _NULL_SETTINGS in what:  # jsonargparse names its own function there, and no key
        what = "null stands where settings are expected"
        fix = "leave that key out, or give one of its settings"
    if "No module named" in what:
        fix = "correct class_path, or name the folder of that module in PYTHONPATH"
    refused = _REFUSED.search(what)
    if refused and not fix:
        near = get_close_matches(refused[1], options, n=1, cutoff=0.5)
        fix = f"did you mean {near[0]!r}?" if near else ""
    where = ".".join(["configuration", *keys]) if not keys else ".".join(keys)
    return UserError(what.strip(" ;."), where=where, fix=fix or "see `cardiac-mtl fit --help`")


def user_error_behind(error: BaseException) -> UserError | None:
    """Return the error of ours behind what was raised while paper, data and trainer were made.

    Else what jsonargparse or Lightning say of a setting; None where it is neither's.
    """
    chain: BaseException | None = error
    while chain is not None and not isinstance(chain, UserError):
        chain = chain.__cause__ or chain.__context__
    if chain is not None:
        return chain
    if isinstance(error, MisconfigurationException) or _raised_by_lightning(error):
        what = " ".join(str(error).split()).rstrip(".!")
        return UserError(what, where="trainer", fix="see `cardiac-mtl fit --help`")
    return explain(str(error), ()) if str(error).startswith(_NOISE) else None


def _raised_by_lightning(error: BaseException) -> bool:
    """Say whether Lightning itself refused something, as it does with settings of its own."""
    *_, (frame, _) = walk_tb(error.__traceback__)
    return str(frame.f_globals["__name__"]).startswith("lightning.")


def _option_names(parser: ArgumentParser) -> list[str]:
    """Return the names that a parser and its sub-commands accept, whole and by their last part."""
    names = []
    for action in parser._actions:  # noqa: SLF001 - jsonargparse has no public list
        if isinstance(action.choices, dict):
            names += [name for sub in action.choices.values() for name in _option_names(sub)]
        names.append(action.dest)
    return [*names, *{name.rsplit(".", 1)[-1] for name in names}]
