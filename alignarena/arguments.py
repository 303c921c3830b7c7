"""How the command line reads its arguments."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

from alignarena.core.errors import BadInput, nearest


class Parser(argparse.ArgumentParser):
    """argparse with errors of one line that name the nearest valid word."""

    def error(self, message: str) -> NoReturn:
        """Raise what ends the command with one line."""
        raise BadInput(f"{message} (see {self.prog} --help)")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            known = nearest(str(value), map(str, action.choices))
            raise argparse.ArgumentError(None, f"unknown {action.dest} {value!r}{known}")


def names(text: str) -> list[str]:
    """Read ``a,b``."""
    found = [name.strip() for name in text.split(",") if name.strip()]
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} names nothing; write a,b")
    return found


def seeds(text: str) -> list[int]:
    """Read ``0,1``."""
    try:
        return [int(seed) for seed in names(text)]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of whole numbers such as 0,1") from None


def setting(text: str) -> tuple[str, str]:
    """Read ``KEY=VALUE``."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE, such as method.dpo.beta=0.3")
    return key, value
