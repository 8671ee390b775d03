"""What is published answers as the run's own model did, or the run fails."""

from __future__ import annotations

import io
import os
import resource
import shutil
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import light_runs
import numpy as np
import pytest
import tensorflow as tf
from classifiers import varied_classifier
from drawn_images import MAX_PIXELS
from PIL import Image

from job import errors
from job.config.settings import ModelSettings
from job.data import decode, image_header
from job.export import saved_model
from job.export.verification import Scorer, score_latest, verify

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.usefixtures("whole")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[bytes], np.ndarray]:
    """An exported classifier, six encoded images, and its own probabilities for them."""
    folder = tmp_path_factory.mktemp("export") / "model"
    settings = ModelSettings(alpha=0.35, image_size=32, weights="none", dropout=0.5)
    with light_runs.here(light_runs.SHALLOW):
        classifier = varied_classifier(settings, ("a", "b", "ü"))
    saved_model.save(classifier, folder, max_pixels=MAX_PIXELS)
    random = np.random.default_rng(0)
    encoded = []
    for number in range(6):
        file = io.BytesIO()
        picture = Image.fromarray(random.integers(0, 256, (20 + number, 30, 3), np.uint8))
        picture.save(file, ("png", "jpeg", "webp")[number % 3])
        encoded.append(file.getvalue())
    pixels = [decode.decode_image(data, image_header.read_header(data, max_pixels=10**6), 32) for data in encoded]
    return folder, encoded, classifier.probabilities(classifier.logits(tf.constant(np.stack(pixels)))).numpy()


def test_exported_model_answers_as_the_run_did(exported: tuple[Path, list[bytes], np.ndarray]) -> None:
    """A fresh process scores the raw bytes within the tolerance."""
    folder, encoded, probabilities = exported
    with Scorer() as scorer:
        report = verify(scorer, folder, encoded, probabilities)

    assert (6, 6) == (report["images"], report["keras_images"])
    assert max(report["max_difference"], report["keras_max_difference"]) <= 1e-3
    assert "a\nb\nü\n" == (folder / "labels.txt").read_text(encoding="utf-8")


def test_empty_batch_with_onednn(exported: tuple[Path, list[bytes], np.ndarray]) -> None:
    """No images are no error with oneDNN either, on which TensorFlow's convolutions of no images fail."""
    assert "1" == os.environ["TF_ENABLE_ONEDNN_OPTS"]
    signatures = tf.saved_model.load(str(exported[0] / "saved_model")).signatures

    assert (0, 3) == signatures["serve_bytes"](image_bytes=tf.constant([], tf.string))["probabilities"].shape
    pixels = tf.zeros((0, 40, 30, 3), tf.uint8)
    assert (0, 3) == signatures["serving_default"](pixels=pixels)["probabilities"].shape


def test_a_model_that_answers_differently_is_noticed(exported: tuple[Path, list[bytes], np.ndarray]) -> None:
    """Probabilities that are off by more than the tolerance end the run with exit 9, naming both."""
    folder, encoded, probabilities = exported
    with (
        Scorer() as scorer,
        pytest.raises(errors.InvariantError, match=r"differ by up to 0.0\d+, expected at most 0.001") as caught,
    ):
        verify(scorer, folder, encoded, probabilities + np.array([0.02, 0, -0.02]))
    assert 9 == caught.value.exit_code


@pytest.mark.parametrize("damaged", ["saved_model/saved_model.pb", "model.keras"])
def test_a_model_that_cannot_be_loaded_is_noticed(
    exported: tuple[Path, list[bytes], np.ndarray], tmp_path: Path, damaged: str
) -> None:
    """A SavedModel or model.keras that a fresh process cannot load ends the run with exit 9 and the reason."""
    folder, encoded, probabilities = exported
    shutil.copytree(folder, tmp_path / "model")
    (tmp_path / "model" / damaged).write_bytes(b"damaged")
    with Scorer() as scorer, pytest.raises(errors.InvariantError, match="cannot be loaded and run"):
        verify(scorer, tmp_path / "model", encoded, probabilities)


def test_latest_model(exported: tuple[Path, list[bytes], np.ndarray], tmp_path: Path) -> None:
    """The latest model is scored without model.keras; one that cannot be loaded is an error that names it."""
    folder, encoded, probabilities = exported
    shutil.copytree(folder / "saved_model", tmp_path / "saved_model")

    assert np.abs(score_latest(tmp_path, encoded) - probabilities).max() <= 1e-3
    (tmp_path / "saved_model/saved_model.pb").write_bytes(b"damaged")
    with pytest.raises(errors.InvariantError, match=r"^the model of latest\.json cannot be loaded and run"):
        score_latest(tmp_path, encoded)


def test_latest_model_without_memory(exported: tuple[Path, list[bytes], np.ndarray]) -> None:
    """If its process is killed, the run ends with exit 20; the remedy names the setting that needs the process."""

    def images() -> Iterator[bytes]:
        yield exported[1][0]
        children = Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text()
        os.kill(int(children.split()[-1]), signal.SIGKILL)

    with pytest.raises(errors.UnavailableError, match=r"scores the model of latest\.json was killed") as caught:
        score_latest(exported[0], images())
    assert "gate.no_worse_than_latest" in caught.value.remedy


class _Claimed(bytes):
    """Bytes that claim to be 4 GiB long."""

    __slots__ = ()

    def __len__(self) -> int:
        return 2**32 - 1


def test_scorer_without_memory(exported: tuple[Path, list[bytes], np.ndarray]) -> None:
    """A scorer that gets no memory breaks no invariant: exit 20, and the remedy is more of it."""
    folder, _, _ = exported
    with Scorer() as scorer:
        resource.prlimit(scorer._child.pid, resource.RLIMIT_AS, (7 * 2**29, 7 * 2**29))
        with pytest.raises(errors.UnavailableError, match="ran out of memory") as caught:
            scorer.score(folder, [_Claimed(b"image")])

    assert "more memory" in caught.value.remedy


def test_scorer_leaves_no_process_behind(tmp_path: Path) -> None:
    """A scorer that is never used, or that is abandoned while images are sent, ends with its context."""
    with Scorer() as scorer:
        assert scorer._child.poll() is None
    assert scorer._child.poll() is not None

    def images() -> Iterator[bytes]:
        yield b"not all of them"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Scorer() as scorer:
        scorer.score(tmp_path, images())
    assert scorer._child.poll() is not None
    assert (True, True) == (scorer._child.stdin.closed, scorer._child.stdout.closed)
