"""docs/serving.md: its Python runs as it stands, and its request bodies fit the model's signatures."""

from __future__ import annotations

import ast
import base64
import csv
import json
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytest
import tensorflow as tf
import yaml
from paths import ROOT
from runs import only_run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PAGE = (ROOT / "docs/serving.md").read_text(encoding="utf-8")
START_SECONDS = 60


def code(heading: str, language: str) -> list[str]:
    """Return the blocks of code under a heading of the page."""
    [section] = re.findall(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    return re.findall(rf"^```{language}\n(.*?)^```", section, re.MULTILINE | re.DOTALL)


class Place(NamedTuple):
    """Where the page's code runs.

    Attributes:
        folder: with ``model/``, ``cat.jpg`` and ``dog.png``.
        expected: each picture's label -> probability, as predictions.csv has them.
    """

    folder: Path
    expected: list[dict[str, float]]


@pytest.fixture(scope="module")
def place(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A folder with a published model and two of its validation images."""
    folder = tmp_path_factory.mktemp("serving")
    shutil.copytree(only_run(published) / "model", folder / "model")
    rows = list(csv.DictReader((only_run(published) / "metrics/predictions.csv").read_text().splitlines()))[:2]
    for row, name in zip(rows, ("cat.jpg", "dog.png"), strict=True):
        shutil.copy(row["uri"], folder / name)
    return Place(folder, [{label: float(row[f"probability_{label}"]) for label in ("dark", "light")} for row in rows])


def run_python(source: str, place: Place) -> list[dict[str, float]]:
    """Run code of the page in a process without this package, and return the dictionaries that it prints."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", source], cwd=place.folder, capture_output=True, text=True, check=False
    )
    assert 0 == done.returncode, done.stderr
    return [ast.literal_eval(line) for line in done.stdout.splitlines()]


def test_model_keras(place: Place) -> None:
    """The snippet for model.keras gives a probability for each label, also for two."""
    [source] = code("`model.keras` with two labels has one column", "python")

    [answer] = run_python(source, place)

    assert pytest.approx(place.expected[0], abs=1e-3) == answer


def test_saved_model(place: Place) -> None:
    """The snippet for the SavedModel answers for files of two formats."""
    [source] = code("In Python", "python")

    assert [pytest.approx(expected, abs=1e-3) for expected in place.expected] == run_python(source, place)


@pytest.fixture(scope="module")
def server(place: Place) -> Iterator[str]:
    """The URL of the page's server, which runs."""
    [source] = code("A small server in Python", "python")
    (place.folder / "server.py").write_text(source)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "server.py", "model/saved_model", str(port)]
    with subprocess.Popen(command, cwd=place.folder, stderr=subprocess.DEVNULL) as process:
        try:
            for _ in range(START_SECONDS * 10):
                with socket.socket() as connection:
                    if connection.connect_ex(("127.0.0.1", port)) == 0:
                        break
                assert process.poll() is None
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}/"
        finally:
            process.kill()


def test_server_answers(place: Place, server: str) -> None:
    """An image in the body is answered with label -> probability."""
    with urllib.request.urlopen(server, (place.folder / "cat.jpg").read_bytes()) as response:  # noqa: S310 (local)
        answer = json.load(response)

    assert pytest.approx(place.expected[0], abs=1e-3) == answer


@pytest.mark.parametrize("body", [b"<html>", b""])
def test_server_refuses_what_is_no_image(server: str, body: bytes) -> None:
    """Something else is a client error that says what was expected."""
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(server, body)  # noqa: S310 (local)

    assert 400 == caught.value.code
    assert "image 0 of the batch" in json.load(caught.value)["error"]
    caught.value.close()


def test_request_with_encoded_images(place: Place) -> None:
    """The shell command writes a request whose names and values the signature takes."""
    signatures = tf.saved_model.load(str(place.folder / "model/saved_model")).signatures
    [command] = [block for block in code("TensorFlow Serving", "sh") if "printf" in block]
    subprocess.run(["bash", "-ec", command.splitlines()[0]], cwd=place.folder, check=True)
    request = json.loads((place.folder / "request.json").read_text())
    signature = signatures[request["signature_name"]]

    [instance] = request["instances"]
    assert set(signature.structured_input_signature[1]) == set(instance)
    answer = signature(image_bytes=tf.constant([base64.b64decode(instance["image_bytes"]["b64"])]))

    [response, _] = map(json.loads, code("TensorFlow Serving", "json"))
    assert set(answer) == set(response["predictions"][0])
    labels = [label.decode() for label in answer["labels"].numpy()[0]]
    answered = dict(zip(labels, answer["probabilities"].numpy()[0].tolist(), strict=True))
    assert pytest.approx(place.expected[0], abs=1e-3) == answered


def test_request_with_pixels(place: Place) -> None:
    """The request without a signature's name fits serving_default."""
    signature = tf.saved_model.load(str(place.folder / "model/saved_model")).signatures["serving_default"]
    [_, request] = map(json.loads, code("TensorFlow Serving", "json"))

    assert ["instances"] == list(request)
    assert set(signature.structured_input_signature[1]) == set(request["instances"][0])
    pixels = np.array([instance["pixels"] for instance in request["instances"]], np.uint8)
    assert (1, 2) == signature(pixels=tf.constant(pixels))["probabilities"].shape


def test_kserve_names_the_folder_above_the_version() -> None:
    """The InferenceService is YAML, and its storageUri is where the version was copied to."""
    [manifest], [copy] = code("KServe", "yaml"), code("KServe", "sh")[:1]
    storage = yaml.safe_load(manifest)["spec"]["predictor"]["model"]["storageUri"]

    assert f"{storage}/1" == copy.split()[-1]


def test_links_of_the_page() -> None:
    """The page's table of contents names its headings."""
    headings = re.findall(r"^## (.*)$", PAGE, re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}

    assert set(re.findall(r"\]\(#([^)]+)\)", PAGE)) == anchors
