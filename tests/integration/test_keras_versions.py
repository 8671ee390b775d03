"""model.keras loads in the oldest and the newest supported version of Keras, without this package."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import sysconfig
from importlib import metadata
from typing import TYPE_CHECKING

import numpy as np
import pytest
from classifiers import varied_classifier
from packaging.requirements import Requirement
from paths import ROOT

from job.config.settings import ModelSettings
from job.data import decode
from job.export import keras_model

if TYPE_CHECKING:
    from pathlib import Path

    from job.model.classifier import Classifier

SHA256 = {
    "3.12.0": "02b69e007d5df8042286c3bcc2a888539e3e487590ffb08f6be1b4354df50aa8",
    "3.14.0": "19ce94b798caaba4d404ab6ef4753b44219170e5c2868156de8bb0494a260114",
}
"""Of the wheels of older versions: the oldest supported one, and the last without the arguments that 3.15 added."""
SIZES = [(32, 32), (31, 17), (200, 301), (1, 1)]
LOAD_AND_SCORE = """
import importlib.util, json, sys
import keras, numpy
assert importlib.util.find_spec("job") is None
model = keras.models.load_model(sys.argv[1])
images = numpy.load(sys.argv[2])
answers = [numpy.asarray(score(image[None]))[0].tolist() for image in images.values()
           for score in (model, lambda pixels: model.predict(pixels, verbose=0))]
print(json.dumps([keras.__version__, answers]))
"""


def installed(version: str) -> Path:
    """Return a folder that holds one version of Keras alone; the first test that needs it installs it."""
    folder = ROOT / f".venv/keras-{version}"
    requirement = ROOT / f".venv/keras-{version}.txt"
    with (ROOT / f".venv/keras-{version}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "installed").exists():
            requirement.write_text(f"keras=={version} --hash=sha256:{SHA256[version]}\n")
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
            command += ["--upgrade", "--only-binary", ":all:", "--require-hashes"]
            subprocess.run([*command, "--target", folder, "-r", requirement], check=True, timeout=300)
            (folder / "installed").touch()
    return folder


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    """A MobileNetV2 with dropout, which must not act, whose answers depend on the image."""
    return varied_classifier(ModelSettings(alpha=0.35, image_size=32, weights="none", dropout=0.5), ("a", "b"))


def test_the_oldest_supported_version_is_tested() -> None:
    """The lower bound of pyproject.toml is among the versions of this file."""
    [keras] = [
        requirement
        for requirement in map(Requirement, metadata.requires("finetune") or ())
        if requirement.name == "keras"
    ]
    [oldest] = [bound.version for bound in keras.specifier if bound.operator == ">="]
    assert f"{oldest}.0" in SHA256


@pytest.mark.parametrize("version", [*SHA256, "installed"])
def test_model_loads_and_answers(classifier: Classifier, tmp_path: Path, version: str) -> None:
    """It gives the run's own probabilities for images of any size, called and with `predict`.

    The process has that version, and the packages of this environment without its own .pth files, so that it finds
    TensorFlow but not this package.
    """
    random = np.random.default_rng(0)
    images = {
        f"{height}x{width}": random.integers(0, 256, (height, width, 3)).astype(np.uint8) for height, width in SIZES
    }
    keras_model.save(classifier, tmp_path / "model.keras")
    np.savez(tmp_path / "images.npz", **images)
    packages = sysconfig.get_path("purelib")
    search = packages if version == "installed" else f"{installed(version)}{os.pathsep}{packages}"

    done = subprocess.run(
        [sys.executable, "-S", "-c", LOAD_AND_SCORE, tmp_path / "model.keras", tmp_path / "images.npz"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": search},
        capture_output=True,
        text=True,
        check=False,
    )

    assert 0 == done.returncode, done.stderr
    loaded, answers = json.loads(done.stdout.splitlines()[-1])
    assert loaded == (metadata.version("keras") if version == "installed" else version)
    resized = [decode.resize(image[None], 32) for image in images.values() for _ in range(2)]
    expected = [classifier.probabilities(classifier.logits(pixels)).numpy()[0, 1:] for pixels in resized]
    np.testing.assert_allclose(expected, answers, atol=1e-4)
    assert np.ptp(answers) > 0.01, "else nothing was compared"
