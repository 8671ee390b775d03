"""Headers are read from the first bytes of each image, with the same verdicts as in a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from listed_inputs import read_from
from odd_images import ALL, jpeg, segment

from job import storage
from job.data import survey as surveys
from job.data.image_header import Header
from job.data.survey import FORMATS, survey
from job.observability.progress import Progress

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

PIXELS = 64_000_000


def test_verdicts_of_odd_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every kind of file has the header, or the reason, that the gate of a run gives to all its bytes."""
    monkeypatch.setattr(surveys, "HEAD_BYTES", 64)
    (tmp_path / "odd").mkdir()
    (tmp_path / "cats").mkdir()
    (tmp_path / "cats/1.jpg").write_bytes(jpeg())
    for name, kind in ALL.items():
        (tmp_path / "odd" / f"{name}.jpg").write_bytes(kind.build())
    manifest, listed = read_from(tmp_path)

    found = survey(manifest, storage.open_store, max_pixels=PIXELS, progress=Progress([]))

    reasons = {image.uri.rpartition("/")[2][:-4]: image.reason for image in [*listed, *found.quarantined]}
    assert {name: kind.header for name, kind in ALL.items() if not isinstance(kind.header, Header)} == reasons
    for row in np.flatnonzero(found.usable):
        name = manifest.names[row].rpartition("/")[2][:-4]
        if name in ALL:
            header = ALL[name].header
            assert isinstance(header, Header)
            size = int(found.width[row]), int(found.height[row])
            assert (header.format, (header.width, header.height)) == (FORMATS[found.format[row]], size), name


def test_only_the_first_bytes_are_read(tmp_path: Path) -> None:
    """A large image is not downloaded, unless its header is longer than what was read."""
    plain = jpeg() + bytes(1_000_000)
    thumbnail = b"".join(segment(0xE2, bytes(60_000)) for _ in range(3))
    long_header = jpeg()[:2] + thumbnail + jpeg()[2:]
    for name, data in {"cats/plain.jpg": plain, "dogs/long.jpg": long_header}.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(data)
    manifest, _ = read_from(tmp_path)

    found = survey(manifest, storage.open_store, max_pixels=PIXELS, progress=Progress([]))

    assert found.usable.all()
    assert 2 * surveys.HEAD_BYTES + len(long_header) == found.read_bytes


def test_lost_objects(tmp_path: Path) -> None:
    """An image that is gone since the listing is unusable, with the reason."""
    for name in ("cats/1.jpg", "dogs/1.jpg"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(jpeg())
    manifest, _ = read_from(tmp_path)
    (tmp_path / "dogs/1.jpg").unlink()

    found = survey(manifest, storage.open_store, max_pixels=PIXELS, progress=Progress([]))

    assert [("missing", "dogs")] == [(image.reason, image.label) for image in found.quarantined]
    assert [True, False] == found.usable.tolist()
