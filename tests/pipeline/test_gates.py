"""Runs one after the other into one output: each is compared with the one that latest.json names."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import light_runs
import pytest
import tensorflow as tf
from latest_runs import point_to
from published_runs import described
from runs import ONE_STAGE, At, Facts, draw, run, strict_json
from structlog.testing import capture_logs

from job import errors, storage

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from job.observability.progress import Listener

GATE = "--gate.no_worse_than_latest"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each of two classes, 40 pictures each."""
    folder = tmp_path_factory.mktemp("pictures")
    for n in range(40):
        draw(folder / "dark" / f"{n}.png", shade=60, seed=n)
        draw(folder / "light" / f"{n}.png", shade=190, seed=100 + n)
    return folder


def train(pictures: Path, output: Path, *arguments: str, listeners: Sequence[Listener] = ()) -> None:
    """Train one stage, with half of the pictures held out."""
    flags = ("--input.uri", pictures, "--output.uri", output, "--input.validation_fraction", "0.5", *ONE_STAGE)
    with light_runs.here(light_runs.SHALLOW, light_runs.UNVERIFIED):
        run(*flags, *arguments, listeners=listeners)


@pytest.fixture(scope="module")
def first(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output with one run, called first."""
    output = tmp_path_factory.mktemp("first")
    train(pictures, output, "--run.id", "first", GATE, "0")
    return output


def document(output: Path, name: str) -> Any:
    """Return a JSON document of an output."""
    return strict_json((output / name).read_bytes())


class ByShade(tf.Module):
    """A model that knows light pictures from dark ones.

    Args:
        sign: 1: it is always right; -1: always wrong.
    """

    def __init__(self, sign: int) -> None:
        super().__init__()
        self._sign = sign

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, "image_bytes")])
    def serve_bytes(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return the probabilities of encoded images."""
        shades = tf.map_fn(
            lambda data: tf.reduce_mean(tf.cast(tf.io.decode_png(data, channels=3), tf.float32)),
            image_bytes,
            fn_output_signature=tf.float32,
        )
        light = tf.sigmoid(self._sign * (shades - 125))
        return {"probabilities": tf.stack([1 - light, light], axis=1)}


def replace_model(run_folder: Path, model: tf.Module) -> None:
    """Replace a published run's model, with its checksums."""
    folder = run_folder / "model/saved_model"
    shutil.rmtree(folder)
    tf.saved_model.save(model, str(folder), signatures={"serve_bytes": model.serve_bytes})
    manifest = strict_json((run_folder / "manifest.json").read_bytes())
    files = [path for path in folder.rglob("*") if path.is_file()]
    manifest["files"] |= {str(path.relative_to(run_folder)): described(path.read_bytes()).document() for path in files}
    (run_folder / "manifest.json").write_text(json.dumps(manifest))


def test_first_run(first: Path) -> None:
    """Without a latest run the check passes, with a note."""
    [check] = document(first, "latest.json")["gate"]["checks"]

    assert ("no_worse_than_latest", None, True) == (check["name"], check["value"], check["passed"])
    assert "no latest.json" in check["note"]


def test_worse_run(pictures: Path, first: Path, tmp_path: Path) -> None:
    """A worse model than the latest fails the gate, at each start that requires it, and is never the latest."""
    output = shutil.copytree(first, tmp_path / "out")
    replace_model(output / "runs/first", ByShade(1))
    before = (output / "latest.json").read_bytes()
    for _ in ("published", "found published"):
        evaluated = Facts("run.evaluated")
        with pytest.raises(errors.GateError, match=r"the latest run, first, has 1\.0000 on the same") as caught:
            train(pictures, output, "--run.id", "worse", "--run.seed", "8", GATE, "0.05", listeners=[evaluated])
        assert 6 == caught.value.exit_code
        assert [[False]] == [[check["passed"] for check in facts["gate"]["checks"]] for facts in evaluated.seen]
    assert before == (output / "latest.json").read_bytes()
    with capture_logs() as lines:
        train(pictures, output, "--run.id", "worse", "--run.seed", "8")
    assert ["latest.not_moved"] == [line["event"] for line in lines if line["log_level"] == "warning"]

    metrics = document(output, "runs/worse/metrics/metrics.json")
    latest, validation = metrics["gate"]["latest"], metrics["validation"]
    assert ("first", 1.0) == (latest["run_id"], latest["latest_accuracy"])
    assert (validation["accuracy"], validation["images"]) == (latest["accuracy"], latest["images"])
    assert latest["interval"][0] <= latest["difference"] <= latest["interval"][1] < -0.05
    assert metrics["timing"]["compare"] > 0
    assert metrics["gate"]["checks"] == document(output, "runs/worse/manifest.json")["gate"]["checks"]


def test_latest_moves_during_the_comparison(pictures: Path, first: Path, tmp_path: Path) -> None:
    """If latest.json moves while a run is compared, the run is compared with the other one, too, before it moves it."""
    output = shutil.copytree(first, tmp_path / "out")
    shutil.copytree(output / "runs/first", output / "runs/other")
    replace_model(output / "runs/other", ByShade(-1))
    moves = [lambda: point_to(storage.open_store(str(output)), "other")]
    compared = Facts("gate.compared")
    train(
        pictures,
        output,
        *("--run.id", "second", "--run.seed", "8", GATE, "0.9"),
        listeners=[compared, At("gate.compared", lambda: moves and moves.pop()())],
    )

    assert ["first", "other"] == [facts["latest"] for facts in compared.seen]
    assert 0.0 == compared.seen[1]["latest_accuracy"] < compared.seen[0]["latest_accuracy"]
    latest = document(output, "latest.json")
    assert ("second", "other") == (latest["run_id"], latest["gate"]["latest"]["run_id"])
