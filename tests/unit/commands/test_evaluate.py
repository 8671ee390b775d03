"""The command line of `finetune evaluate`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from published_runs import publish

from job import storage
from job.commands import evaluate
from job.errors import DataError, SettingsError
from job.observability.progress import Progress

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "RUN is missing; DATA is missing"),
        (["/run", "/data"], "--out is missing"),
        (["/run", "/data", "--out"], "--out: needs a value"),
        (["/run", "/data", "/more", "--out", "/o"], "unexpected argument '/more'"),
        (["/run", "/data", "--out", "/data/metrics"], "is inside DATA"),
        (["/run", "/data", "--out", "gs:/o"], "gs://o"),
        (["/run", "gs:/data", "--out", "/o"], "gs://data"),
        (["/run", "/data", "--out", "/o", "--input.layot", "splits"], "--input.layout"),
    ],
)
def test_mistakes(arguments: list[str], named: str) -> None:
    """A mistake in the call names it."""
    with pytest.raises(SettingsError) as raised:
        evaluate.parse(arguments)

    assert named in raised.value.message


def test_never_into_a_run(tmp_path: Path) -> None:
    """Metrics are written into no run: neither the one that is measured nor another."""
    run, other = (publish(storage.open_store(str(tmp_path / "runs" / name))) for name in ("r", "s"))
    before = sorted(tmp_path.rglob("*"))

    for out in (run.uri, f"{run.uri}/metrics", other.uri):
        with pytest.raises(SettingsError, match="is a run, or inside one"):
            evaluate.parse([run.uri, "/data", "--out", out]).execute(Progress())

    assert before == sorted(tmp_path.rglob("*"))


def test_no_run(tmp_path: Path) -> None:
    """What is no published run ends with exit code 3, before the data are listed."""
    with pytest.raises(DataError, match="is not a published run"):
        evaluate.parse([str(tmp_path), "/data", "--out", f"{tmp_path}/o"]).execute(Progress())
