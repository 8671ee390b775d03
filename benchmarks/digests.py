"""Whether two models are the same, to the bit: for benchmarks, tests and `make soak`."""

from __future__ import annotations

import hashlib
import io
import zipfile
from typing import TYPE_CHECKING

import h5py
import numpy as np

if TYPE_CHECKING:
    from pathlib import Path


def arrays_sha256(model: Path) -> str:
    """Return the sha256 over all arrays of a .keras file, with their names and types.

    The file itself differs from run to run: the archive holds the time.
    """
    sha256 = hashlib.sha256()

    def update(name: str, item: h5py.Dataset | h5py.Group) -> None:
        if isinstance(item, h5py.Dataset):
            array = np.asarray(item)
            sha256.update(f"{name} {array.dtype} {array.shape}\n".encode() + array.tobytes())

    with zipfile.ZipFile(model) as archive, h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as file:
        file.visititems(update)
    return sha256.hexdigest()
