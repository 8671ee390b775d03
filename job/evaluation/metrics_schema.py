"""The fields of metrics.json and their meaning; docs/metrics.schema.json is generated from them."""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from job.config.settings import ExportFormat, StageName

Interval = tuple[float, float]
"""The 95 % bootstrap interval: low, high."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, frozen=True, strict=True)


Reasons = dict[str, str]


class Label(_Part):
    """The metrics of one label."""

    support: int
    """Images that have the label."""
    precision: float | None
    """The share of the images predicted to have the label that have it."""
    recall: float | None
    """The share of the images with the label that are predicted to have it."""
    f1: float | None
    """The harmonic mean of precision and recall."""
    roc_auc: float | None
    """Area under the ROC curve of the label against all others."""
    pr_auc: float | None
    """Average precision of the label against all others."""


class Confusion(_Part):
    """The confusion matrix."""

    labels: list[str]
    """Of rows and columns."""
    counts: list[list[int]]
    """Images: a row for each true label, a column for each prediction."""


class Confused(_Part):
    """A wrong prediction, and how often it occurs."""

    label: str
    """The true label."""
    prediction: str
    """The predicted one."""
    images: int
    """Images with that label and that prediction."""


class Intervals(_Part):
    """95 % intervals, [low, high]: percentiles of 1,000 bootstrap samples of the images."""

    accuracy: Interval
    balanced_accuracy: Interval
    log_loss: Interval
    roc_auc: Interval | None
    """For two labels only."""
    pr_auc: Interval | None
    """For two labels only."""
    recall: dict[str, Interval | None]
    """By label."""


class Split(_Part):
    """The published model's metrics on one split."""

    images: int
    """Images of the split."""
    accuracy: float
    """The share of the images whose label has the highest probability."""
    loss: float
    """Mean cross-entropy, computed from the logits, without class weights and label smoothing."""
    balanced_accuracy: float
    """The mean recall of the labels that have images."""
    log_loss: float
    """Mean cross-entropy, computed from the probabilities of predictions.csv, clipped at 2.2e-16."""
    brier: float
    """Mean squared error of the probabilities: of the second label for two labels, summed over the labels for more."""
    expected_calibration_error: float
    """The mean difference of confidence and accuracy, in 15 bins of equal width."""
    roc_auc: float | None
    """Two labels: that of the second; more: the mean of those labels that have one."""
    pr_auc: float | None
    """Two labels: that of the second; more: the mean of those labels that have one."""
    labels: dict[str, Label]
    """By label, in the order of labels.txt."""
    confusion: Confusion | None
    """Null for more than 50 labels: metrics/confusion.csv has it."""
    confused: list[Confused]
    """The 50 most frequent confusions, the most frequent one first."""
    intervals: Intervals
    """95 % intervals."""
    unavailable: Reasons
    """The reason for each value that is null, by its path."""


class Majority(_Part):
    """The accuracy of a model that always predicts the most frequent label of the train split."""

    label: str
    """That label."""
    validation: float
    """The accuracy on validation."""
    test: float | None
    """The accuracy on test."""


class Calibration(_Part):
    """The temperature fitted on validation. It is not applied to the published model."""

    temperature: float | None
    """The T for which softmax(log(probabilities) / T) has the lowest log loss; above 1: the model is overconfident."""
    log_loss: float | None
    """The log loss on validation at that temperature."""
    unavailable: Reasons
    """The reason for each value that is null."""


class AtThreshold(_Part):
    """What the threshold gives on a split."""

    precision: float | None
    recall: float | None
    f1: float | None


class Threshold(_Part):
    """The threshold of the rarer label, fitted on validation. It is not applied to the published model."""

    label: str
    """The label with fewer images in the train split."""
    value: float | None
    """Predicting the label at this probability or above gives the highest F1 on validation."""
    validation: AtThreshold | None
    """On the images that it was fitted on."""
    test: AtThreshold | None
    """On images that it was not fitted on."""
    unavailable: Reasons
    """The reason for each value that is null, by its path."""


class ComparedIntervals(_Part):
    """95 % intervals over the same bootstrap samples for all models."""

    accuracy: Interval
    balanced_accuracy: Interval
    log_loss: Interval


class Compared(_Part):
    """A model of the ablation, on the validation images."""

    name: Literal["majority", "feature_extraction", "fine_tuning", "kept"]
    """The shares of the labels in the train split; the model at the end of that stage; the published model."""
    accuracy: float
    balanced_accuracy: float
    log_loss: float
    intervals: ComparedIntervals


class Warned(_Part):
    """A reason to doubt the model."""

    code: Literal["one_answer", "majority", "recall_zero", "few_images", "stage_1_kept"]
    """Its kind, stable for programs."""
    text: str
    """A sentence, for people."""


class SplitImages(_Part):
    """The usable images of a label, by split."""

    train: int
    validation: int
    test: int


class Duplicates(_Part):
    """Images that are there more than once; data/duplicates.jsonl lists them."""

    exact: int
    """Pairs of an image and a copy."""
    near: int
    """Pairs of images that show nearly the same."""
    leaking: int
    """Held-out images that are, or look like, an image to train on."""
    under_two_labels: int
    """Images that show nearly the same as an image of another label."""


class Examined(_Part):
    """A split in which label errors were looked for."""

    images: int
    """Images of the split."""
    suspected: int
    """Those whose label may be wrong."""


class LabelErrors(_Part):
    """Images whose label may be wrong; data/label_errors.jsonl lists them. A split that was not examined is null."""

    train: Examined | None
    validation: Examined | None
    test: Examined | None
    unavailable: Reasons
    """The reason for each split that is null."""


class Data(_Part):
    """The images that the model was made from."""

    labels: dict[str, SplitImages]
    """Usable images by label and split."""
    quarantined: int
    """Images that cannot be used; data/quarantine.jsonl lists them."""
    duplicates: Duplicates
    """Images that are there more than once."""
    seen: dict[str, int]
    """Held-out images, by split, that the model of a warm start has trained on; empty without one."""


class Epoch(_Part):
    """An epoch and its results on validation."""

    stage: StageName
    epoch: int
    """From 1 in each stage."""
    epoch_total: int
    """From 1 across both stages."""
    val_loss: float
    """With the class weights, without label smoothing: what `keep`, `patience` and `restore` compare."""
    val_accuracy: float


class Stage(_Part):
    """A stage: its last epoch, and its totals."""

    epochs: int
    """That were trained."""
    epochs_saved: int
    """Epochs of the settings that were not trained, because the stage was stopped early: those after the last one."""
    restored_epoch: int | None
    """The epoch whose weights the stage ended with, where `restore` is set; null: the last one."""
    loss: float
    """Mean over the steps of the last epoch, while the weights change."""
    accuracy: float
    """Mean over the steps of the last epoch, while the weights change."""
    val_loss: float
    """After the last epoch."""
    val_accuracy: float
    """After the last epoch."""
    best_val_accuracy: float
    seconds: float
    """Of all epochs, including validation."""
    images_per_second: float
    """Training images per second, excluding validation; the mean of the epochs."""
    input_wait: float
    """The share of the training time spent waiting for data; the mean of the epochs."""


class Check(_Part):
    """A check of the quality gate."""

    name: Literal["min_accuracy", "min_auc", "min_recall", "no_worse_than_latest"]
    """Its setting, without `gate.`."""
    value: float | None
    """Of the metric; null: unknown."""
    required: float | None
    """The lowest value that passes; null: there was nothing to compare with."""
    passed: bool | None
    """Null: not judged, which fails nothing."""
    note: str
    """What the value is of, or why it is unknown."""


class Comparison(_Part):
    """The comparison with the model that latest.json named, on the same validation images."""

    generation: int
    """Of latest.json; 0: there was none."""
    run_id: str | None
    """The run that it named."""
    reason: str
    """Why the models were not compared; empty if they were. All values below are null then."""
    images: int | None
    """Validation images that the other run did not train on."""
    accuracy: float | None
    """Of this run's model."""
    latest_accuracy: float | None
    """Of the other one."""
    difference: float | None
    """accuracy - latest_accuracy."""
    interval: Interval | None
    """95 % bootstrap interval of the paired difference."""


class Gate(_Part):
    """The quality gate, as judged when the run was published; later starts judge it by their own settings."""

    passed: bool
    """No check failed."""
    checks: list[Check]
    """A check for each setting that requires something."""
    latest: Comparison | None
    """Null unless gate.no_worse_than_latest is set."""


class Verification(_Part):
    """How far the exported model's probabilities are from the run's own."""

    images: int
    """Images scored by the SavedModel, from their encoded bytes."""
    max_difference: float
    keras_images: int
    """Images scored by model.keras."""
    keras_max_difference: float
    tolerance: float
    """A larger difference ends the run."""


class Export(_Part):
    """One of `export.formats`. What is null was not reached; `reason` says why."""

    file: str | None
    """Its name in the run; null if it is left out."""
    bytes: int | None
    max_difference: float | None
    """The largest difference between one of its probabilities and the run's own."""
    agreement: float | None
    """The share of the images that get the same label, ties aside."""
    passed: bool
    """Whether it is published."""
    reason: str
    """Why it is left out; empty if it is published."""
    seconds: float | None
    """Of the conversion alone."""


class Memory(_Part):
    """Peak memory."""

    device_peak_bytes: int | None
    """Of the GPU; null on the CPU."""
    resident_peak_bytes: int
    """Of the process."""


class Stages(_Part):
    """Both stages; null for a stage without epochs."""

    feature_extraction: Stage | None
    fine_tuning: Stage | None


class Metrics(_Part):
    """How good a run's model is, and how it was made."""

    validation: Split
    """On the validation split, by whose loss the epoch to publish was chosen. Not weighted by `class_weights`."""
    test: Split | None
    """On the test split, which had no influence; null if it is empty. Not weighted by `class_weights`."""
    majority: Majority
    calibration: Calibration
    threshold: Threshold | None
    """Null for more than two labels."""
    ablation: list[Compared]
    """What each stage adds. A stage without epochs is left out."""
    warnings: list[Warned]
    """Reasons to doubt the model; also in the log's event `metrics.warned`."""
    data: Data
    label_errors: LabelErrors
    kept: Epoch
    """The epoch whose weights are published."""
    best: Epoch
    """The epoch with the lowest validation loss."""
    last: Epoch
    stages: Stages
    micro_batch: int | None
    """Images whose gradients were computed at once; null: a whole batch."""
    predict_batch: int | None
    """Images scored at once; null: as many as usual."""
    feature_batch: int | None
    """Images whose features were computed at once; null: as many as usual."""
    learning_rate_scale: float
    """Below 1 after a loss that was not finite."""
    class_weights: dict[str, float] | None
    """The weight of an image in the training loss and in `val_loss`, by its label; null: all count the same. No other
    metric is weighted by it."""
    gate: Gate
    verification: Verification
    exports: dict[ExportFormat, Export]
    """Each of `export.formats`, compared on the images of the verification."""
    timing: dict[str, float]
    """Seconds of each phase over all starts, their `total`, the number of `starts`, and the `gpus` of the last one, of
    all workers."""
    memory: Memory
    unavailable: Reasons
    """The reason for each value above that is null or left out, by its path."""


def schema() -> dict[str, Any]:
    """Return the JSON Schema of metrics.json."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Metrics.model_json_schema()}


def schema_text() -> str:
    """Return the schema as it is published."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"
