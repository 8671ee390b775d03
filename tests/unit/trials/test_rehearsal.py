"""The seconds of a run, from those of its steps; tests/pipeline/test_validate.py rehearses a real one."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import pytest
from surveys import prepared, survey

from job.config.settings import Settings
from job.data.deep_survey import Effort
from job.data.labels import TRAIN, VALIDATION
from job.runtime.device import Device
from job.trials import rehearsal
from job.trials.rehearsal import Costs, Decoded, StageCost

if TYPE_CHECKING:
    from job.data.prepare import Prepared

COSTS = Costs(
    startup=10,
    features_start=1,
    features=0.02,
    stages={
        "feature_extraction": StageCost(start=1, image=0.001, scored_image=0.001, epoch=0.1),
        "fine_tuning": StageCost(start=5, image=0.1, scored_image=0.02, epoch=0.5),
    },
    scored_image=0.02,
    export=12,
    verified_image=0.03,
    sample=128,
)


def split(images: int) -> Prepared:
    """Return images of which a fifth is held out."""
    codes = [VALIDATION if number % 5 == 0 else TRAIN for number in range(images)]
    found = prepared(survey([number % 2 for number in range(images)]), codes)
    rows_of = {
        name: np.flatnonzero(found.splits == code) for name, code in (("train", TRAIN), ("validation", VALIDATION))
    }
    return dataclasses.replace(found, rows_of={**rows_of, "test": np.zeros(0, np.intp)})


def decoded(kind: str, seconds: float, cpu_seconds: float) -> Decoded:
    """Return what the decoding took on a machine of two threads."""
    machine = Device(kind=kind, name="it", cpu="cpu", threads=2, onednn=True, tensorflow="2")
    return Decoded(machine, Effort(seconds, cpu_seconds), import_seconds=4)


def test_stages() -> None:
    """A stage takes its start once and everything else in each epoch; the evaluation scores and verifies."""
    settings = Settings.model_validate({"fine_tuning": {"epochs": 3}})

    seconds = COSTS.seconds(settings, split(1000), decoded("cpu", 10, 16))

    assert ("it", 10) == (seconds.device, seconds.startup)
    assert seconds.feature_extraction == pytest.approx(1 + 10 * (0.8 + 0.2 + 0.1))
    assert seconds.fine_tuning == pytest.approx(5 + 3 * (80 + 4 + 0.5))
    assert seconds.evaluation == pytest.approx(200 * 0.02 + 12 + (200 - 128) * 0.03, abs=0.05)


def test_augmented_features() -> None:
    """The features of augmented images take as many passes over the train split as there are versions."""
    plain, augmented = (
        COSTS.seconds(Settings.model_validate({"augmentation": {"flip": flip}}), split(1000), decoded("cpu", 10, 16))
        for flip in ("none", "both")
    )

    assert augmented.ingest - plain.ingest == pytest.approx(4 * 800 * 0.02)


def test_verified_images_are_limited() -> None:
    """Only so many images are verified as the setting says."""
    few, many = (
        COSTS.seconds(Settings.model_validate({"export": {"verify_images": n}}), split(5000), decoded("cpu", 1, 1))
        for n in (100, 1000)
    )

    assert many.evaluation - few.evaluation == pytest.approx((1000 - 128) * 0.03, abs=0.15)


@pytest.mark.parametrize(
    ("kind", "seconds", "cpu_seconds", "expected"),
    [
        ("cpu", 10, 18, 9 + 20),  # the cores decode, and compute the features
        ("cpu", 60, 18, 60),  # the download is slower than both
        ("gpu", 10, 18, 20),  # the GPU computes the features meanwhile
        ("gpu", 30, 58, 30),
    ],
)
def test_ingest(kind: str, seconds: float, cpu_seconds: float, expected: float) -> None:
    """Download, decoding and features overlap as far as they need different parts of the machine."""
    found = COSTS.seconds(Settings(), split(1000), decoded(kind, seconds, cpu_seconds))

    assert found.ingest == pytest.approx(1 + expected)


@pytest.mark.parametrize(("images", "sample"), [(3, 3), (128, 128), (1000, 128)])
def test_sample(images: int, sample: int) -> None:
    """The sample is spread over the images, and no image is in it twice."""
    names = rehearsal._sample(split(images)).names

    assert sample == len(names) == len({*names})
    assert {"0.jpg", f"{images - 1}.jpg"} <= {*names}
