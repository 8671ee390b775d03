"""Decodes every image of a survey, as the pass of a run does: what only shows then is found."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from job import storage
from job.data import decode, image_header
from job.data.duplicates import perceptual_hash
from job.data.quarantine import Quarantined, UnreadableImage
from job.data.sources import Sources

if TYPE_CHECKING:
    from job.data.survey import Survey
    from job.observability.progress import Progress
    from job.storage import OpenStore

THREADS = 4
"""Images decoded at a time: TensorFlow's kernels release the interpreter's lock."""


class Effort(NamedTuple):
    """What the decoding of all images took.

    Attributes:
        seconds: from the first request to the last image.
        cpu_seconds: of all threads.
    """

    seconds: float
    cpu_seconds: float


def decode_all(
    survey: Survey, open_store: OpenStore, *, image_size: int, refuse_damaged: bool, progress: Progress
) -> Effort:
    """Download and decode every image with a usable header; those that fail join the survey's quarantine.

    The survey's `hashes`, `damaged` and `warnings` are set.

    Args:
        survey: the headers.
        open_store: opens the stores.
        image_size: height and width of the decoded pixels.
        refuse_damaged: whether a JPEG that libjpeg warns about fails (`input.damaged`).
        progress: receives the events.

    Returns:
        What it took; import TensorFlow before, or its import counts.

    Raises:
        errors.AccessError: the store denies access.
        errors.UnavailableError: it does not respond, after all retries.
    """
    manifest, rows = survey.manifest, np.flatnonzero(survey.usable)
    started, cpu_started = time.monotonic(), time.process_time()
    survey.hashes = np.zeros(len(manifest), np.uint64)

    def check(row: int, data: bytes | storage.LostObject) -> tuple[int, _Found | UnreadableImage]:
        try:
            if isinstance(data, storage.LostObject):
                return row, UnreadableImage(data.reason, data.detail)
            header = image_header.read_header(data, max_pixels=2**62)  # the survey has judged its size
            pixels, warning = decode.decode_and_check(data, header, image_size, refuse_damaged=refuse_damaged)
            return row, _Found(perceptual_hash(pixels), warning)
        except UnreadableImage as error:
            return row, error

    with (
        decode.quiet(),
        progress.phase("decode", len(rows), "images") as phase,
        ThreadPoolExecutor(THREADS, "decode") as pool,
    ):
        pending = []
        for row, data in Sources(manifest, open_store).read(rows):
            pending.append(pool.submit(check, row, data))
            if len(pending) >= 4 * THREADS:
                _collect(survey, *pending.pop(0).result())
                phase.advance()
        for future in pending:
            _collect(survey, *future.result())
            phase.advance()
    survey.quarantined.sort(key=lambda image: image.uri)
    survey.warnings = dict(sorted(survey.warnings.items()))  # images are decoded in any order
    return Effort(time.monotonic() - started, time.process_time() - cpu_started)


class _Found(NamedTuple):
    """What a decoded image is: its hash, and what libjpeg warns about."""

    hash: int
    warning: str


def _collect(survey: Survey, row: int, found: _Found | UnreadableImage) -> None:
    assert survey.hashes is not None
    if not isinstance(found, UnreadableImage):
        survey.hashes[row] = found.hash
        if found.warning:
            survey.damaged[row] = True
            survey.warnings[row] = found.warning
        return
    manifest = survey.manifest
    label = manifest.labels[manifest.label[row]]
    survey.usable[row] = False
    survey.quarantined.append(
        Quarantined(manifest.uri(row), label, int(manifest.size[row]), found.reason, found.detail)
    )
