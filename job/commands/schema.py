"""``finetune schema``: print the JSON Schema of the settings file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from job.commands.command import Command, printing
from job.commands.manual import Manual
from job.config import reference
from job.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence

MANUAL = Manual(
    summary="Print the JSON Schema of the settings file.",
    usage=("",),
    description="""\
It names every setting with its type, default, choices and meaning, for editors that complete and check YAML. It is
printed to stdout within a second.
""",
    examples={"> finetune.schema.json": "into a file, which an editor can be pointed at"},
    exit_codes={0: "printed", 2: "it was called with arguments"},
)


def parse(arguments: Sequence[str]) -> Command:
    """Return the command.

    Raises:
        SettingsError: there are arguments.
    """
    if arguments:
        found = ", ".join(map(repr, arguments))
        raise SettingsError(f"finetune schema takes no arguments, got {found}", remedy="leave them out")
    return printing(json.dumps(reference.json_schema(), indent=2))
