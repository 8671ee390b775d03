"""The command `finetune validate`."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from listed_inputs import put
from PIL import Image
from structlog.testing import capture_logs

from job.commands import validate
from job.data.contact_sheet import SIDE, VERSIONS
from job.data.validation import Validation
from job.errors import DataError, SettingsError
from job.observability.progress import Progress

if TYPE_CHECKING:
    from pathlib import Path


def put_images(folder: Path, *names: str) -> Path:
    """Write images with different bytes."""
    file = io.BytesIO()
    Image.new("RGB", (120, 90), "red").save(file, "JPEG")
    for name in names:
        put(folder, [name], file.getvalue() + name.encode())
    return folder


@pytest.fixture
def animals(tmp_path: Path) -> Path:
    """Return a folder with two classes of 40 images."""
    return put_images(tmp_path / "in", *(f"{label}/{number}.jpg" for label in ("cats", "dogs") for number in range(40)))


def test_table_and_json(animals: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without TensorFlow, an input is judged, and reported as a table or as JSON."""
    with capture_logs():
        assert 0 == validate.parse(["--input.uri", str(animals)]).execute(Progress([]))
        assert capsys.readouterr().out.startswith(f"{animals}: 80 images, ")
        assert 0 == validate.parse(["--json", f"--input.uri={animals}"]).execute(Progress([]))
        assert 80 == json.loads(capsys.readouterr().out)["images"]


def test_settings_without_effect(animals: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What was set and has no effect is in the table and in the JSON, with the reason; the exit code stays 0."""
    arguments = ["--input.uri", str(animals), "--fine_tuning.patience=9", "--feature_extraction.min_delta=1"]

    with capture_logs():
        assert 0 == validate.parse(arguments).execute(Progress([]))
        table = capsys.readouterr().out
        assert 0 == validate.parse(["--json", *arguments]).execute(Progress([]))
        reasons = json.loads(capsys.readouterr().out)["without_effect"]

    assert {"fine_tuning.patience", "feature_extraction.min_delta"} == set(reasons)
    assert all(f"  {name}: {reason}" in table.splitlines() for name, reason in reasons.items())


def test_failure_is_told_after_the_table(animals: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Too many unusable images end with exit 3 as in a run; the table is printed before."""
    put(animals, [f"cats/bad{number}.jpg" for number in range(3)], b"<html>")

    with capture_logs(), pytest.raises(DataError, match="3 of 83 images"):
        validate.parse(["--json", "--input.uri", str(animals)]).execute(Progress([]))

    document = json.loads(capsys.readouterr().out)
    assert ({"not_an_image": 3}, 3) == (document["unusable"], document["failure"]["exit_code"])


def test_folders_that_are_no_classes(tmp_path: Path) -> None:
    """What a listing shows ends the command as it ends a run."""
    with pytest.raises(DataError, match="fit/  2 images: cats/ 1, dogs/ 1"):
        validate.parse(
            [
                "--input.uri",
                str(put_images(tmp_path, "fit/cats/1.jpg", "fit/dogs/1.jpg", "out/cats/1.jpg", "out/dogs/1.jpg")),
            ]
        ).execute(Progress([]))


def test_json_of_an_input_that_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A program gets the error as a document of the same schema; the exit code is that of a run."""
    put_images(tmp_path, "fit/cats/1.jpg", "fit/dogs/1.jpg", "out/cats/1.jpg", "out/dogs/1.jpg")

    with pytest.raises(DataError) as raised:
        validate.parse(["--json", "--input.uri", str(tmp_path)]).execute(Progress([]))

    document = Validation.model_validate_json(capsys.readouterr().out)
    assert (str(tmp_path), 0, None) == (document.uri, document.images, document.estimates)
    assert document.failure is not None
    assert (3, raised.value.message) == (document.failure.exit_code, document.failure.message)


def test_no_document_of_settings_that_are_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    """Mistakes in the settings are reported before there is an input."""
    with pytest.raises(SettingsError):
        validate.parse(["--json", "--input.uri", "gs://box/d", "--input.group_column=a", "--input.group_pattern=b"])

    assert "" == capsys.readouterr().out


def test_too_little_cache(animals: Path) -> None:
    """A cache that is too small for the data ends with exit 3."""
    with pytest.raises(DataError, match="the cache needs"):
        validate.parse(["--input.uri", str(animals), "--cache.max_bytes", "1000"]).execute(Progress([]))


def test_sheet(animals: Path, tmp_path: Path) -> None:
    """The contact sheet is written where the flag says."""
    path = tmp_path / "sheet.jpg"

    validate.parse(["--sheet", str(path), "--input.uri", str(animals)]).execute(Progress([]))

    assert path.read_bytes().startswith(b"\xff\xd8")


def test_sheet_of_augmented_images(animals: Path, tmp_path: Path) -> None:
    """With augmentation, images as they are trained on are drawn beside it, in rows of one image and its versions."""
    arguments = ["--sheet", str(tmp_path / "sheet.jpg"), "--input.uri", str(animals), "--augmentation.rotation", "90"]

    validate.parse([*arguments, "--model.image_size", "32"]).execute(Progress([]))

    with Image.open(tmp_path / "sheet-augmented.jpg") as sheet:
        assert sheet.width > VERSIONS * SIDE


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--sheet"], "--sheet ''"),
        (["--sheet", "x.png"], "x.png"),
        (["--sheet=/nowhere/x.jpg"], "/nowhere/x.jpg"),
        ([], "input.uri: must be given"),
        (["--json", "--input.uri", "/in", "--deeper"], "--deeper"),
        (["--json=yes", "--input.uri", "/in"], "--json"),
    ],
)
def test_mistakes(arguments: list[str], named: str) -> None:
    """A mistake in the flags names it."""
    with pytest.raises(SettingsError) as raised:
        validate.parse(arguments)

    assert named in raised.value.message


@pytest.mark.slow
def test_no_tensorflow(animals: Path) -> None:
    """Headers are judged where TensorFlow is not installed."""
    code = (
        "import sys; sys.modules['tensorflow'] = sys.modules['keras'] = None\n"
        "from job.commands import validate\nfrom job.observability.progress import Progress\n"
        f"sys.exit(validate.parse(['--input.uri', {str(animals)!r}]).execute(Progress([])))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)

    assert 0 == done.returncode, done.stderr
    assert done.stdout.splitlines()[-1].startswith("a run can train on these data")
