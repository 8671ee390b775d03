"""The training and validation examples of a stage."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from job.config.settings import runs_backbone
from job.training import augmentation, imbalance
from job.training.augmentation import Augmentation, Numbers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from job.config.settings import Settings, StageName
    from job.data.cache_files import Rows
    from job.data.dataset import Dataset
    from job.model.classifier import Classifier
    from job.runtime.device import Precision
    from job.training.strategy import Part, Replicas
    from job.training.views import Views


@dataclass(frozen=True, kw_only=True)
class BatchPart:
    """A replica's part of a batch, loaded.

    Attributes:
        start: position of its first image in the batch.
        inputs: as `Examples.step_spec`, of the own images.
        labels: int32 [n].
        partners: inputs and labels of the images to blend with; None without mixup.
        weight: of each image in the loss: 0 if another replica has it as well, else 1.
    """

    start: int
    inputs: Any
    labels: NDArray[Any]
    partners: tuple[Any, NDArray[Any]] | None
    weight: float

    def __len__(self) -> int:
        """Return the number of own images."""
        return len(self.labels)

    def piece(self, start: int, size: int) -> tuple[Any, NDArray[Any], NDArray[np.float32]]:
        """Return inputs, labels and weights of some own images, at most `size`; their partners follow without a weight.

        From the end of the part on, it is the first image with a weight of 0.
        """
        rows, weight = slice(start, start + size), self.weight
        if start >= len(self):
            rows, weight = slice(1), 0.0
        own = tf.nest.map_structure(lambda values: values[rows], (self.inputs, self.labels))
        count = len(own[1])
        weights = np.full(count, weight, np.float32)
        if self.partners is None:
            return (*own, weights)
        ((values, numbers), labels) = tf.nest.map_structure(
            lambda first, second: np.concatenate([first, second[rows]]), own, self.partners
        )
        partner = np.tile(np.arange(count, 2 * count, dtype=np.int32), 2)
        return (values, numbers._replace(partner=partner)), labels, weights


@dataclass(frozen=True, kw_only=True)
class Examples:
    """The training and validation examples of a stage, by rows of the manifest.

    Attributes:
        inputs: rows -> [n, ...], the inputs of `logits` and `training_logits`.
        spec: shape (first dimension None) and dtype of the inputs.
        logits: inputs -> logits, in float32: the model that is evaluated and published.
        training_logits: inputs and the dropout seed -> logits, in the training precision; differentiable with respect
            to the stage's variables.
        precision: of `training_logits`.
        labels: int32 [images].
        seed: of the order of the images, and of dropout.
        train: rows of the training split.
        validation: rows of the validation split.
        class_weights: of an image's loss by its label, float32 [labels]; None: all count the same.
        training_inputs: rows and epoch -> the inputs of the training step; None: `inputs`, in every epoch.
        training_spec: of those inputs; None: `spec`.
        augmentation: changes the inputs in the training step; None: they stay as they are.
        replicas: that train together; None: a single device.
    """

    inputs: Callable[[NDArray[Any]], NDArray[Any]]
    spec: tf.TensorSpec
    logits: Callable[[tf.Tensor], tf.Tensor]
    training_logits: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
    precision: Precision
    labels: NDArray[Any]
    seed: int
    train: NDArray[Any]
    validation: NDArray[Any]
    class_weights: NDArray[Any] | None = None
    training_inputs: Callable[[NDArray[Any], int], NDArray[Any]] | None = None
    training_spec: tf.TensorSpec | None = None
    augmentation: Augmentation | None = None
    replicas: Replicas | None = None

    def load_for_training(self, rows: NDArray[Any], epoch: int) -> Any:
        """Return a batch for the training step in an epoch: as `step_spec`, or the parts of this process's replicas."""
        if self.replicas is not None:
            return self.load_parts(rows, epoch, self.replicas.local_parts(len(rows)))
        inputs = self._load(rows, epoch)
        return inputs if self.augmentation is None else (inputs, self.augmentation.draw(rows, epoch))

    def load_call(self, batches: NDArray[Any], epoch: int) -> tuple[NDArray[Any], Any]:
        """Return the rows of a call, int [k, n], with their inputs: as `step_spec`, with a first axis of k where k > 1.

        All rows are read at once. Augmentation draws for each batch by itself: mixup blends images of one batch.
        """
        steps, images = batches.shape
        if steps == 1:
            return batches, self.load_for_training(batches[0], epoch)
        rows = batches.ravel()
        flat = self._load(rows, epoch)
        inputs = flat.reshape(steps, images, *flat.shape[1:])
        if self.augmentation is None:
            return batches, inputs
        drawn = [self.augmentation.draw(batch, epoch) for batch in batches]
        return batches, (inputs, Numbers(*map(np.stack, zip(*drawn, strict=True))))

    def load_parts(self, rows: NDArray[Any], epoch: int, parts: Sequence[Part]) -> list[BatchPart]:
        """Return parts of a batch. What is drawn for an image does not depend on how the batch is split.

        Args:
            rows: of the whole batch.
            epoch: of the stage.
            parts: of the batch. Other images are read only if they are blended with those of a part.
        """
        drawn = None if self.augmentation is None else self.augmentation.draw(rows, epoch)

        def load(positions: NDArray[Any]) -> tuple[Any, NDArray[Any]]:
            inputs, labels = self._load(rows[positions], epoch), self.labels[rows[positions]]
            return (inputs if drawn is None else (inputs, Numbers(*(n[positions] for n in drawn)))), labels

        loaded = []
        for part in parts:
            positions = np.arange(part.rows.start, part.rows.stop)
            inputs, labels = load(positions)
            partners = None if drawn is None or not self.blend_spec else load(drawn.partner[positions])
            weight = 0.0 if part.is_padding else 1.0
            loaded.append(
                BatchPart(start=part.rows.start, inputs=inputs, labels=labels, partners=partners, weight=weight)
            )
        return loaded

    def _load(self, rows: NDArray[Any], epoch: int) -> NDArray[Any]:
        return self.inputs(rows) if self.training_inputs is None else self.training_inputs(rows, epoch)

    @property
    def gradient_spec(self) -> tf.TensorSpec:
        """Of the inputs of `training_logits`."""
        return self.training_spec or self.spec

    @property
    def step_spec(self) -> Any:
        """Of the inputs of the training step: with augmentation, the numbers that were drawn are beside them."""
        return self.gradient_spec if self.augmentation is None else (self.gradient_spec, augmentation.SPEC)

    def augment(self, inputs: Any, labels: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Return the inputs of `training_logits` of a whole batch; with mixup also what `Augmentation.apply` adds.

        Args:
            inputs: as `step_spec`.
            labels: int32 [n].
        """
        if self.augmentation is None:
            return (inputs,)
        values, numbers = inputs
        return self.augmentation.apply(values, numbers, labels)

    @property
    def blend_spec(self) -> tuple[tf.TensorSpec, ...]:
        """Of what `augment` adds to the inputs: the partners' labels and the own shares with mixup, else nothing."""
        if self.augmentation is None or not self.augmentation.settings.mixup:
            return ()
        return augmentation.SPEC.partner, augmentation.SPEC.share

    @functools.cached_property
    def predict(self) -> Callable[[NDArray[Any]], tf.Tensor]:
        """`logits`, compiled."""

        def forward(inputs: tf.Tensor) -> tf.Tensor:
            return self.logits(inputs)

        compiled: Callable[..., tf.Tensor] = tf.function(forward, input_signature=[self.spec], autograph=False)
        return compiled

    @functools.cached_property
    def predict_on_replicas(self) -> Callable[..., list[list[tf.Tensor]]]:
        """`logits`, compiled for the replicas of this process: see `Replicas.compile`."""
        assert self.replicas is not None
        return self.replicas.compile(lambda inputs: [self.logits(inputs)], [self.spec])


def create_examples(
    classifier: Classifier,
    images: Dataset,
    features: Rows,
    rows_of: dict[str, NDArray[Any]],
    *,
    settings: Settings,
    views: Views | None = None,
    frozen: Rows | None = None,
) -> dict[StageName, Examples]:
    """Return the examples of each stage: stage 1 trains on features, stage 2 on pixels, or on cached frozen outputs.

    Args:
        classifier: folded.
        images: the data, after the pass over them.
        features: float32 [images, feature_size], all rows written.
        rows_of: the split's name -> rows, int [n].
        settings: of the run: the seed, class weights and augmentation.
        views: the features of augmented images, for stage 1; None: there are none.
        frozen: outputs of the classifier's frozen part, float32 [images, …], all rows written; None: none are cached.
    """
    size, seed, changes = classifier.image_size, settings.run.seed, settings.augmentation
    pixel_spec = tf.TensorSpec((None, size, size, 3), tf.uint8)
    counts = np.bincount(images.manifest.label[rows_of["train"]], minlength=len(classifier.labels))
    shared: dict[str, Any] = {
        "seed": seed,
        "labels": images.manifest.label,
        "train": rows_of["train"],
        "validation": rows_of["validation"],
        "class_weights": imbalance.class_weights(settings.train.class_weight, counts),
    }
    head: dict[str, Any] = {"training_logits": classifier.head_logits, "training_inputs": views}
    if runs_backbone(settings):
        head = {
            "training_logits": classifier.head_training_logits,
            "training_inputs": lambda rows, _: images.pixels(rows),
            "training_spec": pixel_spec,
        }
    first, second = (
        Augmentation(settings=changes, seed=seed, stage=stage, image_size=size)
        for stage in ("feature_extraction", "fine_tuning")
    )
    feature_extraction = Examples(
        inputs=features.__getitem__,
        spec=tf.TensorSpec((None, classifier.feature_size), tf.float32),
        logits=classifier.head_logits,
        precision="float32",
        augmentation=first if runs_backbone(settings) or changes.mixup else None,
        **head,
        **shared,
    )
    fine_tuning = Examples(
        inputs=images.pixels,
        spec=pixel_spec,
        logits=classifier.logits,
        training_logits=classifier.training_logits,
        precision=classifier.training_precision,
        augmentation=second if changes.enabled else None,
        **shared,
    )
    if frozen is not None and classifier.frozen_part is not None:
        fine_tuning = dataclasses.replace(
            fine_tuning,
            inputs=frozen.__getitem__,
            spec=tf.TensorSpec((None, *classifier.frozen_part.shape), tf.float32),
            logits=classifier.logits_of_frozen,
            training_logits=classifier.training_logits_of_frozen,
        )
    return {"feature_extraction": feature_extraction, "fine_tuning": fine_tuning}
