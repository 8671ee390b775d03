"""Runs are identified by content."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING

import latest_runs
import numpy as np
import pytest
from listed_inputs import ANIMALS, put, read_from
from published_runs import FILES, publish

from job import storage
from job.config.load import load_settings
from job.config.settings import ModelSettings, Settings
from job.errors import DataError
from job.runs.identity import Identity, default_run_id, identify

if TYPE_CHECKING:
    from pathlib import Path

    from job.data.manifest import Manifest


def digest(weights: Path | str) -> str:
    """Return the digest of a run that starts from such weights."""
    return identify(Settings(model=ModelSettings(weights=str(weights))), storage.open_store).digest


def test_weights_are_known_by_their_content(tmp_path: Path) -> None:
    """A weights file with other bytes is another run, and the same bytes under another name are the same run."""
    for name, data in (("a.h5", b"1"), ("b.h5", b"2"), ("copy.h5", b"1")):
        (tmp_path / name).write_bytes(data)

    a, b, copy = (digest(tmp_path / name) for name in ("a.h5", "b.h5", "copy.h5"))

    assert a == copy
    assert a != b


def test_weights_that_are_no_file_are_known_by_their_name() -> None:
    """ImageNet weights and random ones have different identities, and no file is looked up."""
    assert digest("imagenet") != digest("none")


def identity_of(*flags: str, manifest: Manifest | None = None) -> Identity:
    """Return the identity of a run with these flags."""
    return identify(load_settings(flags, {}).settings, storage.open_store, manifest)


@pytest.mark.parametrize(
    "flag",
    ["--run.seed=8", "--keep=last", "--fine_tuning.epochs=3", "--input.test_fraction=0.1", "--model.weights=none"],
)
def test_settings_that_change_the_result(flag: str) -> None:
    """Another value of a setting that changes the result is another run, and the difference names the setting."""
    name, _, value = flag.removeprefix("--").partition("=")
    other = identity_of(flag)

    assert identity_of().digest != other.digest
    [line] = other.differences(identity_of().document())
    assert re.match(rf"{re.escape(name)} is '?{re.escape(value)}'?, and was ", line)


@pytest.mark.parametrize(
    "flag",
    [
        "--output.uri=/elsewhere",
        "--cache.dir=/cache",
        "--log.level=debug",
        "--run.id=x",
        "--checkpoint.interval=5",
        "--input.image_column=id",
    ],
)
def test_settings_that_do_not(flag: str) -> None:
    """Paths, names and log settings are not part of a run's identity."""
    assert identity_of() == identity_of(flag)


def test_new_version_does_not_rename_runs(tmp_path: Path) -> None:
    """The ID of one data set is that of version 0.1.0: a newer one finds the runs that an older one has published.

    A result setting that was added since then enters the identity only where it differs from its default.
    """
    manifest, _ = read_from(put(tmp_path, ANIMALS))

    assert "animals-d9f6be4084" == default_run_id(identity_of(manifest=manifest), "gs://bucket/animals")


def test_data(tmp_path: Path) -> None:
    """The data count by their content: not by the place or the time at which they were written."""
    one, _ = read_from(put(tmp_path / "one", ANIMALS))
    moved = dataclasses.replace(one, roots=("gs://elsewhere",), generation=one.generation + 1)
    others = one.take(np.arange(1, len(one)))

    identity = identity_of(manifest=one)

    assert identity == identity_of(manifest=moved)
    assert identity.digest != identity_of(manifest=others).digest
    assert [] == identity.differences(identity_of(manifest=moved).document())
    [line] = identity.differences(identity_of(manifest=others).document())
    assert line.startswith("the data ")


def test_data_that_were_not_listed(tmp_path: Path) -> None:
    """Where the data were not listed they are not compared; the hashes for checkpoints keep them apart."""
    listed = identity_of(manifest=read_from(put(tmp_path, ANIMALS))[0])

    assert [] == identity_of().differences(listed.document())
    assert {"settings": identity_of().hashes()["settings"], "data": listed.data} == listed.hashes()


def test_recipe() -> None:
    """Another version of the recipe is another run."""
    newer = dataclasses.replace(identity_of(), recipe=identity_of().recipe + 1)

    assert newer.digest != identity_of().digest
    assert [f"the recipe's version is {newer.recipe}, and was {newer.recipe - 1}"] == newer.differences(
        identity_of().document()
    )


def test_damaged_document() -> None:
    """A document without settings differs in all of them."""
    assert len(identity_of().settings) <= len(identity_of().differences({}))


def test_weights_count_by_their_bytes(tmp_path: Path) -> None:
    """Weights in a file are identified by size and checksum: not by their path."""
    for name, data in (("a.h5", b"one"), ("b.h5", b"one"), ("c.h5", b"two")):
        (tmp_path / name).write_bytes(data)

    a, b, c = (identity_of(f"--model.weights={tmp_path}/{name}.h5").digest for name in "abc")

    assert a == b
    assert a != c


@pytest.mark.parametrize(
    ("uri", "slug"),
    [
        ("", "demo"),
        ("gs://bucket/Flowers 2024", "flowers-2024"),
        ("gs://bucket", "bucket"),
        ("/lists/cats_dogs.csv", "cats-dogs"),
        ("gs://b/猫", "run"),
        ("gs://b/" + "x" * 90, "x" * 40),
    ],
)
def test_default_run_id(uri: str, slug: str) -> None:
    """The ID is readable: the input's name as a slug, and ten digits of the identity."""
    identity = identity_of()

    assert f"{slug}-{identity.digest[:10]}" == default_run_id(identity, uri)


def test_warm_start_counts_by_its_manifest(tmp_path: Path) -> None:
    """The same published run under another path is the same start; another run is another one."""
    for name, files in (("a", FILES), ("b", FILES), ("c", FILES | {"data/split.jsonl": b"{}"})):
        publish(storage.open_store(str(tmp_path / name)), files, provenance=False)

    a, b, c = (digest(tmp_path / name) for name in "abc")
    assert a == b != c


def test_latest_counts_by_its_name(tmp_path: Path) -> None:
    """A newer latest.json does not make another run: each start would otherwise train on from its own result."""
    latest_runs.publish(storage.open_store(str(tmp_path)), "old")
    before = digest(tmp_path / "latest")
    latest_runs.publish(storage.open_store(str(tmp_path)), "new")

    assert before == digest(tmp_path / "latest") != digest("latest")


def test_warm_start_without_its_run(tmp_path: Path) -> None:
    """A run that is not there is refused before anything is read."""
    with pytest.raises(DataError, match="is not a published run"):
        digest(tmp_path / "runs/absent")
