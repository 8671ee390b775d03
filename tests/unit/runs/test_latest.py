"""latest.json and the files of its run: read through the store, verified, and never under a name of theirs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import latest_runs
import numpy as np
import pytest
from published_runs import described

from job import errors, storage
from job.data.manifest import content_keys
from job.runs.documents import encode
from job.runs.latest import PublishedFiles, UnusableRunError, read_latest

if TYPE_CHECKING:
    from pathlib import Path

    from job.storage import Store


@pytest.fixture
def output(tmp_path: Path) -> Store:
    """Return an output whose latest run trained on two images."""
    store = storage.open_store(str(tmp_path / "out"))
    latest_runs.publish(store, trained_on=[(10, 1), (20, 2**32 - 1)], held_out=[(30, 3)])
    return store


def test_read_latest(output: Store) -> None:
    """latest.json is read with its generation; one that is unreadable has a generation alone."""
    latest, generation = read_latest(output)
    assert latest is not None
    assert ("old", output.stat("latest.json").generation) == (latest.run_id, generation)

    output.write("latest.json", b"{}")
    assert (None, output.stat("latest.json").generation) == read_latest(output)
    output.delete("latest.json")
    assert (None, 0) == read_latest(output)


def test_labels_and_training_images(output: Store) -> None:
    """The labels come in the order of the probabilities; of the images only those of the train split count."""
    files = PublishedFiles(output, "old")

    assert ("a", "b") == files.labels()
    expected = content_keys(np.array([10, 20]), np.array([1, 2**32 - 1], np.uint32))
    assert expected.tolist() == files.training_content().tolist()


def test_downloaded_model(output: Store, tmp_path: Path) -> None:
    """The SavedModel is in a folder of its own, which is removed afterwards."""
    with PublishedFiles(output, "old").downloaded_model(tmp_path) as folder:
        found = {f"model/{path.relative_to(folder)}": path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        assert latest_runs.MODEL == found
    assert not folder.exists()


@pytest.mark.parametrize(
    "name",
    [
        "../../../escaped",
        "variables/../../../escaped",
        "/escaped",
        "assets/vocabulary",
        "variables/variables.index\n",
    ],
)
def test_other_names_are_not_downloaded(output: Store, tmp_path: Path, name: str) -> None:
    """A name in manifest.json that no SavedModel of this job has is never written to the disk, wherever it leads."""
    manifest = json.loads(output.read("runs/old/manifest.json")[0])
    manifest["files"][f"model/saved_model/{name}"] = described(b"graph").document()
    output.write("runs/old/manifest.json", encode(manifest))

    with PublishedFiles(output, "old").downloaded_model(tmp_path) as folder:
        assert len(latest_runs.MODEL) == sum(path.is_file() for path in folder.rglob("*"))
    assert not list(tmp_path.rglob("escaped"))


@pytest.mark.parametrize("run_id", ["", "..", "../jobs", "a/b", "a\nb", "x" * 101])
def test_name_that_is_no_run(output: Store, run_id: str) -> None:
    """A run_id in latest.json never leads out of runs/."""
    with pytest.raises(UnusableRunError, match="is not the name of a run"):
        PublishedFiles(output, run_id)


def test_deleted_run(output: Store) -> None:
    """A run without _SUCCESS is none, nor is one without manifest.json or with a foreign one."""
    output.write("runs/old/manifest.json", b"{}")
    with pytest.raises(UnusableRunError, match=r"manifest\.json of the run old is unreadable"):
        PublishedFiles(output, "old")
    output.delete("runs/old/manifest.json")
    with pytest.raises(UnusableRunError, match=r"manifest\.json is missing"):
        PublishedFiles(output, "old")
    output.delete("runs/old/_SUCCESS")
    with pytest.raises(UnusableRunError, match="has no _SUCCESS"):
        PublishedFiles(output, "old")


@pytest.mark.parametrize("name", ["model/saved_model/saved_model.pb", "model/labels.txt", "data/split.jsonl"])
@pytest.mark.parametrize("content", [b"damaged", None])
def test_damaged_file(output: Store, tmp_path: Path, name: str, content: bytes | None) -> None:
    """A file that is missing, or differs from manifest.json, is named."""
    if content is None:
        output.delete(f"runs/old/{name}")
    else:
        output.write(f"runs/old/{name}", content)
    files = PublishedFiles(output, "old")
    with pytest.raises(UnusableRunError, match=name):
        files.read(name)
    with pytest.raises(UnusableRunError), files.downloaded_model(tmp_path):
        assert [files.labels(), files.training_content()] == "one of the files is damaged"


@pytest.mark.parametrize("line", [b"[]", b"{", b'{"size": "x", "crc32c": 1}', b'{"size": 1, "crc32c": -1}', b"{}\n{}"])
def test_images_of_another_format(output: Store, line: bytes) -> None:
    """A list of images that this version cannot read is an unusable run, not a crash."""
    files = {"data/manifest.jsonl": line, "data/split.jsonl": b'{"split": "train"}'}
    latest_runs.publish(output, more_files=files)

    with pytest.raises(UnusableRunError, match="of another format"):
        PublishedFiles(output, "old").training_content()


def test_run_without_a_saved_model(output: Store, tmp_path: Path) -> None:
    """A manifest.json that lists no SavedModel is an unusable run."""
    manifest = json.loads(output.read("runs/old/manifest.json")[0])
    del manifest["files"]["model/saved_model/saved_model.pb"]
    output.write("runs/old/manifest.json", encode(manifest))

    with (
        pytest.raises(UnusableRunError, match=r"does not list .*saved_model\.pb"),
        PublishedFiles(output, "old").downloaded_model(tmp_path),
    ):
        pass


def test_no_folder_for_the_model(output: Store, tmp_path: Path) -> None:
    """A scratch folder that cannot be written ends the run with exit 20, naming it."""
    with (
        pytest.raises(errors.UnavailableError, match=f"cannot be written to {tmp_path}/absent") as caught,
        PublishedFiles(output, "old").downloaded_model(tmp_path / "absent"),
    ):
        pass
    assert 20 == caught.value.exit_code
