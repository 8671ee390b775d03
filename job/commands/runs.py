"""``finetune runs``: the group of commands about the runs of an output."""

from __future__ import annotations

from typing import TYPE_CHECKING

from job.commands import runs_compare, runs_jobs, runs_list, runs_promote, runs_prune, runs_show
from job.commands.manual import Manual
from job.config.hints import did_you_mean
from job.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from job.commands.command import Command, CommandModule

COMMANDS: dict[str, CommandModule] = {
    "list": runs_list,
    "show": runs_show,
    "compare": runs_compare,
    "promote": runs_promote,
    "prune": runs_prune,
    "jobs": runs_jobs,
}
"""Second word -> module."""

MANUAL = Manual(
    summary="List, compare, promote and delete the runs of an output.",
    usage=("COMMAND …", "COMMAND --help"),
    description="""\
Each command is called by two words, as in finetune runs list. They read the store alone and need no TensorFlow. RUN is
the URI or folder of a run, OUTPUT_URI/runs/ID, of which a unique beginning of ID will do, or OUTPUT_URI/latest; with
--output.uri OUTPUT_URI the ID alone.
""",
    flags={name: command.MANUAL.summary for name, command in COMMANDS.items()},
    flags_title="commands",
    examples={
        "list gs://my-bucket/trained": "all runs, the newest first",
        "promote gs://my-bucket/trained/runs/flowers-0a1b2c3d4e --pin --why rollback": "serve an earlier run",
    },
    exit_codes={0: "done", 2: "the call is wrong", "others": "see the command"},
)


def parse(arguments: Sequence[str]) -> Command:
    """Report that the second word is missing or unknown: `cli` selects the command by it.

    Raises:
        UsageError: always.
    """
    name = arguments[0] if arguments else ""
    message = f"there is no command 'runs {name}'{did_you_mean(name, COMMANDS)}" if name else "runs needs a second word"
    raise UsageError(message, remedy=f"usage: finetune runs {'|'.join(COMMANDS)}; finetune runs --help explains them")
