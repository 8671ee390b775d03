"""A run's identity: a hash of the data, the settings that change the result, and the recipe's version.

Runs are identified by content: the same settings on the same data are the same run, no matter which process starts it
(docs/adr/0003-identity-by-content.md).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from job.config.settings import result_settings
from job.runs import published
from job.runs.download import manifest_sha256

if TYPE_CHECKING:
    from job.config.settings import Settings
    from job.data.manifest import Manifest
    from job.storage import OpenStore

RECIPE = 1
"""Version of the recipe. Increment it when a change produces a different model from the same settings and data."""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Everything that determines the result.

    Attributes:
        recipe: the version of the recipe.
        data: the manifest's digest; None if the data were not listed, and are not compared.
        settings: dotted name -> value of every setting that changes the result.
    """

    recipe: int
    data: str | None
    settings: dict[str, object]

    def document(self) -> dict[str, object]:
        """Return the identity as plain JSON."""
        return {"recipe": self.recipe, "data": self.data, "settings": self.settings}

    @property
    def digest(self) -> str:
        """SHA-256 of the document, in hexadecimal."""
        text = json.dumps(self.document(), sort_keys=True, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def hashes(self) -> dict[str, str | None]:
        """Return the hashes stored in each checkpoint: of the settings and the recipe's version, and of the data."""
        return {"settings": dataclasses.replace(self, data=None).digest, "data": self.data}

    def differences(self, other: dict[str, object]) -> list[str]:
        """Return one line for each difference from the document of another identity."""
        other_settings = other.get("settings")
        previous = other_settings if isinstance(other_settings, dict) else {}
        lines = [
            f"{key} is {self.settings.get(key)!r}, and was {previous.get(key)!r}"
            for key in sorted({*self.settings, *previous})
            if self.settings.get(key) != previous.get(key)
        ]
        if self.data not in (None, other.get("data")):
            lines.append("the data differ (names, sizes, checksums, labels, splits or groups)")
        if self.recipe != other.get("recipe"):
            lines.append(f"the recipe's version is {self.recipe}, and was {other.get('recipe')!r}")
        return lines


def identify(settings: Settings, open_store: OpenStore, manifest: Manifest | None = None) -> Identity:
    """Return the identity of a run; without a manifest, the part that the settings determine.

    Weights from a file are identified by size and checksum: the same path with different bytes is a different run. The
    model of a warm start is identified by the checksum of its run's manifest. `latest` is not: a run that becomes the
    latest itself would otherwise be trained again, from its own result, by every start.

    Raises:
        errors.DataError: the run of a warm start is not there.
    """
    values = result_settings(settings)
    weights = settings.model.weights
    if settings.model.is_warm_start:
        if weights.rpartition("/")[2] != published.LATEST:
            values["model.weights"] = manifest_sha256(published.open_warm_start(settings, open_store))
    elif weights not in ("imagenet", "none"):
        folder, _, name = weights.rpartition("/")
        info = open_store(folder or "/").stat(name)
        values["model.weights"] = f"{info.size}:{info.crc32c:08x}" if info else weights
    return Identity(recipe=RECIPE, data=manifest.digest() if manifest is not None else None, settings=values)


def default_run_id(identity: Identity, input_uri: str) -> str:
    """Return the last component of the input URI as a slug, and the first ten digits of the identity's digest."""
    stem = PurePosixPath(input_uri.removeprefix("gs://")).stem if input_uri else "demo"
    slug = re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")[:40] or "run"
    return f"{slug}-{identity.digest[:10]}"
