"""Augmentation: what each setting does to a picture, and on what its random numbers depend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tensorflow as tf

from job.config.settings import AugmentationSettings
from job.training.augmentation import Augmentation, Numbers, affine, change_images, draw

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIZE = 8
PICTURE = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3)).astype(np.uint8)
ROWS = np.arange(2000)
SOME = AugmentationSettings(flip="both", rotation=20, zoom=0.2, shift=0.1, crop=0.3, brightness=0.1, contrast=0.3)


def numbers_of(count: int = 1, **values: Any) -> Numbers:
    """Return numbers that leave each picture as it is, but for those given."""
    unchanged = {
        "transform": np.tile(affine(SIZE), (count, 1)),
        "brightness": np.zeros(count, np.float32),
        "contrast": np.ones(count, np.float32),
        "partner": np.arange(count, dtype=np.int32),
        "share": np.ones(count, np.float32),
    }
    return Numbers(**{**unchanged, **values})


def warped(**geometry: Any) -> NDArray[Any]:
    """Return the picture after the affine warp alone."""
    numbers = numbers_of(transform=affine(SIZE, **geometry)[None])
    return change_images(AugmentationSettings(rotation=1), tf.constant(PICTURE[None]), numbers)[0].numpy()


def drawn(settings: AugmentationSettings, rows: NDArray[Any] = ROWS, **changes: Any) -> Numbers:
    """Return the numbers of the rows, in epoch 0 of stage 2."""
    return draw(settings, rows, **{"seed": 7, "stage": "fine_tuning", "epoch": 0, "image_size": SIZE, **changes})


def interpolated(transform: NDArray[Any]) -> NDArray[Any]:
    """Return the picture after an affine warp, computed in numpy: bilinear, mirrored beyond the border."""
    y, x = np.mgrid[0:SIZE, 0:SIZE]
    from_x, from_y = (transform[n] * x + transform[n + 1] * y + transform[n + 2] for n in (0, 3))
    padded = np.pad(PICTURE.astype(float), [(SIZE, SIZE), (SIZE, SIZE), (0, 0)], "symmetric")
    left, top = np.floor(from_x).astype(int), np.floor(from_y).astype(int)
    of_x, of_y = (from_x - left)[..., None], (from_y - top)[..., None]
    corners = [[padded[top + SIZE + down, left + SIZE + right] for right in (0, 1)] for down in (0, 1)]
    upper, lower = ((1 - of_x) * row[0] + of_x * row[1] for row in corners)
    return (1 - of_y) * upper + of_y * lower


@pytest.mark.parametrize(
    ("flip", "expected"),
    [((-1, 1), PICTURE[:, ::-1]), ((1, -1), PICTURE[::-1]), ((-1, -1), PICTURE[::-1, ::-1]), ((1, 1), PICTURE)],
)
def test_flip(flip: tuple[int, int], expected: NDArray[Any]) -> None:
    """A picture is mirrored exactly."""
    assert np.array_equal(expected, warped(flip=flip))


@pytest.mark.parametrize("shift", [(2, -1), (-3, 0), (0, 7)])
def test_shift(shift: tuple[int, int]) -> None:
    """A picture moves by whole pixels exactly, to the right and down; what is beyond its border is its mirror image."""
    padded = np.pad(PICTURE, [(SIZE, SIZE), (SIZE, SIZE), (0, 0)], "symmetric")
    left, top = SIZE - shift[0], SIZE - shift[1]

    assert np.array_equal(padded[top : top + SIZE, left : left + SIZE], warped(shift=shift))


@pytest.mark.parametrize("quarters", [1, 2, 3, -1])
def test_rotation(quarters: int) -> None:
    """A square picture is rotated by right angles exactly, counterclockwise."""
    assert np.array_equal(np.rot90(PICTURE, quarters), warped(angle=quarters * np.pi / 2))


def test_crop() -> None:
    """The whole result shows the square that was cut out: its corner pixels are those of the square."""
    enlarged = np.repeat(np.repeat(PICTURE[:4, 4:], 2, axis=0), 2, axis=1)  # the upper right quarter

    seen = warped(side=0.5, crop=(2, -2))

    assert np.abs(seen.astype(int) - enlarged).max() < np.abs(seen.astype(int) - PICTURE).max()
    np.testing.assert_allclose(seen, interpolated(affine(SIZE, side=0.5, crop=(2, -2))), atol=0.51)
    pixels_of_quarter = [0.5 * row - 0.25 for row in range(SIZE)]  # rows of the picture that are shown
    transform = affine(SIZE, side=0.5, crop=(2, -2)).astype(float)
    assert pixels_of_quarter == pytest.approx([transform[4] * row + transform[5] for row in range(SIZE)])


@pytest.mark.parametrize(
    "geometry",
    [
        {"zoom": 2.0},
        {"zoom": 0.7},
        {"angle": 0.3},
        {"shift": (0.4, -1.7)},
        {"side": 0.8, "crop": (0.5, 0.2)},
        {"angle": -0.2, "zoom": 1.1, "side": 0.9, "flip": (-1, 1), "shift": (0.5, 0.6), "crop": (0.3, -0.3)},
    ],
)
def test_warp(geometry: dict[str, Any]) -> None:
    """Everything that moves pixels is one bilinear interpolation, rounded to whole values."""
    np.testing.assert_allclose(warped(**geometry), interpolated(affine(SIZE, **geometry).astype(float)), atol=0.51)


def test_zoom_enlarges() -> None:
    """A factor above 1 enlarges: the result shows less of the picture."""
    assert np.array_equal([0.5, 0.5], affine(SIZE, zoom=2.0)[[0, 4]])


def test_brightness_and_contrast() -> None:
    """Contrast multiplies the distances from the mean, brightness is added; both end at 0 and 255."""
    settings = AugmentationSettings(brightness=1, contrast=1)
    numbers = numbers_of(brightness=np.array([30.0], np.float32), contrast=np.array([1.5], np.float32))

    seen = change_images(settings, tf.constant(PICTURE[None]), numbers)[0].numpy()

    mean = PICTURE.mean()
    np.testing.assert_allclose(seen, np.clip((PICTURE - mean) * 1.5 + mean + 30, 0, 255), atol=0.51)
    assert np.uint8 == seen.dtype
    brighter = change_images(AugmentationSettings(brightness=1), tf.constant(PICTURE[None]), numbers)[0].numpy()
    assert np.array_equal(np.clip(PICTURE.astype(int) + 30, 0, 255), brighter)


def test_ranges() -> None:
    """Each setting's numbers fill the range that it names, and no more."""
    numbers = drawn(AugmentationSettings(rotation=30, brightness=0.1, contrast=0.3))
    degrees = np.degrees(np.arctan2(-numbers.transform[:, 1], numbers.transform[:, 0]))

    for found, limit in ((degrees, 30), (numbers.brightness, 25.5), (numbers.contrast - 1, 0.3)):
        assert (-limit, limit) == (pytest.approx(found.min(), rel=0.01), pytest.approx(found.max(), rel=0.01))
        assert pytest.approx(0, abs=0.05 * limit) == found.mean()
    zoom = drawn(AugmentationSettings(zoom=0.2)).transform[:, 0]
    assert (1 / 1.2, 1 / 0.8) == (pytest.approx(zoom.min(), rel=0.01), pytest.approx(zoom.max(), rel=0.01))
    shift = drawn(AugmentationSettings(shift=0.25)).transform[:, [2, 5]]
    assert (-2, 2) == (pytest.approx(shift.min(), rel=0.01), pytest.approx(shift.max(), rel=0.01))


@pytest.mark.parametrize(("flip", "mirrored"), [("none", (0, 0)), ("horizontal", (1, 0)), ("both", (1, 1))])
def test_half_are_flipped(flip: str, mirrored: tuple[int, int]) -> None:
    """Half of the pictures are mirrored, in each direction that is set; in both independently."""
    transform = drawn(AugmentationSettings(flip=flip)).transform
    shares = [(transform[:, column] < 0).mean() for column in (0, 4)]

    assert pytest.approx(np.array(mirrored) / 2, abs=0.05) == shares


def test_crop_stays_inside() -> None:
    """What is cut out lies inside the picture, anywhere, and its side is within the range."""
    transform = drawn(AugmentationSettings(crop=0.4)).transform.astype(float)
    first, side = transform[:, 2] + 0.5 - transform[:, 0] / 2, transform[:, 0] * SIZE

    assert (0.6 * SIZE, SIZE) == (pytest.approx(side.min(), rel=0.01), pytest.approx(side.max(), rel=0.01))
    assert first.min() >= -1e-5
    assert (first + side).max() <= SIZE + 1e-5
    assert pytest.approx(0.4 * SIZE, rel=0.2) == first.max()


def test_numbers_depend_on_the_row_alone() -> None:
    """A picture has the same numbers in any batch, and others in another epoch, stage, or with another seed."""
    settings = SOME.model_copy(update={"mixup": 0.3})
    alone, among = drawn(settings, np.array([5])), drawn(settings, np.array([900, 5, 3]))

    for name in ("transform", "brightness", "contrast", "share"):
        assert getattr(alone, name)[0].tobytes() == getattr(among, name)[1].tobytes()
    for change in ({"epoch": 1}, {"stage": "feature_extraction"}, {"seed": 8}):
        other = drawn(settings, np.array([5]), **change)
        assert not (alone.transform == other.transform)[0, [0, 2]].any()
        assert alone.share[0] != other.share[0]
    assert len(ROWS) == len(np.unique(drawn(settings).brightness))


def test_settings_do_not_change_each_other() -> None:
    """A setting that is added changes nothing of what is drawn for the others."""
    alone, among = (
        drawn(AugmentationSettings(brightness=0.1, **more)) for more in ({}, {"flip": "both", "mixup": 0.2})
    )

    assert np.array_equal(alone.brightness, among.brightness)


def test_large_seed_and_row() -> None:
    """The largest seed and a row beyond 32 bits are valid."""
    numbers = drawn(SOME, np.array([2**40, 0]), seed=2**32 - 1)

    assert np.isfinite(numbers.transform).all()


@pytest.mark.parametrize("alpha", [1.0, 0.4, 0.02])
def test_shares_of_mixup(alpha: float) -> None:
    """The shares are the larger parts of Beta(alpha, alpha): their distribution is that of numpy's generator."""
    shares = drawn(AugmentationSettings(mixup=alpha)).share
    beta = np.random.default_rng(0).beta(alpha, alpha, 20_000)

    expected = np.quantile(np.maximum(beta, 1 - beta), [0.1, 0.25, 0.5, 0.75, 0.9])
    np.testing.assert_allclose(np.quantile(shares, [0.1, 0.25, 0.5, 0.75, 0.9]), expected, atol=0.03)
    assert (shares.min() >= 0.5, shares.max() <= 1) == (True, True)


def test_partners_of_mixup() -> None:
    """Every picture is blended with another one of the batch; a lone one with itself."""
    partner = drawn(AugmentationSettings(mixup=0.2), ROWS[:32]).partner

    assert not (partner == np.arange(32)).any()
    assert len(np.unique(partner)) > 10
    assert set(partner.tolist()) <= set(range(32))
    assert [0] == drawn(AugmentationSettings(mixup=0.2), np.array([3])).partner.tolist()


def test_mixup_blends_pictures_and_labels() -> None:
    """Pictures and features are blended by their shares; the labels of the partners and the shares come along."""
    augmentation = Augmentation(settings=AugmentationSettings(mixup=0.5), seed=7, stage="fine_tuning", image_size=SIZE)
    share = np.array([0.75, 1.0], np.float32)
    numbers = numbers_of(2, partner=np.array([1, 0], np.int32), share=share)
    pictures = np.stack([PICTURE, PICTURE[::-1]])
    labels = tf.constant([4, 9])

    blended, partner_labels, shares = augmentation.apply(tf.constant(pictures), numbers, labels)
    features, *_ = augmentation.apply(tf.constant([[4.0, 0.0], [0.0, 8.0]]), numbers, labels)

    assert tf.uint8 == blended.dtype
    np.testing.assert_allclose(blended[0], 0.75 * PICTURE + 0.25 * PICTURE[::-1], atol=0.51)
    assert np.array_equal(PICTURE[::-1], blended[1])
    assert [[3.0, 2.0], [0.0, 8.0]] == features.numpy().tolist()
    assert ([9, 4], share.tolist()) == (partner_labels.numpy().tolist(), np.asarray(shares).tolist())


def test_bits_do_not_depend_on_the_batch() -> None:
    """A picture is changed to the same bits alone and in batches of any size."""
    pictures = np.random.default_rng(1).integers(0, 256, (33, 40, 40, 3)).astype(np.uint8)
    numbers = drawn(SOME, np.arange(33), image_size=40)
    whole = change_images(SOME, tf.constant(pictures), numbers).numpy()

    for size in (1, 5, 32):
        for start in range(0, 33, size):
            part = slice(start, start + size)
            seen = change_images(SOME, tf.constant(pictures[part]), Numbers(*(values[part] for values in numbers)))
            assert whole[part].tobytes() == seen.numpy().tobytes()


@pytest.mark.parametrize("name", ["flip", "rotation", "zoom", "shift", "crop", "brightness", "contrast"])
def test_each_setting_has_an_effect(name: str) -> None:
    """Each setting alone changes some pictures, and the default changes none."""
    pictures = tf.constant(np.tile(PICTURE, (16, 1, 1, 1)))
    settings = AugmentationSettings(**{name: getattr(SOME, name)})

    changed = change_images(settings, pictures, drawn(settings, ROWS[:16])).numpy()
    unchanged = change_images(AugmentationSettings(), pictures, drawn(AugmentationSettings(), ROWS[:16])).numpy()

    assert not np.array_equal(pictures, changed)
    assert np.array_equal(pictures, unchanged)
