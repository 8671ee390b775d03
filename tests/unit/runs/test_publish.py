"""The quality gate, and the order in which a run is published."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from job import errors, storage
from job.config.load import load_settings
from job.evaluation.gates import Gate
from job.runs import identity, publish
from job.runs.run import open_run

if TYPE_CHECKING:
    from pathlib import Path

    from job.storage import Store


@pytest.mark.parametrize(
    ("accuracy", "min_accuracy", "passed"),
    [(0.75, 0.75, True), (0.0, 0.0, True), (0.8, 0.75, True), (0.7, 0.75, False)],
)
def test_gate(accuracy: float, min_accuracy: float, passed: bool) -> None:
    """gate.min_accuracy itself passes, as does a higher accuracy; a lower one ends the run with exit 6."""
    gate = Gate.of(accuracy, min_accuracy)
    outcome = publish.Outcome(run_uri="/out/runs/1", gate=gate)

    assert Gate(passed=passed, accuracy=accuracy, min_accuracy=min_accuracy) == gate
    if passed:
        outcome.check_gate()
        return
    with pytest.raises(errors.GateError, match=r"gate.min_accuracy is 0.75") as caught:
        outcome.check_gate()
    assert 6 == caught.value.exit_code


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
    run = open_run(output, loaded, identity.identify(loaded.settings))
    with run.checkpoints(loaded.settings):
        output.written.clear()
        run.write("model/labels.txt", b"cats")
        publish.finish(run, Gate.of(0.9, 0.5), provenance={})

    assert ["labels.txt", "manifest.json", "index.json", "_SUCCESS", "latest.json"] == output.written
