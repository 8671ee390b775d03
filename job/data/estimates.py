"""What a run will take of this machine: download, disk and memory; its seconds and its true memory once rehearsed."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import BaseModel, ConfigDict

from job.config.backbones import BACKBONES, feature_size
from job.config.settings import view_count
from job.data.cache import free_bytes, part_bytes

if TYPE_CHECKING:
    from job.config.settings import Settings
    from job.data.manifest import Manifest

MANIFEST_BYTES: Final = 300
"""Memory that an image takes at most while it trains; nothing else grows with their number (benchmarks/memory.py)."""

_TRAINING_BASE, _VERIFICATION_BASE = 830 * 2**20, 770 * 2**20
"""Memory of the two processes without any image: Python, TensorFlow, Keras and the graphs."""

_TRAINING_PIXEL, _VERIFICATION_PIXEL = 710, 250
"""Bytes that a pixel of each image of a batch takes in the activations of MobileNetV2, at alpha 1: with those that the
backward pass needs, and without. Those of the other backbones are scaled by the size of their activations."""

_WEIGHT_COPIES: Final = 9
"""Of the weights: the model's, Adam's two moments, the best ones, those at the start of the epoch, and checkpoints."""

_VERIFIED_BATCH: Final = 32


class DocumentPart(BaseModel):
    """A part of the document of `finetune validate`."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, frozen=True)


class Seconds(DocumentPart):
    """What the parts of a run take on this machine, beside the listing and the upload of the results."""

    device: str
    """The GPU, or the CPU."""
    startup: float
    """Imports, and the model without the download of its weights."""
    ingest: float
    """The pass over the data: download, decoding, features."""
    feature_extraction: float
    """Stage 1."""
    fine_tuning: float
    """Stage 2."""
    evaluation: float
    """Scoring of the held-out images, export of the model, its check by another process."""

    @property
    def total(self) -> float:
        """The sum."""
        return self.startup + self.ingest + self.feature_extraction + self.fine_tuning + self.evaluation


class Memory(DocumentPart):
    """The memory of a run. Its limit must hold the sum of the first three."""

    manifest_bytes: int
    """For what is known of each image; the rest does not depend on their number."""
    training_bytes: int
    """Of the process that trains, with this model and this batch size."""
    verification_bytes: int
    """Of the process that checks the exported model at the end, beside the first one."""
    gpu_bytes: int | None
    """Of the GPU; null where none was used, or without --deep."""
    measured: bool
    """Whether the memory to train was measured with --deep; else it is an estimate for a run on the CPU."""

    @property
    def total(self) -> int:
        """What the limit of the container must hold."""
        return self.manifest_bytes + self.training_bytes + self.verification_bytes


class Estimates(DocumentPart):
    """What the run will take."""

    download_bytes: int
    """Downloaded once, by the first start."""
    cache_needed_bytes: int
    """Local disk without which the run ends with exit 3: features and encoded images."""
    cache_pixels_bytes: int
    """More local disk that saves decoding every image in each epoch."""
    cache_available_bytes: int
    """What the settings and this machine's free disk allow the cache."""
    memory: Memory
    """Main memory, and that of the GPU."""
    seconds: Seconds | None
    """Time of each part, measured with --deep; null without it, and where a run would end before it trains."""

    @property
    def fits_cache(self) -> bool:
        """Whether the cache has room for what the run needs."""
        return self.cache_needed_bytes <= self.cache_available_bytes

    @property
    def keeps_pixels(self) -> bool:
        """Whether the cache has room for the decoded pixels."""
        return self.cache_needed_bytes + self.cache_pixels_bytes <= self.cache_available_bytes


def estimate(settings: Settings, manifest: Manifest) -> Estimates:
    """Return what is known without a rehearsal.

    Args:
        settings: of the run.
        manifest: every listed image.
    """
    images, total = len(manifest), int(manifest.size.sum())
    features = feature_size(settings.model.backbone, settings.model.alpha)
    parts = part_bytes(
        images,
        encoded_bytes=total,
        image_size=settings.model.image_size,
        feature_size=features if settings.feature_extraction.epochs else 0,
        views=view_count(settings),
    )
    folder = Path(settings.cache.dir or tempfile.gettempdir())
    while not folder.exists():
        folder = folder.parent
    free = free_bytes(settings.cache, folder)
    budget = free // 2 if settings.cache.max_bytes is None else min(settings.cache.max_bytes, free)
    return Estimates(
        download_bytes=total,
        cache_needed_bytes=parts["features"] + parts["views"] + parts["encoded"],
        cache_pixels_bytes=parts["pixels"],
        cache_available_bytes=budget,
        memory=_memory(settings, images),
        seconds=None,
    )


def _memory(settings: Settings, images: int) -> Memory:
    """Return the estimate for a run on the CPU: within about a tenth where it was measured (MobileNetV2 0.35 and 1)."""
    alpha, side = settings.model.alpha, settings.model.image_size
    backbone, measured = BACKBONES[settings.model.backbone], BACKBONES["MobileNetV2"]
    pixels = side * side * (0.15 + 0.85 * alpha) * backbone.activation_bytes / measured.activation_bytes
    batch = settings.fine_tuning.batch_size if settings.fine_tuning.epochs else _VERIFIED_BATCH
    weights = 4 * backbone.parameters * (0.1 + 0.9 * alpha * alpha)
    return Memory(
        manifest_bytes=images * MANIFEST_BYTES,
        training_bytes=int(_TRAINING_BASE + _WEIGHT_COPIES * weights + batch * pixels * _TRAINING_PIXEL),
        verification_bytes=int(_VERIFICATION_BASE + weights + _VERIFIED_BATCH * pixels * _VERIFICATION_PIXEL),
        gpu_bytes=None,
        measured=False,
    )
