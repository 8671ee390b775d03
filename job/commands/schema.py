"""``finetune schema``: print the JSON Schema of the settings file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from job.commands.command import Command, printing
from job.config import reference
from job.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence

SUMMARY = "Print the JSON Schema of the settings file."


def help_text(_: str = "") -> str:
    """Return what ``finetune schema --help`` prints."""
    return f"usage: finetune schema\n\n{SUMMARY}\n"


def parse(arguments: Sequence[str]) -> Command:
    """Return the command.

    Raises:
        SettingsError: there are arguments.
    """
    if arguments:
        raise SettingsError(f"finetune schema takes no arguments, got {arguments[0]!r}", remedy="leave it out")
    return printing(json.dumps(reference.json_schema(), indent=2))
