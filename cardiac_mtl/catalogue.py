"""The experiments, overlays and presets that ship with the package; how a YAML file is read."""

from collections.abc import Sequence
from difflib import get_close_matches
from itertools import takewhile
from pathlib import Path
from typing import Any

import yaml

import cardiac_mtl
from cardiac_mtl.errors import UserError
from cardiac_mtl.options import OptionParser

SWEEPS = "sweeps"
MOST_ALIASES = 20
"""In a YAML file: a few lines of aliases of aliases would unfold to gigabytes."""
MOST_BRACKETS = 2000
"""In a YAML file: the reader takes minutes over twenty thousand nested lists."""


def shipped_folder() -> Path:
    """Return the folder of YAML files: inside an installed package, beside it in a checkout."""
    package = Path(cardiac_mtl.__file__).parent
    inside = package / "experiments"
    return inside if inside.is_dir() else package.parent / "experiments"


def experiments() -> list[Path]:
    """Return the experiment files, sorted by name."""
    return sorted(shipped_folder().glob("*.yaml"))


def overlays() -> list[Path]:
    """Return the overlays, which come after an experiment: data sets, presets, loggers."""
    return sorted(path for path in shipped_folder().glob("*/*.yaml") if path.parent.name != SWEEPS)


def sweeps() -> list[Path]:
    """Return the files for `wandb sweep`, which are no configurations of ours."""
    return sorted((shipped_folder() / SWEEPS).glob("*.yaml"))


def find_config(name: str) -> Path:
    """Return the file that a `--config` names.

    Args:
        name: a path, or the bare name of a shipped file: `mtn_uncertainty`, `presets/cpu_demo`,
            `cpu_demo`, or `experiments/mtn_uncertainty.yaml` away from a checkout.

    Returns:
        An existing file.

    Raises:
        UserError: there is no such file, with the nearest name that there is.
    """
    path = Path(name)
    if path.is_file():
        return path
    root = shipped_folder()
    wanted = name.removeprefix("experiments/").removesuffix(".yaml")
    files = [*experiments(), *overlays()]
    known = {file.relative_to(root).with_suffix("").as_posix(): file for file in files}
    known |= {file.stem: file for file in known.values()}
    if wanted in known:
        return known[wanted]
    near = get_close_matches(wanted, known, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise UserError(
        f"no such file {name!r}, and no shipped experiment of that name",
        where="--config",
        fix=f"{hint}`cardiac-mtl list` names them",
    )


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping.

    Raises:
        UserError: it is absent or damaged.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if text.count("[") + text.count("{") > MOST_BRACKETS:
            raise ValueError("nested too deep")
        aliases = sum(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text))
        content = yaml.safe_load(text) if aliases <= MOST_ALIASES else None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UserError(
            f"is not YAML: {error.problem}", where=f"{path}, line {line}", fix="mend that line"
        ) from error
    except (OSError, UnicodeDecodeError, RecursionError, ValueError, yaml.YAMLError) as error:
        raise UserError(
            f"cannot be read ({type(error).__name__})", where=str(path), fix="restore the file"
        ) from error
    if aliases > MOST_ALIASES:
        raise UserError(
            f"has {aliases} aliases", where=str(path), fix="write out what the aliases stand for"
        )
    if not isinstance(content, dict):
        raise UserError("is not a mapping", where=str(path), fix="write `key: value` lines")
    return content


def header(path: Path) -> dict[str, str]:
    """Return the `# key: value` comments that an experiment file begins with."""
    lines = path.read_text(encoding="utf-8").splitlines()
    comments = [line.removeprefix("# ").split(": ", 1) for line in lines if line.startswith("# ")]
    return {pair[0]: pair[-1] for pair in comments}


def run(arguments: Sequence[str]) -> int:
    """Print every experiment with paper, row, data and tasks, then the overlays."""
    about = "Print the experiments, overlays, presets and sweeps that are shipped."
    OptionParser(prog="cardiac-mtl list", description=about).parse_args(arguments[1:])
    for path in experiments():
        print(path.stem)
        for key, value in header(path).items():
            print(f"    {key:<6} {value}")
    print("\noverlays, given as a second --config after the experiment")
    for path in overlays():
        name = path.relative_to(shipped_folder()).with_suffix("").as_posix()
        print(f"    {name:<20} {_first(path)}")
    print("\nfor `wandb sweep`, which searches settings by their validation value")
    for path in sweeps():
        print(f"    {path}  {_first(path)}")
    return 0


def _first(path: Path) -> str:
    """Return the comment that a file begins with, as one line."""
    lines = path.read_text(encoding="utf-8").splitlines()
    comment = takewhile(lambda line: line.startswith("# "), lines)
    return " ".join(line.removeprefix("# ") for line in comment)
