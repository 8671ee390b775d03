"""job/config/settings.py: every setting can be given in every way, and every mistake is told at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from job.config import environment, reference, sources
from job.config.load import Loaded, load_settings
from job.config.settings import IMAGENET_ALPHAS, RunSettings, Settings, result_settings
from job.errors import SettingsError

WORDS = st.text(st.characters(exclude_categories=["Cc", "Cs", "Z"], exclude_characters="/"), min_size=1, max_size=8)
FRACTIONS = st.floats(0.01, 0.49)
POSITIVE = st.floats(0, exclude_min=True, allow_infinity=False)
COUNTS = st.integers(1, 2**53)
IDS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)

# The places are such that none lies inside another.
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "input.uri": st.builds("gs://pictures/{}/{}".format, WORDS, WORDS) | st.just("") | st.just("/in"),
    "input.format": st.sampled_from(["auto", "folders", "csv", "jsonl"]),
    "input.validation_fraction": FRACTIONS,
    "input.test_fraction": FRACTIONS,
    "input.max_bad_fraction": st.floats(0, 1),
    "input.max_pixels": COUNTS,
    "input.user_project": WORDS,
    "output.uri": st.builds("gs://out/{}".format, WORDS) | st.builds("/out/{}".format, WORDS.filter(str.isalnum)),
    "run.id": IDS | st.just(""),
    "run.job_uid": IDS | st.just(""),
    "run.seed": st.integers(0, 2**32 - 1),
    "run.reproducible": st.booleans(),
    "model.backbone": st.just("MobileNetV2"),
    "model.alpha": st.sampled_from(IMAGENET_ALPHAS),
    "model.image_size": st.integers(32, 1024),
    "model.weights": st.sampled_from(["imagenet", "none", "/weights.h5", "gs://weights/w.h5"]),
    "model.weights_dir": st.just("/somewhere"),
    "model.head_units": COUNTS,
    "model.dropout": st.floats(0, 1, exclude_max=True),
    "feature_extraction.epochs": COUNTS,
    "feature_extraction.learning_rate": POSITIVE,
    "feature_extraction.batch_size": COUNTS,
    "fine_tuning.epochs": st.integers(0, 9),
    "fine_tuning.learning_rate": POSITIVE,
    "fine_tuning.batch_size": COUNTS,
    "keep": st.sampled_from(["best", "last"]),
    "device.require_gpu": st.booleans(),
    "device.threads": COUNTS | st.none(),
    "device.mixed_precision": st.sampled_from(["auto", "float32", "bfloat16", "float16"]),
    "device.xla": st.booleans() | st.none(),
    "device.memory_growth": st.booleans() | st.none(),
    "device.stall_minutes": POSITIVE,
    "cache.dir": st.sampled_from(["", "/cache"]),
    "cache.max_bytes": st.integers(0, 2**53) | st.none(),
    "checkpoint.interval": POSITIVE,
    "checkpoint.takeover": POSITIVE,
    "gate.min_accuracy": st.floats(0, 1),
    "export.verify_images": COUNTS,
    "events.enabled": st.booleans(),
    "events.pod_name": WORDS,
    "events.pod_uid": WORDS,
    "events.job_name": WORDS,
    "log.format": st.sampled_from(["auto", "console", "json"]),
    "log.level": st.sampled_from(["debug", "info", "warning", "error"]),
}
GIVEN = st.fixed_dictionaries({}, optional=VALUES)


def nest(values: dict[str, Any]) -> dict[str, Any]:
    """Return dotted names as groups."""
    nested: dict[str, Any] = {}
    for name, value in values.items():
        group, _, last = name.rpartition(".")
        (nested.setdefault(group, {}) if group else nested)[last] = value
    return nested


def text(value: object) -> str:
    """Return a value as one would write it in a variable or a flag."""
    return value if isinstance(value, str) else "" if value is None else json.dumps(value)


def load_from(file: dict[str, Any], environment: dict[str, Any], flags: dict[str, Any]) -> Loaded:
    """Write each of the settings where it belongs, and load them all."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "settings.yaml")
        path.write_text(yaml.safe_dump(nest(file), allow_unicode=True), encoding="utf-8")
        return load_settings(
            ["--config", str(path), *(f"--{name}={text(value)}" for name, value in flags.items() if value is not None)],
            {sources.variable(name): text(value) for name, value in environment.items()},
        )


def mistakes_of(*flags: str, environment: dict[str, str] | None = None, required: tuple[str, ...] = ()) -> list[str]:
    """Return the lines of the error that these settings raise."""
    with pytest.raises(SettingsError) as raised:
        load_settings(flags, environment or {}, required=required)
    return [line.strip() for line in raised.value.message.splitlines()[1:]]


def test_values_cover_every_setting() -> None:
    """The strategies above leave no setting out."""
    assert [row.name for row in reference.rows()] == list(VALUES)


def test_defaults() -> None:
    """Nothing given: the recipe's own numbers, which differ between the stages only in the learning rate."""
    settings = load_settings([], {}).settings

    assert Settings() == settings
    assert (10, 1e-4, 32) == tuple(dict(settings.feature_extraction).values())
    assert (10, 1e-5, 32) == tuple(dict(settings.fine_tuning).values())


def test_a_stage_keeps_its_own_defaults() -> None:
    """A stage of which one setting is given has its own learning rate, not the other stage's."""
    settings = load_settings(["--fine_tuning.epochs", "3", "--feature_extraction.epochs", "4"], {}).settings

    assert (3, 1e-5) == (settings.fine_tuning.epochs, settings.fine_tuning.learning_rate)
    assert (4, 1e-4) == (settings.feature_extraction.epochs, settings.feature_extraction.learning_rate)


@settings(deadline=None)  # the machine may be busy
@given(GIVEN)
def test_every_source_says_the_same(values: dict[str, Any]) -> None:
    """The same values give the same settings from the file, the environment, the flags and in Python."""
    expected = Settings.model_validate(nest(values))

    assert expected == load_from(values, {}, {}).settings
    assert expected == load_from({}, values, {}).settings
    assert expected == load_from({}, {}, values).settings


@settings(deadline=None)  # the machine may be busy
@given(GIVEN, GIVEN, GIVEN)
def test_precedence(file: dict[str, Any], environment: dict[str, Any], flags: dict[str, Any]) -> None:
    """Flags win over the environment, it over the file, it over the defaults; and the origins say so."""
    written = {
        source: {name: value for name, value in values.items() if value is not None}
        for source, values in (("file", file), ("environment", environment), ("flag", flags))
    }
    values = {name: value for source in written.values() for name, value in source.items()}
    origins = dict.fromkeys(VALUES, "default") | {name: source for source in written for name in written[source]}

    loaded = load_from(file, environment, flags)

    assert Settings.model_validate(nest(values)) == loaded.settings
    assert origins == loaded.origins


@settings(deadline=None)  # the machine may be busy
@given(GIVEN)
def test_document_can_be_read_again(values: dict[str, Any]) -> None:
    """What config.json holds gives the same settings again, and names the origin of each."""
    loaded = load_from({}, {}, values)

    document = json.loads(json.dumps(loaded.document()))

    assert loaded.settings == Settings.model_validate(document["settings"])
    assert list(VALUES) == list(document["origins"])


def test_numbers_as_templates_write_them() -> None:
    """A whole number may come in scientific notation, as long as it is whole."""
    settings = load_settings(
        ["--run.seed", "1e+06", "--cache.max_bytes=5.36870912e+10", "--device.threads", "2.0"], {}
    ).settings

    assert (1_000_000, 53_687_091_200, 2) == (settings.run.seed, settings.cache.max_bytes, settings.device.threads)
    assert ["run.seed = '1.5e0' (flag --run.seed): must be a valid integer"] == mistakes_of("--run.seed", "1.5e0")
    assert 1 == len(mistakes_of("--cache.max_bytes", "1e999999999"))


def test_settings_are_frozen_and_closed() -> None:
    """Settings cannot be changed, and none can be made up."""
    with pytest.raises(ValidationError, match="frozen"):
        Settings().run.seed = 3  # type: ignore[misc]  # that is the point
    with pytest.raises(ValidationError, match="Extra inputs"):
        RunSettings.model_validate({"sede": 3})


def test_all_mistakes_at_once(tmp_path: Path) -> None:
    """File, environment and flags, unknown names, wrong values, values wrong together, what is missing: one error."""
    file = tmp_path / "settings.yaml"
    file.write_text("run:\n  sede: 3\nfine_tuning: {epochs: -3}\nmodel: {alpha: 0.4}\n")

    mistakes = mistakes_of(
        "--config",
        str(file),
        "--inptu.uri",
        "x",
        "--input.test_fraction=0.9",
        environment={"FINETUNE_RUN__SEDE": "3", "FINETUNE_GATE__MIN_ACCURACY": "high"},
        required=("output.uri",),
    )

    assert mistakes == [
        "flag --inptu.uri: unknown setting 'inptu.uri': did you mean input.uri?",
        f"{file}, line 2: unknown setting 'run.sede': did you mean run.seed?",
        "variable FINETUNE_RUN__SEDE: unknown setting: did you mean FINETUNE_RUN__SEED?",
        f"fine_tuning.epochs = '-3' ({file}, line 3): must be greater than or equal to 0",
        "gate.min_accuracy = 'high' (variable FINETUNE_GATE__MIN_ACCURACY): must be a valid number",
        (
            "input.validation_fraction = 0.2 (the default), input.test_fraction = '0.9' (flag --input.test_fraction): "
            "together must be below 1: something must remain to train on"
        ),
        (
            f"model.alpha = '0.4' ({file}, line 4), model.weights = 'imagenet' (the default): "
            "ImageNet weights exist for alpha 0.35, 0.5, 0.75, 1.0, 1.3, 1.4: other widths need other weights"
        ),
        "output.uri: must be given, as in --output.uri gs://my-bucket/flowers",
    ]


def test_a_value_that_is_overruled_is_not_looked_at() -> None:
    """Only the value that counts must be right."""
    assert 3 == load_settings(["--run.seed", "3"], {"FINETUNE_RUN__SEED": "x"}).settings.run.seed


def test_what_is_wrong_alone_is_not_wrong_together() -> None:
    """A wrong value is told once, not again beside the value that it would have to fit."""
    assert 1 == len(mistakes_of("--input.validation_fraction=x", "--input.test_fraction=0.9"))


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
        ("model.weights=imagenett", "must be imagenet, none, gs://… or a path with a slash in it"),
        ("model.weights=", "must be imagenet, none, gs://… or a path with a slash in it"),
        ("model.dropout=1", "must be less than 1"),
        ("feature_extraction.learning_rate=0", "must be greater than 0"),
        ("feature_extraction.learning_rate=inf", "must be a finite number"),
        ("fine_tuning.batch_size=0", "must be greater than or equal to 1"),
        ("keep=first", "must be 'best' or 'last'"),
        ("device.require_gpu=maybe", "must be a valid boolean"),
        ("device.threads=0", "must be greater than or equal to 1"),
        ("cache.dir=gs://bkt/cache", "must be a local folder"),
        ("gate.min_accuracy=1.1", "must be less than or equal to 1"),
        ("log.level=loud", "must be 'debug', 'info', 'warning' or 'error'"),
    ],
)
def test_wrong_values(flag: str, mistake: str) -> None:
    """A wrong value is told with its name, its origin and what was expected."""
    (found,) = mistakes_of(f"--{flag}")

    name, _, value = flag.partition("=")
    assert found.startswith(f"{name} = {value!r} (flag --{name}): ")
    assert mistake in found


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        (
            ["--feature_extraction.epochs=0", "--fine_tuning.epochs=0"],
            ["feature_extraction.epochs", "fine_tuning.epochs"],
        ),
        (["--input.validation_fraction=.5", "--input.test_fraction=.5"], ["validation_fraction", "test_fraction"]),
        (["--model.alpha=0.4"], ["model.alpha", "model.weights"]),
        (["--input.uri=gs://bkt/d", "--output.uri=gs://bkt/d"], ["output.uri", "input.uri"]),
        (["--input.uri=gs://bkt/d", "--output.uri=gs://bkt/d/out/"], ["output.uri", "input.uri"]),
        (["--input.uri=/d", "--output.uri=/d/out"], ["output.uri", "input.uri"]),
        (["--input.uri=/o/runs", "--output.uri=/o"], ["output.uri", "input.uri"]),
        (["--input.uri=/d", "--cache.dir=/d/cache"], ["cache.dir", "input.uri"]),
    ],
)
def test_values_that_are_wrong_together(flags: list[str], names: list[str]) -> None:
    """Values that are right alone and wrong together are told with the names of both."""
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
    """Those that change the result are part of the run's identity; where it lies, runs and is told are not."""
    names = set(result_settings(Settings()))

    assert {name for name in VALUES if name.startswith(("feature_extraction.", "fine_tuning."))} < names
    assert {"run.seed", "run.reproducible", "model.backbone", "model.weights", "keep", "input.test_fraction"} < names
    assert not [name for name in names if name.startswith(("output.", "cache.", "checkpoint.", "log."))]
    assert {"device.mixed_precision"} == {name for name in names if name.startswith("device.")}
    assert not {"input.uri", "run.id", "run.job_uid", "model.weights_dir", "gate.min_accuracy"} & names


def test_result_settings_follow_the_values() -> None:
    """The values are those of the settings, in types that JSON has."""
    settings = load_settings(["--run.seed=3", "--keep=last", "--fine_tuning.epochs=4"], {}).settings

    result = result_settings(settings)

    assert (3, "last", 4) == (result["run.seed"], result["keep"], result["fine_tuning.epochs"])
    assert result == json.loads(json.dumps(result))


def test_json_schema() -> None:
    """Every object of the schema is closed, and every setting has a description, its default and its choices."""
    schema = reference.json_schema()

    for group in [schema, *schema["$defs"].values()]:
        assert group["additionalProperties"] is False
    for row in reference.rows():
        group, _, last = row.name.rpartition(".")
        definition = schema["properties"][group]["$ref"] if group else ""
        setting = (schema["$defs"][definition.removeprefix("#/$defs/")] if group else schema)["properties"][last]
        assert "\n" not in setting["description"]
        assert json.loads(row.default) == setting["default"]
    assert ["best", "last"] == schema["properties"]["keep"]["enum"]


def test_settings_table() -> None:
    """The README's table has a row for every setting, with its default, its variable and its choices."""
    lines = reference.settings_table().splitlines()

    assert len(VALUES) == len(lines) - 2
    assert lines[2].startswith('| `input.uri` | `""` | `FINETUNE_INPUT__URI` | Labelled images: ')
    assert all(line.count(" | ") == 3 and len(line.rpartition(" | ")[2]) > 10 for line in lines[2:])
    assert "One of: `best`, `last`." in reference.settings_table()


def test_the_environment_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others read and set variables here; what the user has set stays."""
    monkeypatch.setenv("FINETUNE_RUN__SEED", "3")
    monkeypatch.setenv("A_VARIABLE", "set")
    monkeypatch.delenv("ANOTHER_VARIABLE", raising=False)

    environment.set_default("A_VARIABLE", "default")
    environment.set_default("ANOTHER_VARIABLE", "default")

    assert 3 == load_settings([]).settings.run.seed
    assert ("set", None) == (environment.get("A_VARIABLE"), environment.get("NO_SUCH_VARIABLE"))
    assert {"ANOTHER_VARIABLE": "default", "EXTRA": "1"}.items() <= environment.for_child(EXTRA="1").items()
    assert "EXTRA" not in os.environ
    monkeypatch.delenv("ANOTHER_VARIABLE")


def test_nothing_heavy_is_imported() -> None:
    """Settings are read without TensorFlow, NumPy or any client of a store."""
    heavy = "{'tensorflow', 'keras', 'numpy', 'google.cloud', 'obstore', 'kubernetes', 'h5py', 'PIL'}"
    program = "import sys; from job.config.load import load_settings; load_settings([], {})"
    code = f"{program}; print({heavy} & set(sys.modules))"

    assert "set()\n" == subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_origins_are_those_of_the_type() -> None:
    """The words for where a setting came from are the ones that config.json documents."""
    assert ("default", "file", "environment", "flag") == get_args(sources.Origin)
