"""The process's environment variables. No other module reads or sets them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def everything() -> Mapping[str, str]:
    """Return the process environment."""
    return os.environ


def get(name: str) -> str | None:
    """Return a variable of the process environment; None if it is not set."""
    return os.environ.get(name)


def set_default(name: str, value: str) -> None:
    """Set a variable of the process environment unless it is set already."""
    os.environ.setdefault(name, value)


def set_value(name: str, value: str) -> None:
    """Set a variable of the process environment, unless it has this value: other threads may be reading it."""
    if os.environ.get(name) != value:
        os.environ[name] = value


def for_child(**extra: str) -> dict[str, str]:
    """Return the environment for a child process: this one's, overridden by ``extra``."""
    return {**os.environ, **extra}
