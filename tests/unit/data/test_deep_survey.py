"""Decoding every image finds what its header hides."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from listed_inputs import read_from
from odd_images import ALL, jpeg

from job import storage
from job.data.deep_survey import decode_all
from job.data.image_header import Header
from job.data.survey import survey
from job.observability.progress import Progress

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("damaged", ["quarantine", "warn"])
def test_verdicts_of_odd_images(tmp_path: Path, damaged: str) -> None:
    """Every kind of file has the verdict of a run: a header that promises pixels that are not there is corrupt.

    What libjpeg warns about is named, and used or quarantined.
    """
    for label in ("odd", "cats"):
        (tmp_path / label).mkdir()
    (tmp_path / "cats/1.jpg").write_bytes(jpeg())
    for name, kind in ALL.items():
        (tmp_path / "odd" / f"{name}.jpg").write_bytes(kind.build())
    manifest, listed = read_from(tmp_path)
    found = survey(manifest, storage.open_store, max_pixels=64_000_000, progress=Progress([]))

    decode_all(
        found,
        storage.open_store,
        image_size=32,
        refuse_damaged=damaged == "quarantine",
        progress=Progress([]),
    )

    warned_about = {name for name, kind in ALL.items() if kind.warning}
    reasons = {image.uri.rpartition("/")[2][:-4]: image.reason for image in [*listed, *found.quarantined]}
    expected = {name: kind.verdict for name, kind in ALL.items() if not isinstance(kind.verdict, Header)}
    named = {manifest.uri(row).rpartition("/")[2][:-4] for row in np.flatnonzero(found.damaged).tolist()}
    if damaged == "quarantine":
        expected |= dict.fromkeys(warned_about, "damaged")
    assert expected == reasons
    assert list(found.warnings) == np.flatnonzero(found.damaged).tolist()
    assert (warned_about if damaged == "warn" else set()) == named
    assert len(manifest) == int(found.usable.sum()) + len(found.quarantined)
    assert found.hashes is not None
    assert not found.hashes[~found.usable].any()
    assert found.hashes[found.usable].any()
