"""Reads the settings' values from their sources: a YAML file, environment variables, flags.

Every value is text here; the type of its setting is applied later. This avoids the surprises of YAML 1.1 (``no`` is
false, ``0123`` is 83, ``1e-4`` is a string), and one spelling works in all three sources. Mistakes are collected, not
raised, so that users see all of them at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import yaml

from job.config.hints import did_you_mean, hint, similar
from job.config.presets import PRESETS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

Origin = Literal["default", "preset", "file", "environment", "flag"]

Kind = Literal["text", "switch", "list", "other"]
"""An empty value is valid for a text; for a switch (true or false) and all others it counts as not set. A list is one
text with commas or, in a file, a YAML list."""

PREFIX = "FINETUNE_"

_NULL = "tag:yaml.org,2002:null"


class RawValue(NamedTuple):
    """The unparsed value of a setting.

    Attributes:
        text: the value.
        origin: the kind of source.
        where: the exact source, for messages: a file and line, a variable or a flag.
    """

    text: str
    origin: Origin
    where: str


@dataclass
class Sources:
    """The values from the three sources; later sources override earlier ones.

    Args:
        kinds: dotted name -> kind, for every setting.

    Attributes:
        raw: setting -> its effective value.
        mistakes: a line for each.
    """

    kinds: Mapping[str, Kind]
    raw: dict[str, RawValue] = field(default_factory=dict)
    mistakes: list[str] = field(default_factory=list)

    def read(self, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        """Read the files named by ``--config``, in their order, then the environment, then the other flags."""
        flags = list(self._split(arguments))
        for name, text in flags:
            if name == "config":
                self._read_file(Path(text))
        self._read_environment(environment)
        for name, text in flags:
            if name != "config":
                self.raw[name] = RawValue(text, "flag", f"flag --{name}")

    def _mistake(self, where: str, problem: str) -> None:
        self.mistakes.append(f"{where}: {problem}")

    def _unknown(self, name: str, names: Iterable[str]) -> str:
        if below := [known for known in self.kinds if known.startswith(f"{name}.")]:
            return f"{name!r} is a group of settings{hint(name, ()) or ': ' + ', '.join(below)}"
        return f"unknown setting {name!r}{hint(name, names)}"

    def apply_preset(self) -> None:
        """Add the settings of the preset that was chosen, where no source has them. An unknown preset adds none."""
        chosen = self.raw["preset"].text if "preset" in self.raw else "none"
        for name, text in PRESETS.get(chosen, {}).items():
            self.raw.setdefault(name, RawValue(text, "preset", f"preset {chosen}"))

    # Flags

    def _split(self, arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Yield (name, text) for each ``--name text``, ``--name=text`` and, for a switch, ``--name`` alone."""
        remaining = list(arguments)
        while remaining:
            argument = remaining.pop(0)
            name, equals, value = argument.removeprefix("--").partition("=")
            if not argument.startswith("--") or not name:
                self._mistake(
                    f"argument {argument!r}", f"every setting is a flag, such as --run.seed 7{self._flag(argument)}"
                )
                if argument.startswith("-") and not equals and remaining and not remaining[0].startswith("-"):
                    remaining.pop(0)  # its value: one mistake is enough
                continue
            text: str | None = value if equals else None
            # A value may begin with one dash (-1); two dashes begin the next flag.
            if text is None and remaining and not remaining[0].startswith("--"):
                text = remaining.pop(0)
            kind = "other" if name == "config" else self.kinds.get(name)
            if text is None and kind == "switch":
                text = "true"
            if kind is None:
                self._mistake(f"flag --{name}", self._unknown(name, [*self.kinds, "config"]))
            elif text or (text is not None and kind == "text"):
                yield name, text
            else:
                self._mistake(f"flag --{name}", f"needs a value, as in --{name}=VALUE")

    def _flag(self, argument: str) -> str:
        """Return a suggestion for an argument that is not a flag."""
        name = argument.lstrip("-").partition("=")[0]
        if name in self.kinds:
            return f": did you mean --{argument.lstrip('-')}?"
        if argument.startswith("-") or "=" in argument:
            return hint(name, ())
        if argument.startswith("gs://") or Path(argument).exists():
            return f": did you mean --input.uri {argument}?"
        return ""

    # Environment

    def _read_environment(self, environment: Mapping[str, str]) -> None:
        known = {variable(name): name for name in self.kinds}
        # A name with a single underscore, such as FINETUNE_INPUT_URI, is not a setting, but surely meant as one.
        single_underscore = {name.replace("__", "_"): name for name in known}
        for name, text in sorted(environment.items()):
            if name in known:
                if text or self.kinds[known[name]] == "text":
                    self.raw[known[name]] = RawValue(text, "environment", f"variable {name}")
            elif name in single_underscore:
                self._mistake(f"variable {name}", f"unknown setting: did you mean {single_underscore[name]}?")
            elif name.upper().startswith(PREFIX) and "__" in name:
                # Compared without what all variables have in common.
                nearest = similar(name.upper().removeprefix(PREFIX).lower().replace("__", "."), self.kinds)
                meant = " or ".join(map(variable, nearest))
                self._mistake(f"variable {name}", f"unknown setting{f': did you mean {meant}?' if meant else ''}")

    # File

    def _read_file(self, path: Path) -> None:
        try:
            root = yaml.compose(path.read_bytes(), Loader=yaml.SafeLoader)
        except OSError as error:
            self._mistake(f"flag --config={path}", f"cannot be read: {error.strerror}")
        except yaml.MarkedYAMLError as error:
            line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
            self._mistake(f"{path}{line}", f"is not YAML: {error.problem or error.context}")
        except (yaml.YAMLError, RecursionError) as error:
            self._mistake(str(path), f"is not YAML: {error}")
        else:
            if isinstance(root, yaml.MappingNode):
                self._read_mapping(root, path, "", set())
            elif root is not None and root.tag != _NULL:
                self._mistake(str(path), "expected groups of settings, such as 'run: {seed: 7}'")

    def _read_mapping(self, node: yaml.MappingNode, path: Path, prefix: str, seen: set[str]) -> None:
        """Read the settings of one mapping. A null means the default, as does an empty value unless it is a text."""
        groups = {name.partition(".")[0] for name in self.kinds if "." in name}
        for key, value in node.value:
            where = f"{path}, line {key.start_mark.line + 1}"
            name = f"{prefix}{key.value}"
            is_group = isinstance(value, yaml.MappingNode)
            if not isinstance(key, yaml.ScalarNode):
                self._mistake(where, "expected the name of a setting or a group")
            elif name in seen:
                self._mistake(where, f"{name!r} is given twice")
            elif is_group and name in groups:
                self._read_mapping(value, path, f"{name}.", seen)
            elif is_group and name not in self.kinds:
                self._mistake(where, f"unknown group of settings {name!r}{did_you_mean(name, groups)}")
            elif name not in self.kinds and not (name in groups and value.tag == _NULL):
                self._mistake(where, self._unknown(name, self.kinds))
            elif isinstance(value, yaml.SequenceNode) and self.kinds[name] == "list":
                self._read_list(value, name, where)
            elif not isinstance(value, yaml.ScalarNode):
                self._mistake(where, f"{name!r} takes one value, not a {value.id}")
            elif value.tag != _NULL and (value.value or self.kinds[name] == "text"):
                self.raw[name] = RawValue(value.value, "file", where)
            seen.add(name)

    def _read_list(self, node: yaml.SequenceNode, name: str, where: str) -> None:
        texts = [item.value if isinstance(item, yaml.ScalarNode) and item.tag != _NULL else "," for item in node.value]
        if any(not text.strip() or "," in text for text in texts):
            self._mistake(where, f"{name!r}: each value of the list must be a text without commas")
        elif texts:
            self.raw[name] = RawValue(",".join(texts), "file", where)


def variable(name: str) -> str:
    """Return the environment variable of a setting: ``FINETUNE_INPUT__URI``; ``FINETUNE__KEEP`` without a group.

    The double underscore distinguishes settings from the variables that Kubernetes sets for a Service named
    ``finetune`` (``FINETUNE_PORT=…``).
    """
    return PREFIX + (name.replace(".", "__") if "." in name else f"_{name}").upper()
