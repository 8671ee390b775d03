"""A run that starts from a published one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from runs import ONE_STAGE, At, Facts, draw, run, strict_json

from job.errors import StoppedError
from job.runtime import signals

if TYPE_CHECKING:
    from pathlib import Path


def draw_label(folder: Path, label: str, shade: int) -> None:
    """Draw twelve pictures."""
    for n in range(12):
        draw(folder / label / f"{n}.png", shade=shade, seed=shade * 100 + n)


def test_from_the_latest_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes over the model, resumes from the same one when latest.json moves, and is known by the word `latest`."""
    pictures, output = tmp_path / "in", tmp_path / "out"
    arguments = ("--input.uri", pictures, "--output.uri", output, *ONE_STAGE)
    draw_label(pictures, "cats", 60)
    draw_label(pictures, "dogs", 190)
    run(*arguments)
    [first] = (output / "runs").iterdir()

    draw_label(pictures, "eels", 120)
    second = (*arguments, "--model.weights", "latest", "--feature_extraction.epochs", "2")
    loaded = Facts("weights.loaded")
    with monkeypatch.context() as patch:
        stop = At("epoch.finished", lambda: patch.setattr(signals, "received", lambda: "SIGTERM"))
        with pytest.raises(StoppedError):
            run(*second, listeners=[stop, loaded])
    latest = (output / "latest.json").read_bytes()
    (output / "latest.json").unlink()
    run(*second, listeners=[loaded])

    expected: dict[str, Any] = {"source": str(first), "head": "taken over by label"}
    assert [expected, expected] == [{name: facts[name] for name in expected} for facts in loaded.seen]
    [folder] = [path for path in (output / "runs").iterdir() if path != first]
    recorded = strict_json((folder / "manifest.json").read_bytes())["provenance"]["weights"]["run"]
    assert ["eels"] == recorded["new_labels"]
    sources = strict_json((folder / "provenance.json").read_bytes())["predicate"]["buildDefinition"]
    [parent] = [found for found in sources["resolvedDependencies"] if found.get("name") == "warm start"]
    assert recorded["manifest_sha256"] == parent["digest"]["sha256"]
    metrics = strict_json((folder / "metrics/metrics.json").read_bytes())
    assert {"validation": 0, "test": 0} == metrics["data"]["seen"]
    assert latest != (output / "latest.json").read_bytes()
    assert "run.started" not in run(*second)


def test_images_that_the_model_has_seen(tmp_path: Path) -> None:
    """Held-out images that the model has trained on are counted: the split has changed since."""
    pictures, output = tmp_path / "in", tmp_path / "out"
    arguments = ("--input.uri", pictures, "--output.uri", output, *ONE_STAGE)
    draw_label(pictures, "cats", 60)
    draw_label(pictures, "dogs", 190)
    run(*arguments)
    [first] = (output / "runs").iterdir()

    seen = Facts("warm_start.images_seen")
    run(*arguments, "--model.weights", first, "--input.validation_fraction", "0.6", listeners=[seen])

    [facts] = seen.seen
    assert str(first) == facts["run_uri"]
    [folder] = [path for path in (output / "runs").iterdir() if path != first]
    metrics = strict_json((folder / "metrics/metrics.json").read_bytes())
    assert 0 < facts["validation"] == metrics["data"]["seen"]["validation"]
    assert "seen_validation" in [warned["code"] for warned in metrics["warnings"]]
