"""The folders of an input as they were found: the counts of their images, and a drawing for messages."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from job.observability import log

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

DEPTH = 4
"""Levels of folders that are told apart; what lies deeper counts for the folder at this level."""

_SHOWN_FOLDERS, _SHOWN_BELOW = 12, 6


@dataclass
class Folder:
    """A folder with images in it or below it.

    Attributes:
        images: the images directly in it.
        total: those below it as well.
        folders: name -> folder in it, sorted by name.
    """

    images: int = 0
    total: int = 0
    folders: dict[str, Folder] = field(default_factory=dict)

    @classmethod
    def of(cls, names: Iterable[str]) -> Folder:
        """Return the root folder of images.

        Args:
            names: relative to the root. An empty part, as two slashes make it, is no folder: no tool shows it as one.
        """
        root = cls()
        for path, count in sorted(Counter(name.rpartition("/")[0] for name in names).items()):
            folder = root
            folder.total += count
            for part in path.split("/", DEPTH)[:DEPTH] if path else ():
                if not part:
                    break
                folder = folder.folders.setdefault(part, cls())
                folder.total += count
            folder.images += count
        return root

    @property
    def is_flat(self) -> bool:
        """Whether most of its images lie directly in it."""
        return 2 * self.images > self.total

    def draw(self) -> str:
        """Return two levels of folders with their counts, a line for each folder of the first."""
        lines = [f"{self.images:,} images outside folders"] if self.images else []
        shown = list(self.folders.items())[:_SHOWN_FOLDERS]
        width = max((len(_printed(name)) for name, _ in shown), default=0)
        lines += [f"{_printed(name):{width}}  {folder.total:,} images{folder.draw_below()}" for name, folder in shown]
        if more := len(self.folders) - len(shown):
            lines.append(f"and {more:,} folders more")
        return "".join(f"\n  {line}" for line in lines)

    def draw_below(self) -> str:
        """Return the folders in it with their counts, on one line."""
        if not self.folders:
            return ""
        shown = [f"{_printed(name)} {folder.total:,}" for name, folder in self.folders.items()][:_SHOWN_BELOW]
        more = len(self.folders) - len(shown)
        return f": {', '.join(shown)}{f' and {more:,} folders more' if more else ''}" + (
            f", and {self.images:,} beside these" if self.images else ""
        )

    def walk(self, above: str = "") -> Iterator[tuple[str, Folder]]:
        """Yield the path of each folder in it, with a trailing slash, and the folder; those above first."""
        for name, folder in self.folders.items():
            yield f"{above}{name}/", folder
            yield from folder.walk(f"{above}{name}/")


def _printed(name: str) -> str:
    return log.printable(f"{name}/")
