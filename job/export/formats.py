"""The optional formats of `export.formats`: their files, and the packages that they require.

TensorFlow is not imported, so that a missing package is reported before anything is read.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Final, get_args

from job.config.settings import ExportFormat
from job.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

FILES: Final[Mapping[ExportFormat, str]] = {
    "tflite": "model.tflite",
    "tflite_int8": "model_int8.tflite",
    "onnx": "model.onnx",
}
"""Format -> name of its file under ``model/``."""

assert set(FILES) == set(get_args(ExportFormat))

PACKAGES: Final[Mapping[ExportFormat, tuple[str, ...]]] = {"onnx": ("tf2onnx", "onnxruntime")}
"""Format -> the packages that it requires beside TensorFlow: those of the extra of its name."""


def check_installed(formats: Iterable[ExportFormat]) -> None:
    """Check that the packages of the formats are installed, without importing them.

    Raises:
        SettingsError: one is missing.
    """
    for name in formats:
        if missing := [package for package in PACKAGES.get(name, ()) if importlib.util.find_spec(package) is None]:
            raise SettingsError(
                f"export.formats has {name}, and {' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not "
                "installed",
                remedy=f"build the image with --build-arg EXPORTS={name} (in a checkout: pip install '.[{name}]'), or "
                f"leave {name} out",
            )
