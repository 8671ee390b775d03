"""The metrics: those that scikit-learn has are equal to it, the others to cases computed by hand."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import sklearn.metrics as oracle

from job.evaluation import metrics

RELATIVE = 1e-12


def random_case(labels: int, images: int, *, ties: bool = False, absent: tuple[int, ...] = ()) -> tuple:
    """Return probabilities, float32 [images, labels], and true labels, some of which may be absent."""
    random = np.random.default_rng(images * labels)
    probabilities = random.dirichlet(np.ones(labels), images)
    if ties:
        probabilities = np.round(probabilities, 1) + 0.01
        probabilities /= probabilities.sum(axis=1, keepdims=True)
    present = [label for label in range(labels) if label not in absent]
    return probabilities.astype(np.float32), random.choice(present, images).astype(np.int32)


CASES = {
    "two labels": random_case(2, 300),
    "five labels": random_case(5, 300),
    "ties": random_case(2, 200, ties=True),
    "ties of five labels": random_case(5, 200, ties=True),
    "one class": random_case(2, 50, absent=(0,)),
    "absent classes": random_case(6, 100, absent=(0, 4)),
    "one image": random_case(2, 1),
    "certain": (np.eye(3, dtype=np.float32)[[0, 1, 2, 0, 1]], np.array([0, 1, 2, 1, 1])),
    "constant": (np.full((10, 2), 0.5, np.float32), np.arange(10) % 2),
}


@pytest.fixture(params=CASES.values(), ids=CASES)
def case(request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and true labels."""
    return request.param


def quietly(function: object, *arguments: object, **options: object) -> object:
    """Return what a function of scikit-learn returns, without its warnings about undefined metrics."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*arguments, **options)


def test_by_label(case: tuple[np.ndarray, np.ndarray]) -> None:
    """Precision, recall, F1 and support are scikit-learn's, with NaN where they are undefined."""
    probabilities, labels = case
    total, predictions = probabilities.shape[1], probabilities.argmax(axis=1)
    options = {"labels": range(total), "zero_division": np.nan}
    expected = quietly(oracle.precision_recall_fscore_support, labels, predictions, **options)

    found = metrics.counts_by_label(labels, predictions, total)

    for name, values in zip(("precision", "recall", "f1", "support"), expected, strict=True):
        np.testing.assert_allclose(found[name], values, rtol=RELATIVE, err_msg=name)


def test_log_loss(case: tuple[np.ndarray, np.ndarray]) -> None:
    """The mean cross-entropy is scikit-learn's, also for probabilities of 0."""
    probabilities, labels = case
    wide = probabilities.astype(np.float64)
    expected = quietly(oracle.log_loss, labels, wide, labels=range(probabilities.shape[1]))

    assert expected == pytest.approx(metrics.log_losses(probabilities, labels).mean(), rel=RELATIVE)


def test_brier(case: tuple[np.ndarray, np.ndarray]) -> None:
    """The Brier score is scikit-learn's."""
    probabilities, labels = case
    wide = probabilities.astype(np.float64)
    expected = quietly(oracle.brier_score_loss, labels, wide, labels=range(probabilities.shape[1]))

    assert expected == pytest.approx(metrics.brier(probabilities, labels), rel=RELATIVE)


def test_chunks_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Metrics that are computed in parts of the rows are those of all rows."""
    probabilities, labels = random_case(5, 99)
    monkeypatch.setattr(metrics, "_CHUNK", 16)

    expected = quietly(oracle.brier_score_loss, labels, probabilities.astype(np.float64))
    assert expected == pytest.approx(metrics.brier(probabilities, labels), rel=RELATIVE)
    assert 33 == len(list(metrics._chunks(probabilities)))


def test_areas(case: tuple[np.ndarray, np.ndarray]) -> None:
    """ROC-AUC and average precision of each label are scikit-learn's; NaN where only one class exists."""
    probabilities, labels = case
    for label in range(probabilities.shape[1]):
        scores, positive = probabilities[:, label], labels == label
        [roc], [pr] = metrics.areas(scores, positive)
        expected_roc, expected_pr = np.nan, np.nan
        if positive.any():
            expected_pr = quietly(oracle.average_precision_score, positive, scores)
            if not positive.all():
                expected_roc = oracle.roc_auc_score(positive, scores)
        np.testing.assert_allclose([roc, pr], [expected_roc, expected_pr], rtol=RELATIVE)


def test_weights_are_repetitions() -> None:
    """An image with weight 3 counts as three images, one with weight 0 is not there."""
    probabilities, labels = random_case(2, 40, ties=True)
    weights = np.random.default_rng(0).integers(0, 4, (5, 40))

    found = np.stack(metrics.areas(probabilities[:, 1], labels == 1, weights), axis=1)

    for row, counts in zip(found, weights, strict=True):
        rows = np.repeat(np.arange(40), counts)
        scores, positive = probabilities[rows, 1], labels[rows] == 1
        expected = [oracle.roc_auc_score(positive, scores), oracle.average_precision_score(positive, scores)]
        np.testing.assert_allclose(row, expected, rtol=RELATIVE)


def test_calibration_error() -> None:
    """By hand: bins of 1/15, whose upper bound is included; each adds its share times |accuracy - confidence|."""
    confident = np.array([0.99, 0.95, 0.6, 2 / 3], np.float64)
    probabilities = np.stack([confident, 1 - confident], axis=1)
    labels = np.array([0, 1, 0, 1])

    # (14/15, 1]: accuracy 1/2, confidence 0.97; (8/15, 9/15]: 1, 0.6; (9/15, 10/15]: 0, 2/3
    expected = 2 / 4 * 0.47 + 1 / 4 * 0.4 + 1 / 4 * 2 / 3

    assert expected == pytest.approx(metrics.calibration_error(probabilities, labels), rel=RELATIVE)
    images, _, accuracy = metrics.calibration_bins(probabilities, labels)
    assert {8: 1, 9: 1, 14: 2} == {bin_: int(images[bin_]) for bin_ in np.flatnonzero(images)}
    assert np.isnan(accuracy[0])


@pytest.mark.parametrize(("confidence", "accuracy"), [(0.9, 0.8), (0.9, 0.9), (0.6, 0.8), (0.9999, 0.6)])
def test_temperature(confidence: float, accuracy: float) -> None:
    """By hand: where every image has the same confidence, the best temperature makes it the accuracy."""
    right = np.arange(10) < 10 * accuracy
    probabilities = np.where(right[:, None], [confidence, 1 - confidence], [1 - confidence, confidence])
    expected = np.log(confidence / (1 - confidence)) / np.log(accuracy / (1 - accuracy))
    entropy = -accuracy * np.log(accuracy) - (1 - accuracy) * np.log(1 - accuracy)

    found = metrics.fit_temperature(probabilities, np.zeros(10, int))

    assert (expected, entropy) == pytest.approx(found, rel=1e-9)


def test_temperature_is_a_minimum() -> None:
    """Of several labels, no temperature nearby has a lower log loss than the one that is found."""
    probabilities, labels = random_case(4, 200)
    labels = np.where(np.arange(200) % 3 == 0, labels, probabilities.argmax(axis=1))

    def loss(temperature: float) -> float:
        scaled = probabilities.astype(np.float64) ** (1 / temperature)
        return oracle.log_loss(labels, scaled / scaled.sum(axis=1, keepdims=True))

    temperature, lowest = metrics.fit_temperature(probabilities, labels)

    assert lowest == pytest.approx(loss(temperature), rel=1e-9)
    assert lowest <= min(loss(temperature * 0.999), loss(temperature * 1.001))


@pytest.mark.parametrize("labels", [[0, 0, 0], [1, 1, 1]], ids=["all right", "all wrong"])
def test_no_temperature(labels: list[int]) -> None:
    """Where the log loss has no minimum, as where all images are right, there is no temperature."""
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [1.0, 0.0]], np.float32)

    assert np.isnan(metrics.fit_temperature(probabilities, np.array(labels))).all()


@pytest.mark.parametrize(
    ("scores", "positive", "expected"),
    [
        ([0.9, 0.8, 0.3, 0.1], [1, 1, 0, 0], 0.8),  # F1 of 1
        ([0.9, 0.8, 0.3, 0.1], [1, 0, 1, 0], 0.3),  # F1 by threshold: 2/3, 1/2, 4/5, 2/3
        ([0.9, 0.8, 0.8, 0.1], [0, 1, 0, 0], 0.8),  # tied scores are on the same side
        ([0.4, 0.2], [0, 0], np.nan),
        ([0.4, 0.2], [1, 0], 0.4),
        ([0.5, 0.4, 0.3], [1, 0, 0], 0.5),
    ],
)
def test_best_threshold(scores: list[float], positive: list[int], expected: float) -> None:
    """By hand: the score from which on predicting the label has the highest F1."""
    assert expected == pytest.approx(metrics.best_threshold(np.array(scores), np.array(positive, bool)), nan_ok=True)


def test_samples_are_those_of_the_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each bootstrap sample has the metrics that scikit-learn computes from the images that were drawn."""
    probabilities, labels = random_case(2, 30)
    order = np.argsort(labels, kind="stable")
    monkeypatch.setattr(metrics, "DRAWS", 20)
    weights = np.concatenate(list(metrics.draws(30, seed=7)))

    found = metrics.resample(probabilities, labels, 7)

    assert (20, 30) == weights.shape
    assert {30} == set(weights.sum(axis=1).tolist())
    for number, counts in enumerate(weights):
        rows = order[np.repeat(np.arange(30), counts)]
        truth, answers = labels[rows], probabilities[rows].astype(np.float64)
        predictions = answers.argmax(axis=1)
        expected = {
            "accuracy": oracle.accuracy_score(truth, predictions),
            "balanced_accuracy": oracle.balanced_accuracy_score(truth, predictions),
            "log_loss": quietly(oracle.log_loss, truth, answers),
            "roc_auc": oracle.roc_auc_score(truth, answers[:, 1]),
            "pr_auc": oracle.average_precision_score(truth, answers[:, 1]),
        }
        assert expected == pytest.approx({name: found[name][number] for name in expected}, rel=RELATIVE)
        recall = oracle.recall_score(truth, predictions, average=None)
        np.testing.assert_allclose(recall, found["recall"][number], rtol=RELATIVE)


def test_sample_without_a_label() -> None:
    """A sample that lacks a label has no recall of it; in the balanced accuracy, the recall of all images stands in."""
    probabilities = np.eye(2, dtype=np.float32)[[0, 0, 0, 0, 0, 0]]  # the answer is always the first label
    labels = np.array([0, 0, 0, 0, 0, 1])

    found = metrics.resample(probabilities, labels, 7)

    absent = np.isnan(found["recall"][:, 1])
    assert 200 < absent.sum() < 500  # a third: (5/6)^6
    assert {0.0} == set(found["recall"][~absent, 1].tolist())
    assert {0.5} == set(found["balanced_accuracy"].tolist())
    assert np.array_equal(absent, np.isnan(found["roc_auc"]))


def test_draws_do_not_depend_on_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The samples depend on the seed and the number of images alone."""
    expected = np.concatenate(list(metrics.draws(50, seed=3)))
    monkeypatch.setattr(metrics, "_CHUNK", 700)

    chunks = list(metrics.draws(50, seed=3))

    assert 14 == len(chunks[0])
    assert np.array_equal(expected, np.concatenate(chunks))
    assert not np.array_equal(expected, np.concatenate(list(metrics.draws(50, seed=4))))


def test_interval() -> None:
    """It reaches from the 2.5th to the 97.5th percentile of the samples that define the metric."""
    assert (2.5, 97.5) == metrics.interval(np.append(np.arange(101.0), np.nan))
    assert np.isnan(metrics.interval(np.array([np.nan, np.nan]))).all()


def test_interval_covers_the_truth() -> None:
    """The interval of an accuracy is as wide as the normal approximation says."""
    probabilities = np.eye(2, dtype=np.float32)[(np.arange(1000) < 800).astype(int)]

    low, high = metrics.interval(metrics.resample(probabilities, np.ones(1000, int), 7)["accuracy"])

    half = 1.96 * np.sqrt(0.8 * 0.2 / 1000)
    assert (0.8 - half, 0.8 + half) == pytest.approx((low, high), abs=0.004)


def test_memory_is_bounded() -> None:
    """A thousand samples of many images are drawn some at a time."""
    assert max(chunk.size for chunk in metrics.draws(10_000, seed=1)) <= metrics._CHUNK
