"""What may be written in the settings file, the environment and the flags, and how mistakes are reported."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import pytest

from job.config.hints import ELSEWHERE
from job.config.sources import Kind, Origin, Sources, variable

if TYPE_CHECKING:
    from pathlib import Path

KINDS: dict[str, Kind] = {
    "input.exclude": "list",
    "input.uri": "text",
    "run.seed": "other",
    "one.epochs": "other",
    "two.epochs": "other",
    "device.require_gpu": "switch",
    "keep": "other",
}


def read(*flags: str, environment: dict[str, str] | None = None) -> tuple[dict[str, str], list[str]]:
    """Return the texts and the mistakes."""
    sources = Sources(KINDS)
    sources.read(flags, environment or {})
    return {name: value.text for name, value in sources.raw.items()}, sources.mistakes


def read_file(path: Path, text: str | bytes) -> tuple[dict[str, str], list[str]]:
    """Return the texts and the mistakes of a file."""
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read("--config", str(path))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return where to put a file of settings."""
    return tmp_path / "settings.yaml"


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--run.seed", "3"], {"run.seed": "3"}),
        (["--run.seed=3"], {"run.seed": "3"}),
        (["--run.seed", "-1"], {"run.seed": "-1"}),
        (["--run.seed", "3", "--run.seed", "4"], {"run.seed": "4"}),
        (["--device.require_gpu"], {"device.require_gpu": "true"}),
        (["--device.require_gpu", "--run.seed", "3"], {"device.require_gpu": "true", "run.seed": "3"}),
        (["--device.require_gpu=false"], {"device.require_gpu": "false"}),
        (["--device.require_gpu", "false"], {"device.require_gpu": "false"}),
        (["--input.uri="], {"input.uri": ""}),
        (["--input.uri", ""], {"input.uri": ""}),
        (["--input.uri=--odd=name"], {"input.uri": "--odd=name"}),
    ],
)
def test_flags(flags: list[str], expected: dict[str, str]) -> None:
    """A value follows its flag after a blank or an equals sign, a switch may stand alone, and the last one wins."""
    assert (expected, []) == read(*flags)


@pytest.mark.parametrize(
    ("flags", "mistakes"),
    [
        (["--run.sede", "3"], ["flag --run.sede: unknown setting 'run.sede': did you mean run.seed?"]),
        (["--epoch_", "3"], ["flag --epoch_: unknown setting 'epoch_': did you mean one.epochs or two.epochs?"]),
        (["--num-gpus", "3"], [f"flag --num-gpus: unknown setting 'num-gpus': use {ELSEWHERE['num_gpus']}"]),
        (["-o", "x"], ["argument '-o': every setting is a flag, such as --run.seed 7: use --output.uri"]),
        (
            ["gs://b/d"],
            ["argument 'gs://b/d': every setting is a flag, such as --run.seed 7: did you mean --input.uri gs://b/d?"],
        ),
        (["--confg", "x"], ["flag --confg: unknown setting 'confg': did you mean config?"]),
        (["--input", "x"], ["flag --input: 'input' is a group of settings: use --input.uri"]),
        (["--zzz", "3"], ["flag --zzz: unknown setting 'zzz'"]),
        (["--input.uri"], ["flag --input.uri: needs a value, as in --input.uri=VALUE"]),
        (["--run.seed="], ["flag --run.seed: needs a value, as in --run.seed=VALUE"]),
        (["--config"], ["flag --config: needs a value, as in --config=VALUE"]),
        (["--run.seed", "--device.require_gpu"], ["flag --run.seed: needs a value, as in --run.seed=VALUE"]),
        (["junk"], ["argument 'junk': every setting is a flag, such as --run.seed 7"]),
        (["--"], ["argument '--': every setting is a flag, such as --run.seed 7"]),
        (
            ["run.seed=3"],
            ["argument 'run.seed=3': every setting is a flag, such as --run.seed 7: did you mean --run.seed=3?"],
        ),
    ],
)
def test_mistakes_in_flags(flags: list[str], mistakes: list[str]) -> None:
    """An argument that is no flag, has no value or an unknown name is reported with the flag that is meant."""
    assert mistakes == read(*flags)[1]


def test_environment() -> None:
    """Only names with two underscores are settings; an empty one is not set, unless it is a text."""
    environment = {
        "FINETUNE_RUN__SEED": "3",
        "FINETUNE__KEEP": "last",
        "FINETUNE_ONE__EPOCHS": "",
        "FINETUNE_INPUT__URI": "",
        "FINETUNE_PORT": "tcp://10.0.0.1:80",
        "FINETUNE_SERVICE_HOST": "10.0.0.1",
        "FINETUNE_PORT_80_TCP": "tcp://10.0.0.1:80",
        "OTHER_RUN__SEED": "4",
    }

    assert ({"run.seed": "3", "keep": "last", "input.uri": ""}, []) == read(environment=environment)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("FINETUNE_RUN__SEDE", "FINETUNE_RUN__SEED"),
        ("finetune_run__seed", "FINETUNE_RUN__SEED"),
        ("FINETUNE_RUN_SEED", "FINETUNE_RUN__SEED"),
        ("FINETUNE_KEEP", "FINETUNE__KEEP"),
        ("FINETUNE___KEEP", "FINETUNE__KEEP"),
    ],
)
def test_mistakes_in_the_environment(name: str, meant: str) -> None:
    """A misspelt variable is reported with the one that is meant, also with a single underscore."""
    assert [f"variable {name}: unknown setting: did you mean {meant}?"] == read(environment={name: "3"})[1]


def test_values_in_the_file_are_text(file: Path) -> None:
    """YAML 1.1 does not get to guess: no is not false, 0123 is not 83; dotted names are as good as groups."""
    text = "run: {seed: 0123}\ninput.uri: 2024-01-01\ndevice:\n  require_gpu: no\none: {epochs: '1e3'}\n"

    expected = {"run.seed": "0123", "input.uri": "2024-01-01", "device.require_gpu": "no", "one.epochs": "1e3"}
    assert (expected, []) == read_file(file, text)


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", "~", "run:\n", "run: {seed: null}\nkeep: ~\none: {epochs: ''}", "---\n"]
)
def test_nothing_in_the_file(file: Path, text: str) -> None:
    """An empty file, a null group, a null and an empty number mean the defaults."""
    assert ({}, []) == read_file(file, text)


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("run:\n  sede: 3", ", line 2: unknown setting 'run.sede': did you mean run.seed?"),
        ("device: {}\nruns: {seed: 3}", ", line 2: unknown group of settings 'runs': did you mean run?"),
        ("run: 3", ", line 1: 'run' is a group of settings: run.seed"),
        ("run: {seed: 3}\nrun: {seed: 4}", ", line 2: 'run' is given twice"),
        ("run: {seed: 3, seed: 4}", ", line 1: 'run.seed' is given twice"),
        ("run: {seed: 3}\nrun.seed: 4", ", line 2: 'run.seed' is given twice"),
        ("run: {seed: [3]}", ", line 1: 'run.seed' takes one value, not a sequence"),
        (
            "input: {exclude: [a, {b: 1}]}",
            ", line 1: 'input.exclude': each value of the list must be a text without commas",
        ),
        (
            "input: {exclude: ['a,b']}",
            ", line 1: 'input.exclude': each value of the list must be a text without commas",
        ),
        ("? [a, b]\n: 3\n", ", line 1: expected the name of a setting or a group"),
        ("keep: {best: 3}", ", line 1: 'keep' takes one value, not a mapping"),
        ("- run", ": expected groups of settings, such as 'run: {seed: 7}'"),
        ("run", ": expected groups of settings, such as 'run: {seed: 7}'"),
        ("run: {seed: 3", ", line 1: is not YAML: expected ',' or '}', but got '<stream end>'"),
        ("run: {}\n\tkeep: 3", ", line 2: is not YAML: found character '\\t' that cannot start any token"),
        ("run: {}\n---\nrun: {}", ", line 2: is not YAML: but found another document"),
        (b"\xff\xfe\xff", ": is not YAML: "),
        ("[" * 1000, ": is not YAML: "),
    ],
)
def test_mistakes_in_the_file(file: Path, text: str | bytes, mistake: str) -> None:
    """A mistake in the file is reported with its line."""
    (found,) = read_file(file, text)[1]

    assert found.startswith(f"{file}{mistake}")


def test_last_file_wins(tmp_path: Path) -> None:
    """Where --config is repeated, the last file is read, as the last value of any flag is taken."""
    for name, seed in (("a", 1), ("b", 2)):
        (tmp_path / name).write_text(f"run: {{seed: {seed}}}")

    assert ({"run.seed": "2"}, []) == read("--config", str(tmp_path / "a"), "--config", str(tmp_path / "b"))


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    """A missing file, or a folder, is reported with its path; the flags are read nevertheless."""
    missing, folder = tmp_path / "missing.yaml", tmp_path

    assert [f"flag --config={missing}: cannot be read: No such file or directory"] == read("--config", str(missing))[1]
    assert [f"flag --config={folder}: cannot be read: Is a directory"] == read("--config", str(folder))[1]
    assert {"run.seed": "3"} == read("--config", str(missing), "--run.seed", "3")[0]


def test_variable() -> None:
    """A setting's variable has two underscores, also where the setting is in no group."""
    assert ["FINETUNE_INPUT__MAX_PIXELS", "FINETUNE__KEEP"] == [variable("input.max_pixels"), variable("keep")]


def test_origins_are_those_of_the_type() -> None:
    """The words for where a setting came from are the ones that config.json documents."""
    assert ("default", "preset", "file", "environment", "flag") == get_args(Origin)


def test_files_are_merged_in_their_order(tmp_path: Path) -> None:
    """Of several --config files each adds to those before it, and overrides what they say."""
    for name, text in (("a", "run: {seed: 1}\ninput: {uri: /a}"), ("b", "run: {seed: 2}")):
        (tmp_path / name).write_text(text)

    raw, mistakes = read("--config", str(tmp_path / "a"), "--config", str(tmp_path / "b"))

    assert ({"run.seed": "2", "input.uri": "/a"}, []) == (raw, mistakes)
