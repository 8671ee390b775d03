"""Weights of unequal labels, and the first bias of the head."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from classifiers import examples, small_classifier

from job.training import imbalance

COUNTS = np.array([160, 40, 10])


def test_none() -> None:
    """By default there are no weights."""
    assert imbalance.class_weights("none", COUNTS) is None


def test_balanced() -> None:
    """Every label has the same total weight: those of scikit-learn's `compute_class_weight`."""
    weights = imbalance.class_weights("balanced", COUNTS)

    np.testing.assert_allclose(210 / (3 * COUNTS), weights, rtol=1e-6)
    assert np.float32 == weights.dtype


def test_sqrt() -> None:
    """The weights are as the roots of the balanced ones."""
    weights = imbalance.class_weights("sqrt", COUNTS)

    np.testing.assert_allclose([1, 2, 4], weights / weights[0], rtol=1e-6)


@pytest.mark.parametrize("kind", ["sqrt", "balanced"])
@pytest.mark.parametrize("counts", [COUNTS, np.array([7, 7]), np.array([5, 0, 3]), np.array([1, 100_000])])
def test_mean_over_the_images_is_one(kind: str, counts: np.ndarray) -> None:
    """The loss keeps its scale, and so does the learning rate; a label without images does not disturb that."""
    weights = imbalance.class_weights(kind, counts)

    assert pytest.approx(1, rel=1e-5) == float(weights @ counts / counts.sum())
    assert {1.0} >= set(weights[counts == 0].tolist())


def test_bias_of_two_labels() -> None:
    """The sigmoid of the bias is the share of the second label."""
    bias = imbalance.initial_bias(np.array([30, 10]), None)

    assert (1,) == bias.shape
    assert pytest.approx(0.25) == float(tf.sigmoid(bias)[0])


def test_bias_of_more_labels() -> None:
    """The softmax of the bias has the shares of the labels; one without images has a small one, and not 0."""
    probabilities = tf.nn.softmax(imbalance.initial_bias(np.array([60, 40, 0]), None)).numpy()

    np.testing.assert_allclose(np.array([60, 40, 0.5]) / 100.5, probabilities, rtol=1e-5)


def test_bias_counts_the_weights() -> None:
    """With balanced labels the best first answer is the same for all, so the bias is that of equal shares."""
    weights = imbalance.class_weights("balanced", COUNTS)
    probabilities = tf.nn.softmax(imbalance.initial_bias(COUNTS, weights)).numpy()

    np.testing.assert_allclose([1 / 3] * 3, probabilities, rtol=1e-5)


@pytest.mark.parametrize("labels", [("a", "b"), ("a", "b", "c")])
@pytest.mark.parametrize("kind", ["none", "sqrt"])
def test_bias_is_where_the_loss_has_its_minimum(labels: tuple[str, ...], kind: str) -> None:
    """The gradient of the mean training loss with respect to the bias is 0 for a head whose kernel is 0."""
    counts = np.array([12, 3, 6])[: len(labels)]
    classifier = small_classifier()
    classifier.labels = labels
    weights = imbalance.class_weights(kind, counts)
    bias = tf.Variable(imbalance.initial_bias(counts, weights))
    truth = np.repeat(np.arange(len(labels), dtype=np.int32), counts)
    with tf.GradientTape() as tape:
        logits = tf.zeros((len(truth), 1)) + bias
        loss = tf.reduce_mean(classifier.losses(logits, tf.constant(truth), class_weights=weights))

    np.testing.assert_allclose(0, tape.gradient(loss, bias).numpy(), atol=1e-6)


def test_bias_is_set() -> None:
    """The shares are those of the training split alone."""
    classifier = small_classifier()
    labels = np.array([0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1], np.int32)
    data = dataclasses.replace(examples(classifier, "feature_extraction"), labels=labels)
    imbalance.set_initial_bias(classifier, data)

    assert pytest.approx(np.log(2 / 6)) == float(classifier.output.bias.numpy()[0])
