"""Where settings are written down: a YAML file, environment variables, flags.

Every value is text here; the type of its setting decides later what the text means. So the surprises of YAML 1.1
(``no`` is false, ``0123`` is 83, ``1e-4`` is a string) do not exist, and one spelling works in all three sources.
Mistakes are collected, not raised: a user wants to see all of them at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from difflib import SequenceMatcher
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

Origin = Literal["default", "file", "environment", "flag"]

Kind = Literal["text", "switch", "other"]
"""What an empty value means: itself for a text; for a switch (true or false) and for all others, nothing given."""

PREFIX = "FINETUNE_"

_NULL = "tag:yaml.org,2002:null"


class Given(NamedTuple):
    """One setting as it was written down.

    Attributes:
        text: the value.
        origin: the kind of source.
        where: the source as a user knows it, for messages: a file and line, a variable or a flag.
    """

    text: str
    origin: Origin
    where: str


@dataclass
class Sources:
    """What the three sources say, the later one over the earlier.

    Args:
        kinds: every setting's dotted name, and its kind.

    Attributes:
        given: setting -> what was written last.
        mistakes: a line for everything that could not be understood.
    """

    kinds: Mapping[str, Kind]
    given: dict[str, Given] = field(default_factory=dict)
    mistakes: list[str] = field(default_factory=list)

    def read(self, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        """Read the file that the flag ``--config`` names, then the environment, then the other flags."""
        flags = list(self._split(arguments))
        if files := [text for name, text in flags if name == "config"]:
            self._read_file(Path(files[-1]))
        self._read_environment(environment)
        for name, text in flags:
            if name != "config":
                self.given[name] = Given(text, "flag", f"flag --{name}")

    def _mistake(self, where: str, what: str) -> None:
        self.mistakes.append(f"{where}: {what}")

    def _unknown(self, name: str, names: Iterable[str]) -> str:
        if below := [known for known in self.kinds if known.startswith(f"{name}.")]:
            return f"{name!r} is a group of settings: {', '.join(below)}"
        return f"unknown setting {name!r}{did_you_mean(name, names)}"

    # Flags

    def _split(self, arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Yield (name, text) for each ``--name text``, ``--name=text`` and, for a switch, ``--name`` alone."""
        rest = list(arguments)
        while rest:
            argument = rest.pop(0)
            name, equals, after = argument.removeprefix("--").partition("=")
            if not argument.startswith("--") or not name:
                meant = f": did you mean --{argument.lstrip('-')}?" if name.lstrip("-") in self.kinds else ""
                self._mistake(f"argument {argument!r}", f"every setting is a flag, such as --run.seed 7{meant}")
                continue
            text: str | None = after if equals else None
            # A value may begin with one dash (-1), not with two: that is the next flag.
            if text is None and rest and not rest[0].startswith("--"):
                text = rest.pop(0)
            kind = "other" if name == "config" else self.kinds.get(name)
            if text is None and kind == "switch":
                text = "true"
            if kind is None:
                self._mistake(f"flag --{name}", self._unknown(name, [*self.kinds, "config"]))
            elif text or (text is not None and kind == "text"):
                yield name, text
            else:
                self._mistake(f"flag --{name}", f"needs a value, as in --{name}=VALUE")

    # Environment

    def _read_environment(self, environment: Mapping[str, str]) -> None:
        known = {variable(name): name for name in self.kinds}
        # With one underscore a name is no setting, but whoever writes FINETUNE_INPUT_URI means one.
        misspelt = {name.replace("__", "_"): name for name in known}
        for name, text in sorted(environment.items()):
            if name in known:
                if text or self.kinds[known[name]] == "text":
                    self.given[known[name]] = Given(text, "environment", f"variable {name}")
            elif name in misspelt:
                self._mistake(f"variable {name}", f"unknown setting: did you mean {misspelt[name]}?")
            elif name.upper().startswith(PREFIX) and "__" in name:
                self._mistake(f"variable {name}", f"unknown setting{did_you_mean(name, known)}")

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
        """Take the settings out of one mapping; a null, or nothing where a text makes no sense, means the default."""
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
            elif name not in self.kinds and not (name in groups and value.tag == _NULL):
                self._mistake(where, self._unknown(name, groups if is_group else self.kinds))
            elif not isinstance(value, yaml.ScalarNode):
                self._mistake(where, f"{name!r} takes one value, not a {value.id}")
            elif value.tag != _NULL and (value.value or self.kinds[name] == "text"):
                self.given[name] = Given(value.value, "file", where)
            seen.add(name)


def variable(name: str) -> str:
    """Return the environment variable of a setting: ``FINETUNE_INPUT__URI``; ``FINETUNE__KEEP`` for one without group.

    The double underscore is what tells a setting from the variables that Kubernetes makes for a Service that is
    called ``finetune`` (``FINETUNE_PORT=…``).
    """
    return PREFIX + (name.replace(".", "__") if "." in name else f"_{name}").upper()


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return ": did you mean …?" with the nearest of the names; empty where none is near.

    The last part of a dotted name is enough: ``--epochs`` means that of either stage.
    """
    wanted = name.lower().replace("-", "_")
    scores = {
        known: max(SequenceMatcher(None, wanted, part.lower()).ratio() for part in (known, known.rpartition(".")[2]))
        for known in names
    }
    best = max(scores.values(), default=0.0)
    nearest = [known for known, score in scores.items() if score == best]
    return f": did you mean {' or '.join(nearest[:3])}?" if best > 0.5 else ""
