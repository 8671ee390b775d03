"""Which run this is: a name made from the data, the settings that change the result, and the recipe's version.

So the same settings on the same data are the same run, whoever starts it (docs/adr/0003-identity-by-content.md).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from job import storage
from job.config.settings import result_settings

if TYPE_CHECKING:
    from job.config.settings import Settings
    from job.data.manifest import Manifest

RECIPE = 1
"""Raised when the same settings on the same data would give another model than before."""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What decides the result.

    Attributes:
        recipe: the version of the recipe.
        data: the manifest's digest; None where nothing was listed, so that data are not compared.
        settings: dotted name -> value, of every setting that changes the result.
    """

    recipe: int
    data: str | None
    settings: dict[str, object]

    def document(self) -> dict[str, object]:
        """Return it as plain JSON."""
        return {"recipe": self.recipe, "data": self.data, "settings": self.settings}

    @property
    def digest(self) -> str:
        """Sha256 of the whole, in hexadecimal."""
        text = json.dumps(self.document(), sort_keys=True, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def hashes(self) -> dict[str, str | None]:
        """Return the hashes that each checkpoint carries: of the settings and the recipe's version, and of the data."""
        return {"settings": dataclasses.replace(self, data=None).digest, "data": self.data}

    def differences(self, other: dict[str, object]) -> list[str]:
        """Return a line for everything in which the document of another identity differs."""
        theirs = other.get("settings")
        before = theirs if isinstance(theirs, dict) else {}
        lines = [
            f"{key} is {self.settings.get(key)!r}, and was {before.get(key)!r}"
            for key in sorted({*self.settings, *before})
            if self.settings.get(key) != before.get(key)
        ]
        if self.data not in (None, other.get("data")):
            lines.append("the data are others (names, sizes, checksums or labels)")
        if self.recipe != other.get("recipe"):
            lines.append(f"the recipe's version is {self.recipe}, and was {other.get('recipe')!r}")
        return lines


def identify(settings: Settings, manifest: Manifest | None = None) -> Identity:
    """Return the identity of a run on the listed data, or as much of it as the settings tell.

    Weights from a file are known by their content: the same path with other bytes is another run.
    """
    chosen = result_settings(settings)
    weights = settings.model.weights
    if weights not in ("imagenet", "none"):
        folder, _, name = weights.rpartition("/")
        found = storage.open_store(folder or "/").stat(name)
        chosen["model.weights"] = f"{found.size}:{found.crc32c:08x}" if found else weights
    return Identity(recipe=RECIPE, data=manifest.digest() if manifest else None, settings=chosen)


def run_name(identity: Identity, input_uri: str) -> str:
    """Return the default run id: the input's last name, and the identity's first ten digits."""
    stem = PurePosixPath(input_uri.removeprefix("gs://")).stem if input_uri else "demo"
    slug = re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")[:40] or "run"
    return f"{slug}-{identity.digest[:10]}"
