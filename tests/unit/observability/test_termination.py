"""The termination message: the cause of a run's end, as JSON within the bound that Kubernetes sets."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from runs import strict_json

from job.observability.progress import Progress
from job.observability.termination import TerminationMessage, write_termination_message

if TYPE_CHECKING:
    from pathlib import Path


def test_the_termination_message_is_json(tmp_path: Path) -> None:
    """The document replaces the file's content; fields that are None are left out."""
    path = tmp_path / "termination-log"
    path.write_text("x" * 9000)
    write_termination_message({"reason": "Data", "stage": None, "epoch": 3, "message": "no café"}, str(path))
    assert {"reason": "Data", "epoch": 3, "message": "no café"} == strict_json(path.read_bytes())


def test_a_long_message_is_cut_and_the_rest_is_kept(tmp_path: Path) -> None:
    """At least half of what fits of a long message is kept, ending in an ellipsis; shorter texts stay whole."""
    path = tmp_path / "termination-log"
    path.touch()
    document = {"reason": "Data", "message": 'é"\n' * 5000, "remedy": "do this", "run_uri": "gs://b/runs/r"}
    write_termination_message(document, str(path))
    data = path.read_bytes()
    written = strict_json(data)
    assert 2048 <= len(data) <= 4096
    assert document | {"message": written["message"]} == written
    assert str(written["message"]).endswith("…")
    assert document["message"].startswith(str(written["message"])[:-1])


texts = st.text(st.characters(categories=None), max_size=3000) | st.text("a\x00\U0001f600\ud800", max_size=6000)


fields = st.sampled_from(["reason", "stage", "epoch", "message", "remedy", "run_uri"])


@given(st.dictionaries(fields, texts | st.integers(-(2**63), 2**63)))
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=50, deadline=None
)
def test_a_termination_message_never_exceeds_its_bound(tmp_path: Path, document: dict[str, object]) -> None:
    """Whatever there is to say, it is one strict JSON object in UTF-8 of at most 4,096 bytes."""
    path = tmp_path / "termination-log"
    path.touch()
    write_termination_message(document, str(path))
    data = path.read_bytes()
    assert len(data) <= 4096
    strict_json(data)


def test_without_the_file_nothing_happens(tmp_path: Path) -> None:
    """On a workstation no file is made, and a path that cannot be written is no error."""
    write_termination_message({"reason": "Data"}, str(tmp_path / "termination-log"))
    write_termination_message({"reason": "Data"}, str(tmp_path / "none" / "termination-log"))
    write_termination_message({"reason": "Data"}, str(tmp_path))
    assert [] == list(tmp_path.iterdir())


def test_termination_message(tmp_path: Path) -> None:
    """Kubernetes is left the reason, the stage, what to do and where the run lies."""
    path = tmp_path / "termination-log"
    path.touch()
    progress = Progress([TerminationMessage(str(path))])

    progress.event("run.started", run_uri="gs://bkt/runs/a")
    progress.event("stage.started", stage="fine_tuning", epochs=10, epochs_done=2)
    assert "" == path.read_text()
    progress.event("run.failed", severity="error", reason="Data", message="no images", remedy="add some", exit_code=3)

    assert {
        "reason": "Data",
        "stage": "fine_tuning",
        "epoch": 3,
        "message": "no images",
        "remedy": "add some",
        "run_uri": "gs://bkt/runs/a",
    } == json.loads(path.read_text())
