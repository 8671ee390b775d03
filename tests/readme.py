"""The commands and the code that the README shows."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")

PROGRAMS = ("apt-get", "docker", "finetune", "helm", "kubectl", "make", "pip", "python")
"""What a command in running text begins with."""


def commands() -> list[str]:
    """Return every command line of the README: of its code blocks and of its running text.

    Continued lines are joined, and comments and the output below a ``$ COMMAND`` are left out.
    """
    found = [line for block in code("sh") for line in _lines(block)]
    prose = re.sub(r"^```.*?^```", "", TEXT, flags=re.MULTILINE | re.DOTALL)
    for block in re.findall(r"(?:^    .*\n)+", prose, re.MULTILINE):
        lines = list(_lines(block))
        if lines[0].startswith("$ "):
            found += [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        elif " -> " not in block:
            found += lines
    found += [
        span for span in re.findall(r"`([^`\n]+)`", prose) if span.startswith(tuple(f"{name} " for name in PROGRAMS))
    ]
    return list(dict.fromkeys(found))


def code(language: str) -> list[str]:
    """Return the fenced blocks of code in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def command(start: str) -> str:
    """Return the one command that begins like this."""
    [found] = [line for line in commands() if line.startswith(start)]
    return found


def _lines(block: str) -> Iterator[str]:
    for line in re.sub(r"\\\n\s*", "", block).splitlines():
        if text := re.sub(r"(^|\s+)# .*", "", line).strip():
            yield text
