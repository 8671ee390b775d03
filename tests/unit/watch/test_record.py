"""A Job's record, as it is found from the Job itself."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from job import errors
from job.watch.record import RecordedEnd, find_end, read_ends, setting

if TYPE_CHECKING:
    from pathlib import Path


def job(
    *words: str, env: dict[str, str] | None = None, config: str | None = None, command: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Return a Job whose container has flags and variables, and its template a settings file."""
    variables = [{"name": name, "value": value} for name, value in (env or {}).items()]
    variables.append({"name": "FINETUNE_RUN__JOB_UID", "valueFrom": {}})  # type: ignore[dict-item]
    container = {"name": "finetune", "command": list(command), "args": list(words), "env": variables}
    annotations = {} if config is None else {"finetune/config.yaml": config}
    template = {"metadata": {"annotations": annotations}, "spec": {"containers": [{"name": "proxy"}, container]}}
    return {"metadata": {"uid": "uid-1"}, "spec": {"template": template}}


@pytest.mark.parametrize(
    ("found", "uri"),
    [
        (job(config="output: {uri: gs://b/file}"), "gs://b/file"),
        (job(config="output: {uri: gs://b/file}", env={"FINETUNE_OUTPUT__URI": "gs://b/env"}), "gs://b/env"),
        (job("run", "--output.uri=gs://b/flag", env={"FINETUNE_OUTPUT__URI": "gs://b/env"}), "gs://b/flag"),
        (job("run", "--output.uri", "gs://b/1", "--output.uri", "gs://b/2", "--keep=last"), "gs://b/2"),
        (job(command=("finetune", "run", "--output.uri=gs://b/command")), "gs://b/command"),
        (job(), None),
        (job(config="[output"), None),
        (job(config="output: none"), None),
        ({"metadata": {"uid": "uid-1"}, "spec": {}}, None),
    ],
)
def test_output_of_a_job(found: dict[str, Any], uri: str | None) -> None:
    """The output is named by the last flag, a variable, or the settings file, in the order of the settings."""
    assert uri == setting(found, "output", "uri")


def test_ends(tmp_path: Path) -> None:
    """Each start has its Pod, node, exit code and message; the run's URI is in the output that was read."""
    (tmp_path / "jobs").mkdir()
    attempts = [
        {"node": "n-1", "started_at": "…", "ended_at": None},
        {"pod": "p-2", "node": "n-2", "exit_code": 3, "reason": "Data", "message": "no", "remedy": "", "seconds": 1},
    ]
    (tmp_path / "jobs/uid-1.json").write_text(json.dumps({"run_id": "flowers-1", "attempts": attempts}))

    ends = read_ends(job(f"--output.uri={tmp_path}"))

    run = {"run_uri": f"{tmp_path}/runs/flowers-1"}
    facts = {"reason": "Data", "message": "no"} | run
    assert [RecordedEnd("", "n-1", None, run), RecordedEnd("p-2", "n-2", 3, facts)] == ends


def test_end_of_a_pod() -> None:
    """The named Pod's last end counts; without a name it is the last start's, unless that Pod is still there."""
    ends = [RecordedEnd(pod, "n", code, {}) for pod, code in (("a", 75), ("b", 1), ("b", 3), ("c", 75))]

    assert 3 == find_end(ends, "b", others=set()).exit_code
    assert RecordedEnd("d", "", None, {}) == find_end(ends, "d", others=set())
    assert ("c", 75) == find_end(ends, "", others={"a"})[::2]
    assert ("", None) == find_end(ends, "", others={"a", "c"})[::2]


@pytest.mark.parametrize("content", [None, b"", b'{"run_id": null, "attempts": []}'])
def test_no_record(tmp_path: Path, content: bytes | None) -> None:
    """A record that is missing, damaged or empty is named, with what to look at instead."""
    if content is not None:
        (tmp_path / "jobs").mkdir()
        (tmp_path / "jobs/uid-1.json").write_bytes(content)

    with pytest.raises(errors.DataError, match=f"{tmp_path}/jobs/uid-1.json") as caught:
        read_ends(job(f"--output.uri={tmp_path}"))

    assert "kubectl describe job" in caught.value.remedy


def test_output_is_not_named() -> None:
    """Where the Pod template does not name the output, the message says so and which file has the answer."""
    with pytest.raises(errors.DataError, match=r"output\.uri.*jobs/uid-1\.json"):
        read_ends(job())


def test_store_that_denies_access(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without credentials for the bucket the exit code stays that of the store's error, with its remedy."""
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "missing.json"))

    with pytest.raises(errors.AccessError, match=r"gs://bucket/o/jobs/uid-1\.json.* cannot be read") as caught:
        read_ends(job("--output.uri=gs://bucket/o/"))

    assert "GOOGLE_APPLICATION_CREDENTIALS" in caught.value.remedy
