"""The manual of a command: what ``finetune COMMAND --help`` prints, and docs/cli.md quotes."""

from __future__ import annotations

import shutil
import textwrap
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from job.config import reference
from job.config.hints import did_you_mean
from job.errors import UsageError, exit_codes

if TYPE_CHECKING:
    from collections.abc import Mapping

COLUMNS = 100
"""Greatest width of a help text."""

SETTINGS_USAGE = "[--config FILE]... [--SETTING VALUE]..."

_SOURCES = """\
Settings, each overriding those before it:
  run: {seed: 7}        in a YAML file, --config FILE; of several files later ones override earlier ones
  FINETUNE_RUN__SEED=7  in the environment
  --run.seed 7          as a flag, or --run.seed=7"""


@dataclass(frozen=True, kw_only=True)
class Manual:
    """What a user must know to call a command. Texts are wrapped to the terminal.

    Attributes:
        summary: one line, for ``finetune help``.
        usage: the ways to call it, each without ``finetune COMMAND``.
        description: what it takes and does, where its result goes and how long it takes; paragraphs.
        flags: flag -> meaning, of a command with flags of its own.
        flags_title: heading of the flags: those of a group of commands are its commands.
        examples: arguments, without ``finetune COMMAND`` -> what they do.
        exit_codes: exit code, or a word -> meaning.
        settings: groups of settings that matter to it; empty if it takes none.
    """

    summary: str
    usage: tuple[str, ...]
    description: str
    flags: Mapping[str, str] = field(default_factory=dict)
    flags_title: str = "flags"
    examples: Mapping[str, str] = field(default_factory=dict)
    exit_codes: Mapping[int | str, str]
    settings: tuple[str, ...] = ()

    def overview(self, name: str, width: int = COLUMNS) -> str:
        """Return the help without the settings.

        Args:
            name: of the command.
            width: of a line, in characters.
        """
        usage = [f"{'   or: ' if number else 'usage: '}finetune {name} {how}" for number, how in enumerate(self.usage)]
        paragraphs = [textwrap.fill(text, width) for text in (self.summary, *self.description.strip().split("\n\n"))]
        examples = {f"finetune {name} {arguments}".rstrip(): meaning for arguments, meaning in self.examples.items()}
        codes = {str(code): meaning for code, meaning in self.exit_codes.items()}
        sections = [
            "\n".join(map(str.rstrip, usage)),
            *paragraphs,
            *([f"{self.flags_title}:\n{_column(self.flags, width)}"] if self.flags else []),
            *(["examples:\n" + "\n".join(_block(*example, width) for example in examples.items())] if examples else []),
            "exit codes:\n" + _column(codes, width),
        ]
        return "\n\n".join(sections)


def help_text(name: str, manual: Manual, topic: str = "") -> str:
    """Return what ``finetune COMMAND --help`` prints.

    Args:
        name: of the command.
        manual: of the command.
        topic: the word that follows ``--help``: a group of settings, whose settings alone are returned.

    Raises:
        UsageError: there is no such group.
    """
    width = min(COLUMNS, shutil.get_terminal_size().columns)
    if not manual.settings:
        return manual.overview(name, width)
    groups = reference.groups()
    if not topic:
        described = (_group(group, groups[group], width) for group in manual.settings)
        return "\n\n".join([manual.overview(name, width), _SOURCES, *described])
    group = topic.lstrip("-").partition(".")[0]
    if group not in groups:
        raise UsageError(
            f"there is no group of settings {topic!r}{did_you_mean(group, groups)}",
            remedy=f"finetune {name} --help GROUP explains one of: {', '.join(groups)}",
        )
    return _group(group, groups[group], width)


def all_codes() -> dict[int | str, str]:
    """Return the exit codes of a run, each with its meaning."""
    return {code: meaning for code, (meaning, _) in exit_codes().items()}


def all_groups() -> tuple[str, ...]:
    """Return the names of all groups of settings, in the order of the help."""
    return tuple(reference.groups())


def _group(name: str, group: reference.Group, width: int) -> str:
    settings = "\n".join(_block(f"--{row.name} {row.default}", row.meaning, width) for row in group.rows)
    return f"{name}: {group.meaning}\n{settings}"


def _block(head: str, text: str, width: int) -> str:
    """Return a line with a text below it."""
    return f"  {head}\n{textwrap.fill(text, width, initial_indent=' ' * 6, subsequent_indent=' ' * 6)}"


def _column(texts: Mapping[str, str], width: int) -> str:
    """Return a list of terms, with their texts in a column beside them."""
    indent = max(map(len, texts)) + 4
    fill = partial(textwrap.fill, width=width, subsequent_indent=" " * indent)
    return "\n".join(fill(f"  {term:{indent - 2}}{text}") for term, text in texts.items())
