"""A whole run: what it publishes, what another start finds, and how it ends when something is wrong."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import google_crc32c
import numpy as np
import odd_images
import pytest
import tensorflow as tf
from digests import arrays_sha256
from runs import ONE_STAGE, SMALL, WITH_REPORT, At, Facts, draw, only_run, run, strict_json, tree
from structlog.testing import capture_logs

from job import errors, pipeline, storage
from job.evaluation import metrics_schema
from job.observability.progress import Event, Listener
from job.runtime.timing import Part
from job.storage.local import LocalStore

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

LAYOUT = {
    "_SUCCESS",
    "config.json",
    "data/duplicates.jsonl",
    "data/label_errors.jsonl",
    "data/manifest.jsonl",
    "data/quarantine.jsonl",
    "data/split.jsonl",
    "manifest.json",
    "metrics/curves.json",
    "metrics/history.csv",
    "metrics/metrics.json",
    "metrics/metrics.schema.json",
    "metrics/predictions.csv",
    "model/labels.txt",
    "model/model.keras",
    "model/saved_model/assets.extra/tf_serving_warmup_requests",
    "model/saved_model/fingerprint.pb",
    "model/saved_model/saved_model.pb",
    "model/saved_model/variables/variables.data-00000-of-00001",
    "model/saved_model/variables/variables.index",
    "model_card.md",
    "provenance.json",
    "report/calibration.png",
    "report/confusion.png",
    "report/curves.png",
    "report/gallery.json",
    "report/index.html",
    "report/roc.png",
    "status.json",
}


def predictions(output: Path) -> list[dict[str, str]]:
    """Return the rows of predictions.csv."""
    return list(csv.DictReader((only_run(output) / "metrics/predictions.csv").read_text().splitlines()))


def test_layout(published: Path) -> None:
    """A run publishes exactly what is documented, under its own prefix; latest.json names it."""
    folder = only_run(published)
    latest = strict_json((published / "latest.json").read_bytes())

    assert LAYOUT == set(tree(folder))
    assert {"run_id": folder.name, "run_uri": str(folder)} == {key: latest[key] for key in ("run_id", "run_uri")}


def test_manifest_has_every_file(published: Path) -> None:
    """manifest.json has size, sha256 and crc32c of every file but those that come after it, and _SUCCESS its own."""
    folder = only_run(published)
    files = strict_json((folder / "manifest.json").read_bytes())["files"]
    expected = {}
    for name in LAYOUT - {"_SUCCESS", "manifest.json", "status.json"}:
        data = (folder / name).read_bytes()
        crc32c = f"{google_crc32c.value(data):08x}"
        expected[name] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "crc32c": crc32c}

    assert expected == files
    success = strict_json((folder / "_SUCCESS").read_bytes())
    assert hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest() == success["manifest_sha256"]


def test_overview(published: Path) -> None:
    """_SUCCESS has what a list of runs shows: each value is that of the run's other files, and none is missing."""
    folder = only_run(published)
    metrics = strict_json((folder / "metrics/metrics.json").read_bytes())
    found = strict_json((folder / "_SUCCESS").read_bytes())["overview"]

    assert not [name for name, value in found.items() if value is None]
    assert (metrics["kept"]["stage"], metrics["kept"]["epoch"]) == (found["kept_stage"], found["kept_epoch"])
    assert metrics["validation"]["intervals"]["accuracy"] == found["accuracy_interval"]
    assert (metrics["validation"]["accuracy"], metrics["validation"]["images"]) == (
        found["accuracy"],
        found["images"]["validation"],
    )
    assert (1, 0.0, folder.name) == (found["attempts"], found["gpu_seconds"], found["run_id"])
    assert found["seconds"] >= metrics["timing"]["total"]


def test_metrics(published: Path) -> None:
    """metrics.json is strict JSON with the documented keys; there is no test split, so it is null."""
    metrics = strict_json((only_run(published) / "metrics/metrics.json").read_bytes())

    assert metrics["test"] is None
    assert {"feature_extraction", "fine_tuning"} == set(metrics["stages"])
    assert {*get_args(Part), "total", "starts", "gpus"} == set(metrics["timing"])
    status = strict_json((only_run(published) / "status.json").read_bytes())
    assert 1 == metrics["timing"]["starts"] == status["attempt"]
    assert 0 == metrics["timing"]["gpus"]
    verification = metrics["verification"]
    assert verification["keras_images"] == verification["images"] > 0
    assert max(verification["max_difference"], verification["keras_max_difference"]) <= 1e-3
    assert metrics["kept"] == min((metrics["best"], metrics["last"]), key=lambda epoch: epoch["val_loss"])


def test_history(published: Path) -> None:
    """history.csv has a row an epoch, counted in each stage and across both, with the learning rate last."""
    header, *rows = csv.reader((only_run(published) / "metrics/history.csv").read_text().splitlines())

    assert header == [
        *("stage", "epoch", "loss", "accuracy", "val_loss", "val_accuracy", "seconds", "images_per_second"),
        *("epoch_total", "learning_rate"),
    ]
    expected = [["feature_extraction", "1", "1", "0.0001"], ["fine_tuning", "1", "2", "1e-05"]]
    assert expected == [[*row[:2], *row[-2:]] for row in rows]


def test_predictions(published: Path) -> None:
    """predictions.csv has each validation image with its true label and a probability for each label."""
    rows = predictions(published)
    split = [json.loads(line) for line in (only_run(published) / "data/split.jsonl").read_text().splitlines()]
    held_out = {row["uri"]: row["label"] for row in split if row["split"] == "validation"}

    assert held_out == {row["uri"]: row["label"] for row in rows}
    assert all(Path(row["uri"]).parent.name == row["label"] for row in rows)
    for row in rows:
        probabilities = {label: float(row[f"probability_{label}"]) for label in ("dark", "light")}
        assert sum(probabilities.values()) == pytest.approx(1)
        assert max(probabilities, key=probabilities.get) == row["prediction"]


def test_keras_model_needs_no_package(published: Path, tmp_path: Path) -> None:
    """model.keras loads in a process that cannot import this package, and takes raw uint8 pixels."""
    code = """
import sys, keras, numpy
model = keras.models.load_model(sys.argv[1])
assert "job" not in sys.modules
print(model.name, model.input_shape, [layer.name for layer in model.layers[-1].layers][-2:])
print(model(numpy.zeros((1, 50, 40, 3), "uint8")).shape)
"""
    model = only_run(published) / "model/model.keras"
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, model], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert done.stdout.splitlines() == [
        "image_classifier (None, None, None, 3) ['fc1', 'output']",
        "(1, 1)",
    ], done.stderr


def test_saved_model_answers_from_raw_bytes(published: Path) -> None:
    """serve_bytes gives predictions.csv's probabilities from the files; serving_default takes pixels."""
    served = tf.saved_model.load(str(only_run(published) / "model/saved_model"))
    rows = predictions(published)
    answer = served.signatures["serve_bytes"](image_bytes=tf.constant([Path(row["uri"]).read_bytes() for row in rows]))
    expected = [[float(row["probability_dark"]), float(row["probability_light"])] for row in rows]

    np.testing.assert_allclose(answer["probabilities"], expected, atol=1e-5)
    assert [[b"dark", b"light"]] * len(rows) == answer["labels"].numpy().tolist()
    signature = served.signatures["serving_default"].structured_input_signature[1]["pixels"]
    assert (tf.uint8, [None, None, None, 3]) == (signature.dtype, signature.shape.as_list())


class LastEvent(Listener):
    """Remembers the facts of the last event."""

    def on_event(self, event: Event) -> None:
        """Remember them."""
        self.facts = event.facts


def test_published_run_is_found(published: Path, pictures: Path) -> None:
    """The same settings on the same data are the same run: nothing is trained and nothing is written."""
    before, last = tree(published), LastEvent()
    names = run("--input.uri", pictures, "--output.uri", published, listeners=[last])

    assert before == tree(published)
    assert ["input.listed", "run.evaluated", "run.succeeded"] == names
    manifest = strict_json((only_run(published) / "manifest.json").read_bytes())
    assert f"already published on {manifest['published_at'][:10]}, nothing to do" == last.facts["message"]
    assert manifest["gate"]["accuracy"] == last.facts["accuracy"]


def unfinished_publication(published: Path, folder: Path) -> Path:
    """Return a copy of an output whose run was killed between _SUCCESS and the removal of its checkpoints."""
    output = shutil.copytree(published, folder)
    success = strict_json((only_run(output) / "_SUCCESS").read_bytes())
    (only_run(output) / "checkpoints").mkdir(exist_ok=True)
    (only_run(output) / "checkpoints/index.json").write_text(json.dumps(success))
    return output


@pytest.mark.parametrize("latest", [None, b"", b'{"run_id": "x"}'])
def test_published_run_is_completed(published: Path, pictures: Path, tmp_path: Path, latest: bytes | None) -> None:
    """A start that finds _SUCCESS and the commit moves latest.json, also an unreadable one, and removes the rest."""
    output = unfinished_publication(published, tmp_path / "copy")
    (only_run(output) / "checkpoints/old").write_text("weights")
    (output / "latest.json").unlink()
    if latest is not None:
        (output / "latest.json").write_bytes(latest)
    run("--input.uri", pictures, "--output.uri", output)

    assert only_run(output).name == strict_json((output / "latest.json").read_bytes())["run_id"]
    assert not list((only_run(output) / "checkpoints").iterdir())


@pytest.mark.parametrize("pinned", [False, True])
def test_latest_stays_with_a_later_or_pinned_run(published: Path, pictures: Path, tmp_path: Path, pinned: bool) -> None:
    """Completing a run does not take latest.json from a run that was published after it, or that is pinned."""
    output = unfinished_publication(published, tmp_path / "copy")
    at = "2001-01-01T00:00:00Z" if pinned else "2999-01-01T00:00:00Z"
    other = json.dumps({"run_id": "other", "published_at": at, "pinned": pinned})
    (output / "latest.json").write_text(other)
    run("--input.uri", pictures, "--output.uri", output)

    assert other == (output / "latest.json").read_text()


def test_rollback_stays(published: Path, pictures: Path, tmp_path: Path) -> None:
    """A later start of a published run never moves latest.json; what a late process left behind is removed."""
    output = shutil.copytree(published, tmp_path / "copy")
    rolled_back = json.dumps({"run_id": "earlier", "published_at": "2001-01-01T00:00:00Z"})
    (output / "latest.json").write_text(rolled_back)
    (only_run(output) / "checkpoints").mkdir(exist_ok=True)
    (only_run(output) / "checkpoints/orphan.npz").write_text("of a late process")
    run("--input.uri", pictures, "--output.uri", output)

    assert rolled_back == (output / "latest.json").read_text()
    assert not list((only_run(output) / "checkpoints").iterdir())


def test_gate_of_each_start(published: Path, pictures: Path, tmp_path: Path) -> None:
    """A published run is judged by the gate of each start: a raised one fails it, and does not change latest.json."""
    before = tree(published)
    accuracy = strict_json((only_run(published) / "manifest.json").read_bytes())["gate"]["accuracy"]
    with pytest.raises(errors.GateError, match=rf"{accuracy:.4f}, below gate.min_accuracy = 1:"):
        run("--input.uri", pictures, "--output.uri", published, "--gate.min_accuracy", "1")

    assert before == tree(published)
    output = unfinished_publication(published, tmp_path / "copy")
    (output / "latest.json").unlink()
    with pytest.raises(errors.GateError):
        run("--input.uri", pictures, "--output.uri", output, "--gate.min_accuracy", "1")
    assert not (output / "latest.json").exists(), "a run below the gate is never the latest"


@pytest.mark.parametrize(
    ("name", "content", "remedy"),
    [
        ("config.json", b"", "restore it from a copy"),
        ("manifest.json", b"{}", "restore it from a copy"),
        ("../../jobs/uid-1.json", b"", "delete it"),
    ],
)
def test_damaged_control_documents(
    published: Path, pictures: Path, tmp_path: Path, name: str, content: bytes, remedy: str
) -> None:
    """Where a start depends on a file that is empty or foreign, it ends with exit code 3 and says what to do."""
    output = shutil.copytree(published, tmp_path / "copy")
    (output / "jobs").mkdir(exist_ok=True)
    (only_run(output) / name).write_bytes(content)

    with pytest.raises(errors.DataError, match=f"{Path(name).name} is unreadable") as caught:
        run("--input.uri", pictures, "--output.uri", output, "--run.job_uid", "uid-1")
    assert remedy in caught.value.remedy


def test_same_bits(published: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another run on the same data ends in the same bits, whatever the order in which the downloads end."""
    copy, read_many, orders = shutil.copytree(pictures, tmp_path / "pictures"), LocalStore.read_many, []

    def read_backwards(
        store: LocalStore, objects: Sequence[storage.ObjectInfo]
    ) -> Iterator[tuple[int, bytes | storage.LostObject]]:
        read = list(read_many(store, objects))[::-1]
        orders.append([index for index, _ in read])
        yield from read

    monkeypatch.setattr(LocalStore, "read_many", read_backwards)
    caches = Facts("cache.opened")
    run("--input.uri", copy, "--output.uri", tmp_path / "out", "--cache.max_bytes", "200000", listeners=[caches])
    assert [False] == [facts["pixels_kept"] for facts in caches.seen], "else they are not decoded again each epoch"
    assert any(order != sorted(order) for order in orders)
    first, second = (only_run(output) for output in (published, tmp_path / "out"))

    assert first.name.split("-")[-1] == second.name.split("-")[-1]
    assert arrays_sha256(first / "model/model.keras") == arrays_sha256(second / "model/model.keras")
    assert predictions(published)[0]["probability_dark"] == predictions(tmp_path / "out")[0]["probability_dark"]


def test_explicit_id_with_other_settings(published: Path, pictures: Path, tmp_path: Path) -> None:
    """A run.id of a run with other settings or data is rejected; the error names the difference."""
    output = shutil.copytree(published, tmp_path / "copy")
    taken = only_run(output).name
    with pytest.raises(errors.SettingsError) as caught:
        run("--input.uri", pictures, "--output.uri", output, "--run.id", taken, "--run.seed", "8")
    assert "run.seed is 8, and was 7" in caught.value.message
    draw(tmp_path / "more/dark/0.png", shade=10, seed=0)
    more = shutil.copytree(pictures, tmp_path / "more", dirs_exist_ok=True)
    with pytest.raises(errors.SettingsError, match="the data differ"):
        run("--input.uri", more, "--output.uri", output, "--run.id", taken)


def test_job_keeps_to_its_run(published: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Job's first Pod pins the run; its later Pods find it published, although the input has changed meanwhile."""
    output = shutil.copytree(published, tmp_path / "copy")
    run("--input.uri", pictures, "--output.uri", output, "--run.job_uid", "uid-1")
    more = shutil.copytree(pictures, tmp_path / "more")
    draw(more / "dark/new.png", shade=10, seed=0)

    record = strict_json((output / "jobs/uid-1.json").read_bytes())
    assert (only_run(output).name, [0]) == (record["run_id"], [attempt["exit_code"] for attempt in record["attempts"]])
    monkeypatch.setattr(pipeline, "identify", None)  # a published run needs no lookup, not even of weights
    assert ["run.evaluated", "run.succeeded"] == run(
        "--input.uri", more, "--output.uri", output, "--run.job_uid", "uid-1"
    )


def test_gate(pictures: Path, tmp_path: Path) -> None:
    """Below gate.min_accuracy a run is published, latest.json is not moved, and the exit code is 6.

    A gate that is lowered afterwards passes it, with a warning: latest.json still names another run, or none.
    """
    arguments = ("--input.uri", pictures, "--output.uri", tmp_path, *ONE_STAGE, *WITH_REPORT)
    for _ in ("trained", "found published"):
        evaluated = Facts("run.evaluated")
        with pytest.raises(errors.GateError, match=r"below gate.min_accuracy = 1:") as caught:
            run(*arguments, "--gate.min_accuracy", "1", listeners=[evaluated])
        assert 6 == caught.value.exit_code
        assert [str(only_run(tmp_path))] == [facts["run_uri"] for facts in evaluated.seen]
    assert LAYOUT == set(tree(only_run(tmp_path)))
    assert not strict_json((only_run(tmp_path) / "manifest.json").read_bytes())["gate"]["passed"]
    with capture_logs() as lines:
        run(*arguments)
    assert ["latest.not_moved"] == [line["event"] for line in lines if line["log_level"] == "warning"]
    assert not (tmp_path / "latest.json").exists()


def test_three_classes_with_splits(bucket: str, tmp_path: Path) -> None:
    """From bucket to bucket: train/, validation/ and test/ are read as they are; three labels have a softmax.

    The scores are each side's own, and those of the weights that are published, which are not the last.
    """
    store = storage.open_store(f"gs://{bucket}")
    shades = {"a b": 30, "ü%#?": 128, "c": 220}
    for number, (side, label) in enumerate((s, c) for s in ("train", "validation", "test") for c in shades):
        for n in range(3 if side == "test" else 4):
            draw(tmp_path / "one.png", shade=shades[label], seed=10 * number + n)
            store.write(f"in/{side}/{label}/{n}.png", tmp_path / "one.png")
    too_high = ("--fine_tuning.learning_rate", "0.5")
    run("--input.uri", f"gs://{bucket}/in", "--output.uri", f"gs://{bucket}/out/", *too_high, *WITH_REPORT)

    [success] = [found.name for found in store.list("out/runs") if found.name.endswith("/_SUCCESS")]
    folder = success.removesuffix("/_SUCCESS")
    metrics = strict_json(store.read(f"{folder}/metrics/metrics.json")[0])
    rows = list(csv.DictReader(store.read(f"{folder}/metrics/predictions.csv")[0].decode().splitlines()))
    assert LAYOUT == {found.name.removeprefix(f"{folder}/") for found in store.list(folder)}
    assert (12, 9) == (metrics["validation"]["images"], metrics["test"]["images"])
    for side in ("validation", "test"):
        of_side = [row for row in rows if row["split"] == side]
        losses = [-np.log(float(row[f"probability_{row['label']}"])) for row in of_side]
        right = [row["prediction"] == row["label"] for row in of_side]
        assert (pytest.approx(np.mean(losses), rel=1e-4), pytest.approx(np.mean(right))) == (
            metrics[side]["loss"], metrics[side]["accuracy"]
        )  # fmt: skip
    assert metrics["kept"]["val_loss"] < metrics["last"]["val_loss"]
    assert pytest.approx(metrics["kept"]["val_loss"], rel=1e-4) == metrics["validation"]["loss"]
    assert sorted(shades) == store.read(f"{folder}/model/labels.txt")[0].decode().splitlines()
    assert all(f"/{row['split']}/{row['label']}/" in row["uri"] for row in rows)
    assert {"train": 4, "validation": 4, "test": 3} == metrics["data"]["labels"]["a b"]
    assert metrics_schema.Metrics.model_validate(metrics, strict=False)
    assert [f"probability_{label}" for label in sorted(shades)] == list(rows[0])[4:]


def test_unreadable_images_within_the_budget(pictures: Path, tmp_path: Path) -> None:
    """Up to input.max_bad_fraction, unreadable images are left out, each with its reason."""
    copy = shutil.copytree(pictures, tmp_path / "pictures")
    (copy / "dark/broken.jpg").write_bytes((copy / "dark/0.jpg").read_bytes()[:500])
    (copy / "light/page.jpg").write_text("<html>404</html>")
    (copy / "light/empty.jpg").touch()
    run("--input.uri", copy, "--output.uri", tmp_path / "out", "--input.max_bad_fraction", "0.2", *ONE_STAGE)

    lines = (only_run(tmp_path / "out") / "data/quarantine.jsonl").read_text().splitlines()
    quarantined = {Path(row["uri"]).name: (row["label"], row["reason"], row["size"]) for row in map(strict_json, lines)}
    assert {
        "broken.jpg": ("dark", "corrupt", 500),
        "page.jpg": ("light", "not_an_image", 16),
        "empty.jpg": ("light", "empty", 0),
    } == quarantined
    assert 20 == len((only_run(tmp_path / "out") / "data/manifest.jsonl").read_text().splitlines())


def test_unreadable_images_over_the_budget(pictures: Path, tmp_path: Path) -> None:
    """Above it the run ends with exit 3 before training, naming the folder, the counts and the files."""
    copy = shutil.copytree(pictures, tmp_path / "pictures")
    (copy / "dark/broken.jpg").write_bytes((copy / "dark/0.jpg").read_bytes()[:500])
    with pytest.raises(errors.DataError) as caught:
        run("--input.uri", copy, "--output.uri", tmp_path / "out")
    assert f"1 of 21 images under {copy} cannot be used (1 corrupt)" in caught.value.message
    assert str(copy / "dark/broken.jpg") in caught.value.message
    assert 3 == caught.value.exit_code
    path = only_run(tmp_path / "out") / "data/quarantine.jsonl"
    assert str(path) in caught.value.remedy
    assert [("corrupt", str(copy / "dark/broken.jpg"))] == [
        (row["reason"], row["uri"]) for row in map(strict_json, path.read_text().splitlines())
    ]


def test_too_many_unusable_images_in_the_listing(pictures: Path, tmp_path: Path) -> None:
    """What the listing alone shows ends the run before anything is downloaded, and is listed all the same."""
    copy = shutil.copytree(pictures, tmp_path / "pictures")
    for number in range(3):
        (copy / f"light/empty{number}.jpg").touch()
    with pytest.raises(errors.DataError, match="3 of 23 images") as caught:
        run("--input.uri", copy, "--output.uri", tmp_path / "out")
    path = only_run(tmp_path / "out") / "data/quarantine.jsonl"
    assert str(path) in caught.value.remedy
    assert ["empty"] * 3 == [row["reason"] for row in map(strict_json, path.read_text().splitlines())]
    for number in range(3):
        (copy / f"light/empty{number}.jpg").unlink()

    run("--input.uri", copy, "--output.uri", tmp_path / "out")

    assert "" == path.read_text()


def test_no_usable_image_in_the_listing(pictures: Path, tmp_path: Path) -> None:
    """A table of images that do not exist has them all in its list."""
    table = tmp_path / "list.csv"
    table.write_text("".join(f"{pictures}/gone/{label}{number}.jpg,{label}\n" for label in "ab" for number in range(3)))
    with pytest.raises(errors.DataError, match="6 of 6 images") as caught:
        run("--input.uri", table, "--output.uri", tmp_path / "out")
    path = only_run(tmp_path / "out") / "data/quarantine.jsonl"
    assert str(path) in caught.value.remedy
    assert ["missing"] * 6 == [row["reason"] for row in map(strict_json, path.read_text().splitlines())]


def test_images_that_vanish_or_change_after_listing(pictures: Path, tmp_path: Path) -> None:
    """Before the manifest is final they are quarantined; a resumed run that misses one ends with exit 3."""
    copy = shutil.copytree(pictures, tmp_path / "pictures")

    def disturb() -> None:
        (copy / "dark/3.jpg").unlink()
        draw(copy / "light/4.png", shade=200, seed=4)

    def stop() -> None:
        raise KeyboardInterrupt

    arguments = ("--input.uri", copy, "--output.uri", tmp_path / "out", "--input.max_bad_fraction", "0.2")
    arguments += ("--run.job_uid", "uid-1")
    with pytest.raises(KeyboardInterrupt):
        run(*arguments, listeners=[At("run.started", disturb), At("model.chosen", stop)])
    lines = (only_run(tmp_path / "out") / "data/quarantine.jsonl").read_text().splitlines()
    reasons = {Path(row["uri"]).name: row["reason"] for row in map(strict_json, lines)}
    (copy / "light/0.png").unlink()

    assert {"3.jpg": "missing", "4.png": "changed"} == reasons
    with pytest.raises(errors.DataError, match=r"light/0.png cannot be read any more, and this run has begun with it"):
        run(*arguments)


def test_too_small_a_cache(pictures: Path, tmp_path: Path) -> None:
    """A cache that cannot hold images and features ends with exit 3 and the bytes needed."""
    with pytest.raises(errors.DataError, match=r"take [\d,]+ bytes, and the cache may hold 1,000") as caught:
        run("--input.uri", pictures, "--output.uri", tmp_path / "out", "--cache.max_bytes", "1000")
    assert "cache.max_bytes to at least" in caught.value.remedy


def test_output_that_cannot_be_written(pictures: Path) -> None:
    """An output that cannot be written ends the run with exit 5 before TensorFlow is loaded."""
    command = [sys.executable, "-m", "job", "run", *SMALL, "--input.uri", pictures, "--output.uri", "/sys/nowhere"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    events = [strict_json(line) for line in done.stderr.splitlines()]

    assert 5 == done.returncode
    assert "run.failed" == events[-1]["event"]
    assert "/sys/nowhere" in events[-1]["message"]
    assert events[-1]["remedy"]
    assert "device.configured" not in {event["message"] for event in events}


@pytest.mark.usefixtures("answering")
@pytest.mark.parametrize("damaged", ["warn", "quarantine"])
def test_odd_images(pictures: Path, tmp_path: Path, damaged: str) -> None:
    """A run and validate --deep have one outcome for every odd image, and print nothing of native code."""
    shutil.copytree(pictures, tmp_path / "in")
    for name, kind in odd_images.ALL.items():
        (tmp_path / "in/light" / f"{name}.jpg").write_bytes(kind.build())
    images = [path for path in (tmp_path / "in").rglob("*") if path.is_file()]
    cache = sum(path.stat().st_size for path in images) + 5500 * len(images)  # without pixels: all is decoded again
    settings = ("--input.damaged", damaged, "--input.max_bad_fraction", "1", "--cache.max_bytes", str(cache))
    arguments = [*SMALL, *ONE_STAGE, "--input.uri", tmp_path / "in", *settings, "--log.format", "json"]

    def execute(*command: str | Path) -> tuple[str, list[dict]]:
        done = subprocess.run([sys.executable, "-m", "job", *command], capture_output=True, text=True, check=False)
        assert 0 == done.returncode, done.stderr
        return done.stdout, [strict_json(line) for line in done.stderr.splitlines()]

    output, events = execute("run", *arguments, "--output.uri", tmp_path / "out")
    document, of_validate = execute("validate", "--deep", "--json", *arguments)

    lines = (only_run(tmp_path / "out") / "data/quarantine.jsonl").read_text().splitlines()
    reasons = {Path(row["uri"]).stem: row["reason"] for row in map(strict_json, lines)}
    warned_about = {name for name, kind in odd_images.ALL.items() if kind.warning}
    named = {Path(event["uri"]).stem for event in events if event["message"] == "image.damaged"}
    found = strict_json(document)
    assert not output
    assert Counter(reasons.values()) == found["unusable"]
    assert found["unusable_images"][0]["reason"] == reasons[Path(found["unusable_images"][0]["uri"]).stem]
    assert (warned_about if damaged == "warn" else set()) == named
    assert named == {Path(image["uri"]).stem for image in found["damaged_images"]}
    assert (warned_about if damaged == "quarantine" else set()) == {
        name for name, reason in reasons.items() if reason == "damaged"
    }
    counts = [
        [event["count"] for event in log if event["message"] == "images.damaged"] for log in (events, of_validate)
    ]
    assert [[len(named)], [len(named)]] == counts if damaged == "warn" else [[], []] == counts
    assert "pixels are decoded again each epoch" in {e["message"]: e for e in events}["cache.opened"]["note"]


def test_every_line_is_json(pictures: Path, tmp_path: Path) -> None:
    """Without a terminal every line that a whole run writes is strict JSON with severity, message and time."""
    command = [sys.executable, "-m", "job", "run", *SMALL, "--input.uri", pictures, "--output.uri", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    events = [strict_json(line) for line in done.stderr.splitlines()]

    assert (0, "") == (done.returncode, done.stdout)
    assert all({"severity", "message", "time"} <= set(event) for event in events)
    assert 2 == sum(event["message"] == "epoch.finished" for event in events)
    status = strict_json((only_run(tmp_path) / "status.json").read_bytes())
    assert ("succeeded", str(only_run(tmp_path))) == (status["state"], status["run_uri"])
