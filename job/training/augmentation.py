"""Augmentation: random changes of the training images.

The host draws the numbers of an image from (seed, stage, epoch, row) alone, so that an image is changed in the same way
in a batch of any size, and after a resume. TensorFlow applies them: one affine warp for everything that moves pixels,
then brightness and contrast, then mixup.

    numbers = draw(settings, rows, seed=7, stage="fine_tuning", epoch=0, image_size=224)
    pixels = change_images(settings, pixels, numbers)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import tensorflow as tf

from job.config.settings import STAGES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from job.config.settings import AugmentationSettings, Settings, StageName


class Numbers(NamedTuple):
    """What was drawn for each image of a batch.

    Attributes:
        transform: float32 [n, 8], the projective transform from a pixel's position after the warp to that before it, as
            tf.raw_ops.ImageProjectiveTransformV3 takes it.
        brightness: float32 [n], added to the pixel values (0 to 255).
        contrast: float32 [n], the factor of the distances from the mean.
        partner: int32 [n], the position in the batch of the image to blend with.
        share: float32 [n], of the image itself in the blend, 0.5 to 1.
    """

    transform: Any
    brightness: Any
    contrast: Any
    partner: Any
    share: Any


SPEC = Numbers(
    tf.TensorSpec((None, 8), tf.float32),
    tf.TensorSpec((None,), tf.float32),
    tf.TensorSpec((None,), tf.float32),
    tf.TensorSpec((None,), tf.int32),
    tf.TensorSpec((None,), tf.float32),
)
"""Of the numbers as inputs of a tf.function."""

_FLIP_X, _FLIP_Y, _ROTATION, _ZOOM, _SHIFT_X, _SHIFT_Y, _CROP, _CROP_X, _CROP_Y, _BRIGHTNESS, _CONTRAST, _PARTNER = (
    range(12)
)
"""Column of each uniform number. Each setting has its own, so that none changes what is drawn for another one."""


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """The augmentation of a stage.

    Attributes:
        settings: what to change.
        seed: of the run.
        stage: of the training.
        image_size: height and width of the images.
    """

    settings: AugmentationSettings
    seed: int
    stage: StageName
    image_size: int

    def draw(self, rows: NDArray[Any], epoch: int) -> Numbers:
        """Return the numbers of a batch, the images of `rows`, in an epoch."""
        return draw(self.settings, rows, seed=self.seed, stage=self.stage, epoch=epoch, image_size=self.image_size)

    def apply(self, inputs: tf.Tensor, numbers: Numbers, labels: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Return the inputs of a training step, changed; with mixup also the partners' labels, and the own shares.

        The batch must be whole: mixup blends images of one batch.

        Args:
            inputs: uint8 images [n, size, size, 3], which are changed and blended, or float32 features
                [n, feature_size], which are blended.
            numbers: of the batch.
            labels: int32 [n].

        Returns:
            The inputs, of the same shape and dtype; with mixup int32 [n] and float32 [n] as well.
        """
        is_image = inputs.dtype == tf.uint8
        values = _changed(self.settings, inputs, numbers) if is_image else inputs
        if not self.settings.mixup:
            return (_as_pixels(values) if is_image else values,)
        share = tf.reshape(numbers.share, (-1, *[1] * (len(inputs.shape) - 1)))
        values = share * values + (1 - share) * tf.gather(values, numbers.partner)
        return _as_pixels(values) if is_image else values, tf.gather(labels, numbers.partner), numbers.share


def examples_of(settings: Settings, rows: NDArray[Any], pixels: NDArray[Any], count: int) -> NDArray[Any]:
    """Return images as they are and as the first epochs train on them, uint8 [n, 1 + count, size, size, 3].

    The epochs are those of stage 2, or of stage 1 if there is no other one. With mixup these images are one batch.

    Args:
        settings: of the run.
        rows: of the images, int [n].
        pixels: uint8 [n, size, size, 3].
        count: number of epochs.
    """
    stage: StageName = "fine_tuning" if settings.fine_tuning.epochs else "feature_extraction"
    augmentation = Augmentation(
        settings=settings.augmentation, seed=settings.run.seed, stage=stage, image_size=pixels.shape[1]
    )
    with tf.device("CPU:0"):
        inputs, labels = tf.constant(pixels), tf.zeros(len(rows), tf.int32)
        changed = [augmentation.apply(inputs, augmentation.draw(rows, epoch), labels)[0] for epoch in range(count)]
        return np.stack([pixels, *(version.numpy() for version in changed)], axis=1)


def change_images(settings: AugmentationSettings, pixels: tf.Tensor, numbers: Numbers) -> tf.Tensor:
    """Return the images, each changed by itself, uint8 [n, size, size, 3]: everything except mixup.

    Args:
        settings: what to change.
        pixels: uint8 [n, size, size, 3].
        numbers: of the images.
    """
    return _as_pixels(_changed(settings, pixels, numbers))


def _changed(settings: AugmentationSettings, pixels: tf.Tensor, numbers: Numbers) -> tf.Tensor:
    """Return `change_images` before rounding: float32, not limited to 0 to 255."""
    values = original = tf.cast(pixels, tf.float32)
    if settings.warps:
        values = tf.raw_ops.ImageProjectiveTransformV3(
            images=values,
            transforms=numbers.transform,
            output_shape=tf.shape(pixels)[1:3],
            fill_value=0.0,
            interpolation="BILINEAR",
            fill_mode="REFLECT",
        )
    if settings.contrast:
        # Integers below 2**24 add up exactly in float32, and these sums in float64: the mean has the same bits in any
        # batch. It is that of the image before the warp.
        sums = tf.reduce_sum(tf.cast(tf.reduce_sum(original, axis=(2, 3)), tf.float64), axis=1)
        mean = tf.cast(sums / tf.cast(tf.reduce_prod(tf.shape(pixels)[1:]), tf.float64), tf.float32)
        offset = mean * (1 - numbers.contrast) + numbers.brightness
        values = values * _per_image(numbers.contrast) + _per_image(offset)
    elif settings.brightness:
        values = values + _per_image(numbers.brightness)
    return values


def _per_image(numbers: tf.Tensor) -> tf.Tensor:
    return numbers[:, None, None, None]


def _as_pixels(values: tf.Tensor) -> tf.Tensor:
    """Round to uint8: a changed image is an image, and what follows reads it as any other one."""
    return tf.cast(tf.clip_by_value(tf.round(values), 0, 255), tf.uint8)


def draw(
    settings: AugmentationSettings,
    rows: NDArray[Any],
    *,
    seed: int,
    stage: StageName,
    epoch: int,
    image_size: int,
) -> Numbers:
    """Return the numbers of a batch. Those of an image depend on its row and on the arguments by name alone.

    The partner is a position in the batch, so it depends on the batch's size as well.

    Args:
        settings: the ranges of the numbers.
        rows: of the manifest, int [n].
        seed: of the run.
        stage: of the training.
        epoch: of the stage, from 0.
        image_size: height and width of the images.
    """
    uniform, own = _uniform(settings, rows, np.array([STAGES.index(stage) << 32 | seed, epoch], np.uint64))
    signed = 2 * uniform - 1
    count = len(rows)
    others = 1 + (uniform[:, _PARTNER] * (count - 1)).astype(np.intp)
    return Numbers(
        transform=_transforms(settings, uniform, signed, image_size),
        brightness=(255 * settings.brightness * signed[:, _BRIGHTNESS]).astype(np.float32),
        contrast=(1 + settings.contrast * signed[:, _CONTRAST]).astype(np.float32),
        partner=((np.arange(count) + others) % max(1, count)).astype(np.int32),
        share=own.astype(np.float32),
    )


def _uniform(
    settings: AugmentationSettings, rows: NDArray[Any], key: NDArray[np.uint64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return uniform numbers in (0, 1), float64 [n, 12], and the own shares of the blends, float64 [n].

    Philox is a function of a key and a counter: a row's numbers begin at a counter of its own
    (https://numpy.org/doc/stable/reference/random/bit_generators/philox.html).
    """
    philox = np.random.Philox(key=key)
    state: Any = philox.state
    uniform, share = np.empty((len(rows), _PARTNER + 1)), np.ones(len(rows))
    for n, row in enumerate(rows.tolist()):
        state["state"]["counter"][:] = (0, row, 0, 0)
        philox.state = state  # note: 5 us; a generator for each row takes 30 us
        uniform[n] = _to_unit(philox.random_raw(_PARTNER + 1))
        if settings.mixup:
            share[n] = _larger_share(philox, settings.mixup)
    return uniform, share


def _to_unit(raw: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Return 64 random bits as a number in the open interval from 0 to 1."""
    return ((raw >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def _larger_share(philox: np.random.Philox, alpha: float) -> float:
    """Draw from Beta(alpha, alpha), alpha at most 1, and return the number or its complement, the larger one.

    By Jöhnk's method, in logarithms, since a power underflows for a small alpha
    (https://doi.org/10.1007/BF02613706). Most draws are accepted.
    """
    while True:
        x, y = (math.log(number) / alpha for number in _to_unit(philox.random_raw(2)))
        if math.exp(x) + math.exp(y) <= 1:
            return 1 / (1 + math.exp(-abs(x - y)))


def _transforms(
    settings: AugmentationSettings, uniform: NDArray[np.float64], signed: NDArray[np.float64], size: int
) -> NDArray[np.float32]:
    """Return the transforms, float32 [n, 8]. An image is cropped, flipped, rotated, zoomed and shifted, in this order.

    They map positions after the warp to those before it, so the inverse steps are applied in the opposite order, about
    the centre of the image.
    """
    side = 1 - settings.crop * uniform[:, _CROP]
    flip_x, flip_y = (
        np.where((settings.flip in (direction, "both")) & (uniform[:, column] < 0.5), -1.0, 1.0)
        for direction, column in (("horizontal", _FLIP_X), ("vertical", _FLIP_Y))
    )
    shift_x, shift_y = (settings.shift * size * signed[:, column] for column in (_SHIFT_X, _SHIFT_Y))
    crop_x, crop_y = ((1 - side) * size / 2 * signed[:, column] for column in (_CROP_X, _CROP_Y))
    return affine(
        size,
        angle=np.radians(settings.rotation * signed[:, _ROTATION]),
        zoom=1 + settings.zoom * signed[:, _ZOOM],
        side=side,
        flip=(flip_x, flip_y),
        shift=(shift_x, shift_y),
        crop=(crop_x, crop_y),
    )


def affine(
    size: int,
    *,
    angle: Any = 0.0,
    zoom: Any = 1.0,
    side: Any = 1.0,
    flip: tuple[Any, Any] = (1.0, 1.0),
    shift: tuple[Any, Any] = (0.0, 0.0),
    crop: tuple[Any, Any] = (0.0, 0.0),
) -> NDArray[np.float32]:
    """Return transforms for ImageProjectiveTransformV3, float32 [..., 8], of numbers or arrays [...].

    Args:
        size: height and width, in pixels.
        angle: of the counterclockwise rotation, radians.
        zoom: factor of the enlargement.
        side: of the cropped square, as a fraction of the image's.
        flip: -1 mirrors along x, along y; else 1.
        shift: along x, along y, in pixels.
        crop: centre of the cropped square from that of the image, along x, along y, in pixels.
    """
    cosine, sine = np.cos(angle), np.sin(angle)
    matrix = [
        [side / zoom * flip[0] * cosine, -side / zoom * flip[0] * sine],
        [side / zoom * flip[1] * sine, side / zoom * flip[1] * cosine],
    ]
    centre = (size - 1) / 2
    offsets = [
        centre + of_crop - to_x * (centre + shift[0]) - to_y * (centre + shift[1])
        for of_crop, (to_x, to_y) in zip(crop, matrix, strict=True)
    ]
    columns = [*matrix[0], offsets[0], *matrix[1], offsets[1], 0.0, 0.0]
    return np.stack(np.broadcast_arrays(*columns), axis=-1).astype(np.float32)
