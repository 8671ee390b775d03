"""job/data/manifest.py: manifests read from a bucket."""

from __future__ import annotations

import json
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from job import storage
from job.config.settings import InputSettings
from job.data.listing import read_listing
from job.data.manifest import check_usable
from job.data.sources import Sources
from job.errors import DataError
from job.storage import emulator as emulators
from job.storage.gcs import GoogleStore
from job.storage.lookup import LIST_THRESHOLD
from job.storage.parallel import THREADS

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from job.data.manifest import Manifest
    from job.data.quarantine import Quarantined

ANIMALS = [f"{label}/{i}.jpg" for label in ("cats", "dogs") for i in range(5)]


def put(bucket: str, names: Iterable[str], data: bytes | None = None) -> None:
    """Write objects, each with bytes of its own unless given."""
    store = storage.open_store(f"gs://{bucket}")
    for name in names:
        store.write(name, name.encode() if data is None else data)


def read_from(uri: str, **settings: Any) -> tuple[Manifest, list[Quarantined]]:
    """Read an input as a user names it."""
    return read_listing(InputSettings(uri=uri, **settings), storage.open_store)


def test_folders(bucket: str) -> None:
    """A prefix is a folder, with or without a final slash: siblings whose names begin with it are not listed."""
    put(bucket, [f"d/{name}" for name in ANIMALS])
    put(bucket, ["d_old/cats/1.jpg", "d-2/dogs/1.jpg", "d/.DS_Store"])

    manifests = [read_from(f"gs://{bucket}/d{slash}")[0] for slash in ("", "/")]

    assert ANIMALS == manifests[0].names
    assert manifests[0].digest() == manifests[1].digest()
    assert f"gs://{bucket}/d/cats/0.jpg" == manifests[1].uri(0)


def test_folder_markers(bucket: str) -> None:
    """Empty objects that stand for folders are neither images nor classes; an empty image is quarantined."""
    put(bucket, [f"d/{name}" for name in ANIMALS])
    put(bucket, ["d/", "d/cats/", "d/dogs/", "d/birds/", "d/cats/real.jpg"], b"")

    with capture_logs() as logs:
        manifest, quarantined = read_from(f"gs://{bucket}/d")

    assert (("cats", "dogs"), ANIMALS) == (manifest.labels, manifest.names)
    assert [["birds"]] == [entry["examples"] for entry in logs if entry["event"] == "input.folders_empty"]
    assert [(f"gs://{bucket}/d/cats/real.jpg", "empty")] == [(image.uri, image.reason) for image in quarantined]


def test_the_same_pictures_elsewhere_are_the_same_data(bucket: str) -> None:
    """The digest does not depend on bucket or prefix; it does on the bytes."""
    put(bucket, [f"{folder}/{name}" for folder in ("a", "b/c") for name in ANIMALS], b"same")

    digest = read_from(f"gs://{bucket}/a")[0].digest()

    assert digest == read_from(f"gs://{bucket}/b/c")[0].digest()
    put(bucket, ["b/c/cats/0.jpg"], b"other")
    assert digest != read_from(f"gs://{bucket}/b/c")[0].digest()


def test_vertex_manifest(bucket: str) -> None:
    """Vertex AI's JSON Lines find their objects, in folders that are listed and in those that are not."""
    many = [f"many/{i:03d} #?%.jpg" for i in range(LIST_THRESHOLD)]
    few = ["few/a.jpg", "b.jpg"]
    put(bucket, [*many, *few, "many/not named.jpg"])
    lines = [
        {
            "imageGcsUri": f"gs://{bucket}/{name}",
            "classificationAnnotation": {"displayName": "x" if name in few else "y"},
            "dataItemResourceLabels": {"aiplatform.googleapis.com/ml_use": "training"},
        }
        for name in [*many, *few, "few/absent.jpg", "many/absent.jpg"]
    ]
    text = "\n".join(map(json.dumps, lines))
    storage.open_store(f"gs://{bucket}").write("lists/import.jsonl", text.encode())

    manifest, quarantined = read_from(f"gs://{bucket}/lists/import.jsonl")

    assert sorted([*many, *few]) == manifest.names
    store = storage.open_store(f"gs://{bucket}")
    assert [store.stat(name) for name in manifest.names] == [manifest.object(row) for row in range(len(manifest))]
    absent = {f"gs://{bucket}/few/absent.jpg", f"gs://{bucket}/many/absent.jpg"}
    assert {(uri, "missing") for uri in absent} == {(image.uri, image.reason) for image in quarantined}


def test_relative_names(bucket: str) -> None:
    """Names in a bucket's manifest are relative to its folder, and never refer to local files."""
    put(bucket, ["d/cats/1.jpg", "d/dogs/1.jpg"])
    store = storage.open_store(f"gs://{bucket}/d")
    store.write("list.csv", b"cats/1.jpg,cat\n./dogs/1.jpg,dog\n")
    store.write("bad.csv", b"cats/1.jpg,cat\n../../etc/passwd,dog\n/etc/passwd,dog\n")

    manifest, quarantined = read_from(f"gs://{bucket}/d/list.csv")

    assert [f"gs://{bucket}/d/cats/1.jpg", f"gs://{bucket}/d/dogs/1.jpg"] == [manifest.uri(0), manifest.uri(1)]
    check_usable(manifest, quarantined, 0)
    with pytest.raises(DataError, match=r"line 2: .* leads out of .*\n  line 3: .* is on a local disk"):
        read_from(f"gs://{bucket}/d/bad.csv")


def test_rows_of_several_places(bucket: str, tmp_path: Path) -> None:
    """A local manifest may mix a bucket's images with local ones; the order of rows comes from the data alone."""
    put(bucket, ["x/cats/1.jpg", "x/dogs/1.jpg"], b"remote")
    for name in ("cats/1.jpg", "dogs/2.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"local")
    rows = [f"gs://{bucket}/x/{name}" for name in ("cats/1.jpg", "dogs/1.jpg")] + ["cats/1.jpg", "dogs/2.jpg"]
    (tmp_path / "list.csv").write_text("".join(f"{uri},{'cat' if 'cats' in uri else 'dog'}\n" for uri in rows))

    manifest, quarantined = read_from(str(tmp_path / "list.csv"))

    assert (str(tmp_path), f"gs://{bucket}/x") == manifest.roots
    found = [(manifest.uri(row), int(manifest.size[row])) for row in range(len(manifest))]
    expected = [(f"{tmp_path}/cats/1.jpg", 5), (rows[0], 6), (rows[1], 6), (f"{tmp_path}/dogs/2.jpg", 5)]
    assert expected == found
    check_usable(manifest, quarantined, 0)


def test_nothing_there(bucket: str) -> None:
    """A prefix with nothing under it, and a manifest that is not there, are errors that name them."""
    with pytest.raises(DataError, match=f"there is no file under gs://{bucket}/nowhere"):
        read_from(f"gs://{bucket}/nowhere")
    with pytest.raises(DataError, match=f"there is no manifest gs://{bucket}/list.csv"):
        read_from(f"gs://{bucket}/list.csv")


def test_many_buckets_share_one_bound(
    emulator: str, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table of images in forty buckets is read by 16 threads, with 16 open requests, and a client for each bucket."""
    buckets = [f"{bucket}-{number}" for number in range(40)]
    rows = [f"gs://{name}/{label}/{number}.jpg" for name in buckets for number, label in enumerate("abab")]
    for name in buckets:
        emulators.create_bucket(emulator, name)
        put(name, [f"{label}/{number}.jpg" for number, label in enumerate("abab")])
    (tmp_path / "table.csv").write_text("image,label\n" + "".join(f"{row},{row[-7]}\n" for row in rows))
    manifest = read_from(str(tmp_path / "table.csv"))[0]
    lock, requests, peak, opened = threading.Lock(), 0, 0, Counter[str]()
    read_listed = GoogleStore.read_listed

    def counted(store: GoogleStore, info: storage.ObjectInfo, closed: threading.Event) -> bytes | storage.LostObject:
        nonlocal requests, peak
        with lock:
            requests += 1
            peak = max(peak, requests)
        found = read_listed(store, info, closed)
        with lock:
            requests -= 1
        return found

    def open_store(uri: str) -> storage.Store:
        opened[uri] += 1
        return storage.open_store(uri)

    monkeypatch.setattr(GoogleStore, "read_listed", counted)
    found, threads = {}, 0
    for row, data in Sources(manifest, open_store).read(np.arange(len(manifest))):
        found[manifest.uri(row)] = data
        threads = max(threads, [thread.name for thread in threading.enumerate()].count("storage"))

    assert {row: row.partition(f"{row.split('/')[2]}/")[2].encode() for row in rows} == found
    assert dict.fromkeys(manifest.roots, 1) == opened
    assert (40, THREADS) == (len(opened), threads)
    assert 1 < peak <= THREADS
