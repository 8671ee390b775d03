"""A warm start takes over what fits of a published model, and says what does not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tensorflow as tf
from classifiers import varied_classifier

from job.config.settings import ModelSettings
from job.errors import DataError
from job.export import keras_model
from job.model import warm_start
from job.model.classifier import Classifier, create_network
from job.model.warm_start import PublishedModel
from job.observability.progress import Progress

if TYPE_CHECKING:
    from pathlib import Path

    from job.model.weights import Provenance

pytestmark = pytest.mark.slow

SETTINGS = ModelSettings(weights="none", alpha=0.35, image_size=32, head_units=4)
PIXELS = tf.constant(np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)), tf.uint8)


class Published:
    """A published model, and the classifier that was saved as it.

    Attributes:
        new_kernels: those of the last classifier's head, before it took over anything.
    """

    def __init__(self, folder: Path, labels: tuple[str, ...]) -> None:
        self.classifier = varied_classifier(SETTINGS, labels)
        for variable in self.classifier.head_variables():  # no bias is zero, as after a training
            variable.assign(variable + 0.01)
        keras_model.save(self.classifier, folder / "model.keras")
        self.model = PublishedModel(
            uri="gs://b/models/runs/old",
            manifest_sha256="0" * 64,
            labels=labels,
            path=folder / "model.keras",
            trained_on=np.zeros(0, np.uint64),
        )

    def start(self, labels: tuple[str, ...], **settings: Any) -> tuple[Classifier, Provenance]:
        """Return a classifier of such labels and settings that starts from the model."""
        network = create_network(SETTINGS.model_copy(update=settings), labels, seed=2)
        head = [layer for layer in network.model.layers if layer.name in ("fc1", "output")]
        self.new_kernels = {layer.name: layer.kernel.numpy() for layer in head}
        provenance = warm_start.load_into(network, labels, self.model, Progress())
        return Classifier(network, labels, pretrained=True), provenance


@pytest.fixture(scope="module")
def two_labels(tmp_path_factory: pytest.TempPathFactory) -> Published:
    """Return a model of two labels, whose output is one column."""
    return Published(tmp_path_factory.mktemp("two"), ("b", "d"))


@pytest.fixture(scope="module")
def three_labels(tmp_path_factory: pytest.TempPathFactory) -> Published:
    """Return a model of three labels."""
    return Published(tmp_path_factory.mktemp("three"), ("a", "c", "e"))


def probabilities(classifier: Classifier) -> np.ndarray[Any, Any]:
    """Return the probabilities of three pictures, [3, labels]."""
    return classifier.probabilities(classifier.logits(PIXELS)).numpy()


@pytest.mark.parametrize("name", ["two_labels", "three_labels"])
def test_same_labels(name: str, request: pytest.FixtureRequest) -> None:
    """The same labels: every variable is the published one."""
    published = request.getfixturevalue(name)
    classifier, provenance = published.start(published.model.labels)

    expected = published.classifier.state()
    assert expected.keys() == classifier.state().keys()
    assert all(np.array_equal(expected[path], value) for path, value in classifier.state().items())
    assert ("gs://b/models/runs/old", False) == (provenance.source, provenance.verified)
    assert {"manifest_sha256": "0" * 64, "head": "taken over", "new_labels": []} == provenance.run


@pytest.mark.parametrize(
    ("name", "labels", "columns"),
    [
        ("two_labels", ("a", "b", "c", "d"), [1, 3]),
        ("three_labels", ("a", "b", "c", "d", "e"), [0, 2, 4]),
    ],
)
def test_more_labels(name: str, labels: tuple[str, ...], columns: list[int], request: pytest.FixtureRequest) -> None:
    """More labels: among those of the published model the probabilities are its own; the others are new."""
    published = request.getfixturevalue(name)
    classifier, provenance = published.start(labels)

    known = probabilities(classifier)[:, columns]
    known /= known.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probabilities(published.classifier), known, rtol=1e-5)
    new = [label for label in labels if label not in published.model.labels]
    assert ("taken over by label", new) == (provenance.run["head"], provenance.run["new_labels"])
    for label in new:
        column = labels.index(label)
        np.testing.assert_array_equal(published.new_kernels["output"][:, column], classifier.output.kernel[:, column])


@pytest.mark.parametrize(
    ("labels", "settings", "said"),
    [
        (("a", "c"), {}, "has the label 'e', and the data have not"),
        (("a", "c", "e"), {"head_units": 6}, "hidden layer has another size"),
    ],
)
def test_head_that_does_not_fit(
    three_labels: Published, labels: tuple[str, ...], settings: dict[str, Any], said: str
) -> None:
    """A head that does not fit is new, and that is recorded; the backbone is taken over."""
    classifier, provenance = three_labels.start(labels, **settings)

    assert {"fc1", "output"} == three_labels.new_kernels.keys()
    for layer, kernel in three_labels.new_kernels.items():
        np.testing.assert_array_equal(kernel, classifier.model.get_layer(layer).kernel)
    features = [each.features(PIXELS) for each in (three_labels.classifier, classifier)]
    np.testing.assert_array_equal(*features)
    assert said in str(provenance.run["head"])
    assert list(labels) == provenance.run["new_labels"]


def test_another_image_size(two_labels: Published) -> None:
    """The image size may differ: no weight depends on it."""
    classifier, _ = two_labels.start(("b", "d"), image_size=64)

    assert 64 == classifier.image_size
    np.testing.assert_array_equal(two_labels.classifier.state()["Conv1/kernel"], classifier.state()["Conv1/kernel"])


def test_another_width(two_labels: Published) -> None:
    """A backbone of another width is refused: the weight, both shapes and the settings are named."""
    with pytest.raises(DataError, match=r"Conv1/kernel .* shape \(3, 3, 3, 16\), expected \(3, 3, 3, 32\)") as raised:
        two_labels.start(("b", "d"), alpha=1.0)
    assert "model.alpha" in raised.value.remedy


def test_model_that_cannot_be_loaded(two_labels: Published, tmp_path: Path) -> None:
    """What is no Keras model is refused."""
    (tmp_path / "model.keras").write_bytes(b"no zip")
    broken = PublishedModel(**{**vars(two_labels.model), "path": tmp_path / "model.keras"})

    with pytest.raises(DataError, match=r"model/model.keras cannot be loaded"):
        warm_start.load_into(create_network(SETTINGS, ("b", "d"), seed=2), ("b", "d"), broken, Progress())


def test_another_head_is_new(two_labels: Published) -> None:
    """A linear head does not take over the output of a head with a hidden layer."""
    classifier, provenance = two_labels.start(("b", "d"), head_units=0)

    assert classifier.fc1 is None
    assert str(provenance.document()["run"]["head"]).startswith("new: its hidden layer")
