"""`finetune doctor`: what it prints, its exit code and its options."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from job.commands import doctor
from job.errors import SettingsError
from job.observability.progress import Progress

if TYPE_CHECKING:
    from pathlib import Path

OUTPUT = ["create", "precondition", "overwrite", "read", "clock", "delete"]
NAMES = {
    "software": ["versions"],
    "gpu": ["gpu", "gpu driver", "gpu libraries", "gpu memory", "gpu computes"],
    "machine": ["cpu", "memory", "shared memory", "cache disk", "temporary files", "ephemeral storage"],
    "storage": ["CA bundle", "credentials", "billing project", "input", *(f"output {name}" for name in OUTPUT)],
    "weights": ["weights"],
}
NO_WEIGHTS = ("--model.weights", "none")


def execute(*arguments: object) -> int:
    """Execute the command."""
    return doctor.parse([str(argument) for argument in arguments]).execute(Progress())


def rows_of(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, dict[str, Any]]:
    """Return check -> row of the JSON."""
    execute(*arguments, "--json")
    return {row["check"]: row for row in json.loads(capsys.readouterr().out)}


def test_without_settings(capsys: pytest.CaptureFixture[str]) -> None:
    """Every check has a row; what nothing is given for is skipped, with what to give."""
    rows = rows_of(capsys, *NO_WEIGHTS)

    assert [name for group in NAMES.values() for name in group] == list(rows)
    for name, setting in {"input": "--input.uri", "output create": "--output.uri", "cache disk": "--cache.dir"}.items():
        assert ("skipped", True) == (rows[name]["verdict"], setting in rows[name]["remedy"])
    assert ("warning", 0) == (rows["weights"]["verdict"], rows["weights"]["exit_code"])
    assert {"check", "verdict", "detail", "remedy", "exit_code"} == set(rows["gpu"])


@pytest.mark.parametrize("group", NAMES)
def test_only(capsys: pytest.CaptureFixture[str], group: str) -> None:
    """One group of checks is carried out alone."""
    assert NAMES[group] == list(rows_of(capsys, "--only", group, *NO_WEIGHTS))


def test_a_local_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With folders that can be used all is well, each check is a line, and nothing is left."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in/1.jpg").write_bytes(b"1")
    flags = ("--input.uri", tmp_path / "in", "--output.uri", tmp_path / "out", "--cache.dir", tmp_path / "cache")

    code = execute(*flags, "--only", "machine,storage")

    *lines, last = capsys.readouterr().out.splitlines()
    found = dict(re.findall(r"^(?:ok|skipped|warning) +(\S+(?: \S+)?)  +(.*)", "\n".join(lines), re.MULTILINE))
    assert [*NAMES["machine"], *NAMES["storage"]] == list(found)
    assert re.fullmatch(r"ready: .*\d+ ok; exit code 0", last)
    assert 0 == code
    assert [tmp_path / "in"] == list(tmp_path.iterdir())
    assert 1 == len({line.index(text) for line, text in zip(_heads(lines), found.values(), strict=True)})


def _heads(lines: list[str]) -> list[str]:
    return [line for line in lines if not line.startswith(" ")]


def test_failures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A failure has its remedy under it; the exit code is that of the worst one."""
    (tmp_path / "file").touch()
    flags = ("--input.uri", tmp_path / "none", "--output.uri", tmp_path / "file/out", "--only", "storage")

    code = execute(*flags)

    lines = capsys.readouterr().out.splitlines()
    [number] = [number for number, line in enumerate(lines) if line.startswith("failed   input ")]
    assert "  -> " in lines[number + 1]
    assert "failed   output create" in "\n".join(lines)
    assert (2, True) == (code, lines[-1].startswith("not ready: 2 failed"))
    assert lines[-1].endswith("exit code 2")
    assert 3 == execute(*flags, "--output.uri", "")


def test_a_remedy_is_printed_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Failures with the same remedy do not repeat it; JSON has it in each row."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "file"))
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://localhost:1")
    flags = ("--input.uri", "gs://bucket/in", "--output.uri", "gs://bucket/out", "--only", "storage")

    assert 2 == execute(*flags)

    text = capsys.readouterr().out
    failed = [row for row in rows_of(capsys, *flags).values() if row["verdict"] == "failed"]
    assert ["CA bundle", "input", "output create"] == [row["check"] for row in failed]
    assert [1] == [text.count(remedy) for remedy in {row["remedy"] for row in failed}]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--only", "gpus"), "'gpus' is none of software, gpu"),
        (("--timeout", "0"), "'0' is no number of seconds"),
        (("--timeout", "x"), "'x' is no number of seconds"),
        (("--input.uris", "x"), "input.uri"),
    ],
)
def test_wrong_options(arguments: tuple[str, ...], named: str) -> None:
    """A wrong option is a mistake in the settings."""
    with pytest.raises(SettingsError) as raised:
        doctor.parse(arguments)
    assert named in raised.value.message
