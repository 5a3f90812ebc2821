"""`python -m benchmarks` lists the benchmarks; with a name it runs one; `all` runs the suite.

python -m benchmarks NAME [options]
python -m benchmarks NAME --help
python -m benchmarks all            those that need no data: what `make bench` runs
python -m benchmarks page           docs/performance.md from the results files
python -m benchmarks keep           rows of tested runs on phantoms, for pairs with later ones
"""

import argparse
import subprocess
import sys
from importlib import import_module

from benchmarks.catalogue import BENCHMARKS, summary_of
from cardiac_mtl.errors import UserError

COMMANDS = {
    "all": "the suite: those marked *",
    "page": "write docs/performance.md",
    "keep": "keep the rows of tested runs on phantoms",
}
WITHOUT_OPTIONS = {"all", "page"}


def main(words: list[str]) -> int:
    """Run one, the suite, or list what there is."""
    if not words or words[0] in {"-h", "--help"}:
        print(listing())
        return 0
    name, *rest = words
    if name not in {*BENCHMARKS, *COMMANDS}:
        print(f"no benchmark {name!r}\n\n{listing()}", file=sys.stderr)
        return 2
    sys.argv = [f"python -m benchmarks {name}", *rest]
    if name in WITHOUT_OPTIONS:  # `--help` must not start what takes an hour
        argparse.ArgumentParser(description=COMMANDS[name]).parse_args()
    try:
        return run_suite() if name == "all" else run_one(name)
    except UserError as error:
        print(f"{name}: {error}", file=sys.stderr)
    except OSError as error:
        if not error.strerror:  # not the system's: of a library
            raise
        print(f"{name}: {error.filename or 'disk'}: {error.strerror}", file=sys.stderr)
    return 2


def run_one(name: str) -> int:
    """Run a benchmark or command in this process."""
    import_module(f"benchmarks.{name}").main()
    return 0


def run_suite() -> int:
    """Run the suite, each benchmark in a process of its own; then write the page."""
    suite = [name for name, benchmark in BENCHMARKS.items() if benchmark.suite]
    failed = []
    for name in [*suite, "page"]:
        print(f"\n{name}", flush=True)
        if subprocess.run([sys.executable, "-m", "benchmarks", name], check=False).returncode:  # noqa: S603 - our own interpreter
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return bool(failed)


def listing() -> str:
    """Return every benchmark with one line."""
    lines = [
        f"  {name:<15} {'*' if benchmark.suite else ' '} {summary_of(name)}"
        for name, benchmark in BENCHMARKS.items()
    ]
    others = [f"  {name:<15}   {text}" for name, text in COMMANDS.items()]
    return "\n".join(
        [
            "usage: python -m benchmarks NAME [options]; NAME --help shows them",
            "",
            *lines,
            "",
            *others,
        ]
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
