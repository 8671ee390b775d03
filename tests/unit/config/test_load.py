"""Loading the settings: every source says the same, precedence, and all mistakes reported at once."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from setting_values import VALUES, mistakes_of

from job.config import sources
from job.config.ineffective import find
from job.config.load import Loaded, load_settings
from job.config.presets import PRESETS
from job.config.settings import Settings, result_settings

GIVEN = st.fixed_dictionaries({}, optional=VALUES).filter(
    lambda given: not (given.get("input.group_column") and given.get("input.group_pattern"))  # only one may be set
)


def nest(values: dict[str, Any]) -> dict[str, Any]:
    """Return dotted names as groups."""
    nested: dict[str, Any] = {}
    for name, value in values.items():
        group, _, last = name.rpartition(".")
        (nested.setdefault(group, {}) if group else nested)[last] = value
    return nested


def text(value: object) -> str:
    """Return a value as one would write it in a variable or a flag."""
    if isinstance(value, list):
        return ",".join(value)
    return value if isinstance(value, str) else "" if value is None else json.dumps(value)


def load_from(file: dict[str, Any], environment: dict[str, Any], flags: dict[str, Any]) -> Loaded:
    """Write each of the settings where it belongs, and load them all."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "settings.yaml")
        path.write_text(yaml.safe_dump(nest(file), allow_unicode=True), encoding="utf-8")
        return load_settings(
            [
                "--config",
                str(path),
                *(f"--{name}={text(value)}" for name, value in flags.items() if value not in (None, [])),
            ],
            {sources.variable(name): text(value) for name, value in environment.items()},
        )


@pytest.mark.slow
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
        source: {name: value for name, value in values.items() if value not in (None, [])}
        for source, values in (("file", file), ("environment", environment), ("flag", flags))
    }
    values = {name: value for source in written.values() for name, value in source.items()}
    assume(not (values.get("input.group_column") and values.get("input.group_pattern")))  # a conflict
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
        "output.uri: must be given, as in --output.uri gs://my-bucket/trained",
    ]


def test_a_value_that_is_overruled_is_not_looked_at() -> None:
    """Only the value that counts must be right."""
    assert 3 == load_settings(["--run.seed", "3"], {"FINETUNE_RUN__SEED": "x"}).settings.run.seed


def test_what_is_wrong_alone_is_not_wrong_together() -> None:
    """A wrong value is reported once, not again beside the value that it would have to fit."""
    assert 1 == len(mistakes_of("--input.validation_fraction=x", "--input.test_fraction=0.9"))


def test_nothing_heavy_is_imported() -> None:
    """Settings are read without TensorFlow, NumPy or any client of a store."""
    heavy = "{'tensorflow', 'keras', 'numpy', 'google.cloud', 'obstore', 'kubernetes', 'h5py', 'PIL'}"
    program = "import sys; from job.config.load import load_settings; load_settings([], {})"
    code = f"{program}; print({heavy} & set(sys.modules))"

    assert "set()\n" == subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_preset() -> None:
    """A preset is a source of its own: it overrides defaults, and every other source overrides it."""
    variables = {"FINETUNE_FINE_TUNING__EPOCHS": "4"}
    loaded = load_settings(["--preset", "small-data", "--feature_extraction.learning_rate", "3e-3"], variables)
    expected = PRESETS["small-data"]

    assert (3e-3, 4) == (loaded.settings.feature_extraction.learning_rate, loaded.settings.fine_tuning.epochs)
    assert "small-data" == loaded.document()["settings"]["preset"]
    from_preset = {name for name, origin in loaded.origins.items() if origin == "preset"}
    assert expected.keys() - {"feature_extraction.learning_rate", "fine_tuning.epochs"} == from_preset
    assert float(expected["augmentation.crop"]) == loaded.settings.augmentation.crop


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_valid(name: str) -> None:
    """Every preset is a set of valid settings, each of which differs from its default and has an effect."""
    loaded = load_settings(["--preset", name], {})

    assert {*PRESETS[name]} == {name for name, origin in loaded.origins.items() if origin == "preset"}
    given = result_settings(loaded.settings).items() - result_settings(Settings()).items()
    assert {*PRESETS[name]} == {name for name, _ in given}
    assert {} == find(loaded.settings, (30, 10))


def test_run_of_a_preset_is_that_of_its_settings() -> None:
    """The preset's name has no part in the identity: the settings have."""
    flags = [f"--{name}={value}" for name, value in PRESETS["fast"].items()]

    assert result_settings(load_settings(["--preset=fast"], {}).settings) == result_settings(
        load_settings(flags, {}).settings
    )


def test_unknown_preset() -> None:
    """An unknown preset is named once, with those that there are."""
    [mistake] = mistakes_of("--preset=small")

    assert "preset = 'small' (flag --preset)" in mistake
    assert "'small-data'" in mistake
