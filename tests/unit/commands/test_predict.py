"""The command line of `finetune predict`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from published_runs import publish

from job import storage
from job.commands import predict
from job.errors import DataError, SettingsError
from job.observability.progress import Progress

if TYPE_CHECKING:
    from pathlib import Path


def options(*arguments: str) -> predict.Options:
    """Return what the arguments say."""
    execute: Any = predict.parse(arguments).execute
    found: predict.Options = execute.args[1]
    return found


@pytest.mark.parametrize(
    ("arguments", "form"),
    [
        ([], "table"),
        (["--json"], "json"),
        (["--csv"], "csv"),
        (["--out", "/o"], "json"),
        (["--out", "/o/a.jsonl"], "json"),
        (["--out", "/o/a.CSV"], "csv"),
        (["--out=gs://bucket/o", "--csv"], "csv"),
    ],
)
def test_form(arguments: list[str], form: str) -> None:
    """The flags and the name of the result say its form; without any it is a table, and never one in a file."""
    assert form == options("/run", "a.jpg", *arguments).form


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "RUN is missing; PATH is missing"),
        (["/run"], "PATH is missing"),
        (["/run", "a", "--top-k", "0"], "--top-k '0'"),
        (["/run", "a", "--top-k", "x"], "--top-k 'x'"),
        (["/run", "a", "--json", "--csv"], "json and csv"),
        (["/run", "a", "--json", "--out", "/o/a.csv"], "json and csv"),
        (["/run", "a", "--out", "gs:/o"], "gs://o"),
        (["/run", "-", "-"], "- is given twice"),
        (["/run", "a", "--topk", "3"], "did you mean --top-k"),
        (["/run", "a", "--storage.anonymus"], "--storage.anonymous"),
    ],
)
def test_mistakes(arguments: list[str], named: str) -> None:
    """A mistake in the call names it."""
    with pytest.raises(SettingsError) as raised:
        predict.parse(arguments)

    assert named in raised.value.message


def test_never_into_the_run(tmp_path: Path) -> None:
    """A result inside the run is refused, however the run is named."""
    run = publish(storage.open_store(str(tmp_path / "runs/r")))
    (tmp_path / "latest.json").write_text('{"run_id": "r", "published_at": "2026-01-01T00:00:00Z"}')

    for out in (run.uri, f"{run.uri}/scored/a.csv"):
        with pytest.raises(SettingsError, match="inside the run"):
            predict.parse([f"{tmp_path}/latest", "a.jpg", "--out", out]).execute(Progress())


def test_no_run(tmp_path: Path) -> None:
    """What is no published run ends with exit code 3, before TensorFlow is imported."""
    with pytest.raises(DataError, match="is not a published run"):
        predict.parse([str(tmp_path), "a.jpg"]).execute(Progress())


@pytest.mark.parametrize(
    ("paths", "stem"),
    [
        (["gs://bucket/new"], "new"),
        (["gs://bucket"], "bucket"),
        (["./new/"], "new"),
        (["cat.jpg"], "cat.jpg"),
        (["-"], "predictions"),
        (["."], "predictions"),
        (["a", "b"], "predictions"),
    ],
)
def test_name_of_the_result(paths: list[str], stem: str) -> None:
    """The result is named like the only path."""
    assert stem == predict._stem(paths)
