"""Hints for names that people bring from other tools: each is right, or there is none."""

from __future__ import annotations

import re

import pytest

from job.config.hints import ELSEWHERE, did_you_mean, hint, similar
from job.config.settings import setting_fields

KINDS = ["input.uri", "run.seed", "device.require_gpu", "one.epochs", "two.epochs"]


@pytest.mark.parametrize("name", sorted(ELSEWHERE))
def test_every_hint_names_what_exists(name: str) -> None:
    """Each setting in a hint exists, and the name itself is spelt as it is searched."""
    settings = re.findall(r"--([a-z_.]*[a-z])", ELSEWHERE[name])

    assert set(settings) <= {*setting_fields(), "config"}
    assert settings or ELSEWHERE[name].startswith("nothing: ")
    assert re.fullmatch("[a-z0-9_]+", name)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("lr", "feature_extraction.learning_rate"),
        ("learning-rate", "fine_tuning.learning_rate"),
        ("num-train-epochs", "feature_extraction.epochs"),
        ("data", "input.uri"),
        ("data-dir", "input.uri"),
        ("out", "output.uri"),
        ("-o", "output.uri"),
        ("output-dir", "output.uri"),
        ("imgsz", "model.image_size"),
        ("batch-size", "fine_tuning.batch_size"),
        ("resume", "a run resumes by itself"),
        ("gpu", "device.require_gpu"),
        ("workers", "device.threads"),
        ("patience", "keep=best"),
        ("optimizer", "Adam"),
        ("amp", "device.mixed_precision"),
        ("validation-split", "input.validation_fraction"),
        ("verbose", "log.level"),
    ],
)
def test_names_of_other_tools(name: str, meant: str) -> None:
    """What other tools call a setting is answered with its name here."""
    assert hint(name, KINDS).startswith(": use ")
    assert meant in hint(name, KINDS)


@pytest.mark.parametrize("name", ["out_of_place", "momentum", "fold", "profile", "ema", "zzz"])
def test_no_hint(name: str) -> None:
    """There is none for what does not exist here, however it is spelt."""
    assert not hint(name, setting_fields())


def test_did_you_mean() -> None:
    """A misspelt name is similar to that of a setting, or to its last part; up to three are named."""
    assert ": did you mean input.uri?" == did_you_mean("Input.URL", KINDS)
    assert ": did you mean device.require_gpu?" == did_you_mean("device.require-gpu", KINDS)
    assert ": did you mean one.epochs or two.epochs?" == did_you_mean("epoch_", KINDS)
    assert ["run.seed"] == similar("sede", KINDS)
    assert ["run"] == similar("rum", ["run", "demo"])
    assert not did_you_mean("zzz", KINDS)
    assert not did_you_mean("seed", [])
