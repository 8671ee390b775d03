"""Publication: how a run ends that passed the quality gate, or failed it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from opened_runs import checkpoints_of, open_run

from job import errors, storage
from job.config.load import load_settings
from job.config.settings import GateSettings, result_settings
from job.evaluation.gates import Gate, LowestRecall, Measured
from job.runs import identity, publish
from job.runs.publish import Outcome
from job.runs.run import Run
from job.runs.statement import Execution

if TYPE_CHECKING:
    from pathlib import Path

    from job.storage import Store


def judge(accuracy: float, **settings: float) -> Gate:
    """Return the gate of a run of this accuracy."""
    recall = LowestRecall(label="rare", value=0.25)
    return Gate.judge(Measured(accuracy=accuracy, lowest_recall=recall), GateSettings(**settings))


def outcome(gate: Gate) -> Outcome:
    """Return the outcome of a published run."""
    return Outcome(run_uri="/out/runs/1", published_at="2026-01-01T00:00:00Z", gate=gate)


def test_passed_gate() -> None:
    """A run that passed the gate ends without an error."""
    outcome(judge(0.8, min_accuracy=0.75)).check_gate()


def test_failed_gate() -> None:
    """A run that failed the gate ends with exit code 6, naming the setting, its value and where the model is."""
    with pytest.raises(
        errors.GateError, match=r"below gate.min_accuracy = 0.75.* published under /out/runs/1"
    ) as caught:
        outcome(judge(0.7, min_accuracy=0.75)).check_gate()

    assert 6 == caught.value.exit_code


def test_several_failed_checks() -> None:
    """The failure names each check that failed with both values, and no other."""
    with pytest.raises(errors.GateError) as caught:
        outcome(judge(0.7, min_accuracy=0.75, min_auc=0.1, min_recall=0.2)).check_gate()

    assert "is 0.7000, below gate.min_accuracy = 0.75; the validation ROC-AUC is unknown" in caught.value.message
    assert "gate.min_auc = 0.1" in caught.value.message
    assert "min_recall" not in caught.value.message


class Recorder:
    """A store that records the names under which it writes."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.written: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def write(self, name: str, data: bytes | Path, **condition: Any) -> storage.ObjectInfo:
        """Write and record the name."""
        self.written.append(name.rpartition("/")[2])
        return self._store.write(name, data, **condition)


def test_run_is_published_in_an_order_that_a_reader_can_trust(tmp_path: Path) -> None:
    """The commit follows the files and their manifest, _SUCCESS follows the commit, and latest.json comes last."""
    output = Recorder(storage.open_store(str(tmp_path)))
    loaded = load_settings(["--output.uri", str(tmp_path)], {})
    run = open_run(output, loaded, identity.Identity(recipe=1, data="da7a", settings=result_settings(loaded.settings)))
    with checkpoints_of(run, loaded.settings):
        output.written.clear()
        run.write("model/labels.txt", b"cats")
        publish.finish(run, judge(0.9, min_accuracy=0.5), Execution(provenance={}, seconds={}))

    assert [
        *("labels.txt", "provenance.json", "manifest.json", "index.json", "_SUCCESS", "latest.json")
    ] == output.written


def test_overview_of_a_published_run(tmp_path: Path) -> None:
    """_SUCCESS has the overview of the run that it names."""
    output = storage.open_store(str(tmp_path))
    loaded = load_settings(["--output.uri", str(tmp_path), "--input.uri", "gs://bucket/flowers"], {})
    run = open_run(output, loaded, identity.Identity(recipe=1, data="da7a", settings=result_settings(loaded.settings)))
    with checkpoints_of(run, loaded.settings):
        publish.finish(run, judge(0.9, min_accuracy=0.95), Execution(provenance={"version": "1"}, seconds={}, starts=2))

    found = json.loads((tmp_path / f"runs/{run.id}/_SUCCESS").read_text())["overview"]
    expected = {"run_id": run.id, "accuracy": 0.9, "gate_passed": False, "attempts": 2, "version": "1"}
    assert expected | {"data_uri": "gs://bucket/flowers", "data_digest": "da7a"} == {
        name: found[name] for name in (*expected, "data_uri", "data_digest")
    }


def test_deleted_while_a_start_waited_for_its_claim(tmp_path: Path) -> None:
    """A start that finds its run deleted once it holds the claim ends with 75, and does not publish half a run."""
    output = storage.open_store(str(tmp_path))
    loaded = load_settings(["--output.uri", str(tmp_path)], {})
    run = open_run(output, loaded, identity.Identity(recipe=1, data="da7a", settings=result_settings(loaded.settings)))
    checkpoints = checkpoints_of(run, loaded.settings)
    output.delete(f"runs/{run.id}/config.json")

    with checkpoints, pytest.raises(errors.StoppedError, match=run.id):
        publish.published(run, GateSettings())


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (
            b'{"validation": {"loss": 1}, "test": null, "kept": 2, "stages": 3, "timing": 4}',
            [{"loss": 1}, None, 2, 3, []],
        ),
        (b'{"validation": 1}', []),
        (b'{"validation": 1, "test": null, "kept": 2, "stages": 3}', []),
        (b"[]", []),
        (b"{", []),
        (None, []),
    ],
)
def test_metrics_of_a_published_run(tmp_path: Path, data: bytes | None, expected: list[object]) -> None:
    """What metrics.json says about the model is read; a file that is lost or of another version is no failure."""
    run = Run(storage.open_store(str(tmp_path)), "1")
    if data is not None:
        run.output.write("runs/1/metrics/metrics.json", data)

    assert expected == list(publish.published_metrics(run).values())
