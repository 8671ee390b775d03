"""A conversion that fails, or whose result answers differently, costs that format and nothing else."""

from __future__ import annotations

import os
import signal
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from job.export.conversion import (
    Conversion,
    ConversionError,
    Converter,
    calibration_rows,
    convert,
    judge,
    time_limit,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from job.config.settings import ExportFormat

OWN = np.array([[0.75, 0.25], [0.2503, 0.7497], [0.5002, 0.4998], [0.1, 0.9]], np.float32)
"""The run's probabilities: three clear answers, and one that is nearly a tie."""


def judged(name: ExportFormat, *moved: tuple[int, float]) -> Conversion:
    """Judge a model whose probability of the second label is another one for some images."""
    probabilities = OWN.copy()
    for image, by in moved:
        probabilities[image] += np.float32([-by, by])
    return judge(name, probabilities, OWN, size=7, seconds=1.5)


@pytest.mark.parametrize("name", ["tflite", "onnx"])
def test_float_formats_have_a_tolerance(name: ExportFormat) -> None:
    """A difference of up to 0.001 passes, also where it flips a near tie; a larger one does not."""
    passed, failed = judged(name, (2, 0.0009)), judged(name, (0, 0.0011))

    assert (True, "", 1.0, 7) == (passed.passed, passed.reason, passed.agreement, passed.bytes)
    assert passed.max_difference == pytest.approx(0.0009, rel=1e-3)
    assert (False, None) == (failed.passed, failed.file)
    assert "its probabilities differ by up to 0.0011, expected at most 0.001" == failed.reason


def test_int8_is_judged_by_its_labels() -> None:
    """An int8 model may give other probabilities, but not other labels."""
    passed, failed = judged("tflite_int8", (0, 0.2), (2, 0.003)), judged("tflite_int8", (0, 0.3))

    assert (True, 1.0, "model/model_int8.tflite") == (passed.passed, passed.agreement, passed.file)
    assert (False, 0.75) == (failed.passed, failed.agreement)
    assert "0.750 of 4 images get the same label, expected at least 0.98" == failed.reason


@pytest.mark.parametrize("name", ["tflite", "tflite_int8", "onnx"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_not_finite(name: ExportFormat, value: float) -> None:
    """NaN and infinity never pass, and are no number in metrics.json."""
    failed = judged(name, (1, value))

    assert (False, None) == (failed.passed, failed.max_difference)
    assert "its probabilities are not finite" == failed.reason


def test_document() -> None:
    """metrics.json has the same fields for a format that is published and for one that is not."""
    published, left_out = judged("onnx").document(), Conversion(reason="why").document()

    assert {
        "file": "model/model.onnx",
        "bytes": 7,
        "max_difference": 0.0,
        "agreement": 1.0,
        "passed": True,
        "reason": "",
        "seconds": 1.5,
    } == published
    assert {**dict.fromkeys(published), "passed": False, "reason": "why"} == left_out


def test_calibration_images_are_the_first_in_hash_order() -> None:
    """The images for the scales of int8 come from the train split alone, however it is ordered; at most 128."""
    train, random = np.arange(0, 400, 2), np.random.default_rng(0)
    images: Any = SimpleNamespace(
        manifest=SimpleNamespace(content_keys=lambda: np.random.default_rng(1).integers(0, 2**63, 400, np.uint64))
    )

    rows = calibration_rows("tflite_int8", images, train)

    assert (128, 128) == (len(rows), len(set(rows)))
    assert set(rows) <= set(train.tolist())
    assert rows != sorted(rows)
    assert rows == calibration_rows("tflite_int8", images, random.permutation(train))
    assert [] == calibration_rows("tflite", images, train)


@pytest.mark.parametrize(("minutes", "seconds"), [(30, 600), (10, 300), (0.001, 1)])
def test_a_hang_ends_before_the_run_does(minutes: float, seconds: int) -> None:
    """The time limit is at most half of device.stall_minutes."""
    assert seconds == time_limit(minutes)


def test_killed(tmp_path: Path) -> None:
    """A process that is killed leaves the format out, and names the signal."""
    with Converter("tflite") as converter:

        def images() -> Iterator[bytes]:
            yield b"image"
            os.kill(converter._child.pid, signal.SIGKILL)

        images_of: Any = SimpleNamespace(encoded=lambda _: b"")
        converted = convert(
            converter, "tflite", tmp_path / "model", calibration=[], images=images_of, sample=(images(), OWN)
        )

    assert Conversion(reason="the conversion was killed by SIGKILL") == converted


@pytest.mark.slow
def test_hanging(tmp_path: Path) -> None:
    """A process that hangs ends after its own time limit."""
    (tmp_path / "saved_model").mkdir()
    os.mkfifo(tmp_path / "saved_model/saved_model.pb")  # opening it blocks until another process writes to it

    with (
        Converter("tflite", time_limit=1) as converter,
        pytest.raises(ConversionError, match="made no progress for 1 seconds"),
    ):
        converter.convert(tmp_path, tmp_path / "new", [b"image"])


def test_out_of_memory(tmp_path: Path) -> None:
    """A process that gets no memory is refused it, before the container exceeds its limit."""
    with (
        Converter("tflite", memory=100 * 2**20) as converter,
        pytest.raises(ConversionError, match="ran out of memory, with 100 MiB available"),
    ):
        converter.convert(tmp_path, tmp_path / "new", [b"image"])


@pytest.mark.slow
def test_failed(tmp_path: Path) -> None:
    """An error is reported in one line; nothing raw of the process gets into the log."""
    with Converter("tflite") as converter, pytest.raises(ConversionError) as caught:
        converter.convert(tmp_path, tmp_path / "new", [b"image"])

    assert str(caught.value).startswith("the conversion failed: OSError: SavedModel file does not exist")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "new").exists()
