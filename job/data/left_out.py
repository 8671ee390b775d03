"""What of an input is not used: litter, files that the settings exclude, images without a class, empty folders.

Each is counted while the input is listed, and reported once.
"""

from __future__ import annotations

import fnmatch
import re
from typing import TYPE_CHECKING

from job.data.litter import has_table_suffix, is_image_ignored, is_litter
from job.observability import log

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_SHOWN = 3


class Examples:
    """Counts names and keeps the first three as examples.

    Attributes:
        count: the names.
        examples: the first of them, as text that UTF-8 can encode.
    """

    def __init__(self) -> None:
        self.count = 0
        self.examples: list[str] = []

    def add(self, name: str) -> None:
        """Count a name."""
        self.count += 1
        if self.count <= _SHOWN:
            self.examples.append(log.printable(name))

    def __str__(self) -> str:
        return f"{self.count:,}" + (
            f" ({', '.join(self.examples)}{', …' * (self.count > _SHOWN)})" if self.count else ""
        )


class Litter(Examples):
    """Counts the files that tools leave behind.

    Attributes:
        images: those among them that are called like images, but for copies that tools make.
        tables: those that may hold labels.
    """

    def __init__(self) -> None:
        super().__init__()
        self.images, self.tables = Examples(), Examples()

    def add(self, name: str) -> None:
        """Count a file."""
        super().add(name)
        if is_image_ignored(name):
            self.images.add(name)
        elif has_table_suffix(name):
            self.tables.add(name)

    def report(self, images: int) -> None:
        """Log the counts; warn where more than one file in a hundred that is called like an image is ignored.

        Args:
            images: the number that is used.
        """
        if self.count:
            log.get().info("input.files_ignored", files=self.count, examples=self.examples)
        if self.images.count > 0.01 * (images + self.images.count):
            log.get().warning("input.images_ignored", images=self.images.count, examples=self.images.examples)


class Patterns:
    """The patterns of names that the settings exclude, and what they matched.

    Args:
        patterns: as in a shell, but ``*`` matches slashes, too. One that matches a folder excludes all below it.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        self._matched = {pattern: Examples() for pattern in patterns}
        self._expressions = [(pattern, _compile(pattern)) for pattern in patterns]

    def find(self, name: str) -> str | None:
        """Return the first pattern that excludes a name."""
        return next((pattern for pattern, expression in self._expressions if expression.match(name)), None)

    def exclude(self, name: str) -> bool:
        """Return whether a name is excluded, and count it."""
        if (pattern := self.find(name)) is not None:
            self._matched[pattern].add(name)
        return pattern is not None

    @property
    def count(self) -> int:
        """The names that were excluded."""
        return sum(found.count for found in self._matched.values())

    def report(self) -> None:
        """Log what was excluded; warn of patterns that matched nothing more than others before them did."""
        if self.count:
            counts = {pattern: found.count for pattern, found in self._matched.items() if found.count}
            log.get().info("input.excluded", files=self.count, by_pattern=counts)
        if unused := [pattern for pattern, found in self._matched.items() if not found.count]:
            log.get().warning("input.exclude_unused", patterns=unused)


def _compile(pattern: str) -> re.Pattern[str]:
    translated = fnmatch.translate(pattern.strip("/")).removesuffix(r"\Z").removesuffix(r"\z")
    return re.compile(rf"{translated}(?:/.*)?\Z", re.DOTALL)


class EmptyFolders:
    """Collects the folders that a store has, to report those that would be classes and hold no image.

    Args:
        excluded: folders that are left out are not reported.
    """

    def __init__(self, excluded: Patterns) -> None:
        self._excluded = excluded
        self._folders: set[str] = set()

    def add(self, name: str) -> None:
        """Record a folder.

        Args:
            name: relative to the input, without a slash at its end.
        """
        if name.count("/") < 2 and not is_litter(f"{name}/1.jpg") and self._excluded.find(name) is None:
            self._folders.add(name)

    def report(self, names: Iterable[str], depth: int) -> None:
        """Warn of the folders without an image.

        Args:
            names: of the images.
            depth: levels of folders down to the classes, 1 or 2.
        """
        used: set[str] = set()
        for name in names:
            folders = name.split("/", depth)[:-1]
            used.update("/".join(folders[: level + 1]) for level in range(len(folders)))
        if empty := sorted(name for name in self._folders - used if name.count("/") < depth):
            log.get().warning("input.folders_empty", folders=len(empty), examples=[*map(log.printable, empty[:5])])
