"""The settings: their defaults, their valid values and combinations, and which of them change the result."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING

import pytest
from pydantic import ValidationError
from setting_values import mistakes_of

from job.config.load import load_settings
from job.config.settings import (
    _RESULT_IF_SET,
    STAGES,
    RunSettings,
    Settings,
    result_settings,
    runs_backbone,
    setting_fields,
    view_count,
)
from job.config.sources import variable

if TYPE_CHECKING:
    from pathlib import Path


def test_defaults() -> None:
    """Nothing given: the recipe's own numbers, which differ between the stages only in the learning rate."""
    settings = load_settings([], {}).settings

    assert Settings() == settings
    stages = [dict(settings.feature_extraction), dict(settings.fine_tuning)]
    for stage, learning_rate in zip(stages, (1e-4, 1e-5), strict=True):
        numbers = [stage.pop(name) for name in ("epochs", "learning_rate", "batch_size")]
        assert [10, learning_rate, 32] == numbers
        assert "constant" == stage.pop("schedule")
        assert stage.pop("views", 4) == 4
        assert not any(stage.values()), "everything else is off"


@pytest.mark.parametrize("stage", STAGES)
def test_learning_rate_that_would_rise(stage: str) -> None:
    """A minimum above the learning rate is refused, naming both; one that is equal is not."""
    [mistake] = mistakes_of(f"--{stage}.min_learning_rate=0.1", f"--{stage}.learning_rate=0.01")

    assert f"{stage}.min_learning_rate = '0.1'" in mistake
    assert f"{stage}.learning_rate = '0.01'" in mistake
    load_settings([f"--{stage}.min_learning_rate=0.1", f"--{stage}.learning_rate=0.1"], {})


def test_a_stage_keeps_its_own_defaults() -> None:
    """A stage of which one setting is given has its own learning rate, not the other stage's."""
    settings = load_settings(["--fine_tuning.epochs", "3", "--feature_extraction.epochs", "4"], {}).settings

    assert (3, 1e-5) == (settings.fine_tuning.epochs, settings.fine_tuning.learning_rate)
    assert (4, 1e-4) == (settings.feature_extraction.epochs, settings.feature_extraction.learning_rate)


def test_settings_are_frozen_and_closed() -> None:
    """Settings cannot be changed, and none can be made up."""
    with pytest.raises(ValidationError, match="frozen"):
        Settings().run.seed = 3  # type: ignore[misc]  # that is the point
    with pytest.raises(ValidationError, match="Extra inputs"):
        RunSettings.model_validate({"sede": 3})


@pytest.mark.parametrize(
    ("flag", "mistake"),
    [
        ("input.uri=gs:/bkt/d", "did you mean gs://bkt/d?"),
        ("input.uri=bkt/d", "there is no such folder here: did you mean gs://bkt/d or ./bkt/d?"),
        ("input.validation_fraction=0", "must be greater than 0"),
        ("input.validation_fraction=1", "must be less than 1"),
        ("input.test_fraction=-0.1", "must be greater than or equal to 0"),
        ("input.max_bad_fraction=nan", "must be a finite number"),
        ("output.uri=s3://bkt/d", "s3:// is not supported"),
        ("run.id=../escape", "must be 1 to 100 letters, digits, '.', '_' or '-'"),
        ("run.id=1e+06", "must be 1 to 100 letters, digits, '.', '_' or '-'"),
        ("run.seed=-1", "must be greater than or equal to 0"),
        ("run.seed=yes", "must be a valid integer"),
        ("model.backbone=VGG16", "must be 'MobileNetV2'"),
        ("model.image_size=31", "must be greater than or equal to 32"),
        ("model.image_size=1025", "must be less than or equal to 1024"),
        ("model.weights=imagenett", "must be imagenet, none, latest, gs://… or a path with a slash in it"),
        ("model.weights=", "must be imagenet, none, latest, gs://… or a path with a slash in it"),
        ("model.dropout=1", "must be less than 1"),
        ("feature_extraction.learning_rate=0", "must be greater than 0"),
        ("feature_extraction.learning_rate=inf", "must be a finite number"),
        ("fine_tuning.batch_size=0", "must be greater than or equal to 1"),
        ("keep=first", "must be 'best' or 'last'"),
        ("device.require_gpu=maybe", "must be a valid boolean"),
        ("device.threads=0", "must be greater than or equal to 1"),
        ("cache.dir=gs://bkt/cache", "must be a local folder"),
        ("gate.min_accuracy=1.1", "must be less than or equal to 1"),
        ("gate.min_auc=-0.1", "must be greater than or equal to 0"),
        ("gate.no_worse_than_latest=1", "must be less than 1"),
        ("log.level=loud", "must be 'debug', 'info', 'warning' or 'error'"),
    ],
)
def test_wrong_values(flag: str, mistake: str) -> None:
    """A wrong value is reported with its name, its origin and what was expected."""
    (found,) = mistakes_of(f"--{flag}")

    name, _, value = flag.partition("=")
    assert found.startswith(f"{name} = {value!r} (flag --{name}): ")
    assert mistake in found


@pytest.mark.parametrize("name", ["input.uri", "output.uri", "model.weights", "model.weights_dir", "cache.dir"])
@pytest.mark.parametrize(
    "value",
    [
        '"gs://b/o"',
        "'gs://b/o'",
        '"/data/o"',
        "'data'",
        '"imagenet"',
        '"gs://b/o',
        "“gs://b/o”",
        "`/o`",
        ' "/o" ',
        '""',
    ],
)
def test_values_in_quotes(name: str, value: str) -> None:
    """Quotes that no shell has removed are reported with the value: they are not part of any URI or path."""
    (found,) = mistakes_of(environment={variable(name): value})

    assert f"{value!r}: the quotes are part of the value" in found


def test_name_that_begins_with_a_quote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder whose name begins with a quote is read where the path says that it is one."""
    monkeypatch.chdir(tmp_path)

    assert f"{tmp_path}/'90s" == load_settings(["--input.uri", "./'90s"], {}).settings.input.uri


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        (
            ["--feature_extraction.epochs=0", "--fine_tuning.epochs=0"],
            ["feature_extraction.epochs", "fine_tuning.epochs"],
        ),
        (["--input.validation_fraction=.5", "--input.test_fraction=.5"], ["validation_fraction", "test_fraction"]),
        (["--input.group_column=a", "--input.group_pattern=b"], ["input.group_column", "input.group_pattern"]),
        (["--model.alpha=0.4"], ["model.alpha", "model.weights"]),
        (["--model.alpha=1.3", "--model.backbone=MobileNetV3Small"], ["model.alpha", "model.weights"]),
        (
            ["--model.alpha=0.5", "--model.backbone=ResNet50", "--model.weights=none"],
            ["model.alpha", "model.backbone"],
        ),
        (["--fine_tuning.cache_frozen"], ["fine_tuning.cache_frozen", "fine_tuning.from_layer"]),
        (["--input.uri=gs://bkt/d", "--output.uri=gs://bkt/d"], ["output.uri", "input.uri"]),
        (["--input.uri=gs://bkt/d", "--output.uri=gs://bkt/d/out/"], ["output.uri", "input.uri"]),
        (["--input.uri=/d", "--output.uri=/d/out"], ["output.uri", "input.uri"]),
        (["--input.uri=/o/runs", "--output.uri=/o"], ["output.uri", "input.uri"]),
        (["--input.uri=/d", "--cache.dir=/d/cache"], ["cache.dir", "input.uri"]),
        (["--workers.index=1"], ["workers.index", "workers.count"]),
        (["--workers.count=2", "--run.job_uid=u", "--workers.addresses=a:1"], ["workers.addresses", "workers.count"]),
        (["--workers.count=2", "--run.job_uid=u", "--workers.addresses=a:1,a:1"], ["workers.addresses"]),
        (["--workers.count=2", "--workers.addresses=a:1,b:1"], ["run.job_uid", "workers.count"]),
    ],
)
def test_values_that_are_wrong_together(flags: list[str], names: list[str]) -> None:
    """Values that are valid alone and conflict together are reported with the names of both."""
    (found,) = mistakes_of(*flags)

    assert all(name in found for name in names)


@pytest.mark.parametrize(
    "flags",
    [
        ["--model.alpha=0.4", "--model.weights=none"],
        ["--fine_tuning.epochs=0"],
        ["--input.uri=gs://bkt/d", "--output.uri=gs://bkt/d_out"],
        ["--input.uri=gs://bkt/d", "--output.uri=gs://bkt"],
        ["--input.uri=gs://bkt/d", "--cache.dir=/d/cache"],
        ["--output.uri=/o"],
        ["--workers.count=2", "--workers.index=1", "--workers.addresses=a:1,[::1]:2", "--run.job_uid=u"],
    ],
)
def test_values_that_are_right_together(flags: list[str]) -> None:
    """Nothing is refused that only looks like a mistake."""
    load_settings(flags, {})


def test_an_output_that_is_linked_into_the_input(tmp_path: Path) -> None:
    """A link does not hide that the output lies inside the input."""
    (tmp_path / "pictures").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "pictures")

    assert 1 == len(mistakes_of(f"--input.uri={tmp_path}/pictures", f"--output.uri={tmp_path}/link/out"))


def test_a_folder_that_looks_like_a_bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path is taken where there is such a folder, and becomes absolute."""
    (tmp_path / "bkt" / "d").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)

    assert f"{tmp_path}/bkt/d" == load_settings(["--input.uri", "bkt/d"], {}).settings.input.uri
    assert f"{tmp_path}/nowhere" == load_settings(["--input.uri", "./nowhere"], {}).settings.input.uri


def test_result_settings() -> None:
    """Those that change the result are part of the run's identity; where it is stored, runs and logs is not."""
    names = set(result_settings(Settings()))

    names_of_stages = itertools.product(STAGES, ("epochs", "learning_rate", "batch_size"))
    assert {f"{stage}.{name}" for stage, name in names_of_stages} < names
    assert {"run.seed", "run.reproducible", "model.backbone", "model.weights", "keep", "input.test_fraction"} < names
    assert not [name for name in names if name.startswith(("output.", "cache.", "checkpoint.", "log."))]
    assert {"device.mixed_precision"} == {name for name in names if name.startswith("device.")}
    assert not {"input.uri", "run.id", "run.job_uid", "model.weights_dir", "gate.min_accuracy"} & names


def test_result_settings_added_later() -> None:
    """A setting that version 0.1.0 did not have counts where it differs from its default: runs keep their names."""
    later = {name for name, field in setting_fields().items() if (field.json_schema_extra or {}) == _RESULT_IF_SET}

    assert {"export.formats", "input.damaged", "input.group_pattern", "train.class_weight", "train.initial_bias"} == {
        name for name in later if not name.startswith(("feature_extraction.", "fine_tuning.", "augmentation."))
    }
    assert {name for name in setting_fields() if name.startswith("augmentation.")} < later
    options = {"schedule", "warmup_epochs", "min_learning_rate", "patience", "min_delta", "restore"}
    options |= {"weight_decay", "clip_norm", "label_smoothing"}
    for stage in STAGES:
        found = {name.partition(".")[2] for name in later if name.startswith(f"{stage}.")}
        assert options == found - {"views", "from_layer", "cache_frozen"}
    assert not later & set(result_settings(Settings()))
    assert "a(.)" == result_settings(load_settings(["--input.group_pattern=a(.)"], {}).settings)["input.group_pattern"]


@pytest.mark.parametrize("text", ["onnx,tflite", "tflite,onnx", "tflite, onnx, tflite"])
def test_formats_are_a_set(text: str) -> None:
    """The order of the formats makes no other run."""
    assert ["onnx", "tflite"] == result_settings(load_settings(["--export.formats", text], {}).settings)[
        "export.formats"
    ]


def test_result_settings_follow_the_values() -> None:
    """The values are those of the settings, in types that JSON has."""
    settings = load_settings(["--run.seed=3", "--keep=last", "--fine_tuning.epochs=4"], {}).settings

    result = result_settings(settings)

    assert (3, "last", 4) == (result["run.seed"], result["keep"], result["fine_tuning.epochs"])
    assert result == json.loads(json.dumps(result))


@pytest.mark.parametrize(
    ("flags", "versions", "backbone"),
    [
        ([], 0, False),
        (["--feature_extraction.views=0"], 0, False),
        (["--augmentation.flip=both"], 4, False),
        (["--augmentation.brightness=0.1", "--feature_extraction.views=2"], 2, False),
        (["--augmentation.crop=0.1", "--feature_extraction.epochs=3"], 3, False),
        (["--augmentation.zoom=0.1", "--feature_extraction.views=0"], 0, True),
        (["--augmentation.mixup=0.2"], 0, False),
        (["--augmentation.mixup=0.2", "--feature_extraction.views=0"], 0, True),
    ],
)
def test_how_stage_1_augments(flags: list[str], versions: int, *, backbone: bool) -> None:
    """It has features of some versions of each image, at most one an epoch, or computes them in its steps."""
    settings = load_settings(flags, {}).settings

    assert (versions, backbone) == (view_count(settings), runs_backbone(settings))


@pytest.mark.parametrize(
    "flag",
    ["flip=diagonal", "rotation=181", "zoom=1", "shift=-0.1", "crop=1", "brightness=1.1", "contrast=2", "mixup=2"],
)
def test_ranges_of_augmentation(flag: str) -> None:
    """A value out of range is named with its setting."""
    [mistake] = mistakes_of(f"--augmentation.{flag}")

    name, _, value = flag.partition("=")
    assert mistake.startswith(f"augmentation.{name} = {value!r}")
