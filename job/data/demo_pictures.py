"""Draws the demo's data set: pictures of flowers and gears.

They vary in size, colour and number of petals or teeth, over noise and clutter: easy for people, but not entirely for
features learned on photographs, so that fine-tuning has something to gain.
"""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from job.errors import AccessError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from job.observability.progress import Progress

COUNT = 320
"""Enough for 8 steps an epoch, few enough for a demo of less than three minutes on two cores."""

_SCALE = 2  # supersampling: Pillow's polygons are not antialiased

Random = np.random.Generator


def draw(folder: Path, *, count: int = COUNT, seed: int = 7, after_picture: Callable[[], object] = int) -> None:
    """Draw ``count`` JPEGs, half of each class: ``folder/flowers/0000.jpg`` and so on, 86 to 260 pixels a side.

    ``after_picture`` is called after each.

    The same seed gives the same bytes with the same NumPy and Pillow: a picture depends on the seed, its class and its
    number alone.
    """
    outlines: dict[str, Callable[[Random], NDArray[Any]]] = {"flowers": _flower, "gears": _gear}
    for code, (label, outline) in enumerate(outlines.items()):
        (folder / label).mkdir(parents=True)
        for number in range(count // 2):
            random = np.random.default_rng((seed, code, number))
            _picture(random, outline).save(folder / label / f"{number:04}.jpg", quality=int(random.integers(50, 96)))
            after_picture()


def pictures(cache_dir: Path, progress: Progress) -> Path:
    """Return a folder with the demo's pictures, the input for an empty ``input.uri``; draw them if it is missing.

    Args:
        cache_dir: parent of the folder, which is renamed into place when complete.
        progress: receives the events.

    Raises:
        AccessError: `cache_dir` is not writable.
    """
    version = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:8]  # other code may draw other pictures
    folder = cache_dir / f"finetune-demo-pictures-{version}"
    if folder.is_dir():
        return folder
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".finetune-demo-", dir=cache_dir) as unfinished:
            with progress.phase("draw", COUNT, "pictures") as phase:
                draw(Path(unfinished, "pictures"), after_picture=phase.advance)
            Path(unfinished, "pictures").rename(folder)
    except OSError as error:
        if not folder.is_dir():  # otherwise another process was faster
            raise AccessError(
                f"the demo's pictures cannot be drawn in {str(cache_dir)!r}: {error.strerror or error}",
                remedy="Name a folder that can be written to: cache.dir.",
            ) from error
    return folder


def _flower(random: Random) -> NDArray[Any]:
    """Return the outline of a flower with 5 to 8 round petals: float64 [points, 2] in the unit circle."""
    petals, depth = random.integers(5, 9), random.uniform(0.2, 0.4)
    angle = np.linspace(0, 2 * np.pi, 240, endpoint=False)
    radius = 1 - depth * (1 - np.abs(np.cos(petals * angle / 2)))
    points: NDArray[np.float64] = radius[:, None] * _direction(angle)
    return points


def _gear(random: Random) -> NDArray[Any]:
    """Return the outline of a gear with 6 to 10 square teeth: float64 [points, 2] in the unit circle."""
    teeth, depth = random.integers(6, 11), random.uniform(0.2, 0.4)
    corners = np.add.outer(np.arange(teeth), [0.0, 0.25, 0.35, 0.75, 0.85]).ravel()
    radius = 1 - depth * np.tile([1, 1, 0, 0, 1], teeth)
    points: NDArray[np.float64] = radius[:, None] * _direction(2 * np.pi * corners / teeth)
    return points


def _direction(angle: NDArray[Any] | float) -> NDArray[Any]:
    """Return the points of the unit circle at these angles: float64 [angles, 2]."""
    return np.stack([np.cos(angle), np.sin(angle)], axis=-1)


def _picture(random: Random, outline: Callable[[Random], NDArray[Any]]) -> Image.Image:
    """Return a picture of a shape, randomly placed, rotated and tilted, among clutter."""
    longest = int(random.integers(130, 261))
    width, height = random.permutation((longest, int(longest * random.uniform(2 / 3, 1)))).tolist()
    background, image = _background(random, width, height)
    canvas = ImageDraw.Draw(image, "RGBA")
    for _ in range(random.integers(4, 10)):
        _clutter(random, canvas, width, height)

    radius = random.uniform(0.29, 0.43) * min(width, height)
    centre = [random.uniform(radius, side - radius) for side in (width, height)]
    transform = _rotation(random) @ np.diag([radius, radius * random.uniform(0.7, 1)]) @ _rotation(random)
    shape = outline(random) @ transform
    colour = _contrasting_colour(random, background)
    _polygon(canvas, centre + shape, colour)
    if random.random() < 0.5:
        _polygon(canvas, centre + shape, None, edge=tuple(channel // 3 for channel in colour), width=radius / 16)
    hub = random.uniform(0.2, 0.4) * _direction(np.linspace(0, 2 * np.pi, 60)) @ transform
    _polygon(canvas, centre + hub, _contrasting_colour(random, np.array(colour)))

    image = image.resize((width, height), Image.Resampling.BOX)
    image = image.filter(ImageFilter.GaussianBlur(random.uniform(0, 1.4)))
    grain = random.normal(0, random.uniform(2, 12), (height, width, 1)) + random.normal(0, 3, (height, width, 3))
    return Image.fromarray(np.clip(np.asarray(image) + grain, 0, 255).astype(np.uint8))


def _background(random: Random, width: int, height: int) -> tuple[NDArray[Any], Image.Image]:
    """Return the mean colour of a cloudy background, float64 [3], and the background at drawing scale."""
    colours = random.uniform(30, 225, (2, 3))
    clouds = Image.fromarray(random.integers(0, 256, random.integers(2, 7, 2), np.uint8))
    size = (width * _SCALE, height * _SCALE)
    one, other = (Image.new("RGB", size, tuple(colour.astype(int).tolist())) for colour in colours)
    image = Image.composite(one, other, clouds.resize(size, Image.Resampling.BICUBIC))
    return colours.mean(axis=0), image


def _clutter(random: Random, canvas: ImageDraw.ImageDraw, width: int, height: int) -> None:
    """Draw a disc, a triangle or a stroke at a random place."""
    centre, size = random.uniform(0, (width, height)), random.uniform(0.03, 0.16) * min(width, height)
    colour = (*random.integers(0, 256, 3).tolist(), int(random.integers(80, 220)))
    match random.integers(3):
        case 0:
            points = _direction(np.linspace(0, 2 * np.pi, 30)) * (size, size * random.uniform(0.4, 1))
        case 1:
            points = _direction(np.sort(random.uniform(0, 2 * np.pi, 3))) * size
        case _:
            points = np.array([[-3, -0.1], [3, -0.1], [3, 0.1], [-3, 0.1]]) * size
    _polygon(canvas, centre + points @ _rotation(random), colour)


def _polygon(
    canvas: ImageDraw.ImageDraw,
    points: NDArray[Any],
    fill: tuple[int, ...] | None,
    *,
    edge: tuple[int, ...] | None = None,
    width: float = 0,
) -> None:
    """Draw a polygon; points and width in pixels of the finished picture."""
    corners = [(x, y) for x, y in (points * _SCALE).tolist()]
    canvas.polygon(corners, fill, edge, width=max(1, round(width * _SCALE)))


def _rotation(random: Random) -> NDArray[Any]:
    """Return a rotation: float64 [2, 2]."""
    cosine, sine = _direction(random.uniform(0, 2 * np.pi))
    return np.array([[cosine, -sine], [sine, cosine]])


def _contrasting_colour(random: Random, other: NDArray[Any]) -> tuple[int, ...]:
    """Return a random colour that differs from `other` in brightness."""
    while True:
        colour = random.integers(0, 256, 3)
        if abs((colour - other) @ (0.299, 0.587, 0.114)) > 45:
            return tuple(colour.tolist())
