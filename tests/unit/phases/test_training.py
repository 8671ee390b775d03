"""The order of what the phases of training do."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from job.config.settings import Settings
from job.observability.progress import Progress
from job.phases import training
from job.phases.context import RunContext
from job.runtime.timing import Timing
from job.training import kept_weights, stages
from job.training.state import TrainingState


@pytest.mark.parametrize("index", [0, 1])
def test_workers_wait_for_the_search_for_label_errors(index: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Worker 0 alone looks for label errors between the stages: the others wait, without being taken for a stall."""
    did: list[str] = []
    workers = {"count": 2, "index": index, "addresses": ["a:1", "b:1"]}
    settings = Settings.model_validate({"workers": workers, "run": {"job_uid": "uid-1"}})
    given: Any = {
        "loaded": SimpleNamespace(settings=settings),
        "checkpoints": SimpleNamespace(check=int, save=int),
        "retry": SimpleNamespace(is_training=SimpleNamespace(set=int)),
        "timing": Timing(),
        "progress": Progress(),
        "replicas": SimpleNamespace(wait=lambda *_: did.append("wait")),
        "peers": SimpleNamespace(check=int),
    }
    context = RunContext(**dict.fromkeys(RunContext._fields) | given)
    state: Any = SimpleNamespace(
        stage=TrainingState().stage, history=[SimpleNamespace(stage="fine_tuning")], epoch_total=lambda _: 1
    )
    monkeypatch.setattr(stages, "run", lambda stage, *_, **__: did.append(stage))
    monkeypatch.setattr(training, "examine_training_labels", lambda *_: did.append("label errors"))
    monkeypatch.setattr(kept_weights, "end_weights", lambda *_: {})
    monkeypatch.setattr(kept_weights, "load_kept_weights", lambda *_: SimpleNamespace(stage="fine_tuning", epoch=1))
    unused: Any = None

    training.train_stages(context, unused, {"feature_extraction": unused, "fine_tuning": unused}, unused, state)

    labels = [] if index else ["label errors"]
    assert ["feature_extraction", *labels, "wait", "fine_tuning"] == did
