"""Command-line options of the commands that are not Lightning's."""

import argparse
import math
from difflib import get_close_matches
from typing import NoReturn

from typing_extensions import override

from cardiac_mtl.errors import UserError


class OptionParser(argparse.ArgumentParser):
    """An argument parser whose mistakes are one line, as all of ours are."""

    @override
    def error(self, message: str) -> NoReturn:
        known = list(self._option_string_actions)
        words = [word for word in message.split() if word.startswith("--")]
        near = (
            get_close_matches(words[0], known, n=1) if words and "unrecognized" in message else []
        )
        hint = f"did you mean {near[0]}?" if near else f"see `{self.prog} --help`"
        raise UserError(message, where=self.prog, fix=hint)


def positive(text: str) -> int:
    """Read a whole number above 0, for `type` of an option."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return int(text)


def seed(text: str) -> int:
    """Read a whole number from 0 to 2^32 - 1, which is what numpy takes."""
    if not text.isdecimal() or int(text) >= 1 << 32:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 0 to 4294967295")
    return int(text)


def distance(text: str) -> float:
    """Read a length in mm, 0 or more."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a distance in mm")
    return value
