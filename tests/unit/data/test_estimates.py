"""What a run will take: download, disk and memory."""

from __future__ import annotations

import pytest
from surveys import survey

from job.config.settings import Settings
from job.data.estimates import Estimates, Seconds, estimate

MIB = 2**20


def estimated(images: int = 200, **groups: dict[str, object]) -> Estimates:
    """Return the estimates for images of 1,000 bytes."""
    settings = Settings.model_validate({"input": {"uri": "gs://box/d"}, "cache": {"max_bytes": 10**9}} | groups)
    return estimate(settings, survey([number % 2 for number in range(images)]).manifest)


def test_disk() -> None:
    """Features and encoded images are needed, and pixels are kept where there is room for them."""
    found = estimated()

    assert 200_000 == found.download_bytes
    assert found.cache_needed_bytes > 200 * (1000 + 4 * 1280)
    assert (True, True) == (found.fits_cache, found.keeps_pixels)
    tight = estimated(cache={"max_bytes": found.cache_needed_bytes})
    assert (True, False) == (tight.fits_cache, tight.keeps_pixels)
    assert not estimated(cache={"max_bytes": found.cache_needed_bytes - 1}).fits_cache


def test_augmented_features() -> None:
    """With augmentation the features of each version are needed as well."""
    more = estimated(augmentation={"flip": "both"}).cache_needed_bytes - estimated().cache_needed_bytes

    assert 4 * 200 * (4 * 1280 + 4) == more


def test_no_features() -> None:
    """A run without stage 1 needs no features."""
    assert estimated(feature_extraction={"epochs": 0}).cache_needed_bytes < 200 * 1100


@pytest.mark.parametrize(
    ("alpha", "size", "batch", "training", "verification"),
    [(1.0, 160, 32, 1472, 967), (0.35, 96, 32, 928, 789), (1.0, 224, 32, 2003, 1155), (1.0, 160, 64, 2108, 966)],
)
def test_memory(alpha: float, size: int, batch: int, training: int, verification: int) -> None:
    """The memory is within a tenth of the peaks of real runs on the CPU, in MiB."""
    found = estimated(model={"alpha": alpha, "image_size": size}, fine_tuning={"batch_size": batch}).memory

    assert found.training_bytes == pytest.approx(training * MIB, rel=0.1)
    assert found.verification_bytes == pytest.approx(verification * MIB, rel=0.1)
    assert 300 * 200 == found.manifest_bytes
    assert (None, False) == (found.gpu_bytes, found.measured)


def test_batches_count_only_where_they_are_trained() -> None:
    """Without stage 2, the largest batch is that of the feature pass."""
    few, many = (estimated(fine_tuning={"batch_size": 512, "epochs": epochs}).memory for epochs in (0, 1))

    assert few.training_bytes < many.training_bytes / 4


def test_memory_of_another_backbone() -> None:
    """The activations and the weights are those of the backbone."""
    small, large = (
        estimated(model={"backbone": name, "image_size": 224}).memory.training_bytes
        for name in ("MobileNetV3Small", "ConvNeXtSmall")
    )

    assert small < estimated(model={"image_size": 224}).memory.training_bytes < large / 2


def test_total_seconds() -> None:
    """The time of a run is the sum of its parts."""
    parts = {"startup": 1, "ingest": 2, "feature_extraction": 4, "fine_tuning": 8, "evaluation": 16}

    assert 31 == Seconds(device="CPU", **parts).total  # type: ignore[arg-type]
