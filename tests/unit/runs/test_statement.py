"""provenance.json: an in-toto Statement with SLSA provenance v1."""

from __future__ import annotations

import re
from importlib import metadata
from typing import Any

import pytest
from published_runs import described

from job import __version__
from job.runs import statement
from job.runs.identity import Identity
from job.runs.statement import Execution

FILES = {name: described(name.encode()) for name in ("config.json", "data/manifest.jsonl", "data/split.jsonl", "model")}
SETTINGS = {"run.seed": 7}
CONFIG = {
    "identity": {"recipe": 1, "data": "da7a", "settings": SETTINGS},
    "settings": {"input": {"uri": "gs://b/flowers"}, "run": {"seed": 7}},
}
DIGEST = "5e" * 32
PROVENANCE: dict[str, Any] = {
    "revision": "0123abc",
    "image": f"registry/finetune@sha256:{DIGEST}",
    "python": "3.13.1",
    "job": {"uid": "u-1"},
    "device": {"kind": "gpu"},
    "weights": {"source": "/opt/weights.h5", "digest": "abcd", "verified": True},
}


def made(config: dict[str, Any] = CONFIG, **changes: Any) -> dict[str, Any]:
    """Return the statement of a run."""
    facts: dict[str, Any] = {"provenance": PROVENANCE, "seconds": {"fine_tuning": 2.5}, "gpus": 2, "started_at": 0.0}
    return statement.document("gs://b/out/runs/r", FILES, config, Execution(**facts | changes), now=61.9)


def dependencies(document: dict[str, Any]) -> dict[str, Any]:
    """Return name or URI -> the dependency."""
    found = document["predicate"]["buildDefinition"]["resolvedDependencies"]
    return {dependency.get("name") or dependency["uri"]: dependency for dependency in found}


def test_statement() -> None:
    """The fields that the specifications require are there, in their spelling; names are no host of somebody else's."""
    document = made()

    assert ["_type", "subject", "predicateType", "predicate"] == list(document)
    assert "https://in-toto.io/Statement/v1" == document["_type"]
    assert "https://slsa.dev/provenance/v1" == document["predicateType"]
    definition, details = document["predicate"]["buildDefinition"], document["predicate"]["runDetails"]
    assert {"buildType", "externalParameters", "internalParameters", "resolvedDependencies"} == set(definition)
    assert {"builder", "metadata"} == set(details)
    assert {"finetune": __version__} == details["builder"]["version"]
    assert all(uri.startswith("urn:finetune:") for uri in (definition["buildType"], details["builder"]["id"]))
    assert CONFIG["settings"] == definition["externalParameters"]["settings"]


def test_subjects() -> None:
    """Every file is a subject, with its sha256."""
    expected = [{"name": name, "digest": {"sha256": file.sha256}} for name, file in FILES.items()]

    assert expected == made()["subject"]


def test_dependencies() -> None:
    """Data, split, settings, weights, code, image and packages are named, each with its digest."""
    found = dependencies(made())

    settings = Identity(recipe=1, data=None, settings=SETTINGS).digest
    assert {"name": "data", "uri": "gs://b/flowers", "digest": {"finetuneData": "da7a"}} == found["data"]
    assert {"finetuneSettings": settings} == found["settings"]["digest"]
    assert {"sha256": FILES["data/split.jsonl"].sha256} == found["data/split.jsonl"]["digest"]
    assert {"gitCommit": "0123abc"} == found["source"]["digest"]
    assert {"sha256": DIGEST} == found["image"]["digest"]
    assert {"name": "weights", "uri": "file:///opt/weights.h5", "digest": {"finetuneWeights": "abcd"}} == found[
        "weights"
    ]
    assert f"pkg:pypi/keras@{metadata.version('keras')}" in found
    assert not [name for name in found if name.startswith("pkg:pypi/finetune@")]


def test_what_is_unknown() -> None:
    """An image without digest and random weights have none, or no URI; what is not known at all is left out."""
    random = {"source": "random", "digest": "abcd"}
    tagged = dependencies(made(provenance={"image": "finetune:1", "weights": random}))
    none = dependencies(made(config={}, provenance={}))

    assert {"name": "image", "uri": "docker://finetune:1"} == tagged["image"]
    assert {"name": "weights", "digest": {"finetuneWeights": "abcd"}} == tagged["weights"]
    assert {"config.json", "data/manifest.jsonl", "data/split.jsonl"} == {
        name for name in none if not name.startswith("pkg:")
    }
    assert made(provenance={}, started_at=None)["predicate"]["runDetails"]["metadata"]["startedOn"] is None


def test_run_details() -> None:
    """Times are RFC 3339 to the second; the invocation is the Job, or the run; seconds are counted for each GPU."""
    facts = made(starts=3)["predicate"]["runDetails"]["metadata"]

    assert ("1970-01-01T00:00:00Z", "1970-01-01T00:01:01Z") == (facts["startedOn"], facts["finishedOn"])
    assert ("u-1", 3, None) == (facts["invocationId"], facts["finetune_starts"], facts["finetune_attempts"])
    assert ({"fine_tuning": 2.5}, {"fine_tuning": 5.0}) == (facts["finetune_seconds"], facts["finetune_gpu_seconds"])
    outside = made(provenance={})["predicate"]["runDetails"]["metadata"]
    assert "gs://b/out/runs/r" == outside["invocationId"]


def at(second: int) -> str:
    """Return a timestamp."""
    return f"2026-01-01T00:{second // 60:02}:{second % 60:02}.000000Z"


def lost(*attempts: dict[str, Any]) -> list[float | None]:
    """Return the seconds that each attempt lost."""
    found = statement.with_losses(attempts)
    assert [
        {**attempt, "lost_seconds": one["lost_seconds"]} for attempt, one in zip(attempts, found, strict=True)
    ] == found
    return [attempt["lost_seconds"] for attempt in found]


@pytest.mark.parametrize(
    ("attempts", "expected"),
    [
        ([{"started_at": at(0), "ended_at": None, "resumed_from": None}], [0.0]),
        # stopped 5 s after its checkpoint
        (
            [
                {"started_at": at(0), "ended_at": at(30), "resumed_from": None},
                {"started_at": at(60), "ended_at": None, "resumed_from": at(25)},
            ],
            [5.0, 0.0],
        ),
        # killed: up to the next start; no checkpoint at all: everything
        (
            [
                {"started_at": at(0), "ended_at": None, "resumed_from": None},
                {"started_at": at(60), "ended_at": at(90), "resumed_from": None},
                {"started_at": at(100), "ended_at": None, "resumed_from": at(90)},
            ],
            [60.0, 0.0, 0.0],
        ),
        # the second ended before it had loaded a checkpoint: nothing of what the first saved was lost
        (
            [
                {"started_at": at(0), "ended_at": at(30), "resumed_from": None},
                {"started_at": at(40), "ended_at": at(42)},
                {"started_at": at(60), "ended_at": None, "resumed_from": at(29)},
            ],
            [1.0, 2.0, 0.0],
        ),
        # records of an earlier version, and damaged ones
        ([{"started_at": at(0), "ended_at": at(9)}, {"started_at": at(10), "ended_at": None}], [None, 0.0]),
        ([{"started_at": 5}, {"started_at": None, "resumed_from": 7}], [None, 0.0]),
    ],
)
def test_lost_seconds(attempts: list[dict[str, Any]], expected: list[float | None]) -> None:
    """A start has lost what passed between the checkpoint from which a later one resumed, and its own end."""
    assert expected == lost(*attempts)


def test_packages() -> None:
    """Names are normalized as package indexes do."""
    assert all(re.fullmatch("[a-z0-9-]+", name) for name in statement.packages())
