"""The report of a run: published with it, made again from it, and never the reason why a run fails."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import report_files
from opened_runs import checkpoints_of, open_run
from runs import Facts, only_run, tree

from job import storage
from job.commands import report
from job.config.load import load_settings
from job.config.settings import result_settings
from job.observability.progress import Progress
from job.phases import evidence
from job.phases.context import RunContext
from job.runs.identity import Identity
from job.runs.job_record import JobRecord
from job.runtime.timing import Timing

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

NAMES = {"report/index.html", "report/curves.png"}


def write_report(output: Path, files: dict[str, bytes], *flags: str) -> tuple[set[str], list[Mapping[str, object]]]:
    """Write the report of a run with these files; return the names in manifest.json, and the facts of the failure."""
    loaded = load_settings(["--output.uri", str(output), *flags], {})
    store, failures = storage.open_store(str(output)), Facts("report.part_failed")
    run = open_run(store, loaded, Identity(recipe=1, data="da7a", settings=result_settings(loaded.settings)))
    job, progress = JobRecord(store, loaded.settings.run), Progress([failures])
    with checkpoints_of(run, loaded.settings) as checkpoints:
        for name, data in files.items():
            run.write(name, data)
        opener, retry = storage.open_store, storage.RetryPolicy()
        evidence.report(RunContext(loaded, run, job, checkpoints, opener, retry, Timing(), progress), {})
    progress.close()
    return run.files.keys() - files.keys(), failures.seen


FILES = {name: data for name, data in report_files.older_run().items() if name != "config.json"}


def test_report(tmp_path: Path) -> None:
    """Page and pictures are files of the run, made from those before them."""
    assert (NAMES, []) == write_report(tmp_path, FILES)
    assert "90.9\u202f%" in (only_run(tmp_path) / "report/index.html").read_text("utf-8")


def test_no_report(tmp_path: Path) -> None:
    """Without report.enabled there is none."""
    assert (set(), []) == write_report(tmp_path, FILES, "--report.enabled", "false")


def test_failure_costs_the_report(tmp_path: Path) -> None:
    """If it fails, the run continues without it, with a warning that names the error and the remedy."""
    names, [facts] = write_report(tmp_path, FILES | {"metrics/history.csv": b"stage,epoch_total\nfine_tuning,1\n"})

    assert set() == names
    assert "KeyError" in str(facts["error"])
    assert f"finetune report {only_run(tmp_path)}" in str(facts["remedy"])


def test_published_report_is_made_again(published: Path, tmp_path: Path) -> None:
    """The command makes the same bytes from the published run, and writes nothing to it."""
    run = only_run(published)
    before = tree(published)

    assert 0 == report.parse([str(run), "--out", str(tmp_path)]).execute(Progress())

    expected = {path.name: path.read_bytes() for path in (run / "report").iterdir() if path.suffix != ".json"}
    assert expected == {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert before == tree(published)


@pytest.mark.parametrize("name", sorted(NAMES))
def test_report_is_in_the_manifest(published: Path, name: str) -> None:
    """The report is verified as every other file of the run is."""
    run = only_run(published)

    assert f'"{name}"' in (run / "manifest.json").read_text("utf-8")
    assert (run / name).stat().st_size > 1000
