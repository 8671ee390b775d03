"""`finetune predict` with a published model: the answers are those that the run recorded."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from runs import draw, only_run

from job import storage
from job.commands import predict
from job.errors import DataError
from job.observability.progress import Progress

if TYPE_CHECKING:
    from pathlib import Path


def recorded(published: Path) -> dict[str, dict[str, float]]:
    """Return URI -> label -> probability of the run's predictions.csv."""
    rows = csv.DictReader((only_run(published) / "metrics/predictions.csv").read_text().splitlines())
    return {row["uri"]: {label: float(row[f"probability_{label}"]) for label in ("dark", "light")} for row in rows}


def execute(*arguments: str | Path) -> None:
    """Execute the command in this process, and require that it succeeds."""
    assert 0 == predict.parse([*map(str, arguments)]).execute(Progress())


def check(documents: list[dict[str, Any]], expected: dict[str, dict[str, float]]) -> None:
    """Compare a result with what the run recorded."""
    assert set(expected) == {document["uri"] for document in documents} & set(expected)
    for document in documents:
        if document["uri"] in expected:
            found = {one["label"]: one["probability"] for one in document["predictions"]}
            assert expected[document["uri"]] == pytest.approx(found, abs=1e-5)


def test_answers_of_the_run(published: Path, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The held-out images get the probabilities that the run recorded; the order is that of the input."""
    execute(published / "latest", pictures, "--json", "--top-k", "2")

    documents = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    check(documents, recorded(published))
    assert sorted(map(str, pictures.rglob("*.*"))) == [document["uri"] for document in documents]


def test_unreadable_images(
    published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Damaged and missing images, also of a list, are rows with their reason, and no failure."""
    draw(tmp_path / "2.jpg", shade=60, seed=1)
    (tmp_path / "1.jpg").write_bytes((tmp_path / "2.jpg").read_bytes()[:300])
    listed = f"{tmp_path / '2.jpg'}\n\n{tmp_path / 'gone.jpg'}\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(listed.encode())))

    execute(only_run(published), tmp_path, "-", "--csv")

    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert ["1.jpg", "2.jpg", "2.jpg", "gone.jpg"] == [row["uri"].rpartition("/")[2] for row in rows]
    assert ["corrupt", "", "", "missing"] == [row["reason"] for row in rows]
    assert [False, True, True, False] == [row["label"] in ("dark", "light") for row in rows]
    assert rows[1]["probability"] == rows[2]["probability"]


def test_nothing_to_score(published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where no image can be read the command ends with exit code 3, and names the first; the result is printed."""
    (tmp_path / "1.jpg").write_bytes(b"<html>")
    (tmp_path / "2.jpg").touch()

    with pytest.raises(DataError, match=r"1\.jpg could not be used, nor any of the 1 others"):
        execute(published / "latest", tmp_path)

    assert 2 == len(capsys.readouterr().out.splitlines())
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/a.txt").touch()
    with pytest.raises(DataError, match="nothing but files of other types"):
        execute(published / "latest", tmp_path / "notes")


@pytest.mark.parametrize("name", ["model/saved_model/saved_model.pb", "model/labels.txt"])
def test_damaged_model(published: Path, pictures: Path, tmp_path: Path, name: str) -> None:
    """A model that is not as published is not loaded."""
    run = shutil.copytree(only_run(published), tmp_path / "run")
    data = bytearray((run / name).read_bytes())
    data[-1] ^= 1
    (run / name).write_bytes(data)

    with pytest.raises(DataError, match=f"{name}: its crc32c is"):
        execute(run, pictures)


def test_as_a_process(published: Path, pictures: Path) -> None:
    """The table is on stdout alone, and a reader that stops early is no failure."""
    command = f"{sys.executable} -m job predict {published}/latest {pictures}"
    whole = subprocess.run(command.split(), capture_output=True, text=True, check=False)
    first = subprocess.run(["bash", "-o", "pipefail", "-c", f"{command} | head -n 1"], capture_output=True, check=False)

    assert (0, 20) == (whole.returncode, len(whole.stdout.splitlines())), whole.stderr
    assert {"dark", "light"} >= {line.split()[1] for line in whole.stdout.splitlines()}
    assert all(json.loads(line)["severity"] for line in whole.stderr.splitlines())
    assert (0, whole.stdout.splitlines()[0]) == (first.returncode, first.stdout.decode().strip()), first.stderr


def upload(folder: Path, uri: str) -> None:
    """Copy a folder into a bucket."""
    store = storage.open_store(uri)
    for path in folder.rglob("*"):
        if path.is_file():
            store.write(path.relative_to(folder).as_posix(), path)


def test_bucket(published: Path, pictures: Path, bucket: str) -> None:
    """Run, images and result may be in a bucket; nothing else is written."""
    upload(published, f"gs://{bucket}/trained")
    upload(pictures, f"gs://{bucket}/new")
    store = storage.open_store(f"gs://{bucket}")
    before = {info.name for info in store.list()}

    for out in ([], ["--csv"]):
        execute(
            f"gs://{bucket}/trained/latest", f"gs://{bucket}/new", "--top-k=2", "--out", f"gs://{bucket}/scored", *out
        )

    assert {"scored/new.jsonl", "scored/new.csv"} == {info.name for info in store.list()} - before
    documents = [json.loads(line) for line in store.read("scored/new.jsonl")[0].splitlines()]
    rows = list(csv.DictReader(store.read("scored/new.csv")[0].decode().splitlines()))
    expected = {uri.replace(str(pictures), f"gs://{bucket}/new"): scores for uri, scores in recorded(published).items()}
    check(documents, expected)
    assert [document["uri"] for document in documents] == [row["uri"] for row in rows]
    assert [document["predictions"][0]["label"] for document in documents] == [row["label"] for row in rows]
