"""The data that a run trains on, as its first start listed them and its pass over the data found them.

They are saved with the checkpoints: as listed before the first download, and again once the pass has found out which
images are usable. Later starts use them instead of listing again, so images that are added meanwhile change nothing.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from job.data import manifest as manifests
from job.data.quarantine import Quarantined

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from job.data.manifest import Manifest


@dataclass(frozen=True, kw_only=True)
class Data:
    """The images that a run trains on.

    Attributes:
        listed: every listed image. Row numbers are significant: features are computed over fixed ranges of rows.
        usable: bool [listed]; None until the pass over the data is over.
        hashes: uint64 [listed], of what the images show; None until the pass over the data is over.
        quarantined: the images found unusable so far: while listing and, if the pass is over, in it.
    """

    listed: Manifest
    usable: NDArray[np.bool_] | None = None
    hashes: NDArray[np.uint64] | None = None
    quarantined: list[Quarantined]

    def relocated(self, listing: Data) -> Data:
        """Return these data where a new listing found them: the same names and bytes, perhaps stored elsewhere.

        Args:
            listing: of the same digest.
        """
        if self.usable is None:  # nothing has been decided yet, and unusable files may have been removed
            return listing
        old, new = self.listed, listing.listed
        if old.roots == new.roots and np.array_equal(old.generation, new.generation):
            return self
        unusable = np.flatnonzero(~self.usable).tolist()
        new_uri = {old.uri(row): new.uri(row) for row in unusable}
        in_pass = [
            dataclasses.replace(image, uri=new_uri[image.uri]) for image in self.quarantined if image.uri in new_uri
        ]
        return Data(listed=new, usable=self.usable, hashes=self.hashes, quarantined=listing.quarantined + in_pass)

    def pack(self) -> dict[str, NDArray[Any]]:
        """Return the data as plain arrays, for `unpack`."""
        quarantined = json.dumps([dataclasses.asdict(image) for image in self.quarantined]).encode()
        optional = {"usable": self.usable, "hashes": self.hashes}
        found = {name: array for name, array in optional.items() if array is not None}
        return {**manifests.pack(self.listed), **found, "quarantined": np.frombuffer(quarantined, np.uint8)}

    @classmethod
    def unpack(cls, arrays: dict[str, NDArray[Any]]) -> Data:
        """Return the data from the arrays of `pack`.

        Raises:
            ValueError, KeyError, TypeError: the arrays are not those of `pack`.
        """
        return cls(
            listed=manifests.unpack(arrays),
            usable=arrays.get("usable"),
            hashes=arrays.get("hashes"),
            quarantined=[Quarantined(**image) for image in json.loads(arrays["quarantined"].tobytes())],
        )
