"""`finetune watch`: its arguments."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from job import errors
from job.commands import watch
from job.watch.follow import Target

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("arguments", "target"),
    [
        (["flowers"], Target("flowers")),
        (["job/flowers", "-n", "ml"], Target("flowers", "ml")),
        (["job.batch/flowers", "--namespace=ml", "--context", "gke"], Target("flowers", "ml", "gke")),
        (["gs://bucket/models/runs/x"], Target("gs://bucket/models/runs/x", is_run=True)),
        (["trained/runs/x"], Target("trained/runs/x", is_run=True)),
    ],
)
def test_what_is_watched(arguments: list[str], target: Target) -> None:
    """A Job, as kubectl names it, with its namespace and context; or a run by its URI."""
    assert target == watch.read_target(arguments)


def test_folder_of_a_run_or_of_its_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder here that has a run in it is a run; any other name is a Job's, and so is what is called one."""
    (tmp_path / "trained/runs/x").mkdir(parents=True)
    (tmp_path / "trained/runs/x/status.json").touch()
    (tmp_path / "flowers").mkdir()
    monkeypatch.chdir(tmp_path)

    assert Target("trained", is_run=True) == watch.read_target(["trained"])
    assert Target("trained") == watch.read_target(["job/trained"])
    assert Target("flowers") == watch.read_target(["flowers"])
    monkeypatch.chdir(tmp_path / "trained/runs")
    assert Target("x", is_run=True) == watch.read_target(["x"])
    monkeypatch.chdir(tmp_path / "trained/runs/x")
    assert Target(".", is_run=True) == watch.read_target(["."])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give a Job"),
        (["a", "b"], "unknown argument 'b'"),
        (["a", "--namespce", "x"], "unknown argument '--namespce': did you mean --namespace?"),
        (["a", "-n"], "--namespace: needs a value"),
        (["a", "--context="], "--context: needs a value"),
        (["gs:/bucket/models"], "did you mean gs://bucket/models?"),
    ],
)
def test_mistakes(arguments: list[str], said: str) -> None:
    """What cannot be watched is rejected, with the usage."""
    with pytest.raises(errors.SettingsError) as caught:
        watch.read_target(arguments)

    assert said in caught.value.message
    assert "JOB [--namespace NAME]" in caught.value.remedy


def test_all_mistakes_at_once() -> None:
    """A call with several mistakes has them all in its message."""
    with pytest.raises(errors.SettingsError) as caught:
        watch.read_target(["gs:/bucket/models", "--what", "-n"])

    for part in ("needs a value", "'--what'", "did you mean gs://bucket/models?"):
        assert part in caught.value.message
