"""A format whose packages are missing is reported before anything is read or written."""

from __future__ import annotations

import pytest

from job.commands import run
from job.errors import SettingsError
from job.export import formats


def test_all_packages_are_here() -> None:
    """In a development environment, every format can be converted."""
    formats.check_installed(formats.FILES)


def test_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """`finetune run` ends with exit 2, and names the format, the package and the image's build argument."""
    monkeypatch.setitem(formats.PACKAGES, "onnx", ("tf2onnx", "no_such_package"))

    with pytest.raises(SettingsError) as caught:
        run.parse(["--output.uri", "/nowhere", "--export.formats", "tflite,onnx"])

    assert 2 == caught.value.exit_code
    assert "export.formats has onnx, and no_such_package is not installed" == caught.value.message
    assert (
        "build the image with --build-arg EXPORTS=onnx (in a checkout: pip install '.[onnx]'), or leave onnx out"
        == caught.value.remedy
    )


def test_formats_without_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """The formats of TensorFlow Lite require TensorFlow alone."""
    monkeypatch.setitem(formats.PACKAGES, "onnx", ("no_such_package",))

    formats.check_installed(["tflite", "tflite_int8"])
