"""Command-line options of the commands that are not Lightning's."""

import argparse
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
        near = get_close_matches(words[0], known, n=1) if "unrecognized" in message else []
        hint = f"did you mean {near[0]}?" if near else f"see `{self.prog} --help`"
        raise UserError(message, where=self.prog, fix=hint)
